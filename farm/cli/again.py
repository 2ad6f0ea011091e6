"""`farm submit --again CLIP.mp4`: the clip's own settings and picture, submitted once more."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.again import Recipe, changed
from farm.errors import BadInputError

if TYPE_CHECKING:
    from farm.answers.jobs import JobView
    from farm.client import Farm


def submit_again(
    farm: "Farm",
    recipe: Recipe,
    image: Path | None,
    options: Mapping[str, Any],
    *,
    other_picture: bool,
    **how: Any,
) -> "JobView":
    """Submits a clip's settings, save where `options` say otherwise; `how` (priority, anywhere) is not the clip's.

    Without `image` the head takes the picture that it has. With one it must be the clip's own, unless something else is to change too
    or `other_picture` says that it need not.

    Raises:
        BadInputError: the head does not have the picture, or `image` is another.
    """
    varied = other_picture or any(value is not None for value in options.values())
    expected = None if image is not None and varied else recipe.input_sha256
    try:
        return farm.submit(image, input_sha256=expected, **changed(recipe, options), **how)
    except BadInputError as error:
        if error.field != "input_sha256":
            raise
        if image is None:
            message = "The head does not have the clip's picture."
            remedy = "Name it: farm submit --again CLIP.mp4 IMAGE"
        else:
            message = f"{image.name} is not the picture that the clip was made from."
            remedy = "Name that one, or leave IMAGE out; --other-picture makes the same clip of this one."
        raise BadInputError("image", message, remedy) from error
