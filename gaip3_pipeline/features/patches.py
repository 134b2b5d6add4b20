"""A dictionary of small patches: whitened k-means (Coates, Lee and Ng 2011, “An analysis of
single-layer networks in unsupervised feature learning”). Which of them lies where in a picture
is said by features/trunk.py. No labels."""

import numpy as np

HEIGHT, WIDTH = 128, 104  # of the pictures looked at
PATCH, STRIDE = 8, 4
PATCHES = 200  # of the dictionary; each counts twice, as it is and inverted
GRID = (12, 10)  # a finer grid than 8 × 6 took R² of mouths from .80 to .84 on 792 photographs
THRESHOLD = 0.5  # of an activation, in standard deviations of whitened patches
# added to a patch's variance in grey levels²; to the variances before whitening
FLAT, WHITENING = 10.0, 0.1
SAMPLED = 20_000  # patches that the dictionary is learned from
# pictures, with their mirror images, that the axes are learned from: of 300, R² of mouths .81 for
# .83
LEARNED_FROM = 750


def patch_dictionary(
    taken: np.ndarray, rounds: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Whitening and k-means of unit vectors and their opposites in one, from patches ``taken (n,
    PATCH² · 3) float32``, changed in place.

    Directions ``(PATCH² · 3, PATCHES)`` and what is to be taken off their products with a patch,
    ``(PATCHES,)``, float32."""
    taken -= taken.mean(axis=1, keepdims=True)
    taken /= np.sqrt(taken.var(axis=1, keepdims=True) + FLAT)
    mean = taken.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(taken.T))
    whitening = ((vectors / np.sqrt(np.maximum(variances, 0) + WHITENING)) @ vectors.T).astype(
        np.float32
    )
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


def cell_means(n: int, cells: int) -> np.ndarray:
    """``(cells, n) float64``: the mean over the places of each of ``cells`` parts of ``n``
    places."""
    edges = np.linspace(0, n, cells + 1).round().astype(int)
    inside = (np.arange(n) >= edges[:-1, None]) & (np.arange(n) < edges[1:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)
