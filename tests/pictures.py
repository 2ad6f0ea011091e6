"""Test pictures, drawn with numpy and Pillow: the same bytes each time, and no binary files in the repository.

`person`, `product` and `street` look enough like photographs that a render of them can be judged by eye; each comes with
the mask of its foreground, so that a test can measure the two layers apart. `ODD` holds the pictures that break things.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

_OVER = 2
"""Shapes are drawn this many times larger and then reduced, for smooth edges."""

Shape = Callable[[ImageDraw.ImageDraw, float, float], None]


@dataclass(frozen=True)
class Picture:
    """A drawn picture and where its foreground is: `foreground` is `[height, width]`, True on the subject."""

    image: Image.Image
    foreground: NDArray[np.bool_]


def noise(width: int, height: int, *, cell: float, seed: int, octaves: int = 4) -> NDArray[np.float32]:
    """Smooth noise from -1 to 1, `[height, width]`; `cell` is the size in pixels of the coarsest blobs."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        step = max(1.0, cell / 2**octave)
        grid = random.uniform(-1, 1, (max(2, round(height / step)), max(2, round(width / step)))).astype(
            np.float32
        )
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer)
        weight *= 0.55
    return np.clip(total / 1.6, -1, 1)


def _shade(
    width: int, height: int, colour: tuple[int, int, int], grain: NDArray[np.float32], amount: float
) -> Image.Image:
    """A surface of one colour with `grain` worked in; `amount` in grey levels."""
    base = np.asarray(colour, np.float32) + (grain * amount)[..., None]
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def _stencil(width: int, height: int, draw: Callable[[ImageDraw.ImageDraw, float], None]) -> Image.Image:
    """The mask (mode L) of what `draw(canvas, scale)` draws in white; `scale` takes 0..1000 units to pixels."""
    mask = Image.new("L", (width * _OVER, height * _OVER))
    draw(ImageDraw.Draw(mask), min(width, height) * _OVER / 1000)
    return mask.resize((width, height), Image.Resampling.BOX)


def _scaled(points: list[tuple[float, float]], scale: float) -> list[tuple[float, float]]:
    return [(x * scale, y * scale) for x, y in points]


def _gradient(
    width: int, height: int, stops: list[tuple[float, tuple[int, int, int]]]
) -> NDArray[np.float32]:
    """A vertical colour run, `[height, width, 3]`; `stops` are (0..1, colour) from top to bottom."""
    y = np.linspace(0, 1, height)
    columns = [np.interp(y, [s[0] for s in stops], [s[1][channel] for s in stops]) for channel in range(3)]
    return np.repeat(np.stack(columns, -1)[:, None, :], width, axis=1).astype(np.float32)


def _as_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _meadow(width: int, height: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> Image.Image:
    """A path through grass towards hills."""
    sky = _gradient(
        width,
        height,
        [(0, (92, 140, 196)), (0.42, (205, 214, 214)), (0.56, (250, 222, 180)), (1, (250, 222, 180))],
    )
    clouds = np.clip(noise(width, height, cell=min(width, height) / 3, seed=1) * 1.6 - 0.1, 0, 1) * np.clip(
        1 - y / 0.5, 0, 1
    )
    image = sky + clouds[..., None] * (np.array([250, 246, 240], np.float32) - sky) * 0.8
    ridges = [
        (0.50, 0.05, (146, 160, 178), 3),
        (0.56, 0.05, (104, 128, 128), 4),
        (0.61, 0.035, (78, 104, 78), 5),
    ]
    for level, swing, colour, seed in ridges:
        line = level + swing * noise(width, 2, cell=min(width, height) / 3, seed=seed, octaves=5)[0]
        grain = noise(width, height, cell=18, seed=seed + 20, octaves=3)
        cover = np.clip((y - line[None, :]) * min(width, height) / 1.5, 0, 1)[..., None]
        image = image * (1 - cover) + cover * (np.asarray(colour, np.float32) + grain[..., None] * 16)
    near = np.clip((y - 0.66) / 0.34, 0, 1)
    grass = noise(width, height, cell=7, seed=9, octaves=2)[..., None] * (14 + 26 * near[..., None])
    meadow = (
        np.array([112, 134, 62], np.float32) - near[..., None] * np.array([36, 34, 20], np.float32) + grass
    )
    cover = np.clip((y - 0.655) * min(width, height) / 2, 0, 1)[..., None]
    image = image * (1 - cover) + cover * meadow
    middle = width / min(width, height) / 2
    edge = np.abs(x - middle - 0.04 * np.sin(y * 7)) - (0.02 + 0.30 * near)
    path = np.clip(-edge * min(width, height) / 3, 0, 1)[..., None] * cover
    gravel = (
        np.array([186, 164, 128], np.float32)
        + noise(width, height, cell=5, seed=11, octaves=2)[..., None] * 22
    )
    return _as_image(image * (1 - path) + path * gravel)


def person(width: int = 768, height: int = 768) -> Picture:
    """Somebody in a red coat on a path before hills, with a low sun."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(width, height)
    middle = width / min(width, height) / 2
    picture = _meadow(width, height, x, y)
    shift = (width / min(width, height) - 1) * 500

    def at(points: list[tuple[float, float]], scale: float) -> list[tuple[float, float]]:
        return _scaled([(px + shift, py) for px, py in points], scale)

    def limb(
        draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], thick: float, scale: float
    ) -> None:
        draw.line(at(points, scale), fill=255, width=round(thick * scale), joint="curve")
        for px, py in at(points, scale):
            r = thick * scale / 2
            draw.ellipse((px - r, py - r, px + r, py + r), fill=255)

    coat_points = [
        (452, 345),
        (548, 345),
        (575, 400),
        (590, 610),
        (575, 668),
        (425, 668),
        (410, 610),
        (425, 400),
    ]

    def coat(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.polygon(at(coat_points, scale), fill=255)
        limb(draw, [(440, 375), (408, 480), (398, 585)], 46, scale)
        limb(draw, [(560, 375), (596, 470), (588, 580)], 46, scale)

    def legs(draw: ImageDraw.ImageDraw, scale: float) -> None:
        limb(draw, [(465, 650), (462, 770), (455, 888)], 56, scale)
        limb(draw, [(535, 650), (540, 770), (552, 878)], 56, scale)

    def boots(draw: ImageDraw.ImageDraw, scale: float) -> None:
        limb(draw, [(452, 892), (432, 908)], 48, scale)
        limb(draw, [(556, 882), (578, 898)], 48, scale)

    def head(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.ellipse([v * scale for v in (452 + shift, 225, 548 + shift, 348)], fill=255)
        draw.rectangle([v * scale for v in (478 + shift, 325, 522 + shift, 372)], fill=255)
        draw.ellipse([v * scale for v in (382 + shift, 570, 416 + shift, 618)], fill=255)
        draw.ellipse([v * scale for v in (572 + shift, 565, 606 + shift, 613)], fill=255)

    def hair(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.chord([v * scale for v in (445 + shift, 212, 555 + shift, 345)], 170, 372, fill=255)

    whole = Image.new("L", (width, height))
    light = np.clip((x - middle) * 4.5, -1, 1)
    parts = [
        (legs, (52, 58, 84), 31),
        (boots, (58, 40, 30), 32),
        (head, (206, 158, 128), 33),
        (coat, (172, 44, 40), 34),
        (hair, (62, 42, 30), 35),
    ]
    for shape, colour, seed in parts:
        stencil = _stencil(width, height, shape)
        cloth = noise(width, height, cell=min(width, height) / 40, seed=seed, octaves=3) * 0.8 + light * 0.9
        picture.paste(_shade(width, height, colour, cloth, 26), mask=stencil)
        whole = ImageChops.lighter(whole, stencil)
    return Picture(picture, np.asarray(whole) > 127)


def product(width: int = 768, height: int = 768) -> Picture:
    """A teal bottle with a label on a wooden table, before a brick wall."""
    unit = min(width, height) / 1000
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / unit
    table_top = 640.0
    row = np.floor(y / 64)
    brick = np.floor((x + 70 * (row % 2)) / 140)
    tone = (
        np.random.default_rng(5)
        .uniform(-1, 1, (64, 64))[row.astype(int) % 64, brick.astype(int) % 64]
        .astype(np.float32)
    )
    joint = ((y % 64) < 7) | (((x + 70 * (row % 2)) % 140) < 7)
    wall = (
        np.array([158, 98, 78], np.float32)
        + tone[..., None] * 16
        + noise(width, height, cell=9, seed=51, octaves=3)[..., None] * 14
    )
    mortar = (
        np.array([196, 184, 170], np.float32)
        + noise(width, height, cell=6, seed=52, octaves=2)[..., None] * 10
    )
    wall = np.where(joint[..., None], mortar, wall)
    wall *= (1.08 - 0.32 * np.clip(np.hypot(x - 350, y - 250) / 900, 0, 1))[..., None]
    grain = noise(width, max(2, height // 8), cell=22, seed=53, octaves=4)
    grain = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC))
    plank = np.floor((x - 500) / (60 + np.maximum(y - table_top, 0) * 0.5))
    table = np.array([150, 104, 62], np.float32) + grain[..., None] * 34 + ((plank % 3) - 1)[..., None] * 7
    cover = np.clip((y - table_top) / 2, 0, 1)[..., None]
    image = wall * (1 - cover) + cover * table
    centre = width / unit / 2
    shadow = np.exp(-(((x - centre - 60) / 170) ** 2) - ((y - 868) / 26) ** 2)
    picture = _as_image(image * (1 - 0.55 * shadow[..., None]))

    def body(draw: ImageDraw.ImageDraw, scale: float) -> None:
        left, right = (centre - 112) * scale, (centre + 112) * scale
        draw.rounded_rectangle((left, 370 * scale, right, 880 * scale), 46 * scale, fill=255)
        draw.ellipse((left, 310 * scale, right, 500 * scale), fill=255)
        draw.rectangle(((centre - 44) * scale, 205 * scale, (centre + 44) * scale, 400 * scale), fill=255)

    def cap(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.rounded_rectangle(
            ((centre - 56) * scale, 150 * scale, (centre + 56) * scale, 232 * scale), 12 * scale, fill=255
        )

    def label(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.rectangle(((centre - 112) * scale, 520 * scale, (centre + 112) * scale, 760 * scale), fill=255)

    def print_(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.ellipse(((centre - 46) * scale, 545 * scale, (centre + 46) * scale, 637 * scale), fill=255)
        for line, half in ((662, 80), (690, 56), (718, 68)):
            draw.rectangle(
                ((centre - half) * scale, line * scale, (centre + half) * scale, (line + 12) * scale),
                fill=255,
            )

    across = np.clip((x - centre) / 112, -1, 1)
    light = -0.9 * across**2 - 0.5 * across + 1.6 * np.exp(-(((across + 0.55) / 0.12) ** 2))
    whole = Image.new("L", (width, height))
    parts = [
        (body, (22, 116, 122), 61),
        (cap, (40, 40, 44), 62),
        (label, (236, 228, 208), 63),
        (print_, (150, 52, 46), 64),
    ]
    for shape, colour, seed in parts:
        stencil = _stencil(width, height, shape)
        surface = light + 0.25 * noise(width, height, cell=14, seed=seed, octaves=3)
        picture.paste(_shade(width, height, colour, surface, 42), mask=stencil)
        whole = ImageChops.lighter(whole, stencil)
    return Picture(picture, np.asarray(whole) > 127)


def street(width: int = 768, height: int = 768) -> Picture:
    """A street between houses in perspective, with a yellow sign on a post close to the camera."""
    unit = min(width, height) / 1000
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / unit
    vx, vy = width / unit * 0.46, 520.0
    image = _gradient(width, height, [(0, (150, 178, 206)), (0.6, (228, 226, 216)), (1, (228, 226, 216))])
    image += np.clip(noise(width, height, cell=260 * unit, seed=71), 0, 1)[..., None] * 26
    side = np.maximum(np.abs(x - vx), 1e-3)
    depth = 420 / side
    lift = (vy - y) * depth / 420
    ground = 120 / np.maximum(y - vy, 1e-3)
    asphalt = (
        np.array([104, 104, 108], np.float32)
        + noise(width, height, cell=5, seed=72, octaves=2)[..., None] * 14
    )
    lateral = (x - vx) * ground
    stripe = (np.abs(lateral) < 5) & ((np.floor(np.log(np.maximum(ground, 1e-3)) * 5) % 2) == 0)
    asphalt = np.where(stripe[..., None], np.float32(214), asphalt)
    pavement = (
        np.array([158, 150, 142], np.float32)
        + noise(width, height, cell=6, seed=73, octaves=2)[..., None] * 12
    )
    asphalt = np.where((np.abs(lateral) > 78)[..., None], pavement, asphalt)
    image = np.where((y > vy)[..., None], asphalt, image)
    for left, base, roof, seed in ((True, (178, 138, 112), 0.98, 74), (False, (146, 152, 160), 1.18, 75)):
        on_side = (x < vx) if left else (x >= vx)
        wall = on_side & (lift > -0.29) & (lift < roof) & (depth < 7.5)
        colour = (
            np.asarray(base, np.float32) * (1.02 - 0.05 * depth[..., None])
            + noise(width, height, cell=8, seed=seed, octaves=3)[..., None] * 10
        )
        across, up = (depth * 2.2) % 1.0, (lift * 3.0 + 0.9) % 1.0
        window = (across > 0.28) & (across < 0.72) & (up > 0.25) & (up < 0.75) & (lift > -0.15)
        frame = (across > 0.24) & (across < 0.76) & (up > 0.20) & (up < 0.80) & (lift > -0.15) & ~window
        colour = np.where(frame[..., None], np.float32(224), colour)
        colour = np.where(
            window[..., None], np.array([62, 74, 92], np.float32) + (up * 60)[..., None], colour
        )
        image = np.where(wall[..., None], colour, image)
    picture = (
        _as_image(image)
        .resize((width, height), Image.Resampling.LANCZOS)
        .filter(ImageFilter.GaussianBlur(0.6))
    )
    sx = width / unit * 0.62

    def post(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.rectangle(((sx - 13) * scale, 330 * scale, (sx + 13) * scale, 935 * scale), fill=255)
        draw.rounded_rectangle(
            ((sx - 44) * scale, 915 * scale, (sx + 44) * scale, 950 * scale), 10 * scale, fill=255
        )

    def plate(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.polygon(_scaled([(sx, 160), (sx + 135, 295), (sx, 430), (sx - 135, 295)], scale), fill=255)

    def arrow(draw: ImageDraw.ImageDraw, scale: float) -> None:
        draw.line(
            _scaled([(sx - 8, 370), (sx - 8, 300), (sx + 40, 262)], scale),
            fill=255,
            width=round(26 * scale),
            joint="curve",
        )
        draw.polygon(_scaled([(sx + 72, 242), (sx + 56, 292), (sx + 18, 246)], scale), fill=255)

    whole = Image.new("L", (width, height))
    for shape, colour, seed in (
        (post, (60, 64, 70), 81),
        (plate, (240, 190, 30), 82),
        (arrow, (36, 34, 30), 83),
    ):
        stencil = _stencil(width, height, shape)
        surface = 0.5 * noise(width, height, cell=20, seed=seed, octaves=4) - (x - sx) / 300
        picture.paste(_shade(width, height, colour, surface, 22), mask=stencil)
        whole = ImageChops.lighter(whole, stencil)
    return Picture(picture, np.asarray(whole) > 127)


SCENES: dict[str, Callable[..., Picture]] = {"person": person, "product": product, "street": street}
"""The pictures that are good enough to judge a render by eye."""


def _noise_picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


ODD: dict[str, Callable[[], Image.Image]] = {
    "flat": lambda: Image.new("RGB", (640, 480), (70, 110, 160)),
    "black": lambda: Image.new("RGB", (512, 512)),
    "gradient": lambda: Image.fromarray(
        _gradient(600, 600, [(0, (20, 30, 90)), (1, (250, 210, 150))]).astype(np.uint8)
    ),
    "noise": lambda: _noise_picture(300, 200, 8),
    "tall": lambda: person(360, 1600).image,
    "wide": lambda: street(2400, 300).image,
    "one pixel": lambda: Image.new("RGB", (1, 1), (200, 30, 30)),
    "sliver": lambda: _noise_picture(3, 900, 9),
    "huge": lambda: Image.new("RGB", (6000, 4000), (30, 120, 60)),
}
"""The pictures that break things: no subject at all, hardly any pixels, far too many, or no usable shape."""
