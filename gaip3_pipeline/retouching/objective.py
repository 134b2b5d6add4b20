"""The objective of retouching: pictures decoded from latents, the guide's logit of them, and
penalties of how much they changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from gaip3_pipeline.models.backend import compiled, gradient
from gaip3_pipeline.models.regressor import fitted
from gaip3_pipeline.sampling.draw import FaceGenerator, by_row, noise_maps
from gaip3_pipeline.settings import Retouch
from gaip3_pipeline.training.critic import TrainedCritic
from gaip3_pipeline.training.regressor import Regressor

COARSE = 4  # a picture's size over the size at which the identity of a person is compared


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a batch.

    ``objective``, ``logit``, ``finite``: ``(B,)``; ``held (B, K)``: the weighted values and coarse
    pixels whose change is penalised; ``picture (B, H·W·3)`` in 0..1; ``gradients`` of the
    objective, one ``(B, h, w, c)`` array per level, empty if they were not requested."""

    objective: np.ndarray
    logit: np.ndarray
    held: np.ndarray
    picture: np.ndarray
    gradients: list[np.ndarray]
    finite: np.ndarray


class LatentBatch:
    """The latents of a batch that is being retouched.

    ``noise`` to evaluate next, ``start`` as drawn and the ``best`` so far, each a list of ``(B, h,
    w, c) float32``; ``conditions (B, 5)``; ``maps (B, H, W, 1)`` and ``detail (B,)``, the noise map
    and the amount of detail; ``round (B,)``, the evaluations so far."""

    def __init__(self, noise: list[np.ndarray], conditions: np.ndarray, maps: np.ndarray) -> None:
        self.noise, self.start, self.best = (
            noise,
            [e.copy() for e in noise],
            [e.copy() for e in noise],
        )
        n = len(conditions)
        self.conditions, self.maps, self.detail = conditions, maps, np.zeros(n, np.float32)
        self.round = np.zeros(n, int)

    def begin(
        self,
        place: int,
        noise: Sequence[np.ndarray],
        conditions: np.ndarray,
        seed: int,
        detail: float,
    ) -> None:
        """Put a new sample at ``place``; its noise map is that of ``seed``."""
        for levels in (self.noise, self.start, self.best):
            for level, e in zip(levels, noise, strict=True):
                level[place] = e
        self.conditions[place], self.round[place] = conditions, 0
        self.maps[place], self.detail[place] = noise_maps([seed], *self.maps.shape[1:3])[0], detail

    def keep(self, which: np.ndarray) -> None:
        """Set the best latents to the present ones in the rows ``which (B,) bool``."""
        self.best = [where_rows(which, e, b) for e, b in zip(self.noise, self.best, strict=True)]


class RetouchObjective:
    """The objective for a generator at fixed temperature and guidance, with its guide and the
    regressors of the values that are to stay (see
    :class:`gaip3_pipeline.retouching.retoucher.Retoucher`)."""

    def __init__(
        self,
        generator: FaceGenerator,
        guide: TrainedCritic,
        regressors: Sequence[Regressor],
        temperature: float,
        guidance: float,
        settings: Retouch,
    ) -> None:
        nvae, detail = generator.nvae, generator.detail
        self.nvae, self.guide = nvae, guide
        self._shape = height, width, _ = (nvae.settings.height, nvae.settings.width, 3)
        self._coarse = (max(1, height // COARSE), max(1, width // COARSE))
        self._levels = levels = len(nvae.latent_shapes)
        self._held = (
            sum(len(r.attributes) for r in regressors) + self._coarse[0] * self._coarse[1] * 3
        )
        # The weight of the distance from the start: 0 at fidelity 1, dominating near fidelity 0.
        leash = settings.prior_weight * (1.0 / max(settings.fidelity, 1e-6) - 1.0)
        of_values, of_identity = (
            float(np.sqrt(w)) for w in (settings.values_weight, settings.identity_weight)
        )

        def terms(arrays: list[Any]) -> Any:
            """Objective, guide's logit, held values and picture of each sample, concatenated: ``(B,
            2 + K + H·W·3)``."""
            noise, start, (conditions, held, weight, maps, amount) = (
                arrays[:levels],
                arrays[levels : 2 * levels],
                arrays[2 * levels :],
            )
            picture = nvae.decode(noise, conditions, temperature, guidance)
            if detail is not None:
                change = detail(ops.concatenate([picture, maps], axis=-1))
                picture = ops.clip(picture + ops.reshape(amount, (-1, 1, 1, 1)) * change, 0.0, 1.0)
            batch = ops.shape(picture)[0]
            logit = ops.mean(
                guide.model(fitted(picture, guide.height, guide.width), training=False),
                axis=1,
                keepdims=True,
            )
            values = [
                of_values * r.model(fitted(picture, r.height, r.width), training=False)
                for r in regressors
            ]
            coarse = ops.reshape(fitted(picture, *self._coarse), (batch, -1))
            mean = of_identity / float(np.sqrt(self._coarse[0] * self._coarse[1] * 3))
            now = ops.concatenate([*values, mean * coarse], axis=1)
            moved = [
                ops.reshape(ops.square(e - s), (batch, -1))
                for e, s in zip(noise, start, strict=True)
            ]
            distance = ops.mean(ops.concatenate(moved, axis=1), axis=1, keepdims=True)
            change = ops.sum(ops.square(now - held), axis=1, keepdims=True)
            objective = ops.log_sigmoid(logit) - leash * distance - weight * change
            # Only the objective has a gradient; the rest is returned so that one evaluation gives
            # everything.
            rest = ops.concatenate([logit, now, ops.reshape(picture, (batch, -1))], axis=1)
            return ops.concatenate([objective, ops.stop_gradient(rest)], axis=1)

        self._with_gradient, self._without = gradient(terms), compiled(terms)

    def see(self, draw: LatentBatch, held: np.ndarray, with_gradient: bool) -> Evaluation:
        """Evaluate the latents of ``draw``, with gradients if ``with_gradient``.

        A sample's first round measures the values to hold; their change is penalised from the
        second round on."""
        weight = (draw.round > 0).astype(np.float32)[:, None]
        arrays = [
            *draw.noise,
            *draw.start,
            draw.conditions,
            held.astype(np.float32),
            weight,
            draw.maps,
            draw.detail,
        ]
        outputs, gradients = (
            self._with_gradient(arrays) if with_gradient else (self._without(arrays), [])
        )
        gradients = gradients[: self._levels]
        finite = np.isfinite(outputs).all(axis=1)
        for g in gradients:
            finite &= np.isfinite(g).reshape(len(g), -1).all(axis=1)
        objective, logit, now, picture = np.split(outputs, [1, 2, 2 + self._held], axis=1)
        return Evaluation(objective[:, 0], logit[:, 0], now, picture, gradients, finite)

    def nothing(self, n: int) -> Evaluation:
        """An evaluation of ``n`` samples filled with zeros, for a batch that was not evaluated
        yet."""
        picture = np.zeros((n, int(np.prod(self._shape))), np.float32)
        gradients = [np.zeros((n, *shape), np.float32) for shape in self.nvae.latent_shapes]
        zeros = np.zeros(n, np.float32)
        return Evaluation(
            zeros,
            zeros,
            np.zeros((n, self._held), np.float32),
            picture,
            gradients,
            np.ones(n, bool),
        )

    def picture(self, seen: Evaluation, place: int) -> np.ndarray:
        """``(H, W, 3) uint8``: the picture of ``seen`` at ``place``; NaN becomes black."""
        levels = np.nan_to_num(seen.picture[place], nan=0.0).reshape(self._shape) * 255.0
        return np.round(np.clip(levels, 0, 255)).astype(np.uint8)


def chosen(which: np.ndarray, a: Evaluation, b: Evaluation) -> Evaluation:
    """The rows ``which (B,) bool`` of ``a`` and the other rows of ``b``, without gradients."""
    return Evaluation(
        where_rows(which, a.objective, b.objective),
        where_rows(which, a.logit, b.logit),
        where_rows(which, a.held, b.held),
        where_rows(which, a.picture, b.picture),
        [],
        where_rows(which, a.finite, b.finite),
    )


def where_rows(which: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``np.where`` with a condition ``which (B,) bool`` for whole rows."""
    return np.where(by_row(which, a), a, b)
