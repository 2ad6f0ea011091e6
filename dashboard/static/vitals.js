// How the cards are, put in place as their PCs' reports come: the page is not fetched anew for a degree.

import { gib, memoryParts, vitalsLine } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** Shows a card's newest readings wherever the page shows the card. */
export function showVitals(card) {
  const id = CSS.escape(card.id);
  const line = vitalsLine(card.vitals);
  for (const place of document.querySelectorAll(`[data-vitals="${id}"]`)) {
    if (place.textContent !== line) place.textContent = line;
    place.hidden = !line;
  }
  const used = card.vitals?.memory_used_gib;
  if (used == null || card.others_gib == null) return;
  for (const bar of document.querySelectorAll(`[data-memory="${id}"]`)) {
    showMemory(bar, memoryParts(Number(bar.dataset.vram), used, card.others_gib));
  }
}

function showMemory(bar, parts) {
  const said = `Memory of ${gib(Number(bar.dataset.vram))}: ${parts.map((one) => one.text).join(", ")}`;
  if (bar.getAttribute("aria-label") === said) return;
  bar.setAttribute("aria-label", said);
  bar.replaceChildren(
    ...parts.map((one) => {
      const rect = document.createElementNS(SVG, "rect");
      rect.setAttribute("class", `memory-${one.part}`);
      rect.setAttribute("x", one.start.toFixed(2));
      rect.setAttribute("width", one.share.toFixed(2));
      rect.setAttribute("height", "1");
      return rect;
    }),
  );
  bar.nextElementSibling?.replaceChildren(
    ...parts.map((one) => {
      const name = document.createElement("span");
      const swatch = document.createElement("span");
      swatch.className = `swatch memory-${one.part}`;
      name.append(swatch, one.text);
      return name;
    }),
  );
}
