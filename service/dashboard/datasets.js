// Datasets in short: a card each, with states, splits, levels, reasons, the ingest and the last verification.

import { ago, bytes, count, duration, el, number, percent, show, table } from "/dashboard/dom.js";

export const STATES = ["ok", "failed", "quarantined", "missing", "pending"];
const SPLITS = ["train", "val", "test"];
const cards = new Map();

export function showDatasets(home, datasets) {
  for (const dataset of datasets) {
    if (!cards.has(dataset.name)) {
      cards.set(dataset.name, el("article", { class: "card" }));
      home.append(cards.get(dataset.name));
    }
    show(cards.get(dataset.name), dataset, () => [
      el("h3", { text: dataset.name }),
      ...(dataset.error ? [el("p", { class: "error", text: dataset.error })] : body(dataset)),
    ]);
  }
}

function body(d) {
  const states = STATES.filter((s) => d.states[s]);
  const splits = [...SPLITS, ...Object.keys(d.splits).filter((s) => !SPLITS.includes(s))].filter((s) => d.splits[s]);
  const perSplit = splits.map((split) => [split, ...states.map((s) => count(d.splits[split][s] ?? 0))]);
  const perLevel = d.levels.map((l) => [l.store, `${l.short_side} px`, count(l.num_videos), count(l.num_frames), bytes(l.num_bytes)]);
  const perReason = Object.entries(d.reasons).sort((a, b) => b[1] - a[1]).map(([reason, n]) => [reason, count(n)]);
  return [
    facts({
      videos: count(d.num_videos), frames: count(d.num_frames), "on disk": bytes(d.num_bytes),
      "playing time": duration(d.duration_s), classes: count(d.num_classes),
    }),
    ...statusBar(d, states),
    ingest(d.ingest),
    verification(d.last_verification),
    perSplit.length && scrolling("Videos by split", [["Split"], ...states.map((s) => [s, true])], perSplit),
    perLevel.length && scrolling("Stored levels", [["Store"], ["Short side", true], ["Videos", true], ["Frames", true], ["Size", true]], perLevel),
    perReason.length && scrolling("Failed, quarantined and missing videos by reason", [["Reason"], ["Videos", true]], perReason),
  ];
}

function scrolling(caption, columns, rows) {
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, table(caption, columns, rows));
}

export function facts(entries) {
  const pairs = Object.entries(entries).map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value })));
  return el("dl", { class: "facts" }, ...pairs);
}

function statusBar(d, states) {
  const parts = states.map((state) => {
    const part = el("span", { class: state });
    part.style.flexGrow = d.states[state];
    return part;
  });
  const words = states.map((state) => [state, `${count(d.states[state])} ${state} (${percent(d.states[state] / d.num_videos)})`]);
  const key = words.map(([state, text]) => el("li", {}, el("span", { class: `dot ${state}` }), el("span", { text })));
  return [el("div", { class: "bar", "aria-hidden": "true" }, ...parts), el("ul", { class: "key", "aria-label": "Videos by state" }, ...key)];
}

function ingest(run) {
  if (!run) return null;
  const worked = run.done + run.failed + run.skipped;
  const outcome = `${count(run.done)} converted, ${count(run.failed)} failed, ${count(run.skipped)} were there already`;
  if (run.state !== "running") {
    const word = { dead: "was killed", interrupted: "was interrupted" }[run.state] ?? run.state;
    return el("p", { class: "muted", text: `Last ingest ${word}: ${outcome}.` });
  }
  const left = run.time_left_s === null ? "" : `, ${duration(run.time_left_s)} left`;
  const text = `Ingest running: ${count(worked)} of ${count(run.total)} videos, ${number(run.videos_per_s)} videos/s${left}`;
  return el("div", { class: "ingest" }, el("span", { text }),
    el("progress", { max: run.total, value: worked, "aria-label": "Ingest progress" }), el("span", { class: "muted", text: outcome }));
}

function verification(v) {
  if (!v) return el("p", { class: "muted", text: "Never verified: clipmill ingest verify" });
  const found = v.problems ? `${count(v.problems)} problems` : "no problem";
  const text = `Verified ${ago(v.at)}${v.deep ? ", every image decoded" : ""}: ${count(v.frames)} frames, ${found}.`;
  return el("p", { class: v.problems ? "error" : "muted", text });
}
