// Keeps the page true: progress and status words from events as they come, everything else by fetching the page again.

import { refresh, soon } from "./refresh.js";
import { clockTime, now } from "./times.js";
import { showVitals } from "./vitals.js";
import { jobWord, progressLine } from "./words.js";

const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_MS = 45_000; // three beats of the stream (HEARTBEAT_S in dashboard/stream.py)
const UNSEEN_KEPT = 5000;

let source = null;
let lost = false;
let tries = 0;
let retry = 0;
let watch = 0;
const unseen = new Map(); // what the feed last said of jobs that are not on the page
const jobs = new Map(); // what the feed last said of each running job, to show again after a refresh

export { refresh };

export function follow() {
  say();
  connect();
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : resume()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => event.persisted && resume());
  addEventListener("offline", connectionLost);
  addEventListener("online", reconnect);
  document.addEventListener("farm:refreshed", () => {
    jobs.forEach(showJob);
    say();
  });
  // The event stream says when the head is back, and then everything is fetched again.
  document.addEventListener("farm:unreached", () => source?.readyState !== EventSource.OPEN && connectionLost());
}

/** Opens the event stream, of a page that is looked at: a browser allows six connections to a host, and hidden tabs must not use them up. */
function connect() {
  clearTimeout(retry);
  if (document.hidden) return;
  source = new EventSource(document.body.dataset.events);
  heard();
  source.addEventListener("open", () => {
    heard();
    connectionBack();
  });
  source.addEventListener("error", () => {
    const closed = source?.readyState === EventSource.CLOSED;
    connectionLost();
    // The browser tries again by itself after a cut line, but not after an answer that is no stream.
    if (closed) {
      disconnect();
      retry = setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
      refresh(); // where the session has ended, to the sign-in page
    }
  });
  const ways = { snapshot: onSnapshot, job: onJob, card: onCard, queue: onQueue, link: soon, reset: soon, beat: () => {} };
  for (const [name, way] of Object.entries(ways)) {
    source.addEventListener(name, (event) => {
      heard();
      way(JSON.parse(event.data));
    });
  }
}

function disconnect() {
  clearTimeout(retry);
  clearTimeout(watch);
  source?.close();
  source = null;
}

function reconnect() {
  disconnect();
  connect();
}

/** Goes on where the page is looked at again; what happened meanwhile is in the store. */
function resume() {
  if (source) return;
  connect();
  refresh();
}

/** The line lives. A head that loses its power closes no connection: only its silence tells. */
function heard() {
  clearTimeout(watch);
  watch = setTimeout(() => {
    connectionLost();
    reconnect();
  }, SILENT_MS);
}

function connectionLost() {
  if (!lost) announce("Connection lost, trying again");
  lost = true;
  say();
}

function connectionBack() {
  tries = 0;
  if (lost) {
    lost = false;
    announce("Connection back");
    refresh(); // whatever happened meanwhile is in the store
  }
  say();
}

/** The line that says how fresh the page is; not read out, for it changes every minute. */
function say() {
  const line = document.getElementById("updated");
  if (!line) return;
  const text = lost ? "Connection lost, trying again" : `Updated ${clockTime(now())}`;
  if (line.textContent !== text) line.textContent = text;
  line.dataset.tone = lost ? "bad" : "off";
}

/** Read out by a screen reader, and not shown. */
function announce(text) {
  const line = document.getElementById("connection");
  if (line) line.textContent = text;
}

/** What is live when the stream begins. Fetches the page again where something moved between its making and now. */
function onSnapshot({ scheduler, queue, jobs: live, cards }) {
  say();
  live.filter((job) => job.status === "running").forEach(showJob);
  cards.forEach(showVitals);
  const wrong =
    String(scheduler) !== document.body.dataset.connected ||
    (scheduler && (live.some(jobDiffers) || cards.some(cardDiffers) || someJobEnded(live))) ||
    (Number(document.body.dataset.queue) !== queue && showsTheQueue());
  if (wrong) soon();
}

function someJobEnded(live) {
  const running = new Set(live.filter((job) => job.status === "running").map((job) => job.id));
  return [...document.querySelectorAll('[data-job][data-status="running"]')].some((one) => !running.has(one.dataset.job));
}

/** Whether the page shows a job otherwise than the feed tells it, or should show it and does not. */
function jobDiffers(job) {
  const there = [...document.querySelectorAll(`[data-job="${CSS.escape(job.id)}"]`)];
  if (there.length === 0) return isNews(job) && [...document.querySelectorAll("[data-holds]")].some((list) => ["all", job.status].includes(list.dataset.holds));
  return there.some((element) => element.dataset.status !== job.status);
}

/** Whether the feed tells this status of a job for the first time: of one that the page has no room for it goes on telling. */
function isNews(job) {
  const news = unseen.get(job.id) !== job.status;
  if (unseen.size > UNSEEN_KEPT) unseen.clear();
  unseen.set(job.id, job.status);
  return news;
}

function cardDiffers(card) {
  const there = [...document.querySelectorAll(`[data-card="${CSS.escape(card.id)}"]`)];
  if (there.length === 0) return document.querySelector("#nodes, #cards") !== null && isNews({ id: card.id, status: `${card.state} ${card.job_id}` });
  return there.some((one) => one.dataset.state !== card.state || one.dataset.doing !== (card.job_id || "")
    || (one.dataset.fetching ?? fetching(card)) !== fetching(card));
}

/** How far its PC is with the models that it fetches; only the page of cards tells. */
function fetching(card) {
  return card.fetching.join("; ");
}

function onJob(job) {
  say();
  if (job.status === "running") showJob(job);
  else jobs.delete(job.id);
  // Of a job that does not run the feed may also say why it waits, or that somebody rated or cancelled it.
  const shown = document.querySelector(`[data-job="${CSS.escape(job.id)}"]`) !== null;
  showStatus(job);
  if (jobDiffers(job) || (shown && job.status !== "running")) soon();
}

/** Puts a job's new status in its word at once. `data-status` stays with the rest of what was fetched, until that is fetched again. */
function showStatus(job) {
  for (const place of document.querySelectorAll(`[data-job="${CSS.escape(job.id)}"]`)) {
    const shown = place.querySelector(".status"); // the first is the job's own, later ones are of its attempts
    if (!shown || place.dataset.status === job.status) continue;
    const { word, tone } = jobWord(job.status);
    shown.dataset.tone = tone;
    shown.lastChild.data = word; // after the dot
  }
}

/** Places in the queue and expected times have moved: shown by the page that shows a job which has not ended. */
function onQueue() {
  say();
  if (showsTheQueue()) soon();
}

function showsTheQueue() {
  return document.querySelector('[data-job][data-status="queued"], [data-job][data-status="running"]') !== null;
}

function onCard(card) {
  say();
  document.dispatchEvent(new CustomEvent("farm:card", { detail: card }));
  showVitals(card);
  if (cardDiffers(card)) soon();
}

/** Puts a running job's progress and newest look wherever the page shows them. */
function showJob(job) {
  const before = jobs.get(job.id);
  jobs.set(job.id, job);
  const further = before && (before.phase !== job.phase || (!before.preview && job.preview));
  if (further && document.querySelector(".one")) soon(); // the story of its attempts goes on too
  const id = CSS.escape(job.id);
  for (const block of document.querySelectorAll(`[data-progress="${id}"]`)) {
    const bar = block.querySelector("progress");
    if (job.total) {
      bar.max = job.total;
      bar.value = job.done;
    } else bar.removeAttribute("value");
    block.querySelector(".progress-line").textContent = progressLine(job);
  }
  if (!job.preview) return;
  for (const picture of document.querySelectorAll(`img[data-preview="${id}"]`)) {
    const address = `/api/v1/jobs/${encodeURIComponent(job.id)}/preview?n=${job.preview}`;
    if (picture.getAttribute("src") === address || picture.dataset.coming === address) continue;
    picture.dataset.coming = address;
    const loader = new Image(); // swapped in when it is there, so that the old one never flashes away
    loader.addEventListener("load", () => picture.setAttribute("src", address));
    loader.src = address;
  }
}
