"""Parts come and go by stage, by memory map, in the precision asked for; a whole render is the same under every plan."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.renders import Recorder, photograph

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file  # noqa: E402

from farm.catalogue.models import read_models  # noqa: E402
from farm.errors import CancelledRenderError, MissingWeightsError  # noqa: E402
from farm.model import MemoryPlan, RenderSettings  # noqa: E402
from farm.planning.memory import HELD  # noqa: E402
from node_agent.engine import allocator  # noqa: E402
from node_agent.engine import placement as placement_module  # noqa: E402
from node_agent.engine import units as units_module  # noqa: E402
from node_agent.engine.mapped import MappedPart  # noqa: E402
from node_agent.engine.placement import Placement  # noqa: E402
from node_agent.pipelines import i2vgen_xl  # noqa: E402
from node_agent.pipelines.base import RenderRequest  # noqa: E402
from tests.checkpoints import small_i2vgen, small_row_toml  # noqa: E402
from tests.fake_torch import FakeTorch  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
SETTINGS = RenderSettings("small", 64, 64, frames=3, steps=3, guidance=7.5, fps=8, seed=11, prompt="walking")


def part(folder: Path, name: str, width: int = 8) -> MappedPart:
    torch.manual_seed(len(name))
    save_file({"weight": torch.randn(width, width).half(), "bias": torch.randn(width).half()}, folder / name)
    return MappedPart(lambda: torch.nn.Linear(width, width), [folder / name])


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, MappedPart]:
    return {name: part(tmp_path, name) for name in ("unet", "vae", "text_encoder")}


def here(parts: dict[str, MappedPart]) -> dict[str, Any]:
    """What each part computes in now; None for one that has no weights."""
    weights = {name: one.module.weight for name, one in parts.items()}
    return {name: None if weight.is_meta else weight.dtype for name, weight in weights.items()}


def test_what_is_laid_out_anew_begins_an_account_of_its_own(
    parts: dict[str, MappedPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    monkeypatch.setattr(placement_module, "begin", begun.append)
    place = Placement(parts, CPU)
    place.arrange(MemoryPlan())
    place.arrange(MemoryPlan(piece_mib=512))
    assert begun == [CPU], "nothing moves for other pieces"
    place.arrange(MemoryPlan("by_stage"))
    assert begun == [CPU, CPU]


def test_weights_need_not_fit_under_the_limit_of_the_render_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """512x512x8 in pieces, then 256x256x8 with everything on a card of 6 GB: that ran out of memory while it loaded."""
    card = FakeTorch(total_gib=6.0, reserved_gib=4.2, peak_gib=4.2)
    monkeypatch.setattr(allocator, "torch", card.module())
    device: Any = SimpleNamespace(type="cuda")
    allocator.hold_to(device, 4.0)
    assert card.limit_gib == pytest.approx(4.0 * HELD)
    allocator.begin(device)
    assert (card.limit_gib, card.reserved_gib, card.peak_gib) == (6.0, 0.0, 0.0)
    allocator.hold_to(device, 8.0)
    assert card.limit_gib == 6.0, "no more than there is"


def test_by_stage_a_part_has_weights_only_for_its_stage(parts: dict[str, MappedPart]) -> None:
    place = Placement(parts, CPU)
    place.arrange(MemoryPlan("by_stage"))
    nothing = dict.fromkeys(parts)
    assert here(parts) == nothing

    def fail_in_between() -> None:
        with place.on_device("vae"):
            assert here(parts) == {**nothing, "vae": torch.float16}
            raise CancelledRenderError("The render was cancelled.")

    with pytest.raises(CancelledRenderError):
        fail_in_between()
    assert here(parts) == nothing


def test_resident_parts_stay_and_are_let_go_by_clear(parts: dict[str, MappedPart]) -> None:
    place = Placement(parts, CPU)
    place.arrange(MemoryPlan("resident", precision="fp32"))
    assert here(parts) == dict.fromkeys(parts, torch.float32)
    with place.on_device("vae"):
        pass
    assert here(parts) == dict.fromkeys(parts, torch.float32)
    place.clear()
    assert here(parts) == dict.fromkeys(parts)


@pytest.mark.parametrize("way", ["resident", "by_stage"])
def test_a_part_computes_in_single_precision_only_where_asked(parts: dict[str, MappedPart], way: Any) -> None:
    place = Placement(parts, CPU)
    place.arrange(MemoryPlan(way))
    with place.on_device("vae", precision="fp32"):
        assert here(parts)["vae"] == torch.float32
    with place.on_device("vae"):
        assert here(parts)["vae"] == torch.float16


def test_weights_are_those_of_the_file(parts: dict[str, MappedPart], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    place = Placement(parts, CPU)
    place.arrange(MemoryPlan("by_stage"))
    with place.on_device("unet"):
        stored = load_file(tmp_path / "unet")
        assert torch.equal(parts["unet"].module.weight, stored["weight"])
        assert torch.equal(parts["unet"].module.bias, stored["bias"])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": (8, 8)}, "lacks 1 of the model's tensors, the first of them bias"),
        ({"weight": (8, 9), "bias": (8,)}, r"weight has the shape \[8, 9\], the model's has \[8, 8\]"),
    ],
)
def test_a_file_of_another_model_is_refused(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], said: str
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "odd")
    with pytest.raises(MissingWeightsError, match=said):
        MappedPart(lambda: torch.nn.Linear(8, 8), [tmp_path / "odd"])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"no safetensors")
    with pytest.raises(MissingWeightsError, match="odd is not usable: it cannot be read"):
        MappedPart(lambda: torch.nn.Linear(8, 8), [tmp_path / "odd"])


def test_a_number_in_no_mesh_is_loaded_too(tmp_path: Path) -> None:
    """Torch's old constructor ignores the meta device: SVD's mixing factors came out with memory and were not read at all."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Parameter(torch.Tensor([0.5]))

    save_file({"mix": torch.tensor([0.25]).half()}, tmp_path / "odd")
    odd = MappedPart(Odd, [tmp_path / "odd"])
    place = Placement({"unet": odd}, CPU)
    place.arrange(MemoryPlan("by_stage"))
    with place.on_device("unet"):
        assert float(odd.module.mix) == 0.25


@pytest.fixture(scope="module")
def checkpoint(checkpoint_cache: Path) -> Path:
    return small_i2vgen(checkpoint_cache)


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The small networks are cut as finely as the real ones, and the CPU follows the plan as a card does."""
    from node_agent.pipelines.diffusion.model import DiffusionModel

    monkeypatch.setattr(units_module, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(units_module, "SMALL_BYTES", 200)
    monkeypatch.setattr(DiffusionModel, "_plan_here", lambda _self, plan: plan)
    return


@pytest.mark.usefixtures("as_on_a_card")
def test_a_clip_is_the_same_under_every_share_and_ring(checkpoint: Path) -> None:
    row = read_models(small_row_toml("small", checkpoint), "test")["small"]
    model = i2vgen_xl.open_model(row, "cpu")
    resident = MemoryPlan("resident", precision="fp32")
    clips = []
    for plan in (
        resident,
        replace(resident, parts="by_stage", weights_on_card=0.0, ring_mib=1),
        replace(resident, weights_on_card=0.5, ring_mib=1),
        resident,
    ):
        frames = model.render(RenderRequest(SETTINGS, photograph(64, 64), plan), Recorder())
        clips.append(np.stack(list(frames)))
    model.unload()
    assert all(np.array_equal(clip, clips[0]) for clip in clips)


@pytest.mark.usefixtures("as_on_a_card")
@pytest.mark.parametrize(
    ("parts", "share", "share_read", "streams"),
    [
        ("by_stage", 0.5, 0.0, False),
        ("by_stage", 0.5, 0.99, True),
        ("resident", 0.5, 0.6, None),
        ("resident", 1.0, 0.99, False),
    ],
)
def test_a_cancel_while_weights_are_read_takes_hold_at_once_and_the_next_clip_is_right(
    checkpoint: Path, parts: Any, share: float, share_read: float, streams: bool | None
) -> None:
    """A cancel waited until the last weight was read: from an old disk a minute. What had come to the PC's memory was said wrong."""
    row = read_models(small_row_toml("small", checkpoint), "test")["small"]
    plan = MemoryPlan(parts, precision="fp32", weights_on_card=share, ring_mib=1)
    request = RenderRequest(SETTINGS, photograph(64, 64), plan)
    model, whole = i2vgen_xl.open_model(row, "cpu"), Recorder()
    wanted = np.stack(list(model.render(request, whole)))
    streams_gib = model.streams_gib
    assert (streams_gib > 0.0) == (share < 1.0)
    model.unload()
    stopped = Recorder(cancel_in=1 + int(share_read * (whole.asked - 1)))
    with pytest.raises(CancelledRenderError):
        list(model.render(request, stopped))
    assert stopped.asked == stopped.cancel_in, "read on"
    if streams is not None:
        assert model.streams_gib == (streams_gib if streams else 0.0)
    assert np.array_equal(np.stack(list(model.render(request, Recorder()))), wanted)


@pytest.mark.parametrize("read", [1, 2, 3, 4])
def test_a_part_that_was_not_read_to_its_end_has_no_weights(
    read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had come of it stayed on the card, where nobody took it away."""
    monkeypatch.setattr(units_module, "UNIT_BYTES", 1)
    monkeypatch.setattr(units_module, "SMALL_BYTES", 0)
    tensors = {
        f"{layer}.{name}": torch.ones(8) if name == "bias" else torch.ones(8, 8)
        for layer in (0, 1)
        for name in ("weight", "bias")
    }
    save_file(tensors, tmp_path / "unet")
    unet = MappedPart(
        lambda: torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)), [tmp_path / "unet"]
    )
    place = Placement({"unet": unet}, CPU)
    place.arrange(MemoryPlan("by_stage"))
    with pytest.raises(CancelledRenderError), place.on_device("unet", Recorder(cancel_in=read).check):
        pass
    assert all(weight.is_meta for weight in unet.module.parameters())
    with place.on_device("unet"):
        assert all(bool((weight == 1).all()) for weight in unet.module.parameters())


@pytest.mark.usefixtures("as_on_a_card")
def test_memory_that_cannot_be_pinned_is_said_on_the_attempt(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WSL and PCs with little RAM refuse to pin: the render goes on, only more slowly."""
    from node_agent.engine.streaming import StreamedNetwork

    monkeypatch.setattr(StreamedNetwork, "pinned", False)
    monkeypatch.setattr(
        StreamedNetwork, "why_not_pinned", "the driver refused to pin 2.4 GiB of this PC's memory"
    )

    class Notes(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    row = read_models(small_row_toml("small", checkpoint), "test")["small"]
    model, notes = i2vgen_xl.open_model(row, "cpu"), Notes()
    plan = MemoryPlan("by_stage", precision="fp32", weights_on_card=0.0, ring_mib=1)
    assert (
        len(list(model.render(RenderRequest(SETTINGS, photograph(64, 64), plan), notes))) == SETTINGS.frames
    )
    assert notes.notes == [
        "Weights stream more slowly than planned: the driver refused to pin 2.4 GiB of this PC's memory."
    ]


@pytest.mark.usefixtures("as_on_a_card")
def test_a_streamed_network_knows_its_type_before_its_first_pass(checkpoint: Path) -> None:
    """What diffusers for a network's type is its last weight; streamed, that one still had the skeleton's."""
    row = read_models(small_row_toml("small", checkpoint), "test")["small"]
    model = i2vgen_xl.open_model(row, "cpu")
    plan = MemoryPlan("by_stage", weights_on_card=0.0, ring_mib=1, piece_mib=1, decode="tiles")
    frames = list(model.render(RenderRequest(SETTINGS, photograph(64, 64), plan), Recorder()))
    assert len(frames) == SETTINGS.frames


@pytest.mark.usefixtures("as_on_a_card")
def test_pieces_tiles_and_turns_change_a_clip_by_round_off(checkpoint: Path) -> None:
    row = read_models(small_row_toml("small", checkpoint), "test")["small"]
    model = i2vgen_xl.open_model(row, "cpu")
    whole = MemoryPlan("resident", precision="fp32")
    lean = replace(whole, guidance="in_turn", piece_mib=1, decode="tiles", weights_on_card=0.0, ring_mib=1)
    first, second = (
        np.stack(list(model.render(RenderRequest(SETTINGS, photograph(64, 64), plan), Recorder()))).astype(
            int
        )
        for plan in (whole, lean)
    )
    assert np.abs(first - second).max() <= 1
