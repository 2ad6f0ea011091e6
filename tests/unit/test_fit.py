"""`farm calibrate`'s fit gives back the laws that samples were made from, in the files' own shape."""

import json
from dataclasses import replace
from importlib import resources
from itertools import pairwise

import pytest

from farm.catalogue.networks import Cut, largest_share, network_from_dict
from farm.planning.memory import CUT_AT, PIECE_S
from node_agent.engine.fit import (
    END,
    Counted,
    LayerSample,
    Samples,
    Size,
    as_text,
    budget_that_cuts,
    line_gib,
    network_data,
    work_of,
)

STANDARD: Size = (512, 512, 16)
LONGER: Size = (512, 512, 32)
OTHER: Size = (1280, 704, 16)
DEARER = 0.3
"""For each megapixel."""
CUTTING = 0.07
UNIT_MIB = {"first": 4.0, "wide": 60.0, "deep": 100.0, "silent": 1.0}
WEIGHTS = sum(UNIT_MIB.values())
KEPT = 33.0
"""What libraries keep for themselves."""
ALWAYS = WEIGHTS + KEPT

# name: base, whole, fixed, per_piece, working, MiB per work
LAWS = {
    "wide": (15.0, 300.0, 16.0, 216.0, 274.0),
    "alike": (34.0, 190.0, 13.0, 193.0, 171.0),
    "alike_with_more_beneath": (36.0, 190.0, 13.0, 193.0, 171.0),
    "tiny": (20.0, 2.0, 2.0, 0.0, 0.0),
    "narrow": (10.0, 30.0, 5.0, 30.0, 40.0),
}
BETWEEN = 61.0
HELD = 1.5
"""The inputs, MiB per work."""
COUNTED = Counted(flops=42e12, products_bytes=80e9, rest_bytes=136e9)


def asked(working_mib: float, budget: int) -> int:
    return 1 if budget == 0 or working_mib <= budget else -(-int(working_mib * 1e6) // int(budget * 1e6))


def run(budget: int) -> list[LayerSample]:
    """One pass of a network that keeps to `LAWS`."""
    work = work_of(STANDARD)
    rows = []
    for name, (base, whole, fixed, per_piece, working) in LAWS.items():
        pieces = asked(working * work, budget)
        taken = whole if pieces == 1 else fixed + per_piece / pieces
        rows.append(
            LayerSample(
                name,
                ALWAYS + base * work,
                ALWAYS + base * work,
                ALWAYS + (base + taken) * work,
                working * work,
                pieces,
            )
        )
    end = ALWAYS + BETWEEN * work
    return [*rows, LayerSample(END, WEIGHTS, end, end, 0.0, 1)]


def in_pieces(step_s: float, piece_mib: int, size: Size = OTHER) -> tuple[int, float]:
    """A step whose layers are cut to `piece_mib`, as `CUTTING` has it."""
    more = sum(asked(working * work_of(size), piece_mib) - 1 for *_, working in LAWS.values() if working)
    return piece_mib, step_s * (1 + CUTTING * min(1.0, more / CUT_AT)) + more * PIECE_S


def samples(budgets: tuple[int, ...] = (0, 1024, 512, 256, 128, 64)) -> Samples:
    small, large, other = (work_of(size) for size in (STANDARD, LONGER, OTHER))
    dearer = 1 + DEARER * (1.280 * 0.704 - 0.512 * 0.512)
    step = (0.003 + 0.026 * small, 0.003 + 0.026 * large, 0.003 + 0.026 * other * dearer)
    # "wide" comes twice in a pass, and the first unit's seconds are the host's launching.
    units = [("first", 9.0), ("wide", 0.2), ("deep", 0.6), ("wide", 0.2)]
    return Samples(
        (STANDARD, LONGER, OTHER),
        {budget: run(budget) for budget in budgets},
        UNIT_MIB,
        (units, units),
        step,
        (ALWAYS + HELD * small, ALWAYS + HELD * large),
        in_pieces(step[2], 512),
        COUNTED,
    )


def test_work_is_frames_times_megapixels_times_both_passes() -> None:
    assert work_of(STANDARD) == pytest.approx(2 * 16 * 0.262144)


def test_known_laws_come_back_and_the_planner_reads_them() -> None:
    data = network_data("Net", {"card": "a card"}, samples())
    net = network_from_dict("net", json.loads(as_text(data)))
    found = {layer.name: layer for layer in net.layers}
    for name in ("wide", "alike_with_more_beneath"):
        layer = found[name]
        numbers = (layer.base, layer.whole, layer.fixed, layer.per_piece, layer.working)
        assert numbers == pytest.approx(LAWS[name], abs=0.002)
    assert net.step_fixed_s == pytest.approx(0.003, abs=1e-5)
    assert net.step_per_work_s == pytest.approx(0.026, abs=1e-6)
    assert net.at_megapixels == pytest.approx(0.262144)
    assert net.dearer_per_megapixel == pytest.approx(DEARER, abs=1e-4)
    assert net.cutting == pytest.approx(CUTTING, abs=1e-4)
    assert net.step_seconds(net.timed(work_of(OTHER), 1.280 * 0.704)) == pytest.approx(
        samples().step_seconds[2], rel=1e-4
    )
    assert net.counted.tflop * work_of(STANDARD) == pytest.approx(42, rel=1e-4)
    assert net.counted.products_gb * work_of(STANDARD) == pytest.approx(80, rel=1e-4)
    assert net.counted.rest_gb * work_of(STANDARD) == pytest.approx(136, rel=1e-4)
    assert net.between == pytest.approx(BETWEEN)
    assert net.kept == pytest.approx(KEPT)
    assert net.measured == {"card": "a card", "sizes": [[512, 512, 16], [512, 512, 32], [1280, 704, 16]]}


@pytest.mark.parametrize("cut", ["rows", "rows_and_lines", "each_pass", "lines"])
def test_a_layer_s_law_comes_back_whichever_way_it_was_cut(cut: Cut) -> None:
    """By the number of pieces alone, three of 16 rows were a third each: a clip of 8 frames took a tenth more than foretold."""
    work = work_of(STANDARD)
    base, whole, fixed, per_piece, working = LAWS["wide"]
    passes = {}
    for budget, found in samples().layers.items():
        pieces = asked(working * work, budget)
        share = largest_share(cut, pieces, STANDARD[2], 2)
        taken = whole if pieces == 1 else fixed + per_piece * share
        peak = ALWAYS + (base + taken) * work
        own = LayerSample("wide", ALWAYS + base * work, 0.0, peak, working * work, pieces, cut)
        passes[budget] = [own, *found[1:]]
    data = network_data("Net", {}, replace(samples(), layers=passes))
    (row,) = [row for row in data["layers"] if row[0] == "wide"]
    assert row[3:5] == pytest.approx([fixed, per_piece], abs=0.002)
    assert row[6] == cut


@pytest.mark.parametrize(
    ("cut", "pieces", "frames", "passes", "share"),
    [
        ("rows", 1, 16, 2, 1.0),
        ("rows", 3, 16, 2, 11 / 32),
        ("rows", 3, 8, 2, 6 / 16),
        ("rows", 100, 16, 2, 1 / 32),
        ("rows_and_lines", 3, 8, 2, 6 / 16),
        ("rows_and_lines", 40, 8, 2, 1 / 48),
        ("each_pass", 3, 16, 2, 1 / 4),
        ("each_pass", 3, 16, 1, 1 / 3),
        ("lines", 3, 16, 2, 1 / 3),
    ],
)
def test_the_largest_piece_is_what_the_cut_leaves(
    cut: Cut, pieces: int, frames: int, passes: int, share: float
) -> None:
    assert largest_share(cut, pieces, frames, passes) == pytest.approx(share)


def test_layers_that_make_no_peak_and_twins_are_left_out() -> None:
    data = network_data("Net", {}, samples())
    assert [row[0] for row in data["layers"]] == ["wide", "alike_with_more_beneath"]


def test_every_layer_that_can_be_cut_counts_among_the_widths() -> None:
    data = network_data("Net", {}, samples())
    assert data["widths"] == [[274.0, 1], [171.0, 2], [40.0, 1]]


def test_shares_sum_to_one_and_a_unit_that_comes_twice_counts_with_both() -> None:
    data = network_data("Net", {}, samples())
    shares = {name: share for name, _, share in data["units"]}
    assert list(shares) == ["first", "wide", "deep", "silent"]
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)
    assert shares["first"] == pytest.approx(0.001 / 1.001, abs=1e-6)
    assert shares["wide"] / shares["deep"] == pytest.approx(0.4 / 0.6, abs=1e-4)
    assert shares["silent"] == 0.0
    assert [mib for _, mib, _ in data["units"]] == list(UNIT_MIB.values())


def test_one_cut_alone_gives_half_and_half() -> None:
    found = {row[0]: row for row in network_data("Net", {}, samples((0, 1024)))["layers"]}
    _, _, _, fixed, per_piece, working, _ = found["wide"]
    pieces = asked(working * work_of(STANDARD), 1024)
    assert fixed == pytest.approx(per_piece / pieces, abs=0.002)
    assert fixed + per_piece / pieces == pytest.approx(16.0 + 216.0 / pieces, abs=0.002)


def test_a_network_that_took_another_way_is_refused() -> None:
    found = samples()
    layers = {**found.layers, 64: found.layers[64][1:]}
    with pytest.raises(ValueError, match="different ways"):
        network_data("Net", {}, replace(found, layers=layers))


def test_two_sizes_of_the_same_work_are_refused() -> None:
    found = samples()
    with pytest.raises(ValueError, match="same work"):
        network_data(
            "Net",
            {},
            replace(found, sizes=(STANDARD, STANDARD, OTHER)),
        )


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_the_files_of_the_catalogue_are_written_as_this_writes(name: str) -> None:
    text = resources.files("farm.catalogue").joinpath("networks", f"{name}.json").read_text(encoding="utf-8")
    data = json.loads(text)
    assert as_text(data) == text
    ours = network_data("Net", {}, samples())
    assert [*ours, "others"] == list(data)
    assert [len(ours[key][0]) for key in ("units", "layers", "widths")] == [
        len(data[key][0]) for key in ("units", "layers", "widths")
    ]
    assert all(wide > narrow for (wide, _), (narrow, _) in pairwise(ours["widths"]))


def test_seconds_that_would_begin_below_nothing_begin_at_nothing() -> None:
    """A card that waited for its host at the smaller size gave a step of less than no seconds to the smallest clips."""
    slower_at_first = replace(samples(), step_seconds=(0.2, 1.0, 2.0))
    small, large = work_of(STANDARD), work_of(LONGER)
    assert network_data("Net", {}, slower_at_first)["step"] == [0.0, round(max(0.2 / small, 1.0 / large), 6)]


@pytest.mark.parametrize(
    ("taken", "law"),
    [
        (((1.0, 3 * 1024.0), (2.0, 5 * 1024.0)), [1.0, 2.0]),
        (((2.0, 5 * 1024.0), (1.0, 3 * 1024.0)), [1.0, 2.0]),
        (((1.0, 1 * 1024.0), (2.0, 3 * 1024.0)), [0.0, 1.5]),
    ],
    ids=["a line", "the larger first", "never below nothing"],
)
def test_two_samples_of_a_vae_are_a_line(
    taken: tuple[tuple[float, float], tuple[float, float]], law: list[float]
) -> None:
    assert line_gib(taken) == law


def test_two_samples_of_one_size_are_refused() -> None:
    with pytest.raises(ValueError, match="same work"):
        line_gib(((1.0, 5.0), (1.0, 6.0)))


@pytest.mark.parametrize(("step_s", "share"), [(0.1, 0.0), (1000.0, 0.9 / 0.262144)])
def test_work_at_another_picture_is_never_cheaper_and_never_free_at_the_smallest(
    step_s: float, share: float
) -> None:
    found = replace(samples(), step_seconds=(*samples().step_seconds[:2], step_s))
    assert network_data("Net", {}, found)["dearer"] == [0.262144, pytest.approx(share, abs=1e-4)]


@pytest.mark.parametrize("piece_mib", [512, 2048, 4096], ids=["in many", "in a few", "in very few"])
def test_what_cutting_costs_comes_back_from_however_many_pieces(piece_mib: int) -> None:
    """One share for every network foretold SVD's steps in pieces up to a tenth too short: they cost more to cut."""
    step_s = samples().step_seconds[2]
    found = replace(samples(), in_pieces=in_pieces(step_s, piece_mib))
    assert network_data("Net", {}, found)["cutting"] == pytest.approx(CUTTING, abs=1e-4)


@pytest.mark.parametrize(
    ("piece_mib", "step_s"), [(512, 0.1), (10**6, 1000.0)], ids=["quicker than whole", "nothing was cut"]
)
def test_cutting_never_makes_a_step_shorter_and_costs_nothing_where_nothing_is_cut(
    piece_mib: int, step_s: float
) -> None:
    found = replace(samples(), in_pieces=(piece_mib, step_s))
    assert network_data("Net", {}, found)["cutting"] == 0.0


@pytest.mark.parametrize(
    ("budgets", "chosen"),
    [((1024, 512, 256), 1024), ((16384, 4096, 2048, 1024), 1024), ((10**6, 10**5), 10**5)],
    ids=["the first does", "the first that cuts enough", "none does"],
)
def test_the_largest_pieces_that_are_many_are_timed(budgets: tuple[int, ...], chosen: int) -> None:
    assert budget_that_cuts(samples().layers[0], STANDARD, OTHER, budgets) == chosen


def test_two_pictures_of_the_same_size_are_refused() -> None:
    with pytest.raises(ValueError, match="two pictures of the same size"):
        network_data("Net", {}, replace(samples(), sizes=(STANDARD, LONGER, (1024, 256, 4))))
