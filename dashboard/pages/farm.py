"""The first screen: the farm's state, its cards at work, what waits, the newest clips, and what was done."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.memory_bar import MemoryBar, memory_bar
from dashboard.parts import Parts
from dashboard.views import card_states, job_view, show_cards, show_jobs
from dashboard.work import done_today, today
from farm.answers.jobs import JobView
from farm.answers.machines import CardView
from farm.model import Attempt, Job, JobStatus
from farm.store.throughput import Done

NEWEST = 6
"""Clips on the page: a row on a wide screen, two of three or three of two on smaller ones."""
WAITING_SHOWN = 5
"""Waiting jobs on the page; the rest is a link away."""
TILES = 24
"""Cards on the page: those at work first, then those that need a look. The rest is a link away, or a big farm's page would be heavy."""
_URGENT = ("busy", "trouble", "paused", "not answering", "starting", "not known", "idle", "kept", "drained")
_URGENCY = {state: place for place, state in enumerate(_URGENT)}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Tile:
    """A card with what it renders, its memory (None where it has none of its own), and its day."""

    card: CardView
    job: JobView | None
    memory: MemoryBar | None
    today: Done


@router.get("/")
def farm_page(request: Request, farm: Farm) -> Response:
    """State, cards, waiting jobs, newest clips, throughput."""
    states = card_states(farm)
    queued = show_jobs(farm, status=JobStatus.QUEUED, sort="oldest", limit=WAITING_SHOWN).jobs
    finished = show_jobs(farm, status=JobStatus.FINISHED, sort="ended", limit=NEWEST).jobs
    tiles = card_tiles(farm, states)
    context = {
        "states": list(states.values()),
        "tiles": tiles,
        "cards_more": len(states) - len(tiles),
        "queued": queued,
        "finished": finished,
        "any_job": bool(queued or finished or farm.reader.jobs(limit=1).jobs),
        "ended_today": {
            str(one): count for one, count in farm.reader.ended_counts(today(farm.now())).items()
        },
    }
    return page(request, "farm.html", context)


def card_tiles(farm: Parts, states: Mapping[str, str]) -> list[Tile]:
    """The cards that the first screen shows, the most urgent first; in the farm's own order, which `states` (by id) has, among equals."""
    ids = sorted(states, key=lambda card_id: _URGENCY.get(states[card_id], len(_URGENCY)))[:TILES]
    done, running = done_today(farm, ids), farm.reader.running_on(ids)
    shown = {card.id: card for card in show_cards(farm, ids)}
    return [_tile(farm, shown[one], running.get(one), done[one]) for one in ids if one in shown]


def _tile(farm: Parts, card: CardView, running: tuple[Attempt, Job] | None, done: Done) -> Tile:
    if running is None or card.state != "busy":
        return Tile(card, None, memory_bar(card), done)
    attempt, job = running
    return Tile(card, job_view(farm, job), memory_bar(card, attempt.predicted_gib), done)
