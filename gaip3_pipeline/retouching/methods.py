"""Methods that propose latents for retouching; retoucher.py decodes, evaluates and keeps them.

A method is built from the settings and the correction of the prior (None for a method without one),
and proposes latents round by round."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from gaip3_pipeline.retouching.objective import Evaluation, LatentBatch
from gaip3_pipeline.sampling.draw import by_row
from gaip3_pipeline.settings import ASCENT, NOISE_CONTRASTIVE, TRANSPORT, Retouch


class Correction(Protocol):
    """A map of latents of the prior to the region of the latents of pictures."""

    def move(
        self, noise: Sequence[np.ndarray], conditions: np.ndarray, fidelity: float
    ) -> list[np.ndarray]:
        """``noise``, a list of ``(N, h, w, c)``, moved there: completely at ``fidelity`` 1, not at
        all at 0."""


class Method:
    """A method of retouching."""

    needs_gradient: ClassVar[bool] = False
    needs_correction: ClassVar[bool] = False
    takes_all: ClassVar[bool] = False  # its only proposal is kept whatever its objective

    def __init__(self, settings: Retouch, correction: Correction | None) -> None:
        self.settings, self.correction = settings, correction

    @staticmethod
    def rounds(settings: Retouch) -> int:
        """The greatest number of proposals that are evaluated."""
        return settings.steps

    def propose(self, draw: LatentBatch, now: Evaluation) -> None:
        """Set ``draw.noise`` to the latents to evaluate next; ``now`` is the last evaluation."""
        raise NotImplementedError


class Ascent(Method):
    """Gradient ascent on the objective by the latents of all levels, a flow along the critic's
    density ratio (Ansari et al. 2021).

    Steps follow the normalised gradient, and their size decreases to 0. After each step the latents
    are scaled back to the norm that they were drawn with, since the mass of a Gaussian lies on that
    shell."""

    needs_gradient = True

    def propose(self, draw: LatentBatch, now: Evaluation) -> None:
        s = self.settings
        left = 1.0 - (draw.round - 1) / s.steps
        size = (2 * s.fidelity * s.step_size * left).astype(np.float32)
        for level, (e, uphill) in enumerate(zip(draw.noise, unit(now.gradients), strict=True)):
            draw.noise[level] = on_shell(e + by_row(size, e) * uphill, norm(draw.start[level]))


class Corrected(Method):
    """One step by a correction of the prior. The guide is used only to leave samples alone that are
    good already."""

    needs_correction = True
    takes_all = True

    @staticmethod
    def rounds(settings: Retouch) -> int:
        return 1

    def propose(self, draw: LatentBatch, now: Evaluation) -> None:
        assert self.correction is not None
        draw.noise = self.correction.move(draw.start, draw.conditions, self.settings.fidelity)


METHODS: dict[str, type[Method]] = {
    ASCENT: Ascent,
    TRANSPORT: Corrected,
    NOISE_CONTRASTIVE: Corrected,
}


def norm(e: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each row, ``(B, 1, …)``."""
    return np.sqrt(
        (e.astype(np.float64) ** 2).sum(axis=tuple(range(1, e.ndim)), keepdims=True)
    ).astype(np.float32)


def unit(gradients: list[np.ndarray]) -> list[np.ndarray]:
    """Each sample's gradient over all levels, scaled to a root mean square of 1; 0 stays 0."""
    flat = np.concatenate([g.reshape(len(g), -1) for g in gradients], axis=1).astype(np.float64)
    size = np.sqrt((flat**2).mean(axis=1))
    scale = np.divide(
        1.0, size, out=np.zeros_like(size), where=np.isfinite(size) & (size > 0)
    ).astype(np.float32)
    return [np.nan_to_num(g) * by_row(scale, g) for g in gradients]


def on_shell(e: np.ndarray, norm_of_start: np.ndarray) -> np.ndarray:
    """``e``, each row scaled to the norm ``norm_of_start (B, 1, …)``."""
    now = norm(e)
    return np.where(now > 0, e * norm_of_start / np.maximum(now, 1e-12), e).astype(np.float32)
