"""I2VGen-XL on the small checkpoint: the real classes and files, a few pixels, on the CPU."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from farm.catalogue.models import read_models
from farm.errors import BrokenPictureError, CancelledRenderError, MissingWeightsError
from farm.model import MemoryPlan, RenderSettings
from node_agent.pipelines import i2vgen_xl
from node_agent.pipelines.base import RenderRequest
from node_agent.pipelines.stored import read_heads, weight_files
from node_agent.pipelines.weights import has_weights
from tests import checkpoints
from tests.renders import LIBRARIES, SETTINGS, Recorder, clip, edit_tensors, photograph, stock_pipeline

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from node_agent.pipelines.diffusion import i2vgen, pictures  # noqa: E402  # needs torch
from node_agent.pipelines.diffusion import model as diffusion_model  # noqa: E402
from node_agent.pipelines.full_size import build_part  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def checkpoint(checkpoint_cache: Path) -> Path:
    return checkpoints.small_i2vgen(checkpoint_cache)


@pytest.fixture
def altered(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may damage."""
    return shutil.copytree(checkpoint, tmp_path / "altered")


@pytest.fixture(scope="module")
def warm(checkpoint: Path) -> i2vgen.I2VGenXL:
    """One loaded model for the tests that only render."""
    model = open_small(checkpoint)
    model.load(MemoryPlan(), Recorder())
    return model


@pytest.fixture(scope="module")
def usual(warm: Any) -> NDArray[np.uint8]:
    """The clip of `SETTINGS`, which tests hold others to."""
    return clip(warm)


@pytest.fixture(scope="module")
def stock(checkpoint: Path) -> Any:
    return stock_pipeline("I2VGenXLPipeline", checkpoint)


def open_small(directory: Path) -> Any:
    row = read_models(checkpoints.small_row_toml("i2vgen-xl-small", directory), "test")["i2vgen-xl-small"]
    return i2vgen_xl.open_model(row, "cpu")


# --- the generated checkpoint is the real one in small


def test_the_small_checkpoint_has_every_tensor_of_the_real_one(checkpoint: Path) -> None:
    """The full-size parts, built without memory, are held to the parameter counts of the published checkpoint."""
    full = {name: build_part(i2vgen_xl.LAYOUT, name) for name in i2vgen_xl.LAYOUT.weighted}
    # Counted in ali-vilab/i2vgen-xl by a user's log: https://github.com/vladmandic/sdnext/issues/4103
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in full.items()} == {
        "unet": 1_420_469_224,
        "vae": 83_653_863,
        "text_encoder": 352_984_064,
        "image_encoder": 632_076_800,
    }
    for name, part in full.items():
        prefix = "text_model." if name == "text_encoder" else ""
        stored = read_heads(checkpoint / name, LIBRARIES[name])
        assert set(stored) == {prefix + tensor for tensor in part.state_dict()}
        assert {tensor.kind for tensor in stored.values()} == {"F16"}


def test_the_small_checkpoint_is_small_and_written_once(checkpoint: Path) -> None:
    assert sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) < 5_000_000
    before = {file: file.stat().st_mtime_ns for file in checkpoint.rglob("*")}

    assert checkpoints.small_i2vgen(checkpoint.parent) == checkpoint
    assert {file: file.stat().st_mtime_ns for file in checkpoint.rglob("*")} == before


def test_the_seed_decides_the_small_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    def unet(directory: Path) -> bytes:
        (file,) = weight_files(directory / "unet", "diffusers")
        return file.read_bytes()

    assert unet(checkpoints.write_small_i2vgen(tmp_path / "same", seed=0)) == unet(checkpoint)
    assert unet(checkpoints.write_small_i2vgen(tmp_path / "other", seed=1)) != unet(checkpoint)


def test_the_small_row_is_one_of_the_catalogue_and_its_weights_are_found(checkpoint: Path) -> None:
    (row,) = read_models(checkpoints.small_row_toml("tiny", checkpoint), "test").values()

    assert (row.name, row.pipeline, row.devices) == ("tiny", "i2vgen_xl", ("cpu", "cuda"))
    assert row.limits.min_side == 64
    assert has_weights(row) is True


# --- what is computed is what diffusers' own pipeline computes


def stock_prompt(pipeline: Any, text: str) -> Any:
    """The last hidden state but one, caught on its way through the encoder, through the final norm."""
    caught = []
    layer = pipeline.text_encoder.encoder.layers[-2]
    hook = layer.register_forward_hook(lambda module, args, output: caught.append(output))
    tokens = pipeline.tokenizer(
        [text], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        pipeline.text_encoder(tokens.input_ids)
        hook.remove()
        state = caught[0][0] if isinstance(caught[0], tuple) else caught[0]
        return pipeline.text_encoder.final_layer_norm(state)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, guidance=1.0),
        replace(SETTINGS, width=96, height=64, frames=2, steps=5, fps=16, seed=1, negative_prompt=""),
        replace(SETTINGS, width=72, height=104, frames=1, steps=1, guidance=3.5, seed=2**63 - 1),
    ],
    ids=["guided", "unguided", "wide", "one-frame"],
)
def test_the_frames_are_those_of_the_stock_pipeline(
    stock: Any, warm: Any, settings: RenderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        diffusion_model,
        "as_frame",
        lambda x, n, **rest: decoded.append(x.clone()) or pictures.as_frame(x, n, **rest),
    )
    # Of this picture every side scales to a whole number of pixels: see the test of the crop.
    image = photograph(90, 130)
    frames = clip(warm, settings, image=image)

    # The stock pipeline draws the picture's own latents from torch's global generator, we from the seed's.
    ours = torch.Generator().manual_seed(settings.seed)
    torch.randn((1, 4, settings.frames, settings.height // 8, settings.width // 8), generator=ours)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(ours.get_state())
        video = stock(
            image=image,
            prompt_embeds=stock_prompt(stock, settings.prompt),
            negative_prompt_embeds=stock_prompt(stock, settings.negative_prompt),
            width=settings.width,
            height=settings.height,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            target_fps=settings.fps,
            generator=torch.Generator().manual_seed(settings.seed),
            output_type="np",
        ).frames[0]

    got = (torch.stack(decoded) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert got.shape == video.shape == (settings.frames, settings.height, settings.width, 3)
    np.testing.assert_allclose(
        got, video, atol=1e-4
    )  # a fortieth of a grey level: threads and processors sum in their own order
    assert np.abs(frames.astype(int) - (video * 255).round().astype(int)).max() <= 1
    assert video.std() > 0.05


@pytest.mark.parametrize("guidance", [9.0, 1.0])
def test_guidance_in_turn_gives_the_numbers_of_guidance_together(warm: Any, guidance: float) -> None:
    settings = replace(SETTINGS, guidance=guidance, steps=4)
    together = clip(warm, settings, MemoryPlan(guidance="together"))
    in_turn = clip(warm, settings, MemoryPlan(guidance="in_turn"))

    assert np.abs(together.astype(int) - in_turn.astype(int)).max() <= 1


def test_the_passes_run_as_the_plan_says_and_no_guidance_is_one_pass(warm: Any) -> None:
    rows = []
    hook = warm._parts.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        for settings, plan in (
            (SETTINGS, MemoryPlan(guidance="together")),
            (SETTINGS, MemoryPlan(guidance="in_turn")),
            (replace(SETTINGS, guidance=1.0), MemoryPlan(guidance="in_turn")),
        ):
            rows.clear()
            clip(warm, replace(settings, steps=1), plan)
            assert (
                rows
                == {9.0: {"together": [2], "in_turn": [1, 1]}, 1.0: {"in_turn": [1]}}[settings.guidance][
                    plan.guidance
                ]
            )
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "a ship"},
        {"negative_prompt": "still"},
        {"fps": 24},
        {"guidance": 4.0},
        {"steps": 3},
    ],
    ids=str,
)
def test_each_setting_changes_the_clip(warm: Any, usual: NDArray[np.uint8], change: dict[str, Any]) -> None:
    assert not np.array_equal(usual, clip(warm, replace(SETTINGS, **change)))


def test_the_picture_changes_the_clip(warm: Any, usual: NDArray[np.uint8]) -> None:
    turned = photograph().transpose(Image.Transpose.ROTATE_180)

    assert not np.array_equal(usual, clip(warm, image=turned))


def test_the_same_request_gives_the_same_frames_whatever_was_drawn_before(
    warm: Any, usual: NDArray[np.uint8]
) -> None:
    """The stock pipeline's clip also hangs on torch's global generator."""
    torch.manual_seed(1)

    assert np.array_equal(clip(warm), usual)


def test_a_prompt_of_any_length_and_script_renders(warm: Any) -> None:
    long = "狐狸 walks 🦊 through the snow, " * 40

    assert clip(warm, replace(SETTINGS, prompt=long)).shape == (3, 64, 64, 3)
    assert clip(warm, replace(SETTINGS, prompt="", negative_prompt="")).shape == (3, 64, 64, 3)


# --- the protocol


def test_parts_are_timed_steps_counted_and_previews_shown(checkpoint: Path) -> None:
    model, report = open_small(checkpoint), Recorder()
    settings = replace(SETTINGS, width=128, height=64, steps=7)
    model.load(MemoryPlan(), report)
    frames = clip(model, settings, report=report)

    assert report.parts == ["load", "encode_prompt", "encode_image", "denoise", *["decode"] * 3]
    assert report.steps == [(done, 7) for done in range(1, 8)]
    assert len(report.previews) == 2
    for jpeg in report.previews:
        with Image.open(io.BytesIO(jpeg)) as preview:
            assert (preview.format, preview.size) == ("JPEG", (128, 64))
    assert frames.shape == (3, 64, 128, 3)
    assert frames.dtype == np.uint8
    assert all(not np.array_equal(one, other) for one, other in pairwise(frames))


def test_no_clock_and_no_inference_mode_runs_while_the_caller_holds_a_frame(warm: Any) -> None:
    """A generator that is paused inside `inference_mode` leaves it on for whoever runs next on the thread."""
    report = Recorder()
    for number, _frame in enumerate(
        warm.render(RenderRequest(SETTINGS, photograph(), MemoryPlan()), report), 1
    ):
        assert report.open_parts == []
        assert report.parts.count("decode") == number
        assert not torch.is_inference_mode_enabled()


def test_a_cancel_stops_within_the_step_and_the_model_renders_again(
    warm: Any, usual: NDArray[np.uint8]
) -> None:
    report = Recorder(cancel_at=1)

    with pytest.raises(CancelledRenderError):
        clip(warm, report=report)

    assert report.steps == [(1, 2)]
    assert report.open_parts == []
    assert "decode" not in report.parts
    assert np.array_equal(clip(warm), usual)


def test_a_caller_who_stops_taking_frames_leaves_the_model_usable(
    warm: Any, usual: NDArray[np.uint8]
) -> None:
    frames = warm.render(RenderRequest(SETTINGS, photograph(), MemoryPlan()), Recorder())
    assert np.array_equal(next(frames), usual[0])
    frames.close()

    assert np.array_equal(clip(warm), usual)


def test_loading_twice_with_one_plan_does_nothing_and_another_plan_keeps_the_weights(
    checkpoint: Path,
) -> None:
    model, report = open_small(checkpoint), Recorder()
    model.load(MemoryPlan(), report)
    first = model._parts
    model.load(MemoryPlan(), report)
    assert report.parts == ["load"]

    weights = model._parts.unet.conv_in.weight
    model.load(MemoryPlan(guidance="in_turn"), report)
    assert model._parts.unet.conv_in.weight is weights
    model.load(MemoryPlan(parts="by_stage"), report)
    assert model._parts is first


def test_every_plan_gives_the_same_frames(warm: Any, usual: NDArray[np.uint8]) -> None:
    offload = MemoryPlan(parts="by_stage")
    assert np.array_equal(clip(warm, plan=offload), usual)


def test_render_loads_by_itself_and_unload_gives_everything_back(
    checkpoint: Path, usual: NDArray[np.uint8]
) -> None:
    import gc
    import weakref

    model = open_small(checkpoint)
    assert np.array_equal(clip(model), usual)
    unet = weakref.ref(model._parts.unet)
    model.unload()
    gc.collect()
    assert unet() is None

    model.unload()
    assert np.array_equal(clip(model), usual)


def test_loading_and_rendering_write_nothing_on_the_worker_s_output(checkpoint: Path) -> None:
    """The libraries draw progress bars and warn of what we know (deprecation, torchvision)."""
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from farm.catalogue.models import ModelRow
from node_agent.pipelines import i2vgen_xl
from tests.renders import clip
clip(i2vgen_xl.open_model(ModelRow("small", "Small", "i2vgen_xl", {str(checkpoint)!r}), "cpu"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


# --- what is not a picture


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_fail_in_the_first_step(altered: Path, value: float) -> None:
    edit_tensors(altered, "unet", lambda tensors: tensors["conv_out.bias"].fill_(value))
    report = Recorder()

    with pytest.raises(BrokenPictureError, match=r"no number .* in step 1") as caught:
        clip(open_small(altered), report=report)

    assert "another card" in caught.value.remedy
    assert report.steps == []


def test_a_frame_that_is_no_numbers_fails(altered: Path) -> None:
    edit_tensors(altered, "vae", lambda tensors: tensors["decoder.conv_out.bias"].fill_(float("nan")))

    with pytest.raises(BrokenPictureError, match="Frame 1 came out of the decoder as no number"):
        clip(open_small(altered))


def test_black_frames_fail_unless_the_picture_is_of_one_colour_too(altered: Path) -> None:
    """A photograph in the dark, of a few levels, was held against every card in turn."""

    def blacken(tensors: dict[str, Any]) -> None:
        tensors["decoder.conv_out.weight"].fill_(0)
        tensors["decoder.conv_out.bias"].fill_(-1)

    edit_tensors(altered, "vae", blacken)
    model = open_small(altered)

    with pytest.raises(BrokenPictureError, match=r"Frame 1 came out all of one colour \(RGB 0, 0, 0\)"):
        clip(model)
    for grain in (0, 4):
        dark = Image.fromarray(
            np.full((80, 80, 3), 2, np.uint8) + grain * np.eye(80, dtype=np.uint8)[..., None]
        )
        assert (clip(model, image=dark) == 0).all()


# --- what is not the model


@pytest.mark.parametrize(
    ("part", "tensor"), [("unet", "conv_in.weight"), ("text_encoder", "text_model.final_layer_norm.bias")]
)
def test_a_weight_file_that_lacks_a_tensor_is_refused(altered: Path, part: str, tensor: str) -> None:
    """Else transformers would fill what is missing with random values and only warn."""
    file = edit_tensors(altered, part, lambda tensors: tensors.pop(tensor))

    with pytest.raises(MissingWeightsError) as caught:
        open_small(altered).load(MemoryPlan(), Recorder())

    assert str(altered) in str(caught.value)
    assert tensor.removeprefix("text_model.") in str(caught.value), file


def test_weights_of_other_shapes_are_refused(altered: Path) -> None:
    config = json.loads((altered / "unet" / "config.json").read_text())
    (altered / "unet" / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 64}))

    with pytest.raises(MissingWeightsError, match=r"in the shape \(.*\), the model in \("):
        open_small(altered).load(MemoryPlan(), Recorder())


def test_a_failed_load_can_be_tried_again(altered: Path) -> None:
    file = altered / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    model, report = open_small(altered), Recorder()

    with pytest.raises(MissingWeightsError, match="it should have"):
        model.load(MemoryPlan(), report)
    file.write_bytes(whole)

    assert clip(model).shape == (3, 64, 64, 3)


# --- pictures and placement


@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_the_crop_always_fills_the_frame(size: tuple[int, int], target: tuple[int, int]) -> None:
    """The stock crop leaves a black line where its rounding comes out a pixel short."""
    cropped = pictures.crop_to_fill(Image.new("RGB", size, (255, 255, 255)), *target)

    assert cropped.size == target
    assert cropped.getextrema() == ((255, 255),) * 3


def test_a_crop_that_rounds_to_a_pixel_short_has_no_black_line() -> None:
    """Diffusers 0.42.1 scales 70 pixels to 103 of the 104 it wants, and 1283 to 1279 of 1280; the rest is black."""
    from diffusers.pipelines.deprecated.i2vgen_xl import pipeline_i2vgen_xl as stock

    for size, target in (((90, 70), (72, 104)), ((1283, 800), (1280, 704))):
        white = Image.new("RGB", size, (255, 255, 255))
        assert pictures.crop_to_fill(white, *target).getextrema() == ((255, 255),) * 3
        assert stock._center_crop_wide(white, target).getextrema() == ((0, 255),) * 3, "mended: ours can go"


def test_the_crop_is_that_of_the_stock_pipeline_where_that_fills_the_frame() -> None:
    from diffusers.pipelines.deprecated.i2vgen_xl import pipeline_i2vgen_xl as stock

    for size in ((90, 70), (640, 480), (300, 900), (64, 64), (40, 30)):
        image = photograph(*size)
        want = np.asarray(stock._center_crop_wide(image, (64, 64)))
        assert np.array_equal(np.asarray(pictures.crop_to_fill(image, 64, 64)), want)


def test_a_preview_is_at_most_320_wide_and_shows_light_and_dark() -> None:
    latent = torch.zeros(4, 64, 128)
    latent[0, :, 64:], latent[3, :, 64:] = 2.0, -2.0
    with Image.open(io.BytesIO(pictures.preview_jpeg(latent, 1024, 512))) as preview:
        assert preview.size == (320, 160)
        grey = np.asarray(preview.convert("L"), dtype=int)
    assert grey[:, 200:].mean() - grey[:, :120].mean() > 60
