// Cancel, retry, rate; drain, resume and forget a PC. Delegated from the document, so that rows that come later work too.

import { refresh } from "./live.js";
import { prose } from "./words.js";

/** Posts JSON to the API; throws an Error whose message is a sentence for a person. */
export function post(path, body) {
  return send(path, body === undefined ? undefined : JSON.stringify(body), { "content-type": "application/json" });
}

/** What the API refused: a sentence for a person, and `errors` by field. */
export class Refused extends Error {
  constructor(problem, status) {
    super([problem.detail || `The farm answered ${status}.`, problem.remedy].filter(Boolean).join(" "));
    this.errors = problem.errors || [];
  }
}

/** Reads JSON from the API. */
export function get(path) {
  return send(path, undefined, {}, "GET");
}

/** Changes what is named in `body`. */
export function patch(path, body) {
  return send(path, JSON.stringify(body), { "content-type": "application/json" }, "PATCH");
}

async function send(path, body, headers = {}, method = "POST") {
  let answer;
  try {
    answer = await fetch(path, { method, headers: { accept: "application/json", ...headers }, body });
    if (answer.ok) return await answer.json();
  } catch {
    // A request may have arrived although its answer was lost on the way.
    throw new Error(
      method === "GET"
        ? "The farm does not answer. Try again when it is back."
        : "The farm did not answer: this may or may not have been done. When the farm is back, the page shows which; then try again if it was not.",
    );
  }
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(problem, answer.status);
}

/** A name for a request, so that a repeat does nothing twice. Not crypto.randomUUID: that exists on https and localhost only, and farms
    are on plain LANs. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function listen() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    if (button.dataset.do === "promote") promote(button).catch((error) => tell(error.message));
    else if (button.dataset.ask) ask(button);
    else act(button).catch((error) => tell(error.message));
  });
  document.addEventListener("change", (event) => {
    const stars = event.target.closest("[data-rate]");
    if (stars) rate(stars, Number(event.target.value));
  });
}

async function act(button) {
  const focused = document.activeElement === button;
  const about = button.closest("[data-job], .node");
  const { do: verb, jobId, nodeId, tokenId, body } = button.dataset;
  button.disabled = true;
  try {
    if (verb === "forget") await send(`/api/v1/nodes/${encodeURIComponent(nodeId)}`, undefined, {}, "DELETE");
    else if (tokenId) await send(`/api/v1/tokens/${encodeURIComponent(tokenId)}`, undefined, {}, "DELETE");
    else if (nodeId) await post(`/api/v1/nodes/${encodeURIComponent(nodeId)}/${verb}`);
    else await post(`/api/v1/jobs/${encodeURIComponent(jobId)}/${verb}`, body && JSON.parse(body));
    hush();
    await refresh();
  } finally {
    button.disabled = false;
    // A button that is disabled loses the focus, and whoever uses the keyboard would begin at the top of the page again.
    if (focused) refocus(button, verb, about);
  }
}

/** Gives a lost focus back to the button, or where that is gone to what it was `about`, or to the page's heading. */
function refocus(button, verb, about) {
  if (document.activeElement !== document.body) return;
  // A refresh may have made it into its neighbour; that of a PC is then its opposite, and the place to stay at.
  const there = button.isConnected && (button.dataset.do === verb || button.dataset.nodeId);
  const name = about?.isConnected ? about.querySelector("h1, h2, h3 a, .job-name") : null;
  (there ? button : name || document.querySelector("main h1")).focus();
}

/** Makes the page's dialog ready; without `yesText` there is nothing to answer. */
function prepare(title, text, yesText = "") {
  const yes = document.getElementById("ask-yes");
  document.getElementById("ask-title").textContent = title;
  prose(document.getElementById("ask-text"), text);
  document.getElementById("ask-error").hidden = true;
  document.getElementById("ask-no").textContent = yesText ? "Keep it" : "Close";
  yes.textContent = yesText;
  yes.hidden = !yesText;
  return [document.getElementById("ask"), yes];
}

/** Asks a question in the page's dialog; whether the answer was yes. */
export function confirm(title, text, yesText) {
  const [dialog, yes] = prepare(title, text, yesText);
  return new Promise((answered) => {
    yes.onclick = () => dialog.close("yes");
    dialog.returnValue = "";
    dialog.addEventListener("close", () => answered(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

const keys = new Map(); // what to make -> the name of the request, until it has succeeded

/** Makes a new job of a job's picture, prompt and seed under another preset, and goes there. */
async function promote(button) {
  button.disabled = true;
  try {
    const body = new FormData();
    body.append("input_sha256", button.dataset.input);
    body.append("settings", button.dataset.settings);
    const wanted = `${button.dataset.input} ${button.dataset.settings}`;
    if (!keys.has(wanted)) keys.set(wanted, newKey());
    const job = await send("/api/v1/jobs", body, { "idempotency-key": keys.get(wanted) });
    keys.delete(wanted);
    hush();
    location.assign(`/jobs/${encodeURIComponent(job.id)}`);
  } finally {
    button.disabled = false;
  }
}

/** Asks first, naming the consequence. */
function ask(button) {
  const [dialog, yes] = prepare(button.dataset.ask, button.dataset.text, button.dataset.yes);
  const wrong = document.getElementById("ask-error");
  const about = button.closest("[data-job], .node");
  const verb = button.dataset.do;
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      await act(button);
      dialog.close();
      refocus(button, verb, about);
    } catch (error) {
      prose(wrong, error.message);
      wrong.hidden = false;
    } finally {
      yes.disabled = false;
      if (dialog.open) yes.focus();
    }
  };
  dialog.showModal();
}

/** Shows an error where the page has a place for it, else in the dialog with nothing to confirm. */
function tell(message) {
  const place = document.getElementById("act-error");
  if (place) {
    prose(place, message);
    place.hidden = false;
    return;
  }
  prepare("That did not work", message)[0].showModal();
}

/** What went wrong before is over: something has worked since. */
function hush() {
  const place = document.getElementById("act-error");
  if (place) place.hidden = true;
}

let rating = 0;

/** Stores a rating once the choice has rested: arrow keys go through every star on their way. */
function rate(stars, value) {
  const line = document.getElementById("rated");
  line.textContent = "saving";
  clearTimeout(rating);
  rating = setTimeout(async () => {
    try {
      await post(`/api/v1/jobs/${encodeURIComponent(stars.dataset.rate)}/rating`, { rating: value });
      line.textContent = `${value} of 5`;
      hush();
    } catch (error) {
      tell(error.message);
      refresh(); // back to what is stored
    }
  }, 300);
}
