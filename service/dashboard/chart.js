// A line chart in SVG: axes with units, a legend with the last values, a cursor (pointer, or arrow keys) with the values there.

import { clock, el, setText } from "/dashboard/dom.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 24, HEIGHT = 190;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400];

export class LineChart {
  // `least`: the y axis reaches at least so far; `most`: and never further.
  constructor({ title, unit, format, least = 0, most = Infinity }) {
    Object.assign(this, { title, unit, format, least, most, series: [], cursor: null });
    this.note = el("span", { class: "muted", text: unit });
    this.key = el("ul", { class: "key" });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("tabindex", "0");
    this.node = el("figure", {}, el("figcaption", {}, el("span", { text: title }), this.note), this.key, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  // `series`: [{name, points: [[seconds, value], ...]}], in order of time; an empty one is not shown.
  show(series) {
    this.series = series.filter((one) => one.points.length);
    this.draw();
  }

  point(offset) {
    this.cursor = offset === null || !this.x ? null : this.x.back(offset);
    this.draw();
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.x) return;
    event.preventDefault();
    const [from, to] = this.x.range;
    this.cursor = Math.min(Math.max((this.cursor ?? to) + (move * (to - from)) / 50, from), to);
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren();
    this.x = null;
    if (!this.series.length) {
      this.text("no report yet", width / 2, HEIGHT / 2, "middle");
      this.legend();
      return;
    }
    const all = this.series.flatMap((one) => one.points);
    const ys = extent(all.map((p) => p[1]));
    const ticks = valueTicks(Math.min(0, ys[0]), Math.min(Math.max(ys[1], this.least), this.most));
    this.x = scale(extent(all.map((p) => p[0])), [LEFT, width - RIGHT]);
    this.y = scale([ticks[0], ticks[ticks.length - 1]], [HEIGHT - BOTTOM, TOP]);
    this.axes(ticks, width);
    this.series.forEach((one, i) => this.line(one.points, i, width));
    if (this.cursor !== null) {
      const x = this.x(this.cursor);
      this.add("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM });
    }
    this.legend();
  }

  axes(ticks, width) {
    for (const tick of ticks) {
      this.add("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: this.y(tick), y2: this.y(tick) });
      this.text(this.format(tick), LEFT - 6, this.y(tick) + 4, "end");
    }
    const times = timeTicks(this.x.range, Math.max(Math.floor(width / 75), 2));
    times.forEach((tick, i) => {
      const at = this.x(tick);
      this.text(clock(tick) + (i === times.length - 1 ? (tick >= 3600 ? " h" : " min") : ""), at, HEIGHT - 6, at > width - 40 ? "end" : "middle");
    });
  }

  line(points, i, width) {
    const few = points.length <= 30;
    const drawn = few ? points : thin(points, this.x, width);
    const d = drawn.map(([x, y], n) => `${n ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    this.add("path", { class: `s s${i % 4}`, d });
    if (few) for (const [x, y] of points) this.add("circle", { class: `p${i % 4}`, cx: this.x(x), cy: this.y(y), r: 2.5 });
  }

  legend() {
    while (this.key.children.length > this.series.length) this.key.lastChild.remove();
    this.series.forEach((one, i) => {
      let item = this.key.children[i];
      if (!item) {
        const swatch = document.createElementNS(SVG, "svg");
        swatch.setAttribute("class", "swatch");
        swatch.setAttribute("aria-hidden", "true");
        const line = document.createElementNS(SVG, "path");
        line.setAttribute("class", `s s${i % 4}`);
        line.setAttribute("d", "M1 4H25");
        swatch.append(line);
        item = el("li", {}, swatch, el("span"), el("strong"));
        this.key.append(item);
      }
      setText(item.children[1], one.name);
      setText(item.children[2], this.format(this.value(one)));
    });
    setText(this.note, this.cursor === null ? this.unit : `${this.unit}, at ${clock(this.cursor)}`);
    const said = this.series.map((one) => `${one.name} ${this.format(this.value(one))}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}, ${this.unit}: ${said || "no report yet"}. Arrow keys move in time.`);
  }

  // The last value, or the one nearest to the cursor.
  value(one) {
    if (this.cursor === null) return one.points[one.points.length - 1][1];
    return one.points.reduce((best, p) => (Math.abs(p[0] - this.cursor) < Math.abs(best[0] - this.cursor) ? p : best))[1];
  }

  text(content, x, y, anchor) {
    this.add("text", { x, y, "text-anchor": anchor }).textContent = content;
  }

  add(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    this.svg.append(node);
    return node;
  }
}

function scale([from, to], [low, high]) {
  const span = to - from || 1;
  const place = (value) => low + ((value - from) / span) * (high - low);
  place.back = (pixel) => Math.min(Math.max(from + ((pixel - low) / (high - low)) * span, from), to);
  place.range = [from, to];
  return place;
}

function extent(values) {
  return values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
}

// About four round values from at or below `low` to at or above `high`.
function valueTicks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const first = Math.floor(low / step), last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function timeTicks([from, to], most) {
  const span = to - from;
  const step = TIME_STEPS.find((s) => span / s <= most) ?? Math.ceil(span / most / 86400) * 86400;
  const ticks = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) ticks.push(t);
  return ticks;
}

// The lowest and the highest point of every pixel column: a peak stays seen however many reports there are.
function thin(points, x, width) {
  if (points.length <= 2 * width) return points;
  const out = [];
  let column = null, low = null, high = null;
  const flush = () => { if (low) out.push(...(low === high ? [low] : low[0] <= high[0] ? [low, high] : [high, low])); };
  for (const p of points) {
    const here = Math.round(x(p[0]));
    if (here !== column) { flush(); column = here; low = high = p; }
    if (p[1] < low[1]) low = p;
    if (p[1] > high[1]) high = p;
  }
  flush();
  return out;
}
