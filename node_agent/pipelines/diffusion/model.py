"""What all diffusion models have in common: loading, the order of a render's stages, decoding, unloading."""

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from PIL import Image

from farm.catalogue.models import ModelRow
from farm.catalogue.networks import network
from farm.model import MemoryPlan, RenderSettings
from farm.planning.memory import peak_gib
from farm.planning.residency import staying
from node_agent.engine.allocator import GIB, hold_to
from node_agent.engine.fit import Size
from node_agent.engine.placement import Placement
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.pipelines.diffusion import resume
from node_agent.pipelines.diffusion.checkpoint import read_parts
from node_agent.pipelines.diffusion.device import wait_for
from node_agent.pipelines.diffusion.loop import Denoising, denoise
from node_agent.pipelines.diffusion.pictures import as_frame, is_flat
from node_agent.pipelines.weights import Layout


class DiffusionModel(ABC):
    """A diffusion model opened for one device; see `node_agent.pipelines.base.VideoModel`.

    A model says how it crops the picture, how it encodes and predicts, and how it decodes. A part's weights are there only
    within `_place.on_device(name, report.check)`; its configuration always is.
    """

    layout: ClassVar[Layout]
    denoiser: ClassVar[str]
    """The part that runs in every step: "unet", "transformer"."""
    bench_sizes: ClassVar[tuple[Size, Size, Size]]
    """At what `farm calibrate` measures: the model's standard size, the same picture with more frames, and another picture."""
    decode_frames: ClassVar[int] = 1
    """Frames that `_windows` has in one window; 0 where a window is the whole clip."""
    encodes_in_fp32: ClassVar[bool] = False
    """Whether the VAE encodes in single precision, whatever the plan computes in."""

    def __init__(self, row: ModelRow, device: str) -> None:
        self._row = row
        self._device = torch.device(device)
        self._dtype = torch.float32
        self._parts: SimpleNamespace | None = None
        self._placement: Placement | None = None
        self._plan: MemoryPlan | None = None

    @abstractmethod
    def _crop(self, image: Image.Image, settings: RenderSettings) -> Image.Image:
        """The picture as the clip's first frame: `settings.width` x `settings.height`."""

    @abstractmethod
    def _prepare(
        self, picture: Image.Image, request: RenderRequest, generator: torch.Generator, report: Report
    ) -> Denoising:
        """Encodes the picture (cropped; the whole is in `request`) and the prompt; draws the noise from `generator`."""

    @abstractmethod
    def _windows(self, latents: torch.Tensor) -> Sequence[torch.Tensor]:
        """The clip's latents, cut along time into what is decoded at once. The cut may not depend on the memory plan."""

    @staticmethod
    @abstractmethod
    def decode(vae: Any, window: torch.Tensor) -> torch.Tensor:
        """The frames of a window, `[frames, 3, height, width]`, -1 to 1. Runs with the VAE on the device."""

    @staticmethod
    def encode(vae: Any, pixels: torch.Tensor) -> Any:
        """The distribution of a picture's latents; `[1, 3, height, width]`, -1 to 1. Runs with the VAE on the device."""
        return vae.encode(pixels).latent_dist

    @classmethod
    def bench_window(cls, config: Any, size: Size, like: torch.Tensor) -> torch.Tensor:
        """What `decode` gets at once of a clip of `size`, random, of the type and device of `like`; `config` is the VAE's.

        Here of a VAE of pictures, `[decode_frames, c, h/8, w/8]`.
        """
        shape = (cls.decode_frames, config.latent_channels, size[1] // 8, size[0] // 8)
        return torch.randn(shape, dtype=like.dtype, device=like.device)

    @classmethod
    @abstractmethod
    def bench_inputs(cls, config: Any, size: Size, rows: int, like: torch.Tensor) -> dict[str, Any]:
        """What one step calls the denoiser with, random: `rows` guidance passes at `size`, of the type and device of `like`.

        `config` is the denoiser's configuration. Values do not matter, shapes do.
        """

    def _set_timesteps(self, scheduler: Any, settings: RenderSettings) -> None:
        """Sets the scheduler's timesteps; models whose schedule depends on the clip's size do more."""
        scheduler.set_timesteps(settings.steps, device=self._device)

    def load(self, plan: MemoryPlan, report: Report) -> None:
        """See `VideoModel.load`. With the weights in place as `plan` says, and no others in their files by now, it does nothing."""
        plan = self._plan_here(plan)
        if self._placement is not None and self._placement.replaced:
            self.unload()
        if self._parts is not None and self._plan == plan:
            return
        with self._timed(report, "load"):
            if self._parts is None:
                self._parts, mapped = read_parts(self._row, self.layout)
                self._placement = Placement(mapped, self._device, self.denoiser)
            self._plan = None
            self._place.arrange(plan, self._staying(plan), report.check)
            self._dtype = self._place.compute_dtype
            self._plan = plan

    def _plan_here(self, plan: MemoryPlan) -> MemoryPlan:
        """A CPU's memory is the PC's own, so that nothing is gained by streaming; and half precision is slow on it."""
        if self._device.type != "cpu":
            return plan
        return replace(plan, precision="fp32", weights_on_card=1.0, ring_mib=0)

    def _staying(self, plan: MemoryPlan) -> frozenset[str] | None:
        """The units that the planner counted on staying; None leaves it to the engine."""
        if self._row.memory is None or plan.weights_on_card >= 1.0:
            return None
        return staying(network(self._row.memory.network), plan.weights_on_card)

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        """See `VideoModel.render`. Parts: encode_prompt (where there is one), encode_image, denoise, and decode for each window."""
        stamp = resume.stamp_of(self._row, request)
        state = None if request.resume is None else resume.unpack(request.resume, stamp)
        self.load(request.plan, report)
        by_law = peak_gib(self._row, request.settings, request.plan)
        hold_to(self._device, by_law if request.peak_gib is None else request.peak_gib)
        picture = self._crop(request.image, request.settings)
        generator = torch.Generator("cpu").manual_seed(request.settings.seed)
        work = self._prepare(picture, request, generator, report)
        # A new scheduler for each render: what an earlier one left in it would be in no checkpoint.
        scheduler = self._loaded.scheduler.from_config(self._loaded.scheduler.config)
        with (
            self._timed(report, "denoise"),
            self._place.on_device(self.denoiser, report.check),
            torch.inference_mode(),
        ):
            self._say_if_slow(report)
            self._set_timesteps(scheduler, request.settings)
            latents = denoise(work, scheduler, generator, report, stamp=stamp, state=state)
        yield from self._frames(latents, report, flat_allowed=is_flat(picture))

    def _say_if_slow(self, report: Report) -> None:
        """A PC whose memory cannot be pinned (WSL's limit, little RAM) streams weights while nothing computes."""
        streaming = self._place.network
        if streaming is not None and not streaming.pinned:
            report.note(f"Weights stream more slowly than planned: {streaming.why_not_pinned}.")

    def unload(self) -> None:
        """See `VideoModel.unload`."""
        if self._placement is not None:
            self._placement.clear()
        self._parts = self._placement = self._plan = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def streams_gib(self) -> float:
        """See `VideoModel.streams_gib`."""
        return 0.0 if self._placement is None else self._placement.host_bytes / GIB

    @property
    def _place(self) -> Placement:
        if self._placement is None:
            raise RuntimeError("the model is not loaded")
        return self._placement

    @property
    def _loaded(self) -> SimpleNamespace:
        """The pipeline's parts by name. They are `Any`: diffusers and transformers are not typed enough to say more."""
        if self._parts is None:
            raise RuntimeError("the model is not loaded")
        return self._parts

    @contextmanager
    def _timed(self, report: Report, name: str) -> Iterator[None]:
        """Times a part of the work, with what the device still has to do of it."""
        with report.part(name):
            yield
            wait_for(self._device)

    def _drawn(self, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Noise of variance 1, drawn on the CPU in single precision, whatever computes.

        The same seed gives the same noise on every card, and the noise that a stock pipeline draws from such a generator.
        """
        return torch.randn(tuple(shape), generator=generator).to(self._device, self._dtype)

    def _frames(self, latents: torch.Tensor, report: Report, *, flat_allowed: bool) -> Iterator[Frame]:
        """Yields frame by frame; no clock and no inference mode runs while the caller has one in hand."""
        done = 0
        with ExitStack() as stay:
            for window in self._windows(latents):
                with self._timed(report, "decode"):
                    if not done:
                        stay.enter_context(self._place.on_device("vae", report.check))
                    with torch.inference_mode():
                        decoded = self.decode(self._loaded.vae, window)
                    frames = [
                        as_frame(frame, number, flat_allowed=flat_allowed)
                        for number, frame in enumerate(decoded, start=done + 1)
                    ]
                    done += len(frames)
                yield from frames


def is_guided(settings: RenderSettings) -> bool:
    """Guidance of 1 or less is none, as in the stock pipelines: at 1 the unguided pass counts for nothing."""
    return settings.guidance > 1
