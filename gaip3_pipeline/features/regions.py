"""The region of a portrait in which a value shows, from the points of the face
(features/landmarks.py), for people who label at a large scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.features.part_measures import EYES, OUTER_LIPS, OVAL

BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)


@dataclass(frozen=True)
class Region:
    """The ``points`` that the region surrounds, its margins as shares of their width, and its
    ``aspect``, width over height."""

    points: Sequence[int]
    beside: float
    above: float
    below: float
    aspect: float


# of attributes without an entry, such as the background, the whole picture shows the value
REGIONS = {
    "eyes": Region((*EYES[0], *EYES[1], *BROWS), 0.15, 0.05, 0.15, 2.2),
    "mouth": Region(OUTER_LIPS, 0.4, 0.25, 0.25, 1.7),
    "hair_color": Region(OVAL, 0.35, 0.6, -0.3, 1.0),
    "head": Region(OVAL, 0.25, 0.2, 0.1, 0.8125),
}


def region_of(region: Region, points: np.ndarray, height: int, width: int) -> tuple[int, ...]:
    """Left, top, right and bottom, in pixels of a picture of ``height`` x ``width``, of a region
    with its aspect inside the picture.

    ``points (468, 2 or 3)``: x and y in pixels."""
    there = points[list(region.points), :2]
    (left, top), (right, bottom) = there.min(axis=0), there.max(axis=0)
    span = right - left
    left, right = left - region.beside * span, right + region.beside * span
    top, bottom = top - region.above * span, bottom + region.below * span
    # points that are no face's may be anywhere
    across = max(right - left, (bottom - top) * region.aspect, 8.0)
    across = min(across, width, height * region.aspect)
    down = across / region.aspect
    x = np.clip((left + right - across) / 2, 0, width - across)
    y = np.clip((top + bottom - down) / 2, 0, height - down)
    return round(x), round(y), round(x + across), round(y + down)
