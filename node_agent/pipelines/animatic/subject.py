"""Finds what a picture is of: a soft mask of the foreground, from colour, place and edges; no learned weights.

First a guess at small size: what differs in colour from everything at the border is the subject, the more so near the
middle. GrabCut then cuts along the edges that are really there, and a guided filter carries the cut to full size.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.float32]

_GUESS_SIDE = 112
_CUT_SIDE = 208
"""Larger side in pixels of the pictures that the guess and the cut work on; GrabCut's time goes with the square."""

_LEAST_CONTRAST = 11.0
"""Lab units by which a subject must differ from the border; below it the picture is a landscape, a pattern or flat."""

_HEIGHT_WEIGHT = 18.0
"""Lab units that the whole height of the picture counts as."""

_HALF_CONTRAST = 16.0
"""Lab units at which a difference counts half."""

_LEAST_SHARE = 0.45
"""What stands out less than this, compared with what stands out most, is no subject of its own."""

_LEAST_AREA, _MOST_AREA = 0.008, 0.62
"""Share of the picture: a smaller subject is noise, a larger one is the scene itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The foreground: `alpha` `[height, width]`, 0..1, and how sure the cut is, 0..1."""

    alpha: Mask
    certainty: float


def find_subject(picture: NDArray[np.uint8]) -> Subject | None:
    """The foreground of `picture` (`[height, width, 3]` RGB), or None where nothing stands out from the rest."""
    height, width = picture.shape[:2]
    if min(height, width) < 24:
        return None
    cut_size = _fit(width, height, _CUT_SIDE)
    small = cv2.resize(picture, cut_size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    guess = _stand_out(small)
    if guess is None:
        return None
    hard = _cut(small, guess)
    if hard is None:
        return None
    certainty = _certainty(small, hard)
    if certainty <= 0.0:
        return None
    return Subject(_refine(picture, hard), certainty)


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(width, height))
    return max(8, round(width * scale)), max(8, round(height * scale))


def _stand_out(small: NDArray[np.uint8]) -> Mask | None:
    """How far each pixel's colour is from the nearest colours of the border, with a centre prior; 0..1."""
    rows, columns = small.shape[:2]
    width, height = _fit(columns, rows, _GUESS_SIDE)
    tiny = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(
        cv2.GaussianBlur(tiny, (0, 0), 1.0).astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB
    )
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    # Height counts as a colour: grass low at the border says little about green that is high up.
    features = np.dstack([lab[..., 0] * 0.6, lab[..., 1], lab[..., 2], y / height * _HEIGHT_WEIGHT]).reshape(
        -1, 4
    )
    edge = np.zeros((height, width), bool)
    edge[:2] = edge[:, :2] = edge[:, -2:] = True
    edge[-2:, : width // 5] = edge[-2:, width - width // 5 :] = True
    around = _nearest(features, features[edge.reshape(-1)])
    # The middle of the lower edge may be ground or the subject itself, so it counts as surroundings only close by.
    foot = np.zeros((height, width), bool)
    foot[-2:, width // 5 : width - width // 5] = True
    close = np.array([1.0, 1.0, 1.0, 75.0 / _HEIGHT_WEIGHT], np.float32)
    below = _nearest(features * close, features[foot.reshape(-1)] * close)
    distance = np.minimum(around, below).reshape(height, width)
    prior = np.exp(-(((x / width - 0.5) / 0.42) ** 2) - ((y / height - 0.52) / 0.55) ** 2)
    if float(np.percentile(distance * prior, 98.5)) < _LEAST_CONTRAST:
        return None
    # Bent, so that a red coat does not make the rest of its wearer look like background.
    score = (distance / (distance + _HALF_CONTRAST) * (0.2 + 0.8 * prior)).astype(np.float32)
    peak = float(np.percentile(score, 98.5))
    guess: Mask = cv2.resize(
        np.clip(score / peak, 0, 1), (columns, rows), interpolation=cv2.INTER_LINEAR
    ).astype(np.float32)
    return guess


def _nearest(features: Mask, samples: Mask) -> Mask:
    """Distance from each feature `[n, 4]` to the fourth nearest sample: one odd pixel must not hide a whole subject."""
    samples = samples[:: max(1, len(samples) // 200)]
    squares = (features**2).sum(1)[:, None] + (samples**2).sum(1)[None] - 2.0 * features @ samples.T
    kth = min(3, len(samples) - 1)
    nearest: Mask = np.sqrt(np.maximum(np.partition(squares, kth, axis=1)[:, kth], 0.0))
    return nearest


def _cut(small: NDArray[np.uint8], guess: Mask) -> NDArray[np.uint8] | None:
    """A hard mask (0 or 1) whose outline follows edges, or None where no subject of a likely size is left."""
    rows, columns = guess.shape
    otsu, _ = cv2.threshold((guess * 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    level = max(otsu / 255.0, _LEAST_SHARE)
    likely = guess > level
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[guess > min(0.95, level + 0.45)] = cv2.GC_FGD
    # Far from every likely pixel nothing can be the subject: this keeps GrabCut from jumping to a like colour elsewhere.
    reach = max(5, round(0.06 * max(rows, columns))) | 1
    around = cv2.dilate(
        likely.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    )
    # Things stand on the ground, where they stand out less: the cut may follow them down further than sideways.
    legs = max(3, round(0.2 * rows))
    below = cv2.dilate(likely.astype(np.uint8), np.ones((legs, 3), np.uint8), anchor=(1, legs - 1))
    labels[(around == 0) & (below == 0)] = cv2.GC_BGD
    # So does this, for wide areas that hardly stand out, such as haze between houses.
    haze = cv2.GaussianBlur(guess, (0, 0), 0.025 * max(rows, columns)) < 0.6 * level
    haze = (
        cv2.erode(haze.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    )  # not its rim, which may be a subject's edge
    labels[haze & ~likely] = cv2.GC_BGD
    rim = np.zeros_like(labels, bool)
    rim[:2] = rim[:, :2] = rim[:, -2:] = True
    labels[rim & ~likely] = cv2.GC_BGD
    certain = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not certain.any() or certain.all():
        return None
    cv2.setRNGSeed(1)  # GrabCut starts from k-means, which draws from OpenCV's generator of this thread
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr, labels, (0, 0, 0, 0), models[0], models[1], 3, cv2.GC_INIT_WITH_MASK)
    hard = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    return _tidy(hard, guess, level)


def _tidy(hard: NDArray[np.uint8], guess: Mask, level: float) -> NDArray[np.uint8] | None:
    """Without specks and pinholes; None where what is left is too small or nearly everything."""
    area = hard.size
    round3 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    closed = cv2.morphologyEx(hard, cv2.MORPH_CLOSE, round3)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return None
    sizes = stats[1:, cv2.CC_STAT_AREA]
    keep = np.flatnonzero(sizes >= max(0.12 * sizes.max(), 0.003 * area)) + 1
    # A second piece must stand out by itself: the first often pulls in something of like colour.
    best = sizes.argmax() + 1
    pieces = [piece for piece in keep if piece == best or float(guess[labels == piece].mean()) > 1.25 * level]
    kept = np.isin(labels, pieces).astype(np.uint8)
    # Holes in the subject are closed if small; the gap between two legs is larger and stays.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
    pinholes = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < 0.004 * area) + 1
    kept[np.isin(labels, pinholes)] = 1
    share = float(kept.mean())
    return kept.astype(np.uint8) if _LEAST_AREA <= share <= _MOST_AREA else None


def _certainty(small: NDArray[np.uint8], hard: NDArray[np.uint8]) -> float:
    """How much of the outline lies on real edges of the picture, 0..1, against edges anywhere else."""
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 0.8)
    slope_x, slope_y = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    strength = np.sqrt((slope_x**2 + slope_y**2).sum(2))
    kernel = np.ones((3, 3), np.uint8)
    outline = (cv2.dilate(hard, kernel) != cv2.erode(hard, kernel)).astype(bool)
    outline[:1] = outline[-1:] = False
    outline[:, :1] = outline[:, -1:] = False
    if not outline.any():
        return 0.0
    on, off = float(np.median(strength[outline])), float(np.median(strength[~outline]))
    return float(np.clip((on - 1.5 * off - 8.0) / 40.0, 0.0, 1.0))


def _refine(picture: NDArray[np.uint8], hard: NDArray[np.uint8]) -> Mask:
    """The mask at the picture's size, its edge drawn by the picture itself (guided filter, He et al. 2010)."""
    height, width = picture.shape[:2]
    ratio = max(height / hard.shape[0], width / hard.shape[1])
    radius = max(2, round(1.6 * ratio))
    stepped = cv2.resize(hard.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    coarse = cv2.GaussianBlur(stepped, (0, 0), max(0.6, 0.45 * ratio)).astype(np.float32)
    fine = _guided(picture, coarse, radius)
    alpha: Mask = np.clip((fine - 0.5) * 2.4 + 0.5, 0.0, 1.0).astype(np.float32)
    return alpha


def _guided(picture: NDArray[np.uint8], mask: Mask, radius: int, eps: float = 4e-4) -> Mask:
    """Guided filter with each colour channel as a guide of its own, the one that explains the mask best winning per pixel."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_mask = cv2.blur(mask, size).astype(np.float32)
    best_gain = np.zeros_like(mask)
    fine = mean_mask.copy()
    for channel in cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)):
        guide = channel.astype(np.float32) / np.float32(255)
        mean = cv2.blur(guide, size)
        variance = cv2.blur(guide * guide, size) - mean * mean
        covariance = cv2.blur(guide * mask, size) - mean * mean_mask
        slope = covariance / (variance + eps)
        gain = slope * covariance
        better = gain > best_gain
        best_gain[better] = gain[better]
        scale_here = cv2.blur(slope, size)
        result = scale_here * guide + cv2.blur(mean_mask - slope * mean, size)
        fine[better] = result[better]
    return fine
