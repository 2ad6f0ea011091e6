// Fetches the page again and morphs it in: the server's templates stay the only place that knows how a job looks.

import { morph } from "./morph.js";
import { setClock, showTimes } from "./times.js";

// What a worker reports is to be seen within 500 ms. On a busy farm jobs end many times a second: then once a second is enough, for
// the words of status and progress come with the events, and a page must not cost the head more for each event.
const QUICK_MS = 300;
const BUSY_MS = 1000;
const QUICK = 3; // fetches that may follow each other quickly, before as many seconds have passed
const PATIENCE_MS = 15_000;
const PARTS = ["main", "#farm-word"];

let planned = 0;
let running = null; // the fetch under way
let following = null; // the one that was asked for meanwhile
let leaving = false;
let begun = []; // when the newest began, by a clock that nobody sets

/** Fetches this page again shortly. */
export function soon() {
  if (planned || following) return;
  const at = performance.now();
  const busy = begun.length === QUICK && at - begun[0] < QUICK * BUSY_MS;
  const earliest = begun.length ? begun.at(-1) + (busy ? BUSY_MS : QUICK_MS) : 0;
  planned = setTimeout(due, Math.max(60, earliest - at));
}

function due() {
  planned = 0;
  if (running) running.then(soon);
  else refresh();
}

/** Fetches this page again and morphs it in; done when what was stored at the call is shown, which a fetch that had begun before may lack. */
export function refresh() {
  clearTimeout(planned);
  planned = 0;
  if (running) {
    following ||= running.then(() => {
      following = null;
      return refresh();
    });
    return following;
  }
  running = fetchPage().finally(() => (running = null));
  return running;
}

addEventListener("pageshow", () => (leaving = false)); // back again, with all that it was

/** Goes to another page, once: a second answer that leads there would break off the first way. */
export function leave(address) {
  if (!leaving) location.assign(address);
  leaving = true;
}

async function fetchPage() {
  begun = [...begun, performance.now()].slice(-QUICK);
  try {
    const answer = await fetch(location.href, {
      headers: { accept: "text/html" },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.redirected && new URL(answer.url).pathname === "/signin") {
      leave(answer.url);
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    document.dispatchEvent(new Event("farm:refreshed"));
  } catch {
    document.dispatchEvent(new Event("farm:unreached"));
  }
}

function show(fresh) {
  setClock(Number(fresh.body.dataset.now));
  document.body.dataset.connected = fresh.body.dataset.connected;
  document.body.dataset.queue = fresh.body.dataset.queue;
  for (const part of PARTS) {
    const old = document.querySelector(part);
    const wanted = fresh.querySelector(part);
    if (old && wanted) morph(old, wanted);
  }
  showTimes();
  document.title = fresh.title;
}
