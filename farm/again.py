"""What a clip says about itself so that it can be made again, and the settings that this asks for. Both directions, one copy.

The description has the names of `RenderSettings`, the hash of the picture and nothing of the one job that made it: the same settings
and picture give the same file, byte for byte, where the model does.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from farm.catalogue.presets import Preset
from farm.errors import BadInputError
from farm.model import RenderSettings
from farm.video import Metadata, is_mp4, read_metadata

_ABOUT = frozenset({"input_sha256", "draft", "job"})
"""What a description holds besides settings; clips of the first farms name their job too."""

_SETTINGS = {field.name: field for field in fields(RenderSettings)}
_OF_PRESET = frozenset(field.name for field in fields(Preset)) & frozenset(_SETTINGS)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a clip was made. `settings` as `POST /jobs` takes them; `input_sha256` names its picture, as the farm keeps it."""

    settings: dict[str, Any]
    input_sha256: str


def describe(settings: RenderSettings, *, input_sha256: str, draft: bool) -> Metadata:
    """What goes into the file: JSON values only. A clip that is not smoothed does not speak of it, so that older farms read it too."""
    said = {name: value for name, value in asdict(settings).items() if value is not None}
    return {**said, "input_sha256": input_sha256, "draft": draft}


def read_recipe(path: Path) -> Recipe:
    """How the clip at `path` was made.

    Raises:
        BadInputError: field "again": it cannot be read, is no clip, says nothing of how it was made, or names what only a newer
            farm knows.
    """
    from farm.inscription import read_inscription  # noqa: PLC0415 - Pillow, for those who make a GIF or WebP again

    try:
        of_mp4 = is_mp4(path)
        found = read_metadata(path) if of_mp4 else read_inscription(path)
    except OSError as error:
        raise _unusable(
            f"The clip {path} cannot be read: {error.strerror or error}.", "Name another file."
        ) from error
    if found is None:
        raise _unusable(
            f"{path.name} is not a complete MP4, GIF or WebP.", "Name a clip of this farm, best its MP4."
        )
    if not found and not of_mp4:
        raise _unusable(
            f"{path.name} does not say how it was made: an older farm made it, or another program saved it anew.",
            "Name the clip's MP4, or fetch this file from the farm once more.",
        )
    return recipe_of(found, path.name)


def recipe_of(found: Metadata, name: str) -> Recipe:
    """How a clip was made by what it says of itself; `name` is the file's, for the message.

    Raises:
        BadInputError: field "again": as `read_recipe`.
    """
    by_hand = "Submit its picture with the settings that you want instead."
    if not {"model", "input_sha256"} & found.keys():
        raise _unusable(
            f"{name} does not say how it was made: no farm made it, or another program saved it anew.",
            by_hand,
        )
    unknown = sorted(found.keys() - _SETTINGS.keys() - _ABOUT)
    if unknown:
        names = ", ".join(each[:40] for each in unknown[:5])
        raise _unusable(
            f"{name} was made by a newer farm: it has settings that this one does not know ({names}).",
            f"Update the farm on this PC. {by_hand}",
        )
    missing = [
        each
        for each, field in _SETTINGS.items()
        if each not in found and field.default is MISSING and field.default_factory is MISSING
    ]
    picture = found.get("input_sha256")
    if missing or not isinstance(picture, str) or not _SHA256.fullmatch(picture):
        lacks = ", ".join(missing) or "its picture"
        raise _unusable(f"{name} does not say all of how it was made: {lacks} cannot be made out.", by_hand)
    # What a later farm added has a default that means "as before", so an older clip is made as it was.
    settings = {each: found.get(each, field.default) for each, field in _SETTINGS.items()}
    return Recipe(settings, picture)


def changed(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings to submit: the clip's, save where `options` (those that are not None) say otherwise.

    A preset stands for all the values that it names; what it does not name (prompt, seed, ...) stays the clip's.
    """
    given = {name: value for name, value in options.items() if value is not None}
    dropped = _OF_PRESET if "preset" in given else frozenset()
    kept = {name: value for name, value in recipe.settings.items() if name not in dropped}
    return kept | given


def _unusable(message: str, remedy: str) -> BadInputError:
    return BadInputError("again", message, remedy)
