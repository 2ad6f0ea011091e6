"""From what was sampled of a network to the planner's data (`farm.catalogue.networks`). Pure, without torch.

A layer's memory above what others hold is one number when it runs whole, and `fixed + per_piece * share` in pieces: a straight line over
the largest piece's share through what the budgets gave, by least squares. All of it is proportional to the work (frames x megapixels x
passes), so it is divided by the work of the sampled size; but for what libraries keep for themselves, which is what two sizes hold
between steps beside the weights, as a straight line, at no work. A step's seconds are a straight line over the work, through two sizes
of one picture; how much dearer work is at another picture, attention within it above all, a third says, and a step there in pieces what
cutting costs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farm.catalogue.networks import Cut, largest_share
from farm.planning.memory import CUT_AT, PIECE_S, grown, more_pieces

Size = tuple[int, int, int]
"""Width and height in pixels, frames."""

PASSES: Final = 2
"""The guidance passes of one batch; a network is measured with both."""
END: Final = "(end)"
"""The name of the sample of what came after the last layer."""

MOST_DEARER: Final = 0.9
"""Of the time at the first picture, what is taken to grow with it at most."""
_NEAR_PEAK: Final = 0.98
"""A layer that stays so far below the lowest possible peak never makes one; the rest are errors of measurement."""
_FIRST_SHARE: Final = 0.001
"""What the first unit is given: it begins while the host still launches, so that its own time says nothing."""


@dataclass(frozen=True, slots=True)
class LayerSample:
    """One layer in one pass, MiB: `base` was taken when it began (weights too), `peak` while it ran, `before` since the one before.

    `working` is its working set when it runs whole, `pieces` the number that the budget asked for, `cut` along what they were cut.
    """

    name: str
    base: float
    before: float
    peak: float
    working: float
    pieces: int
    cut: Cut = "lines"


@dataclass(frozen=True, slots=True)
class Counted:
    """What one pass at the first size computes and moves, in fp16.

    FLOPs and bytes of its products (matrices, convolutions, attention), and the bytes of all other kernels.
    """

    flops: float
    products_bytes: float
    rest_bytes: float


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured of a network. `sizes` are two of one picture and a third of another; seconds stand in their order.

    `layers` has the layers of one pass at the first size for each budget (0: all whole), in the same order each time. `unit_mib` are
    the weights of each unit, `unit_seconds` the units in the order of computation, at the first and the third size. `held_mib` is what is
    handed out between steps, at the first two. `in_pieces`: to how many MiB layers were cut for a step at the third size, and its seconds.
    """

    sizes: tuple[Size, Size, Size]
    layers: Mapping[int, Sequence[LayerSample]]
    unit_mib: Mapping[str, float]
    unit_seconds: tuple[Sequence[tuple[str, float]], Sequence[tuple[str, float]]]
    step_seconds: tuple[float, float, float]
    held_mib: tuple[float, float]
    in_pieces: tuple[int, float]
    counted: Counted


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's law, MiB per work; `gap` is the most that was held between the layer before and this one."""

    name: str
    base: float
    gap: float
    whole: float
    fixed: float
    per_piece: float
    working: float
    cut: Cut

    @property
    def least(self) -> float:
        return self.base + (self.fixed if self.working else self.whole)


def work_of(size: Size) -> float:
    """Frames x megapixels x passes of a batch with both passes."""
    width, height, frames = size
    return PASSES * frames * width * height / 1e6


def network_data(title: str, measured: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """The network's data in the shape of `farm/catalogue/networks/*.json`; `measured` says on what, by what and when.

    Raises:
        ValueError: the sizes are of the same work, or the passes do not have the same layers.
    """
    weights = sum(samples.unit_mib.values())
    kept = _kept_mib(samples, weights)
    layers = [_law(runs, weights + kept, samples.sizes[0]) for runs in _by_layer(samples.layers)]
    between = max(layer.gap for layer in layers)
    layers = [layer for layer in layers if layer.name != END]
    widths = _widths((layer.working for layer in layers), 1.0)
    return {
        "title": title,
        "measured": {**measured, "sizes": [list(size) for size in samples.sizes]},
        "step": _step(samples),
        "dearer": _dearer(samples),
        "cutting": _cutting(samples, widths),
        "counted": _counted(samples.counted, work_of(samples.sizes[0])),
        "units": _units(samples),
        "layers": [_row(layer) for layer in _that_make_peaks(layers, between)],
        "between": round(between, 3),
        "kept": round(kept, 1),
        "widths": [list(row) for row in widths],
    }


def line_gib(taken: tuple[tuple[float, float], tuple[float, float]]) -> list[float]:
    """Two samples of (work, MiB) as `[fixed, grows]`, GiB and GiB per work; nothing fixed where that would be below 0.

    Raises:
        ValueError: both are of the same work.
    """
    fixed, grows = _rising(*sorted(taken))
    return [round(fixed / 1024, 4), round(grows / 1024, 4)]


def _counted(counted: Counted, work: float) -> dict[str, float]:
    """Per work: TFLOP and GB of the products, GB of the rest."""
    return {
        "tflop": round(counted.flops / work / 1e12, 4),
        "products_gb": round(counted.products_bytes / work / 1e9, 4),
        "rest_gb": round(counted.rest_bytes / work / 1e9, 4),
    }


def as_text(data: Mapping[str, Any]) -> str:
    """The data as a file's text, one row to a line."""
    return (
        "{\n" + ",\n".join(f"  {json.dumps(key)}: {_value(value)}" for key, value in data.items()) + "\n}\n"
    )


def _value(value: Any) -> str:
    if isinstance(value, dict) and any(isinstance(one, dict) for one in value.values()):
        rows = (f"    {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())
        return "{\n" + ",\n".join(rows) + "\n  }"
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"


def _by_layer(layers: Mapping[int, Sequence[LayerSample]]) -> list[list[LayerSample]]:
    """For each layer its samples, the whole run first."""
    passes = [layers[0], *(found for budget, found in layers.items() if budget > 0)]
    names = [sample.name for sample in passes[0]]
    if any([sample.name for sample in found] != names for found in passes):
        raise ValueError("the network took different ways through its layers")
    return [list(runs) for runs in zip(*passes, strict=True)]


def _kept_mib(samples: Samples, weights: float) -> float:
    """What stays handed out whatever the work is, beside the weights, MiB: libraries' workspaces."""
    at_no_work, _ = _through(*_by_work(samples, samples.held_mib))
    return max(0.0, at_no_work - weights)


def _law(runs: Sequence[LayerSample], always: float, size: Size) -> _Layer:
    """`always`: MiB that are there whatever the work is."""
    first, work = runs[0], work_of(size)
    base = first.base - always
    whole = max(first.peak - always, 0.0) - base
    # By the largest piece's share: two budgets that cut alike measured the same thing.
    cut = {
        largest_share(run.cut, run.pieces, size[2], PASSES): run.peak - always - base
        for run in runs
        if run.pieces > 1
    }
    fixed, per_piece = _line(cut) if cut else (whole, 0.0)
    return _Layer(
        first.name,
        base=base / work,
        gap=(first.before - always) / work,
        whole=whole / work,
        fixed=fixed / work,
        per_piece=per_piece / work,
        working=first.working / work,
        cut=first.cut,
    )


def _line(cut: Mapping[float, float]) -> tuple[float, float]:
    """`fixed` and `per_piece` by least squares over shares; from a single one half and half, for want of another."""
    if len(cut) == 1:
        ((share, taken),) = cut.items()
        return taken / 2, taken / 2 / share
    mean_share, mean_taken = sum(cut) / len(cut), sum(cut.values()) / len(cut)
    up = sum((share - mean_share) * (taken - mean_taken) for share, taken in cut.items())
    slope = up / sum((share - mean_share) ** 2 for share in cut)
    return mean_taken - slope * mean_share, slope


def _that_make_peaks(layers: Sequence[_Layer], between: float) -> list[_Layer]:
    """The layers that make the peak under some plan, and of equal ones that with most beneath it."""
    floor = max(between, *(layer.least for layer in layers))
    kept: dict[tuple[float, ...], _Layer] = {}
    for layer in layers:
        if layer.base + layer.whole <= floor * _NEAR_PEAK:
            continue
        law = tuple(round(number, 3) for number in (layer.whole, layer.fixed, layer.per_piece, layer.working))
        if law not in kept or kept[law].base < layer.base:
            kept[law] = layer
    return list(kept.values())


def _row(layer: _Layer) -> list[Any]:
    numbers = (layer.base, layer.whole, layer.fixed, layer.per_piece, layer.working)
    return [layer.name, *(round(number, 3) for number in numbers), layer.cut]


def budget_that_cuts(whole: Sequence[LayerSample], size: Size, other: Size, budgets: Sequence[int]) -> int:
    """The first of `budgets`, MiB and the largest first, at which layers that ran whole at `size` come in many pieces at `other`.

    The last one where none does.
    """
    widths = _widths((layer.working for layer in whole), work_of(size))
    enough = (mib for mib in budgets if more_pieces(widths, work_of(other), mib) >= CUT_AT)
    return next(enough, budgets[-1])


def _widths(working_mib: Iterable[float], work: float) -> list[tuple[float, int]]:
    """The working sets of the layers that can be cut, MiB per work, and how many layers have each; the widest first."""
    counts = Counter(round(mib / work, 3) for mib in working_mib if mib > 0)
    return sorted(counts.items(), reverse=True)


def _cutting(samples: Samples, widths: Sequence[tuple[float, int]]) -> float:
    """By what share a step computes longer in many pieces, beside what each piece costs. Never shorter."""
    piece_mib, seconds = samples.in_pieces
    pieces = more_pieces(widths, work_of(samples.sizes[2]), piece_mib)
    if pieces == 0:
        return 0.0
    longer = (seconds - pieces * PIECE_S) / samples.step_seconds[2] - 1
    return round(max(0.0, longer / grown(pieces)), 4)


def _step(samples: Samples) -> list[float]:
    fixed, grows = _step_line(samples)
    return [round(fixed, 5), round(grows, 6)]


def _step_line(samples: Samples) -> tuple[float, float]:
    return _rising(*_by_work(samples, samples.step_seconds[:2]))


def _dearer(samples: Samples) -> list[float]:
    """The megapixels of the first picture, and by what share work takes longer for each more. Never cheaper, never free at a small one."""
    fixed, grows = _step_line(samples)
    here, there = (_megapixels(samples.sizes[number]) for number in (0, 2))
    if here == there:
        raise ValueError("two pictures of the same size say nothing of how time grows with it")
    per_work = (samples.step_seconds[2] - fixed) / work_of(samples.sizes[2])
    share = (per_work / grows - 1) / (there - here)
    return [round(here, 6), round(min(max(share, 0.0), MOST_DEARER / here), 4)]


def _megapixels(size: Size) -> float:
    return size[0] * size[1] / 1e6


def _by_work(samples: Samples, taken: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """What was measured at the two sizes as (work, taken), that of less work first."""
    first, second = sorted((work_of(size), one) for size, one in zip(samples.sizes[:2], taken, strict=True))
    return first, second


def _rising(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """As `_through`. Nothing takes less than nothing: where the line would begin below 0, it begins there and lies above both."""
    fixed, grows = _through(first, second)
    return (fixed, grows) if fixed >= 0 else (0.0, max(first[1] / first[0], second[1] / second[0]))


def _through(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Two samples of (work, taken) as a straight line: what is taken at no work, and per work."""
    (small, low), (large, high) = first, second
    if small == large:
        raise ValueError("two sizes of the same work say nothing of how things grow with it")
    grows = (high - low) / (large - small)
    return low - grows * small, grows


def _units(samples: Samples) -> list[list[Any]]:
    """Each unit with its weights and its share of a step, the mean of both sizes. Units that no call announces come last, with none."""
    small, large = (_shares(rows) for rows in samples.unit_seconds)
    shares = {name: round((share + large.get(name, 0.0)) / 2, 6) for name, share in small.items()}
    shares.update({name: 0.0 for name in samples.unit_mib if name not in shares})
    largest = max(shares, key=lambda name: shares[name])
    # What rounding left over, so that the shares are a whole.
    shares[largest] = round(shares[largest] + 1.0 - sum(shares.values()), 6)
    return [[name, round(samples.unit_mib[name], 3), share] for name, share in shares.items()]


def _shares(rows: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Of each unit the share of all seconds; a unit that came several times counts with all of them."""
    seconds: dict[str, float] = {}
    for name, taken in rows:
        seconds[name] = seconds.get(name, 0.0) + taken
    first = next(iter(seconds))
    seconds[first] = _FIRST_SHARE * sum(taken for name, taken in seconds.items() if name != first)
    total = sum(seconds.values())
    return {name: taken / total for name, taken in seconds.items()}
