"""Figures of a critic on held-out real pictures and fresh samples."""

import math

import numpy as np

from gaip3_pipeline.evaluation.classification import expected_calibration_error, roc_auc, sigmoid, wilson_interval
from gaip3_pipeline.training.critic import CriticResult


def critic_figures(result: CriticResult) -> dict[str, float | int]:
    """ROC AUC, accuracy with its Wilson interval, ECE and mean logits on the test split; ``n`` counts real and generated pictures.

    ``train_auc`` beside it shows how much was learnt by heart.
    """
    test, train = result.split == "test", result.split == "train"
    real, generated = result.real_logits[test], result.generated_logits[test]
    logits, is_real = both(real, generated)
    correct = int(((logits > 0) == is_real).sum())
    low, high = wilson_interval(correct, len(logits))
    return {
        "n": len(logits),
        "auc": roc_auc(logits, is_real),
        "train_auc": roc_auc(*both(result.real_logits[train], result.generated_logits[train])),
        "accuracy": correct / len(logits) if len(logits) else math.nan,
        "accuracy_low": low,
        "accuracy_high": high,
        "ece": expected_calibration_error(sigmoid(logits), is_real),
        "mean_logit_real": _mean(real),
        "mean_logit_generated": _mean(generated),
    }


def both(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of real and generated pictures in one array, and which are real."""
    return np.concatenate([real, generated]), np.repeat([True, False], [len(real), len(generated)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
