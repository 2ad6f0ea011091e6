"""The catalogue's data: cards found by the names that drivers and people write, and rows that make sense."""

import os
import re
from pathlib import Path

import pytest

from farm.catalogue.cards import cards, find_card
from farm.catalogue.models import builtin_models, load_models, read_models
from farm.catalogue.networks import VaeLaw, network
from farm.catalogue.presets import presets
from farm.cli.here import check_models
from farm.errors import ConfigurationError
from farm.settings import FarmSettings
from tests.farm_verbs import run_here


@pytest.mark.parametrize(
    ("written", "vram_gb", "found"),
    [
        ("NVIDIA GeForce RTX 2060", 6.0, ("RTX 2060 6GB", 6)),
        ("RTX 2060", None, ("RTX 2060 6GB", 6)),
        ("rtx2060", None, ("RTX 2060 6GB", 6)),
        ("2060", None, ("RTX 2060 6GB", 6)),
        ("NVIDIA GeForce RTX 2070 SUPER", 8.0, ("RTX 2070 Super", 8)),
        ("rtx 2070super", None, ("RTX 2070 Super", 8)),
        ("NVIDIA GeForce GTX 1060 6GB", 6.0, ("GTX 1060 6GB", 6)),
        ("GeForce GTX 1080 Ti", 11.0, ("GTX 1080 Ti", 11)),
        ("GTX1080Ti", None, ("GTX 1080 Ti", 11)),
        ("GTX 1080", None, ("GTX 1080", 8)),
        ("NVIDIA GeForce RTX 3060", 12.0, ("RTX 3060 12GB", 12)),
        ("NVIDIA GeForce RTX 4060", 7.996, ("RTX 4060", 8)),
        ("Tesla P40", 22.4, ("Tesla P40", 24)),
        ("NVIDIA Tesla P100-PCIE-16GB", 15.9, ("Tesla P100", 16)),
        ("Tesla V100-SXM2-32GB", None, ("Tesla V100", 32)),
        ("V100", None, ("Tesla V100", 16)),
        ("Tesla T4", 15.0, ("Tesla T4", 16)),
        ("NVIDIA H100 80GB HBM3", 79.6, ("H100", 80)),
        ("NVIDIA H200", 139.8, ("H200", 141)),
        ("GTX 1060 3GB", None, ("GTX 1060 3GB", 3)),  # another chip with the same number
        ("GTX 1060", None, ("GTX 1060 6GB", 6)),
        ("NVIDIA GeForce RTX 3060", 8.0, ("RTX 3060 8GB", 8)),
        ("NVIDIA GeForce RTX 2060", 12.0, ("RTX 2060 12GB", 12)),
        ("NVIDIA GeForce RTX 3080", 12.0, ("RTX 3080", 12)),
        ("NVIDIA GeForce RTX 4060 Ti", 16.0, ("RTX 4060 Ti", 16)),
        ("NVIDIA GeForce GTX 970", 4.0, ("GTX 970", 4)),
        ("NVIDIA GeForce GTX TITAN X", 12.0, ("GTX Titan X", 12)),
        ("NVIDIA TITAN X (Pascal)", 12.0, ("Titan X (Pascal)", 12)),
        ("NVIDIA TITAN RTX", 24.0, ("Titan RTX", 24)),
        ("Tesla M40 24GB", 22.9, ("Tesla M40", 24)),
        ("Quadro RTX 4000", 8.0, ("Quadro RTX 4000", 8)),
        ("NVIDIA RTX A4000", 16.0, ("RTX A4000", 16)),
        ("a4000", None, ("RTX A4000", 16)),
        ("Quadro P5000", 16.0, ("Quadro P5000", 16)),
    ],
)
def test_a_card_is_found_by_what_drivers_and_people_write(
    written: str, vram_gb: float | None, found: tuple[str, int]
) -> None:
    row = find_card(written, vram_gb)
    assert row is not None
    assert (row.name, row.vram_gb) == found


@pytest.mark.parametrize(
    ("written", "vram_gb"),
    [
        ("GTX 1080", 3.0),  # no such size
        ("Titan X", None),  # there are two
        ("NVIDIA RTX 4000 Ada Generation", 20.0),
        ("GTX 1660 Ti with Max-Q Design", 6.0),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16.0),
        ("Radeon RX 580", 8.0),
        ("", None),
    ],
)
def test_a_card_that_is_not_in_the_catalogue_is_not_mistaken_for_one(
    written: str, vram_gb: float | None
) -> None:
    assert find_card(written, vram_gb) is None


def test_every_row_can_be_found_by_its_own_name() -> None:
    for row in cards():
        assert find_card(row.name, row.vram_gb) is row


def test_rows_are_of_the_kind_they_say() -> None:
    """Maxwell, Pascal without fp16 and the GTX 16xx compute in fp32; elsewhere fp16 is never the slower one."""
    assert len(cards()) >= 70
    for row in cards():
        assert row.source.startswith("NVIDIA")
        assert 2 <= row.vram_gb <= 141
        assert 80 <= row.bandwidth_gb_s <= 5000
        single = row.compute_capability in ((5, 2), (6, 1)) or row.name.startswith("GTX 16")
        assert row.compute == ("fp32" if single else "fp16")
        assert row.compute_tflops >= row.fp32_tflops


def test_rates_and_bandwidths_follow_from_what_a_card_is_made_of() -> None:
    """Bandwidth is bus width times data rate; fp32 is two for each core and cycle. Data sheets round."""
    known = [row for row in cards() if row.cores is not None]
    assert len(known) == len(cards()) - 2  # H100 and H200, which are for comparison
    for row in known:
        assert row.cores is not None
        assert row.boost_mhz is not None
        assert row.bus_bits is not None
        assert row.memory_gbps is not None
        assert row.bandwidth_gb_s == pytest.approx(row.bus_bits * row.memory_gbps / 8, rel=0.01), row.name
        assert row.fp32_tflops == pytest.approx(2 * row.cores * row.boost_mhz / 1e6, rel=0.01), row.name


def test_half_precision_has_the_ratio_of_its_chips() -> None:
    workstation = ("Titan RTX", "Tesla T4", "Quadro RTX 4000", "Quadro RTX 5000", "Quadro RTX 6000")
    for row in cards():
        if row.compute_capability == (9, 0):
            continue
        ratio = {
            (5, 2): 1.0,
            (6, 0): 2.0,
            (6, 1): 1 / 64,
            (7, 0): 8.0,
            (7, 5): 2.0 if row.name.startswith("GTX") else 8.0 if row.name in workstation else 4.0,
            (8, 6): 4.0 if row.name.startswith("RTX A") else 2.0,
            (8, 9): 2.0,
        }[row.compute_capability]
        # The Titan V's tensor cores are given at a lower clock than its shaders.
        assert row.fp16_tflops / row.fp32_tflops == pytest.approx(
            ratio, rel=0.08 if row.name == "Titan V" else 0.02
        )


def test_presets_are_within_the_limits_of_their_models() -> None:
    for preset in presets().values():
        limits = builtin_models()[preset.model].limits
        for side in (preset.width, preset.height):
            assert limits.min_side <= side <= limits.max_side
            assert side % limits.multiple == 0
        assert preset.width * preset.height <= limits.max_pixels
        assert preset.frames <= limits.max_frames
        assert preset.steps <= limits.max_steps


def test_the_cards_that_networks_were_measured_on_are_in_the_catalogue() -> None:
    """Without them nothing would be known of how a step's time spreads over a card."""
    networks = {row.memory.network for row in builtin_models().values() if row.memory is not None}
    assert networks
    assert all(find_card(network(name).measured["card"]) for name in networks)


ROW = """
[mine]
title = "Mine"
pipeline = "mine"

[mine.memory]
network = "svd"
beside_gib = 0.1
"""


def test_a_row_that_names_a_network_has_what_was_measured_of_the_whole_model() -> None:
    memory = read_models(ROW, "mine.toml")["mine"].memory
    svd = builtin_models()["svd"].memory
    assert memory is not None
    assert svd is not None
    assert memory.parts_gib == svd.parts_gib == network("svd").others["parts_gib"]
    assert memory.vae == svd.vae
    assert memory.vae.decode_frames == 2
    assert memory.beside_gib == 0.1


def test_a_row_s_own_figures_stand_before_the_network_s() -> None:
    memory = read_models(ROW + "parts_gib = { vae = 1.5 }\n", "mine.toml")["mine"].memory
    assert memory is not None
    assert memory.parts_gib == {"vae": 1.5}
    assert memory.vae == network_vae("svd")


def network_vae(name: str) -> VaeLaw:
    return VaeLaw(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in network(name).others["vae"].items()
        }
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[mine.limits]\nmax_frame = 16\n", "mine.limits.max_frame"),
        ("[mine.time]\nfixed = 1.0\n", "mine.time.fixed"),
        ("[mine.memory.vae]\ndecode_window = 2\n", "mine.memory.vae.decode_window"),
        ('[other]\ntitle = "O"\npipeline = "o"\nlicense = "MIT"\n', "other.license"),
    ],
)
def test_a_word_that_no_row_has_is_refused(wrong: str, said: str) -> None:
    """A misspelt limit was none, and nobody was told."""
    with pytest.raises(ConfigurationError, match=r"Cannot read the models in mine\.toml") as refused:
        read_models(ROW + wrong, "mine.toml")
    assert f"{said} is not among what a model's row says" in refused.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mine", "Expected ']'"),
        ("mine = 3", "mine is no table of a model"),
        ('[mine]\ntitle = "Mine"\n', "mine.pipeline: field required"),
        (ROW + '[mine.limits]\nmax_side = "wide"\n', "mine.limits.max_side: input should be a valid integer"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Cannot read the models in mine\.toml") as refused:
        read_models(text, "mine.toml")
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert "pydantic" not in refused.value.message


def test_a_file_of_rows_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """One that was not there was passed over without a word; a folder, or letters that are not UTF-8, ended in a trace."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[mine]\ntitle = "\u00e4"\n'.encode("latin-1"))
    for file, said in (
        (tmp_path / "gone.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (latin, "it is not UTF-8 text"),
    ):
        with pytest.raises(
            ConfigurationError, match=f"Cannot read the models in {re.escape(str(file))}: {said}"
        ):
            load_models(file)


def test_own_models_are_named_to_all_that_a_verb_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path from where `farm up` was started named nothing to Ray's processes: the head had the models, no card did."""
    (tmp_path / "mine.toml").write_text(ROW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARM_MODELS_FILE", "mine.toml")
    check_models(FarmSettings())
    assert os.environ["FARM_MODELS_FILE"] == str(tmp_path / "mine.toml")
    for verb in (["up", "--data", "data"], ["join", "http://127.0.0.1:9", "--home", "node"]):
        refused = run_here(verb, {"FARM_MODELS_FILE": "gone.toml"})
        assert refused.returncode == 1
        assert f"Cannot read the models in {tmp_path / 'gone.toml'}: No such file" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_half_of_a_network_s_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut as it was copied ended every verb with a trace."""
    monkeypatch.setattr("farm.catalogue.networks.resources.files", lambda _package: tmp_path)
    (tmp_path / "networks").mkdir()
    for text in (
        '{"step": [0.1',
        "[]",
        '{"measured": {}, "step": [1, 1], "dearer": [1, 1], "cutting": 0, "counted": []}',
    ):
        (tmp_path / "networks" / "half.json").write_text(text)
        with pytest.raises(ConfigurationError, match="measurements of the network half cannot be used"):
            read_models(ROW.replace('"svd"', '"half"'), "mine.toml")


def test_a_row_with_a_network_that_nobody_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Nobody has measured a network called other"):
        read_models(ROW.replace('"svd"', '"other"'), "mine.toml")
