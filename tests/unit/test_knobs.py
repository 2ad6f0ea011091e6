"""Settings that an admin changes: which value wins, and what the store remembers of a change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from farm.knobs import NAMES, Change, Knobs, default, in_force, is_given, variable
from farm.settings import FarmSettings
from farm.store.engine import open_engine
from farm.store.knobs import KnobStore
from farm.store.requests import RequestKind
from tests.storage import Storage, open_storage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def test_the_environment_wins_then_the_page_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_TIERS", "soft")  # also where it says what holds anyway
    changes = {
        "tiers": Change("off", 1.0, "ann"),
        "keep_days": Change(30.0, 1.0, "ann"),
        "lease_s": Change(None, 2.0, "ann"),
    }
    given = FarmSettings()
    held = in_force(given, changes)
    assert (held.tiers, held.keep_days, held.lease_s, held.keep_gb) == ("soft", 30.0, 30.0, None)
    assert [name for name in NAMES if is_given(given, name)] == ["tiers"]
    assert variable("keep_days") == "FARM_KEEP_DAYS"
    assert given.keep_days is None


def test_each_setting_is_one_of_the_farm_and_its_default_is_allowed() -> None:
    for name in NAMES:
        assert name in FarmSettings.model_fields
        assert Knobs.model_validate({name: default(name)}).named() == {name: default(name)}


@pytest.mark.parametrize(
    "bad",
    [
        {"tiers": "hard"},
        {"lease_s": 1},
        {"keep_days": 0},
        {"keep_days": -3},
        {"keep_gb": float("nan")},
        {"keep_gb": "many"},
        {"lease": 30},
        {"max_upload_mib": 0.5},
        {"max_upload_mib": 513},
        {"max_upload_mib": "large"},
    ],
)
def test_a_bad_value_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Knobs.model_validate(bad)


def test_a_change_is_kept_with_who_and_when_and_tells_the_scheduler(store: Storage) -> None:
    knobs = KnobStore(open_engine(store.url, writes=True))
    assert knobs.newest() == {}
    knobs.change({}, "ann", 1.0)
    assert store.requests.waiting() == []
    knobs.change({"tiers": "off", "keep_gb": 12.5}, "ann", 1.0)
    knobs.change({"keep_gb": None}, "bob", 2.0)
    assert KnobStore(store.reader._engine).newest() == {
        "tiers": Change("off", 1.0, "ann"),
        "keep_gb": Change(None, 2.0, "bob"),
    }
    assert [request.kind for request in store.requests.waiting()] == [RequestKind.SETTINGS] * 2
