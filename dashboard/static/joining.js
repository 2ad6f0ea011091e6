// "Add a PC": a single-use code, and the one line to run on the other PC.

import { post } from "./actions.js";
import { clockTime } from "./times.js";
import { prose } from "./words.js";

export function offerJoining() {
  const place = document.getElementById("join");
  if (!place) return;
  const line = document.getElementById("line");
  document.getElementById("make-code").addEventListener("click", async (event) => {
    const wrong = document.getElementById("join-error");
    wrong.hidden = true;
    event.target.disabled = true;
    try {
      const made = await post("/api/v1/tokens", {});
      line.value = `farm join ${place.dataset.head} --token ${made.token}`;
      document.getElementById("join-line").hidden = false;
      document.getElementById("join-until").textContent =
        `Good for one PC, until ${clockTime(made.expires_at)}. Shown this once: make another for the next PC.`;
      line.focus();
      line.select();
    } catch (error) {
      prose(wrong, error.message);
      wrong.hidden = false;
    } finally {
      event.target.disabled = false;
    }
  });
  document.getElementById("copy").addEventListener("click", (event) => copy(line, event.target));
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
