"""The aggregate posterior: a Gaussian for each latent group given the five values, and the map from
the prior to it.

A prior that is trained with its encoder does not match the aggregate posterior: some samples fall
into regions for which the decoder was not trained (Rosca et al. 2018, arXiv 1802.06847). A Gaussian
fitted afterwards to draws of the posterior corrects much of this without further training, as
ex-post density estimation does for autoencoders (Ghosh et al. 2020, arXiv 1903.12436). Faces are
drawn with it: see sampling/draw.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaip3_pipeline.tables.files import writing
from gaip3_pipeline.threads import one_blas_thread


@dataclass(frozen=True)
class AggregatePosterior:
    """For each latent group a Gaussian N((1, c) · offset, factor²) of its standardised noise,
    flattened to ``k`` numbers.

    ``offsets``: ``(6, k) float32`` each; ``factors``: symmetric ``(k, k) float32`` each, or
    ``(1, 1)`` for a multiple of the identity."""

    offsets: list[np.ndarray]
    factors: list[np.ndarray]

    @one_blas_thread
    def move(
        self, noise: Sequence[np.ndarray], conditions: np.ndarray, fidelity: float
    ) -> list[np.ndarray]:
        """``noise``, a list of ``(N, h, w, c)``, moved by the share ``fidelity`` in 0..1 of the way
        from N(0, I) to the aggregate posterior of ``conditions (N, 5)``.

        The way is the optimal transport map between the two Gaussians (Dowson and Landau 1982), the
        smallest change on average, so that a face changes as little as possible."""
        given = with_one(conditions)
        moved = []
        for e, offset, factor in zip(noise, self.offsets, self.factors, strict=True):
            flat = e.reshape(len(e), -1)
            there = given @ offset + (flat @ factor if factor.shape[0] > 1 else flat * factor)
            moved.append(
                ((1.0 - fidelity) * flat + fidelity * there).reshape(e.shape).astype(np.float32)
            )
        return moved

    def moved_back(self, noise: Sequence[np.ndarray], conditions: np.ndarray) -> list[np.ndarray]:
        """The inverse of :meth:`move` with ``fidelity`` 1: the noise that it maps to ``noise``."""
        given, found = with_one(conditions), []
        for e, offset, factor in zip(noise, self.offsets, self.factors, strict=True):
            rest = e.reshape(len(e), -1) - given @ offset
            flat = (
                np.linalg.solve(factor.astype(np.float64), rest.T).T
                if factor.shape[0] > 1
                else rest / factor
            )
            found.append(flat.reshape(e.shape).astype(np.float32))
        return found

    def log_density_gain(self, noise: Sequence[np.ndarray], conditions: np.ndarray) -> np.ndarray:
        """``(N,)``: the log density of ``noise`` under the aggregate posterior minus that under the
        prior, in nats."""
        given, total = with_one(conditions), np.zeros(len(conditions))
        for e, offset, factor in zip(noise, self.offsets, self.factors, strict=True):
            flat = e.reshape(len(e), -1).astype(np.float64)
            rest = flat - given @ offset
            if factor.shape[0] > 1:
                white, volume = (
                    np.linalg.solve(factor.astype(np.float64), rest.T).T,
                    np.linalg.slogdet(factor.astype(np.float64))[1],
                )
            else:
                white, volume = rest / factor, flat.shape[1] * np.log(factor[0, 0])
            total += 0.5 * (flat**2 - white**2).sum(axis=1) - volume
        return total

    def save(self, file: Path) -> None:
        """Write ``file`` (.npz), completely or not at all."""
        arrays = {
            f"{name}_{i}": a
            for name, part in (("offset", self.offsets), ("factor", self.factors))
            for i, a in enumerate(part)
        }
        with writing(file) as temporary, temporary.open("wb") as f:
            np.savez(f, allow_pickle=False, **arrays)


def load_aggregate_posterior(file: Path) -> AggregatePosterior:
    """The Gaussians that :meth:`AggregatePosterior.save` wrote. Raises ``FileNotFoundError`` if
    there is no file."""
    with np.load(file, allow_pickle=False) as arrays:
        groups = range(len(arrays.files) // 2)
        return AggregatePosterior(
            [arrays[f"offset_{i}"] for i in groups], [arrays[f"factor_{i}"] for i in groups]
        )


def with_one(conditions: np.ndarray) -> np.ndarray:
    """``conditions (N, 5)`` with a leading column of ones: ``(N, 6) float64``."""
    return np.concatenate(
        [np.ones((len(conditions), 1)), np.asarray(conditions, np.float64)], axis=1
    )
