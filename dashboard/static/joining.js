// "Add a PC": a single-use code, the line to paste on the other PC, and word of its cards as soon as they are there.

import { get, post } from "./actions.js";
import { clockTime, now } from "./times.js";
import { prose } from "./words.js";

const TIERS = { preview: "preview", quality: "quality" }; // what a card takes of a tier is asked by the preset of its name
const TRIES = 5;
const AGAIN_MS = 1000; // the feed may be a moment ahead of the store

let known = null; // the cards that were there when the code was made, and those that were told since
let until = 0; // when the newest code expires, while it waits for its PC
let expiring = 0;

export function offerJoining() {
  const place = document.getElementById("join");
  if (!place) return;
  document.getElementById("make-code").addEventListener("click", async (event) => {
    const wrong = document.getElementById("join-error");
    wrong.hidden = true;
    event.target.disabled = true;
    try {
      known ??= new Set((await get("/api/v1/cards")).map((card) => card.id));
      const made = await post("/api/v1/tokens", {});
      show("line", made.linux);
      show("line-windows", made.windows);
      show("line-bare", `farm join ${place.dataset.head} --token ${made.token}`);
      document.getElementById("join-line").hidden = false;
      document.getElementById("join-until").textContent =
        `Good for one PC, until ${clockTime(made.expires_at)}. Shown this once: make another for the next PC.`;
      waits("Waiting for it to appear…", true);
      until = made.expires_at;
      expire();
      const first = document.getElementById(made.linux ? "line" : "line-bare");
      first.focus();
      first.select();
    } catch (error) {
      prose(wrong, error.message);
      wrong.hidden = false;
    } finally {
      event.target.disabled = false;
    }
  });
  for (const button of place.querySelectorAll("[data-copy]"))
    button.addEventListener("click", () => copy(document.getElementById(button.dataset.copy), button));
  document.addEventListener("farm:card", (event) => found(event.detail.id));
  // A hidden page hears no event: what came meanwhile is on the page when it is looked at again.
  document.addEventListener("farm:refreshed", () => {
    for (const card of document.querySelectorAll("#nodes [data-card]")) found(card.dataset.card);
    expire();
  });
}

function found(id) {
  if (!known || known.has(id)) return;
  known.add(id);
  tell(id).catch(() => known.delete(id)); // its next event tries again
}

/** Says when the code is no longer good, or looks again then: the timer of a PC that slept comes late. */
function expire() {
  clearTimeout(expiring);
  if (!until) return;
  const left_s = until - now();
  if (left_s > 0) {
    expiring = setTimeout(expire, 1000 * left_s);
    return;
  }
  until = 0;
  waits("The code has expired before a PC used it. Make another join code, and paste its line.", false);
}

function waits(text, still) {
  const line = document.getElementById("join-waits");
  line.textContent = text;
  line.toggleAttribute("data-waiting", still);
}

/** Says of a card that has just come what it is and what it takes. */
async function tell(id) {
  let card;
  for (let tries = 0; !card; tries += 1) {
    card = (await get("/api/v1/cards")).find((one) => one.id === id);
    if (!card && tries === TRIES) throw new Error("not there yet");
    if (!card) await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
  const item = document.createElement("li");
  prose(item, `Found ${named(card)}, on ${card.node_name}: ${card.state === "trouble" ? card.why : await takes(card)}`);
  document.getElementById("join-found").append(item);
  until = 0;
  waits("It is in the farm.", false);
}

function named(card) {
  return card.vram_gib ? `${card.name}, ${Math.round(card.vram_gib)} GB` : card.name;
}

/** "takes preview, post and, streamed, quality": what its memory holds as it is, and what it does by streaming weights through. */
async function takes(card) {
  if (card.kind === "cpu") return "takes drafts and post";
  const whole = ["post"];
  const streamed = [];
  for (const [tier, preset] of Object.entries(TIERS)) {
    const mine = (await post("/api/v1/plan", { preset, anywhere: true })).find((one) => one.card_id === card.id);
    if (!mine?.fits) continue;
    if (mine.memory_plan.weights_on_card < 1) streamed.push(tier);
    else whole.unshift(tier);
  }
  const all = listed(whole);
  return streamed.length ? `takes ${whole.join(", ")} and, streamed, ${listed(streamed)}` : `takes ${all}`;
}

function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

// A head that cannot make its own package gives no such line: then there is nothing to show.
function show(id, line) {
  const input = document.getElementById(id);
  input.value = line;
  input.parentElement.hidden = !line;
  document.querySelector(`label[for="${id}"]`).hidden = !line;
}

async function copy(line, button) {
  line.select();
  let done = false;
  try {
    await navigator.clipboard.writeText(line.value);
    done = true;
  } catch {
    done = document.execCommand("copy"); // on a LAN without https there is no navigator.clipboard
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
