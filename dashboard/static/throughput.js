// What each card got done: a chart of clips per hour and the figures under it. The window and the card live in the address.

import { duration, rate } from "./words.js";

const EVERY_MS = 60_000;
const LINES = 6; // colours that can be told apart
const ROWS = 12;
const SECONDS = { "1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };
const LONG = { "1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };

let offered = null; // the place that is served; it goes with the last card and comes with the first
let chart = null;
let shown = null; // what the API last said
let asked = 0;

export function offerThroughput() {
  offer();
  document.addEventListener("farm:refreshed", offer); // the chart comes with the first card
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  setInterval(() => document.hidden || ask(), EVERY_MS);
}

/** Serves the page's chart, once. */
function offer() {
  const place = document.getElementById("throughput");
  if (!place || place === offered) return;
  offered = place;
  for (const button of place.querySelectorAll("[data-window]")) {
    button.addEventListener("click", () => choose({ window: button.dataset.window }));
  }
  document.getElementById("chart-card").addEventListener("change", (event) => choose({ card: event.target.value }));
  new ResizeObserver(resize).observe(document.getElementById("chart"));
  // The page is of use before its chart: the library comes when the chart is about to be seen.
  new IntersectionObserver(
    (entries, observer) => {
      if (!entries.some((one) => one.isIntersecting)) return;
      observer.disconnect();
      ask();
    },
    { rootMargin: "200px" },
  ).observe(place);
}

function chosen() {
  const address = new URLSearchParams(location.search);
  const window_ = address.get("window");
  return { window: window_ in LONG ? window_ : "24h", card: address.get("card") || "" };
}

function choose(change) {
  const { window, card } = { ...chosen(), ...change };
  const address = new URL(location.href);
  for (const [name, value, usual] of [["window", window, "24h"], ["card", card, ""]]) {
    if (value === usual) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  history.replaceState(history.state, "", address);
  if (change.window) ask();
  else draw();
}

async function ask() {
  if (!offered?.isConnected) return;
  const mine = ++asked;
  const { window } = chosen();
  try {
    const [answer] = await Promise.all([fetch(`/api/v1/stats/throughput?window=${window}`), library()]);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const found = await answer.json();
    if (mine !== asked) return;
    shown = { window, cards: found };
    draw();
  } catch {
    if (mine === asked && offered.isConnected) say("The farm does not answer; the chart comes back with it.");
  }
}

let loading = null;

/** The chart's library, fetched when the first chart is about to be seen. */
export function library() {
  loading ||= new Promise((ready, failed) => {
    const script = document.createElement("script");
    script.src = "/static/vendor/uPlot.iife.min.js";
    script.addEventListener("load", ready);
    script.addEventListener("error", () => {
      loading = null;
      failed(new Error("no chart library"));
    });
    document.head.append(script);
  });
  return loading;
}

function draw() {
  if (!shown || !offered.isConnected) return;
  const { window, card } = chosen();
  for (const button of document.querySelectorAll("[data-window]")) {
    button.setAttribute("aria-pressed", String(button.dataset.window === window));
  }
  offerCards(card);
  const busiest = shown.cards.filter((one) => one.clips).sort((a, b) => b.clips - a.clips);
  const drawn = card ? busiest.filter((one) => one.card_id === card) : busiest.slice(0, LINES);
  chart?.destroy();
  chart = null;
  const place = document.getElementById("chart");
  place.hidden = !drawn.length;
  figures(card ? shown.cards.filter((one) => one.card_id === card && one.utilization != null) : shown.cards.filter((one) => one.utilization != null));
  const who = card ? `${nameOf(shown.cards.find((one) => one.card_id === card))} finished` : "was finished";
  if (!drawn.length) return say(card ? `${who} no clip in the last ${LONG[shown.window]}.` : `No clip ${who} in the last ${LONG[shown.window]}.`);
  const left = busiest.length - drawn.length;
  say(!card && left > 0 ? `The ${drawn.length} busiest of ${busiest.length} cards; choose any other above.` : "");
  chart = new uPlot(options(place, drawn), series(drawn), place);
}

/** One x for each part of the window, and for each card its clips per hour there: nothing before it had joined. */
function series(drawn) {
  const { part_s, until } = drawn[0];
  const first = Math.floor((until - SECONDS[shown.window]) / part_s) * part_s;
  const times = [];
  for (let at = first; at <= until; at += part_s) times.push(at);
  const lines = drawn.map((one) => {
    const line = times.map((at) => (at + part_s > one.since ? 0 : null));
    for (const part of one.parts) line[Math.round((part.at - first) / part_s)] = part.clips_per_hour;
    return line;
  });
  if (drawn.length > 1) {
    times.push(times.at(-1) + part_s); // a stepped line shows its last value only up to a next one
    for (const line of lines) line.push(line.at(-1));
  }
  return [times, ...lines];
}

function options(place, drawn) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font };
  const alone = drawn.length === 1;
  return {
    width: place.clientWidth,
    height: 220,
    padding: [12, 12, 0, 0],
    cursor: { y: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [axis, { ...axis, size: 48 }],
    series: [
      { value: (_, at) => (at == null ? "" : new Date(at * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })), label: "From" },
      ...drawn.map((one, index) => ({
        label: nameOf(one),
        stroke: colour(`--chart-${index}`),
        fill: alone ? colour("--chart-0") : undefined,
        width: alone ? 0 : 2,
        paths: alone ? uPlot.paths.bars({ size: [0.8, 40], align: 1 }) : uPlot.paths.stepped({ align: 1 }),
        points: { show: false },
        value: (_, value) => (value == null ? "" : `${rate(value)} an hour`),
      })),
    ],
  };
}

function resize() {
  const place = document.getElementById("chart");
  if (chart && place.clientWidth) chart.setSize({ width: place.clientWidth, height: 220 });
}

function offerCards(card) {
  const select = document.getElementById("chart-card");
  const wanted = ["", ...shown.cards.map((one) => one.card_id)].join();
  if (select.dataset.cards !== wanted) {
    select.dataset.cards = wanted;
    select.length = 1;
    for (const one of shown.cards) select.add(new Option(nameOf(one), one.card_id));
  }
  select.value = card;
}

function figures(cards) {
  const body = document.querySelector("#chart-figures tbody");
  document.getElementById("chart-figures").hidden = !cards.length;
  const share = (value) => (value == null ? "" : `${Math.round(100 * value)} %`);
  const sorted = [...cards].sort((a, b) => b.clips - a.clips || b.utilization - a.utilization);
  body.replaceChildren(
    ...sorted.slice(0, ROWS).map((one) => {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = nameOf(one);
      const values = [
        String(one.clips || ""),
        rate(one.clips_per_hour),
        rate(one.frames_per_minute),
        duration(one.seconds_per_step),
        rate(one.wh_per_clip),
        share(one.success_rate),
        share(one.utilization),
      ];
      row.append(name, ...values.map(cell));
      return row;
    }),
  );
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text || "none";
  if (!text) made.className = "faint";
  return made;
}

function nameOf(one) {
  return one ? `${one.card_name} of ${one.node_name}` : "This card";
}

function say(text) {
  document.getElementById("chart-says").textContent = text;
}
