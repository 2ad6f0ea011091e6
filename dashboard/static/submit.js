// The form of a new clip: picture by choosing, dropping or pasting; upload with progress; each error at its field.

import { refresh } from "./live.js";
import { prose, size } from "./words.js";

const WHOLE = ["width", "height", "frames", "steps", "fps", "smooth", "seed"];
const NUMBERS = [...WHOLE, "guidance", "strength"];
const TEXTS = ["prompt", "negative_prompt", "model", "motion"];

let form;
let key = "";

export function offerSubmit() {
  form = document.getElementById("submit");
  if (!form) return;
  form.image.addEventListener("change", () => takePicture(form.image.files[0]));
  document.getElementById("picture-away").addEventListener("click", removePicture);
  takeDrops();
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    give(file);
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "preset" || event.target.name === "model") showPreset();
  });
  form.addEventListener("input", (event) => {
    key = ""; // another request than the last one
    clearError(event.target.name);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  showPreset();
  if (form.image.files[0]) takePicture(form.image.files[0]); // a browser may restore the form after a reload
}

// --- the picture

function takeDrops() {
  const zone = document.getElementById("drop");
  const holdsFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  // The whole page takes the drop: a miss would make the browser leave the page and open the picture.
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    zone.toggleAttribute("data-over", true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.removeAttribute("data-over");
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    zone.removeAttribute("data-over");
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    give(files[0]);
    if (files.length > 1) facts(`${files[0].name}: the first of ${files.length}; one clip is made of one picture`);
  });
}

/** Puts a dropped or pasted file into the file field, as if it had been chosen there. */
function give(file) {
  const box = new DataTransfer();
  box.items.add(file);
  form.image.files = box.files;
  takePicture(file);
}

function takePicture(file) {
  key = "";
  clearError("image");
  const picture = document.getElementById("picture");
  URL.revokeObjectURL(picture.src);
  if (!file) return removePicture();
  const zone = document.getElementById("drop");
  document.getElementById("picture-away").hidden = false;
  picture.onload = () => facts(`${file.name}: ${picture.naturalWidth} × ${picture.naturalHeight} px, ${size(file.size)}`);
  picture.onerror = () => {
    picture.hidden = true;
    zone.removeAttribute("data-full");
    facts(`${file.name}, ${size(file.size)}: this browser cannot show it`);
  };
  picture.src = URL.createObjectURL(file);
  picture.hidden = false;
  zone.toggleAttribute("data-full", true);
  facts(`${file.name}, ${size(file.size)}`);
}

function removePicture() {
  form.image.value = "";
  key = "";
  const picture = document.getElementById("picture");
  picture.hidden = true;
  picture.removeAttribute("src");
  document.getElementById("drop").removeAttribute("data-full");
  document.getElementById("picture-away").hidden = true;
  facts("");
}

function facts(text) {
  document.getElementById("picture-facts").textContent = text;
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
  document.getElementById("prompt-needed").textContent = needed
    ? "needed: what should move, and how"
    : "optional, such as “zoom” or “pan left”";
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

function send() {
  const button = document.getElementById("send");
  if (button.disabled) return;
  clearErrors();
  const wrong = [];
  const body = new FormData();
  const picture = form.image.files[0];
  const most = Number(form.dataset.maxMib) * 1024 * 1024;
  if (!picture) wrong.push({ field: "image", message: "A picture is needed.", remedy: "Choose one, drop it here or paste it." });
  else if (picture.size > most) {
    wrong.push({
      field: "image",
      message: `The picture has ${size(picture.size)}; the farm takes up to ${size(most)}.`,
      remedy: "Scale it down: 1920 pixels a side is plenty.",
    });
  }
  body.append("settings", JSON.stringify(settings(wrong)));
  if (wrong.length) return showErrors(wrong);
  body.append("image", picture, picture.name || "picture");
  key ||= newKey();

  const bar = document.getElementById("sending");
  button.disabled = true;
  button.textContent = "Sending…";
  bar.hidden = false;
  bar.value = 0;
  const request = new XMLHttpRequest(); // fetch cannot say how much of an upload has gone
  request.open("POST", "/api/v1/jobs");
  request.setRequestHeader("Idempotency-Key", key);
  request.setRequestHeader("Accept", "application/json");
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) bar.value = (100 * event.loaded) / event.total;
  });
  request.addEventListener("loadend", () => {
    button.disabled = false;
    button.textContent = "Render";
    bar.hidden = true;
    answered(request);
  });
  request.send(body);
}

function answered(request) {
  let answer = {};
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    // no answer, or one of a proxy in between
  }
  if (request.status === 200 || request.status === 201) return done(answer);
  if (request.status === 0) {
    return trouble("The farm did not answer. Press Render again: the same picture is not rendered twice.");
  }
  if (request.status === 401) return location.assign(`/signin?next=${encodeURIComponent(location.pathname)}`);
  if (request.status === 413) return showErrors([{ field: "image", message: answer.detail, remedy: answer.remedy }]);
  if (answer.errors?.length) return showErrors(answer.errors);
  trouble([answer.detail || `The farm answered ${request.status}.`, answer.remedy].filter(Boolean).join(" "));
}

function done(job) {
  key = "";
  const line = document.getElementById("sent");
  const link = document.createElement("a");
  link.href = `/jobs/${encodeURIComponent(job.id)}`;
  link.textContent = "Open it";
  line.replaceChildren("The job is in the queue. ", link);
  refresh();
}

/** A name for this request. Not crypto.randomUUID: that exists on https and localhost only, and farms are on plain LANs. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- errors

function fieldOf(name) {
  return form.querySelector(`[data-field="${CSS.escape(name)}"]`);
}

function showErrors(errors) {
  const unplaced = [];
  for (const { field, message, remedy } of errors) {
    const name = field.replace(/^settings\./, "");
    const text = [message, remedy].filter(Boolean).join(" ");
    const place = fieldOf(name);
    if (!place) {
      unplaced.push(text);
      continue;
    }
    const line = place.querySelector(".error");
    prose(line, text);
    line.hidden = false;
    for (const control of place.querySelectorAll("input, select, textarea")) control.setAttribute("aria-invalid", "true");
    const folded = place.closest("details");
    if (folded) folded.open = true;
  }
  if (unplaced.length) trouble(unplaced.join(" "), false);
  const first = form.querySelector('[aria-invalid="true"]');
  if (first) first.focus();
  else document.getElementById("submit-error").focus();
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
