"""A dictionary of small patches, learned without labels by whitened k-means (Coates, Lee and Ng
2011, “An analysis of single-layer networks in unsupervised feature learning”). features/trunk.py
finds where in a picture they occur."""

import numpy as np

HEIGHT, WIDTH = 128, 104  # size of the pictures
PATCH, STRIDE = 8, 4
PATCHES = 200  # in the dictionary; each counts twice, as it is and inverted
GRID = (12, 10)  # finer than 8 × 6, which gave R² of mouth .80 instead of .84 on 792 photographs
THRESHOLD = 0.5  # of an activation, in standard deviations of whitened patches
# constants added: to a patch's variance (grey levels²), to the variances before whitening
FLAT, WHITENING = 10.0, 0.1
SAMPLED = 20_000  # patches that the dictionary is learned from
# number of pictures, used with their mirror images, that the axes are learned from; with 300, R² of
# mouth is .81 instead of .83
LEARNED_FROM = 750


def patch_dictionary(
    taken: np.ndarray, rounds: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Whitened k-means of patches ``taken (n, PATCH² · 3) float32``, which are changed in place; a
    direction and its opposite count as one.

    Returns directions ``(PATCH² · 3, PATCHES)`` and the offset ``(PATCHES,)`` to subtract from
    their products with a patch, float32."""
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
    """``(cells, n) float64``: the matrix that averages ``n`` positions over each of ``cells``
    parts."""
    edges = np.linspace(0, n, cells + 1).round().astype(int)
    inside = (np.arange(n) >= edges[:-1, None]) & (np.arange(n) < edges[1:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)
