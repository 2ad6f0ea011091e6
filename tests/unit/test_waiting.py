"""What a queued job says of the cards that it waits for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dashboard.waiting import WAITING, why_waiting
from farm.catalogue.models import builtin_models
from farm.feed import LiveCard
from farm.model import Card, CardKind, Node, Tier
from tests.storage import SETTINGS, Storage, open_storage

CPU = Card("CPU-1", "n1", CardKind.CPU, "Ryzen 5", models=frozenset({"animatic"}))
GPU = Card(
    "GPU-1",
    "n1",
    CardKind.CUDA,
    "GTX 1080",
    8.0,
    7.4,
    Tier.PREVIEW,
    (6, 1),
    frozenset({"animatic", "i2vgen-xl"}),
)
DIFFUSION = replace(SETTINGS, model="i2vgen-xl", width=512, height=512, frames=16, steps=50, guidance=9.0)


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def said(store: Storage, cards: list[Card], states: dict[str, LiveCard], model: str = "animatic") -> str:
    store.registry.see_node(Node("n1", "attic", "127.0.0.1"), cards, 1.0)
    parts: Any = SimpleNamespace(
        reader=store.reader,
        models=builtin_models(),
        settings=SimpleNamespace(tiers="soft"),
        live=SimpleNamespace(cards=states),
    )
    return why_waiting(parts, store.submit(SETTINGS if model == "animatic" else DIFFUSION))


def live(card: Card, state: Any, why: str | None = None) -> LiveCard:
    return LiveCard(card.id, "n1", "attic", card.name, state, why=why)


def test_a_job_whose_cards_are_at_work_waits_for_its_turn(store: Storage) -> None:
    states = {
        CPU.id: live(CPU, "busy"),
        GPU.id: live(GPU, "kept", "kept for its owner: a game uses the card"),
    }
    assert said(store, [CPU, GPU], states) == WAITING


def test_a_job_whose_cards_are_all_away_names_each_with_the_reason(store: Storage) -> None:
    states = {
        CPU.id: live(CPU, "not answering", "its PC does not answer"),
        GPU.id: live(GPU, "kept", "kept for its owner: a game uses the card"),
    }
    assert said(store, [CPU, GPU], states) == (
        "Waits for GTX 1080, which is kept for its owner: a game uses the card; Ryzen 5: its PC does not answer."
    )


def test_an_owner_s_program_that_leaves_too_little_memory_is_the_reason(store: Storage) -> None:
    squeezed = replace(GPU, usable_gib=0.4, others_gib=7.0)
    told = said(store, [squeezed], {GPU.id: live(GPU, "idle")}, "i2vgen-xl")
    assert told.startswith("Waits for GTX 1080: needs ")
    assert "other programs hold 7.0" in told
