"""What every page shows: the bar, the farm's state in a word, the counts; and the filters that the templates use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from dashboard import marks, words
from dashboard.parts import Parts, parts, parts_of
from dashboard.problems import Problem
from dashboard.queue import SCHEDULER_DOWN
from dashboard.views import card_states
from dashboard.words import Word, many
from farm.answers import JobView
from farm.model import JobStatus
from farm.stages import clip_fps, clip_frames

templates = Jinja2Templates(directory=Path(__file__).with_name("templates"))
templates.env.trim_blocks = True
templates.env.lstrip_blocks = True
templates.env.filters.update(
    ago=words.ago,
    duration=words.duration,
    exact=words.exact,
    gb=words.gb,
    gib=words.gib,
    iso=words.iso,
    listed=words.listed,
    number=words.number,
    plain=words.plain,
    phase=words.phase,
    progress_line=words.progress_line,
    rate=words.rate,
    wh=words.wh,
    vitals_line=words.vitals_line,
    size=words.size,
)
templates.env.globals.update(
    dot=marks.dot,
    is_silent=marks.is_silent,
    memory_bar=marks.memory_bar,
    silence=marks.silence,
    status=marks.status,
    vitals=marks.vitals,
    when=marks.when,
    attempt_word=words.attempt_word,
    bands=words.BANDS,
    precisions=words.PRECISIONS,
    slot=words.slot,
    card_word=words.card_word,
    clip_fps=clip_fps,
    clip_frames=clip_frames,
    clip_frames_line=words.clip_frames_line,
    clip_length=words.clip_length,
    job_word=words.job_word,
    many=words.many,
    memory_plan=words.memory_plan,
    stage_word=words.stage_word,
    stages=words.STAGES,
    status_word=words.status_word,
    told=words.told,
)

Farm = Annotated[Parts, Depends(parts)]


def farm_state(*, connected: bool, states: Sequence[str], counts: Mapping[JobStatus, int]) -> Word:
    """The farm's state in a word, with its reason; `states` are those of its cards."""
    if not connected:
        return Word(
            "Scheduler not answering",
            "bad",
            "New jobs are stored and wait for it; what is shown of cards and progress may be old. "
            "`farm up` starts it again by itself.",
        )
    if not states:
        return Word(
            "No cards", "wait", "Nothing can render until a PC has joined: add one on the Cards page."
        )
    return _state_of_cards(states, counts[JobStatus.RUNNING], counts[JobStatus.QUEUED])


def _state_of_cards(states: Sequence[str], running: int, queued: int) -> Word:
    well = [state for state in states if state in ("idle", "busy", "starting")]
    known = many(len(states), "card")
    drained = states.count("drained")
    ill = len(states) - len(well) - drained
    also = f"; {many(ill, 'card')} not answering or in trouble" if ill else ""
    waiting = f", {many(queued, 'job')} waiting" if queued else ""
    if running:
        reason = f"{many(running, 'job')} on {states.count('busy')} of {known}{waiting}{also}."
        return Word("Rendering", "live", reason)
    if not well and drained and not ill:
        return Word(
            "Drained", "wait", f"All of {known} are drained{waiting}; `farm resume` gives a PC work again."
        )
    if not well:
        return Word("No card answers", "bad", f"{known} known{waiting}; the Cards page says why.")
    if queued:
        jobs = "1 job waits" if queued == 1 else f"{many(queued, 'job')} wait"
        return Word(
            "Waiting", "wait", f"{jobs} for a card that can run {'it' if queued == 1 else 'them'}{also}."
        )
    if "idle" not in states:
        return Word("Starting", "wait", f"{many(states.count('starting'), 'card')} starting{also}.")
    return Word("Idle", "good", f"{states.count('idle')} of {known} ready{also}.")


def page(request: Request, name: str, context: Mapping[str, Any], status: int = 200) -> Response:
    """A page with what every page shows: the farm's state, and how many jobs wait and render.

    A page that has asked for the `states` of all cards or for `counts` (of jobs by status) already says so in its context.
    """
    farm = parts_of(request)
    states = context["states"] if "states" in context else list(card_states(farm).values())
    counts = context.get("counts") or farm.reader.counts((JobStatus.QUEUED, JobStatus.RUNNING))
    shared = {
        "now": farm.now(),
        "state": farm_state(connected=farm.live.connected, states=states, counts=counts),
        "connected": farm.live.connected,
        "preview_count": lambda job_id: live.preview if (live := farm.live.jobs.get(job_id)) else 0,
        "why": waits_for,
        "me": request.state.credential,
    }
    return templates.TemplateResponse(
        request,
        name,
        {**shared, **context, "counts": {str(status): counts[status] for status in counts}},
        status_code=status,
        headers={"cache-control": "no-store"},
    )


def waits_for(job: JobView) -> str:
    """Why a queued job waits, where that says more than its status does already."""
    return "" if job.why_pending in (None, SCHEDULER_DOWN) else str(job.why_pending)


def error_page(request: Request, found: Problem) -> Response:
    """A problem, shown to a person in the style of the other pages. `dashboard.problems` calls it."""
    return templates.TemplateResponse(
        request,
        "error.html",
        {"problem": found},
        status_code=found.status,
        headers={"cache-control": "no-store"},
    )
