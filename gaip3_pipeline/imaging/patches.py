"""Features of pictures from the pictures alone: which small patches lie where. No network, no labels; a few milliseconds a picture.

One layer of whitened k-means patches, pooled over a grid (Coates, Lee and Ng 2011, “An analysis of single-layer networks in unsupervised
feature learning”), beside the colours of a very small copy. Aligned portraits need no more for a kernel regression to do as well as a
small convolutional network (docs/results.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gaip3_pipeline.imaging.transform import area_resize

HEIGHT, WIDTH = 128, 104  # of the pictures looked at
PATCH, STRIDE = 8, 4
PATCHES = 200  # of the dictionary; each counts twice, as it is and inverted
GRID = (12, 10)  # a finer grid than 8 × 6 took R² of mouths from .80 to .84 on 792 photographs
THRESHOLD = 0.5  # of an activation, in standard deviations of whitened patches
FLAT, WHITENING = 10.0, 0.1  # added to a patch's variance in grey levels²; to the variances before whitening
SAMPLED = 20_000  # patches that the dictionary is learned from
ROUNDS = 8  # of k-means
DIMENSIONS, COLOUR_DIMENSIONS = 400, 100
COLOUR_SIZE = (16, 13)
COLOUR_WEIGHT = 0.5  # of the colours' scale against the patches': 0 loses backgrounds (R² .54 for .72), 1 mouths (.80 for .82)
LEARNED_FROM = 750  # pictures, with their mirror images, that the axes are learned from: of 300, R² of mouths .81 for .83
_BATCH = 64

Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Dictionary:
    directions: np.ndarray  # (PATCH² · 3, PATCHES): whitening and dictionary in one
    offset: np.ndarray  # (PATCHES,)


def picture_features(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features of pictures and of their mirror images, ``(N, H, W, 3) uint8 -> (2, N, D) float32``, D at most 500, centred.

    Dictionary and axes are learned from ``images``, so features of different calls cannot be compared. The patches' mean square
    norm is 1, that of the colours ``COLOUR_WEIGHT``². Two pictures of equal bytes have equal features.
    """
    generator = np.random.default_rng(seed)
    dictionary = _learn(images, generator)
    order = generator.permutation(len(images))
    patches = _on_axes(images, order, lambda batch: _encode(batch, dictionary), DIMENSIONS)
    colours = _on_axes(images, order, _colours, COLOUR_DIMENSIONS)
    return np.concatenate([patches, COLOUR_WEIGHT * colours], axis=2)


def _on_axes(images: np.ndarray, order: np.ndarray, features: Features, dimensions: int) -> np.ndarray:
    """``(2, N, dimensions)`` of ``features``, on the principal axes of the first pictures of ``order`` and their mirror images."""
    first, rest = order[:LEARNED_FROM], order[LEARNED_FROM:]
    known = np.concatenate([features(batch) for batch in _batches(images, first)])
    mean = known.mean(axis=0)
    known -= mean
    squares, vectors = np.linalg.eigh(known @ known.T)
    kept = slice(None, -min(dimensions, len(known) - 1) - 1, -1)
    norm = np.sqrt(squares.sum() / len(known)) + 1e-12
    axes = (known.T @ vectors[:, kept]) / (np.sqrt(np.maximum(squares[kept], 1e-6 * squares[-1] + 1e-12)) * norm)
    parts = [known @ axes, *((features(batch) - mean) @ axes for batch in _batches(images, rest))]
    out = np.empty((2, len(images), axes.shape[1]), np.float32)
    out[:, order] = np.concatenate(parts).reshape(len(images), 2, -1).transpose(1, 0, 2)
    return out


def _batches(images: np.ndarray, of: np.ndarray) -> Iterator[np.ndarray]:
    """Each picture and its mirror image after it, ``(2B, HEIGHT, WIDTH, 3) uint8``."""
    for start in range(0, len(of), _BATCH):
        batch = np.stack([area_resize(images[i], HEIGHT, WIDTH) for i in of[start : start + _BATCH]])
        yield np.stack([batch, batch[:, :, ::-1]], axis=1).reshape(-1, HEIGHT, WIDTH, 3)


def _learn(images: np.ndarray, generator: np.random.Generator) -> _Dictionary:
    """The dictionary of patches at random places."""
    which = np.sort(generator.integers(0, len(images), SAMPLED))
    tops, lefts = generator.integers(0, HEIGHT - PATCH + 1, SAMPLED), generator.integers(0, WIDTH - PATCH + 1, SAMPLED)
    taken = np.empty((SAMPLED, PATCH * PATCH * 3), np.float32)
    shown, picture = -1, np.empty(0)
    for row, (i, top, left) in enumerate(zip(which, tops, lefts, strict=True)):
        if i != shown:
            shown, picture = i, area_resize(images[i], HEIGHT, WIDTH)
        taken[row] = picture[top : top + PATCH, left : left + PATCH].ravel()
    return _Dictionary(*patch_dictionary(taken, ROUNDS, generator))


def patch_dictionary(taken: np.ndarray, rounds: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whitening and k-means of unit vectors and their opposites in one, from patches ``taken (n, PATCH² · 3) float32``, changed in place.

    Directions ``(PATCH² · 3, PATCHES)`` and what is to be taken off their products with a patch, ``(PATCHES,)``, float32.
    """
    taken -= taken.mean(axis=1, keepdims=True)
    taken /= np.sqrt(taken.var(axis=1, keepdims=True) + FLAT)
    mean = taken.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(taken.T))
    whitening = ((vectors / np.sqrt(np.maximum(variances, 0) + WHITENING)) @ vectors.T).astype(np.float32)
    white = (taken - mean) @ whitening
    centres = _unit(white[generator.choice(len(white), PATCHES, replace=False)])
    for _ in range(rounds):
        likeness = white @ centres.T
        nearest = np.abs(likeness).argmax(axis=1)
        sums = centres.copy()
        np.add.at(sums, nearest, white * likeness[np.arange(len(white)), nearest][:, None])
        centres = _unit(sums)
    directions = whitening @ centres.T
    return directions.astype(np.float32), (mean @ directions).astype(np.float32)


def _encode(pictures: np.ndarray, dictionary: _Dictionary) -> np.ndarray:
    """``(B, HEIGHT, WIDTH, 3) uint8 -> (B, GRID · 2 · PATCHES)``: how much of each patch, and of its opposite, each cell holds."""
    directions, column_sums = dictionary.directions, dictionary.directions.sum(axis=0)
    out = np.empty((len(pictures), GRID[0] * GRID[1], 2 * PATCHES), np.float32)
    cells = _cells()
    for i, picture in enumerate(pictures):
        windows = sliding_window_view(picture, (PATCH, PATCH), axis=(0, 1))[::STRIDE, ::STRIDE]
        patches = windows.transpose(0, 1, 3, 4, 2).reshape(-1, PATCH * PATCH * 3).astype(np.float32)
        mean = patches.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(patches).mean(axis=1, keepdims=True) - np.square(mean) + FLAT)
        active = (patches @ directions - mean * column_sums) / deviation - dictionary.offset
        # the root tames the few patches that fill a cell
        out[i, :, :PATCHES] = np.sqrt(cells @ np.maximum(active - THRESHOLD, 0.0))
        out[i, :, PATCHES:] = np.sqrt(cells @ np.maximum(-active - THRESHOLD, 0.0))
    return out.reshape(len(pictures), -1)


def _cells() -> np.ndarray:
    """``(cells, patches) float32``: the mean over the patches of each cell of the grid."""
    rows, columns = ((size - PATCH) // STRIDE + 1 for size in (HEIGHT, WIDTH))
    return np.kron(cell_means(rows, GRID[0]), cell_means(columns, GRID[1])).astype(np.float32)


def cell_means(n: int, cells: int) -> np.ndarray:
    """``(cells, n) float64``: the mean over the places of each of ``cells`` parts of ``n`` places."""
    edges = np.linspace(0, n, cells + 1).round().astype(int)
    inside = (np.arange(n) >= edges[:-1, None]) & (np.arange(n) < edges[1:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def _colours(pictures: np.ndarray) -> np.ndarray:
    small = [cv2.resize(p, COLOUR_SIZE[::-1], interpolation=cv2.INTER_AREA) for p in np.ascontiguousarray(pictures)]
    return np.stack(small).reshape(len(pictures), -1).astype(np.float32) / 255.0


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)
