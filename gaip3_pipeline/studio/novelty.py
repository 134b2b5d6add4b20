"""How far a photograph is from what the generator was trained on.

The distance is Euclidean, from the photograph's features to the space of the principal axes of the
training pictures' features: what is left of a photograph that no mixture of training pictures
explains. It is judged by the same distances of the held-out pictures, which come from the same
folders and were not trained on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.threads import one_blas_thread

FAR = 0.99  # share of the held-out pictures that must be nearer for a photograph to be called far
AXES = 64  # 200 separate no better; the nearest training picture and Mahalanobis' distance do worse
_MOST = 4096  # training and held-out pictures that are compared, evenly spaced
_FEWEST = 20  # held-out pictures; fewer say nothing about a photograph


@dataclass(frozen=True)
class Novelty:
    """``training (N, D)`` and ``held_out (M, D)``: features of the generator's pictures."""

    training: np.ndarray
    held_out: np.ndarray

    @one_blas_thread
    def farther_than(self, features: np.ndarray) -> np.ndarray:
        """``(N,)``: the share of held-out pictures that are nearer to the training pictures than
        each of ``features (N, D)``."""
        return np.searchsorted(self._distances, self._distance(features)) / len(self._distances)

    @cached_property
    def _distances(self) -> np.ndarray:
        return np.sort(self._distance(self.held_out))

    def _distance(self, features: np.ndarray) -> np.ndarray:
        mean, axes = self._space
        centred = features - mean
        return np.linalg.norm(centred - centred @ axes @ axes.T, axis=1)

    @cached_property
    def _space(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean ``(D,)`` of the training pictures and their first principal axes ``(D, K)``."""
        mean = self.training.mean(axis=0, dtype=np.float64)
        centred = self.training - mean
        axes = np.linalg.eigh(centred.T @ centred)[1]
        return mean, axes[:, -min(AXES, len(centred) // 2) :]


def load_novelty(root: DataRoot, features: int) -> Novelty | None:
    """That of the final images of ``root``, if their features are there, ``features`` many each,
    and enough pictures are held out; else None."""
    try:
        packed = np.load(root.features_final, mmap_mode="r")
        split = pd.read_parquet(root.manifest("final_dataset"), columns=["split"]).split.to_numpy()
    except FileNotFoundError:
        return None
    if packed.shape[1:] != (len(split), features):
        return None
    rows = [np.flatnonzero(split == "train"), np.flatnonzero(split != "train")]
    training, held_out = (
        packed[0, some[np.linspace(0, len(some) - 1, min(_MOST, len(some))).astype(int)]]
        for some in rows
    )
    return Novelty(training, held_out) if len(training) > 1 and len(held_out) >= _FEWEST else None
