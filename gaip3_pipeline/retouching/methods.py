"""The ways in which retouching proposes latents; retoucher.py draws, judges and keeps.

Each takes the scene, the settings and the correction of the prior (None where there is none),
and is asked for proposals round by round."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import keras
import numpy as np

from gaip3_pipeline.models.critic import evidence
from gaip3_pipeline.models.regressor import fitted
from gaip3_pipeline.retouching.objective import (
    Evaluation,
    LatentBatch,
    RetouchObjective,
)
from gaip3_pipeline.sampling.draw import by_row
from gaip3_pipeline.settings import ASCENT, NOISE_CONTRASTIVE, TRANSPORT, Retouch


class Correction(Protocol):
    """What knows where latents of pictures lie."""

    def move(
        self, noise: Sequence[np.ndarray], conditions: np.ndarray, fidelity: float
    ) -> list[np.ndarray]:
        """``noise``, a list of ``(N, h, w, c)``, moved there, all the way at ``fidelity`` 1."""


class Method:
    """One way of retouching."""

    needs_gradient: ClassVar[bool] = False
    needs_correction: ClassVar[bool] = False
    takes_all: ClassVar[bool] = False  # its one proposal is kept whatever the guide says
    holds_latents: ClassVar[bool] = True  # the objective has its term of the prior
    holds_person: ClassVar[bool] = True  # and that of identity

    def __init__(
        self, scene: RetouchObjective, settings: Retouch, correction: Correction | None
    ) -> None:
        self.scene, self.settings, self.correction = scene, settings, correction

    @staticmethod
    def rounds(settings: Retouch) -> int:
        """How many proposals are looked at, at most."""
        return settings.steps

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        """Set ``draw.noise`` to what is looked at next; ``now`` is what was seen last, ``best``
        the best of each sample."""
        raise NotImplementedError


class Ascent(Method):
    """The latents of all levels follow the objective's gradient, a flow along the critic's density
    ratio (Ansari et al. 2021).

    Steps follow the normalised gradient and shrink to 0; after each the latents return to their
    own shell, the norm that they were drawn with, since that is where the Gaussian's mass lies."""

    needs_gradient = True

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        s = self.settings
        left = 1.0 - (draw.round - 1) / s.steps
        size = (2 * s.fidelity * s.step_size * left).astype(np.float32)
        for level, (e, uphill) in enumerate(zip(draw.noise, unit(now.gradients), strict=True)):
            draw.noise[level] = on_shell(e + by_row(size, e) * uphill, norm(draw.start[level]))


class Corrected(Method):
    """The latents go where a correction of the prior says: all at once; the guide only says
    which samples are good already."""

    needs_correction = True
    takes_all = True

    @staticmethod
    def rounds(settings: Retouch) -> int:
        return 1

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        assert self.correction is not None
        draw.noise = self.correction.move(draw.start, draw.conditions, self.settings.fidelity)


class Rejection(Method):
    """Other samples of the same values are drawn; the guide's best is kept."""

    holds_latents = False
    holds_person = False

    @staticmethod
    def rounds(settings: Retouch) -> int:
        return round(2 * settings.fidelity * settings.steps)

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        draw.noise = draw.fresh()


class Temperature(Method):
    """The latents shrink by half of the fidelity, as drawing at a lower temperature would make
    them."""

    takes_all = True

    @staticmethod
    def rounds(settings: Retouch) -> int:
        return 1

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        draw.noise = [e * (1.0 - self.settings.fidelity / 2) for e in draw.start]


class Repair(Method):
    """The patch that the guide finds least real is drawn anew: the latents under it, of all levels
    that have places.

    Least real against what real pictures show there; a patch is tried once. Latents move as in
    pCN (Cotter et al. 2013), by the share ``fidelity`` at the patch's middle and less around it,
    so that they stay standard normal."""

    holds_latents = False

    def __init__(
        self, scene: RetouchObjective, settings: Retouch, correction: Correction | None
    ) -> None:
        super().__init__(scene, settings, correction)
        self._evidence = evidence(scene.guide.model)
        self._tried: np.ndarray | None = None

    def propose(self, draw: LatentBatch, now: Evaluation, best: Evaluation) -> None:
        guide = self.scene.guide
        pictures = (
            np.stack([self.scene.picture(best, place) for place in range(len(draw.seed))]).astype(
                np.float32
            )
            / 255.0
        )
        seen = fitted(pictures, guide.height, guide.width)
        found = keras.ops.convert_to_numpy(self._evidence(seen)).mean(axis=1) - guide.typical_map
        if self._tried is None:
            self._tried = np.zeros(found.shape, bool)
        self._tried[draw.round == 1] = False
        height, width = found.shape[1:]
        worst = np.where(self._tried, np.inf, found).reshape(len(found), -1).argmin(axis=1)
        y, x = np.divmod(worst, width)
        self._tried[np.arange(len(found)), y, x] = True
        for level, (e, drawn) in enumerate(zip(draw.best, draw.fresh(), strict=True)):
            h, w = e.shape[1:3]
            down = (np.arange(h) + 0.5)[None, :] / h - ((y + 0.5) / height)[:, None]
            across = (np.arange(w) + 0.5)[None, :] / w - ((x + 0.5) / width)[:, None]
            # sigma: half a patch
            near = np.exp(
                -2.0 * ((down[:, :, None] * height) ** 2 + (across[:, None, :] * width) ** 2)
            )
            share = (self.settings.fidelity * near * (h > 1))[..., None].astype(np.float32)
            draw.noise[level] = np.sqrt(1.0 - share**2) * e + share * drawn


METHODS: dict[str, type[Method]] = {
    TRANSPORT: Corrected,
    NOISE_CONTRASTIVE: Corrected,
    ASCENT: Ascent,
    "rejection": Rejection,
    "temperature": Temperature,
    "repair": Repair,
}


def norm(e: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each row, ``(B, 1, …)``."""
    return np.sqrt(
        (e.astype(np.float64) ** 2).sum(axis=tuple(range(1, e.ndim)), keepdims=True)
    ).astype(np.float32)


def unit(gradients: list[np.ndarray]) -> list[np.ndarray]:
    """Each sample's gradient over all levels, brought to a root mean square of 1; 0 stays 0."""
    flat = np.concatenate([g.reshape(len(g), -1) for g in gradients], axis=1).astype(np.float64)
    size = np.sqrt((flat**2).mean(axis=1))
    scale = np.divide(
        1.0, size, out=np.zeros_like(size), where=np.isfinite(size) & (size > 0)
    ).astype(np.float32)
    return [np.nan_to_num(g) * by_row(scale, g) for g in gradients]


def on_shell(e: np.ndarray, norm_of_start: np.ndarray) -> np.ndarray:
    """``e`` with each row's norm as given."""
    now = norm(e)
    return np.where(now > 0, e * norm_of_start / np.maximum(now, 1e-12), e).astype(np.float32)
