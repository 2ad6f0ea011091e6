"""Which of the farm's models are worth fetching to this PC: those that some card of it could run and that it does not have already."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from farm.catalogue.models import ModelRow
from farm.errors import MissingWeightsError
from farm.model import Card, CardKind, RenderSettings
from farm.planning.eligibility import without_its_owner
from farm.planning.estimate import room_of
from farm.planning.plans import best_plan
from farm.weights import Shelf
from farm.wire import CardReport
from node_agent.pipelines.weights import check_weights, find_weights


def torch_here() -> bool:
    """Whether this PC has what diffusion models run on. Imports nothing."""
    return find_spec("torch") is not None and find_spec("diffusers") is not None


def wanted_models(
    models: Mapping[str, ModelRow], cards: Iterable[CardReport], shelf: Shelf
) -> dict[str, ModelRow]:
    """The models, by name, that the farm should bring here. One that lies on the shelf is wanted too: the head may have a newer one."""
    cards, able = tuple(cards), torch_here()
    return {
        name: row
        for name, row in models.items()
        if row.source
        and (able or not row.tensor_needed)
        and any(could_run(row, card) for card in cards)
        and (shelf.directory(name) is not None or not _elsewhere(row))
    }


def could_run(row: ModelRow, said: CardReport) -> bool:
    """Whether the card could make any clip with the model, even the smallest, while its owner is away."""
    if said.kind.value not in row.devices:
        return False
    if said.kind is CardKind.CPU or row.memory is None:
        return True
    card = without_its_owner(
        Card(
            id=said.id,
            node_id="",
            kind=said.kind,
            name=said.name,
            vram_gib=said.vram_gib,
            usable_gib=said.usable_gib,
            compute_capability=said.compute_capability,
            bus_gb_s=said.bus_gb_s,
            ram_gib=said.ram_gib,
            others_gib=said.others_gib,
        )
    )
    if card.usable_gib is None:
        return False
    side = row.limits.min_side
    smallest = RenderSettings(
        model=row.name, width=side, height=side, frames=1, steps=1, guidance=1.0, fps=1, seed=0
    )
    return best_plan(row, smallest, room_of(row, card, card.usable_gib)) is not None


def _elsewhere(row: ModelRow) -> bool:
    """Whether the PC's owner has the model, in a directory or in the Hugging Face cache."""
    try:
        check_weights(find_weights(row.source), row)
    except MissingWeightsError:
        return False
    return True
