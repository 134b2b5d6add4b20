"""Retouching of samples: their latents are moved so that the guide's logit increases and the person
stays the same.

A method of ``methods`` proposes latents. This module decodes the proposals, evaluates them by one
objective, and keeps each sample's best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.retouching.methods import METHODS, Correction, Method
from gaip3_pipeline.retouching.objective import Evaluation, LatentBatch, RetouchObjective, chosen
from gaip3_pipeline.retouching.prior_critic import load_prior_critic
from gaip3_pipeline.sampling.draw import AGGREGATE, FaceGenerator, load_face_generator
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, TRANSPORT, Retouch
from gaip3_pipeline.training.critic import TrainedCritic, load_critic
from gaip3_pipeline.training.regressor import Regressor, load_regressor

RETOUCHED = ""
GOOD = "as real as real pictures already"
DIVERGED = "diverged: its gradient or picture is not a number"
NOT_BETTER = "no step raised the objective"
FIDELITY_0 = "fidelity 0"
CORRECTED = "drawn where pictures have their latents already"
BLIND = "the guide is of no use: "  # followed by the reason


@dataclass(frozen=True)
class Retouched:
    """The result of retouching ``N`` samples.

    ``before``, ``after``: ``(N, H, W, 3) uint8``; ``noise``: the latents after, one ``(N, h, w,
    c)`` array per level; ``guide_before``, ``guide_after``: the guide's logits ``(N,) float32``
    of the undistorted pictures; ``reasons``: why a sample was kept as it was, empty for a
    retouched one; ``evaluations (N,) int``: how often the generator was evaluated."""

    before: np.ndarray
    after: np.ndarray
    noise: list[np.ndarray]
    guide_before: np.ndarray
    guide_after: np.ndarray
    reasons: list[str]
    evaluations: np.ndarray


@dataclass(frozen=True)
class Tools:
    """The models that retouching needs: the generator, its guide, the regressors of the values to
    hold, and the correction of the prior."""

    generator: FaceGenerator
    guide: TrainedCritic
    regressors: Sequence[Regressor] = ()
    correction: Correction | None = None


def load_tools(root: DataRoot, settings: Retouch, generator: FaceGenerator | None = None) -> Tools:
    """The tools of ``root`` for the method of ``settings``; ``generator`` is used if given.

    Raises ``FileNotFoundError`` if one of the models does not exist yet.
    """
    correction: Correction | None = None
    if settings.method == TRANSPORT:
        correction = load_aggregate_posterior(root.aggregate_posterior)
    elif settings.method == NOISE_CONTRASTIVE:
        correction = load_prior_critic(root.prior_critic)
    return Tools(
        generator or load_face_generator(root),
        load_critic(root.critic),
        [load_regressor(root.control_regressor)],
        correction,
    )


class Retoucher:
    """Retouches samples with ``settings``; compiled functions are kept between calls.

    Proposals are compared by the objective

        J(x) = log σ(g(x)) − w_p · mean (ε − ε₀)² − w_v · Σ_a (r_a(x) − r_a(x₀))² − w_i · mean (x̄ −
        x̄₀)²,   x = decode(ε, c),

    with the guide's logit g, the predictions r of the regressors and the picture x̄ at a quarter of
    its size, which shows who a person is. The log probability of being real saturates for pictures
    that the guide finds real; ascent on the logit itself went far beyond the logits of real
    pictures. For the same reason a sample is finished as soon as it has the logit of a typical real
    picture. ``settings.fidelity`` is the strength of retouching: 0 leaves all samples unchanged, .5
    uses the step size and w_p of ``settings``, and 1 uses twice that step size and a w_p of 0. A
    sample that diverges, is good already, or is not improved stays unchanged, with the reason; so
    do all samples if the guide cannot separate real from generated pictures or separates them
    perfectly. Raises ``ValueError`` for a fidelity outside 0..1, and for a method without the
    correction that it needs."""

    def __init__(self, tools: Tools, settings: Retouch) -> None:
        if not 0.0 <= settings.fidelity <= 1.0:
            raise ValueError(f"retouch: fidelity must be 0 to 1, not {settings.fidelity}")
        self._kind = METHODS[settings.method]
        if self._kind.needs_correction and tools.correction is None:
            raise ValueError(f"retouch: {settings.method} needs a correction of the prior")
        self._tools, self._settings = tools, settings
        self._ways: dict[tuple[float, float], tuple[RetouchObjective, Method]] = {}
        why = blind(tools.guide)
        self.useless = "" if self._kind.takes_all else why
        # a guide of no use cannot tell either which samples are good already
        self._typical = np.inf if why else tools.guide.typical

    def __call__(
        self, noise: Sequence[np.ndarray], table: pd.DataFrame, progress: Progress | None = None
    ) -> Retouched:
        """Retouch the samples with the latents ``noise``, one ``(N, h, w, c)`` array per level, as
        the generator decodes them.

        ``table`` has a row for each sample: the five values, ``temperature`` and ``guidance`` with
        which ``noise`` is decoded; optionally ``seed`` of the noise map, the amount of ``detail``
        (default 0), and ``prior``, from which the latents were drawn."""
        conditions = table[list(ATTRIBUTES)].to_numpy(np.float32)
        seeds = table["seed"].to_numpy() if "seed" in table else np.arange(len(table))
        detail = (
            table["detail"].to_numpy(np.float32)
            if "detail" in table
            else np.zeros(len(table), np.float32)
        )
        corrected = (
            (table["prior"] == AGGREGATE).to_numpy()
            if "prior" in table
            else np.zeros(len(table), bool)
        )
        ways = table[["temperature", "guidance"]].to_numpy(np.float64)
        result = _allocate(self._tools.generator.nvae, noise)
        limit = (
            0 if self.useless or not self._settings.fidelity else self._kind.rounds(self._settings)
        )
        done = 0
        for temperature, guidance, already in np.unique(np.column_stack([ways, corrected]), axis=0):
            rows = np.flatnonzero(
                (ways == (temperature, guidance)).all(axis=1) & (corrected == already)
            )
            objective, method = self._way(float(temperature), float(guidance))
            rounds = 0 if already and self._kind.needs_correction else limit
            for _ in _Queue(
                objective,
                method,
                rounds,
                self._typical,
                rows,
                noise,
                conditions,
                seeds,
                detail,
                result,
                self._settings.batch_size,
            ):
                done += 1
                if progress:
                    progress(done, len(table))
        if not limit:
            why = BLIND + self.useless if self.useless else FIDELITY_0
            result.reasons[:] = [r if r == DIVERGED else why for r in result.reasons]
        elif self._kind.needs_correction:
            result.reasons[:] = [
                CORRECTED if a and r != DIVERGED else r
                for r, a in zip(result.reasons, corrected, strict=True)
            ]
        return result

    def _way(self, temperature: float, guidance: float) -> tuple[RetouchObjective, Method]:
        if (temperature, guidance) not in self._ways:
            kind, settings, t = self._kind, self._settings, self._tools
            objective = RetouchObjective(
                t.generator, t.guide, t.regressors, temperature, guidance, settings
            )
            self._ways[temperature, guidance] = objective, kind(settings, t.correction)
        return self._ways[temperature, guidance]


def blind(guide: TrainedCritic) -> str:
    """Why the gradient of ``guide`` cannot be used; empty if it can, or if its figures are unknown.

    With an AUC less than two standard deviations above chance (Mann and Whitney 1947) the gradient
    follows noise; with an AUC of 1 the density ratio is not finite."""
    if guide.held_out and guide.auc - 0.5 < 2 * np.sqrt(
        (2 * guide.held_out + 1) / (12 * guide.held_out**2)
    ):
        return (
            f"it cannot tell real from generated, AUC {guide.auc:.3f} on {guide.held_out} held-out"
            " pairs"
        )
    if guide.auc == 1.0:
        return (
            f"it separates real from generated perfectly, AUC 1 on {guide.held_out} held-out pairs;"
            " train the generator longer"
        )
    return ""


def _allocate(nvae: NVAE, noise: Sequence[np.ndarray]) -> Retouched:
    """Empty arrays for the results of ``N`` samples."""
    n = len(noise[0])
    before, after = (
        np.zeros((n, nvae.settings.height, nvae.settings.width, 3), np.uint8) for _ in range(2)
    )
    latents = [level.astype(np.float32) for level in noise]
    return Retouched(
        before,
        after,
        latents,
        np.zeros(n, np.float32),
        np.zeros(n, np.float32),
        [""] * n,
        np.zeros(n, int),
    )


@dataclass
class _Queue:
    """Retouches rows in a batch of fixed size: a finished row's place is filled with the next row,
    so that evaluations are not wasted.

    Iterating yields each row when it is finished; ``result`` then holds its outcome.
    """

    objective: RetouchObjective
    method: Method
    rounds: int
    typical: float
    rows: np.ndarray
    noise: Sequence[np.ndarray]
    conditions: np.ndarray
    seeds: np.ndarray
    detail: np.ndarray
    result: Retouched
    batch_size: int
    _next: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[int]:
        size = min(self.batch_size, len(self.rows))
        # A place with row -1 is idle but still computed: another batch size would be compiled
        # again.
        row = np.full(size, -1)
        maps = np.zeros((size, *self.result.before.shape[1:3], 1), np.float32)
        draw = LatentBatch(
            [np.zeros((size, *e.shape[1:]), np.float32) for e in self.noise],
            np.zeros((size, len(ATTRIBUTES)), np.float32),
            maps,
        )
        first = best = self.objective.nothing(size)
        highest = np.full(size, -np.inf)
        while True:
            for place in np.flatnonzero(row < 0)[: len(self.rows) - self._next]:
                row[place] = self.rows[self._next]
                new = row[place]
                latents, seed = [e[new] for e in self.noise], int(self.seeds[new])
                draw.begin(place, latents, self.conditions[new], seed, float(self.detail[new]))
                self._next += 1
            if (row < 0).all():
                return
            begins = draw.round == 0
            now = self.objective.see(
                draw, np.where(begins[:, None], 0.0, first.held), self.method.needs_gradient
            )
            first = chosen(begins, now, first)
            better = now.finite & (begins | (now.objective > highest) | self.method.takes_all)
            highest = np.where(better, now.objective, np.where(begins, -np.inf, highest))
            best = chosen(better | begins, now, best)
            draw.keep(better | begins)
            draw.round += 1
            good = best.logit >= self.typical
            over = (row >= 0) & (~now.finite | good | (draw.round > self.rounds))
            for place in np.flatnonzero(over):
                self._finish(
                    int(row[place]),
                    int(place),
                    draw,
                    first,
                    best,
                    finite=bool(now.finite[place]),
                    good=bool(good[place]),
                )
                yield int(row[place])
                row[place] = -1
            if (row >= 0).any():
                self.method.propose(draw, now)

    def _finish(
        self,
        row: int,
        place: int,
        draw: LatentBatch,
        first: Evaluation,
        best: Evaluation,
        *,
        finite: bool,
        good: bool,
    ) -> None:
        before, after = self.objective.picture(first, place), self.objective.picture(best, place)
        changed = finite and bool((best.picture[place] != first.picture[place]).any())
        result = self.result
        result.before[row], result.after[row] = before, after if changed else before
        result.guide_before[row] = first.logit[place]
        result.guide_after[row] = best.logit[place] if changed else first.logit[place]
        result.evaluations[row] = draw.round[place]
        if changed:
            for level, moved in zip(result.noise, draw.best, strict=True):
                level[row] = moved[place]
        result.reasons[row] = (
            RETOUCHED if changed else DIVERGED if not finite else GOOD if good else NOT_BETTER
        )
