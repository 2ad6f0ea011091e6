"""A render that was cut off goes on from its checkpoint, on another card, to the very clip it would have become."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from farm.catalogue.models import ModelRow
from farm.errors import CancelledRenderError, StaleCheckpointError
from farm.model import MemoryPlan, RenderSettings
from node_agent.pipelines.base import RenderRequest
from tests import checkpoints
from tests.renders import Recorder, photograph

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from node_agent.pipelines.diffusion import loop, resume  # noqa: E402  # needs torch
from node_agent.pipelines.diffusion.loop import Denoising, denoise  # noqa: E402
from tests.diffusion import test_i2vgen_xl, test_svd  # noqa: E402

pytestmark = pytest.mark.torch

STAMP = resume.Stamp("some-model", "f" * 64)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint by the clock, however slowly this PC computes; the tests of the clock move it themselves."""
    monkeypatch.setattr(loop, "monotonic", lambda: 0.0)


@dataclass
class Case:
    """One of the models: how to open it anew, and settings for it."""

    open: Callable[[], Any]
    settings: RenderSettings
    model: Any = None
    rendered: dict[RenderSettings, tuple[np.ndarray, Recorder]] = field(default_factory=dict)

    def run(
        self, state: bytes | None = None, *, settings: RenderSettings | None = None, **more: Any
    ) -> tuple[np.ndarray, Recorder]:
        report = more.pop("report", None) or Recorder()
        image, plan = more.pop("image", photograph()), more.pop("plan", MemoryPlan())
        model = more.pop("model", None) or self.model
        request = RenderRequest(settings or self.settings, image, plan, state)
        return np.stack(list(model.render(request, report))), report

    def straight(self, settings: RenderSettings) -> tuple[np.ndarray, Recorder]:
        """The clip that is rendered in one go, once for all tests: with the checkpoints that every render makes."""
        if settings not in self.rendered:
            self.rendered[settings] = self.run(settings=settings)
        return self.rendered[settings]

    @property
    def longer(self) -> RenderSettings:
        """Steps enough for a checkpoint before the last."""
        return replace(self.settings, steps=7, frames=2)


@pytest.fixture(scope="module", params=["i2vgen_xl", "svd"])
def case(request: pytest.FixtureRequest, checkpoint_cache: Path) -> Case:
    module, write = {
        "i2vgen_xl": (test_i2vgen_xl, checkpoints.small_i2vgen),
        "svd": (test_svd, checkpoints.small_svd),
    }[request.param]
    directory = write(checkpoint_cache)
    made = Case(lambda: module.open_small(directory), module.SETTINGS)
    made.model = made.open()
    return made


# --- the models


def test_a_render_goes_on_in_another_process_s_model_to_the_same_frames(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every step: with the scheduler as it is when freshly read, and as an earlier render has left it."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    settings = replace(case.settings, steps=4, frames=2)
    straight, report = case.run(settings=settings)
    assert [step for step, _ in report.checkpoints] == [1, 2, 3, 4]

    other = case.open()
    for step, state in report.checkpoints:
        frames, rest = case.run(state, settings=settings, model=other)
        assert np.array_equal(frames, straight), step
        assert rest.steps == [(done, 4) for done in range(step, 5)]
        assert rest.checkpoints == report.checkpoints[step:]


def test_checkpoints_come_every_five_steps_and_after_the_last(case: Case) -> None:
    straight, report = case.straight(case.longer)
    assert [step for step, _ in report.checkpoints] == [5, 7]

    frames, rest = case.run(report.checkpoints[0][1], settings=case.longer)
    assert [step for step, _ in rest.checkpoints] == [7]
    assert rest.checkpoints[0] == report.checkpoints[1]
    assert np.array_equal(frames, straight)


def test_a_render_that_leaves_its_card_goes_on_from_that_very_step(case: Case) -> None:
    straight, _ = case.straight(case.longer)
    left = Recorder(cancel_at=3, leaves=True)
    with pytest.raises(CancelledRenderError):
        case.run(settings=case.longer, report=left)
    assert [step for step, _ in left.checkpoints] == [3]
    frames, rest = case.run(left.checkpoints[0][1], settings=case.longer)
    assert rest.steps[0] == (3, 7)
    assert np.array_equal(frames, straight)


def test_another_card_s_memory_plan_does_not_matter(case: Case) -> None:
    straight, report = case.straight(case.longer)
    plan = MemoryPlan(parts="by_stage", guidance="in_turn")

    frames, _ = case.run(report.checkpoints[0][1], settings=case.longer, plan=plan)
    assert np.abs(frames.astype(int) - straight.astype(int)).max() <= 1


def test_a_cancelled_render_goes_on_and_a_cancel_takes_hold_when_going_on(case: Case) -> None:
    straight, _ = case.straight(case.longer)
    report = Recorder(cancel_at=6)
    with pytest.raises(CancelledRenderError):
        case.run(settings=case.longer, report=report)
    ((_, state),) = report.checkpoints

    with pytest.raises(CancelledRenderError):
        case.run(state, settings=case.longer, report=Recorder(cancel_at=5))
    assert np.array_equal(case.run(state, settings=case.longer)[0], straight)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"steps": 3},
        {"frames": 2},
        {"prompt": "a ship"},
        {"guidance": 2.0},
        {"fps": 9},
        {"strength": 0.5},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_render_is_refused_before_any_work(
    case: Case, change: dict[str, Any]
) -> None:
    _, report = case.straight(case.settings)
    state, other = report.checkpoints[-1][1], Recorder()

    with pytest.raises(StaleCheckpointError, match="other settings or another picture") as caught:
        case.run(state, settings=replace(case.settings, **change), report=other)

    assert caught.value.remedy == "The render starts from the beginning."
    assert (other.parts, other.steps) == ([], [])


def test_a_checkpoint_of_another_picture_or_model_is_refused(case: Case) -> None:
    state = case.straight(case.settings)[1].checkpoints[-1][1]
    turned = photograph().transpose(Image.Transpose.ROTATE_180)
    with pytest.raises(StaleCheckpointError, match="another picture"):
        case.run(state, image=turned)
    with pytest.raises(StaleCheckpointError, match="another picture"):
        case.run(state, image=Image.frombytes("RGB", (70, 90), photograph(90, 70).tobytes()))

    stamp = resume.stamp_of(
        ModelRow("other", "Other", "svd"), RenderRequest(case.settings, turned, MemoryPlan())
    )
    with pytest.raises(StaleCheckpointError, match=f"of the model {case.settings.model}, not other"):
        resume.unpack(state, stamp)


# --- the loop, with every kind of scheduler


def sine(latents: Any, timestep: Any) -> Any:
    """A prediction that depends on every latent and on the time, as a network's does."""
    return torch.sin(3 * latents) + latents.roll(1, -1) * torch.cos(timestep.float() / 100)


SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(prediction_type="v_prediction"),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**checkpoints.SVD_SCHEDULER),
    "draws noise": diffusers.EulerAncestralDiscreteScheduler,
    "keeps predictions": lambda: diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    ),
    "keeps more": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=3),
    "keeps a list": lambda: diffusers.PNDMScheduler(skip_prk_steps=True),
    "two passes a step": diffusers.HeunDiscreteScheduler,
    "flow matching": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def run_loop(
    make: Callable[[], Any],
    state: bytes | None,
    seed: int = 5,
    predict: Callable[[Any, Any], Any] = sine,
    dtype: Any = torch.float32,
) -> tuple[Any, Recorder]:
    scheduler, report = make(), Recorder()
    scheduler.set_timesteps(7)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, 2, 3, 4), generator=generator).to(dtype)
    work = Denoising(noise, predict, lambda latents: bytes(latents.shape))
    found = None if state is None else resume.unpack(state, STAMP)
    with torch.inference_mode():
        latents = denoise(work, scheduler, generator, report, stamp=STAMP, state=found)
    return latents, report


@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler_goes_on_as_if_nothing_had_happened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only those of today's models: later ones keep predictions, draw noise, or know no scale (flow matching)."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    make = SCHEDULERS[name]
    straight, report = run_loop(make, None)
    total = report.steps[-1][1]
    assert [step for step, _ in report.checkpoints] == list(range(1, total + 1))
    assert len(report.previews) == math.ceil(total / 5)

    for step, state in report.checkpoints:
        latents, rest = run_loop(make, state)
        assert torch.equal(latents, straight), step
        assert rest.checkpoints == report.checkpoints[step:]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("first", [torch.float16, torch.float32])
def test_a_card_of_another_precision_goes_on(first: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scheduler keeps came in the other card's type, and the network, which computes in its own, refused what came of it."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    then = torch.float32 if first == torch.float16 else torch.float16

    def network(latents: Any, timestep: Any) -> Any:
        assert latents.dtype == then
        return sine(latents, timestep).to(then)

    _, report = run_loop(SCHEDULERS[name], None, predict=lambda *given: sine(*given).to(first), dtype=first)
    for step, state in report.checkpoints:
        latents, _ = run_loop(SCHEDULERS[name], state, predict=network, dtype=then)
        assert latents.dtype == then, step


@pytest.mark.parametrize(
    ("seconds_a_step", "steps"),
    [
        (0.1, [5, 7]),  # a fast card: by the count alone
        (
            2.0,
            [3, 5, 7],
        ),  # three steps are the first to take five seconds; after the fifth step it counts anew
        (5.0, [1, 2, 3, 4, 5, 6, 7]),
        (60.0, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_slow_card_keeps_a_checkpoint_every_few_seconds_whatever_the_count(
    seconds_a_step: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps of a card that takes a minute for each were five minutes lost."""
    now = [50.0]
    monkeypatch.setattr(loop, "monotonic", lambda: now[0])

    def take_a_step(latents: Any, timestep: Any) -> Any:
        now[0] += seconds_a_step
        return sine(latents, timestep)

    _, report = run_loop(SCHEDULERS["ddim"], None, predict=take_a_step)
    assert [step for step, _ in report.checkpoints] == steps


def test_what_a_scheduler_keeps_is_needed_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would pass without it."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(resume, "restore", lambda *rest: None)
    make = SCHEDULERS["keeps predictions"]
    straight, report = run_loop(make, None)

    latents, _ = run_loop(make, report.checkpoints[3][1])
    assert not torch.equal(latents, straight)


def test_a_state_that_fits_another_scheduler_or_shape_is_refused() -> None:
    _, report = run_loop(SCHEDULERS["keeps predictions"], None)
    with pytest.raises(StaleCheckpointError, match="another scheduler"):
        run_loop(SCHEDULERS["ddim"], report.checkpoints[0][1])

    state = resume.unpack(report.checkpoints[0][1], STAMP)
    for other in (replace(state, latents=state.latents[..., :2]), replace(state, step=8)):
        with pytest.raises(StaleCheckpointError, match="does not fit this model"):
            run_loop(SCHEDULERS["keeps predictions"], resume.pack(other, STAMP))


# --- the bytes


def small_state() -> resume.State:
    generator = torch.Generator().manual_seed(1).get_state()
    kept = {
        "_step_index": 3,
        "outputs": [None, torch.arange(4.0)],
        "same": True,
        "half": torch.ones(2).half(),
    }
    return resume.State(
        3, torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2)), generator, "Some", kept
    )


def facts_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["render"])
    return found


def test_a_state_comes_back_as_it_was() -> None:
    state = small_state()
    data = resume.pack(state, STAMP)
    back = resume.unpack(data, STAMP)

    assert (back.step, torch.equal(back.latents, state.latents)) == (3, True)
    assert torch.equal(back.generator, state.generator)
    assert back.kept.keys() == state.kept.keys()
    assert (back.kept["_step_index"], back.kept["same"]) == (3, True)
    assert back.kept["outputs"][0] is None
    assert torch.equal(back.kept["outputs"][1], torch.arange(4.0))
    assert back.kept["half"].dtype == torch.float16
    assert resume.pack(back, STAMP) == data


def test_it_says_whose_it_is() -> None:
    said = facts_of(resume.pack(small_state(), STAMP))

    assert (said["format"], said["model"], said["fingerprint"], said["step"]) == (
        1,
        *(STAMP.model, STAMP.fingerprint),
        3,
    )


def test_half_a_megabyte_for_sixteen_frames_of_512_pixels() -> None:
    latents = torch.zeros((1, 4, 16, 64, 64), dtype=torch.float16)

    assert 2**19 < len(resume.pack(replace(small_state(), latents=latents), STAMP)) < 2**19 + 8192


def test_a_checkpoint_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "FORMAT", 0)
    old = resume.pack(small_state(), STAMP)
    monkeypatch.undo()

    with pytest.raises(StaleCheckpointError, match="of format 0, and this farm reads 1"):
        resume.unpack(old, STAMP)


@given(st.data())
def test_a_damaged_checkpoint_is_refused_or_as_it_was(data: st.DataObject) -> None:
    """A flipped byte in the latents would otherwise become part of the clip. A blank of the padding may change."""
    whole = bytearray(resume.pack(small_state(), STAMP))
    if data.draw(st.booleans()):
        damaged = bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        damaged = bytes(whole)
    try:
        found = resume.unpack(damaged, STAMP)
    except StaleCheckpointError:
        return
    assert resume.pack(found, STAMP) == resume.pack(small_state(), STAMP)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04.", b"\0" * 4, b"\xff" * 100, (2).to_bytes(8, "little") + b"{}", b"PK\x03\x04" * 20],
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(StaleCheckpointError, match="is damaged"):
        resume.unpack(data, STAMP)
