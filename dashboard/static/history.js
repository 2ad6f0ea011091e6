// A card's history: a chart of its temperature, use and memory, and what happened to it. Asked for when a person opens it.

import { get } from "./actions.js";
import { library } from "./throughput.js";
import { now, showTimes } from "./times.js";
import { duration, gib, prose } from "./words.js";

const HEIGHT = 170;
const EVENTS = 12;
const SPANS = {
  "24h": { length_s: 86_400, part_s: 300, long: "24 hours" },
  "7d": { length_s: 604_800, part_s: 1800, long: "7 days" },
};
const charts = new WeakMap(); // by the place that each is drawn into

// A toggle does not bubble, and the tiles come and go: it is caught on its way down.
document.addEventListener("toggle", (event) => event.target.matches?.("[data-history]") && event.target.open && open(event.target), true);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const folded of document.querySelectorAll("[data-history][open]")) open(folded);
});
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.clientWidth) charts.get(target)?.setSize({ width: target.clientWidth, height: HEIGHT });
});

function open(folded) {
  if (!folded.querySelector(".chart-panel")) {
    folded.append(document.getElementById("history-inside").content.cloneNode(true));
    for (const button of folded.querySelectorAll("[data-window]")) button.addEventListener("click", () => show(folded, button.dataset.window));
    widths.observe(folded.querySelector(".history-chart"));
  }
  show(folded, folded.dataset.window || "24h");
}

async function show(folded, window) {
  folded.dataset.window = window;
  for (const button of folded.querySelectorAll("[data-window]")) button.setAttribute("aria-pressed", String(button.dataset.window === window));
  const card = `/api/v1/cards/${encodeURIComponent(folded.dataset.history)}`;
  try {
    const [points, events] = await Promise.all([get(`${card}/telemetry?window=${window}`), get(`${card}/history`), library()]);
    if (folded.dataset.window !== window) return;
    draw(folded, points, SPANS[window]);
    list(folded, events);
  } catch {
    folded.querySelector(".history-says").textContent = "The farm does not answer; open the history again when it does.";
  }
}

function draw(folded, points, { length_s, part_s, long }) {
  const place = folded.querySelector(".history-chart");
  charts.get(place)?.destroy();
  charts.delete(place);
  const vram = Number(folded.dataset.vram) || null;
  const lines = [
    { label: "Temperature", unit: "°C", colour: "--chart-5", of: (one) => one.temperature_c },
    { label: "In use", unit: "%", colour: "--chart-0", of: (one) => percent(one.utilization) },
    { label: "Memory", unit: "%", colour: "--chart-1", dash: [6, 4], of: (one) => vram && percent(one.memory_used_gib, vram) },
  ].filter((line) => points.some((one) => line.of(one) != null));
  place.hidden = !lines.length;
  const says = folded.querySelector(".history-says");
  if (!lines.length) {
    says.textContent = `${folded.dataset.name} told no temperature, use or memory in the last ${long}.`;
    return;
  }
  place.setAttribute("aria-label", `${lines.map((line) => line.label).join(", ")} of ${folded.dataset.name} in the last ${long}`);
  says.textContent = `${figures(points)}.`;
  // One x for each part of the window, with a hole where nothing was told: a line across it would be made up.
  const first = Math.floor((now() - length_s) / part_s) * part_s;
  const times = Array.from({ length: length_s / part_s + 2 }, (_, index) => first + index * part_s);
  const at = new Map(points.map((one) => [one.at, one]));
  const values = lines.map((line) => times.map((time) => (at.has(time) ? line.of(at.get(time)) ?? null : null)));
  charts.set(place, new uPlot(options(place, lines), [times, ...values], place));
}

function percent(value, whole = 1) {
  return value == null ? null : (100 * value) / whole;
}

/** The same in words: "At most 78 °C, 64 % in use on average, at most 5.9 GiB of memory". */
function figures(points) {
  const told = (name) => points.map((one) => one[name]).filter((value) => value != null);
  const [hot, used, memory] = ["temperature_c", "utilization", "memory_used_gib"].map(told);
  const said = [
    hot.length && `at most ${Math.round(Math.max(...hot))}\u202f°C`,
    used.length && `${Math.round((100 * used.reduce((sum, value) => sum + value, 0)) / used.length)}\u202f% in use on average`,
    memory.length && `at most ${gib(Math.max(...memory))} of memory`,
  ];
  const text = said.filter(Boolean).join(", ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function options(place, lines) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return {
    width: place.clientWidth,
    height: HEIGHT,
    padding: [12, 12, 0, 0],
    cursor: { y: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(100, max)] } }, // one for degrees and per cent: both go up to a hundred
    axes: [{ ...axis, space: 70 }, { ...axis, size: 36 }],
    series: [
      { label: "From", value: (_, time) => (time == null ? "" : new Date(time * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })) },
      ...lines.map(({ label, unit, colour: name, dash }) => ({
        label: `${label}, ${unit}`,
        stroke: colour(name),
        dash,
        width: 1.5,
        value: (_, value) => (value == null ? "" : String(Math.round(value))),
      })),
    ],
  };
}

function list(folded, events) {
  const told = events.slice(0, EVENTS).map((event) => {
    const row = document.createElement("li");
    const time = document.createElement("time");
    time.dataset.at = event.at;
    const what = document.createElement("span");
    prose(what, said(event));
    if (event.job_id) {
      const link = Object.assign(document.createElement("a"), { href: `/jobs/${event.job_id}` });
      link.textContent = event.what === "lost" ? "An attempt was lost" : "An attempt failed";
      what.prepend(link);
    }
    row.append(time, what);
    return row;
  });
  if (!told.length) told.push(Object.assign(document.createElement("li"), { textContent: "Nothing has gone wrong on it yet.", className: "unit" }));
  const place = folded.querySelector(".timeline");
  place.replaceChildren(...told);
  showTimes(place);
}

function said({ what, at, until, why, job_id }) {
  if (job_id) return why ? `: ${why}` : "";
  if (what === "silent") return `Nothing was heard of it for ${duration(until - at)}`;
  if (what === "drained") return "Its PC was drained";
  return what === "paused" ? `Paused: ${why}` : "Its last pause ended";
}
