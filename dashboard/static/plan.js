// What the planner says of the form as it stands, before any job runs; and which cards could take each preset.

import { leave } from "./refresh.js";
import { duration, gib, prose } from "./words.js";

const REST_MS = 250; // of the keyboard, before the planner is asked
const ANEW_MS = 2000; // cards come and change in bursts, and to ask anew is a question for each preset
const CARDS_SHOWN = 12;

let asked = 0;
let round = 0;
let timer = 0;
let planned = 0;
let before = "";
const ofPreset = new Map(); // name -> forecasts, the best card first
const states = new Map(); // card -> what was last heard of it that may change a forecast

/** Keeps the panel true to the form and the cards; `settings()` gives what would be sent, `wrong(errors)` shows what the farm refuses of
    it at its fields and gives back the sentences that have none. */
export function keepPlan(form, settings, wrong) {
  const ask = (wait) => {
    const { prompt, negative_prompt, seed, priority, ...rest } = settings(); // these change neither memory nor time
    const sent = JSON.stringify(rest);
    if (sent === before) return;
    before = sent;
    clearTimeout(timer);
    timer = setTimeout(() => show(sent, rest.preset, wrong, anew), wait);
  };
  const anew = () => {
    planned ||= setTimeout(() => {
      planned = 0;
      if (document.hidden) return; // the page is fetched again when it is looked at
      before = "";
      ask(0);
      askForPresets(form, anew);
    }, ANEW_MS);
  };
  form.addEventListener("input", () => ask(REST_MS));
  form.addEventListener("change", () => ask(0));
  document.addEventListener("farm:refreshed", anew); // after a break, or when the scheduler is back
  document.addEventListener("farm:card", ({ detail: card }) => {
    const state = `${card.state === "busy" ? "idle" : card.state} ${card.fetching.length}`; // what a card is at does not count
    if (states.get(card.id) === state) return;
    states.set(card.id, state);
    anew();
  });
  ask(0);
  askForPresets(form, anew);
}

async function foresee(sent) {
  const answer = await fetch("/api/v1/plan", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: sent,
  });
  if (answer.status === 401) leave(`/signin?next=${encodeURIComponent(location.pathname + location.search)}`);
  return { ok: answer.ok, status: answer.status, said: await answer.json().catch(() => ({})) };
}

async function show(sent, preset, wrong, anew) {
  const mine = ++asked;
  const best = document.getElementById("plan-best");
  let found;
  try {
    found = await foresee(sent);
  } catch {
    before = ""; // the next change asks again
    if (mine === asked) best.replaceChildren(line("unit", "The farm does not answer; nothing can be foretold."));
    anew();
    return;
  }
  if (mine !== asked) return; // the form has changed since
  const panel = document.getElementById("plan-cards");
  if (!found.ok) {
    const why = line("unit", "");
    prose(why, refusal(found, wrong(found.said.errors || [])));
    best.replaceChildren(why);
    panel.hidden = true;
    if (found.status >= 500) anew();
    return;
  }
  wrong([]);
  best.replaceChildren(...inShort(found.said, preset));
  panel.hidden = found.said.length === 0;
  document.getElementById("forecasts").replaceChildren(...found.said.slice(0, CARDS_SHOWN).map(oneCard));
  const more = found.said.length - CARDS_SHOWN;
  if (more > 0) document.getElementById("forecasts").append(item("unit", `${more} more ${more === 1 ? "card" : "cards"}`));
}

/** Why nothing is foretold. What the farm says at the fields is not said again here. */
function refusal({ status, said }, unplaced) {
  if (unplaced.length) return unplaced.join(" ");
  if (said.errors?.length) return "These settings cannot be rendered yet.";
  return [said.detail || `The farm answered ${status}.`, said.remedy].filter(Boolean).join(" ");
}

/** The best card in a sentence or two, and what would make it faster or make it fit. */
function inShort(forecasts, preset) {
  if (!forecasts.length) return [line("unit", "No card has joined yet: the job would wait for one.")];
  const best = forecasts.find((one) => one.eligible);
  if (!best) {
    const nearest = forecasts[0];
    const lines = [nearest.able ? line("verdict", "No card can take it just now", "wait") : line("verdict", "No card of this farm can run it", "bad")];
    const why = line("reason", "");
    prose(why, because(nearest));
    lines.push(why);
    if (nearest.able) lines.push(line("unit", "The job would wait for it."));
    const other = otherPreset(preset, Infinity);
    if (other) lines.push(other);
    return lines;
  }
  const lines = [line("verdict", best.seconds == null ? "It can run" : `About ${duration(best.seconds)}`, "good")];
  if (best.seconds_low != null && duration(best.seconds_low) !== duration(best.seconds_high)) {
    lines[0].append(small(`between ${duration(best.seconds_low)} and ${duration(best.seconds_high)}`));
  }
  lines.push(line("", `on ${where(best)}${memory(best)}`));
  const slower = best.memory_plan.weights_on_card < 1;
  if (slower) lines.push(line("unit", "Part of the weights streams from the PC's memory: exact, and a little slower."));
  const faster = forecasts.find((one) => one.fits && !one.eligible && one.seconds != null && one.seconds < 0.9 * (best.seconds ?? 0));
  if (faster) {
    const tip = line("reason", "");
    prose(tip, `Faster: ${where(faster)} would take ${duration(faster.seconds)}, but: ${because(faster)}`);
    lines.push(tip);
  }
  const other = best.seconds > 60 ? otherPreset(preset, 0.7 * best.seconds) : null;
  if (other) lines.push(other);
  return lines;
}

/** The slowest preset of diffusion that is under `seconds`: the least that has to be given up. */
function otherPreset(preset, seconds) {
  const known = [...ofPreset].flatMap(([name, all]) => all.slice(0, 1).map((one) => ({ name, ...one })));
  const fitting = known.filter((one) => one.name !== preset && one.eligible && one.seconds < seconds && one.basis !== "catalogue");
  const other = fitting.sort((a, b) => b.seconds - a.seconds)[0];
  if (!other) return null;
  return line("reason", `${Number.isFinite(seconds) ? "Faster" : "What can run"}: the preset ${titleOf(other.name)}, about ${duration(other.seconds)} on ${where(other)}.`);
}

function oneCard(one) {
  const row = item("forecast", "");
  row.dataset.eligible = String(one.eligible);
  const head = line("forecast-head", "");
  const name = document.createElement("b");
  name.textContent = one.card;
  head.append(name, one.node_name ? small(` ${one.node_name}`) : "", status(one));
  row.append(head);
  if (one.eligible) {
    const time = one.seconds_low == null ? [] : [`${duration(one.seconds_low)} to ${duration(one.seconds_high)}`];
    row.append(line("unit", [...time, BASIS[one.basis]].join(", ")));
    if (one.peak_gib > 0 && one.usable_gib) {
      row.append(bar(one));
      row.append(line("unit", `Peak ${gib(one.peak_gib)} (${gib(one.peak_low_gib)} to ${gib(one.peak_high_gib)}) of ${gib(one.usable_gib)} usable`));
    }
    return row;
  }
  const why = line("reason", "");
  prose(why, because(one));
  row.append(why);
  return row;
}

const BASIS = { measured: "measured on this card", calibrated: "from a calibrated network", catalogue: "from the catalogue" };

function bar(one) {
  const shape = document.createElement("meter");
  shape.max = one.usable_gib;
  shape.value = one.peak_gib;
  shape.setAttribute("aria-label", `Peak ${gib(one.peak_gib)} of ${gib(one.usable_gib)}`);
  return shape;
}

function status(one) {
  const word = document.createElement("span");
  word.className = "status";
  const away = one.able && one.state === "not answering";
  word.dataset.tone = one.eligible ? "good" : one.fits ? "wait" : "off";
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.setAttribute("aria-hidden", "true");
  word.append(dot, one.eligible ? (one.seconds == null ? "Can" : duration(one.seconds)) : away ? "Not answering now" : one.fits ? "Not now" : "Does not fit");
  return word;
}

/** Each preset card says which of the farm's cards can do it. One question after the other: the form's own goes first. */
async function askForPresets(form, anew) {
  const mine = ++round;
  for (const input of form.querySelectorAll('input[name="preset"]')) {
    const place = document.getElementById(`can-${input.value}`);
    try {
      const { ok, status, said } = await foresee(JSON.stringify({ preset: input.value }));
      if (mine !== round) return; // asked anew since
      if (status >= 500) return anew();
      if (!ok) continue;
      ofPreset.set(input.value, said);
      const can = said.filter((one) => one.eligible);
      place.classList.toggle("cannot", !can.length);
      place.title = can.length || !said.length ? "" : because(said[0]).replaceAll("`", "");
      if (!can.length) {
        place.textContent = !said.length ? "No card yet" : said[0].able ? "No card can take it just now" : "No card here can run it";
        continue;
      }
      const more = can.length - 2;
      const parts = can.slice(0, 2).map((one) => `${one.card} ${duration(one.seconds)}`);
      if (more > 0) parts.push(`${more} more`);
      place.replaceChildren(...parts.flatMap((text, index) => (index ? [", ", span(text)] : [span(text)])));
    } catch {
      return anew(); // the farm does not answer; the panel says so
    }
  }
}

function titleOf(preset) {
  return document.querySelector(`input[name="preset"][value="${CSS.escape(preset)}"]`).parentElement.querySelector("strong").textContent;
}

/** Why a card does not take it, and what would help, as sentences. The planner's advice speaks to the command line; here a box does it. */
function because(one) {
  const why = one.reasons.slice(0, 2).join("; ");
  const advice = one.advice.replace("Submit it with `--anywhere`.", "The box “any card” in the advanced settings lets it.");
  return [why && !/[.!]$/.test(why) ? `${why}.` : why, advice].filter(Boolean).join(" ");
}

const where = (one) => (one.node_name ? `${one.card} of ${one.node_name}` : one.card);
const memory = (one) => (one.peak_gib > 0 ? `, peak ${gib(one.peak_gib)} of ${gib(one.usable_gib)}` : "");

function line(kind, text, tone = "") {
  return element("p", kind, text, tone);
}

function item(kind, text) {
  return element("li", kind, text);
}

function span(text) {
  return element("span", "", text);
}

function small(text) {
  return element("span", "unit", text);
}

function element(tag, kind, text, tone = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (tone) made.dataset.tone = tone;
  made.textContent = text;
  return made;
}
