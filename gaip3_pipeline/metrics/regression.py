"""Figures of the models of the five values on pictures that they did not see."""

import math

import numpy as np
from scipy.stats import rankdata

MOST_LEVELS = 10  # labels of more levels are taken as measured, not as chosen from a few


def regression_figures(
    predicted: np.ndarray, labelled: np.ndarray, is_female: np.ndarray | None = None
) -> dict[str, float | int]:
    """MAE, R², Spearman, Pearson and n, also by sex, and the recall of each level, for ``(N,)``
    values in 0..1.

    A prediction recalls a level when that level is the nearest of all levels that occur. Common
    levels have a recall, too: names that come and go with the data would not compare from run to
    run. R² and correlations are NaN where the labels or the predictions do not vary."""
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
    """1 - residual over total sum of squares; negative when worse than the labels' mean, NaN
    when they do not vary."""
    total = float(((labelled - labelled.mean()) ** 2).sum()) if len(labelled) else 0.0
    return 1.0 - float(((labelled - predicted) ** 2).sum()) / total if total > 0 else math.nan


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Linear correlation; NaN when one side does not vary."""
    if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank; NaN when one side does not vary."""
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
