// A clip's way through the stages: each bar begins where the one before ends, its length is what one clip takes.

import { bytes, count, duration, el, number, percent, table } from "/dashboard/dom.js";

const WAY = ["read", "decode", "augment", "assemble", "transfer"];
const COLUMNS = [["Stage"], ["Time of one clip"], ["Mean", true], ["p50", true], ["p90", true], ["p99", true], ["Share", true],
  ["Clips", true], ["Busy", true], ["Bytes", true]];

export function waterfall(stages, latest) {
  if (!stages.length) return el("p", { class: "muted", text: "No loader stage has reported yet." });
  const steps = [...ordered(stages), ...passes(latest)];
  const whole = steps.reduce((sum, step) => sum + step.perClip, 0) || 1;
  let begin = 0;
  const rows = steps.map((step) => {
    const bar = el("span", { class: `fall ${step.kind}`, "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.marginLeft = `${(100 * begin) / whole}%`;
    bar.firstChild.style.width = `${(100 * step.perClip) / whole}%`;
    begin += step.perClip;
    const s = step.stage;
    return [step.name, bar, ms(step.perClip), ms(s?.p50_s), ms(s?.p90_s), ms(s?.p99_s), s ? percent(s.share) : "–",
      s ? count(s.count) : "–", s ? duration(s.seconds) : "–", s?.num_bytes ? bytes(s.num_bytes) : "–"];
  });
  return table("A clip's way: time of one clip in each stage, in one thread, over the whole run; percentiles of the newest clips", COLUMNS, rows);
}

function ordered(stages) {
  const place = (stage) => (stage.stage === "wait" ? 99 : (WAY.indexOf(stage.stage) + 50) % 50);
  return [...stages].sort((a, b) => place(a) - place(b)).map((stage) => ({
    name: stage.stage, stage, kind: stage.stage === "wait" ? "waiting" : "loading", perClip: stage.count ? stage.seconds / stage.count : 0,
  }));
}

function passes(latest) {
  const known = ["forward", "backward"].filter((name) => latest?.[name]);
  return known.map((name) => ({ name, stage: null, kind: "model", perClip: 1 / latest[name] }));
}

function ms(seconds) {
  return seconds === null || seconds === undefined ? "–" : `${number(1000 * seconds)} ms`;
}
