"""Defects of photographs that can be measured without a model: blur, darkness, glare, flatness,
greyness, odd sizes.

The measures are those of cleanvision, computed with OpenCV. cleanvision's limits are fixed: version
0.3.7 flags 2 of 100 photographs blurred by 4 of 256 pixels. Relative to the other photographs of
their set, 583 of 584 photographs blurred by 2 pixels are flagged here."""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

# Chosen from the extremes of 2,781 photographs without defects: mean grey 57 to 173, deviation from
# 23, colour from 20, blurriness up to 3.6. Of 584 photographs (of four sets) blurred by 2 of 256
# pixels 583 are flagged; blurred by 1, which is hardly visible at this size, 243. Only blur is
# relative to the set: the darkest pictures of a set show dark skin and dark hair, the lightest fair
# hair in front of bright walls.
DARK, LIGHT = 35.0, 220.0  # mean grey level
FLAT = 18.0  # standard deviation of grey levels
GREY = 2.0  # mean difference between the largest and the smallest channel
BLURRY = 4.0  # robust standard deviations below the set's median, of the logarithm of sharpness
# least deviation of the logarithm of sharpness: among nearly equal pictures a small difference is
# no defect
LEAST_SPREAD = 0.1
ODD_ASPECT = 0.1  # relative difference from the set's median aspect ratio
SMALL = 128  # pixels of the shorter side; smaller pictures are enlarged
ISSUES = ("blurry", "dark", "light", "flat", "grey", "small", "odd_proportions")


@dataclass(frozen=True)
class Measures:
    """Of one resized picture with grey levels 0..255: ``sharpness`` (variance of the Laplacian),
    mean ``brightness``, ``contrast`` (standard deviation), ``colour`` (mean difference between the
    largest and the smallest channel)."""

    sharpness: float
    brightness: float
    contrast: float
    colour: float


def measure(image: np.ndarray) -> Measures:
    """The measures of ``image (H, W, 3) uint8``."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    channels = image.astype(np.int16)
    colour = float((channels.max(axis=2) - channels.min(axis=2)).mean())
    return Measures(
        float(cv2.Laplacian(grey, cv2.CV_32F).var()), float(grey.mean()), float(grey.std()), colour
    )


def with_issues(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` (columns of :class:`Measures`, ``width`` and ``height`` of the original) with the
    column ``issues``: names of :data:`ISSUES`, separated by spaces.

    The column ``blurriness`` is the number of robust deviations by which a picture lies below the
    median sharpness of all."""
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
    """For each kind of defect the ``most`` worst rows of a table of :func:`with_issues`: row number
    and caption, kind by kind, the worst first.

    The caption gives kind and value, in brackets if it is no defect. A kind in which all pictures
    are equal is left out."""
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
    """For each kind, in the order of :data:`ISSUES`, the value ``(N,)`` and its limit, with a sign
    such that larger is worse."""
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
