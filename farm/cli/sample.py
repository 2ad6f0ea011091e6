"""The demo's picture, drawn here so that the repository holds no binary: a lighthouse on a cliff at dusk."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_WIDTH, _HEIGHT, _OVER = 768, 768, 2


def write_sample(path: Path) -> Path:
    """Writes the picture as PNG, 768x768; the same bytes each time."""
    width, height = _WIDTH * _OVER, _HEIGHT * _OVER
    random = np.random.default_rng(7)
    down = np.linspace(0, 1, height)[:, None]
    stops = [
        (0.0, (28, 42, 86)),
        (0.35, (96, 92, 140)),
        (0.55, (236, 150, 112)),
        (0.62, (252, 206, 150)),
        (1.0, (252, 206, 150)),
    ]
    sky = np.stack(
        [
            np.interp(down, [at for at, _ in stops], [colour[band] for _, colour in stops])
            for band in range(3)
        ],
        axis=2,
    )
    picture = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8).copy())
    _stars(picture, random)
    _hills(picture, random)
    _sea(picture, random)
    _lighthouse(picture)
    picture.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(path, "PNG")
    return path


def _stars(picture: Image.Image, random: np.random.Generator) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y, bright in zip(
        random.uniform(0, 1, 130),
        random.uniform(0, 0.4, 130) ** 1.3,
        random.uniform(0.3, 1, 130),
        strict=True,
    ):
        tone = int(255 * bright)
        at = (x * picture.width, y * picture.height)
        draw.ellipse((at[0], at[1], at[0] + 3 * bright + 1, at[1] + 3 * bright + 1), fill=(tone, tone, 235))


def _ridge(
    random: np.random.Generator, base: float, rough: float, points: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    x = np.linspace(0, 1, points)
    total = np.full(points, base)
    for octave in range(1, 6):
        total += rough / octave**1.4 * np.sin(2 * np.pi * (octave * x * 1.3 + random.uniform()))
    return total


def _hills(picture: Image.Image, random: np.random.Generator) -> None:
    draw = ImageDraw.Draw(picture)
    for base, rough, colour in ((0.60, 0.014, (150, 112, 132)), (0.635, 0.010, (104, 86, 118))):
        ridge = _ridge(random, base, rough, 200)
        line = [(i / 199 * picture.width, y * picture.height) for i, y in enumerate(ridge)]
        draw.polygon([*line, (picture.width, picture.height), (0, picture.height)], fill=colour)


def _sea(picture: Image.Image, random: np.random.Generator) -> None:
    width, height = picture.size
    top = int(height * 0.66)
    water = np.linspace(0, 1, height - top)[:, None, None] * np.array([-50.0, -40.0, -30.0]) + np.array(
        [118.0, 104.0, 132.0]
    )
    layer = Image.fromarray(
        np.broadcast_to(water, (height - top, width, 3)).clip(0, 255).astype(np.uint8).copy()
    )
    draw = ImageDraw.Draw(layer)
    for _ in range(900):
        depth = random.uniform(0, 1)
        x, y = random.uniform(0, width), depth * (height - top)
        glow = np.exp(-(((x / width) - 0.3) ** 2) / 0.02)
        tone = (118 + 120 * glow, 108 + 70 * glow, 138 + 10 * glow)
        shade = tuple(int(max(0.0, value - 50 * depth + random.uniform(-14, 14))) for value in tone)
        length = 12 + 90 * depth
        draw.line((x, y, x + length, y), fill=shade, width=int(1 + 4 * depth))
    picture.paste(layer.filter(ImageFilter.GaussianBlur(1.2)), (0, top))


def _lighthouse(picture: Image.Image) -> None:
    width, height = picture.size
    random = np.random.default_rng(11)
    draw = ImageDraw.Draw(picture)

    def at(x: float, y: float) -> tuple[float, float]:
        return x * width, y * height

    edge = [
        (0.40, 1.0),
        (0.43, 0.92),
        (0.49, 0.87),
        (0.52, 0.80),
        (0.60, 0.775),
        (0.86, 0.77),
        (0.95, 0.79),
        (1.0, 0.80),
        (1.0, 1.0),
    ]
    draw.polygon([at(*point) for point in edge], fill=(46, 42, 54))
    for _ in range(700):
        x, y = random.uniform(0.45, 1.0), random.uniform(0.79, 1.0)
        if y < 0.80 + 0.9 * max(0.0, 0.55 - x):
            continue
        tone = int(random.uniform(38, 76))
        draw.line(
            (*at(x, y), *at(x + random.uniform(0.005, 0.02), y + random.uniform(-0.006, 0.01))),
            (tone, tone - 4, tone + 8),
            4,
        )
    for band in range(6):  # a tapering tower in white and red
        low, high = 0.775 - band * 0.075, 0.775 - (band + 1) * 0.075
        wide, narrow = 0.062 - band * 0.0042, 0.062 - (band + 1) * 0.0042
        light = (232, 222, 214) if band % 2 == 0 else (176, 58, 52)
        for part in range(24):  # round: dark at the right, lit by the sky at the left
            left, right = part / 24, (part + 1) / 24
            shade = 1.0 - 0.62 * (left**1.6)
            corners = [
                at(0.72 + (2 * left - 1) * wide, low), at(0.72 + (2 * right - 1) * wide, low),
                at(0.72 + (2 * right - 1) * narrow, high), at(0.72 + (2 * left - 1) * narrow, high),
            ]  # fmt: skip
            draw.polygon(corners, fill=tuple(int(value * shade) for value in light))
    draw.rectangle((*at(0.672, 0.312), *at(0.768, 0.328)), fill=(38, 36, 46))
    draw.rectangle((*at(0.692, 0.255), *at(0.748, 0.312)), fill=(255, 232, 170))
    for x in (0.692, 0.71, 0.728, 0.746):
        draw.rectangle((*at(x, 0.255), *at(x + 0.003, 0.312)), fill=(38, 36, 46))
    draw.polygon([at(0.684, 0.257), at(0.756, 0.257), at(0.72, 0.205)], fill=(150, 46, 44))
    for x, y in ((0.72, 0.66), (0.72, 0.52), (0.72, 0.42)):
        draw.rectangle((*at(x - 0.009, y), *at(x + 0.009, y + 0.03)), fill=(52, 44, 58))
    draw.rectangle((*at(0.80, 0.715), *at(0.90, 0.775)), fill=(206, 196, 192))
    draw.polygon([at(0.788, 0.717), at(0.912, 0.717), at(0.85, 0.672)], fill=(128, 52, 50))
    draw.rectangle((*at(0.838, 0.735), *at(0.862, 0.775)), fill=(66, 50, 54))
    glow = Image.new("L", picture.size, 0)
    ImageDraw.Draw(glow).ellipse((*at(0.62, 0.18), *at(0.82, 0.38)), fill=150)
    glow = glow.filter(ImageFilter.GaussianBlur(width * 0.045))
    picture.paste(
        Image.new("RGB", picture.size, (255, 226, 160)), (0, 0), glow.point(lambda value: int(value * 0.55))
    )
