"""What retouching did, by measures that it did not climb."""

from collections.abc import Sequence

import numpy as np

from gaip3_pipeline.evaluation.classification import roc_auc
from gaip3_pipeline.evaluation.critic import both
from gaip3_pipeline.evaluation.distances import distances_to_real
from gaip3_pipeline.layout import ATTRIBUTES
from gaip3_pipeline.training.critic import TrainedCritic, critic_logits
from gaip3_pipeline.training.regressor import Regressor, predict_values
from gaip3_pipeline.training.retouch import DIVERGED, NOT_BETTER, RETOUCHED, Retouched

BOOTSTRAPS = 2000


def judged(name: str, judge: TrainedCritic, result: Retouched, unseen: np.ndarray) -> dict[str, float | int]:
    """What a judge says before and after, its names beginning with ``name``; ``unseen (N, H, W, 3) uint8`` of its real side are new to it.

    ``…_gain`` is the mean rise of its logit with a 95 % bootstrap interval over samples.
    """
    before, after, real = (critic_logits(judge, images) for images in (result.before, result.after, unseen))
    low, high = bootstrap_interval(after - before)
    return {
        f"{name}_logit_before": float(before.mean()),
        f"{name}_logit_after": float(after.mean()),
        f"{name}_logit_real": float(real.mean()),
        f"{name}_gain": float((after - before).mean()),
        f"{name}_gain_low": low,
        f"{name}_gain_high": high,
        f"{name}_auc_before": roc_auc(*both(real, before)),
        f"{name}_auc_after": roc_auc(*both(real, after)),
    }


def retouch_figures(result: Retouched, regressors: Sequence[Regressor], real: np.ndarray) -> dict[str, float | int]:
    """Figures before and after: distances to real pictures ``(N, H, W, 3) uint8``, diversity, the five values, how much changed.

    ``values_mae`` is the mean absolute error of the five values as ``regressors`` measure them.
    """
    figures: dict[str, float | int] = {
        "n": len(result.before),
        "retouched": result.reasons.count(RETOUCHED),
        "kept_diverged": result.reasons.count(DIVERGED),
        "kept_not_better": result.reasons.count(NOT_BETTER),
        "evaluations_per_image": result.evaluations,
        "guide_logit_before": float(result.guide_before.mean()),
        "guide_logit_after": float(result.guide_after.mean()),
        "mean_change_grey_levels": float(np.abs(result.after.astype(np.float32) - result.before).mean()),
    }
    figures |= distances_to_real({"before": result.before, "after": result.after}, real)
    asked = {a: result.conditions[:, i] for i, a in enumerate(ATTRIBUTES)}
    for name, images in (("before", result.before), ("after", result.after)):
        errors = [np.abs(predict_values(r, [images]) - np.stack([asked[a] for a in r.attributes], axis=1)).mean() for r in regressors]
        if errors:
            figures[f"values_mae_{name}"] = float(np.mean(errors))
    return figures


def bootstrap_interval(values: np.ndarray, seed: int = 0, share: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean of ``values (N,)`` over 2,000 resamples. NaN without values."""
    if len(values) == 0:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAPS, len(values)))
    low, high = np.quantile(np.asarray(values, np.float64)[drawn].mean(axis=1), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
