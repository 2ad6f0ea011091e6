"""The hours in which the farm may have a PC, against a plain way to judge them."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadInputError
from farm.hours import DAY, DAYS, WEEK, parse_hours

MONDAY = datetime(2026, 11, 23)
MINUTES = st.integers(0, DAY - 1)
BERLIN = ZoneInfo("Europe/Berlin")


def clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, int, int, int, int]:
    """An entry as text, its first and last day, its start and end."""
    first, last = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    start = draw(MINUTES)
    end = draw(MINUTES.filter(lambda minute: minute != start))
    return f"{DAYS[first]}-{DAYS[last]} {clock(start)}-{clock(end)}", first, last, start, end


def plainly(entry: tuple[str, int, int, int, int], at: datetime) -> bool:
    """Whether an entry is open at a time: it began today and runs, or began yesterday and runs on past midnight."""
    _text, first, last, start, end = entry

    def named(day: int) -> bool:
        return (day - first) % 7 <= (last - first) % 7

    minute, today = at.hour * 60 + at.minute, at.weekday()
    over = end < start
    began_today = named(today) and start <= minute and (over or minute < end)
    return began_today or (over and named((today - 1) % 7) and minute < end)


@given(st.lists(entries(), min_size=1, max_size=4), st.integers(0, WEEK - 1))
def test_hours_are_open_when_any_entry_is(told: list[tuple[str, int, int, int, int]], minute: int) -> None:
    hours = parse_hours(", ".join(text for text, *_ in told))
    at = MONDAY + timedelta(minutes=minute)
    assert hours.allow(at) == any(plainly(entry, at) for entry in told)


@given(st.lists(entries(), min_size=1, max_size=4))
def test_hours_say_themselves_in_words_that_mean_the_same(told: list[tuple[str, int, int, int, int]]) -> None:
    hours = parse_hours(", ".join(text for text, *_ in told))
    assert parse_hours(str(hours)) == hours


@given(st.lists(entries(), min_size=1, max_size=3), st.integers(0, WEEK - 1))
def test_what_opens_next_is_open_then_and_not_before(
    told: list[tuple[str, int, int, int, int]], minute: int
) -> None:
    hours = parse_hours(", ".join(text for text, *_ in told))
    at = MONDAY + timedelta(minutes=minute)
    named = hours.opens(at)
    assert (named is None) == hours.allow(at)
    if named is None:
        return
    later = next(
        at + timedelta(minutes=step) for step in range(WEEK + 1) if hours.allow(at + timedelta(minutes=step))
    )
    assert named.split()[-1] == f"{later:%H:%M}"
    assert (" " in named) == (later.date() != at.date())


@pytest.mark.parametrize(
    ("text", "open_at", "closed_at"),
    [
        ("mon-fri 22:00-08:00, sat-sun all", ["mon 22:00", "sat 07:59", "sun 12:00", "sat 23:59"], ["mon 21:59", "tue 08:00"]),
        ("all", ["mon 00:00", "sun 23:59"], []),
        ("fri-mon 12:00-13:00", ["sun 12:30", "mon 12:59"], ["tue 12:30", "thu 12:30"]),
        ("sunday 22:00-06:00", ["sun 22:00", "mon 05:59"], ["mon 06:00", "sun 05:00"]),
        ("Mon 8-24:00", ["mon 08:00", "mon 23:59"], ["tue 00:00"]),
    ],
)  # fmt: skip
def test_hours_by_value(text: str, open_at: list[str], closed_at: list[str]) -> None:
    hours = parse_hours(text)
    assert [at for at in open_at if not hours.allow(when(at))] == []
    assert [at for at in closed_at if hours.allow(when(at))] == []


def when(told: str) -> datetime:
    day, _, time = told.partition(" ")
    hour, minute = time.split(":")
    return MONDAY + timedelta(days=DAYS.index(day), hours=int(hour), minutes=int(minute))


def test_complaint_14_a_window_over_midnight_without_days_is_every_night() -> None:
    """Overnight windows such as 23:30-07:00 were rejected (sheepit-client#159)."""
    hours = parse_hours("23:30-07:00")
    for day in DAYS:
        assert hours.allow(when(f"{day} 23:30"))
        assert hours.allow(when(f"{day} 06:59"))
        assert not hours.allow(when(f"{day} 07:00"))
        assert not hours.allow(when(f"{day} 23:29"))
    assert hours.opens(when("wed 12:00")) == "23:30"


def test_when_the_clocks_change_the_wall_clock_counts() -> None:
    hours = parse_hours("02:00-03:00")
    twice = datetime(
        2026, 10, 25, 0, 30, tzinfo=ZoneInfo("UTC")
    )  # 02:30 in summer time, then 02:30 in winter time
    assert hours.allow(twice.astimezone(BERLIN))
    assert hours.allow((twice + timedelta(hours=1)).astimezone(BERLIN))
    assert not hours.allow((twice + timedelta(hours=2)).astimezone(BERLIN))
    spring = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("UTC"))  # 01:30; an hour later it is 03:30
    assert not any(hours.allow((spring + timedelta(minutes=step)).astimezone(BERLIN)) for step in range(180))
    night = parse_hours("22:00-08:00")
    assert all(night.allow((spring + timedelta(minutes=step)).astimezone(BERLIN)) for step in range(300))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("mon", "'mon' is no entry"),
        ("mon 22:00-22:00", "has no length"),
        ("22:00-08:00,", "nothing between two commas"),
        ("xyz 22:00-08:00", "'xyz' is no day"),
        ("mo 22:00-08:00", "'mo' is no day"),
        ("mon 25:00-08:00", "'25:00' is no time of day"),
        ("mon 22:60-08:00", "'22:60' is no time of day"),
        ("mon 24:00-08:00", "has no length"),
    ],
)
def test_hours_that_cannot_be_understood_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_hours(text)
    assert why in str(refused.value)
    assert "mon-fri 22:00-08:00" in str(refused.value)
