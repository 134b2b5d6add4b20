"""The groups of features: regions of the picture (trunk.py), then parts of the face (parts.py).

Without Keras, so that the models of the values, which need no more, start without it."""

import numpy as np

from gaip3_pipeline.features.part_measures import PART_AXES, PARTS

ROWS = 4  # of regions
# axes of a region; 80 and 60 raised R² on photographs by .003 only
PATCH_AXES, COLOUR_AXES, THUMBNAIL_AXES = 40, 30, 50
REGIONS = [
    f"{words}_{row}_{where}"
    for words in ("patches", "colours")
    for row in range(ROWS)
    for where in ("side", "middle")
] + ["copy"]
GROUPS = [*REGIONS, *PARTS]


def groups() -> np.ndarray:
    """``(G + 1,) int``: the limits of the features of each of ``GROUPS``."""
    of_trunk = trunk_groups()
    return np.append(of_trunk, of_trunk[-1] + np.cumsum(PART_AXES))


def trunk_groups() -> np.ndarray:
    """``(G + 1,) int``: the limits of the features of each of ``REGIONS``."""
    # a side has two halves
    sizes = [n for axes in (PATCH_AXES, COLOUR_AXES) for _ in range(ROWS) for n in (2 * axes, axes)]
    return np.cumsum([0, *sizes, THUMBNAIL_AXES])
