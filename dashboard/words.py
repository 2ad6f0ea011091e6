"""Numbers and states as people read them: durations, sizes, times, and a word with a tone for each status. Pure.

`static/words.js` says the same of what changes live; a browser test holds the two equal.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from farm.answers.jobs import JobView, ProgressView
from farm.model import (
    AttemptStatus,
    JobStatus,
    MemoryPlan,
    PcieLink,
    RenderSettings,
    StageKind,
    Tier,
)
from farm.stages import clip_fps, clip_frames
from farm.vitals import Vitals

Tone = Literal["good", "live", "wait", "bad", "off"]
"""What colour goes with a word; the word itself always stands beside it."""

THIN = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Word:
    """A state in a word, its tone, and the reason where there is one."""

    word: str
    tone: Tone
    reason: str = ""


_JOB: dict[JobStatus, Word] = {
    JobStatus.QUEUED: Word("Queued", "wait"),
    JobStatus.RUNNING: Word("Rendering", "live"),
    JobStatus.FINISHED: Word("Finished", "good"),
    JobStatus.FAILED: Word("Failed", "bad"),
    JobStatus.CANCELLED: Word("Cancelled", "off"),
}
_ATTEMPT: dict[AttemptStatus, Word] = {
    AttemptStatus.ASSIGNED: Word("Assigned", "live"),
    AttemptStatus.LOADING: Word("Loading", "live"),
    AttemptStatus.RUNNING: Word("Rendering", "live"),
    AttemptStatus.FINISHED: Word("Finished", "good"),
    AttemptStatus.FAILED: Word("Failed", "bad"),
    AttemptStatus.LOST: Word("Lost", "bad"),
    AttemptStatus.CANCELLED: Word("Cancelled", "off"),
}
_CARD: dict[str, Word] = {
    "idle": Word("Idle", "good"),
    "busy": Word("Rendering", "live"),
    "starting": Word("Starting", "wait"),
    "kept": Word("Kept for its owner", "off"),
    "not answering": Word("Not answering", "bad"),
    "trouble": Word("Trouble", "bad"),
    "drained": Word("Drained", "off"),
    "paused": Word("Paused", "bad"),
    "not known": Word("Not known", "off"),
}
_PHASES = {
    "assigned": "Sent to the card",
    "loading": "Loading the model",
    "running": "Rendering",
    "verifying": "Checking the clip",
}
BANDS: dict[Tier, str] = {
    Tier.POST: "post: interpolation, encoding, drafts",
    Tier.PREVIEW: "preview: up to 512 \N{MULTIPLICATION SIGN} 512 px, 16 frames, 50 steps",
    Tier.QUALITY: "quality: every size",
}


PRECISIONS = {"fp16": "half precision (fp16)", "fp32": "single precision (fp32), weights in fp16"}


def slot(link: PcieLink, bus_gb_s: float | None) -> str:
    """How a card hangs on its PC: "PCIe 3 x4 of x16, about 3.0 GB/s"."""
    of = f" of x{link.lanes_most}" if link.lanes_most is not None and link.lanes_most > link.lanes else ""
    speed = f", about {bus_gb_s:.1f}{THIN}GB/s" if bus_gb_s is not None else ""
    return f"PCIe {link.generation} x{link.lanes}{of}{speed}"


def memory_plan(plan: MemoryPlan) -> str:
    """How a render kept within the card's memory: "88 % of the weights stayed, the rest streamed; wide layers in pieces"."""
    share = f"{plan.weights_on_card * 100:.0f}{THIN}%"
    if plan.weights_on_card >= 1.0:
        said = ["everything kept on the card" if plan.parts == "resident" else "parts brought in by turns"]
    else:
        said = [
            f"{share} of the weights stayed, the rest streamed"
            if plan.weights_on_card
            else "all weights streamed"
        ]
    if plan.piece_mib:
        said.append("wide layers in pieces")
    if plan.guidance == "in_turn":
        said.append("guidance in turn")
    if plan.decode == "tiles":
        said.append("decoded in tiles")
    if plan.precision == "fp32":
        said.append("in single precision")
    return "; ".join(said)


def job_word(job: JobView) -> Word:
    """A job's status in a word; one that was asked to stop and has not yet says so."""
    if job.cancel_requested and not job.ended:
        return Word("Cancelling", "wait")
    if job.status == JobStatus.QUEUED and job.unplaceable:
        return Word("No card fits", "bad")
    return _JOB[job.status]


def status_word(status: str) -> Word:
    """A job status by itself, for filters."""
    return _JOB[JobStatus(status)]


def attempt_word(status: str, stage: StageKind = StageKind.GENERATE) -> Word:
    """An attempt's status in a word."""
    if status == AttemptStatus.RUNNING and stage is StageKind.INTERPOLATE:
        return _INTERPOLATING
    return _ATTEMPT[AttemptStatus(status)]


def card_word(state: str) -> Word:
    """A card's state in a word."""
    return _CARD.get(state) or Word(state.capitalize(), "off")


STAGES: dict[StageKind, str] = {
    StageKind.GENERATE: "Generate",
    StageKind.INTERPOLATE: "Interpolate",
    StageKind.ENCODE: "Encode",
}


_INTERPOLATING = Word("Interpolating", "live")


def stage_word(status: str, stage: StageKind) -> Word:
    """A stage's status in a word."""
    if status == JobStatus.RUNNING and stage is StageKind.INTERPOLATE:
        return _INTERPOLATING
    return Word("Not begun", "off") if status == "not begun" else _JOB[JobStatus(status)]


def phase(name: str, stage: StageKind = StageKind.GENERATE) -> str:
    """What a running job does; the scheduler's own word where this is a newer one."""
    if name == "running" and stage is StageKind.INTERPOLATE:
        return "Interpolating"
    return _PHASES.get(name, name.replace("_", " ").capitalize() or "Rendering")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: "0.4 s", "12 s", "1 min 05 s", "2 h 10 min"; "" for not known."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{math.floor(max(seconds, 0) * 10 + 0.5) / 10:.1f}{THIN}s"
    whole = _whole(seconds)
    if whole < 60:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    return f"{whole // 3600}{THIN}h {whole % 3600 // 60:02d}{THIN}min"


def _whole(value: float) -> int:
    """Rounded as JavaScript does: halves go up, where Python's `round` goes to the even number."""
    return math.floor(value + 0.5)


def progress_line(progress: ProgressView) -> str:
    """Where a render is: "Rendering: step 12 of 50, 1.8 s per step, about 1 min 10 s left"."""
    parts = []
    unit = "step" if progress.stage is StageKind.GENERATE else "frame"
    if progress.total:
        parts.append(f"{unit} {progress.done} of {progress.total}")
    if progress.seconds_per_step is not None:
        parts.append(f"{duration(progress.seconds_per_step)} per {unit}")
    if progress.eta_s is not None:
        parts.append(f"about {duration(progress.eta_s)} left")
    doing = phase(progress.phase, progress.stage)
    return f"{doing}: {', '.join(parts)}" if parts else doing


def ago(at: float, now: float) -> str:
    """How long ago: "just now", "5 min ago", "3 h ago", "2 days ago", then the date."""
    passed = max(0.0, now - at)
    if passed < 45:
        return "just now"
    if passed < 3570:
        return f"{max(1, _whole(passed / 60))}{THIN}min ago"
    if passed < 86400:
        return f"{max(1, _whole(passed / 3600))}{THIN}h ago"
    days = _whole(passed / 86400)
    if days < 30:
        return f"{days} day{'s' if days > 1 else ''} ago"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def exact(at: float) -> str:
    """The exact time, UTC; the browser puts its own zone's in its place."""
    # As `strftime` has it, which takes half as long again: the Cards page tells hundreds of times.
    return f"{datetime.fromtimestamp(at, UTC).isoformat(' ', 'seconds')[:19]} UTC"


def iso(at: float) -> str:
    """For a `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def gib(value: float | None) -> str:
    """Memory: "5.4 GiB", "12 GiB"; "" for not known."""
    return "" if value is None else f"{_whole(10 * value) / 10:.1f}".removesuffix(".0") + f"{THIN}GiB"


def size(count: int) -> str:
    """Bytes: "340 KiB", "1.2 GiB"."""
    if count < 1024**2:
        return f"{max(1, _whole(count / 1024))}{THIN}KiB"
    unit, by = ("MiB", 1024**2) if count < 1024**3 else ("GiB", 1024**3)
    return f"{count / by:.1f}{THIN}{unit}"


def gb(count: int) -> str:
    """Bytes as the limits of storage count them, in powers of ten: "340 MB", "1.2 GB"."""
    if count < 1e9:
        return f"{max(1, _whole(count / 1e6))}{THIN}MB"
    return f"{_whole(count / 1e8) / 10:.1f}{THIN}GB"


def rate(value: float | None) -> str:
    """A rate, rounded: with two decimals below 1, with one below 100: "0.25", "4.2", "118"; "" for not known."""
    if value is None:
        return ""
    # What it comes to decides, not what it was: 0.996 is 1.0 as 1 is, and 99.97 is 100.
    if (hundredths := _whole(100 * value)) < 100:
        return f"{hundredths / 100:.2f}"
    return f"{tenths / 10:.1f}" if (tenths := _whole(10 * value)) < 1000 else number(_whole(value))


def wh(value: float | None) -> str:
    """Energy: "0.25 Wh", "4.2 Wh"; "" for not known."""
    return "" if value is None else f"{rate(value)}{THIN}Wh"


def vitals_line(vitals: Vitals | None) -> str:
    """How a card is: "71 °C, 98 % in use, 155 W"; what it does not tell is left out."""
    if vitals is None:
        return ""
    told = (
        (vitals.temperature_c, f"{THIN}°C"),
        (None if vitals.utilization is None else 100 * vitals.utilization, f"{THIN}% in use"),
        (vitals.power_w, f"{THIN}W"),
    )
    return ", ".join(f"{_whole(value)}{unit}" for value, unit in told if value is not None)


def number(value: float) -> str:
    """A number without useless digits, thousands apart."""
    return f"{value:,.10g}".replace(",", THIN)


def plain(value: float) -> str:
    """A number as an input takes it: without useless digits and without gaps."""
    return f"{value:.10g}"


def many(count: int, one: str, more: str = "") -> str:
    """A count with its noun: "1 job", "3 jobs"."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def listed(names: Iterable[str], between: str = ", ") -> str:
    """Names one after the other. Jinja's own `join` looks at each for HTML, which takes ten times as long."""
    return between.join(names)


def clip_length(frames: int, fps: int) -> str:
    """How long a clip plays."""
    return duration(frames / fps)


def clip_frames_line(settings: RenderSettings) -> str:
    """A clip's frames and playing time: "8 frames at 8 fps, smoothed to 24 at 24 fps: 1.0 s"."""
    made = f"{many(settings.frames, 'frame')} at {settings.fps} fps"
    frames, fps = clip_frames(settings), clip_fps(settings)
    smoothed = f", smoothed to {frames} at {fps} fps" if settings.smooth is not None else ""
    return f"{made}{smoothed}: {clip_length(frames, fps)}"


_TOLD = {
    "assigned": "Given to a card",
    "loading": "Loads the model",
    "rendering": "Renders",
    "rendered": "Rendered",
    "finished": "Finished",
    "retrying": "Tries a leaner plan",
    "resumed": "Goes on from a checkpoint",
    "queued": "Back in the queue",
}


def told(what: str) -> str:
    """What happened to a job, of its story; the store's own word where that will do."""
    return _TOLD.get(what, what.replace("_", " ").capitalize())
