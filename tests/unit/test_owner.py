"""When a card is kept for its owner, from the rules and the signs."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from farm.cli.join import _check_cards, _rules
from farm.errors import BadInputError, ConfigurationError
from node_agent.owner import Kept, OwnerRules, Signs, kept_by_rule, kept_while_in_use
from node_agent.readings import CardProgram
from tests.fake_nvml import FakeGpu, FakeNvml

NOON = datetime(2026, 11, 24, 12, 0)
QUIET = Signs(NOON, programs=())
IDLE_ONLY = OwnerRules(only_idle=True)
GAME = CardProgram(5150, "space.x86_64", 4.0)
XORG = CardProgram(1312, "Xorg", 0.6)
BROWSER = CardProgram(1700, "firefox", 0.3)
BLENDER = CardProgram(1800, "blender", 0.1, computes=True)


def test_a_pc_without_rules_is_the_farm_s() -> None:
    signs = replace(QUIET, programs=(GAME,), at_keyboard=True, cpu_share=1.0, temperature_c=99.0)
    assert kept_by_rule(OwnerRules(), signs) is None
    assert kept_while_in_use(OwnerRules(), signs) is None


def test_a_pause_is_said_as_it_was_given() -> None:
    assert kept_by_rule(OwnerRules(), replace(QUIET, paused="paused on that PC")) == Kept("paused on that PC")


def test_outside_of_its_hours_a_card_stops_at_once() -> None:
    rules = OwnerRules(hours="mon-fri 22:00-08:00, sat-sun all")
    assert kept_by_rule(rules, QUIET) == Kept("outside of the hours it may work, next from 22:00")
    assert kept_by_rule(rules, Signs(NOON.replace(hour=23))) is None


def test_a_hot_card_takes_no_new_work_until_it_has_cooled_and_finishes_what_it_has() -> None:
    rules = OwnerRules(max_temperature_c=80.0)
    hot = replace(QUIET, temperature_c=81.0)
    assert kept_by_rule(rules, hot) == Kept("it is 81 °C hot, its owner's limit is 80", at_once=False)
    cooler = replace(QUIET, temperature_c=76.0)
    assert kept_by_rule(rules, cooler) is None
    assert kept_by_rule(rules, cooler, was_hot=True) is not None
    assert kept_by_rule(rules, replace(QUIET, temperature_c=75.0), was_hot=True) is None
    assert kept_by_rule(rules, QUIET) is None, "a card that tells no temperature cannot be too hot"


@pytest.mark.parametrize(
    ("signs", "why"),
    [
        (replace(QUIET, programs=(XORG, GAME)), "space.x86_64 uses the card"),
        (replace(QUIET, programs=(BLENDER,)), "blender uses the card"),
        (replace(QUIET, programs=(XORG, BROWSER)), None),
        (replace(QUIET, programs=None, others_gib=3.4), "other programs hold 3.4 GiB of the card"),
        (replace(QUIET, programs=None, others_gib=0.4), None),
        (replace(QUIET, programs=(), others_gib=3.4), None),
        (replace(QUIET, at_keyboard=True), "somebody is at the PC"),
        (replace(QUIET, at_keyboard=False), None),
        (replace(QUIET, at_keyboard=None), None),
        (replace(QUIET, cpu_share=0.8), "other programs keep 80% of the PC's cores busy"),
        (replace(QUIET, cpu_share=0.2), None),
    ],
)
def test_with_only_idle_each_sign_of_the_owner_keeps_the_card(signs: Signs, why: str | None) -> None:
    assert kept_while_in_use(IDLE_ONLY, signs) == (None if why is None else Kept(why))


def test_rules_are_kept_in_the_node_s_home(tmp_path: Path) -> None:
    assert OwnerRules.load(tmp_path) == OwnerRules()
    rules = OwnerRules(only_idle=True, hours="23:30-07:00", max_temperature_c=82.0, cards=("GPU-1",))
    rules.save(tmp_path)
    assert OwnerRules.load(tmp_path) == rules
    assert str(rules) == (
        "only while nobody uses the PC; hours 23:30-07:00; no new work above 82 \N{DEGREE SIGN}C; only the cards GPU-1"
    )
    assert str(OwnerRules()) == ""


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"only_idle": 1, "hours": "never", "max_temperature_c": null, "cards": []}']
)
def test_rules_that_cannot_be_read_are_no_leave_to_work(tmp_path: Path, text: str) -> None:
    (tmp_path / OwnerRules.FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=r"farm join"):
        OwnerRules.load(tmp_path)


def test_a_choice_of_cards_can_be_lifted(tmp_path: Path) -> None:
    """It is kept like the owner's other rules, and was the one that no option took back."""
    OwnerRules(cards=("GPU-1",)).save(tmp_path)
    assert _rules(tmp_path, None, None, None, None).cards == ("GPU-1",)
    assert _rules(tmp_path, None, None, None, ["all"]).cards == ()


def test_a_card_that_the_pc_does_not_have_is_refused_before_it_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PC joined without any card, and no word said so."""
    FakeNvml([FakeGpu("NVIDIA GeForce RTX 2060", "GPU-aaaa", 6144)]).install(monkeypatch)
    for right in ([], ["all"], ["GPU-aaaa"]):
        _check_cards(right)
    with pytest.raises(BadInputError, match="no card GPU-bbbb") as caught:
        _check_cards(["GPU-aaaa", "GPU-bbbb"])
    assert caught.value.remedy == "It has GPU-aaaa (RTX 2060)."
    FakeNvml([]).install(monkeypatch)
    with pytest.raises(BadInputError) as caught:
        _check_cards(["GPU-aaaa"])
    assert "`farm doctor`" in caught.value.remedy
