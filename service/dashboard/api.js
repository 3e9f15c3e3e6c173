// Asking the service: JSON answers, problems as errors with a sentence, and the event stream of one run.

const PATIENCE_MS = 8000;

export class Answer extends Error {} // The server answered, with a problem.

export async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), headers: { Accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Answer(body.detail);
  return body;
}

export function query(values) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of [value].flat()) if (one !== "" && one !== null && one !== undefined) asked.append(name, one);
  }
  return asked.toString();
}

// Calls on.run, on.reports, on.problem with what comes; on.lost while there is no connection (it comes back by itself).
export function listen(run, after, on) {
  const source = new EventSource(`/api/loaders/${encodeURIComponent(run)}/stream?after=${after}`);
  for (const name of ["run", "reports", "problem"]) {
    source.addEventListener(name, (event) => on[name](JSON.parse(event.data)));
  }
  source.addEventListener("error", () => on.lost(source.readyState === EventSource.CLOSED));
  return source;
}
