"""Stable Video Diffusion on diffusers' own classes.

Computes what `StableVideoDiffusionPipeline.__call__` does with a `decode_chunk_size` of 2 (a test holds the two equal).
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from PIL import Image, ImageOps

from farm.model import RenderSettings
from node_agent.engine.fit import Size
from node_agent.engine.placement import Check
from node_agent.pipelines import svd
from node_agent.pipelines.base import RenderRequest, Report
from node_agent.pipelines.diffusion.loop import Denoising, guided
from node_agent.pipelines.diffusion.model import DiffusionModel, is_guided
from node_agent.pipelines.diffusion.pictures import as_tensor, preview_jpeg

DECODE_FRAMES: Final = 2
"""Frames that the VAE decodes at once. Its layers look at the neighbours in time, so this is part of the result and never of a
memory plan. One alone would leave those layers nothing to smooth and each frame would flicker by itself; each more adds its
whole size to the peak. Two is the least that has a neighbour."""

NOISE_AUGMENTATION: Final = 0.02
"""How much noise is laid over the picture before it is encoded: the stock pipeline's default."""

LEAST_GUIDANCE: Final = 1.0
"""The guidance of the first frame, which is the picture itself; it rises to `settings.guidance` at the last."""

_BUCKET: Final = 127
"""The motion bucket (1 to 255) of a `strength` of 1: the stock pipeline's default."""

_CLIP_SIDE: Final = 224
"""Pixels; the stock pipeline has this number too, not the feature extractor's."""


class StableVideoDiffusion(DiffusionModel):
    """Stable Video Diffusion opened for one device. Latents are `[1, frames, 4, h/8, w/8]`."""

    layout = svd.LAYOUT
    denoiser = "unet"
    bench_sizes = ((1024, 576, 14), (1024, 576, 25), (1280, 704, 14))
    decode_frames = DECODE_FRAMES
    encodes_in_fp32 = True

    @classmethod
    def bench_inputs(cls, config: Any, size: Size, rows: int, like: torch.Tensor) -> dict[str, Any]:
        """See `DiffusionModel.bench_inputs`."""
        width, height, frames = size
        latents = (rows, frames, config.in_channels, height // 8, width // 8)
        return {
            "sample": torch.randn(latents, dtype=like.dtype, device=like.device),
            "timestep": torch.tensor(1.0, device=like.device),
            "encoder_hidden_states": like.new_zeros((rows, 1, config.cross_attention_dim)),
            "added_time_ids": like.new_tensor([[7, motion_bucket(1.0), NOISE_AUGMENTATION]] * rows),
            "return_dict": False,
        }

    def _crop(self, image: Image.Image, settings: RenderSettings) -> Image.Image:
        """Lanczos, as the stock pipeline resizes; a picture of the right size stays as it is."""
        return ImageOps.fit(image, (settings.width, settings.height), Image.Resampling.LANCZOS)

    def _prepare(
        self, picture: Image.Image, request: RenderRequest, generator: torch.Generator, report: Report
    ) -> Denoising:
        """Conditions have a row each for the unguided pass (if any) and the guided one, in this order."""
        settings, unet = request.settings, self._loaded.unet
        with self._timed(report, "encode_image"):
            seen = self._encode_picture(picture, report.check)
            first = self._encode_first_frame(picture, generator, report.check)
        first = first[:, None].expand(-1, settings.frames, -1, -1, -1)
        # One frame is the first, whose guidance of 1 is none; the stock pipeline stumbles over it.
        if is_guided(settings) and settings.frames > 1:
            seen = torch.cat([torch.zeros_like(seen), seen])
            first = torch.cat([torch.zeros_like(first), first])
        # The noise comes after that over the picture: in this order the stock pipeline draws from one generator.
        channels = unet.config.in_channels // 2
        shape = (1, settings.frames, channels, settings.height // 8, settings.width // 8)
        noise = self._drawn(shape, generator)
        # The model was trained on one frame per second less than its clips have.
        known = [settings.fps - 1, motion_bucket(settings.strength), NOISE_AUGMENTATION]
        added = torch.tensor([known] * len(seen), dtype=self._dtype, device=self._device)
        scale = torch.linspace(LEAST_GUIDANCE, settings.guidance, settings.frames)
        scale = scale.to(self._device, self._dtype)[None, :, None, None, None]

        def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            def network(rows: slice) -> torch.Tensor:
                both = torch.cat([latents.expand(len(seen[rows]), -1, -1, -1, -1), first[rows]], dim=2)
                predicted: torch.Tensor = unet(
                    both,
                    timestep,
                    encoder_hidden_states=seen[rows],
                    added_time_ids=added[rows],
                    return_dict=False,
                )[0]
                return predicted

            return guided(network, len(seen), scale, request.plan)

        def preview(latents: torch.Tensor) -> bytes:
            return preview_jpeg(latents[0, settings.frames // 2], settings.width, settings.height)

        return Denoising(noise, predict, preview)

    def _encode_picture(self, picture: Image.Image, check: Check) -> torch.Tensor:
        """What CLIP sees in the picture, `[1, 1, c]`. Resized between -1 and 1, as the model was trained."""
        parts = self._loaded
        shrink: Any = _resize_with_antialiasing  # untyped
        small = shrink(as_tensor(picture) * 2 - 1, (_CLIP_SIDE, _CLIP_SIDE))
        pixels = parts.feature_extractor(
            images=(small + 1) / 2,
            do_normalize=True,
            do_center_crop=False,
            do_resize=False,
            do_rescale=False,
            return_tensors="pt",
        ).pixel_values
        with self._place.on_device("image_encoder", check), torch.inference_mode():
            found: torch.Tensor = parts.image_encoder(pixels.to(self._device, self._dtype)).image_embeds
        return found[:, None]

    def _encode_first_frame(
        self, picture: Image.Image, generator: torch.Generator, check: Check
    ) -> torch.Tensor:
        """The latents of the picture under a little noise, `[1, 4, h/8, w/8]`, not scaled: so the model was trained.

        This VAE overflows in half precision when it encodes, so it encodes in single.
        """
        vae = self._loaded.vae
        # Channels last is how the stock pipeline's tensor lies; convolutions round otherwise in another layout.
        pixels = (as_tensor(picture) * 2 - 1).contiguous(memory_format=torch.channels_last)
        pixels = pixels + NOISE_AUGMENTATION * torch.randn(pixels.shape, generator=generator)
        wide = self.encodes_in_fp32
        here = self._place.on_device("vae", check, precision="fp32" if wide else None)
        with here, torch.inference_mode():
            pixels = pixels.to(self._device, torch.float32 if wide else self._dtype)
            found: torch.Tensor = self.encode(vae, pixels).mode()
        return found.to(self._dtype)

    def _windows(self, latents: torch.Tensor) -> Sequence[torch.Tensor]:
        return [
            latents[0, at : at + self.decode_frames] for at in range(0, latents.shape[1], self.decode_frames)
        ]

    @staticmethod
    def decode(vae: Any, window: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.decode`."""
        frames: torch.Tensor = vae.decode(
            1 / vae.config.scaling_factor * window, num_frames=len(window)
        ).sample
        return frames


def motion_bucket(strength: float) -> int:
    """How much should move, in the model's own measure: 1 (hardly anything) to 255."""
    return min(255, max(1, round(_BUCKET * strength)))
