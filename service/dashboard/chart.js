// A line chart over time: uPlot draws; legend, cursor by pointer or arrow keys, and words for screen readers are ours.

import { clock, el, setText } from "/dashboard/dom.js";

const HEIGHT = 190, COLOURS = 4;
const DASHES = [[], [7, 4], [2, 4], [10, 3, 2, 3]];
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400,
  172800, 432000, 864000, 2592000, 8640000];
const charts = new Set();

// Colours come from the style sheet, which knows light and dark; the canvas has to be told.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.rebuild()));

export class LineChart {
  // `least`: the y axis reaches at least so far; `most`: never further; `steps`: values that jump, on a scale of doublings.
  constructor({ title, unit, format, least = 0, most = Infinity, steps = false }) {
    Object.assign(this, { title, unit, format, least, most, steps, series: [], data: [[]], plot: null });
    this.note = el("span", { class: "muted", text: unit });
    this.key = el("ul", { class: "key" });
    this.area = el("div", { class: "plot", role: "img", tabindex: "0" });
    this.empty = el("p", { class: "muted empty", text: "no report yet" });
    this.node = el("figure", {}, el("figcaption", {}, el("span", { text: title }), this.note), this.key, this.empty, this.area);
    this.area.addEventListener("keydown", (event) => this.step(event));
    this.area.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => this.resize()).observe(this.area);
    charts.add(this);
  }

  // `series`: [{name, points: [[seconds, value], ...]}], in order of time; an empty one is not shown.
  show(series) {
    const before = this.series.map((one) => one.name).join();
    this.series = series.filter((one) => one.points.length);
    this.data = joined(this.series);
    this.empty.hidden = this.series.length > 0;
    if (!this.plot || before !== this.series.map((one) => one.name).join()) this.rebuild();
    else this.plot.setData(this.data);
    this.legend();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    const width = this.area.clientWidth;
    if (!width || !this.series.length) return;
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false },
      font: "12px system-ui, sans-serif", size: 28, gap: 4 };
    const line = (one, i) => ({
      label: one.name, stroke: colour(`--c${i % COLOURS}`), width: 1.8, dash: DASHES[i % COLOURS], spanGaps: true,
      points: { show: one.points.length <= 30, size: 5 },
      ...(this.steps && { paths: uPlot.paths.stepped({ align: 1 }) }),
    });
    this.plot = new uPlot({
      width, height: HEIGHT, legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: { x: { time: false }, y: this.steps ? { distr: 3, log: 2 } : { range: (_, low, high) => this.range(low, high) } },
      series: [{}, ...this.series.map(line)],
      axes: [
        { ...axis, incrs: TIME_STEPS, space: 70, values: (_, ticks) => ticks.map(clock) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : this.format(tick))) },
      ],
      hooks: { setCursor: [() => this.legend()] },
    }, this.data, this.area);
  }

  range(low, high) {
    return [Math.min(0, low ?? 0), Math.min(Math.max((high ?? 0) * 1.05, this.least), this.most)];
  }

  resize() {
    const width = this.area.clientWidth;
    if (!this.plot) this.rebuild();
    else if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const times = this.data[0];
    if (!move || !this.plot || !times.length) return;
    event.preventDefault();
    const stride = Math.max(Math.round(times.length / 50), 1);
    const place = Math.min(Math.max((this.plot.cursor.idx ?? times.length - 1) + move * stride, 0), times.length - 1);
    this.plot.setCursor({ left: this.plot.valToPos(times[place], "x"), top: 10 });
  }

  legend() {
    while (this.key.children.length > this.series.length) this.key.lastChild.remove();
    const at = this.plot?.cursor.idx ?? null;
    this.series.forEach((one, i) => {
      let item = this.key.children[i];
      if (!item) {
        item = el("li", {}, el("span", { class: `swatch c${i % COLOURS}`, "aria-hidden": "true" }), el("span"), el("strong"));
        this.key.append(item);
      }
      setText(item.children[1], one.name);
      setText(item.children[2], this.format(this.value(i, at)));
    });
    setText(this.note, at === null ? this.unit : `${this.unit}, at ${clock(this.data[0][at])}`);
    const said = this.series.map((one, i) => `${one.name} ${this.format(this.value(i, at))}`).join(", ");
    this.area.setAttribute("aria-label", `${this.title}, ${this.unit}: ${said || "no report yet"}. Arrow keys move in time.`);
  }

  // The last value, or the one at or before the cursor.
  value(i, at) {
    const values = this.data[i + 1];
    for (let n = at ?? values.length - 1; n >= 0; n -= 1) if (values[n] !== null) return values[n];
    return null;
  }
}

// uPlot wants one row of times and a row of values per line, null where a line has none.
function joined(series) {
  const times = [...new Set(series.flatMap((one) => one.points.map((p) => p[0])))].sort((a, b) => a - b);
  const place = new Map(times.map((time, i) => [time, i]));
  return [times, ...series.map((one) => {
    const values = new Array(times.length).fill(null);
    for (const [time, value] of one.points) values[place.get(time)] = value;
    return values;
  })];
}
