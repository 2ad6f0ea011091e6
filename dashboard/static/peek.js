// Clips on the first page play while they are pointed at or focused; nothing is loaded before that.

const still = matchMedia("(prefers-reduced-motion: reduce)");

export function peekAtClips() {
  for (const [enter, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(enter, (event) => play(event));
    document.addEventListener(leave, (event) => stop(event));
  }
}

function clipOf(event) {
  return event.target.closest?.(".clip > a")?.querySelector("video[data-peek]");
}

function play(event) {
  const video = clipOf(event);
  if (!video || still.matches) return;
  if (!video.src) video.src = video.dataset.src;
  video.play().catch(() => {}); // left again before it began
}

function stop(event) {
  const video = clipOf(event);
  if (!video || event.relatedTarget?.closest?.(".clip > a")?.contains(video)) return;
  video.pause();
}
