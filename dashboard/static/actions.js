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
  } catch {
    throw new Error("The farm does not answer. Nothing was changed; try again when it is back.");
  }
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(problem, answer.status);
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
  button.disabled = true;
  try {
    const { do: verb, jobId, nodeId, tokenId, body } = button.dataset;
    if (verb === "forget") await send(`/api/v1/nodes/${encodeURIComponent(nodeId)}`, undefined, {}, "DELETE");
    else if (tokenId) await send(`/api/v1/tokens/${encodeURIComponent(tokenId)}`, undefined, {}, "DELETE");
    else if (nodeId) await post(`/api/v1/nodes/${encodeURIComponent(nodeId)}/${verb}`);
    else await post(`/api/v1/jobs/${encodeURIComponent(jobId)}/${verb}`, body && JSON.parse(body));
    await refresh();
  } finally {
    button.disabled = false;
    // A button that is disabled loses the focus, and whoever uses the keyboard would begin at the top of the page again.
    if (focused && button.isConnected && document.activeElement === document.body) button.focus();
  }
}

/** Asks a question in the page's dialog; whether the answer was yes. */
export function confirm(title, text, yesText) {
  const dialog = document.getElementById("ask");
  const yes = document.getElementById("ask-yes");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  document.getElementById("ask-error").hidden = true;
  yes.textContent = yesText;
  return new Promise((answered) => {
    yes.onclick = () => dialog.close("yes");
    dialog.returnValue = "";
    dialog.addEventListener("close", () => answered(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

/** Makes a new job of a job's picture, prompt and seed under another preset, and goes there. */
async function promote(button) {
  button.disabled = true;
  try {
    const body = new FormData();
    body.append("input_sha256", button.dataset.input);
    body.append("settings", button.dataset.settings);
    const job = await send("/api/v1/jobs", body);
    location.assign(`/jobs/${encodeURIComponent(job.id)}`);
  } finally {
    button.disabled = false;
  }
}

/** Asks first, naming the consequence. */
function ask(button) {
  const dialog = document.getElementById("ask");
  const yes = document.getElementById("ask-yes");
  const wrong = document.getElementById("ask-error");
  document.getElementById("ask-title").textContent = button.dataset.ask;
  document.getElementById("ask-text").textContent = button.dataset.text;
  yes.textContent = button.dataset.yes;
  wrong.hidden = true;
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      await act(button);
      dialog.close();
    } catch (error) {
      prose(wrong, error.message);
      wrong.hidden = false;
    } finally {
      yes.disabled = false;
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
  document.getElementById("ask-title").textContent = "That did not work";
  prose(document.getElementById("ask-text"), message);
  document.getElementById("ask-error").hidden = true;
  document.getElementById("ask-yes").textContent = "Close";
  document.getElementById("ask-yes").onclick = () => document.getElementById("ask").close();
  document.getElementById("ask").showModal();
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
    } catch (error) {
      tell(error.message);
      refresh(); // back to what is stored
    }
  }, 300);
}
