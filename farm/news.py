"""What a node answers when the head asks how it is: its whole report, or that it is as the head knows it, with what moves all the time.

Pure. 200 quiet PCs then cost the head a few dozen bytes each, and little work (docs/decisions/0025).
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from farm.vitals import Vitals
from farm.wire import NodeReport


@dataclass(frozen=True, slots=True)
class Still:
    """What moves all the time, of a node that is as it was: its wall time (seconds), free memory, and how its cards are, in their order."""

    at: float
    ram_free_gib: float | None
    vitals: tuple[Vitals | None, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A node's answer. `mark` changes with whatever of its report does not move all the time; one of the other two is there."""

    mark: str
    report: NodeReport | None = None
    still: Still | None = None


_REPORT: TypeAdapter[NodeReport] = TypeAdapter(NodeReport)
_TOLD: TypeAdapter[Told] = TypeAdapter(Told)


def mark_of(report: NodeReport) -> str:
    """The report's mark: equal for reports that differ only in what moves all the time."""
    cards = tuple(replace(card, vitals=None) for card in report.cards)
    lasting = replace(report, at=0.0, ram_free_gib=None, cards=cards)
    return hashlib.blake2b(_REPORT.dump_json(lasting), digest_size=12).hexdigest()


def told(report: NodeReport, mark: str, known: str) -> Told:
    """The answer to a head that knows the report marked `known`; empty where it knows none."""
    if mark != known:
        return Told(mark, report)
    return Told(
        mark, still=Still(report.at, report.ram_free_gib, tuple(card.vitals for card in report.cards))
    )


def understood(answer: Told, known: NodeReport | None) -> NodeReport:
    """The node's report as it is now. `known` is the last one, whose mark the head had sent.

    Its benches are not in it again where nothing is new.

    Raises:
        ValueError: the node speaks of a report that is not known.
    """
    if answer.report is not None:
        return answer.report
    still = answer.still
    if still is None or known is None or len(still.vitals) != len(known.cards):
        raise ValueError("the node says that it is as it was, and how that was is not known")
    cards = tuple(
        replace(card, vitals=vitals) for card, vitals in zip(known.cards, still.vitals, strict=True)
    )
    return replace(known, at=still.at, ram_free_gib=still.ram_free_gib, cards=cards, bench=None)


def told_to_dict(answer: Told) -> dict[str, Any]:
    """The answer as plain JSON values."""
    found: dict[str, Any] = _TOLD.dump_python(answer, mode="json")
    return found


def told_from_dict(data: dict[str, Any]) -> Told:
    """The answer again."""
    return _TOLD.validate_python(data)
