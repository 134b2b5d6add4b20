"""What the input models look at, for people: patches, the regions that count; figures out of fold with intervals."""

import numpy as np
from matplotlib.figure import Figure

from gaip3_pipeline.evaluation.charts import jpeg
from gaip3_pipeline.evaluation.inputs import bootstrap, mean_absolute_error
from gaip3_pipeline.evaluation.regression import r_squared, regression_figures
from gaip3_pipeline.imaging.contact_sheet import contact_sheet


def with_intervals(predicted: np.ndarray, labelled: np.ndarray, is_female: np.ndarray) -> dict[str, float | int]:
    """:func:`regression_figures`, and ``r2_low``, ``r2_high``, ``mae_low``, ``mae_high``: 95 % bootstrap intervals over pictures."""
    figures = regression_figures(predicted, labelled, is_female)
    for name, figure in (("r2", r_squared), ("mae", mean_absolute_error)):
        figures[f"{name}_low"], figures[f"{name}_high"] = bootstrap(figure, predicted, labelled)
    return figures


def patch_sheet(directions: np.ndarray) -> bytes:
    """The patches of a dictionary ``(h, w, 3, P)``, each in its own range."""
    directions = directions.transpose(3, 0, 1, 2)
    reach = np.abs(directions).max(axis=(1, 2, 3), keepdims=True) + 1e-12
    pictures = np.rint(127.5 + 127.5 * directions / reach).astype(np.uint8)
    return contact_sheet(list(pictures), 25, cell=(32, 32), title="patches learned from the pictures")


def relevance_map(relevance: np.ndarray, attribute: str) -> bytes:
    """Where the process of ``attribute`` looks: each region's share of the relevances ``(G,)`` (models/features.REGIONS)."""
    share = np.asarray(relevance) / max(float(np.sum(relevance)), 1e-12)
    of_words = share[:-1].reshape(2, -1, 2)  # patches and colours; rows of the face; sides and middle
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    for axes, name, part in zip(figure.subplots(1, 2), ("patches", "colours"), of_words, strict=True):
        grid = part[:, [0, 1, 0]]
        axes.imshow(grid, vmin=0, vmax=share.max(), cmap="viridis", aspect=1.2)
        for (row, column), value in np.ndenumerate(grid):
            ink = "white" if value < 0.6 * share.max() else "black"
            axes.text(column, row, f"{value:.0%}", ha="center", va="center", color=ink, fontsize=9)
        axes.set(title=name, xticks=[0, 1, 2], xticklabels=["side", "middle", "side"], yticks=[])
    figure.suptitle(f"{attribute}: which region counts (small copy {share[-1]:.0%})", fontsize=10)
    return jpeg(figure)
