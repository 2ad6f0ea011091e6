"""Stable Video Diffusion (Stability AI): a picture to a clip, by diffusion; it reads no prompt.

The work is in `diffusion.stable_video`, which needs torch.
"""

from farm.catalogue.models import ModelRow
from node_agent.pipelines.base import VideoModel, installed_for
from node_agent.pipelines.published import CLIP_H_IMAGE, SVD_VAE
from node_agent.pipelines.weights import Layout

LAYOUT = Layout(
    "StableVideoDiffusionPipeline",
    weighted={
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
        "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
        "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
    },
    others=frozenset(("feature_extractor", "scheduler")),
    published={"unet": {"num_frames": 14}, "image_encoder": CLIP_H_IMAGE, "vae": SVD_VAE},
)


def open_model(row: ModelRow, device: str) -> VideoModel:
    """Opens Stable Video Diffusion for `device` ("cpu", "cuda:0"); loads no weights yet.

    Raises:
        ConfigurationError: torch or diffusers is not installed here.
    """
    with installed_for(row):  # not at the top: a node without torch lists this model too
        from node_agent.pipelines.diffusion.stable_video import StableVideoDiffusion  # noqa: PLC0415
    return StableVideoDiffusion(row, device)
