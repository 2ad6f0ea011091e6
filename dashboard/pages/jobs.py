"""The history as a table whose filters and sort live in the address, and the page of one job."""

import json
from dataclasses import dataclass
from typing import Annotated, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.views import show_job, show_jobs
from dashboard.work import today
from farm.answers.jobs import JobView
from farm.model import JobStatus, Tier
from farm.store.reader import JobSort

PROMOTED = "quality"
"""The preset that a good preview is made again with."""
PAGE = 30
"""Jobs on a page of the list."""
SORTS: dict[JobSort, str] = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "ended": "Last ended first",
    "rating": "Best rated first",
}
ENDED = {
    "today": "today",
    "1h": "in the last hour",
    "24h": "in the last 24 hours",
    "7d": "in the last 7 days",
}
_SPANS_S = {"1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list of jobs is narrowed to and how it is sorted; lives in the address."""

    status: str | None = None
    model: str | None = None
    card: str | None = None
    batch: str | None = None
    ended: str | None = None
    q: str | None = None
    sort: JobSort = "newest"

    @property
    def any(self) -> bool:
        """Whether anything is narrowed."""
        return any((self.status, self.model, self.card, self.batch, self.ended, self.q))

    def link(self, **changes: object) -> str:
        """The list's address with some of it changed; always its first page unless `cursor` is given."""
        values: dict[str, object] = {
            "status": self.status,
            "model": self.model,
            "card": self.card,
            "batch": self.batch,
            "ended": self.ended,
            "q": self.q,
            "sort": self.sort if self.sort != "newest" else None,
        }
        wanted = {name: value for name, value in (values | changes).items() if value}
        return f"/jobs?{urlencode(wanted)}" if wanted else "/jobs"


@router.get("/jobs")
def jobs_page(
    request: Request,
    farm: Farm,
    status: str = "",
    model: str = "",
    card: str = "",
    batch: str = "",
    ended: str = "",
    q: Annotated[str, Query(max_length=200)] = "",
    sort: str = "",
    cursor: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """The history; an unknown status or sort counts as none, so that an old link still shows something."""
    order: JobSort = next((one for one in get_args(JobSort) if one == sort), "newest")
    filters = Filters(
        status if status in tuple(JobStatus) else None,
        model or None,
        card or None,
        batch or None,
        ended if ended in ENDED else None,
        q.strip() or None,
        order,
    )
    found = show_jobs(
        farm,
        status=filters.status,
        model=filters.model,
        card=filters.card,
        q=filters.q,
        batch=filters.batch,
        ended_since=_since(filters.ended, farm.now()),
        sort=filters.sort,
        cursor=cursor,
        limit=PAGE,
    )
    cards = farm.reader.cards() if filters.card else []
    context = {
        "counts": farm.reader.counts(),
        "jobs": found.jobs,
        "older": filters.link(cursor=found.cursor) if found.cursor else None,
        "first": cursor is None,
        "filters": filters,
        "statuses": list(JobStatus),
        "models": list(farm.models.values()),
        "sorts": SORTS,
        "ended_words": ENDED,
        "card_name": next((each.name for each in cards if each.id == filters.card), filters.card),
    }
    return page(request, "jobs.html", context)


def _since(ended: str | None, now: float) -> float | None:
    if ended is None:
        return None
    return today(now) if ended == "today" else now - _SPANS_S[ended]


@router.get("/jobs/{job_id}")
def job_page(request: Request, farm: Farm, job_id: str) -> Response:
    """One job: the clip, or how far it is, and the story of its attempts."""
    job = show_job(farm, job_id)
    model = farm.models.get(job.model)
    context = {
        "job": job,
        "node_names": farm.reader.node_names(forgotten=True),
        "model_title": model.title if model else job.model,
        "story": farm.reader.story(job_id),
        "promoted": promoted(job) if PROMOTED in farm.presets else None,
    }
    return page(request, "job.html", context)


def promoted(job: JobView) -> str | None:
    """The settings (JSON) that make a finished preview or draft again in quality, same prompt and seed; None for others."""
    settings = job.settings
    if job.status != JobStatus.FINISHED or job.removed_at is not None:
        return None
    if not settings.prompt or job.tier == Tier.QUALITY:
        return None
    kept = {"preset": PROMOTED, "prompt": settings.prompt, "seed": settings.seed}
    if settings.negative_prompt:
        kept["negative_prompt"] = settings.negative_prompt
    return json.dumps(kept, ensure_ascii=False)
