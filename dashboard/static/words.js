// What changes live, in the same words as dashboard/words.py; a browser test holds the two equal.

const THIN = "\u202f";

const PHASES = {
  assigned: "Sent to the card",
  loading: "Loading the model",
  running: "Rendering",
  verifying: "Checking the clip",
};

const JOBS = {
  queued: { word: "Queued", tone: "wait" },
  running: { word: "Rendering", tone: "live" },
  finished: { word: "Finished", tone: "good" },
  failed: { word: "Failed", tone: "bad" },
  cancelled: { word: "Cancelled", tone: "off" },
};

/** A job's status in a word, with its tone. */
export function jobWord(status) {
  return JOBS[status];
}

export function phase(name, stage = "generate") {
  if (name === "running" && stage === "interpolate") return "Interpolating";
  const plain = (name || "").replaceAll("_", " ");
  return PHASES[name] || plain.charAt(0).toUpperCase() + plain.slice(1).toLowerCase() || "Rendering";
}

/** Seconds as a person says them: "0.4 s", "12 s", "1 min 05 s", "2 h 10 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 9.95) return `${(Math.floor(Math.max(seconds, 0) * 10 + 0.5) / 10).toFixed(1)}${THIN}s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole}${THIN}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}${THIN}min ${two(whole % 60)}${THIN}s`;
  return `${Math.floor(whole / 3600)}${THIN}h ${two(Math.floor((whole % 3600) / 60))}${THIN}min`;
}

/** "Rendering: step 12 of 50, 1.8 s per step, about 1 min 10 s left". */
export function progressLine(job) {
  const parts = [];
  const unit = (job.stage ?? "generate") === "generate" ? "step" : "frame";
  if (job.total) parts.push(`${unit} ${job.done} of ${job.total}`);
  if (job.seconds_per_step != null) parts.push(`${duration(job.seconds_per_step)} per ${unit}`);
  if (job.eta_s != null) parts.push(`about ${duration(job.eta_s)} left`);
  const doing = phase(job.phase, job.stage);
  return parts.length ? `${doing}: ${parts.join(", ")}` : doing;
}

/** How long ago; `at` and `now` in seconds since 1970. */
export function ago(at, now) {
  const passed = Math.max(0, now - at);
  if (passed < 45) return "just now";
  if (passed < 3570) return `${Math.max(1, Math.round(passed / 60))}${THIN}min ago`;
  if (passed < 86400) return `${Math.max(1, Math.round(passed / 3600))}${THIN}h ago`;
  const days = Math.round(passed / 86400);
  if (days < 30) return `${days} day${days > 1 ? "s" : ""} ago`;
  return new Date(at * 1000).toISOString().slice(0, 10);
}

/** Puts a sentence of ours into an element; `this` in it is something to type. */
export function prose(element, text) {
  element.replaceChildren(
    ...text.split("`").map((part, index) => {
      if (index % 2 === 0) return part;
      const code = document.createElement("code");
      code.textContent = part;
      return code;
    }),
  );
}

/** Memory: "5.4 GiB", "12 GiB". */
export function gib(value) {
  return value == null ? "" : `${(Math.round(10 * value) / 10).toFixed(1).replace(/\.0$/, "")}${THIN}GiB`;
}

/** A rate, rounded: with two decimals below 1, with one below 100. What it comes to decides, not what it was. */
export function rate(value) {
  if (value == null) return "";
  const hundredths = Math.round(100 * value);
  if (hundredths < 100) return (hundredths / 100).toFixed(2);
  const tenths = Math.round(10 * value);
  return tenths < 1000 ? (tenths / 10).toFixed(1) : String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, THIN);
}

/** How a card is: "71 °C, 98 % in use, 155 W"; what it does not tell is left out. */
export function vitalsLine(vitals) {
  if (!vitals) return "";
  const share = vitals.utilization == null ? null : 100 * vitals.utilization;
  const told = [[vitals.temperature_c, "°C"], [share, "% in use"], [vitals.power_w, "W"]];
  return told.filter(([value]) => value != null).map(([value, unit]) => `${Math.round(value)}${THIN}${unit}`).join(", ");
}

/** The stretches of a card's memory bar, as `read_bar` of dashboard/memory_bar.py has them. */
export function memoryParts(vram, usedNow, othersNow) {
  const used = Math.min(usedNow, vram);
  const others = Math.min(othersNow, used);
  let start = 0;
  const found = [];
  for (const [part, size, what] of [["ours", used - others, "farm and driver"], ["others", others, "other programs"], ["free", vram - used, "free"]]) {
    if (size < 0.05) continue;
    const share = (100 * size) / vram;
    found.push({ part, start, share, text: `${gib(size)} ${what}` });
    start += share;
  }
  return found;
}

export function size(bytes) {
  if (bytes < 1024 * 1024) return `${Math.max(1, Math.round(bytes / 1024))}${THIN}KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)}${THIN}MiB`;
}

/** Bytes as the limits of storage count them, in powers of ten. */
export function gb(bytes) {
  if (bytes < 1e9) return `${Math.max(1, Math.round(bytes / 1e6))}${THIN}MB`;
  return `${(Math.round(bytes / 1e8) / 10).toFixed(1)}${THIN}GB`;
}
