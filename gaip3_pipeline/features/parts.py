"""Measurements of the parts of faces (features/part_measures.py), projected on axes that are
learned without labels."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.linalg import block_diag
from scipy.special import softmax

from gaip3_pipeline.features.landmarks import FaceParts, find_parts
from gaip3_pipeline.features.part_measures import PART_AXES, in_own_frame, measures, of_unit_size
from gaip3_pipeline.layout import weights_file
from gaip3_pipeline.tables.files import write_hdf5

NAME = "parts"  # name of the weights in a feature extractor's folder
_ROUNDS = 5  # iterations of _mean_shape


@dataclass(frozen=True)
class PartAxes:
    """``shape (468, 3)``: the points of the mean face; ``colours (K, 3)`` and ``width``: the colour
    dictionary and its squared kernel width.

    ``mean (D,)``: the mean of the measurements of all parts, concatenated; ``axes (D, F)``: the
    principal axes of each part, scaled to a mean square of 1."""

    shape: np.ndarray
    colours: np.ndarray
    width: float
    mean: np.ndarray
    axes: np.ndarray

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """``(N, F) float32`` of ``pictures (N, H, W, 3) uint8``."""
        measured = np.concatenate(
            _measured(pictures, find_parts(pictures), self.shape, self.colours, self.width), axis=1
        )
        return ((measured - self.mean) @ self.axes).astype(np.float32)


def learn_part_axes(pictures: np.ndarray, colours: np.ndarray, width: float) -> PartAxes:
    """The axes of ``pictures (N, H, W, 3) uint8``, which include their mirror images, with a given
    colour dictionary."""
    parts = find_parts(pictures)
    shape = _mean_shape(parts.points)
    means, blocks = [], []
    for part, axes in zip(
        _measured(pictures, parts, shape, colours, width), PART_AXES, strict=True
    ):
        mean = part.mean(axis=0)
        _, singular, vectors = np.linalg.svd(part - mean, full_matrices=False)
        block = np.zeros((part.shape[1], axes))
        block[:, : len(vectors)] = vectors[:axes].T / (
            np.sqrt(np.square(singular).sum() / len(part)) + 1e-12
        )
        means.append(mean)
        blocks.append(block)
    return PartAxes(shape, colours, width, np.concatenate(means), block_diag(*blocks))


def save_part_axes(axes: PartAxes, folder: Path) -> None:
    """Write ``parts.weights.h5``, completely or not at all."""
    arrays = {f.name: np.asarray(getattr(axes, f.name)) for f in dataclasses.fields(axes)}
    write_hdf5(weights_file(folder, NAME), arrays)


def load_part_axes(folder: Path) -> PartAxes:
    """The axes of ``folder``. Raises ``FileNotFoundError`` if there are none."""
    path = weights_file(folder, NAME)
    if not path.exists():
        raise FileNotFoundError(f"no axes of parts at {path}; materialise feature_extractor")
    with h5py.File(path) as file:
        return PartAxes(
            width=float(file["width"][()]),
            **{name: file[name][()] for name in ("shape", "colours", "mean", "axes")},
        )


def _measured(
    pictures: np.ndarray, parts: FaceParts, shape: np.ndarray, colours: np.ndarray, width: float
) -> list[np.ndarray]:
    """The measurements ``(N, d) float32`` of each of ``PARTS``."""
    shapes, turns = in_own_frame(parts.points, shape)

    def words(pixels: np.ndarray) -> np.ndarray:
        return softmax((2.0 * pixels @ colours.T - np.square(colours).sum(axis=1)) / width, axis=1)

    of_each = zip(pictures, parts.person, parts.points, shapes, turns, strict=True)
    rows = [measures(*one, words) for one in of_each]
    return [np.stack(part).astype(np.float32) for part in zip(*rows, strict=True)] if rows else []


def _mean_shape(points: np.ndarray) -> np.ndarray:
    """The mean ``(468, 3)`` of shapes that are rotated to fit it (generalised Procrustes analysis,
    Gower 1975)."""
    mean = of_unit_size(points).mean(axis=0)
    for _ in range(_ROUNDS):
        mean = of_unit_size(in_own_frame(points, mean)[0].mean(axis=0, keepdims=True))[0]
    return mean
