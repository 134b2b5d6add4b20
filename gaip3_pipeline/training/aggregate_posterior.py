"""The aggregate posterior: what latents pictures have, as a Gaussian of each group given the five values, and the way there.

A prior that was trained beside its encoder misses where the encoder puts pictures: samples fall into places that no picture taught
(Rosca et al. 2018, arXiv 1802.06847). A Gaussian fitted afterwards to the posterior's draws mends much of it at no cost, as ex-post
density estimation (Ghosh et al. 2020, arXiv 1903.12436) does for autoencoders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.covariance import ledoit_wolf

from gaip3_pipeline.evaluation.generate import encoded
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.tables.files import writing

DRAWS = 3  # of the posterior for each picture
# Numbers of a group up to which its covariance is fitted. Of the finer groups measured it shrank to a multiple of the identity anyway.
LARGEST = 1024


@dataclass(frozen=True)
class AggregatePosterior:
    """For each latent group a Gaussian N((1, c) · offset, factor²) of its standardised noise, flattened to ``k`` numbers.

    ``offsets``: ``(6, k) float32`` each; ``factors``: symmetric ``(k, k) float32`` each, or ``(1, 1)`` for a multiple of the identity.
    """

    offsets: list[np.ndarray]
    factors: list[np.ndarray]

    def move(self, noise: Sequence[np.ndarray], conditions: np.ndarray, fidelity: float) -> list[np.ndarray]:
        """Noise, a list of ``(N, h, w, c)``, moved the share ``fidelity`` of its way from N(0, I) to the aggregate posterior.

        The way is the shortest of all maps between the two Gaussians, optimal transport (Dowson and Landau 1982), so that a face stays
        as much itself as can be.
        """
        given = _with_one(conditions)
        moved = []
        for e, offset, factor in zip(noise, self.offsets, self.factors, strict=True):
            flat = e.reshape(len(e), -1)
            there = given @ offset + (flat @ factor if factor.shape[0] > 1 else flat * factor)
            moved.append(((1.0 - fidelity) * flat + fidelity * there).reshape(e.shape).astype(np.float32))
        return moved

    def log_density_gain(self, noise: Sequence[np.ndarray], conditions: np.ndarray) -> np.ndarray:
        """``(N,)`` nats by which this density of ``noise`` is above the prior's."""
        given, total = _with_one(conditions), np.zeros(len(conditions))
        for e, offset, factor in zip(noise, self.offsets, self.factors, strict=True):
            flat = e.reshape(len(e), -1).astype(np.float64)
            rest = flat - given @ offset
            if factor.shape[0] > 1:
                white, volume = np.linalg.solve(factor.astype(np.float64), rest.T).T, np.linalg.slogdet(factor.astype(np.float64))[1]
            else:
                white, volume = rest / factor, flat.shape[1] * np.log(factor[0, 0])
            total += 0.5 * (flat**2 - white**2).sum(axis=1) - volume
        return total

    def save(self, file: Path) -> None:
        """Write ``file`` (.npz), whole or not at all."""
        arrays = {f"{name}_{i}": a for name, part in (("offset", self.offsets), ("factor", self.factors)) for i, a in enumerate(part)}
        with writing(file) as temporary, temporary.open("wb") as f:
            np.savez(f, allow_pickle=False, **arrays)


def load_aggregate_posterior(file: Path) -> AggregatePosterior:
    """What :meth:`AggregatePosterior.save` wrote. Raises ``FileNotFoundError`` when there is none."""
    with np.load(file, allow_pickle=False) as arrays:
        groups = range(len(arrays.files) // 2)
        return AggregatePosterior([arrays[f"offset_{i}"] for i in groups], [arrays[f"factor_{i}"] for i in groups])


def fit_aggregate_posterior(
    nvae: NVAE, images: np.ndarray, values: np.ndarray, split: np.ndarray
) -> tuple[AggregatePosterior, dict[str, float | int]]:
    """Fit to three posterior draws of each picture of split ``train``; figures of the others.

    ``images (N, H, W, 3) uint8`` of any size, ``values (N, 5)``, ``split (N,)``. Means are linear in the values; covariances are shrunk
    as Ledoit and Wolf (2004) say. ``nats``: the mean gain of log density over the prior of held-out pictures, of ``n``; ``nats_train``
    of those fitted; ``largest_variance`` and ``least_variance`` along any direction (the prior's are 1); ``shrinkage_0`` … of each group,
    1 where nothing but a scale was found. Raises ``ValueError`` when there is nothing to fit.
    """
    seen = np.asarray(split) == "train"
    if seen.sum() < 2:
        raise ValueError(f"aggregate posterior: {int(seen.sum())} of {len(seen)} pictures are in the training split; it needs 2")
    values = np.asarray(values, np.float32)
    draws = [encoded(nvae, images, values, draw) for draw in range(DRAWS)]
    given = _with_one(np.tile(values[seen], (DRAWS, 1)))
    offsets, factors, figures, variances = [], [], {}, []
    for group in range(len(nvae.latent_shapes)):
        flat = np.concatenate([d[group][seen].reshape(int(seen.sum()), -1) for d in draws]).astype(np.float64)
        offset = np.linalg.lstsq(given, flat, rcond=1e-3)[0]
        rest = flat - given @ offset
        figures[f"shrinkage_{group}"] = 1.0
        if flat.shape[1] <= LARGEST:
            # One draw of each picture decides how much is shrunk: the draws of one picture are not independent.
            figures[f"shrinkage_{group}"] = float(ledoit_wolf(rest[: int(seen.sum())], assume_centered=True)[1])
            scale = (rest**2).mean()
            covariance = rest.T @ rest / len(rest)
            covariance = (1 - figures[f"shrinkage_{group}"]) * covariance + figures[f"shrinkage_{group}"] * scale * np.eye(len(covariance))
            variance, directions = np.linalg.eigh(covariance)
            factors.append(((directions * np.sqrt(np.maximum(variance, 1e-6))) @ directions.T).astype(np.float32))
            variances += [variance.min(), variance.max()]
        else:
            factors.append(np.array([[np.sqrt((rest**2).mean())]], np.float32))
        offsets.append(offset.astype(np.float32))
    found = AggregatePosterior(offsets, factors)
    gain = np.mean([found.log_density_gain(d, values) for d in draws], axis=0)
    figures |= {
        "n": int((~seen).sum()),
        "nats_train": float(gain[seen].mean()),
        "nats": float(gain[~seen].mean()) if (~seen).any() else np.nan,
    }
    figures |= {"largest_variance": float(max(variances, default=1.0)), "least_variance": float(min(variances, default=1.0))}
    return found, figures


def _with_one(conditions: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(conditions), 1)), np.asarray(conditions, np.float64)], axis=1)
