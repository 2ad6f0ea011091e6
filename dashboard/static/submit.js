// The form of a new clip: one job for each picture, upload with progress, each error at its field.

import { newKey } from "./actions.js";
import { pictures, put, takePictures } from "./pictures.js";
import { keepPlan } from "./plan.js";
import { leave } from "./refresh.js";
import { prose, size } from "./words.js";

const WHOLE = ["width", "height", "frames", "steps", "fps", "smooth", "seed", "priority"];
const NUMBERS = [...WHOLE, "guidance", "strength"];
const TEXTS = ["prompt", "negative_prompt", "model", "motion"];
const SEED = "farm-seed";

let form;
let keys = new Map(); // picture -> the name of its request, so that a repeat makes no second job
let batch = ""; // the name of the pictures sent at once, also for the last one that is left after an error
let batched = new WeakSet(); // those pictures
let locked = false; // whether a person locked the seed, in this form or an earlier one; the form of a job comes with its seed locked

export function offerSubmit() {
  form = document.getElementById("submit");
  if (!form) return;
  takePictures(form, () => {
    keys.clear();
    if (!pictures().some((file) => batched.has(file))) batch = "";
    clearError("image");
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "preset" || event.target.name === "model") showPreset();
  });
  form.addEventListener("input", (event) => {
    keys.clear(); // another request than the last one
    clearError(event.target.name);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  lockSeed();
  showPreset();
  keepPlan(form, () => settings([]), showRefused);
}

// --- preset and settings

function showPreset() {
  const preset = form.querySelector('input[name="preset"]:checked');
  if (!preset) return;
  for (const name of ["width", "height", "frames", "steps", "guidance", "fps", "smooth"]) {
    form[name].placeholder = preset.dataset[name];
  }
  const model = form.model.value || preset.dataset.model;
  const option = form.model.querySelector(`option[value="${CSS.escape(model)}"]`);
  const needed = option?.hasAttribute("data-prompt-needed");
  document.getElementById("model-facts").textContent = option?.dataset.facts || "";
  document.getElementById("prompt-needed").textContent = needed
    ? "needed: what should move, and how"
    : "optional, such as “zoom” or “pan left”";
}

/** A locked seed stays from clip to clip; one that a person locked also from visit to visit. Else each clip gets a new one. */
function lockSeed() {
  const lock = document.getElementById("seed-lock");
  const kept = localStorage.getItem(SEED);
  if (kept !== null && form.seed.value === "") {
    form.seed.value = kept;
    lock.checked = locked = true;
  }
  lock.addEventListener("change", () => {
    locked = lock.checked;
    if (!locked) form.seed.value = "";
    keepSeed();
  });
  form.seed.addEventListener("change", () => locked && keepSeed());
  sayLocked();
}

function keepSeed() {
  if (locked && form.seed.value !== "") localStorage.setItem(SEED, form.seed.value);
  else localStorage.removeItem(SEED);
  sayLocked();
}

/** Said where the settings are folded away too: such a seed is easily forgotten. */
function sayLocked() {
  document.getElementById("seed-locked").hidden = !document.getElementById("seed-lock").checked;
}

function afterSeed(job) {
  form.seed.value = document.getElementById("seed-lock").checked ? job.settings.seed : "";
  if (locked) keepSeed();
}

function settings(wrong) {
  const found = { preset: form.preset.value };
  for (const name of TEXTS) if (form[name].value.trim()) found[name] = form[name].value;
  for (const name of NUMBERS) {
    const field = form[name];
    const title = form.querySelector(`label[for="${field.id}"]`).firstChild.textContent.trim();
    if (field.validity.badInput) wrong.push({ field: `settings.${name}`, message: `${title} must be a number.` });
    else if (field.value !== "" && WHOLE.includes(name) && !Number.isInteger(Number(field.value))) {
      wrong.push({ field: `settings.${name}`, message: `${title} must be a whole number, not ${field.value}.` });
    } else if (field.value !== "") found[name] = Number(field.value);
  }
  if (form.anywhere.checked) found.anywhere = true;
  return found;
}

// --- sending

async function send() {
  const button = document.getElementById("send");
  if (button.disabled) return;
  clearErrors();
  const wrong = [];
  const files = pictures();
  const most = Number(form.dataset.maxMib) * 1024 * 1024;
  if (!files.length && !form.dataset.input) {
    wrong.push({ field: "image", message: "A picture is needed.", remedy: "Choose one, drop it here or paste it." });
  }
  for (const file of files.filter((one) => one.size > most)) {
    wrong.push({
      field: "image",
      message: `${file.name || "The picture"} has ${size(file.size)}; the farm takes up to ${size(most)}.`,
      remedy: "Scale it down: 1920 pixels a side is plenty.",
    });
  }
  const wanted = JSON.stringify(settings(wrong));
  if (wrong.length) return showErrors(wrong);

  const bar = document.getElementById("sending");
  button.disabled = true;
  bar.hidden = false;
  const made = [];
  const todo = files.length ? files : [null];
  if (files.length > 1) {
    batch ||= newBatch();
    batched = new WeakSet(files);
  }
  let failed = null;
  for (const [index, file] of todo.entries()) {
    button.textContent = todo.length > 1 ? `Sending ${index + 1} of ${todo.length}…` : "Sending…";
    const request = await post(wanted, file, (part) => (bar.value = (100 * (index + part)) / todo.length));
    if (request.status !== 200 && request.status !== 201) {
      failed = request;
      break;
    }
    made.push(JSON.parse(request.responseText));
  }
  button.disabled = false;
  button.textContent = "Render";
  bar.hidden = true;
  if (made.length) done(made);
  if (!failed) {
    batch = "";
    return keys.clear();
  }
  const rest = files.slice(made.length);
  if (made.length) {
    const kept = new Map(keys); // the first of the rest may have arrived
    put(rest);
    keys = kept;
  }
  refused(failed, todo.length > 1 ? rest[0].name : "");
}

/** Sends one picture, or the name of the one that the farm has; the request, once it has ended. */
function post(wanted, file, progress) {
  const body = new FormData();
  if (batch) body.append("batch", batch);
  body.append("settings", wanted);
  if (file) body.append("image", file, file.name || "picture");
  else body.append("input_sha256", form.dataset.input);
  if (!keys.has(file)) keys.set(file, newKey());
  return new Promise((ended) => {
    const request = new XMLHttpRequest(); // fetch cannot say how much of an upload has gone
    request.open("POST", "/api/v1/jobs");
    request.setRequestHeader("Idempotency-Key", keys.get(file));
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("loadend", () => ended(request));
    request.send(body);
  });
}

function refused(request, name) {
  let answer = {};
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    // no answer, or one of a proxy in between
  }
  if (request.status === 0) {
    return trouble("The farm did not answer. Press Render again: the same picture is not rendered twice.");
  }
  if (request.status === 401) return leave(`/signin?next=${encodeURIComponent(location.pathname)}`);
  const at = (errors) => errors.map((one) => (name && one.field === "image" ? { ...one, message: `${name}: ${one.message}` } : one));
  if (request.status === 413) return showErrors(at([{ field: "image", message: answer.detail, remedy: answer.remedy }]));
  if (answer.errors?.length) return showErrors(at(answer.errors));
  trouble([answer.detail || `The farm answered ${request.status}.`, answer.remedy].filter(Boolean).join(" "));
}

function done(jobs) {
  const line = document.getElementById("sent");
  const link = document.createElement("a");
  link.href = batch ? `/jobs?batch=${encodeURIComponent(batch)}` : `/jobs/${encodeURIComponent(jobs[0].id)}`;
  link.textContent = batch ? "See the jobs" : "Open it";
  const said = jobs.length === 1 ? "The job is in the queue. " : `${jobs.length} jobs are in the queue. `;
  line.replaceChildren(said, link);
  afterSeed(jobs[jobs.length - 1]);
}

/** A name for many pictures sent at once: when it was, and something that tells two of the same second apart. */
function newBatch() {
  return `${new Date().toISOString().slice(0, 19).replaceAll(":", "").replace("T", " ")} ${newKey().slice(0, 4)}`;
}

// --- errors

function fieldOf(name) {
  return form.querySelector(`[data-field="${CSS.escape(name)}"]`);
}

function showErrors(errors) {
  const unplaced = place(errors);
  if (unplaced.length) trouble(unplaced.join(" "), false);
  const first = form.querySelector('[aria-invalid="true"]');
  if (first) first.focus();
  else document.getElementById("submit-error").focus();
}

/** Says each error at its field; those that have none come back. */
function place(errors) {
  const unplaced = [];
  for (const { field, message, remedy } of errors) {
    const name = field.replace(/^settings\./, "");
    const text = [message, remedy].filter(Boolean).join(" ");
    const where = fieldOf(name);
    if (!where) {
      unplaced.push(text);
      continue;
    }
    const line = where.querySelector(".error");
    prose(line, text);
    line.hidden = false;
    for (const control of where.querySelectorAll("input, select, textarea")) control.setAttribute("aria-invalid", "true");
    const folded = where.closest("details");
    if (folded) folded.open = true;
  }
  return unplaced;
}

/** What the planner refuses, said at its fields without taking the focus from whoever is typing; what has no field comes back. */
function showRefused(errors) {
  for (const name of ["preset", "model", ...NUMBERS, "motion"]) clearError(name);
  return place(errors);
}

function trouble(text, focus = true) {
  const line = document.getElementById("submit-error");
  prose(line, text);
  line.hidden = false;
  if (focus) line.focus();
}

function clearError(name) {
  const place = name && fieldOf(name);
  if (!place) return;
  place.querySelector(".error").hidden = true;
  for (const control of place.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function clearErrors() {
  for (const place of form.querySelectorAll("[data-field]")) clearError(place.dataset.field);
  document.getElementById("submit-error").hidden = true;
  document.getElementById("sent").replaceChildren();
}
