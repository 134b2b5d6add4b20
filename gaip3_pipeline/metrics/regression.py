"""Metrics of models of the five values on pictures that they were not trained on.

Those with ``axis`` map arrays of equal shape to an array without that axis, or ``(N,)`` to a
number."""

import math
from typing import Any

import numpy as np
from scipy.stats import rankdata

# labels with more distinct values count as continuous and have no recall per level
MOST_LEVELS = 10


def regression_figures(
    predicted: np.ndarray, labelled: np.ndarray, is_female: np.ndarray | None = None
) -> dict[str, float | int]:
    """MAE, R², Spearman and Pearson correlation and n of ``(N,)`` values in 0..1, also by sex, and
    the recall of each label level.

    A prediction recalls a level if that level is the nearest of all levels that occur. Frequent
    levels are reported as well as rare ones, so that runs on different data have the same metrics.
    R² and correlations are NaN if the labels or the predictions do not vary."""
    figures = _figures(predicted, labelled)
    if is_female is not None:
        for name, chosen in (
            ("female", np.asarray(is_female, bool)),
            ("male", ~np.asarray(is_female, bool)),
        ):
            figures |= {
                f"{name}_{k}": v
                for k, v in _figures(predicted[chosen], labelled[chosen]).items()
                if k in ("n", "mae", "r2")
            }
    levels = level_recall(predicted, labelled)
    if len(levels) <= MOST_LEVELS:
        for level, (recall, n) in levels.items():
            figures |= {f"recall_at_{level:g}": recall, f"n_at_{level:g}": n}
    return figures


def r_squared(predicted: np.ndarray, labelled: np.ndarray, axis: int = -1) -> Any:
    """R²: 1 - residual sum of squares / total sum of squares, over ``axis``. Negative if worse than
    the labels' mean, NaN if the labels do not vary."""
    if not np.shape(labelled)[axis]:
        return math.nan
    total = ((labelled - labelled.mean(axis, keepdims=True)) ** 2).sum(axis)
    residual = ((labelled - predicted) ** 2).sum(axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _number(np.where(total > 0, 1.0 - residual / total, math.nan))


def mean_absolute_error(predicted: np.ndarray, labelled: np.ndarray, axis: int = -1) -> Any:
    """The mean absolute error over ``axis``; NaN without labels."""
    if not np.shape(labelled)[axis]:
        return math.nan
    return _number(np.abs(predicted - labelled).mean(axis))


def root_mean_square_error(predicted: np.ndarray, labelled: np.ndarray, axis: int = -1) -> Any:
    """The root mean square error over ``axis``; NaN without labels."""
    if not np.shape(labelled)[axis]:
        return math.nan
    return _number(np.sqrt(np.square(predicted - labelled).mean(axis)))


def pearson(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    """Linear correlation over ``axis``; NaN if one side does not vary."""
    if np.shape(a)[axis] < 2:
        return math.nan
    a, b = (x - x.mean(axis, keepdims=True) for x in (np.asarray(a, float), np.asarray(b, float)))
    scale = np.sqrt((a * a).sum(axis) * (b * b).sum(axis))
    with np.errstate(invalid="ignore"):
        found = np.clip((a * b).sum(axis) / scale, -1.0, 1.0)
    return _number(np.where(scale > 0, found, math.nan))


def spearman(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    """Rank correlation over ``axis``, ties with their mean rank; NaN if one side does not vary."""
    return pearson(rankdata(a, axis=axis), rankdata(b, axis=axis), axis)


def level_recall(predicted: np.ndarray, labelled: np.ndarray) -> dict[float, tuple[float, int]]:
    """For each level among the labels: (share of its pictures whose prediction is nearest to it,
    n)."""
    levels = np.unique(labelled)
    if len(levels) == 0:
        return {}
    nearest = levels[np.abs(predicted[:, None] - levels[None]).argmin(axis=1)]
    return {
        float(v): (float((nearest[labelled == v] == v).mean()), int((labelled == v).sum()))
        for v in levels
    }


def _number(found: np.ndarray) -> Any:
    """A figure without axes as ``float``, which JSON can hold."""
    return float(found) if found.ndim == 0 else found


def _figures(predicted: np.ndarray, labelled: np.ndarray) -> dict[str, float | int]:
    predicted, labelled = np.asarray(predicted, np.float64), np.asarray(labelled, np.float64)
    return {
        "n": len(labelled),
        "mae": mean_absolute_error(predicted, labelled),
        "r2": r_squared(predicted, labelled),
        "spearman": spearman(predicted, labelled),
        "pearson": pearson(predicted, labelled),
    }
