"""Metrics of models of the five values on pictures that they were not trained on."""

import math

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


def r_squared(predicted: np.ndarray, labelled: np.ndarray) -> float:
    """R²: 1 - residual sum of squares / total sum of squares. Negative if worse than the labels'
    mean, NaN if the labels do not vary."""
    total = float(((labelled - labelled.mean()) ** 2).sum()) if len(labelled) else 0.0
    return 1.0 - float(((labelled - predicted) ** 2).sum()) / total if total > 0 else math.nan


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Linear correlation; NaN if one side does not vary."""
    if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties with their mean rank; NaN if one side does not vary."""
    return pearson(rankdata(a), rankdata(b))


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


def _figures(predicted: np.ndarray, labelled: np.ndarray) -> dict[str, float | int]:
    predicted, labelled = np.asarray(predicted, np.float64), np.asarray(labelled, np.float64)
    return {
        "n": len(labelled),
        "mae": float(np.abs(predicted - labelled).mean()) if len(labelled) else math.nan,
        "r2": r_squared(predicted, labelled),
        "spearman": spearman(predicted, labelled),
        "pearson": pearson(predicted, labelled),
    }
