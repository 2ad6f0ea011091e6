// Relative times that go on, with the exact time of the reader's own zone in the title.

import { ago, duration } from "./words.js";

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const minute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

// The head's clock counts: a PC whose own is wrong still says "2 min ago" rightly.
let ahead = 0;

export function setClock(serverNow) {
  if (Number.isFinite(serverNow)) ahead = serverNow - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + ahead;
}

export function clockTime(seconds) {
  return minute.format(new Date(seconds * 1000));
}

export function showTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-at]")) {
    const at = Number(element.dataset.at);
    set(element, ago(at, now()), exact.format(new Date(at * 1000)));
  }
  for (const element of root.querySelectorAll("time[data-clock]")) {
    const at = new Date(Number(element.dataset.clock) * 1000);
    set(element, clock.format(at), exact.format(at));
  }
  for (const element of root.querySelectorAll("time[data-soon]")) {
    const at = new Date(Number(element.dataset.soon) * 1000);
    const near = Math.abs(at / 1000 - now()) < 12 * 3600; // beyond, the time of day alone could be any day's
    set(element, (near ? minute : day).format(at), exact.format(at));
  }
  for (const element of root.querySelectorAll("[data-passed]")) {
    set(element, duration(now() - Number(element.dataset.passed)), "");
  }
}

function set(element, text, title) {
  if (element.textContent !== text) element.textContent = text;
  if (element.title !== title) element.title = title;
}

export function keepTimes() {
  showTimes();
  setInterval(showTimes, 5000);
}
