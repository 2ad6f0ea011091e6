"""I2VGen-XL (ali-vilab): a picture and a sentence to a clip, by diffusion.

The work is in `diffusion.i2vgen`, which needs torch.
"""

from farm.catalogue.models import ModelRow
from node_agent.pipelines.base import VideoModel, installed_for
from node_agent.pipelines.published import CLIP_H_IMAGE, CLIP_H_TEXT, SD_VAE
from node_agent.pipelines.weights import Layout

LAYOUT = Layout(
    "I2VGenXLPipeline",
    weighted={
        "text_encoder": ("transformers", "CLIPTextModel"),
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
        "unet": ("diffusers", "I2VGenXLUNet"),
        "vae": ("diffusers", "AutoencoderKL"),
    },
    others=frozenset(("feature_extractor", "scheduler", "tokenizer")),
    published={"text_encoder": CLIP_H_TEXT, "image_encoder": CLIP_H_IMAGE, "vae": SD_VAE},
)


def open_model(row: ModelRow, device: str) -> VideoModel:
    """Opens I2VGen-XL for `device` ("cpu", "cuda:0"); loads no weights yet.

    Raises:
        ConfigurationError: torch or diffusers is not installed here.
    """
    with installed_for(row):  # not at the top: a node without torch lists this model too
        from node_agent.pipelines.diffusion.i2vgen import I2VGenXL  # noqa: PLC0415
    return I2VGenXL(row, device)
