"""Defects of photographs that can be measured without a model: blur, darkness, glare, flatness,
greyness, odd sizes.

The measures that cleanvision takes, on OpenCV. cleanvision's limits are fixed: of 100
photographs blurred by 4 of 256 pixels it names 2 (0.3.7); beside the other photographs of their
own set, 583 of 584 that are blurred by 2 stand out."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

# Chosen by looking at the extremes of 2,781 photographs that are faultless: mean grey 57 to 173,
# deviation from 23, colour from 20, blurriness up to 3.6. Of 584 (of four sets) blurred by 2 of 256
# pixels 583 stood out; by 1, which hardly shows at this size, 243. Only blur goes by the set: the
# darkest of a set are dark skin and dark hair, the lightest fair hair before bright walls.
DARK, LIGHT = 35.0, 220.0  # mean grey level
FLAT = 18.0  # standard deviation of grey levels
GREY = 2.0  # mean difference between the greatest and the least channel
BLURRY = 4.0  # robust standard deviations below the set's median, of the logarithm of sharpness
# of the logarithm of sharpness: pictures that are nearly alike do not make a defect of a small
# difference
LEAST_SPREAD = 0.1
ODD_ASPECT = 0.1  # from the set's median proportions
SMALL = 128  # pixels of the shorter side: a picture below is enlarged
ISSUES = ("blurry", "dark", "light", "flat", "grey", "small", "odd_proportions")


@dataclass(frozen=True)
class Measures:
    """Of one resized picture: ``sharpness`` (variance of the Laplacian), mean ``brightness``,
    ``contrast`` (deviation), ``colour``."""

    sharpness: float
    brightness: float
    contrast: float
    colour: float


def measure(image: np.ndarray) -> Measures:
    """The measures of ``(H, W, 3) uint8``, in grey levels."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    channels = image.astype(np.int16)
    colour = float((channels.max(axis=2) - channels.min(axis=2)).mean())
    return Measures(
        float(cv2.Laplacian(grey, cv2.CV_32F).var()), float(grey.mean()), float(grey.std()), colour
    )


def with_issues(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` (columns of :class:`Measures`, ``width``, ``height`` of the original) with
    ``issues``: names of :data:`ISSUES` by spaces.

    ``blurriness`` is how many robust deviations a picture lies below the median sharpness of all.
    """
    log = np.log(table.sharpness.to_numpy(float) + 1e-3)
    middle = np.median(log) if len(log) else 0.0
    spread = max(1.4826 * np.median(np.abs(log - middle)), LEAST_SPREAD) if len(log) else 1.0
    table = table.assign(blurriness=(middle - log) / spread)
    flags = np.stack([value > limit for value, limit in _defects(table).values()], axis=1)
    names = np.array(ISSUES)
    return table.assign(
        blurriness=table.blurriness.round(2), issues=[" ".join(names[row]) for row in flags]
    )


def worst(table: pd.DataFrame, most: int) -> list[tuple[int, str]]:
    """Of each kind the ``most`` worst rows of :func:`with_issues`'s table: row number and caption,
    kind by kind, the worst first.

    The caption names kind and value, in brackets where that is no defect. A kind in which all
    pictures are equal is left out."""
    shown = []
    for name, (value, _) in _defects(table).items():
        rows = (
            np.argsort(-value, kind="stable")[:most].tolist()
            if len(value) and np.ptp(value) > 0
            else []
        )
        for row in rows:
            caption = f"{name} {abs(value[row]):.3g}"
            shown.append(
                (row, caption if name in table.issues.iloc[row].split() else f"({caption})")
            )
    return shown


def _defects(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, float]]:
    """Of each kind in the order of :data:`ISSUES`, the ``(N,)`` value that it goes by and its
    limit, signed so that more is worse."""
    width, height = table.width.to_numpy(float), table.height.to_numpy(float)
    aspect = width / np.maximum(height, 1)
    usual = np.median(aspect) if len(aspect) else 1.0
    found = {
        "blurry": (table.blurriness, BLURRY),
        "dark": (-table.brightness, -DARK),
        "light": (table.brightness, LIGHT),
        "flat": (-table.contrast, -FLAT),
        "grey": (-table.colour, -GREY),
        "small": (-np.minimum(width, height), -SMALL),
        "odd_proportions": (np.abs(aspect / usual - 1), ODD_ASPECT),
    }
    return {name: (np.asarray(found[name][0], float), found[name][1]) for name in ISSUES}
