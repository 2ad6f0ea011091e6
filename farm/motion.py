"""Camera moves by name, and the words of a prompt that ask for one. Pure: the form checks names here, `animatic` reads prompts.

A move is named for what the camera does: "pan-left" turns the camera left, so what is in the picture goes right.
"""

import re
from dataclasses import dataclass

MOTIONS: tuple[str, ...] = (
    "auto",
    "zoom-in",
    "zoom-out",
    "pan-left",
    "pan-right",
    "pan-up",
    "pan-down",
    "forward",
    "orbit",
)
"""The names that `settings.motion` takes; "auto" reads the prompt."""

MAX_STRENGTH = 2.0
"""`settings.strength` goes from 0 (a still) over 1 (the usual move) to this."""

_DEFAULT = "orbit"
"""What "auto" does when the prompt asks for nothing: it shows depth best and keeps the subject where it is."""

_TO = r"(?: slowly| gently| quickly| slightly| smoothly)?(?: over)?(?: to)?(?: the)? "
_PAN = r"(?:pans?|panning|camera (?:moves?|moving|slides?|sliding|tracks?|tracking|turns?|drifts?))"
_TILT = r"(?:pans?|panning|tilts?|tilting|camera (?:moves?|moving|cranes?|rises?))"
_WALK = (
    r"(?:walk|walks|walking|move|moves|moving|go|goes|going|run|runs|running|drive|drives|driving|fly|flies|flying|"
    r"travel|travels|travelling|traveling|step|steps|stepping|ride|rides|riding|dolly|camera)"
)
_PHRASES: tuple[tuple[str, str], ...] = (
    (
        "zoom-out",
        r"zoom(?:s|ing|ed)?[ -](?:\w+ly )?out|(?:pull|pulls|pulling|dolly|dollies|dollying)[ -](?:\w+ly )?(?:out|back)",
    ),
    ("zoom-out", rf"{_WALK}(?: \w+ly)? backwards?|camera (?:moves?|moving) (?:back|away)"),
    (
        "zoom-in",
        r"zoom(?:s|ing)?(?! (?:lens|lenses|call|meeting))|(?:push|pushes|pushing)[ -]in|close[- ]?in on",
    ),
    ("zoom-in", r"camera (?:moves?|moving|comes?) (?:in|closer)"),
    ("pan-left", rf"{_PAN}{_TO}left(?:wards?)?|left(?:ward)? pan"),
    ("pan-right", rf"{_PAN}{_TO}right(?:wards?)?|right(?:ward)? pan"),
    ("pan-up", rf"{_TILT}{_TO}up(?:wards?)?|upward (?:pan|tilt)|camera rises?"),
    ("pan-down", rf"{_TILT}{_TO}down(?:wards?)?|downward (?:pan|tilt)"),
    (
        "forward",
        rf"{_WALK}(?: \w+)?(?: \w+ly)? (?:forwards?|ahead)|dolly(?:ing)? in|fly[- ]?through|walk[- ]?through",
    ),
    ("forward", r"forward (?:motion|movement|move|dolly)"),
    (
        "orbit",
        r"orbit(?:s|ing)?|camera (?:circles|circling|rotates|rotating|arcs)|(?:circles?|circling|rotates?|rotating) around",
    ),
)
_STILL = re.compile(
    r"\b(?:static|fixed|locked(?:[- ]off)?|still|motionless|unmoving) (?:camera|shot|frame)\b"
    r"|\bcamera (?:is |stays |remains |holds )?(?:perfectly |completely )?(?:static|still|fixed|locked)\b"
    r"|\b(?:no|without(?: any)?) (?:camera )?(?:motion|movement|move)\b"
)
_NOT = re.compile(r"\b(?:no|not|without|never|don't|do not|avoid)(?: \w+)?\s*$")
_MOVE_NOUN = r"(?:zoom|pan|tilt|orbit|dolly|camera|move|moves|movement|motion|push|walk|forward)"
_STRENGTHS: tuple[tuple[float, re.Pattern[str]], ...] = (
    (
        0.5,
        re.compile(
            rf"\b(?:slowly|gently|slightly|subtly)\b|\b(?:slow|gentle|slight|subtle)(?: \w+)? {_MOVE_NOUN}|^(?:slow|gentle|subtle)$"
        ),
    ),
    (
        1.6,
        re.compile(
            rf"\b(?:quickly|rapidly|dramatically)\b|\b(?:fast|quick|rapid|dramatic)(?: \w+)? {_MOVE_NOUN}|^(?:fast|quick|dramatic)$"
        ),
    ),
    (0.5, re.compile(rf"\b{_MOVE_NOUN}(?:s|ing)?(?: \w+){{0,2}} slow\b")),
    (1.6, re.compile(rf"\b{_MOVE_NOUN}(?:s|ing|ming)?(?: \w+){{0,2}} fast\b")),
)


@dataclass(frozen=True, slots=True)
class CameraMove:
    """What the camera does. `motion` is one of `MOTIONS` save "auto"; `strength` from 0 to `MAX_STRENGTH`.

    `asked` says that somebody named the move; otherwise `mirrored` (from the seed) may choose its direction.
    """

    motion: str
    strength: float
    asked: bool = True
    mirrored: bool = False


def read_prompt(prompt: str) -> tuple[str | None, float]:
    """The move that a prompt asks for (None if it asks for none; the first wins) and what it does to the strength.

    The factor is 0.5 for "slowly" or "gently", 1.6 for "fast" or "quickly", 0 for "static camera", else 1. An adjective
    counts only beside a word of the camera: "a fast car" changes nothing.
    """
    text = " ".join(prompt.lower().replace("\u2019", "'").replace("_", " ").split())
    if _STILL.search(text):
        return None, 0.0
    found: list[tuple[int, int, str]] = []
    for rank, (motion, pattern) in enumerate(_PHRASES):
        for match in re.finditer(rf"\b(?:{pattern})\b", text):
            if not _NOT.search(text[: match.start()]):
                found.append((match.start(), rank, motion))
                break
    factor = 1.0
    for clause in re.split(r"\s*[,;.:!]\s*", text):
        hits = [value for value, pattern in _STRENGTHS if pattern.search(clause)]
        if hits:
            factor = hits[0]
            break
    return (min(found)[2] if found else None), factor


def choose_move(motion: str, strength: float, prompt: str, seed: int) -> CameraMove:
    """The move to make: the one that `motion` names, or with "auto" the one that the prompt asks for.

    `strength` is clamped to 0..`MAX_STRENGTH` after the prompt's word for it (which only "auto" reads). `seed` decides only
    what nobody asked for: the direction of the default move.

    Raises:
        ValueError: `motion` is none of `MOTIONS`; callers have checked it.
    """
    if motion not in MOTIONS:
        raise ValueError(f"No camera move is named {motion!r}; there are {', '.join(MOTIONS)}.")
    factor, said = 1.0, None
    if motion == "auto":
        said, factor = read_prompt(prompt)
    power = min(max(strength * factor, 0.0), MAX_STRENGTH)
    if motion != "auto":
        return CameraMove(motion, power)
    if said is not None:
        return CameraMove(said, power)
    return CameraMove(_DEFAULT, power, asked=False, mirrored=seed % 2 == 1)
