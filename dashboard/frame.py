"""What every page shows: the bar, the farm's state in a word, the counts; and the filters that the templates use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from dashboard import marks, words
from dashboard.parts import Parts, parts, parts_of
from dashboard.problems import Problem
from dashboard.queue import SCHEDULER_DOWN
from dashboard.state import farm_state
from dashboard.views import card_states
from farm.answers.jobs import JobView
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
        "queue_at": farm.live.queue_at,
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
    """Why a queued job waits, where that says more than its status does already; one that was cancelled waits for nothing."""
    return "" if job.cancel_requested or job.why_pending in (None, SCHEDULER_DOWN) else str(job.why_pending)


def error_page(request: Request, found: Problem) -> Response:
    """A problem, shown to a person in the style of the other pages. `dashboard.problems` calls it."""
    return templates.TemplateResponse(
        request,
        "error.html",
        {"problem": found},
        status_code=found.status,
        headers={"cache-control": "no-store"},
    )
