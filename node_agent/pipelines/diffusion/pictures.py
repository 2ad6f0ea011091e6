"""Pictures into tensors and back: crop, preview, and the check that a decoded frame is a picture at all."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image

from farm.errors import BrokenPictureError
from node_agent.pipelines.base import Frame

PREVIEW_WIDTH = 320
FLAT = 8
"""Levels of 255 between a channel's darkest and lightest pixel: a scan of blank paper, a photograph in the dark."""

_LATENT_TO_RGB = torch.tensor(
    (
        (0.298, 0.207, 0.208),
        (0.187, 0.286, 0.173),
        (-0.158, 0.189, 0.264),
        (-0.184, -0.271, -0.473),
    )
)
"""How much of red, green and blue (-1 to 1) each latent channel of the Stable Diffusion 1 and 2 VAE carries.

Found by experiment, see "Decoding latents to RGB without upscaling", https://discuss.huggingface.co/t/23204.
"""

_REMEDY = (
    "Send the job to another card: some cards (GTX 16xx) overflow in half precision. "
    "If every card fails, lower the guidance or check the weights."
)


def crop_to_fill(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of `image`, scaled (box filter) to fill `width` x `height` pixels.

    As diffusers' `_center_crop_wide`, save that a scaled side never comes out a pixel too short: there,
    rounding downwards leaves a black line along the edge at some sizes.
    """
    scale = min(image.width / width, image.height / height)
    scaled = (max(width, round(image.width // scale)), max(height, round(image.height // scale)))
    image = image.resize(scaled, resample=Image.Resampling.BOX)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def as_tensor(image: Image.Image) -> torch.Tensor:
    """The picture as `[1, 3, height, width]`, float32 from 0 to 1."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]


def is_flat(image: Image.Image) -> bool:
    """Whether all pixels are nearly the same: so the decoder may give one colour, above all white or black, where it is cut off."""
    pixels = np.asarray(image.convert("RGB"))
    return bool((np.ptp(pixels, axis=(0, 1)) <= FLAT).all())


def preview_jpeg(latent: torch.Tensor, width: int, height: int) -> bytes:
    """A rough JPEG of a latent frame `[4, h, w]`, shaped as `width` x `height`, at most 320 wide."""
    rgb = torch.einsum("chw,cr->hwr", latent.float().cpu(), _LATENT_TO_RGB)
    pixels = ((rgb + 1) * 127.5).nan_to_num().clamp(0, 255).round().to(torch.uint8).numpy()
    shrink = min(1.0, PREVIEW_WIDTH / width)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    out = BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


def as_frame(decoded: torch.Tensor, number: int, *, flat_allowed: bool) -> Frame:
    """A decoded frame `[3, h, w]`, -1 to 1, as `[h, w, 3]` bytes. `number` counts from 1, for the error.

    Raises:
        BrokenPictureError: not finite, or all of one colour where the input was not (`flat_allowed`).
    """
    if not bool(torch.isfinite(decoded).all()):
        raise BrokenPictureError(
            f"Frame {number} came out of the decoder as no number (NaN or infinite).", _REMEDY
        )
    scaled = (decoded.float() / 2 + 0.5).clamp(0, 1)
    frame: Frame = (scaled * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    if not flat_allowed and bool((frame == frame[0, 0]).all()):
        colour = ", ".join(str(value) for value in frame[0, 0])
        raise BrokenPictureError(f"Frame {number} came out all of one colour (RGB {colour}).", _REMEDY)
    return frame


def check_latents(latents: torch.Tensor, step: int) -> None:
    """Checks the latents after `step`, at once rather than after the last step.

    Raises:
        BrokenPictureError: they are not finite.
    """
    if not bool(torch.isfinite(latents).all()):
        raise BrokenPictureError(f"The picture became no number (NaN or infinite) in step {step}.", _REMEDY)
