"""A render's checkpoint: all that another card needs to go on with it after a step, as safetensors bytes.

The file holds the latents, the generator's state and what stepping has changed in the scheduler. Its metadata has one entry,
`render`, a JSON object: the format, the model, a fingerprint of settings and picture, the step, the scheduler's changes, and a
digest over all, for safetensors have none of their own. One entry, because several come in a random order: equal states are
equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from farm.catalogue.models import ModelRow
from farm.errors import StaleCheckpointError
from node_agent.pipelines.base import RenderRequest

FORMAT: Final = 1
"""Counts up when older checkpoints cannot be gone on from any more, also for a change of the loop or of a model's arithmetic."""

REMEDY: Final = "The render starts from the beginning."

Value = None | bool | int | float | str | torch.Tensor | list["Value"]
"""What of a scheduler's attributes is kept."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose checkpoint it is: the model's row and a SHA-256 over settings and picture."""

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a render stands after `step` (counted from 1).

    `kept` maps the attributes that stepping changed in the scheduler, which is of the class `scheduler`.
    """

    step: int
    latents: torch.Tensor
    generator: torch.Tensor
    scheduler: str
    kept: Mapping[str, Value]


def stamp_of(row: ModelRow, request: RenderRequest) -> Stamp:
    """The stamp of all checkpoints of one render. The plan is no part of it: another card has another plan."""
    picture = request.image.convert("RGB")
    seen = hashlib.sha256(picture.tobytes()).hexdigest()
    said = json.dumps([row.pipeline, asdict(request.settings), picture.size, seen], sort_keys=True)
    return Stamp(row.name, hashlib.sha256(said.encode()).hexdigest())


def pack(state: State, stamp: Stamp) -> bytes:
    """The state as bytes; `unpack` gives it back."""
    tensors: dict[str, torch.Tensor] = {}

    def put(name: str, tensor: torch.Tensor) -> None:
        # A clone: safetensors refuse two tensors that share memory.
        tensors[name] = tensor.detach().cpu().contiguous().clone()

    def plain(name: str, value: Value) -> Any:
        if isinstance(value, torch.Tensor):
            put(name, value)
            return {"tensor": name}
        if isinstance(value, list):
            return [plain(f"{name}.{number}", one) for number, one in enumerate(value)]
        return value

    put("latents", state.latents)
    put("generator", state.generator)
    kept = {name: plain(f"kept.{name}", value) for name, value in state.kept.items()}
    facts = {
        "format": FORMAT,
        "model": stamp.model,
        "fingerprint": stamp.fingerprint,
        "step": state.step,
        "scheduler": state.scheduler,
        "kept": kept,
    }
    facts["digest"] = _digest(tensors, facts)
    return save(tensors, {"render": json.dumps(facts, sort_keys=True)})


def unpack(data: bytes, stamp: Stamp) -> State:
    """The state again, if it is one of this render.

    Raises:
        StaleCheckpointError: it is damaged, or of another format, model, picture or settings.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["render"])
        tensors = load(data)
        digest = facts.pop("digest")
        if facts["format"] != FORMAT:
            raise _stale(f"is of format {facts['format']}, and this farm reads {FORMAT}")
        if digest != _digest(tensors, facts):
            raise _stale("is damaged")
        if facts["model"] != stamp.model:
            raise _stale(f"is of the model {facts['model']}, not {stamp.model}")
        if facts["fingerprint"] != stamp.fingerprint:
            raise _stale("is of a render with other settings or another picture")

        def value_of(stored: Any) -> Value:
            if isinstance(stored, dict):
                return tensors[stored["tensor"]]
            return [value_of(one) for one in stored] if isinstance(stored, list) else stored

        kept = {name: value_of(stored) for name, stored in facts["kept"].items()}
        torch.Generator("cpu").set_state(tensors["generator"])  # refuses what is no state
        return State(
            int(facts["step"]), tensors["latents"], tensors["generator"], str(facts["scheduler"]), kept
        )
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise _stale("is damaged") from error


def attributes(scheduler: Any) -> dict[str, Value]:
    """A copy of a scheduler's attributes that a checkpoint can hold: numbers, words, tensors and lists of them."""
    return {name: _copy(value) for name, value in vars(scheduler).items() if _can_be_kept(value)}


def changes(scheduler: Any, untouched: Mapping[str, Value]) -> dict[str, Value]:
    """The attributes that stepping has changed since `untouched`, taken when the timesteps had just been set.

    Seen from outside, so that no scheduler needs code of its own here: Euler counts its steps, others keep earlier predictions.
    """
    now = attributes(scheduler)
    return {
        name: value
        for name, value in now.items()
        if name not in untouched or not _same(value, untouched[name])
    }


def restore(scheduler: Any, state: State, untouched: Mapping[str, Value], latents: torch.Tensor) -> None:
    """Puts the changes back into a scheduler whose timesteps have just been set.

    What it keeps of samples and predictions comes in the type of `latents`, the state's as they go on here: a card that computes in another
    precision may have made them.

    Raises:
        StaleCheckpointError: they are of another scheduler.
    """
    # Some attributes are made by stepping; but nothing may take the place of a method or of the configuration.
    fits = all(name in untouched or not hasattr(scheduler, name) for name in state.kept)
    if state.scheduler != type(scheduler).__name__ or not fits:
        raise _stale(f"is of another scheduler ({state.scheduler})")
    for name, value in state.kept.items():
        setattr(scheduler, name, _copy(value, latents))


def _digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _can_be_kept(value: object) -> bool:
    if isinstance(value, list):
        return all(_can_be_kept(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def _copy(value: Value, latents: torch.Tensor | None = None) -> Value:
    if isinstance(value, torch.Tensor):
        if latents is None:
            return value.detach().clone()
        alike = value.shape == latents.shape and value.is_floating_point()
        return value.to(latents.device, latents.dtype if alike else value.dtype, copy=True)
    return [_copy(one, latents) for one in value] if isinstance(value, list) else value


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _stale(what: str) -> StaleCheckpointError:
    return StaleCheckpointError(f"The checkpoint {what}.", REMEDY)
