// Recent jobs, with their progress: rows are changed in place, so that focus and reading stay.

import { ask, at } from "./ask.js";

const EVERY = 2000;  // ms
const WORDS = { queued: "Waiting", running: "Running", done: "Done", failed: "Failed",
                cancelled: "Cancelled" };
const rows = new Map();  // by id of the job

export async function watch() {
  if (watch.on) return;
  watch.on = true;
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resume) => setTimeout(resume, EVERY));
  }
}

async function look() {
  let jobs;
  try {
    ({ jobs } = await ask("/v2/jobs"));
  } catch {
    return;  // the next look may do better; what is on screen stays
  }
  at("jobs").hidden = jobs.length === 0;
  const gone = new Set(rows.keys());
  jobs.forEach((job, place) => {
    gone.delete(job.id);
    const row = rows.get(job.id) || add(job);
    const there = at("job-rows").children[place];
    if (there !== row.line) at("job-rows").insertBefore(row.line, there || null);
    show(row, job);
  });
  for (const id of gone) {
    rows.get(id).line.remove();
    rows.delete(id);
  }
}

function add({ id, request, version }) {
  const line = document.createElement("tr");
  const head = made("th", line);
  head.scope = "row";
  head.append(id);
  made("small", head).textContent =
    `${request.model} version ${version} · ${request.source.uri} → ${request.sink.uri}`;
  const state = made("td", line);
  const track = made("td", line);
  const bar = made("progress", track);
  bar.setAttribute("aria-label", `Progress of ${id}`);
  const count = made("span", track);
  const [failed, rate, left] = ["number", "number", "number"].map((kind) => {
    const cell = made("td", line);
    cell.className = kind;
    return cell;
  });
  const cancel = made("button", made("td", line));
  cancel.textContent = "Cancel";
  cancel.setAttribute("aria-label", `Cancel ${id}`);
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    try {
      await ask(`/v2/jobs/${id}`, { method: "DELETE" });
      await look();
    } catch (error) {
      at("jobs-status").textContent = `${id} was not cancelled: ${error.message}`;
    }
    cancel.disabled = false;
  });
  const row = { line, state, bar, count, failed, rate, left, cancel, last: "" };
  rows.set(id, row);
  return row;
}

function show(row, job) {
  const { id, state, total, done, failed, rate_per_s: rate, eta_s: left, error } = job;
  if (row.last && row.last !== state) {
    at("jobs-status").textContent = `${id}: ${WORDS[state]}. ${error || ""}`;
  }
  if (row.last !== state) {
    row.state.textContent = WORDS[state];
    if (error) Object.assign(made("p", row.state), { className: "note", textContent: error });
  }
  row.last = state;
  if (total === null) {
    if (state === "running") row.bar.removeAttribute("value");  // it is being listed
    else row.bar.value = 0;
  } else {
    row.bar.max = total;
    row.bar.value = done;
  }
  row.count.textContent = total === null ? "" : `${number(done)} of ${number(total)}`;
  row.failed.textContent = number(failed);
  row.rate.textContent = rate === null ? "" : `${number(Math.round(rate * 10) / 10)}/s`;
  row.left.textContent = left === null ? "" : clock(left);
  const over = state !== "queued" && state !== "running";
  if (over && document.activeElement === row.cancel) at("jobs-title").focus();
  row.cancel.hidden = over;
}

function made(tag, parent) {
  return parent.appendChild(document.createElement(tag));
}

function number(value) {
  return value.toLocaleString("en");
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return `${minutes}:${rest} min`;
}
