"""Submitted settings, as a person wrote them, made into what can be rendered or sentences that say why not.

Pure: the catalogue, the default preset and the random seed are given. All faults are found at once, each with
the name of its field and what would be right. Pydantic checks the shape (names and types); what a model
accepts is checked here.
"""

import difflib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from farm.catalogue.models import ModelRow
from farm.catalogue.presets import Preset
from farm.errors import BadInputError, BadSettingsError
from farm.model import RenderSettings, Tier
from farm.motion import MAX_STRENGTH, MOTIONS
from farm.planning.tiers import tier_of
from farm.tags import read_tags

MAX_SETTINGS_BYTES = 256 * 1024
MAX_PROMPT = 2_000
MAX_GUIDANCE = 30.0
MAX_FPS = 60
MAX_SMOOTH_TIMES = 8
"""How many frames smoothing may make of one. Between pictures that lie further apart it finds no motion to follow, only ghosts; and it
bounds the largest clip, 240 frames of 1920x1080, to what can be checked and carried."""
MAX_SEED = 2**32 - 1
MAX_PRIORITY = 100


class SubmittedSettings(BaseModel):
    """What may be sent; everything is optional. Sizes in pixels, `fps` in frames per second; `smooth` too, with 0 for a clip as it is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    preset: str | None = None
    model: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    fps: int | None = None
    smooth: int | None = None
    seed: int | None = None
    motion: str | None = None
    strength: float | None = None
    priority: int | None = None
    anywhere: bool | None = None
    needs: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that may be stored. `preset` is None where a model was named without one."""

    settings: RenderSettings
    tier: Tier
    preset: str | None
    priority: int
    anywhere: bool
    needs: tuple[str, ...] = ()


def parse_settings(
    raw: str | bytes | Mapping[str, Any],
    *,
    models: Mapping[str, ModelRow],
    presets: Mapping[str, Preset],
    default_preset: str,
    random_seed: int,
    to_render: bool = True,
) -> Submission:
    """Checks submitted settings and fills in what was left out.

    A preset gives the values that were not named; so does the first preset of a model that was named alone.
    With neither, `default_preset` counts. `random_seed` is taken where no seed was sent.
    Without `to_render` (a forecast only) no prompt is missed.

    Raises:
        BadInputError: field "settings": not a JSON object, or too large.
        BadSettingsError: one or more settings are wrong; field "settings.<name>" in each of its errors.
    """
    sent = _json_object(raw)
    wrong: list[BadInputError] = []
    given = _typed(sent, wrong)
    preset = _preset(given, models, presets, default_preset, wrong)
    row = _model(given, models, preset, wrong)
    prompt = _prompt("prompt", given.prompt, wrong)
    negative = _prompt("negative_prompt", given.negative_prompt, wrong)
    _check_free_of_model(given, wrong)
    if row is None or preset is None:
        raise BadSettingsError(tuple(wrong))

    def value(name: str) -> Any:
        own = getattr(given, name)
        return getattr(preset, name) if own is None else own

    _check_limits(row, {name: value(name) for name in ("width", "height", "frames", "steps")}, wrong)
    smooth = value("smooth") or None
    if smooth is not None and not any(error.field in _OF_SMOOTHING for error in wrong):
        _check_smooth(smooth, value("fps"), value("frames"), wrong)
    if (
        to_render
        and not prompt
        and row.prompt_needed
        and not any(error.field == "settings.prompt" for error in wrong)
    ):
        remedy = "Say in a few words what should happen, such as 'waves roll in, slow zoom'."
        wrong.append(_wrong("prompt", f"The model {row.name} needs a prompt, and it is empty.", remedy))
    needs = _needs(given, wrong)
    if wrong:
        raise BadSettingsError(tuple(wrong))
    settings = RenderSettings(
        model=row.name,
        width=value("width"),
        height=value("height"),
        frames=value("frames"),
        steps=value("steps"),
        guidance=float(value("guidance")),
        fps=value("fps"),
        seed=random_seed if given.seed is None else given.seed,
        prompt=prompt,
        negative_prompt=negative,
        motion=given.motion or "auto",
        strength=1.0 if given.strength is None else float(given.strength),
        smooth=smooth,
    )
    named = None if given.preset is None and given.model is not None else preset.name
    return Submission(settings, tier_of(settings), named, given.priority or 0, bool(given.anywhere), needs)


def _needs(given: SubmittedSettings, wrong: list[BadInputError]) -> tuple[str, ...]:
    try:
        return read_tags(given.needs or (), "settings.needs")
    except BadInputError as error:
        wrong.append(error)
        return ()


def _wrong(name: str, message: str, remedy: str = "") -> BadInputError:
    return BadInputError(f"settings.{name}", message, remedy)


class _TwiceError(ValueError):
    """A name came twice in one JSON object."""


def _json_object(raw: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(raw, Mapping):
        return raw
    remedy = 'Send an object such as {"preset": "draft", "prompt": "slow zoom"}.'
    if len(raw) > MAX_SETTINGS_BYTES:
        raise BadInputError(
            "settings", f"The settings are larger than {MAX_SETTINGS_BYTES // 1024} KiB.", remedy
        )
    if not raw.strip():
        return {}
    try:
        found = json.loads(raw, object_pairs_hook=_no_twins)
    except _TwiceError as error:
        raise BadInputError(
            "settings", f"The settings name {error} twice.", "Send each setting once."
        ) from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadInputError("settings", f"The settings are not valid JSON (at {where}).", remedy) from error
    except UnicodeDecodeError as error:
        raise BadInputError("settings", "The settings are not UTF-8 text.", remedy) from error
    except RecursionError as error:
        raise BadInputError("settings", "The settings are nested too deep.", remedy) from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise BadInputError(
            "settings", "The settings hold a number that is too long to read.", remedy
        ) from error
    if not isinstance(found, dict):
        raise BadInputError("settings", f"The settings are {_said(found)}, not a JSON object.", remedy)
    return found


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _TwiceError(repr(name[:40]))
        found[name] = value
    return found


_KINDS = {"int": "a whole number", "float": "a number", "string": "text", "bool": "true or false"}


def _typed(sent: Mapping[str, Any], wrong: list[BadInputError]) -> SubmittedSettings:
    """The settings whose names and types are right; a sentence in `wrong` for each of the others."""
    try:
        return SubmittedSettings.model_validate(sent)
    except ValidationError as error:
        bad = {str(fault["loc"][0]) if fault["loc"] else "": fault for fault in error.errors()}
    for name, fault in bad.items():
        if fault["type"] == "extra_forbidden":
            remedy = _suggestion(name, SubmittedSettings.model_fields)
            wrong.append(_wrong(name[:40], f"There is no setting called {name[:40]!r}.", remedy))
        elif fault["type"] == "string_unicode":
            wrong.append(_control_characters(name))
        else:
            kind = _KINDS.get(fault["type"].split("_")[0], "of another kind")
            wrong.append(_wrong(name, f"{_title(name)} must be {kind}, not {_said(sent[name])}."))
    return SubmittedSettings.model_validate({name: value for name, value in sent.items() if name not in bad})


def _control_characters(name: str) -> BadInputError:
    message = f"{_title(name)} holds control characters, such as NUL or half of an emoji."
    return _wrong(name, message, "Type it anew, or paste it as plain text.")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _said(value: Any) -> str:
    """A value that was sent, as a person would name it."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    text = str(value) if not isinstance(value, int) or value.bit_length() < 128 else "a huge number"
    return {"nan": "NaN", "inf": "infinity", "-inf": "minus infinity"}.get(text, text)


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name.lower()[:100], names, n=1, cutoff=0.5)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return f"{meant}Known: {', '.join(names)}."


def _preset(
    given: SubmittedSettings,
    models: Mapping[str, ModelRow],
    presets: Mapping[str, Preset],
    default: str,
    wrong: list[BadInputError],
) -> Preset | None:
    if given.preset is not None:
        if given.preset in presets:
            return presets[given.preset]
        remedy = _suggestion(given.preset, presets)
        wrong.append(_wrong("preset", f"There is no preset called {given.preset[:40]!r}.", remedy))
        return None
    usual = presets[default]
    if given.model is None or given.model not in models or usual.model == given.model:
        return usual
    # A model may have no preset; then one of a model of its kind (svd for svd-xt) is where to begin, else the usual one.
    kind = models[given.model].pipeline
    known = [preset for preset in (usual, *presets.values()) if preset.model in models]
    found = [preset for preset in known if preset.model == given.model]
    found += [preset for preset in known if models[preset.model].pipeline == kind]
    return found[0] if found else usual


def _model(
    given: SubmittedSettings,
    models: Mapping[str, ModelRow],
    preset: Preset | None,
    wrong: list[BadInputError],
) -> ModelRow | None:
    name = given.model if given.model is not None else preset.model if preset else None
    if name is None:
        return None
    if name not in models:
        wrong.append(_wrong("model", f"There is no model called {name[:40]!r}.", _suggestion(name, models)))
        return None
    return models[name]


def _prompt(name: str, text: str | None, wrong: list[BadInputError]) -> str:
    """Trimmed, every run of white space made one blank."""
    if text is None:
        return ""
    trimmed = " ".join(text.split())
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in trimmed):
        wrong.append(_control_characters(name))
    elif len(trimmed) > MAX_PROMPT:
        message = f"{_title(name)} has {len(trimmed):,} characters; the limit is {MAX_PROMPT:,}."
        wrong.append(_wrong(name, message, "Models read about the first 75 words only: say it shorter."))
    return trimmed


def _check_free_of_model(given: SubmittedSettings, wrong: list[BadInputError]) -> None:
    """Checks what is the same for every model."""
    ranges: tuple[tuple[str, float, float], ...] = (
        ("guidance", 0, MAX_GUIDANCE),
        ("strength", 0, MAX_STRENGTH),
        ("fps", 1, MAX_FPS),
        ("smooth", 0, MAX_FPS),
        ("seed", 0, MAX_SEED),
        ("priority", -MAX_PRIORITY, MAX_PRIORITY),
    )
    for name, low, high in ranges:
        _check_range(name, getattr(given, name), low, high, wrong)
    if given.motion is not None and given.motion not in MOTIONS:
        remedy = _suggestion(given.motion, MOTIONS)
        wrong.append(_wrong("motion", f"There is no motion called {given.motion[:40]!r}.", remedy))


def _check_range(name: str, value: float | None, low: float, high: float, wrong: list[BadInputError]) -> None:
    if value is None or (math.isfinite(value) and low <= value <= high):
        return
    message = f"{_title(name)} must be between {low:g} and {high:.10g}, not {_said(value)}."
    wrong.append(_wrong(name, message))


_OF_SMOOTHING = ("settings.smooth", "settings.fps", "settings.frames")
"""Smoothing is judged by all three: where one of them is wrong by itself, a second sentence would only confuse."""


def _check_smooth(smooth: int, fps: int, frames: int, wrong: list[BadInputError]) -> None:
    """Checks that there is something to interpolate, and not too much."""
    as_it_is = "Leave smooth out, or send 0, for a clip as it is"
    most = min(MAX_FPS, MAX_SMOOTH_TIMES * fps)
    if frames == 1:
        message = f"A clip of one frame cannot be smoothed to {smooth} fps: there is nothing in between."
        wrong.append(_wrong("smooth", message, f"Ask for more frames. {as_it_is}."))
    elif smooth <= fps:
        message = f"Smooth must be above the clip's own {fps} fps, not {smooth}."
        other = f", or ask for {fps + 1} to {most} fps" if fps < most else ""
        wrong.append(_wrong("smooth", message, f"{as_it_is}{other}."))
    elif smooth > most:
        message = (
            f"Smooth may be up to {MAX_SMOOTH_TIMES} times the clip's own {fps} fps: {most}, not {smooth}."
        )
        wrong.append(
            _wrong("smooth", message, "Ask for less, or let the model make more frames at a higher fps.")
        )


def _check_limits(row: ModelRow, values: Mapping[str, int], wrong: list[BadInputError]) -> None:
    """Checks what the model accepts."""
    limits = row.limits
    before = len(wrong)
    for name in ("width", "height"):
        side = values[name]
        if not limits.min_side <= side <= limits.max_side:
            span = f"between {limits.min_side} and {limits.max_side} pixels for {row.name}"
            wrong.append(_wrong(name, f"{_title(name)} must be {span}, not {_said(side)}."))
        elif side % limits.multiple:
            remedy = f"Nearest: {' or '.join(map(str, _nearest(side, row)))}."
            message = f"{_title(name)} must be a multiple of {limits.multiple} pixels, not {side}."
            wrong.append(_wrong(name, message, remedy))
    width, height = values["width"], values["height"]
    if len(wrong) == before and width * height > limits.max_pixels:
        message = (
            f"{width} x {height} is more than {row.name} takes: at most {limits.max_pixels:,} pixels in all."
        )
        fits = limits.max_pixels // width // limits.multiple * limits.multiple
        remedy = (
            f"At this width, height may be up to {fits}."
            if fits >= limits.min_side
            else "Take a smaller width."
        )
        wrong.append(_wrong("width", message, remedy))
    for name, most in (("frames", limits.max_frames), ("steps", limits.max_steps)):
        if not 1 <= values[name] <= most:
            message = (
                f"{_title(name)} must be between 1 and {most} for {row.name}, not {_said(values[name])}."
            )
            wrong.append(_wrong(name, message))


def _nearest(side: int, row: ModelRow) -> list[int]:
    below = side // row.limits.multiple * row.limits.multiple
    both = (below, below + row.limits.multiple)
    return [near for near in both if row.limits.min_side <= near <= row.limits.max_side]
