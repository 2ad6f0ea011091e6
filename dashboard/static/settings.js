// The forms of the Settings page: each saves its own settings, and what would delete files asks first.

import { confirm, get, patch, Refused } from "./actions.js";
import { refresh } from "./live.js";
import { gb, prose } from "./words.js";

const ASK_AFTER_MS = 400; // once typing has rested: the answer takes a look at every job

export function offerSettings() {
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-settings]");
    if (!form) return;
    event.preventDefault();
    save(form);
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-settings]");
    if (!form) return;
    form.querySelector(".saved").textContent = "";
    if (form.dataset.settings === "keep") foretell(form);
  });
}

/** What the form says: numbers, and null where a field is empty. */
function wanted(form) {
  const found = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || (input.type === "radio" && !input.checked)) continue;
    if (input.type === "number") found[input.name] = input.value === "" && !input.validity.badInput ? null : Number(input.value || NaN);
    else found[input.name] = input.value;
  }
  return found;
}

async function save(form) {
  const button = form.querySelector("button[type=submit]");
  if (!button || button.disabled) return;
  clear(form);
  const values = wanted(form);
  const odd = Object.keys(values).find((name) => Number.isNaN(values[name]));
  if (odd) {
    mark(form, odd, "This is no number.");
    return;
  }
  button.disabled = true;
  try {
    if (form.dataset.settings === "keep" && !(await agreed(values))) return;
    await patch("/api/v1/settings", values);
    await refresh(); // replaces this form: its setting has changed
    const now = document.querySelector(`form[data-settings="${form.dataset.settings}"]`);
    now.querySelector(".saved").textContent = "Saved";
    if (!document.activeElement || document.activeElement === document.body) now.querySelector("button[type=submit]").focus();
  } catch (error) {
    const items = error instanceof Refused ? error.errors.filter((one) => form.elements[one.field]) : [];
    for (const one of items) mark(form, one.field, one.message);
    if (!items.length) {
      const line = form.querySelector(".notice");
      prose(line, error.message);
      line.hidden = false;
    }
  } finally {
    button.disabled = false;
  }
}

/** Whether nothing would be deleted, or a person has agreed to it. */
async function agreed(values) {
  const going = await look(values);
  if (!going.jobs) return true;
  return confirm("Delete old pictures and clips?", `${said(going)} They cannot be brought back; the jobs stay in the history.`, "Save and delete");
}

async function look(values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null));
  if (![...query].length) return { jobs: 0, bytes: 0 };
  try {
    return await get(`/api/v1/settings/retention?${query}`);
  } catch (error) {
    if (error instanceof Refused && error.errors.length) return { jobs: 0, bytes: 0 }; // saving says what is wrong with them
    throw error;
  }
}

function said({ jobs, bytes }) {
  const what = `picture and clip of ${jobs === 1 ? "1 job" : `${jobs.toLocaleString("en").replaceAll(",", "\u202f")} jobs`}`;
  return bytes ? `Within ten minutes ${what} would go, ${gb(bytes)}.` : `Within ten minutes ${what} would go; other jobs still need the files.`;
}

let asking = 0;

function foretell(form) {
  clearTimeout(asking);
  const line = form.querySelector("#would-go");
  asking = setTimeout(async () => {
    const values = wanted(form);
    const going = Object.values(values).some(Number.isNaN) ? { jobs: 0 } : await look(values).catch(() => ({ jobs: 0 }));
    line.textContent = going.jobs ? said(going) : "";
  }, ASK_AFTER_MS);
}

function mark(form, name, message) {
  const line = form.querySelector(`#e-${name}`);
  prose(line, message);
  line.hidden = false;
  const inputs = form.querySelectorAll(`[name="${name}"]`);
  for (const input of inputs) input.setAttribute("aria-invalid", "true");
  inputs[0].focus();
}

function clear(form) {
  for (const line of form.querySelectorAll(".error, .notice")) line.hidden = true;
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  form.querySelector(".saved").textContent = "";
}
