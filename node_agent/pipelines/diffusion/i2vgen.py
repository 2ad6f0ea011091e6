"""I2VGen-XL on diffusers' own classes.

Computes what `I2VGenXLPipeline.__call__` does (a test holds the two equal). That pipeline, which diffusers has deprecated,
draws part of its noise outside the seed.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image

from farm.model import RenderSettings
from node_agent.engine.fit import Size
from node_agent.engine.placement import Check
from node_agent.pipelines import i2vgen_xl
from node_agent.pipelines.base import RenderRequest, Report
from node_agent.pipelines.diffusion.loop import Denoising, guided
from node_agent.pipelines.diffusion.model import DiffusionModel, is_guided
from node_agent.pipelines.diffusion.pictures import as_tensor, crop_to_fill, preview_jpeg

PROMPT_TOKENS: Final = 77
"""What the text encoder reads of a prompt."""

_log = logging.getLogger(__name__)


class I2VGenXL(DiffusionModel):
    """I2VGen-XL opened for one device. Latents are `[1, 4, frames, h/8, w/8]`."""

    layout = i2vgen_xl.LAYOUT
    denoiser = "unet"
    bench_sizes = ((512, 512, 16), (512, 512, 32), (1280, 704, 16))

    @classmethod
    def bench_inputs(cls, config: Any, size: Size, rows: int, like: torch.Tensor) -> dict[str, Any]:
        """See `DiffusionModel.bench_inputs`."""
        width, height, frames = size
        latents = (rows, config.in_channels, frames, height // 8, width // 8)
        return {
            "sample": torch.randn(latents, dtype=like.dtype, device=like.device),
            "timestep": torch.tensor(500, device=like.device),
            "fps": torch.full((rows,), 8, device=like.device),
            "image_latents": torch.randn(latents, dtype=like.dtype, device=like.device),
            "image_embeddings": like.new_zeros((rows, 1, config.cross_attention_dim)),
            "encoder_hidden_states": like.new_zeros((rows, PROMPT_TOKENS, config.cross_attention_dim)),
            "return_dict": False,
        }

    def _crop(self, image: Image.Image, settings: RenderSettings) -> Image.Image:
        return crop_to_fill(image, settings.width, settings.height)

    def _prepare(
        self, picture: Image.Image, request: RenderRequest, generator: torch.Generator, report: Report
    ) -> Denoising:
        """Conditions have a row each for the unguided pass (if any) and the guided one, in this order."""
        settings, unet = request.settings, self._loaded.unet
        shape = (1, unet.config.in_channels, settings.frames, settings.height // 8, settings.width // 8)
        noise = self._drawn(shape, generator)
        with self._timed(report, "encode_prompt"):
            prompt = self._encode_prompt(settings, report.check)
        with self._timed(report, "encode_image"):
            square = crop_to_fill(request.image, settings.width, settings.width)
            seen = self._encode_picture(square, settings, report.check)
            first = self._encode_first_frame(picture, settings, generator, report.check)
        fps = torch.tensor([settings.fps] * len(prompt), device=self._device)

        def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            def network(rows: slice) -> torch.Tensor:
                predicted: torch.Tensor = unet(
                    latents.expand(len(prompt[rows]), -1, -1, -1, -1),
                    timestep,
                    fps=fps[rows],
                    image_latents=first[rows],
                    image_embeddings=seen[rows],
                    encoder_hidden_states=prompt[rows],
                    return_dict=False,
                )[0]
                return predicted

            return guided(network, len(prompt), settings.guidance, request.plan)

        def preview(latents: torch.Tensor) -> bytes:
            return preview_jpeg(latents[0, :, settings.frames // 2], settings.width, settings.height)

        return Denoising(noise, predict, preview)

    def _encode_prompt(self, settings: RenderSettings, check: Check) -> torch.Tensor:
        """The sentences as `[n, tokens, c]`, the negative one first if there is guidance.

        I2VGen-XL was trained on the last layer but one, normed by the last norm. Computed here because
        `I2VGenXLPipeline.encode_prompt` asks for `text_encoder.text_model`, which transformers 5.6 took away.
        """
        parts = self._loaded
        texts = [settings.negative_prompt, settings.prompt] if is_guided(settings) else [settings.prompt]
        limit = parts.tokenizer.model_max_length
        tokens = parts.tokenizer(
            texts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        if len(parts.tokenizer(settings.prompt).input_ids) > limit:
            _log.info("The prompt is longer than the %d tokens the model reads; its end was left out.", limit)
        with self._place.on_device("text_encoder", check), torch.inference_mode():
            output = parts.text_encoder(tokens.input_ids.to(self._device), output_hidden_states=True)
            encoder = getattr(parts.text_encoder, "text_model", parts.text_encoder)
            embeddings: torch.Tensor = encoder.final_layer_norm(output.hidden_states[-2])
        return embeddings

    def _encode_picture(self, square: Image.Image, settings: RenderSettings, check: Check) -> torch.Tensor:
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
        with self._place.on_device("image_encoder", check), torch.inference_mode():
            embedding = parts.image_encoder(pixels.to(self._device, self._dtype)).image_embeds[:, None]
        return torch.cat([torch.zeros_like(embedding), embedding]) if is_guided(settings) else embedding

    def _encode_first_frame(
        self, picture: Image.Image, settings: RenderSettings, generator: torch.Generator, check: Check
    ) -> torch.Tensor:
        """The picture's latents as the first frame, `[n, 4, frames, h/8, w/8]`.

        The other frames hold nothing but how late they come, from 0 to 1.
        """
        vae = self._loaded.vae
        pixels = (2 * as_tensor(picture) - 1).to(self._device, self._dtype)
        with self._place.on_device("vae", check), torch.inference_mode():
            found = self.encode(vae, pixels)
            # The stock pipeline draws this from the device's own generator: its seed does not fix the clip.
            draw = self._drawn(found.mean.shape, generator)
            first = (found.mean + found.std * draw) * vae.config.scaling_factor
            later = [
                torch.full_like(first, frame / (settings.frames - 1)) for frame in range(1, settings.frames)
            ]
            latents = torch.stack([first, *later], dim=2)
            return torch.cat([latents] * 2) if is_guided(settings) else latents

    def _windows(self, latents: torch.Tensor) -> Sequence[torch.Tensor]:
        """Frame by frame: this VAE knows only pictures."""
        return latents.unbind(dim=2)

    @staticmethod
    def decode(vae: Any, window: torch.Tensor) -> torch.Tensor:
        """See `DiffusionModel.decode`."""
        frames: torch.Tensor = vae.decode(window / vae.config.scaling_factor).sample
        return frames
