// The page: asks for the lists every two seconds while it is seen, and follows the chosen run by its event stream.

import { Answer, get, listen } from "/dashboard/api.js";
import { showDatasets } from "/dashboard/datasets.js";
import { setText } from "/dashboard/dom.js";
import { clearRun, runError, showCharts, showRun, startRun } from "/dashboard/run.js";
import { showRuns } from "/dashboard/runs.js";
import { datasetsSeen, startVideos } from "/dashboard/videos.js";

const EVERY_MS = 2000, POINTS = 1500, MOST_SAMPLES = 4000;
const $ = (id) => document.getElementById(id);

let timer = null, asking = false, lastSeen = null, runs = [];
const chosen = { name: decodeURIComponent(location.hash.slice(1)), lastId: 0, samples: [], startedAt: null, source: null };

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const [datasets, found] = await Promise.all([get("/api/datasets"), get("/api/loaders")]);
    showDatasets($("datasets"), datasets.datasets);
    datasetsSeen(datasets.datasets);
    runs = found.runs;
    if (!chosen.name && runs.length) chosen.name = (runs.find((run) => run.state === "running") ?? runs[0]).run;
    showRuns(runs, chosen.name, choose);
    if (chosen.name && !chosen.source) follow();
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

function connection(text, lost) {
  setText($("connection"), text);
  $("connection").classList.toggle("lost", lost);
}

function choose(name) {
  leave();
  Object.assign(chosen, { name, lastId: 0, samples: [], startedAt: null });
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  clearRun(name);
  showRuns(runs, name, choose);
  follow();
  $("run-title").scrollIntoView({ block: "nearest" });
}

function leave() {
  chosen.source?.close();
  chosen.source = null;
}

// The past in few points, then the stream from there on.
async function follow() {
  const name = chosen.name;
  chosen.source = { close() {} }; // Nobody else begins meanwhile.
  try {
    const past = await get(`/api/loaders/${encodeURIComponent(name)}/speed?points=${POINTS}`);
    if (name !== chosen.name || !chosen.source) return;
    Object.assign(chosen, { samples: past.samples, lastId: past.last_id, startedAt: past.started_at });
    chosen.source = listen(name, past.last_id, {
      run: (run) => {
        chosen.startedAt = run.started_at;
        showRun(run);
      },
      reports: (speed) => {
        take(speed.samples, speed.last_id);
        showCharts(chosen.samples, chosen.startedAt);
      },
      problem: (problem) => runError(name, problem.detail),
      lost: (closed) => { if (closed) leave(); }, // Refused: the next poll tries anew.
    });
    showCharts(chosen.samples, chosen.startedAt);
  } catch (error) {
    if (name !== chosen.name) return;
    chosen.source = null;
    if (error instanceof Answer) runError(name, error.message);
  }
}

function take(samples, lastId) {
  const anew = samples.length && samples[0].id <= chosen.lastId; // The run was begun anew in the same folder.
  if (anew) chosen.samples = [];
  chosen.samples.push(...samples);
  chosen.lastId = lastId;
  if (chosen.samples.length > MOST_SAMPLES) chosen.samples = chosen.samples.filter((_, i) => i % 2);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) leave(); // A hidden tab asks for nothing, and holds none of the browser's few connections.
  else poll();
});

startRun();
startVideos();
poll();
