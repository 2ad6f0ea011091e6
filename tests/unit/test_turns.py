"""The scheduling policy by example: who waits for which card, and who goes first. Decision 0011 says why."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, Tier
from farm.planning.eligibility import Verdict
from farm.planning.precedence import AGEING_S
from scheduler.order import in_order
from scheduler.policy import Policy
from tests.storage import SETTINGS

NOW = 10_000.0
PREVIEW = replace(SETTINGS, model="i2v", steps=30)
LONG = replace(SETTINGS, model="i2v", steps=80)
OTHER = replace(SETTINGS, model="svd", steps=30)


def job(name: str, **changes: object) -> Job:
    base = Job(name, JobStatus.QUEUED, PREVIEW, Tier.PREVIEW, "ab", NOW)
    return replace(base, **changes)  # type: ignore[arg-type]  # names of fields


def card(name: str, band: Tier = Tier.PREVIEW) -> Card:
    return Card(name, "n1", CardKind.CUDA, name, band=band)


def farm(speeds: Mapping[str, float], load_s: float = 0.0, bands: Mapping[str, Tier] | None = None) -> Policy:
    """A policy with free cards that take any job, in so many seconds for each step."""

    def ask(asked: Job, on: Card) -> Verdict:
        return Verdict(True, (), MemoryPlan(), speeds[on.id] * asked.settings.steps)

    made = Policy(ask, lambda _model, _card: load_s)
    for name in speeds:
        made.set_card(card(name, (bands or {}).get(name, Tier.PREVIEW)), free=True)
    return made


def add(policy: Policy, *jobs: Job, batch: str | None = None, first: int = 0) -> None:
    for seq, one in enumerate(jobs, first):
        policy.add_job(one, seq, batch)


def picks(policy: Policy, now: float = NOW) -> dict[str, str]:
    """Card by job."""
    return {pick.job.id: pick.card.id for pick in policy.decide(now)}


def served(policy: Policy, name: str, number: int, every_s: float = 60.0, now: float = NOW) -> list[str]:
    """The jobs that one card gets, one after the other."""
    order = []
    for turn in range(number):
        policy.set_card(card(name), free=True)
        order += [pick.job.id for pick in policy.decide(now + turn * every_s)]
    return order


# --- waiting for the better card ---
def test_a_job_waits_for_a_fast_busy_card_rather_than_take_a_slow_free_one() -> None:
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 60)
    add(policy, job("J1"))
    assert picks(policy) == {}, "90 s from now on the fast card, 300 on the slow one"
    policy.set_card(card("fast"), free=True)
    assert picks(policy, NOW + 60) == {"J1": "fast"}


def test_it_takes_the_slow_one_where_that_is_sooner() -> None:
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 280)
    add(policy, job("J1"))
    assert picks(policy) == {"J1": "slow"}


def test_nobody_waits_for_a_card_that_does_not_answer() -> None:
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False)
    add(policy, job("J1"))
    assert picks(policy) == {"J1": "slow"}


def test_the_longer_a_card_is_late_the_less_it_is_waited_for() -> None:
    """A card that slows, or hangs: its job was to end at NOW + 60."""
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 60)
    add(policy, job("J1"))
    assert picks(policy, NOW + 60) == {}
    assert picks(policy, NOW + 300) == {}, "240 s late, and 240 more are expected: 270 s to the end"
    assert picks(policy, NOW + 331) == {"J1": "slow"}


def test_when_a_card_says_that_it_is_slower_than_expected_its_queue_is_planned_anew() -> None:
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 60)
    add(policy, job("J1"))
    assert picks(policy) == {}
    policy.set_card(card("fast"), free=False, busy_until=NOW + 400)
    assert picks(policy, NOW + 1) == {"J1": "slow"}


def test_when_the_card_that_was_waited_for_leaves_the_slow_one_takes_over() -> None:
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 60)
    add(policy, job("J1"))
    assert picks(policy) == {}
    policy.remove_card("fast")
    assert picks(policy, NOW + 1) == {"J1": "slow"}


def test_a_card_that_joins_takes_part_at_once() -> None:
    speeds = {"slow": 10.0}
    policy = farm(speeds)
    add(policy, *(job(f"J{number}") for number in range(3)))
    assert picks(policy) == {"J0": "slow"}
    speeds["new"] = 1.0
    policy.set_card(card("new"), free=True)
    assert picks(policy, NOW + 1) == {"J1": "new"}


def test_the_slow_card_takes_what_the_fast_ones_would_not_reach_in_that_time() -> None:
    """Not the first in the queue: that one is done sooner by waiting."""
    policy = farm({"fast": 1.0, "slow": 10.0})
    policy.set_card(card("fast"), free=False, busy_until=NOW + 15)
    add(policy, *(job(f"J{number:02}") for number in range(20)))
    assert picks(policy) == {"J09": "slow"}, "within 300 s the fast card does nine"


def test_the_last_clip_of_a_batch_does_not_go_to_the_slow_card() -> None:
    """A batch on a fast and a slow card, played to its end: no other split of the twenty would be done sooner."""
    policy = farm({"fast": 1.0, "slow": 4.5})
    add(policy, *(job(f"J{number:02}") for number in range(20)), batch="b")
    ends: dict[str, float] = {}
    now, done = NOW, 0
    while done < 20:
        for pick in policy.decide(now):
            ends[pick.card.id] = now + pick.seconds
            done += 1
        now = min(end for end in ends.values() if end > now)
        for name, end in ends.items():
            policy.set_card(card(name), free=end <= now, busy_until=end)
    assert max(ends.values()) - NOW == pytest.approx(17 * 30), "17 on the fast card, 3 on the slow one"


# --- models ---
def test_a_card_that_holds_the_model_is_preferred_by_the_seconds_of_a_load() -> None:
    policy = farm({"cold": 1.0, "warm": 1.3}, load_s=15.0)
    policy.set_card(card("warm"), free=True, model="i2v")
    add(policy, job("J1"))
    assert picks(policy) == {"J1": "warm"}, "39 s against 30 and a load of 15"
    slower = farm({"cold": 1.0, "warm": 1.6}, load_s=15.0)
    slower.set_card(card("warm"), free=True, model="i2v")
    add(slower, job("J1"))
    (pick,) = slower.decide(NOW)
    assert (pick.card.id, pick.load_s) == ("cold", 15.0), "48 s against 45"


def test_a_card_does_not_change_its_model_with_every_job() -> None:
    policy = farm({"c": 1.0}, load_s=15.0)
    for number in range(24):
        settings = PREVIEW if number % 2 else OTHER
        policy.add_job(job(f"{settings.model}{number:02}", settings=settings), number)
    order = [name[:3] for name in served(policy, "c", 24, every_s=30.0)]
    changes = sum(one != other for one, other in pairwise(order))
    assert changes <= 5, order
    assert order[:8] != ["svd"] * 8, "nor does the other model wait for ever"


def test_a_replaced_worker_holds_no_model() -> None:
    policy = farm({"one": 1.0, "two": 1.0}, load_s=15.0)
    for name in ("one", "two"):
        policy.set_card(card(name), free=True, model="i2v")
    policy.unload("one")
    add(policy, job("J1"))
    assert picks(policy) == {"J1": "two"}


# --- priority, age, shares ---
def test_priority_goes_first_and_age_adds_to_it() -> None:
    policy = farm({"c": 1.0})
    add(policy, job("old", created_at=NOW - 3 * AGEING_S), job("new", priority=2))
    assert picks(policy) == {"old": "c"}, "three steps of age against two of priority"
    policy = farm({"c": 1.0})
    add(policy, job("old", created_at=NOW - 1.9 * AGEING_S), job("new", priority=2))
    assert picks(policy) == {"new": "c"}


@pytest.mark.parametrize("priority", [1, 3, 7])
def test_nobody_starves_under_a_steady_stream_of_higher_priority(priority: int) -> None:
    """More urgent work than the farm can do, for ever: the plain job still gets its turn, after an hour for each step."""
    policy = farm({"c": 1.0})
    add(policy, job("plain", submitted_by="ann"))
    now, seq = NOW, 1
    while now - NOW <= (priority + 1) * AGEING_S + 60:
        for _ in range(2):
            policy.add_job(job(f"urgent{seq}", priority=priority, created_at=now, submitted_by="bob"), seq)
            seq += 1
        policy.set_card(card("c"), free=True)
        if "plain" in picks(policy, now):
            break
        now += 30.0
    assert priority * AGEING_S <= now - NOW <= (priority + 1) * AGEING_S


def test_a_backlog_that_is_being_served_does_not_age() -> None:
    """A user with days of work waiting would beat every newcomer by age alone."""
    policy = farm({"c": 1.0})
    add(policy, *(job(f"A{number:03}", submitted_by="ann") for number in range(400)))
    assert served(policy, "c", 300)[-1] == "A299"
    late = NOW + 300 * 60
    policy.add_job(job("urgent", submitted_by="ann", priority=1, created_at=late), 999)
    policy.set_card(card("c"), free=True)
    assert picks(policy, late) == {"urgent": "c"}


@pytest.mark.parametrize(("apart_s", "off"), [(10.0, 80.0), (0.0, 160.0)], ids=["single jobs", "batches"])
def test_users_share_the_farm_by_work_and_not_by_number_of_jobs(apart_s: float, off: float) -> None:
    """To within a job; of batches, one may be ahead by one of its longest on each card besides."""
    policy = farm({"c": 1.0})
    for seq in range(80):
        who, settings = ("ann", PREVIEW) if seq < 40 else ("bob", LONG)
        came = NOW - 1000 + (seq % 40) * apart_s
        policy.add_job(job(f"{who}{seq}", submitted_by=who, settings=settings, created_at=came), seq)
    order = served(policy, "c", 22)
    work = {
        who: sum(30 if who == "ann" else 80 for name in order if name.startswith(who))
        for who in ("ann", "bob")
    }
    assert abs(work["ann"] - work["bob"]) <= off, order


def test_a_newcomer_is_level_with_those_who_wait_and_not_before_them() -> None:
    policy = farm({"c": 1.0})
    add(policy, *(job(f"A{number:02}", submitted_by="ann") for number in range(60)))
    served(policy, "c", 30)
    late = NOW + 1800
    add(
        policy, *(job(f"B{number:02}", submitted_by="bob", created_at=late) for number in range(30)), first=60
    )
    order = served(policy, "c", 10, now=late)
    assert [name[0] for name in order].count("B") == 5, "past use is no debt"


def test_a_preview_is_not_stuck_behind_long_work_of_the_same_person() -> None:
    policy = farm({"c": 1.0})
    add(policy, *(job(f"long{number}", settings=LONG) for number in range(9)))
    policy.add_job(job("preview", created_at=NOW + 100), 9)
    policy.set_card(card("c"), free=True)
    assert picks(policy, NOW + 100) == {"preview": "c"}


def test_single_jobs_go_before_the_same_persons_batch() -> None:
    policy = farm({"c": 1.0})
    add(policy, *(job(f"B{number}") for number in range(9)), batch="b")
    policy.add_job(job("single", settings=LONG), 9)
    assert picks(policy) == {"single": "c"}


def test_jobs_that_came_by_the_dozen_are_a_batch_without_a_name() -> None:
    """Of a burst nobody waits for the single clip; what came one by one goes before it, though it came later."""
    policy = farm({"c": 1.0})
    add(policy, *(job(f"B{number:02}", created_at=NOW - 900 + number / 20) for number in range(40)))
    policy.add_job(job("single", settings=LONG), 40)
    assert picks(policy) == {"single": "c"}
    slowly = farm({"c": 1.0})
    add(slowly, *(job(f"B{number:02}", created_at=NOW - 900 + number * 20) for number in range(40)))
    slowly.add_job(job("single", settings=LONG), 40)
    assert picks(slowly) == {"B00": "c"}


@pytest.mark.parametrize("apart_s", [0.0, 20.0])
def test_the_order_that_is_told_is_the_order_that_is_kept(apart_s: float) -> None:
    """One card, no time passing: what `scheduler.order` says comes first gets the card first."""
    policy = farm({"c": 1.0})
    for seq in range(30):
        settings = LONG if seq % 3 else PREVIEW
        who, came = ("ann", "bob", "cat")[seq % 7 % 3], NOW - 900 + seq * apart_s
        one = job(f"J{seq:02}", settings=settings, submitted_by=who, priority=seq % 5 // 4, created_at=came)
        policy.add_job(one, seq)
    told = [job_id for _, job_id in in_order(policy.queue(NOW)).jobs]
    assert len(told) == 30
    assert told == served(policy, "c", 30, every_s=0.0)


# --- soft tiers ---
QUALITY = {"big": Tier.QUALITY}


def test_a_quality_card_takes_preview_work_only_while_no_quality_work_waits() -> None:
    policy = farm({"big": 1.0, "small": 5.0}, bands=QUALITY)
    policy.set_card(card("small"), free=False)
    add(policy, job("P1", created_at=NOW - 50, priority=3), job("Q1", tier=Tier.QUALITY, settings=LONG))
    assert picks(policy) == {"Q1": "big"}, "though the preview is urgent, and came first"
    policy.set_card(card("big", Tier.QUALITY), free=True)
    assert picks(policy, NOW + 80) == {"P1": "big"}


def test_previews_do_not_wait_for_a_quality_card_that_quality_work_will_take() -> None:
    policy = farm({"big": 1.0, "small": 5.0}, bands=QUALITY)
    policy.set_card(card("big", Tier.QUALITY), free=False, busy_until=NOW + 1)
    add(policy, job("P1"))
    assert picks(policy) == {}, "the big card has it done first"
    policy.add_job(job("Q1", tier=Tier.QUALITY, settings=LONG), 1)
    assert picks(policy, NOW + 0.5) == {"P1": "small"}


def test_anywhere_and_farms_without_preview_cards_are_free_of_that_rule() -> None:
    policy = farm({"big": 1.0, "small": 5.0}, bands=QUALITY)
    policy.set_card(card("small"), free=False)
    add(policy, job("P1", anywhere=True, created_at=NOW - 50), job("Q1", tier=Tier.QUALITY, settings=LONG))
    assert picks(policy) == {"P1": "big"}
    alone = farm({"big": 1.0}, bands=QUALITY)
    add(alone, job("Q1", tier=Tier.QUALITY, settings=LONG), job("P1", created_at=NOW + 5))
    assert picks(alone, NOW + 5) == {"P1": "big"}, "no card is kept for previews, so they are not held back"
    broken = farm({"big": 1.0, "small": 5.0}, bands=QUALITY)
    broken.set_card(replace(card("small"), trouble="its driver is too old"), free=False)
    add(broken, job("Q1", tier=Tier.QUALITY, settings=LONG), job("P1", created_at=NOW + 5))
    assert picks(broken, NOW + 5) == {"P1": "big"}, "nor for one in trouble"


# --- complaints that users of other farms have ---
def test_complaint_1_a_fast_card_does_not_idle_while_equal_shares_go_to_a_slow_one() -> None:
    """SwarmUI#247, ComfyUI-Distributed#20, #11: the slowest member set the pace."""
    policy = farm({"RTX 4080": 1.0, "GTX 1080": 6.0})
    add(policy, *(job(f"J{number:02}") for number in range(14)))
    count = dict.fromkeys(("RTX 4080", "GTX 1080"), 0)
    ends: dict[str, float] = {}
    now = NOW
    while policy.waiting:
        for pick in policy.decide(now):
            count[pick.card.id] += 1
            ends[pick.card.id] = now + pick.seconds
        assert ends["RTX 4080"] > now, "the fast card idles while jobs wait"
        now = min(end for end in ends.values() if end > now)
        for name, end in ends.items():
            policy.set_card(card(name), free=end <= now, busy_until=end)
    assert count == {"RTX 4080": 12, "GTX 1080": 2}
    assert max(ends.values()) - NOW == 12 * 30.0


def test_complaint_3_a_request_that_nobody_can_serve_keeps_no_card_and_no_other_job() -> None:
    """AI-Horde#539, OpenCue#1551. That it is told so at once is the scheduler's: see test_scheduler."""

    def ask(asked: Job, on: Card) -> Verdict:
        able = asked.settings.model != "unknown"
        return Verdict(able, () if able else ("no such model",), MemoryPlan() if able else None, 1.0)

    policy = Policy(ask)
    policy.set_card(card("c"), free=True)
    lost = job("lost", settings=replace(SETTINGS, model="unknown"), priority=9, tier=Tier.QUALITY)
    add(policy, lost, job("J1"))
    assert picks(policy) == {"J1": "c"}
    assert policy.job("lost") is not None


def test_complaint_16_a_job_that_waits_although_a_card_is_free_says_for_which_and_why() -> None:
    """From gflow PR#208. Why a job waits where all cards are busy, or none fits, is said in words by farm.planning.eligibility."""
    policy = farm({"RTX 4080": 1.0, "GTX 1080": 6.0})
    policy.set_card(card("RTX 4080"), free=False, busy_until=NOW + 60)
    add(policy, job("J1"), job("J2"))
    assert picks(policy) == {}
    assert str(policy.rather["J1"]) == (
        "Waits for RTX 4080, which is busy: there it is done 2 min sooner than on GTX 1080, which is free."
    )
    assert policy.rather["J1"].sooner_s == 180 - 90
    assert set(policy.rather) == {"J1", "J2"}
    policy.set_card(card("RTX 4080"), free=True)
    assert picks(policy, NOW + 60) == {"J1": "RTX 4080"}
    assert set(policy.rather) == {"J2"}, "which waits for its turn there"


@pytest.mark.parametrize("seconds", [0.4, 1.7, 37.3, 1234.56])
def test_of_two_cards_alike_one_takes_the_job_at_any_hour_of_the_wall_clock(seconds: float) -> None:
    """Regression: the rounding of wall seconds made each of two idle cards wait for the other, for ever."""
    for tick in range(200):
        now = 1_790_000_000.123 + tick * 0.618033
        policy = farm({"a": seconds / PREVIEW.steps, "b": seconds / PREVIEW.steps})
        add(policy, job("J1"))
        assert [pick.card.id for pick in policy.decide(now)] == ["a"]
