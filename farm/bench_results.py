"""What `farm bench` has kept, with the article's published rows, as the API and the pages show them."""

from collections.abc import Iterable
from dataclasses import asdict

from farm.answers.figures import BenchSettingView, BenchView
from farm.catalogue.article import article
from farm.own_bench import BenchResult


def kept_results(rows: Iterable[BenchResult]) -> list[BenchView]:
    """In the order in which they were measured. `rows` come newest first, as `farm.store.benches.Benches.newest` has them."""
    return [BenchView.model_validate(asdict(row)) for row in rows][::-1]


def published_results() -> list[BenchView]:
    """The article's rows."""
    known = {setting.name: BenchSettingView(**asdict(setting)) for setting in article().settings}
    return [
        BenchView(
            card=row.card,
            model=article().model,
            setting=known[row.setting],
            published=True,
            first_frame_s=row.first_frame_s,
            total_s=row.total_s,
            peak_gib=row.peak_gb,
            rating=row.rating,
            failure=row.failure,
        )
        for row in article().rows
    ]
