// Many jobs at once: choose rows, then cancel, try again or move them. Each is asked for by itself, and what did not work is said.

import { confirm, post, Refused } from "./actions.js";
import { refresh } from "./live.js";

const AT_ONCE = 4;
const WAYS = {
  cancel: { fits: ["queued", "running"], done: "will be cancelled", not: "have ended already" },
  retry: { fits: ["failed", "cancelled"], done: "will be tried again", not: "have not failed, or their picture was removed" },
  priority: { fits: ["queued", "running"], done: "will be moved", not: "have ended already" },
};

export function offerBulk() {
  if (!document.querySelector(".jobs-table, #list")) return;
  document.addEventListener("change", (event) => {
    if (event.target.id === "pick-all") for (const box of boxes()) box.checked = event.target.checked;
    if (event.target.matches("#pick-all, [name=pick]")) show();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-bulk]");
    if (button) act(button.dataset.bulk);
  });
  let last = null;
  document.addEventListener("click", (event) => {
    // Shift takes all rows between two, as in every list of files.
    if (!event.target.matches("[name=pick]")) return;
    const all = boxes();
    const here = all.indexOf(event.target);
    const there = all.findIndex((box) => box.value === last);
    if (event.shiftKey && there >= 0) {
      for (const box of all.slice(Math.min(here, there), Math.max(here, there) + 1)) box.checked = event.target.checked;
      show();
    }
    last = event.target.value;
  });
  document.addEventListener("farm:refreshed", show); // rows may have come and gone
  show();
}

const boxes = () => [...document.querySelectorAll("[name=pick]")];
const chosen = () => boxes().filter((box) => box.checked).map((box) => box.closest("[data-job]"));

function show() {
  const bar = document.getElementById("bulk");
  if (!bar) return;
  const count = chosen().length;
  const all = document.getElementById("pick-all");
  all.checked = count > 0 && count === boxes().length;
  all.indeterminate = count > 0 && !all.checked;
  bar.hidden = count === 0 && !document.getElementById("bulk-said").textContent;
  document.getElementById("bulk-count").textContent = count ? `${count} chosen` : "";
  for (const button of bar.querySelectorAll("button, input")) button.disabled = count === 0;
}

async function act(kind) {
  const rows = chosen();
  if (kind === "none") {
    for (const box of boxes()) box.checked = false;
    document.getElementById("bulk-said").textContent = "";
    return show();
  }
  const way = WAYS[kind];
  const fitting = rows.filter((row) => way.fits.includes(row.dataset.status) && !(kind === "retry" && "removed" in row.dataset));
  const rest = rows.length - fitting.length;
  if (!fitting.length) return say(`Nothing to do: ${rest === 1 ? "it does" : `all ${rest} do`} not fit; ${way.not}.`);
  const field = document.getElementById("bulk-value");
  if (kind === "priority" && !field.checkValidity()) return say("Priority must be a whole number between -100 and 100.");
  const body = kind === "priority" ? { priority: Number(field.value) } : undefined;
  if (kind === "cancel") {
    const running = fitting.filter((row) => row.dataset.status === "running").length;
    const text = `${count(fitting.length)} leave the queue${running ? `, ${running} of them in the middle of the render, which is thrown away` : ""}. They stay in the history and can be tried again.`;
    if (!(await confirm(`Cancel ${count(fitting.length)}?`, text, `Cancel ${count(fitting.length)}`))) return;
  }
  const failed = await each(fitting, (row) => post(`/api/v1/jobs/${encodeURIComponent(row.dataset.job)}/${kind}`, body));
  for (const box of boxes()) box.checked = false;
  const parts = [`${count(fitting.length - failed.length)} ${way.done}`];
  if (rest) parts.push(`${rest} left alone: they ${way.not}`);
  if (failed.length) {
    const [error] = failed;
    parts.push(`${failed.length} ${error instanceof Refused ? "did not work" : "got no answer"}: ${error.message.replace(/\.$/, "")}`);
  }
  say(`${parts.join("; ")}.`);
  if (document.activeElement === document.body) document.getElementById("pick-all").focus(); // the button has nothing to do any more
  refresh();
}

const count = (number) => `${number} ${number === 1 ? "job" : "jobs"}`;

/** Runs `work` for each, a few at a time; the errors. */
async function each(rows, work) {
  const failed = [];
  const todo = [...rows];
  const lane = async () => {
    for (let row = todo.shift(); row; row = todo.shift()) {
      try {
        await work(row);
      } catch (error) {
        failed.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return failed;
}

function say(text) {
  document.getElementById("bulk-said").textContent = text;
  show();
}
