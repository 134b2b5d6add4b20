"""Metrics of the sex classifier: accuracy and calibration. Every share comes with its Wilson
interval."""

import math

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from gaip3_pipeline.metrics.intervals import wilson_interval


def gender_figures(logits: np.ndarray, is_female: np.ndarray) -> dict[str, float | int]:
    """Metrics of out-of-fold ``logits (N, 2)`` (male, female) against ``is_female (N,) bool``.

    ``ece`` is the expected calibration error of the temperature-scaled scores (Guo et al. 2017),
    with the temperature fitted on the same scores; ``ece_plain`` is that of the unscaled scores.
    Keys that end in ``_low`` and ``_high`` are the bounds of 95 % intervals."""
    is_female = np.asarray(is_female, bool)
    margin = logits[:, 1].astype(np.float64) - logits[:, 0]
    score = expit(margin)
    correct = (score > 0.5) == is_female
    females, males = int(is_female.sum()), int((~is_female).sum())
    temperature = fit_temperature(margin, is_female)
    figures: dict[str, float | int] = {"n": len(margin), "n_female": females, "n_male": males}
    figures |= _share("accuracy", int(correct.sum()), len(margin))
    figures |= _share("female_recall", int(correct[is_female].sum()), females)
    figures |= _share("male_recall", int(correct[~is_female].sum()), males)
    figures["roc_auc"] = roc_auc(margin, is_female)
    figures["temperature"] = temperature
    figures["ece"] = expected_calibration_error(expit(margin / temperature), is_female)
    figures["ece_plain"] = expected_calibration_error(score, is_female)
    return figures


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve: the probability that a positive scores above a negative, ties
    counting half (Mann-Whitney). NaN if one of the classes is missing."""
    positive = np.asarray(positive, bool)
    return (
        float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else math.nan
    )


def scores_and_labels(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores of real and of generated pictures in one array, and ``bool`` labels, True for
    real."""
    return np.concatenate([real, generated]), np.repeat([True, False], [len(real), len(generated)])


def fit_temperature(margin: np.ndarray, positive: np.ndarray) -> float:
    """The temperature ``t`` in 0.05..20 that minimises the cross-entropy of the logits
    ``margin / t``, found on a grid."""
    grid = np.geomspace(0.05, 20.0, 241)
    sign = np.where(positive, 1.0, -1.0)
    losses = [np.logaddexp(0.0, -sign * margin / t).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def calibration_curve(
    score: np.ndarray, positive: np.ndarray, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean score, share of positives, n) of each non-empty bin; ``bins`` of equal width divide
    0..1."""
    which = np.minimum((score * bins).astype(int), bins - 1)
    return [
        (
            float(score[which == b].mean()),
            float(np.mean(positive[which == b])),
            int((which == b).sum()),
        )
        for b in range(bins)
        if (which == b).any()
    ]


def expected_calibration_error(score: np.ndarray, positive: np.ndarray, bins: int = 10) -> float:
    """The mean absolute difference between score and share of positives over the bins of
    :func:`calibration_curve`, weighted by n."""
    return sum(
        abs(mean - share) * n for mean, share, n in calibration_curve(score, positive, bins)
    ) / max(1, len(score))


def _share(name: str, successes: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(successes, n)
    return {name: successes / n if n else math.nan, f"{name}_low": low, f"{name}_high": high}
