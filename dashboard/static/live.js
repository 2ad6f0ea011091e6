// Keeps the page true: progress from events as they come, everything else by fetching the page again and morphing it.
// The server's templates stay the only place that knows how a job looks.

import { morph } from "./morph.js";
import { clockTime, now, setClock, showTimes } from "./times.js";
import { showVitals } from "./vitals.js";
import { progressLine } from "./words.js";

const REFRESH_EVERY_MS = 1000; // at most: on a busy farm jobs end many times a second
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const UNSEEN_KEPT = 5000;
const PARTS = ["main", "#farm-word"];

let source = null;
let lost = false;
let tries = 0;
let retry = 0;
let planned = 0;
let refreshing = false;
let again = false;
let last = 0;
const unseen = new Map(); // what the feed last said of jobs that are not on the page
const jobs = new Map(); // what the feed last said of each running job, to show again after a refresh

export function follow() {
  say();
  connect();
  document.addEventListener("visibilitychange", () => {
    // A browser allows six connections to a host; hidden tabs must not use them up.
    if (document.hidden) disconnect();
    else if (!source) {
      connect();
      refresh();
    }
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => {
    if (event.persisted && !source) {
      connect();
      refresh();
    }
  });
  addEventListener("offline", () => connectionLost());
  addEventListener("online", () => {
    disconnect();
    connect();
  });
}

function connect() {
  clearTimeout(retry);
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("open", connectionBack);
  source.addEventListener("error", () => {
    const closed = source?.readyState === EventSource.CLOSED;
    connectionLost();
    // The browser tries again by itself after a cut line, but not after an answer that is no stream.
    if (closed) {
      disconnect();
      retry = setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
    }
  });
  source.addEventListener("snapshot", (event) => {
    onSnapshot(JSON.parse(event.data));
  });
  source.addEventListener("job", (event) => onJob(JSON.parse(event.data)));
  source.addEventListener("card", (event) => onCard(JSON.parse(event.data)));
  source.addEventListener("queue", onQueue);
  source.addEventListener("link", soon);
  source.addEventListener("reset", soon);
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function connectionLost() {
  lost = true;
  say();
}

function connectionBack() {
  tries = 0;
  if (lost) {
    lost = false;
    refresh(); // whatever happened meanwhile is in the store
  }
  say();
}

/** The line that says how fresh the page is. Written only when it changes, so that a screen reader is not made to repeat it. */
function say() {
  const line = document.getElementById("updated");
  if (!line) return;
  const text = lost ? "Connection lost, trying again" : `Updated ${clockTime(now())}`;
  if (line.textContent !== text) line.textContent = text;
  line.dataset.tone = lost ? "bad" : "off";
}

/** What is live when the stream begins. Fetches the page again where something moved between its making and now. */
function onSnapshot({ scheduler, jobs: live, cards }) {
  say();
  live.filter((job) => job.status === "running").forEach(showJob);
  cards.forEach(showVitals);
  const wrong =
    String(scheduler) !== document.body.dataset.connected ||
    (scheduler && (live.some(jobDiffers) || cards.some(cardDiffers) || someJobEnded(live)));
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
  if (jobDiffers(job) || (shown && job.status !== "running")) soon();
}

/** Places in the queue and expected times have moved: shown by the page that shows a job which has not ended. */
function onQueue() {
  say();
  if (document.querySelector('[data-job][data-status="queued"], [data-job][data-status="running"]')) soon();
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

function soon() {
  if (planned) return;
  const wait = Math.max(60, last + REFRESH_EVERY_MS - Date.now());
  planned = setTimeout(refresh, wait);
}

/** Fetches this page again and morphs it in. */
export async function refresh() {
  clearTimeout(planned);
  planned = 0;
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  last = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
    if (answer.redirected && new URL(answer.url).pathname === "/signin") {
      location.assign(answer.url);
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    setClock(Number(fresh.body.dataset.now));
    document.body.dataset.connected = fresh.body.dataset.connected;
    for (const part of PARTS) {
      const old = document.querySelector(part);
      const now_ = fresh.querySelector(part);
      if (old && now_) morph(old, now_);
    }
    for (const [id, job] of jobs) {
      if (fresh.querySelector(`[data-progress="${CSS.escape(id)}"]`)) showJob(job);
    }
    showTimes();
    document.title = fresh.title;
    document.dispatchEvent(new Event("farm:refreshed"));
    say();
  } catch {
    // The event stream says when the head is back, and then everything is fetched again.
    if (!source || source.readyState !== EventSource.OPEN) connectionLost();
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      soon();
    }
  }
}
