// "Add a PC": a single-use code, and the line to paste on the other PC.

import { post } from "./actions.js";
import { clockTime } from "./times.js";
import { prose } from "./words.js";

export function offerJoining() {
  const place = document.getElementById("join");
  if (!place) return;
  document.getElementById("make-code").addEventListener("click", async (event) => {
    const wrong = document.getElementById("join-error");
    wrong.hidden = true;
    event.target.disabled = true;
    try {
      const made = await post("/api/v1/tokens", {});
      show("line", made.linux);
      show("line-windows", made.windows);
      show("line-bare", `farm join ${place.dataset.head} --token ${made.token}`);
      document.getElementById("join-line").hidden = false;
      document.getElementById("join-until").textContent =
        `Good for one PC, until ${clockTime(made.expires_at)}. Shown this once: make another for the next PC.`;
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
