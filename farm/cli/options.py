"""The options that say what a clip should be; `farm submit`, `farm batch` and `farm plan` share them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Prompt = Annotated[str | None, typer.Option("--prompt", help="What should happen in the clip.")]
NegativePrompt = Annotated[str | None, typer.Option("--negative-prompt", help="What should not be seen.")]
Preset = Annotated[
    str | None, typer.Option("--preset", help="A named set of settings; the options below change it.")
]
Model = Annotated[str | None, typer.Option("--model", help="The model.")]
Width = Annotated[int | None, typer.Option("--width", help="Pixels.")]
Height = Annotated[int | None, typer.Option("--height", help="Pixels.")]
Frames = Annotated[int | None, typer.Option("--frames", help="Frames of the clip.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="How closely to follow the prompt.")]
Fps = Annotated[int | None, typer.Option("--fps", help="Frames per second of the clip.")]
Smooth = Annotated[
    int | None,
    typer.Option("--smooth", metavar="FPS", help="Interpolate the clip to this rate; 0 leaves it as it is."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed and settings give the same clip.")]
Motion = Annotated[str | None, typer.Option("--motion", help="Camera move of the draft model.")]
Strength = Annotated[
    float | None, typer.Option("--strength", help="Strength of the camera move; 1 is usual.")
]
Needs = Annotated[
    list[str] | None,
    typer.Option("--needs", metavar="TAG", help="Only on PCs with this tag; may be given several times."),
]
Anywhere = Annotated[bool, typer.Option("--anywhere", help="On any card that has the memory.")]
Priority = Annotated[int | None, typer.Option("--priority", help="Higher goes first.")]

CLIP = (
    "prompt",
    "negative_prompt",
    "preset",
    "model",
    "width",
    "height",
    "frames",
    "steps",
    "guidance",
    "fps",
    "smooth",
    "seed",
    "motion",
    "strength",
)
"""The parameters of a command that say what a clip should be, under the names that the API has for them."""
HANDLING = ("priority", "anywhere", "needs")
"""Those that say how its job is handled."""


def given(parameters: Mapping[str, Any], names: Sequence[str] = (*CLIP, *HANDLING)) -> dict[str, Any]:
    """The settings of a job that a command was given: `parameters` are its `locals()`, before it has any others."""
    found = {name: parameters[name] for name in names if name in parameters}
    return {name: value for name, value in found.items() if value is not None and value is not False}
