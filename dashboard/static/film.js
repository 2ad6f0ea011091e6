// A clip looked at frame by frame: buttons, and the comma and full stop keys as video editors have them.

export function offerFrames() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-step]");
    if (button) step(Number(button.dataset.step));
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, [contenteditable]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ",": -1, ".": 1 }[event.key];
    if (!by || !document.getElementById("film")) return;
    event.preventDefault();
    step(by);
  });
  // A clip may come while the page is open. A video's events do not bubble; the document hears them on their way down.
  for (const kind of ["timeupdate", "seeked", "loadedmetadata"]) {
    document.addEventListener(kind, (event) => event.target.id === "film" && tell(event.target), { capture: true });
  }
}

function frameOf(film) {
  // In the middle of a frame's time the number is sure, whatever the rounding of the file's clock.
  return Math.min(Number(film.dataset.frames) - 1, Math.floor(film.currentTime * Number(film.dataset.fps) + 0.01));
}

function step(by) {
  const film = document.getElementById("film");
  if (!film) return;
  film.pause();
  const all = Number(film.dataset.frames);
  const frame = (frameOf(film) + by + all) % all;
  film.currentTime = (frame + 0.5) / Number(film.dataset.fps);
}

function tell(film) {
  const place = document.getElementById("film-frame");
  if (place) place.textContent = `frame ${frameOf(film) + 1} of ${film.dataset.frames}`;
}
