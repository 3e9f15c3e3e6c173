// Small helpers: elements, tables, and numbers as people read them. Text reaches the page as textContent only.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const shown = new WeakMap();

// Rebuild `node` only when `data` is not what it shows already: keeps focus, selection and the screen reader at rest.
export function show(node, data, build) {
  const key = JSON.stringify(data);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  node.replaceChildren(...build().filter(Boolean));
}

// `columns`: [title, isNumber]; `rows`: cells, each a text or an element; the first cell heads its row.
export function table(caption, columns, rows) {
  const head = el("tr", {}, ...columns.map(([title, number]) => el("th", { scope: "col", class: number ? "num" : null, text: title })));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, i) => {
    const cls = columns[i][1] ? "num" : null;
    const node = i === 0 ? el("th", { scope: "row", class: cls }) : el("td", { class: cls });
    if (cell instanceof Node) node.append(cell);
    else node.textContent = cell;
    return node;
  })));
  return el("table", {}, el("caption", {}, el("span", { text: caption })), el("thead", {}, head), el("tbody", {}, ...body));
}

const missing = "–";

export function count(n) {
  return n === null || n === undefined ? missing : n.toLocaleString("en");
}

export function bytes(n) {
  if (n === null || n === undefined) return missing;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i += 1; }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

// Three digits that matter: 412, 61.3, 0.0521, 6.3e-8.
export function number(x) {
  if (x === null || x === undefined) return missing;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e-3 || size >= 1e7) return x.toExponential(1);
  return size >= 100 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3)));
}

export function percent(x) {
  return x === null || x === undefined ? missing : `${(100 * x).toFixed(Math.abs(x) < 0.1 && x !== 0 ? 1 : 0)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return missing;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function clock(seconds) {
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600);
  return hours ? `${hours}:${two(Math.floor((s % 3600) / 60))}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

export function ago(at) {
  return at === null || at === undefined ? missing : `${duration(Math.max(Date.now() / 1000 - at, 0))} ago`;
}
