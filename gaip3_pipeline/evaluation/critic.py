"""Figures and charts of a critic on out-of-fold pairs: ROC, calibration, and the influence of each
patch on the logit."""

import cv2
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from gaip3_pipeline.evaluation.charts import BLUE, GREY, RED, default_style, jpeg
from gaip3_pipeline.metrics.classification import (
    calibration_curve,
    expected_calibration_error,
    roc_auc,
    scores_and_labels,
)
from gaip3_pipeline.metrics.intervals import wilson_interval
from gaip3_pipeline.training.critic import CriticResult, TrainedCritic, critic_logits

PATCH = 1 / 6  # of a picture's height: the side of a hidden patch


def critic_figures(result: CriticResult) -> dict[str, float | int]:
    """ROC AUC, accuracy with its Wilson interval, ECE and mean logits out of fold; ``n`` counts
    real and generated pictures.

    ``train_auc``, on the training pairs, shows how much the critic overfits.
    """
    logits, is_real = scores_and_labels(result.real_logits, result.generated_logits)
    correct = int(((logits > 0) == is_real).sum())
    low, high = wilson_interval(correct, len(logits))
    return {
        "n": len(logits),
        "auc": roc_auc(logits, is_real),
        "train_auc": result.train_auc,
        "accuracy": correct / len(logits),
        "accuracy_low": low,
        "accuracy_high": high,
        "ece": expected_calibration_error(expit(logits), is_real),
        "mean_logit_real": float(result.real_logits.mean()),
        "mean_logit_generated": float(result.generated_logits.mean()),
    }


@default_style
def critic_chart(result: CriticResult, title: str) -> bytes:
    """A JPEG of the ROC curve, the reliability diagram and the logits, of pairs out of fold."""
    logits, is_real = scores_and_labels(result.real_logits, result.generated_logits)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    roc, reliability, histogram = figure.subplots(1, 3)
    order = np.argsort(-logits)
    hits = np.concatenate([[0], np.cumsum(is_real[order])]) / max(1, is_real.sum())
    alarms = np.concatenate([[0], np.cumsum(~is_real[order])]) / max(1, (~is_real).sum())
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    roc.plot(alarms, hits, color=BLUE)
    roc.set(xlabel="share of generated rated real", ylabel="share of real rated real")
    roc.set_title(f"AUC {roc_auc(logits, is_real):.3f}", fontsize=9)
    reliability.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    bins = calibration_curve(expit(logits), is_real)
    reliability.plot(
        [mean for mean, _, _ in bins], [share for _, share, _ in bins], "o-", color=BLUE
    )
    reliability.set(xlabel="predicted probability of real", ylabel="share that is real")
    reliability.set_title(
        f"ECE {expected_calibration_error(expit(logits), is_real):.3f}", fontsize=9
    )
    for wanted, colour, label in ((True, BLUE, "real"), (False, RED, "generated")):
        histogram.hist(logits[is_real == wanted], bins=30, color=colour, alpha=0.6, label=label)
    histogram.set(xlabel="logit", ylabel="pictures")
    histogram.legend(fontsize=8)
    figure.suptitle(f"{title}, out of fold (n = {len(logits):,})", fontsize=10)
    return jpeg(figure)


@default_style
def occlusion_chart(
    critic: TrainedCritic, real: np.ndarray, generated: np.ndarray, title: str
) -> bytes:
    """A JPEG of the mean decrease of a critic's logit when a patch is hidden, for each side.

    ``real``, ``generated (N, H, W, 3) uint8``. A patch has a sixth of the picture's height and is
    replaced by the blurred picture, which adds no edges (occlusion maps of Zeiler and Fergus 2014,
    arXiv 1311.2901, who use grey). Red: the patch is evidence for real; blue: for generated."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    maps = [
        (name, images, occlusion_map(critic, images))
        for name, images in (("real", real), ("generated", generated))
    ]
    largest = max(1e-6, *(float(np.abs(found).max()) for _, _, found in maps))
    for axes, (name, images, found) in zip(figure.subplots(1, 2), maps, strict=True):
        height, width = images.shape[1:3]
        axes.imshow(images.mean(axis=(0, 3)), cmap="grey", vmin=0, vmax=255)
        shown = axes.imshow(
            cv2.resize(found, (width, height)),
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            alpha=0.6,
        )
        axes.set_axis_off()
        axes.set_title(f"{name} (n = {len(images)})", fontsize=9)
    figure.colorbar(shown, label="decrease of the logit when hidden")
    figure.suptitle(title, fontsize=10)
    return jpeg(figure)


def occlusion_map(critic: TrainedCritic, images: np.ndarray) -> np.ndarray:
    """``(rows, columns) float32``: for each hidden patch the mean decrease of the logit of ``images
    (N, H, W, 3) uint8``."""
    height, width = images.shape[1:3]
    side = max(2, round(height * PATCH))
    blurred = np.stack([cv2.GaussianBlur(i, (0, 0), side / 2) for i in images])
    plain = critic_logits(critic, images)
    tops, lefts = (range(0, max(1, size - side + 1), max(1, side // 2)) for size in (height, width))
    found = np.zeros((len(tops), len(lefts)), np.float32)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            hidden = images.copy()
            place = (slice(None), slice(top, top + side), slice(left, left + side))
            hidden[place] = blurred[place]
            found[i, j] = float((plain - critic_logits(critic, hidden)).mean())
    return found
