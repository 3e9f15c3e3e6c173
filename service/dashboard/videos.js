// The videos of one dataset: a table to search (at first those with problems), and a contact sheet of its clips.

import { get, query } from "/dashboard/api.js";
import { ago, count, el, show, table } from "/dashboard/dom.js";

const PAGE = 25, TYPING_MS = 250, CLIPS = 12, FRAMES = 4;
const STATES = { problems: ["failed", "quarantined", "missing"], all: [] };
const $ = (id) => document.getElementById(id);

const now = { dataset: null, offset: 0, seed: 0, seen: "" };
let typing = null;

export function startVideos() {
  for (const id of ["videos-dataset", "videos-state", "videos-class"]) $(id).addEventListener("change", () => changed(id));
  $("videos-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => changed("videos-text"), TYPING_MS);
  });
  $("videos-form").addEventListener("submit", (event) => event.preventDefault());
  $("videos-before").addEventListener("click", () => turn(-PAGE));
  $("videos-after").addEventListener("click", () => turn(PAGE));
  $("sheet-other").addEventListener("click", () => { now.seed += 1; loadSheet(); });
  $("sheet-box").addEventListener("toggle", () => loadSheet());
}

// Told at every poll: offers the datasets there are, and asks again when the chosen one has changed.
export function datasetsSeen(datasets) {
  const names = datasets.map((dataset) => dataset.name);
  show($("videos-dataset"), names, () => names.map((name) => el("option", { value: name, text: name })));
  const chosen = datasets.find((dataset) => dataset.name === $("videos-dataset").value);
  if (!chosen) return;
  if (chosen.error) {
    $("videos-count").textContent = chosen.error;
    now.dataset = null; // Once it can be read again, everything of it is asked anew.
    return;
  }
  if (chosen.name !== now.dataset) changed("videos-dataset");
  else if (JSON.stringify(chosen.states) !== now.seen) loadVideos();
  now.seen = JSON.stringify(chosen.states);
}

function changed(id) {
  now.offset = 0;
  if (id === "videos-dataset") {
    now.dataset = $(id).value;
    now.seed = 0;
    $("videos-class").value = "";
    loadClasses();
  }
  loadVideos();
  if (id !== "videos-state") loadSheet();
}

function turn(by) {
  now.offset = Math.max(now.offset + by, 0);
  loadVideos();
}

function filters() {
  return { class: $("videos-class").value, q: $("videos-text").value.trim() };
}

function address(what, values) {
  return `/api/datasets/${encodeURIComponent(now.dataset)}/${what}?${query(values)}`;
}

async function loadClasses() {
  const dataset = now.dataset;
  const detail = await get(`/api/datasets/${encodeURIComponent(dataset)}`).catch(() => null);
  if (dataset !== now.dataset) return;
  const names = Object.keys(detail?.classes ?? {});
  const options = [el("option", { value: "", text: "every class" }), ...names.map((name) => el("option", { value: name, text: name }))];
  $("videos-class").replaceChildren(...options);
}

async function loadVideos() {
  if (!now.dataset) return;
  const state = $("videos-state").value;
  const asked = address("videos", { ...filters(), state: STATES[state] ?? [state], limit: PAGE, offset: now.offset });
  try {
    const page = await get(asked);
    const [first, last] = [now.offset + 1, now.offset + page.videos.length];
    $("videos-count").textContent = page.total ? `${count(first)} to ${count(last)} of ${count(page.total)}` : "No video passes these filters.";
    $("videos-before").disabled = now.offset === 0;
    $("videos-after").disabled = last >= page.total;
    show($("videos-table"), page.videos, () => [page.videos.length ? videosTable(page.videos) : null]);
  } catch (error) {
    $("videos-count").textContent = error.message;
    show($("videos-table"), null, () => []);
  }
}

function videosTable(videos) {
  const state = (video) => el("span", { class: "state" }, el("span", { class: `dot ${video.state}` }), el("span", { text: video.state }));
  const why = (video) => [video.reason, video.message].filter(Boolean).join(": ") || "–";
  const rows = videos.map((video) => [video.video_id, state(video), el("span", { class: "why", text: why(video) }),
    video.class_name || video.labels[0]?.label || "–", [...new Set(video.labels.map((label) => label.split))].join(", ") || "–",
    count(video.num_frames || null), ago(video.updated_at)]);
  return table("Videos that pass the filters", [["Video"], ["State"], ["Why"], ["Class"], ["Split"], ["Frames", true], ["Looked at"]], rows);
}

async function loadSheet() {
  if (!$("sheet-box").open || !now.dataset) return;
  const asked = address("sheet", { ...filters(), count: CLIPS, frames_per_clip: FRAMES, seed: now.seed });
  try {
    const sheet = await get(asked);
    $("sheet-count").textContent = sheet.clips.length ? `${sheet.clips.length} of ${count(sheet.total)} clips` : "No clip passes these filters.";
    show($("sheet"), sheet, () => sheet.clips.map(clip));
  } catch (error) {
    $("sheet-count").textContent = error.message;
    show($("sheet"), null, () => []);
  }
}

function clip(c) {
  const label = c.labels[0]?.label ?? c.class_name;
  const frames = c.frames.map((address, i) => {
    const image = el("img", { src: address, alt: `${c.video_id}, picture ${i + 1} of ${c.frames.length}`, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(el("span", { class: "broken", text: "not readable" })));
    return image;
  });
  return el("li", {}, el("div", { class: "strip" }, ...frames),
    el("p", {}, el("strong", { text: label || "no class" }), el("span", { class: "muted", text: ` ${c.video_id}, ${count(c.num_frames)} frames` })));
}
