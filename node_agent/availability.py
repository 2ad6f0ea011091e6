"""The hours in which the farm may have a PC: parsed, and judged at a time. Pure.

Hours are the wall clock's of the node's own time zone, so that 22:00 stays 22:00 when the clocks change: an hour that comes twice is open
both times, one that is left out is not missed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from farm.errors import BadInputError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY


@dataclass(frozen=True, slots=True)
class Hours:
    """When the farm may have a PC: spans of minutes since Monday 00:00, sorted, apart from each other, none over the week's end."""

    spans: tuple[tuple[int, int], ...]

    def allow(self, local: datetime) -> bool:
        """Whether the farm may have the PC at a time of the node's own zone."""
        minute = _minute_of(local)
        return any(start <= minute < end for start, end in self.spans)

    def opens(self, local: datetime) -> str | None:
        """When it next may, as "22:00" of the same day or "mon 22:00"; None if it may now, or never."""
        now = _minute_of(local)
        if not self.spans or self.allow(local):
            return None
        start = min((span[0] for span in self.spans), key=lambda minute: (minute - now) % WEEK)
        clock = _clock(start % DAY)
        return clock if start // DAY == now // DAY and start > now else f"{DAYS[start // DAY]} {clock}"

    def __str__(self) -> str:
        """In words that `parse_hours` reads as the same hours."""
        return ", ".join(_told(start, end) for start, end in self.spans)


def parse_hours(text: str) -> Hours:
    """Hours as `farm join --hours` takes them: "mon-fri 22:00-08:00, sat-sun all"; days left out mean every day.

    A span over midnight belongs to the day on which it begins: "fri 22:00-08:00" ends on Saturday morning. Several entries add up.

    Raises:
        BadInputError: the text says no hours.
    """
    entries = [entry.strip() for entry in text.lower().split(",")]
    if not any(entries):
        raise _wrong(text, "it is empty")
    spans: list[tuple[int, int]] = []
    for entry in entries:
        days, start, end = _entry(text, entry)
        for day in days:
            begin, stop = day * DAY + start, day * DAY + (end if end > start else end + DAY)
            spans += [(begin, min(stop, WEEK))] + ([(0, stop - WEEK)] if stop > WEEK else [])
    return Hours(_joined(spans))


def _entry(text: str, entry: str) -> tuple[list[int], int, int]:
    found = re.fullmatch(r"(?:([a-z]+(?:-[a-z]+)?)\s+)?(all|[\d:]+\s*-\s*[\d:]+)", entry)
    if found is None:
        raise _wrong(text, f"{entry!r} is no entry" if entry else "there is nothing between two commas")
    days = _days(text, found[1]) if found[1] else list(range(7))
    if found[2] == "all":
        return days, 0, DAY
    start, end = (_time(text, part.strip()) for part in found[2].split("-"))
    if start in (end, DAY):
        raise _wrong(text, f"{found[2]!r} has no length; the whole day is called 'all'")
    return days, start, end


def _days(text: str, named: str) -> list[int]:
    if named in ("daily", "all", "every"):
        return list(range(7))
    first, _, last = named.partition("-")
    begin, end = _day(text, first), _day(text, last or first)
    return [(begin + step) % 7 for step in range((end - begin) % 7 + 1)]


def _day(text: str, name: str) -> int:
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    for number, day in enumerate(full):
        if len(name) >= 3 and day.startswith(name):
            return number
    raise _wrong(text, f"{name!r} is no day")


def _time(text: str, told: str) -> int:
    found = re.fullmatch(r"(\d{1,2})(?::(\d{2}))?", told)
    minute = int(found[1]) * 60 + int(found[2] or 0) if found else WEEK
    if minute > DAY or (found is not None and int(found[2] or 0) > 59):
        raise _wrong(text, f"{told!r} is no time of day")
    return minute


def _wrong(text: str, why: str) -> BadInputError:
    return BadInputError(
        "hours",
        f"The hours {text!r} cannot be understood: {why}.",
        "Write them as 'mon-fri 22:00-08:00, sat-sun all', or '23:30-07:00' for every night.",
    )


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def _minute_of(local: datetime) -> int:
    return local.weekday() * DAY + local.hour * 60 + local.minute


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _told(start: int, end: int) -> str:
    """A span as entries, a day each: simple before short."""
    days = range(start // DAY, (end - 1) // DAY + 1)
    cuts = [(max(start, day * DAY) - day * DAY, min(end, (day + 1) * DAY) - day * DAY) for day in days]
    return ", ".join(
        f"{DAYS[day]} all" if cut == (0, DAY) else f"{DAYS[day]} {_clock(cut[0])}-{_clock(cut[1])}"
        for day, cut in zip(days, cuts, strict=True)
    )
