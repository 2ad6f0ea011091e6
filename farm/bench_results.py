"""What `farm bench` has kept, with the article's published rows, as the API and the pages show them."""

import logging
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from farm.answers import BenchSettingView, BenchView
from farm.catalogue.article import article

log = logging.getLogger(__name__)


def kept_results(path: Path) -> list[BenchView]:
    """The newest result of each card, model and setting, in the order in which they were measured. Empty where nothing is kept.

    A line that cannot be read is left out and logged: a bench that was killed may leave half of one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    newest: dict[tuple[str, str, BenchSettingView], BenchView] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = BenchView.model_validate_json(line)
        except ValidationError as error:
            log.warning("Left out line %d of %s: %s", number, path, error)
            continue
        key = (result.card_id or result.card, result.model, result.setting)
        newest.pop(key, None)
        newest[key] = result
    return list(newest.values())


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
