"""The first screen: the farm's state, its cards at work, what waits, the newest clips, and what was done."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.memory_bar import MemoryBar, memory_bar
from dashboard.parts import Parts
from dashboard.views import job_view, show_cards, show_jobs
from dashboard.work import done_today, today
from farm.answers import CardView, JobView
from farm.model import Attempt, Job, JobStatus
from farm.store.throughput import Done

NEWEST = 6
"""Clips on the page: a row on a wide screen, two of three or three of two on smaller ones."""
WAITING_SHOWN = 5
"""Waiting jobs on the page; the rest is a link away."""
TILES = 24
"""Cards on the page: those at work first, then those that need a look. The rest is a link away, or a big farm's page would be heavy."""
_URGENT = ("busy", "trouble", "paused", "not answering", "starting", "not known", "idle", "kept", "drained")

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
    cards = show_cards(farm)
    queued = show_jobs(farm, status=JobStatus.QUEUED, sort="oldest", limit=WAITING_SHOWN).jobs
    finished = show_jobs(farm, status=JobStatus.FINISHED, sort="ended", limit=NEWEST).jobs
    tiles = card_tiles(farm, cards)
    context = {
        "cards": cards,
        "tiles": tiles,
        "cards_more": len(cards) - len(tiles),
        "queued": queued,
        "finished": finished,
        "any_job": bool(queued or finished or farm.reader.jobs(limit=1).jobs),
        "ended_today": {
            str(one): count for one, count in farm.reader.ended_counts(today(farm.now())).items()
        },
    }
    return page(request, "farm.html", context)


def card_tiles(farm: Parts, cards: Sequence[CardView]) -> list[Tile]:
    """The cards that the first screen shows, the most urgent first; in the farm's own order among equals."""
    shown = sorted(
        cards, key=lambda card: _URGENT.index(card.state) if card.state in _URGENT else len(_URGENT)
    )[:TILES]
    ids = [card.id for card in shown]
    done, running = done_today(farm, ids), farm.reader.running_on(ids)
    return [_tile(farm, card, running.get(card.id), done[card.id]) for card in shown]


def _tile(farm: Parts, card: CardView, running: tuple[Attempt, Job] | None, done: Done) -> Tile:
    if running is None or card.state != "busy":
        return Tile(card, None, memory_bar(card), done)
    attempt, job = running
    return Tile(card, job_view(farm, job, [attempt]), memory_bar(card, attempt.predicted_gib), done)
