// The table of runs: state, shape, rates and verdict of each; the one that is chosen is shown below it.

import { count, duration, el, number, percent, setText } from "/dashboard/dom.js";

const $ = (id) => document.getElementById(id);
const rows = new Map();

export function showRuns(runs, chosen, choose) {
  $("no-runs").hidden = runs.length > 0;
  $("runs-scroll").hidden = runs.length === 0;
  const names = runs.map((run) => run.run);
  for (const [name, row] of rows) if (!names.includes(name)) { row.remove(); rows.delete(name); }
  runs.forEach((run, i) => {
    if (!rows.has(run.run)) rows.set(run.run, runRow(run.run, choose));
    const row = rows.get(run.run);
    if ($("runs").children[i] !== row) $("runs").insertBefore(row, $("runs").children[i] ?? null);
    fillRow(row, run, chosen);
  });
}

function runRow(name, choose) {
  const button = el("button", { class: "link", type: "button", text: name });
  button.addEventListener("click", () => choose(name));
  const state = el("td", {}, el("span", { class: "state" }, el("span", { class: "dot" }), el("span")));
  const cells = ["", "num", "", "num", "num", "num", "num", "num", "num", "num"].map((cls, i) => el("td", { class: `${cls} ${i ? "live" : ""}` }));
  return el("tr", {}, el("th", { scope: "row" }, button), cells[0], state, ...cells.slice(1));
}

function fillRow(row, run, chosen) {
  const s = run.latest ?? {};
  const state = run.error ? "unreadable" : run.state;
  const silent = run.state === "dead" ? `, silent for ${duration(run.heartbeat_age_s)}` : "";
  const ranks = run.num_ranks > 1 ? `, ${run.num_ranks} ranks` : "";
  const texts = [run.method ?? "–", null, run.latest ? `${s.epoch} / ${count(s.step)}` : "–", run.latest ? shape(s) : "–",
    number(s.learning_rate), number(s.loss), percent(s.top1), number(s.read), number(s.forward), number(s.backward), percent(s.wait_share)];
  texts.forEach((text, i) => { if (text !== null) setText(row.children[i + 1], text); });
  const [dot, word] = row.children[2].firstChild.children;
  dot.className = `dot ${state}`;
  setText(word, state + silent + ranks);
  row.title = run.error ?? run.verdict ?? "";
  row.classList.toggle("old", state !== "running");
  row.classList.toggle("chosen", run.run === chosen);
  row.querySelector("button").setAttribute("aria-pressed", run.run === chosen);
}

export function shape(s) {
  return `${s.batch_size}×${s.num_frames}×${s.height_px}×${s.width_px}`;
}
