"""Pictures that show what the input models use: patches, parts of faces, relevance of feature
groups; and out-of-fold figures with intervals."""

import cv2
import numpy as np
from matplotlib.figure import Figure

from gaip3_pipeline.evaluation.charts import default_style, jpeg
from gaip3_pipeline.features.groups import GROUPS, REGIONS
from gaip3_pipeline.features.landmarks import find_parts
from gaip3_pipeline.features.part_measures import regions
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.metrics.intervals import bootstrap_interval
from gaip3_pipeline.metrics.regression import (
    mean_absolute_error,
    r_squared,
    regression_figures,
)

TINTS = {"background": (40, 90, 255), "hair": (255, 210, 0), "skin": (255, 60, 60)}


def with_intervals(
    predicted: np.ndarray, labelled: np.ndarray, is_female: np.ndarray
) -> dict[str, float | int]:
    """:func:`regression_figures`, and ``r2_low``, ``r2_high``, ``mae_low``, ``mae_high``: 95 %
    bootstrap intervals over pictures."""
    figures = regression_figures(predicted, labelled, is_female)
    for name, figure in (("r2", r_squared), ("mae", mean_absolute_error)):
        figures[f"{name}_low"], figures[f"{name}_high"] = bootstrap_interval(
            figure, predicted, labelled
        )
    return figures


def patch_sheet(directions: np.ndarray) -> bytes:
    """A JPEG of the patches of a dictionary ``(h, w, 3, P)``, each scaled to its own range."""
    directions = directions.transpose(3, 0, 1, 2)
    reach = np.abs(directions).max(axis=(1, 2, 3), keepdims=True) + 1e-12
    pictures = np.rint(127.5 + 127.5 * directions / reach).astype(np.uint8)
    return contact_sheet(
        list(pictures), 25, cell=(32, 32), title="patches learned from the pictures"
    )


def parts_sheet(pictures: np.ndarray) -> bytes:
    """A JPEG of ``pictures (N, H, W, 3) uint8`` at twice the size, with the points of the face, and
    background, hair and skin tinted."""
    parts, shown = find_parts(pictures), []
    for picture, person, points in zip(pictures, parts.person, parts.points, strict=True):
        large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR).astype(
            np.float32
        )
        found = regions(cv2.resize(person, None, fx=2, fy=2), 2 * points)
        for name, tint in TINTS.items():
            large[found[name]] = 0.6 * large[found[name]] + 0.4 * np.array(tint)
        for x, y, _ in 2 * points:
            cv2.circle(large, (round(float(x)), round(float(y))), 0, (255, 255, 255), -1)
        shown.append(large.astype(np.uint8))
    return contact_sheet(
        shown,
        8,
        cell=(156, 192),
        title="hair (yellow), background (blue), skin (red), points of the face",
    )


@default_style
def relevance_map(relevance: np.ndarray, attribute: str) -> bytes:
    """A JPEG of each feature group's share of the ``relevance (G,)`` of the process of
    ``attribute`` (features/groups.py)."""
    share = np.asarray(relevance) / max(float(np.sum(relevance)), 1e-12)
    # patches and colours; rows; sides and middle
    of_words, others = share[: len(REGIONS) - 1].reshape(2, -1, 2), share[len(REGIONS) - 1 :]
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    first, second, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
    for axes, name, part in zip((first, second), ("patches", "colours"), of_words, strict=True):
        grid = part[:, [0, 1, 0]]
        axes.imshow(grid, vmin=0, vmax=share.max(), cmap="viridis", aspect=1.2)
        for (row, column), value in np.ndenumerate(grid):
            ink = "white" if value < 0.6 * share.max() else "black"
            axes.text(column, row, f"{value:.0%}", ha="center", va="center", color=ink, fontsize=9)
        axes.set(title=name, xticks=[0, 1, 2], xticklabels=["side", "middle", "side"], yticks=[])
    names = ["thumbnail", *(name.replace("_", " ") for name in GROUPS[-len(others) + 1 :])]
    bars.bar_label(
        bars.barh(names, others, color="tab:green"),
        [f"{value:.0%}" for value in others],
        padding=2,
        fontsize=9,
    )
    bars.set(title="parts of the face", xlim=(0, 1.25 * share.max()), xticks=[])
    bars.invert_yaxis()
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle(f"{attribute}: relevance of each group of features", fontsize=10)
    return jpeg(figure)
