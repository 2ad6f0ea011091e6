"""From rows to the farm's frozen values and back."""

import json
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Row, RowMapping

from farm.model import (
    Attempt,
    AttemptStatus,
    Card,
    CardKind,
    Coming,
    FailureClass,
    Job,
    JobStatus,
    MemoryPlan,
    Node,
    PcieLink,
    RenderSettings,
    StageKind,
    Tier,
)
from farm.store import schema
from farm.vitals import CardFacts

_SETTINGS: TypeAdapter[RenderSettings] = TypeAdapter(RenderSettings)
_PLAN: TypeAdapter[MemoryPlan] = TypeAdapter(MemoryPlan)
_FACTS: TypeAdapter[CardFacts] = TypeAdapter(CardFacts)


def settings_to_json(settings: RenderSettings) -> dict[str, Any]:
    """Settings as stored."""
    found: dict[str, Any] = _SETTINGS.dump_python(settings, mode="json")
    return found


def settings_from_json(stored: dict[str, Any]) -> RenderSettings:
    """Settings again."""
    return _SETTINGS.validate_python(stored)


def plan_to_json(plan: MemoryPlan) -> dict[str, Any]:
    """A memory plan as stored."""
    found: dict[str, Any] = _PLAN.dump_python(plan, mode="json")
    return found


def plan_from_json(stored: dict[str, Any]) -> MemoryPlan:
    """A memory plan again, also one that a farm before 0.2 stored, which knew only where the parts lie."""
    plan = dict(stored)
    former = plan.pop("placement", None)
    if former is not None:
        plan["parts"] = "resident" if former == "resident" else "by_stage"
    return _PLAN.validate_python(plan)


def job_from_row(row: RowMapping) -> Job:
    """A job from a row of `jobs`."""
    return Job(
        id=row["id"],
        status=JobStatus(row["status"]),
        settings=_SETTINGS.validate_python(row["settings"]),
        tier=Tier(row["tier"]),
        input_sha256=row["input_sha256"],
        created_at=row["created_at"],
        preset=row["preset"],
        priority=row["priority"],
        anywhere=bool(row["anywhere"]),
        submitted_by=row["submitted_by"],
        cancel_requested=bool(row["cancel_requested"]),
        unplaceable=row["unplaceable"],
        finished_at=row["finished_at"],
        video_sha256=row["video_sha256"],
        thumbnail_sha256=row["thumbnail_sha256"],
        failure=row["failure"],
        draft=bool(row["draft"]),
        rating=row["rating"],
        batch=row["batch"],
        stage=StageKind(row["stage"]),
        needs=tuple(row["needs"] or ()),
        starred=bool(row["starred"]),
        removed_at=row["removed_at"],
        seq=row["seq"],
    )


def attempt_from_row(row: RowMapping) -> Attempt:
    """An attempt from a row of `attempts`."""
    return Attempt(
        id=row["id"],
        job_id=row["job_id"],
        number=row["number"],
        node_id=row["node_id"],
        card_id=row["card_id"],
        card_name=row["card_name"],
        status=AttemptStatus(row["status"]),
        assigned_at=row["assigned_at"],
        stage=StageKind(row["stage"]),
        memory_plan=plan_from_json(row["memory_plan"]),
        last_seq=row["last_seq"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        stage_seconds=dict(row["stage_seconds"]),
        peak_gib=row["peak_gib"],
        failure_class=FailureClass(row["failure_class"]) if row["failure_class"] else None,
        reason=row["reason"],
        notes=tuple(row["notes"] or ()),
        disturbed=bool(row["disturbed"]),
        predicted_s=row["predicted_s"],
        predicted_gib=row["predicted_gib"],
        energy_wh=row["energy_wh"],
        predicted_low_s=row["predicted_low_s"],
        predicted_high_s=row["predicted_high_s"],
        predicted_basis=row["predicted_basis"],
        resumed_step=row["resumed_step"],
    )


def node_from_row(row: RowMapping) -> Node:
    """A node from a row of `nodes`."""
    return Node(
        id=row["id"],
        name=row["name"],
        address=row["address"],
        last_seen=row["last_seen"],
        versions=dict(row["versions"]),
        ram_gib=row["ram_gib"],
        ram_free_gib=row["ram_free_gib"],
        drained_at=row["drained_at"],
        kept_out=row["kept_out"],
        owner_rules=row["owner_rules"],
    )


_CARD_COLUMNS = (
    "id", "node_id", "kind", "name", "vram_gib", "usable_gib", "band", "compute_capability", "models", "trouble", "last_seen", "driver",
    "pcie_generation", "pcie_lanes", "pcie_lanes_most", "bus_gb_s", "ram_gib", "notice", "kept", "others_gib", "facts", "paused", "coming",
    "tags",
)  # fmt: skip
CARD_COLUMNS = [
    sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, sa.JSON) else column
    for column in schema.cards.c[_CARD_COLUMNS]
]
"""What `card_from_row` takes: JSON as the text that it is."""


def card_from_row(row: Row[*tuple[Any, ...]]) -> Card:
    """A card from a row of `CARD_COLUMNS`.

    By their places: every page reads all cards, and asking a row for 24 names takes as long as all else that is done here.
    """
    (
        card_id, node_id, kind, name, vram_gib, usable_gib, band, capability, models, trouble, last_seen, driver,
        generation, lanes, lanes_most, bus_gb_s, ram_gib, notice, kept, others_gib, facts, paused, coming,
        tags,
    ) = row  # fmt: skip
    return Card(
        id=card_id,
        node_id=node_id,
        kind=CardKind(kind),
        name=name,
        vram_gib=vram_gib,
        usable_gib=usable_gib,
        band=Tier(band),
        compute_capability=_capability(capability) if capability else None,
        models=_words(models),
        trouble=trouble,
        last_seen=last_seen,
        driver=driver,
        pcie=PcieLink(generation, lanes, lanes_most) if generation is not None else None,
        bus_gb_s=bus_gb_s,
        ram_gib=ram_gib,
        notice=notice,
        kept=kept,
        others_gib=others_gib,
        facts=_facts(facts),
        paused=paused,
        coming=_coming(coming),
        tags=_words(tags),
    )


# What a card's PC says of it is the same for weeks, and every page reads all cards: each text is read once.


@lru_cache(maxsize=64)
def _capability(stored: str) -> tuple[int, int]:
    major, minor = stored.split(".")
    return int(major), int(minor)


@lru_cache(maxsize=1024)
def _words(stored: str | None) -> frozenset[str]:
    return frozenset(json.loads(stored) or ()) if stored else frozenset()


@lru_cache(maxsize=4096)
def _facts(stored: str | None) -> CardFacts | None:
    found = json.loads(stored) if stored else None
    return _FACTS.validate_python(found) if found else None


@lru_cache(maxsize=1024)
def _coming(stored: str | None) -> tuple[Coming, ...]:
    return tuple(Coming(**one) for one in json.loads(stored) or ()) if stored else ()
