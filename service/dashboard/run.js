// One run: verdict, numbers now, charts over time, the way of a clip through the stages, ranks, messages, config.

import { LineChart } from "/dashboard/chart.js";
import { facts } from "/dashboard/datasets.js";
import { count, duration, el, number, percent, setText, show, table } from "/dashboard/dom.js";
import { shape } from "/dashboard/runs.js";
import { waterfall } from "/dashboard/waterfall.js";

const $ = (id) => document.getElementById(id);
const share = (title, unit) => new LineChart({ title, unit, format: percent, least: 1, most: 1 });

const charts = {
  speed: new LineChart({ title: "Speed", unit: "clips/s", format: number, least: 1 }),
  wait: share("Waiting and slots", "share"),
  loss: new LineChart({ title: "Loss", unit: "per report", format: number, least: 0.1 }),
  top1: share("Top-1", "share of clips that are right"),
  shape: new LineChart({ title: "Batch shape", unit: "B, T in number, H, W in pixels", format: number, steps: true }),
  rate: new LineChart({ title: "Learning rate", unit: "of the first group", format: number }),
};

export function startRun() {
  $("charts").append(...Object.values(charts).map((chart) => chart.node));
}

export function clearRun(name) {
  setText($("run-title"), name);
  Object.values(charts).forEach((chart) => chart.show([]));
}

export function runError(name, text) {
  $("run").hidden = false;
  setText($("run-title"), name);
  setText($("run-error"), text);
  $("run-error").hidden = !text;
}

export function showRun(run) {
  runError(run.run, "");
  const parts = [run.method, run.dataset && `on ${run.dataset}`, run.state, run.pushed && "on another machine",
    run.latest && `${run.latest.phase} at epoch ${run.latest.epoch}, step ${count(run.latest.step)}`];
  setText($("run-about"), parts.filter(Boolean).join(" · "));
  setText($("run-verdict"), run.verdict ?? "");
  $("run-verdict").className = run.state === "dead" ? "verdict bad" : run.verdict?.startsWith("The loader is") ? "verdict warn" : "verdict";
  show($("run-now"), run.latest, () => [run.latest && facts(now(run.latest))]);
  show($("stages"), [run.stages, run.latest?.forward, run.latest?.backward], () => [waterfall(run.stages, run.latest)]);
  $("ranks").hidden = run.ranks.length < 2;
  show($("ranks"), run.ranks.map((rank) => [rank.latest?.id, rank.state, rank.straggler, rank.error]), () => [ranksTable(run.ranks)]);
  show($("events"), run.events, () => [el("h3", { text: "Messages" }), eventList(run.events)]);
  show($("config"), [run.config, run.about], () => [el("pre", { tabindex: "0", text: JSON.stringify({ ...run.about, config: run.config }, null, 2) })]);
}

function now(s) {
  return {
    "batch (B×T×H×W)": shape(s), "learning rate": number(s.learning_rate), loss: number(s.loss), "top-1": percent(s.top1),
    "read, clips/s": number(s.read), "forward, clips/s": number(s.forward), "backward, clips/s": number(s.backward),
    "end to end, clips/s": number(s.clips_per_s), "waiting for the loader": percent(s.wait_share), "slots ready": percent(s.occupancy),
  };
}

export function showCharts(samples, startedAt) {
  const start = samples.length ? Math.min(samples[0].at, startedAt ?? Infinity) : 0;
  const line = (name, field, phase) => ({
    name,
    points: samples.filter((s) => s[field] !== null && (!phase || s.phase === phase)).map((s) => [s.at - start, s[field]]),
  });
  const phases = [...new Set(samples.map((s) => s.phase))].sort((a, b) => (b === "train") - (a === "train"));
  const rated = phases[0];
  charts.speed.show([line("read (r)", "read", rated), line("forward (f)", "forward", rated),
    line("backward (b)", "backward", rated), line("end to end", "clips_per_s", rated)]);
  charts.wait.show([line("waiting for the loader", "wait_share", rated), line("slots ready", "occupancy", rated)]);
  charts.loss.show(phases.map((phase) => line(phase, "loss", phase)));
  charts.top1.show(phases.map((phase) => line(phase, "top1", phase)));
  charts.shape.show([line("clips (B)", "batch_size", rated), line("frames (T)", "num_frames", rated),
    line("height (H)", "height_px", rated), line("width (W)", "width_px", rated)]);
  charts.rate.show([line("learning rate", "learning_rate", rated)]);
}

function ranksTable(ranks) {
  const rows = ranks.map((r) => {
    const s = r.latest ?? {};
    const state = r.error ?? (r.state === "dead" ? `dead, silent for ${duration(r.heartbeat_age_s)}` : r.state);
    return [`rank ${r.rank}`, r.straggler ? `${state}, holds the others up` : state, count(s.step), number(s.read), number(s.forward),
      number(s.backward), percent(s.wait_share), percent(s.occupancy)];
  });
  const columns = [["Rank"], ["State"], ["Step", true], ["r", true], ["f", true], ["b", true], ["Waits", true], ["Slots ready", true]];
  return table("Ranks side by side, clips per second", columns, rows);
}

function eventList(events) {
  if (!events.length) return el("p", { class: "muted", text: "None so far." });
  const items = [...events].reverse().map((event) => {
    const time = new Date(event.at * 1000).toLocaleTimeString();
    return el("li", { class: event.level === "error" ? "error" : null, text: `${time} ${event.level}: ${event.message}` });
  });
  return el("ol", { reversed: "" }, ...items);
}
