"""What `farm bench` has kept, with the article's published rows, as the API and the pages show them."""

from collections.abc import Iterable
from dataclasses import asdict

from farm.answers import BenchSettingView, BenchView
from farm.catalogue.article import article
from farm.own_bench import BenchResult


def kept_results(rows: Iterable[BenchResult]) -> list[BenchView]:
    """The newest result of each card, model and setting, in the order in which they were measured. `rows` come newest first."""
    newest: dict[tuple[object, ...], BenchView] = {}
    for row in rows:
        newest.setdefault((row.card_id, row.model, row.setting), BenchView.model_validate(asdict(row)))
    return list(newest.values())[::-1]


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
