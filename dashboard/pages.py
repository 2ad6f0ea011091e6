"""The pages a person sees. They read through `dashboard.views`; what they change goes through the JSON API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from dashboard import words
from dashboard.parts import Parts, parts
from dashboard.problems import Problem
from dashboard.views import (
    SCHEDULER_DOWN,
    WAITING,
    default_preset,
    show_calibration,
    show_cards,
    show_job,
    show_jobs,
    show_nodes,
)
from dashboard.words import Word, many
from farm.answers import CardView, JobView
from farm.catalogue.presets import Preset
from farm.daemons import is_loopback, own_address_towards
from farm.model import Card, Job, JobStatus, RenderSettings
from farm.motion import MAX_STRENGTH, MOTIONS
from farm.planning.eligibility import FarmView, bands_of, unplaceable
from farm.planning.tiers import tier_of
from farm.stages import stages_of
from farm.submit import MAX_FPS, MAX_GUIDANCE, MAX_PROMPT, MAX_SEED

NEWEST = 8
"""Clips on the first page: two rows of four on a wide screen."""
LIVE_SHOWN = 6
"""Running and waiting jobs on the first page; the rest is a link away."""
PAGE = 30
"""Jobs on a page of the list."""

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=Path(__file__).with_name("templates"))
templates.env.trim_blocks = True
templates.env.lstrip_blocks = True
templates.env.filters.update(
    ago=words.ago,
    duration=words.duration,
    exact=words.exact,
    gib=words.gib,
    iso=words.iso,
    number=words.number,
    phase=words.phase,
    progress_line=words.progress_line,
)
templates.env.globals.update(
    attempt_word=words.attempt_word,
    bands=words.BANDS,
    precisions=words.PRECISIONS,
    slot=words.slot,
    card_word=words.card_word,
    clip_frames_line=words.clip_frames_line,
    clip_length=words.clip_length,
    job_word=words.job_word,
    many=words.many,
    memory_plan=words.memory_plan,
    stage_word=words.stage_word,
    stages=words.STAGES,
    status_word=words.status_word,
)

Farm = Annotated[Parts, Depends(parts)]


@dataclass(frozen=True, slots=True)
class PresetCard:
    """A preset as the form offers it. `hint` says why no card of this farm can run it; "" where one can."""

    preset: Preset
    draft: bool
    prompt_needed: bool
    hint: str


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list of jobs is narrowed to; lives in the address."""

    status: str | None = None
    model: str | None = None
    card: str | None = None
    q: str | None = None

    @property
    def any(self) -> bool:
        """Whether anything is narrowed."""
        return any((self.status, self.model, self.card, self.q))

    def link(self, **changes: object) -> str:
        """The list's address with some filters changed; always its first page unless `cursor` is given."""
        values: dict[str, object] = {
            "status": self.status,
            "model": self.model,
            "card": self.card,
            "q": self.q,
        }
        wanted = {name: value for name, value in (values | changes).items() if value}
        return f"/jobs?{urlencode(wanted)}" if wanted else "/jobs"


def farm_state(*, connected: bool, cards: Sequence[CardView], counts: Mapping[JobStatus, int]) -> Word:
    """The farm's state in a word, with its reason."""
    if not connected:
        return Word(
            "Scheduler not answering",
            "bad",
            "New jobs are stored and wait for it; what is shown of cards and progress may be old. "
            "`farm up` starts it again by itself.",
        )
    if not cards:
        return Word(
            "No cards", "wait", "Nothing can render until a PC has joined: add one on the Cards page."
        )
    return _state_of_cards(
        [card.state for card in cards], counts[JobStatus.RUNNING], counts[JobStatus.QUEUED]
    )


def _state_of_cards(states: list[str], running: int, queued: int) -> Word:
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
    """A page with what every page shows: the farm's state and the counts."""
    farm = parts(request)
    cards = context.get("cards")
    if cards is None:
        cards = show_cards(farm)
    counts = farm.reader.counts()
    shared = {
        "now": farm.now(),
        "counts": {str(status): count for status, count in counts.items()},
        "state": farm_state(connected=farm.live.connected, cards=cards, counts=counts),
        "connected": farm.live.connected,
        "preview_count": lambda job_id: live.preview if (live := farm.live.jobs.get(job_id)) else 0,
        "why": waits_for,
    }
    return templates.TemplateResponse(
        request,
        name,
        {**shared, **context, "cards": cards},
        status_code=status,
        headers={"cache-control": "no-store"},
    )


def waits_for(job: JobView) -> str:
    """Why a queued job waits, where that says more than its status does already."""
    return "" if job.why_pending in (None, WAITING, SCHEDULER_DOWN) else str(job.why_pending)


@router.get("/")
def farm_page(request: Request, farm: Farm) -> Response:
    """The first screen: state, a new clip, what renders, the newest clips, the cards."""
    running = show_jobs(farm, status=JobStatus.RUNNING, limit=LIVE_SHOWN).jobs
    queued = show_jobs(farm, status=JobStatus.QUEUED, limit=LIVE_SHOWN).jobs
    ended = [job for job in show_jobs(farm, limit=4 * NEWEST).jobs if job.ended][:NEWEST]
    presets = preset_cards(farm)
    usual = default_preset(farm)
    if any(each.hint for each in presets if each.preset.name == usual):
        usual = next((each.preset.name for each in presets if not each.hint), usual)
    context = {
        "running": running,
        "queued": queued,
        "ended": ended,
        "presets": presets,
        "usual": usual,
        "models": farm.models.values(),
        "motions": MOTIONS,
        "limits": {
            "strength": MAX_STRENGTH,
            "prompt": MAX_PROMPT,
            "guidance": MAX_GUIDANCE,
            "fps": MAX_FPS,
            "seed": MAX_SEED,
            "upload_mib": farm.settings.max_upload_mib,
        },
    }
    return page(request, "farm.html", context)


@router.get("/jobs")
def jobs_page(
    request: Request,
    farm: Farm,
    status: str = "",
    model: str = "",
    card: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    cursor: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """The history, newest first; an unknown status counts as none, so that an old link still shows something."""
    known = status if status in tuple(JobStatus) else ""
    filters = Filters(known or None, model or None, card or None, q.strip() or None)
    found = show_jobs(
        farm,
        status=filters.status,
        model=filters.model,
        card=filters.card,
        q=filters.q,
        cursor=cursor,
        limit=PAGE,
    )
    context = {
        "jobs": found.jobs,
        "older": filters.link(cursor=found.cursor) if found.cursor else None,
        "first": cursor is None,
        "filters": filters,
        "statuses": list(JobStatus),
        "models": list(farm.models.values()),
    }
    return page(request, "jobs.html", context)


@router.get("/jobs/{job_id}")
def job_page(request: Request, farm: Farm, job_id: str) -> Response:
    """One job: the clip, or how far it is, and the story of its attempts."""
    job = show_job(farm, job_id)
    names = {node.id: node.name for node in farm.reader.nodes(forgotten=True)}
    model = farm.models.get(job.model)
    return page(
        request,
        "job.html",
        {"job": job, "node_names": names, "model_title": model.title if model else job.model},
    )


@router.get("/cards")
def cards_page(request: Request, farm: Farm) -> Response:
    """The PCs and their cards, and how to add one."""
    nodes = show_nodes(farm)
    cards = [card for node in nodes for card in node.cards]
    head, reachable = head_address(request, farm.settings.host, farm.settings.port)
    context = {
        "nodes": nodes,
        "cards": cards,
        "head": head,
        "reachable": reachable,
        "calibration": show_calibration(farm),
    }
    return page(request, "cards.html", context)


def error_page(request: Request, found: Problem) -> Response:
    """A problem, shown to a person in the style of the other pages. `dashboard.problems` calls it."""
    return templates.TemplateResponse(
        request,
        "error.html",
        {"problem": found},
        status_code=found.status,
        headers={"cache-control": "no-store"},
    )


def preset_cards(farm: Parts) -> list[PresetCard]:
    """The presets, each with the planner's word on whether any card of this farm could run it."""
    cards = farm.reader.cards()
    view = FarmView(models=farm.models, tiers=farm.settings.tiers, bands=bands_of(cards))
    return [
        PresetCard(
            preset,
            draft=farm.models[preset.model].draft,
            prompt_needed=farm.models[preset.model].prompt_needed,
            hint=_hint(preset, cards, view),
        )
        for preset in farm.presets.values()
    ]


def _hint(preset: Preset, cards: Sequence[Card], view: FarmView) -> str:
    settings = RenderSettings(
        model=preset.model,
        width=preset.width,
        height=preset.height,
        frames=preset.frames,
        steps=preset.steps,
        guidance=preset.guidance,
        fps=preset.fps,
        seed=0,
        smooth=preset.smooth,
    )
    imagined = Job("", JobStatus.QUEUED, settings, tier_of(settings), input_sha256="", created_at=0.0)
    hints = (unplaceable(replace(imagined, stage=stage), cards, view) for stage in stages_of(settings))
    return next((hint for hint in hints if hint), "")


def head_address(request: Request, host: str, port: int) -> tuple[str, bool]:
    """The address under which other PCs find this head, and whether they can reach it at all.

    Whoever came here by an address that is not loopback's has shown that it works; else the one that `farm up` listens on counts.
    """
    came_by = request.url.hostname or ""
    if came_by and not is_loopback(came_by) and came_by != "::1":
        return f"{request.url.scheme}://{request.url.netloc}", True
    if is_loopback(host) or host == "::1":
        return f"http://ADDRESS:{port}", False
    if host in ("0.0.0.0", "::"):  # noqa: S104  # a comparison
        try:
            host = own_address_towards("192.0.2.1", 9)  # an address for documentation: any way out
        except OSError:
            return f"http://ADDRESS:{port}", False
    return f"http://{host}:{port}", True
