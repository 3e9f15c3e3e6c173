// The page: asks the API once a second while it is seen, and shows what changed.

import { LineChart } from "/dashboard/chart.js";
import { bytes, count, duration, el, number, percent, setText, show, table } from "/dashboard/dom.js";

const EVERY_MS = 1000, PATIENCE_MS = 8000, MOST_SAMPLES = 5000;
const STATES = ["ok", "failed", "quarantined", "missing", "pending"], SPLITS = ["train", "val", "test"];
const $ = (id) => document.getElementById(id);

const charts = {
  speed: new LineChart({ title: "Speed", unit: "clips/s", format: number, least: 1 }),
  wait: new LineChart({ title: "Waiting for the loader", unit: "share of the time", format: percent, least: 0.1, most: 1 }),
  loss: new LineChart({ title: "Loss", unit: "per report", format: number, least: 0.1 }),
  top1: new LineChart({ title: "Top-1", unit: "share of clips that are right", format: percent, least: 1, most: 1 }),
};
$("charts").append(...Object.values(charts).map((chart) => chart.node));

// Asking

class Answer extends Error {} // The server answered, with a problem.

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), headers: { Accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Answer(body.detail);
  return body;
}

let timer = null, asking = false, lastSeen = null;
const chosen = { name: decodeURIComponent(location.hash.slice(1)), lastId: 0, samples: [], startedAt: null };

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const [datasets, runs] = await Promise.all([get("/api/datasets"), get("/api/loaders")]);
    showDatasets(datasets.datasets);
    if (!chosen.name && runs.runs.length) choose((runs.runs.find((run) => run.state === "running") ?? runs.runs[0]).run);
    showRuns(runs.runs);
    if (chosen.name) await pollRun(chosen.name);
    lastSeen = new Date();
    connection("Live", false);
  } catch (error) {
    console.warn(error);
    const since = lastSeen ? ` The numbers are those of ${lastSeen.toLocaleTimeString()}.` : "";
    connection(error instanceof Answer ? error.message : `Connection lost, trying again.${since}`, true);
  }
  asking = false;
  if (!document.hidden) timer = setTimeout(poll, EVERY_MS);
}

async function pollRun(name) {
  const at = `/api/loaders/${encodeURIComponent(name)}`;
  try {
    const [detail, speed] = await Promise.all([get(at), get(`${at}/speed?after=${chosen.lastId}&limit=${MOST_SAMPLES}`)]);
    if (name !== chosen.name) return; // Another run was chosen meanwhile.
    if (speed.last_id < chosen.lastId) Object.assign(chosen, { lastId: 0, samples: [] }); // Begun anew in the same folder.
    else chosen.lastId = speed.last_id;
    chosen.samples.push(...speed.samples);
    if (chosen.samples.length > 2 * MOST_SAMPLES) chosen.samples = chosen.samples.filter((_, i) => i % 2); // Long runs thin out.
    showRun(detail);
    runError("");
  } catch (error) {
    if (!(error instanceof Answer)) throw error;
    runError(error.message);
  }
}

function connection(text, lost) {
  setText($("connection"), text);
  $("connection").classList.toggle("lost", lost);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) poll();
});

// Datasets

const cards = new Map();

function showDatasets(datasets) {
  for (const dataset of datasets) {
    if (!cards.has(dataset.name)) {
      cards.set(dataset.name, el("article", { class: "card" }));
      $("datasets").append(cards.get(dataset.name));
    }
    show(cards.get(dataset.name), dataset, () => [
      el("h3", { text: dataset.name }),
      ...(dataset.error ? [el("p", { class: "error", text: dataset.error })] : datasetBody(dataset)),
    ]);
  }
}

function datasetBody(d) {
  const states = [...STATES, ...Object.keys(d.states).filter((s) => !STATES.includes(s))].filter((s) => d.states[s]);
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
    perSplit.length && scrolling("Videos by split", [["Split"], ...states.map((s) => [s, true])], perSplit),
    perLevel.length && scrolling("Stored levels", [["Store"], ["Short side", true], ["Videos", true], ["Frames", true], ["Size", true]], perLevel),
    perReason.length && scrolling("Failed and missing videos by reason", [["Reason"], ["Videos", true]], perReason),
  ];
}

function scrolling(caption, columns, rows) {
  return el("div", { class: "scroll" }, table(caption, columns, rows));
}

function facts(entries) {
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

// Runs

const rows = new Map();

function choose(name) {
  Object.assign(chosen, { name, lastId: 0, samples: [] });
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  Object.values(charts).forEach((chart) => chart.show([]));
}

function showRuns(runs) {
  $("no-runs").hidden = runs.length > 0;
  $("runs-scroll").hidden = runs.length === 0;
  const names = runs.map((run) => run.run);
  for (const [name, row] of rows) if (!names.includes(name)) { row.remove(); rows.delete(name); }
  runs.forEach((run, i) => {
    if (!rows.has(run.run)) rows.set(run.run, runRow(run.run));
    const row = rows.get(run.run);
    if ($("runs").children[i] !== row) $("runs").insertBefore(row, $("runs").children[i] ?? null);
    fillRow(row, run);
  });
}

function runRow(name) {
  const button = el("button", { class: "link", type: "button", text: name });
  button.addEventListener("click", () => { choose(name); poll(); });
  const state = el("td", {}, el("span", { class: "state" }, el("span", { class: "dot" }), el("span")));
  const cells = ["", "num", "", "num", "num", "num", "num", "num", "num"].map((cls, i) => el("td", { class: `${cls} ${i ? "live" : ""}` }));
  return el("tr", {}, el("th", { scope: "row" }, button), cells[0], state, ...cells.slice(1));
}

function fillRow(row, run) {
  const s = run.latest ?? {};
  const state = run.error ? "unreadable" : run.state;
  const silent = run.state === "dead" ? `, silent for ${duration(run.heartbeat_age_s)}` : "";
  const texts = [run.method ?? "–", null, run.latest ? `${s.epoch} / ${count(s.step)}` : "–", run.latest ? shape(s) : "–",
    number(s.learning_rate), number(s.loss), percent(s.top1), number(s.read), number(s.forward), number(s.backward)];
  texts.forEach((text, i) => { if (text !== null) setText(row.children[i + 1], text); });
  const [dot, word] = row.children[2].firstChild.children;
  dot.className = `dot ${state}`;
  setText(word, state + silent);
  row.classList.toggle("old", state !== "running");
  row.classList.toggle("chosen", run.run === chosen.name);
  row.querySelector("button").setAttribute("aria-pressed", run.run === chosen.name);
}

function shape(s) {
  return `${s.batch_size}×${s.num_frames}×${s.height_px}×${s.width_px}`;
}

// One run

function runError(text) {
  $("run").hidden = false;
  setText($("run-title"), chosen.name);
  setText($("run-error"), text);
  $("run-error").hidden = !text;
}

function showRun(run) {
  const parts = [run.method, run.dataset && `on ${run.dataset}`, run.state,
    run.latest && `${run.latest.phase} at epoch ${run.latest.epoch}, step ${count(run.latest.step)}`];
  setText($("run-about"), parts.filter(Boolean).join(" · "));
  show($("run-now"), run.latest, () => [run.latest && facts(now(run.latest))]);
  showCharts(run.started_at);
  show($("stages"), run.stages, () => [stagesTable(run.stages)]);
  show($("events"), run.events, () => [el("h3", { text: "Messages" }), eventList(run.events)]);
}

function now(s) {
  return {
    "batch (B×T×H×W)": shape(s), "learning rate": number(s.learning_rate), loss: number(s.loss), "top-1": percent(s.top1),
    "read, clips/s": number(s.read), "forward, clips/s": number(s.forward), "backward, clips/s": number(s.backward),
    "end to end, clips/s": number(s.clips_per_s), "waiting for the loader": percent(s.wait_share),
  };
}

function showCharts(startedAt) {
  const samples = chosen.samples;
  const start = samples.length ? Math.min(samples[0].at, startedAt ?? Infinity) : 0;
  const line = (name, field, phase) => ({
    name,
    points: samples.filter((s) => s[field] !== null && (!phase || s.phase === phase)).map((s) => [s.at - start, s[field]]),
  });
  const phases = [...new Set(samples.map((s) => s.phase))].sort((a, b) => (b === "train") - (a === "train"));
  const rated = phases[0];
  charts.speed.show([line("read (r)", "read", rated), line("forward (f)", "forward", rated),
    line("backward (b)", "backward", rated), line("end to end", "clips_per_s", rated)]);
  charts.wait.show([line("waiting", "wait_share", rated)]);
  charts.loss.show(phases.map((phase) => line(phase, "loss", phase)));
  charts.top1.show(phases.map((phase) => line(phase, "top1", phase)));
}

function stagesTable(stages) {
  const body = stages.map((s) => {
    const fill = el("span");
    fill.style.width = `${100 * s.share}%`;
    const share = el("span", {}, el("span", { class: "share", "aria-hidden": "true" }, fill), el("span", { text: percent(s.share) }));
    return [s.stage, share, duration(s.seconds), count(s.count), s.count ? `${number((1000 * s.seconds) / s.count)} ms` : "–",
      s.num_bytes ? bytes(s.num_bytes) : "–"];
  });
  const columns = [["Stage"], ["Share of busy time"], ["Busy", true], ["Items", true], ["Per item", true], ["Bytes", true]];
  return table(stages.length ? "Loader stages over the whole run, busy time summed over threads" : "No loader stage has reported yet", columns, body);
}

function eventList(events) {
  if (!events.length) return el("p", { class: "muted", text: "None so far." });
  const items = [...events].reverse().map((event) => {
    const time = new Date(event.at * 1000).toLocaleTimeString();
    return el("li", { class: event.level === "error" ? "error" : null, text: `${time} ${event.level}: ${event.message}` });
  });
  return el("ol", { reversed: "" }, ...items);
}

poll();
