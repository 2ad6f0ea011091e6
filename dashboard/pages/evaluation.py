"""The five dimensions of each card: startup, first frame, total, peak, rating; the article's published rows beside the own ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from farm.answers.figures import BenchSettingView, BenchView
from farm.bench_results import kept_results, published_results
from farm.catalogue.article import article

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Bar:
    """A row's total time as a bar, `share` of the longest in its chart (0 to 100)."""

    row: BenchView
    share: float


@dataclass(frozen=True, slots=True)
class Setting:
    """What was rendered, by whom in which time; own rows first, each kind from the quickest on, failures last."""

    shape: BenchSettingView
    rows: list[BenchView]
    bars: list[Bar]


@router.get("/benchmarks")
def benchmarks_page(request: Request, farm: Farm) -> Response:
    """A table and a chart for each setting."""
    own = kept_results(farm.benches.newest())
    context = {"settings": by_setting([*own, *published_results()]), "own": len(own), "article": article()}
    return page(request, "benchmarks.html", context)


def by_setting(rows: Sequence[BenchView]) -> list[Setting]:
    """The rows by what was rendered, the article's settings first. A model that takes fewer frames makes a setting of its own."""
    shapes = dict.fromkeys(row.setting for row in rows if row.published)
    shapes |= dict.fromkeys(row.setting for row in rows)
    return [_setting(shape, [row for row in rows if row.setting == shape]) for shape in shapes]


def _setting(shape: BenchSettingView, rows: list[BenchView]) -> Setting:
    rows = sorted(rows, key=lambda row: (row.published, row.total_s is None, row.total_s or 0.0, row.card))
    longest = max((row.total_s for row in rows if row.total_s), default=1.0)
    return Setting(
        shape, rows, [Bar(row, round(100 * row.total_s / longest, 2)) for row in rows if row.total_s]
    )
