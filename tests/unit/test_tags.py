"""Tags and pins: the words with which an owner marks a PC, and by which a job asks for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.errors import BadInputError, BadSettingsError
from farm.model import Card, CardKind, Job, JobStatus, Node, Tier
from farm.news import Told, told_from_dict, told_to_dict
from farm.planning.eligibility import FarmView, check, unplaceable
from farm.store.requests import NewJob
from farm.submit import parse_settings
from farm.tags import MOST, read_tags
from farm.wire import CardReport, NodeReport
from node_agent.owner import OwnerRules
from scheduler.policy import requirements
from scheduler.watch import _card
from tests.storage import PICTURE, SETTINGS, open_storage

CPU = Card("C1", "n1", CardKind.CPU, "Ryzen", models=frozenset({"animatic"}))
JOB = Job("J1", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", 0.0, draft=True)
VIEW = FarmView(builtin_models())


def test_tags_are_small_letters_sorted_each_once() -> None:
    assert read_tags([" Studio", "quiet", "studio"], "tag") == ("quiet", "studio")
    assert read_tags([], "tag") == ()


@pytest.mark.parametrize("word", ["", "two words", "-begins", "ä", "a" * 33, "a/b", "a\nb"])
def test_what_cannot_be_a_tag_is_refused_by_name(word: str) -> None:
    with pytest.raises(BadInputError, match="cannot be a tag") as told:
        read_tags(["fine", word], "settings.needs")
    assert told.value.field == "settings.needs"


def test_too_many_tags_are_refused() -> None:
    with pytest.raises(BadInputError, match=f"{MOST + 1} tags are too many"):
        read_tags([f"t{number}" for number in range(MOST + 1)], "tag")


def test_a_job_goes_only_to_pcs_that_have_all_it_asks_for() -> None:
    asking = replace(JOB, needs=("quiet", "studio"))
    assert check(JOB, CPU, VIEW).eligible
    assert check(asking, replace(CPU, tags=frozenset({"quiet", "studio", "x"})), VIEW).eligible
    half = replace(CPU, tags=frozenset({"studio"}))
    assert check(asking, half, VIEW).reasons == ("it needs a PC with the tag quiet, that of Ryzen has not",)
    assert unplaceable(asking, [half], VIEW) == (
        "No card can run it. The nearest is Ryzen: it needs a PC with the tag quiet, that of Ryzen has not. "
        "Mark that PC with `farm join --tag quiet`."
    )


def test_jobs_with_other_needs_are_other_jobs_to_the_policy() -> None:
    assert requirements(JOB) != requirements(replace(JOB, needs=("quiet",)))


def test_settings_take_needs_and_name_the_field_of_a_wrong_one() -> None:
    def parsed(raw: str) -> tuple[str, ...]:
        found = parse_settings(
            raw, models=builtin_models(), presets=presets(), default_preset="draft", random_seed=1
        )
        return found.needs

    assert parsed('{"needs": ["Studio"]}') == ("studio",)
    assert parsed("{}") == ()
    for wrong in ('{"needs": ["no good"]}', '{"needs": "studio"}', '{"needs": [1]}'):
        with pytest.raises(BadSettingsError) as told:
            parsed(wrong)
        assert [error.field.split(".")[:2] for error in told.value.errors] == [["settings", "needs"]]


def test_the_owner_s_words_are_kept_in_the_node_s_home(tmp_path: Path) -> None:
    rules = OwnerRules(tags=("attic", "quiet"), tier=Tier.POST)
    rules.save(tmp_path)
    assert OwnerRules.load(tmp_path) == rules
    assert str(rules) == "tagged attic, quiet; kept to post work"


def test_tags_and_pins_travel_and_are_stored(tmp_path: Path) -> None:
    said = CardReport("C1", CardKind.CPU, "Ryzen", tags=("quiet",), pinned=Tier.QUALITY)
    report = NodeReport("n1", "attic", "10.0.0.2", 1.0, {}, (said,))
    assert told_from_dict(told_to_dict(Told("m", report))).report == report

    storage = open_storage(tmp_path)
    try:
        card = _card("n1", said)
        assert (card.band, card.tags) == (Tier.QUALITY, frozenset({"quiet"}))
        storage.registry.see_node(Node("n1", "attic", "10.0.0.2"), [card], 1.0)
        assert storage.reader.cards()[0].tags == frozenset({"quiet"})
        made, _ = storage.requests.submit(
            NewJob(SETTINGS, Tier.PREVIEW, True, PICTURE, needs=("quiet",)), 1.0
        )
        assert storage.reader.job(made.id).needs == ("quiet",)
    finally:
        storage.close()
