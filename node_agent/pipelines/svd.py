"""Stable Video Diffusion (Stability AI): a picture to a clip, by diffusion; it reads no prompt.

The work is in `diffusion.stable_video`, which needs torch.
"""

from farm.catalogue.models import ModelRow
from farm.errors import ConfigurationError
from node_agent.pipelines.base import VideoModel
from node_agent.pipelines.weights import Layout

LAYOUT = Layout(
    "StableVideoDiffusionPipeline",
    weighted={
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
        "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
        "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
    },
    others=frozenset(("feature_extractor", "scheduler")),
)


def open_model(row: ModelRow, device: str) -> VideoModel:
    """Opens Stable Video Diffusion for `device` ("cpu", "cuda:0"); loads no weights yet.

    Raises:
        ConfigurationError: torch or diffusers is not installed here.
    """
    try:
        # Not at the top: a node without torch lists this model too.
        from node_agent.pipelines.diffusion.stable_video import StableVideoDiffusion  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"{row.title} cannot run on this PC: {error}.",
            'Install what it needs, in the farm\'s directory: pip install ".[gpu]".',
        ) from error
    return StableVideoDiffusion(row, device)
