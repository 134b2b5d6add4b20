"""How well a generator's sliders work: sweeps of one value at fixed latents, measured by regressors
that took no part in its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.charts import GREY, default_style, jpeg
from gaip3_pipeline.evaluation.distances import random_features
from gaip3_pipeline.evaluation.wording import ATTRIBUTE_NAMES
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.metrics.neighbours import mean_pairwise_distance
from gaip3_pipeline.metrics.regression import r_squared, spearman
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.sampling.draw import SEED_OFFSET, FaceGenerator
from gaip3_pipeline.settings import Samples
from gaip3_pipeline.training.critic import TrainedCritic, critic_logits
from gaip3_pipeline.training.regressor import Regressor, predict_values

FACES, STEPS = 48, 9


@dataclass(frozen=True)
class Sweeps:
    """Every value swept over the same faces. Axes: value swept (5), face, step of the sweep."""

    images: np.ndarray  # (5, N, V, H, W, 3) uint8
    asked: np.ndarray  # (5, N, V, 5) float32: all five requested values
    # (5, V) float32: the steps of the swept value, over the range that the data supports
    positions: np.ndarray
    measured: np.ndarray  # (5, N, V, 5) float32: the evaluators' predictions for the pictures
    guidance: float
    temperature: float

    @cached_property
    def drift(self) -> np.ndarray:
        """``(5, V)``: mean distance of random features from the sweep's middle, over the mean
        distance between different faces."""
        count, faces, steps = self.images.shape[:3]
        features = random_features()(self.images.reshape(-1, *self.images.shape[3:])).reshape(
            count, faces, steps, -1
        )
        middle = features[:, :, steps // 2]
        moved = np.linalg.norm(features - middle[:, :, None], axis=-1).mean(axis=1)
        return moved / np.mean([mean_pairwise_distance(m) for m in middle])


def sweep_all(
    generator: FaceGenerator,
    evaluators: Mapping[str, Regressor],
    values: np.ndarray,
    settings: Samples,
    faces: int = FACES,
    progress: Progress | None = None,
) -> Sweeps:
    """Sweep each value for ``faces`` faces, whose other values are rows of ``values (N, 5)`` of
    real pictures.

    A sweep covers the range that the generator supports; values outside are clipped to it.
    Temperature, guidance and detail are those of ``settings``, as in samples."""
    rows = np.asarray(
        values[np.random.default_rng(settings.seed).integers(0, len(values), faces)], np.float32
    )
    asked = np.broadcast_to(
        rows[None, :, None], (len(ATTRIBUTES), faces, STEPS, len(ATTRIBUTES))
    ).copy()
    low, high = generator.supported
    positions = np.linspace(low, high, STEPS, axis=1).astype(np.float32)
    for i in range(len(ATTRIBUTES)):
        asked[i, :, :, i] = positions[i]
    seeds = np.broadcast_to(
        (settings.seed + SEED_OFFSET["sweeps"] + np.arange(faces))[None, :, None], asked.shape[:3]
    ).ravel()
    flat = asked.reshape(-1, len(ATTRIBUTES))
    images = np.concatenate(list(generator.draw(seeds, flat, settings, progress)))
    measured = np.stack(
        [predict_values(evaluators[a], [images])[:, 0] for a in ATTRIBUTES], axis=-1
    )
    shape = asked.shape[:3]
    pictures, seen = images.reshape(*shape, *images.shape[1:]), measured.reshape(*shape, -1)
    return Sweeps(pictures, asked, positions, seen, settings.guidance, settings.temperature)


def evaluate_control(
    sweeps: Sweeps, judge: TrainedCritic, limits: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Figures and pictures of ``sweeps``: how each value follows its slider, the logits of
    ``judge`` at each position, and each evaluator's own held-out R² (``limits``, by attribute)."""
    images = sweeps.images.reshape(-1, *sweeps.images.shape[3:])
    logits = critic_logits(judge, images).reshape(sweeps.images.shape[:3])
    figures = control_figures(sweeps) | realism(sweeps, logits)
    figures |= {f"evaluator_r2_{a}": r2 for a, r2 in limits.items()}
    return figures, {"sweeps": sweep_strips(sweeps), "control": control_chart(sweeps, limits)}


def control_figures(sweeps: Sweeps) -> dict[str, float | int]:
    """Figures of each value: ``spearman_`` and ``r2_`` of asked against measured values over all
    faces, ``slope_`` of its own slider, ``drift_``, and the swept range ``from_``, ``to_``.

    ``leakage`` is the largest absolute slope off the diagonal of :func:`slopes`. Drift is the mean
    distance of random features from the middle of a sweep, over the mean distance between different
    faces."""
    matrix = slopes(sweeps)
    figures: dict[str, float | int] = {"faces": sweeps.images.shape[1], "steps": STEPS}
    for i, attribute in enumerate(ATTRIBUTES):
        asked, measured = sweeps.asked[i, :, :, i].ravel(), sweeps.measured[i, :, :, i].ravel()
        figures |= {
            f"spearman_{attribute}": spearman(asked, measured),
            f"r2_{attribute}": r_squared(measured, asked),
            f"slope_{attribute}": float(matrix[i, i]),
            f"drift_{attribute}": float(sweeps.drift[i].mean()),
            f"from_{attribute}": float(sweeps.positions[i, 0]),
            f"to_{attribute}": float(sweeps.positions[i, -1]),
        }
    off = np.abs(matrix - np.diag(np.diag(matrix)))
    return figures | {"leakage": float(off.max())}


def slopes(sweeps: Sweeps) -> np.ndarray:
    """``(5, 5)``: least-squares slope of measured value j (column) while value i (row) is swept
    at fixed latents."""
    grid = sweeps.positions.astype(np.float64) - sweeps.positions.mean(axis=1, keepdims=True)
    mean_over_faces = sweeps.measured.astype(np.float64).mean(axis=1)  # (5, V, 5)
    return np.einsum("iv,ivj->ij", grid, mean_over_faces) / np.maximum(
        (grid**2).sum(axis=1, keepdims=True), 1e-9
    )


def realism(sweeps: Sweeps, logits: np.ndarray) -> dict[str, float]:
    """How real a judge rates each slider position relative to the middle, from its ``logits (5, N,
    V)`` of the sweeps' pictures.

    ``least_real_{a}``: the least mean difference of the logit from that at the middle, paired by
    face, in standard errors; ``least_real_{a}_at``: its position."""
    figures: dict[str, float] = {}
    for attribute, positions, of_faces in zip(ATTRIBUTES, sweeps.positions, logits, strict=True):
        change = of_faces - of_faces[:, STEPS // 2, None]
        error = change.std(axis=0, ddof=1) / np.sqrt(len(change))
        apart = np.where(error > 0, change.mean(axis=0) / np.maximum(error, 1e-9), 0.0)
        worst = int(apart.argmin())
        figures |= {
            f"least_real_{attribute}": float(apart[worst]),
            f"least_real_{attribute}_at": float(positions[worst]),
        }
    return figures


def control_table(sweeps: Sweeps) -> pd.DataFrame:
    """One row per picture: ``swept``, ``face``, the five values ``asked_…`` and ``measured_…``."""
    count, faces, steps = sweeps.asked.shape[:3]
    table = pd.DataFrame(
        {
            "swept": np.repeat(ATTRIBUTES, faces * steps),
            "face": np.tile(np.repeat(np.arange(faces), steps), count),
        }
    )
    for name, values in (("asked", sweeps.asked), ("measured", sweeps.measured)):
        for j, attribute in enumerate(ATTRIBUTES):
            table[f"{name}_{attribute}"] = np.round(values[..., j].ravel().astype(np.float64), 4)
    return table


def sweep_strips(sweeps: Sweeps, faces: int = 2) -> bytes:
    """A JPEG of sweep strips: each value for ``faces`` faces, over the range that the data
    supports, at fixed latents."""
    height, width = sweeps.images.shape[3:5]
    pictures = sweeps.images[:, :faces].reshape(-1, height, width, 3)
    captions = [
        f"{a} {v:.2f}"
        for a, row in zip(ATTRIBUTES, sweeps.positions, strict=True)
        for _ in range(faces)
        for v in row
    ]
    title = (
        f"one value over its range, all else fixed; temperature {sweeps.temperature:g}, guidance"
        f" {sweeps.guidance:g}"
    )
    return contact_sheet(
        list(pictures), STEPS, cell=(80, 80 * height // width), captions=captions, title=title
    )


@default_style
def control_chart(sweeps: Sweeps, limits: Mapping[str, float]) -> bytes:
    """A JPEG: asked against measured for each value with the evaluator's own held-out R², the
    slopes as a heat map, and drift."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    figures = control_figures(sweeps)
    for i, attribute in enumerate(ATTRIBUTES):
        axes = panels[i]
        low, middle, high = np.quantile(sweeps.measured[i, :, :, i], (0.1, 0.5, 0.9), axis=0)
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        positions = sweeps.positions[i]
        for start, stop in ((0.0, positions[0]), (positions[-1], 1.0)):
            # too few pictures to learn from
            axes.axvspan(start, stop, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0)
        axes.fill_between(positions, low, high, color="#4477aa", alpha=0.25, linewidth=0)
        axes.plot(positions, middle, color="#4477aa", marker="o", markersize=3)
        axes.set(xlabel="asked", ylabel="measured", xlim=(0, 1), ylim=(-0.05, 1.05))
        scores = (
            f"R² {figures[f'r2_{attribute}']:.2f}, Spearman {figures[f'spearman_{attribute}']:.2f}"
        )
        axes.set_title(
            f"{ATTRIBUTE_NAMES[i]}: {scores}\n(evaluator held out: R² {limits[attribute]:.2f})",
            fontsize=8,
        )
    matrix, axes = slopes(sweeps), panels[5]
    axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    for i in range(len(ATTRIBUTES)):
        for j in range(len(ATTRIBUTES)):
            ink = "white" if abs(matrix[i, j]) > 0.6 else "black"
            axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(ATTRIBUTES)), ATTRIBUTE_NAMES, rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(len(ATTRIBUTES)), ATTRIBUTE_NAMES, fontsize=7)
    axes.set_title("slope of measured (column)\nwhile one is swept (row)", fontsize=8)
    for name, positions, drift in zip(ATTRIBUTE_NAMES, sweeps.positions, sweeps.drift, strict=True):
        panels[6].plot(positions, drift, label=name)
    panels[6].axhline(1.0, color="#bbbbbb", linewidth=1)
    panels[6].set_title("drift from the middle\n(1: another person)", fontsize=8)
    panels[6].set_xlabel("asked")
    panels[6].legend(fontsize=6)
    panels[7].set_visible(False)
    return jpeg(figure)
