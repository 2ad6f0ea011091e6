"""I2VGen-XL on diffusers' own classes, with a denoising loop of ours.

The loop computes what `I2VGenXLPipeline.__call__` does (a test holds the two equal). It is ours because the
pipeline, which diffusers has deprecated, has no step callback, draws part of its noise outside the seed,
and keeps every part where it is.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from farm.catalogue.models import ModelRow
from farm.errors import MissingWeightsError
from farm.model import MemoryPlan, RenderSettings
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.pipelines.diffusion.pictures import (
    as_frame,
    as_tensor,
    check_latents,
    crop_to_fill,
    is_flat,
    preview_jpeg,
)
from node_agent.pipelines.diffusion.placement import Placement, compute_dtype, wait_for
from node_agent.pipelines.weights import VARIANT, check_weights, find_weights, read_header, weight_file

PREVIEW_EVERY: Final = 5
"""Steps between two previews; the first step gives one too."""

_WEIGHTED: Final = {
    "text_encoder": "transformers",
    "image_encoder": "transformers",
    "unet": "diffusers",
    "vae": "diffusers",
}
"""The parts with weights, and the library of each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The pipeline's parts. They are `Any`: diffusers and transformers are not typed enough to say more."""

    tokenizer: Any
    text_encoder: Any
    image_encoder: Any
    feature_extractor: Any
    vae: Any
    unet: Any
    scheduler: Any


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What a denoising step is guided by, `n` rows each: the unguided row (if any), then the guided one.

    `prompt` `[n, tokens, c]`, `picture` `[n, 1, c]`, `latents` `[n, 4, frames, h/8, w/8]`, `fps` `[n]`.
    """

    prompt: torch.Tensor
    picture: torch.Tensor
    latents: torch.Tensor
    fps: torch.Tensor

    def rows(self) -> Iterator["_Conditions"]:
        """Each row by itself."""
        for row in range(len(self.prompt)):
            one = slice(row, row + 1)
            yield _Conditions(self.prompt[one], self.picture[one], self.latents[one], self.fps[one])


class I2VGenXL:
    """I2VGen-XL opened for one device; see `node_agent.pipelines.base.VideoModel`."""

    def __init__(self, row: ModelRow, device: str) -> None:
        self._row = row
        self._device = torch.device(device)
        self._dtype = compute_dtype(self._device)
        self._parts: _Parts | None = None
        self._placement: Placement | None = None
        self._mode: str | None = None

    def load(self, plan: MemoryPlan, report: Report) -> None:
        """See `VideoModel.load`. With the weights in place as `plan` says it does nothing."""
        if self._parts is not None and self._mode == plan.parts:
            return
        with self._timed(report, "load"):
            if self._parts is None:
                self._parts = _read_parts(self._row, self._dtype)
                weighted = {name: getattr(self._parts, name) for name in _WEIGHTED}
                self._placement = Placement(weighted, self._device)
            self._mode = None
            self._place.arrange(plan.parts)
            self._mode = plan.parts

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        """See `VideoModel.render`. Parts: encode_prompt, encode_image, denoise, and decode for each frame."""
        self.load(request.plan, report)
        settings = request.settings
        picture = crop_to_fill(request.image, settings.width, settings.height)
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        noise = self._noise(settings, generator)
        with self._timed(report, "encode_prompt"):
            prompt = self._encode_prompt(settings)
        with self._timed(report, "encode_image"):
            seen = self._encode_picture(crop_to_fill(request.image, settings.width, settings.width), settings)
            first = self._encode_first_frame(picture, settings, generator)
        fps = torch.tensor([settings.fps] * len(prompt), device=self._device)
        conditions = _Conditions(prompt, seen, first, fps)
        with self._timed(report, "denoise"):
            latents = self._denoise(noise, conditions, request, report)
        yield from self._decode(latents, report, flat_allowed=is_flat(picture))

    def unload(self) -> None:
        """See `VideoModel.unload`."""
        self._parts = self._placement = self._mode = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _place(self) -> Placement:
        if self._placement is None:
            raise RuntimeError("the model is not loaded")
        return self._placement

    @property
    def _loaded(self) -> _Parts:
        if self._parts is None:
            raise RuntimeError("the model is not loaded")
        return self._parts

    @contextmanager
    def _timed(self, report: Report, name: str) -> Iterator[None]:
        """Times a part of the work, with what the device still has to do of it."""
        with report.part(name):
            yield
            wait_for(self._device)

    def _noise(self, settings: RenderSettings, generator: torch.Generator) -> torch.Tensor:
        """The noise that the clip comes out of, `[1, 4, frames, h/8, w/8]`.

        Drawn on the CPU in single precision, whatever computes: the same seed gives the same noise on every
        card, and the noise that the stock pipeline draws from such a generator.
        """
        channels = self._loaded.unet.config.in_channels
        shape = (1, channels, settings.frames, settings.height // 8, settings.width // 8)
        return torch.randn(shape, generator=generator).to(self._device, self._dtype)

    def _encode_prompt(self, settings: RenderSettings) -> torch.Tensor:
        """The sentences as `[n, tokens, c]`, the negative one first if there is guidance.

        I2VGen-XL was trained on the last layer but one, normed by the last norm. Computed here because
        `I2VGenXLPipeline.encode_prompt` asks for `text_encoder.text_model`, which transformers 5.6 took away.
        """
        parts = self._loaded
        texts = [settings.negative_prompt, settings.prompt] if _is_guided(settings) else [settings.prompt]
        limit = parts.tokenizer.model_max_length
        tokens = parts.tokenizer(
            texts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        if len(parts.tokenizer(settings.prompt).input_ids) > limit:
            _log.info("The prompt is longer than the %d tokens the model reads; its end was left out.", limit)
        with self._place.on_device("text_encoder"), torch.inference_mode():
            output = parts.text_encoder(tokens.input_ids.to(self._device), output_hidden_states=True)
            encoder = getattr(parts.text_encoder, "text_model", parts.text_encoder)
            embeddings: torch.Tensor = encoder.final_layer_norm(output.hidden_states[-2])
        return embeddings

    def _encode_picture(self, square: Image.Image, settings: RenderSettings) -> torch.Tensor:
        """What CLIP sees in the picture, `[n, 1, c]`: zeros for the unguided row."""
        parts = self._loaded
        size = parts.feature_extractor.crop_size
        seen = as_tensor(square.resize((size["width"], size["height"]), Image.Resampling.BILINEAR))
        pixels = parts.feature_extractor(
            images=seen,
            do_normalize=True,
            do_center_crop=False,
            do_resize=False,
            do_rescale=False,
            return_tensors="pt",
        ).pixel_values
        with self._place.on_device("image_encoder"), torch.inference_mode():
            embedding = parts.image_encoder(pixels.to(self._device, self._dtype)).image_embeds[:, None]
        return torch.cat([torch.zeros_like(embedding), embedding]) if _is_guided(settings) else embedding

    def _encode_first_frame(
        self, picture: Image.Image, settings: RenderSettings, generator: torch.Generator
    ) -> torch.Tensor:
        """The picture's latents as the first frame, `[n, 4, frames, h/8, w/8]`.

        The other frames hold nothing but how late they come, from 0 to 1.
        """
        parts = self._loaded
        pixels = (2 * as_tensor(picture) - 1).to(self._device, self._dtype)
        with self._place.on_device("vae"), torch.inference_mode():
            found = parts.vae.encode(pixels).latent_dist
            # The stock pipeline draws this from the device's own generator: its seed does not fix the clip.
            draw = torch.randn(found.mean.shape, generator=generator).to(self._device, self._dtype)
            first = (found.mean + found.std * draw) * parts.vae.config.scaling_factor
            later = [
                torch.full_like(first, frame / (settings.frames - 1)) for frame in range(1, settings.frames)
            ]
            latents = torch.stack([first, *later], dim=2)
            return torch.cat([latents] * 2) if _is_guided(settings) else latents

    def _denoise(
        self, latents: torch.Tensor, conditions: _Conditions, request: RenderRequest, report: Report
    ) -> torch.Tensor:
        """Takes the noise away step by step; returns the clip's latents `[1, 4, frames, h/8, w/8]`."""
        parts, settings = self._loaded, request.settings
        with self._place.on_device("unet"), torch.inference_mode():
            parts.scheduler.set_timesteps(settings.steps, device=self._device)
            latents = latents * parts.scheduler.init_noise_sigma
            timesteps = parts.scheduler.timesteps
            for done, timestep in enumerate(timesteps, start=1):
                scaled = parts.scheduler.scale_model_input(latents, timestep)
                predicted = self._predict(scaled, timestep, conditions, request)
                result = parts.scheduler.step(predicted, timestep, latents)
                latents = result.prev_sample
                check_latents(latents, done)
                report.step(done, len(timesteps))
                if done % PREVIEW_EVERY == 1:
                    middle = result.pred_original_sample[0, :, settings.frames // 2]
                    report.preview(preview_jpeg(middle, settings.width, settings.height))
        return latents

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditions: _Conditions, request: RenderRequest
    ) -> torch.Tensor:
        """What the UNet predicts, guided; the passes go together or in turn as the plan says."""
        passes = conditions.rows() if request.plan.guidance == "in_turn" else iter((conditions,))
        predicted = torch.cat([self._pass(latents, timestep, rows) for rows in passes])
        if len(predicted) == 1:
            return predicted
        unguided, guided = predicted.chunk(2)
        return unguided + request.settings.guidance * (guided - unguided)

    def _pass(self, latents: torch.Tensor, timestep: torch.Tensor, rows: _Conditions) -> torch.Tensor:
        predicted: torch.Tensor = self._loaded.unet(
            latents.expand(len(rows.prompt), -1, -1, -1, -1),
            timestep,
            fps=rows.fps,
            image_latents=rows.latents,
            image_embeddings=rows.picture,
            encoder_hidden_states=rows.prompt,
            return_dict=False,
        )[0]
        return predicted

    def _decode(self, latents: torch.Tensor, report: Report, *, flat_allowed: bool) -> Iterator[Frame]:
        """Yields frame by frame; no clock and no inference mode runs while the caller has one in hand."""
        vae = self._loaded.vae
        with ExitStack() as stay:
            for number, latent in enumerate(latents.unbind(dim=2), start=1):
                with self._timed(report, "decode"):
                    if number == 1:
                        stay.enter_context(self._place.on_device("vae"))
                    with torch.inference_mode():
                        decoded = vae.decode(latent / vae.config.scaling_factor).sample[0]
                    frame = as_frame(decoded, number, flat_allowed=flat_allowed)
                yield frame


def _is_guided(settings: RenderSettings) -> bool:
    """Guidance of 1 or less is none, as in the stock pipeline: at 1 the unguided pass counts for nothing."""
    return settings.guidance > 1


def _read_parts(row: ModelRow, dtype: torch.dtype) -> _Parts:
    """Reads the checkpoint of `row` into host memory, by the stock pipeline's `from_pretrained`.

    Raises:
        MissingWeightsError: it is not there, not whole, or not of this model.
    """
    directory = find_weights(row.source)
    check_weights(directory, row.pipeline)
    with _quiet():
        stock: Any = diffusers.I2VGenXLPipeline
        try:
            pipeline = stock.from_pretrained(
                directory, variant=VARIANT, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise MissingWeightsError(
                f"Cannot load {row.title} from {directory}: {error}",
                "Fetch the checkpoint again: it is not that of this model.",
            ) from error
    parts = _Parts(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder.eval(),
        image_encoder=pipeline.image_encoder.eval(),
        feature_extractor=pipeline.feature_extractor,
        vae=pipeline.vae.eval(),
        unet=pipeline.unet.eval(),
        scheduler=pipeline.scheduler,
    )
    for name, library in _WEIGHTED.items():
        _check_all_stored(getattr(parts, name), directory / name, library)
    return parts


def _check_all_stored(module: Any, directory: Path, library: str) -> None:
    """Checks that the file had every tensor: one that is missing is left at random values with a warning."""
    file = weight_file(directory, library)
    stored = {name.removeprefix("text_model.") for name in read_header(file)}
    lacking = sorted(name for name in module.state_dict() if name.removeprefix("text_model.") not in stored)
    if lacking:
        raise MissingWeightsError(
            f"{file} lacks {len(lacking)} of the model's tensors, the first of them {lacking[0]}.",
            "Fetch the checkpoint again: it is not that of this model.",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings of the libraries in a worker's output: what matters is checked here."""
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()
