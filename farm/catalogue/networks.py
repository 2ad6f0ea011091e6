"""What was measured of each denoising network: its weights in units, its layers' memory, its time. Data in `networks/*.json`.

`farm calibrate MODEL` makes these files on a GPU. "Work" is frames x megapixels x passes in one batch (two with guidance together):
memory and time of these networks are proportional to it, apart from what `fixed` says, and but for attention within a picture, whose
time grows with the picture's square.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from math import ceil
from typing import Any, Literal

from farm.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class UnitRow:
    """Weights that come and go together: `mib` MiB in fp16, and the `share` of a step's computation that they do."""

    name: str
    mib: float
    share: float


Cut = Literal["rows", "rows_and_lines", "each_pass", "lines"]
"""Along what a layer is cut: the frames of the batch alone, or these and then their lines; within each pass of the batch, as a layer that
looks along time; or so finely that every piece is as large as the others."""


def largest_share(cut: Cut, pieces: int, frames: int, passes: int) -> float:
    """The largest of so many pieces, as a share of the layer; `passes` of `frames` are in one batch. 16 rows in 3 pieces are 6, 5 and 5."""
    if pieces <= 1:
        return 1.0
    if cut == "lines":
        return 1 / pieces
    if cut == "each_pass":
        return 1 / (passes * ceil(pieces / passes))
    rows = passes * frames
    if pieces <= rows:
        return ceil(rows / pieces) / rows
    return 1 / rows if cut == "rows" else 1 / (rows * ceil(pieces / rows))


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer's memory, MiB per work in fp16. `base` is what others hold when it begins.

    Whole, it takes `whole` more; in p pieces `fixed + per_piece * largest_share` of them. `working` is what its pieces are counted by: p
    is the smallest number with `working / p` within the plan's `piece_mib`. `cut`: along what.
    """

    name: str
    base: float
    whole: float
    fixed: float
    per_piece: float
    working: float
    cut: Cut = "lines"


@dataclass(frozen=True, slots=True)
class Counted:
    """What a step computes and moves per work, counted and not measured.

    TFLOP and GB of its products (matrices, convolutions, attention), and GB of everything else, in fp16.
    """

    tflop: float
    products_gb: float
    rest_gb: float


@dataclass(frozen=True, slots=True)
class VaeLaw:
    """What a VAE's layers are handed beside its weights: `fixed + grows * frames * megapixels`, GiB, each pair being `(fixed, grows)`.

    In fp16; encoding in fp32 where it is done in that always (`encodes_in_fp32`). Decoded are `decode_frames` at once (0: the whole
    clip), encoded is one picture; either whole (`_frame`) or with its layers in tiles (`_tiles`).
    """

    decode_frames: int = 1
    decode_frame: tuple[float, float] = (0.0, 0.0)
    decode_tiles: tuple[float, float] = (0.0, 0.0)
    encode_frame: tuple[float, float] = (0.0, 0.0)
    encode_tiles: tuple[float, float] = (0.0, 0.0)
    encodes_in_fp32: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A denoising network as measured; each file is read once, so that two networks are equal only if they are the same.

    `units` stand in the order of computation. A step with everything on the card takes `step_fixed_s + step_per_work_s * work` seconds at
    pictures of `at_megapixels`, and its work counts `dearer_per_megapixel` more for each megapixel above that (`timed`).
    In pieces, of which there are many, it computes longer by the share `cutting`.
    `layers` are those that can make the peak under some plan; `between` is the most that is held between layers, MiB per work. `kept` are
    the MiB that libraries keep for themselves, whatever the work is.
    `widths` are the working sets of all layers that can be cut (MiB per work) with how many layers have each: from them follows how many
    pieces a plan makes. `measured` says on which card, with which versions, by which command; `counted` needs no card.
    `mib` are all weights in fp16. `others` is what the model has beside its denoiser, in the shape of a row's `memory`
    (`farm.catalogue.models`), so that a row needs to name the network only.
    """

    name: str
    measured: dict[str, Any]
    step_fixed_s: float
    step_per_work_s: float
    at_megapixels: float
    dearer_per_megapixel: float
    cutting: float
    counted: Counted
    units: tuple[UnitRow, ...]
    layers: tuple[LayerRow, ...]
    between: float
    widths: tuple[tuple[float, int], ...]
    kept: float
    others: dict[str, Any] = field(default_factory=dict)
    mib: float = field(init=False)

    def __post_init__(self) -> None:
        """Adds up the weights once: the planner asks for them hundreds of times a plan."""
        object.__setattr__(self, "mib", sum(unit.mib for unit in self.units))  # frozen

    def timed(self, work: float, megapixels: float) -> float:
        """The work at pictures of `megapixels` as so much at those that the step was measured at."""
        return work * (1.0 + self.dearer_per_megapixel * (megapixels - self.at_megapixels))

    def step_seconds(self, work: float, scale: float = 1.0, passes: int = 1) -> float:
        """A step with everything on the card and whole, on one that takes `scale` times the measured card's seconds; `work` as `timed`.

        The fixed part does not scale, and is shared where the work is one of several `passes` of a step.
        """
        return self.step_fixed_s / passes + scale * self.step_per_work_s * work


def network_from_dict(name: str, data: dict[str, Any]) -> Network:
    """A network from the shape of the files.

    Raises:
        ConfigurationError: something is missing or of another shape.
    """
    try:
        return Network(
            name,
            data["measured"],
            float(data["step"][0]),
            float(data["step"][1]),
            float(data["dearer"][0]),
            float(data["dearer"][1]),
            float(data["cutting"]),
            Counted(**{name: float(value) for name, value in data["counted"].items()}),
            tuple(UnitRow(*unit) for unit in data["units"]),
            tuple(LayerRow(*layer) for layer in data["layers"]),
            float(data["between"]),
            tuple((float(width), int(count)) for width, count in data["widths"]),
            float(data["kept"]),
            data.get("others", {}),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The measurements of the network {name} cannot be used: {error!r}.",
        "Make them again with `farm calibrate`.",
    )


@cache
def network(name: str) -> Network:
    """A network by its file's name.

    Raises:
        ConfigurationError: there is no such file, or it cannot be used.
    """
    file = resources.files(__package__).joinpath("networks", f"{name}.json")
    if not file.is_file():
        raise ConfigurationError(
            f"Nobody has measured a network called {name}.",
            "Name one of farm/catalogue/networks in the model's `memory.network`.",
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unusable(name, error) from error
    return network_from_dict(name, data)
