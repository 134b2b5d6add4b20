"""Critic-guided refinement of samples: the latents of all levels follow the guide's gradient and stay near where they were drawn."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from gaip3_pipeline.layout import ATTRIBUTES
from gaip3_pipeline.models.backend import gradient
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.settings import Retouch
from gaip3_pipeline.training.critic import TrainedCritic
from gaip3_pipeline.training.progress import Progress
from gaip3_pipeline.training.regressor import Regressor

RETOUCHED = ""
DIVERGED = "diverged: its gradient or picture is not a number"
NOT_BETTER = "no step raised the objective"


@dataclass(frozen=True)
class Retouched:
    """What was done to ``N`` samples.

    ``before``, ``after``: ``(N, H, W, 3) uint8``; ``noise``: the latents after, one ``(N, h, w, c)`` array per level;
    ``conditions (N, 5)``; ``guide_before``, ``guide_after``: the guide's logits ``(N,) float32`` of the undistorted pictures;
    ``reasons``: why a sample was kept as it was, empty for a retouched one; ``evaluations``: of the generator, for each sample.
    """

    before: np.ndarray
    after: np.ndarray
    noise: list[np.ndarray]
    conditions: np.ndarray
    guide_before: np.ndarray
    guide_after: np.ndarray
    reasons: list[str]
    evaluations: int


def retouch(
    nvae: NVAE,
    guide: TrainedCritic,
    regressors: Sequence[Regressor],
    noise: Sequence[np.ndarray],
    table: pd.DataFrame,
    settings: Retouch,
    progress: Progress | None = None,
) -> Retouched:
    """Retouch the samples drawn from ``noise`` (one ``(N, h, w, c)`` array per level) as ``table`` says.

    ``table`` has the five values, ``temperature`` and ``guidance`` of each sample. Each of ``settings.steps`` steps climbs

        log σ(guide(x)) − prior_weight · mean (ε − ε₀)² − values_weight · Σ_a (r_a(x) − r_a(x₀))²,   x = decode(ε, c),

    The logarithm of the chance of being real levels off where the guide is content: climbing the logit itself went far beyond
    real pictures and away from them. Steps follow the normalised gradient; after each the latents return to their own shell, the
    norm that they were drawn with, since that is where the Gaussian's mass lies. Of all steps the best picture is kept. A sample
    that diverges or that no step betters stays as it was and says why.
    """
    conditions = table[list(ATTRIBUTES)].to_numpy(np.float32)
    n = len(conditions)
    height, width = nvae.settings.height, nvae.settings.width
    before, after = (np.zeros((n, height, width, 3), np.uint8) for _ in range(2))
    guide_before, guide_after = (np.zeros(n, np.float32) for _ in range(2))
    latents = [level.astype(np.float32) for level in noise]
    reasons = [NOT_BETTER] * n
    ways = table[["temperature", "guidance"]].to_numpy(np.float64)
    done = 0
    for temperature, guidance in np.unique(ways, axis=0):
        rows = np.flatnonzero((ways == (temperature, guidance)).all(axis=1))
        climb = _Climb(nvae, guide, regressors, float(temperature), float(guidance), settings)
        for start in range(0, len(rows), settings.batch_size):
            chosen = rows[start : start + settings.batch_size]
            # The last batch is filled up by repetition: another shape would be compiled anew.
            filled = np.resize(chosen, min(settings.batch_size, len(rows)))
            batch = climb([level[filled] for level in noise], conditions[filled])
            some = len(chosen)
            before[chosen], after[chosen] = batch.before[:some], batch.after[:some]
            guide_before[chosen], guide_after[chosen] = batch.guide_before[:some], batch.guide_after[:some]
            for level, moved in zip(latents, batch.noise, strict=True):
                level[chosen] = moved[:some]
            for place, row in enumerate(chosen):
                reasons[row] = batch.reasons[place]
            done += some
            if progress:
                progress(done, n)
    return Retouched(before, after, latents, conditions, guide_before, guide_after, reasons, settings.steps + 1)


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation of a batch: ``(B,)`` objective, logit and whether all is finite, ``(B, A)`` values, flat pictures in 0..1."""

    objective: np.ndarray
    logit: np.ndarray
    values: np.ndarray
    picture: np.ndarray
    gradients: list[np.ndarray]
    finite: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """The outcome for one batch, fields as in :class:`Retouched`."""

    before: np.ndarray
    after: np.ndarray
    noise: list[np.ndarray]
    guide_before: np.ndarray
    guide_after: np.ndarray
    reasons: list[str]


class _Climb:
    """The ascent of one batch at fixed temperature and guidance."""

    def __init__(
        self,
        nvae: NVAE,
        guide: TrainedCritic,
        regressors: Sequence[Regressor],
        temperature: float,
        guidance: float,
        settings: Retouch,
    ) -> None:
        self._settings = settings
        levels = len(nvae.latent_shapes)

        def terms(arrays: list[Any]) -> Any:
            """Objective, guide's logit, values and picture of each sample side by side: ``(B, 2 + A + H·W·3)``."""
            noise, start, (conditions, held, weight) = arrays[:levels], arrays[levels : 2 * levels], arrays[2 * levels :]
            picture = nvae.decode(noise, conditions, temperature, guidance)
            batch = ops.shape(picture)[0]
            logit = guide.model(_sized(picture, guide.height, guide.width), training=False)
            measured = [r.model(_sized(picture, r.height, r.width), training=False) for r in regressors]
            values = ops.concatenate([ops.zeros((batch, 0)), *measured], axis=1)
            moved = [ops.reshape(ops.square(e - s), (batch, -1)) for e, s in zip(noise, start, strict=True)]
            distance = ops.mean(ops.concatenate(moved, axis=1), axis=1, keepdims=True)
            change = ops.sum(ops.square(values - held), axis=1, keepdims=True)
            objective = ops.log_sigmoid(logit) - settings.prior_weight * distance - weight * change
            # Only the objective is climbed; the rest rides along so that one evaluation gives everything.
            rest = ops.concatenate([logit, values, ops.reshape(picture, (batch, -1))], axis=1)
            return ops.concatenate([objective, ops.stop_gradient(rest)], axis=1)

        self._gradient = gradient(terms)
        self._values = sum(len(r.attributes) for r in regressors)
        self._shape = (nvae.settings.height, nvae.settings.width, 3)

    def __call__(self, start: list[np.ndarray], conditions: np.ndarray) -> _Batch:
        settings = self._settings
        noise, norms = [e.astype(np.float32) for e in start], [_norm(e) for e in start]
        # The first evaluation measures the values that all others hold.
        first = now = self._evaluate(noise, start, conditions, np.zeros((len(conditions), self._values), np.float32), 0.0)
        alive = now.finite.copy()
        objective, best, best_noise = np.where(alive, first.objective, -np.inf), first, noise
        for step in range(settings.steps):
            size = settings.step_size * (1.0 - step / settings.steps)
            uphill = _unit(now.gradients)
            # A sample that diverged waits at its start, where it can do no harm.
            noise = [_where(alive, _on_shell(e + size * g, r), s) for e, g, r, s in zip(noise, uphill, norms, start, strict=True)]
            now = self._evaluate(noise, start, conditions, first.values, settings.values_weight)
            alive &= now.finite
            better = alive & (now.objective > objective)
            objective = np.where(better, now.objective, objective)
            best = dataclasses.replace(best, logit=_where(better, now.logit, best.logit), picture=_where(better, now.picture, best.picture))
            best_noise = [_where(better, e, kept) for e, kept in zip(noise, best_noise, strict=True)]
        changed = np.any(best.picture != first.picture, axis=1)
        retouched = alive & changed
        before = self._pictures(first.picture)
        return _Batch(
            before=before,
            after=_where(retouched, self._pictures(best.picture), before),
            noise=[_where(retouched, b, s) for b, s in zip(best_noise, start, strict=True)],
            guide_before=first.logit,
            guide_after=_where(retouched, best.logit, first.logit),
            reasons=[RETOUCHED if r else NOT_BETTER if a else DIVERGED for r, a in zip(retouched, alive, strict=True)],
        )

    def _evaluate(
        self, noise: list[np.ndarray], start: list[np.ndarray], conditions: np.ndarray, held: np.ndarray, weight: float
    ) -> _Evaluation:
        outputs, gradients = self._gradient([*noise, *start, conditions, held, np.full((len(held), 1), weight, np.float32)])
        gradients = gradients[: len(noise)]
        finite = np.isfinite(outputs).all(axis=1)
        for g in gradients:
            finite &= np.isfinite(g).reshape(len(g), -1).all(axis=1)
        objective, logit, values, picture = np.split(outputs, [1, 2, 2 + self._values], axis=1)
        return _Evaluation(objective[:, 0], logit[:, 0], values, picture, gradients, finite)

    def _pictures(self, flat: np.ndarray) -> np.ndarray:
        levels = np.nan_to_num(flat, nan=0.0).reshape(-1, *self._shape) * 255.0
        return np.round(np.clip(levels, 0, 255)).astype(np.uint8)


def _sized(pictures: Any, height: int, width: int) -> Any:
    if tuple(pictures.shape[1:3]) == (height, width):
        return pictures
    return keras.ops.image.resize(pictures, (height, width), antialias=True)


def _norm(e: np.ndarray) -> np.ndarray:
    return np.sqrt((e.astype(np.float64) ** 2).sum(axis=tuple(range(1, e.ndim)), keepdims=True)).astype(np.float32)


def _unit(gradients: list[np.ndarray]) -> list[np.ndarray]:
    """Each sample's gradient over all levels, brought to a root mean square of 1; 0 stays 0."""
    flat = np.concatenate([g.reshape(len(g), -1) for g in gradients], axis=1).astype(np.float64)
    size = np.sqrt((flat**2).mean(axis=1))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=np.isfinite(size) & (size > 0)).astype(np.float32)
    return [np.nan_to_num(g) * scale.reshape(-1, *[1] * (g.ndim - 1)) for g in gradients]


def _on_shell(e: np.ndarray, norm: np.ndarray) -> np.ndarray:
    now = _norm(e)
    return np.where(now > 0, e * norm / np.maximum(now, 1e-12), e).astype(np.float32)


def _where(chosen: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
