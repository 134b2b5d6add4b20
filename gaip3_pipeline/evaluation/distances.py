"""Distances between sets of pictures without any pretrained network: Fréchet distance over at most 64 fixed features."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
from keras import layers

from gaip3_pipeline.training.pictures import score, shrink

Features = Callable[[np.ndarray], np.ndarray]
DIMENSIONS = 64
LEAST = 8
SIZE = (64, 52)  # pictures are brought to this size, so that distances at different sizes can be compared


def random_features(seed: int = 0) -> Features:
    """Features of a random convolutional network of fixed weights: ``(N, H, W, 3) uint8 -> (N, 64) float32``.

    The weights are drawn by numpy, so they are the same on every backend. Means and standard deviations of 32 maps that see an
    eighth of the picture at a time.
    """
    pictures = keras.Input((*SIZE, 3))
    h = layers.Rescaling(2.0, -1.0)(pictures)
    for channels in (32, 48, 32):
        h = layers.Conv2D(channels, 4, strides=2, padding="same", activation="leaky_relu", use_bias=False)(h)
    mean = layers.GlobalAveragePooling2D()(h)
    square = layers.GlobalAveragePooling2D()(keras.ops.square(h))
    deviation = keras.ops.sqrt(keras.ops.maximum(square - keras.ops.square(mean), 1e-8))
    network = keras.Model(pictures, layers.Concatenate()([mean, deviation]))
    network.jit_compile = False
    generator = np.random.default_rng(seed)
    shapes = [w.shape for w in network.get_weights()]
    network.set_weights([generator.normal(0, np.sqrt(2.0 / np.prod(s[:-1])), s).astype(np.float32) for s in shapes])
    return lambda images: score(network, [images], *SIZE)


def pixel_features(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, 3) uint8`` as ``(N, 32 · 26 · 3) float32`` in 0..1: small pictures, to be reduced by :func:`reduction`."""
    return shrink(images, 32, 26).reshape(len(images), -1).astype(np.float32) / 255.0


def reduction(reference: np.ndarray, dimensions: int) -> Features:
    """The projection on the first principal components of ``reference (N, D)``: at most ``dimensions``."""
    mean = reference.mean(axis=0)
    _, _, directions = np.linalg.svd(reference - mean, full_matrices=False)
    chosen = directions[:dimensions].T
    return lambda features: (features - mean) @ chosen


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½) of two sets of features ``(N, D)``, ``(M, D)`` (Dowson and Landau 1982).

    Raises ``ValueError`` for fewer than 2 rows. Its bias falls with n: compare only at equal n, beside real against real.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a Fréchet distance needs at least 2 pictures on each side, not {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = _square_root(first)
    # tr((Σ_a Σ_b)^½) = tr((Σ_a^½ Σ_b Σ_a^½)^½), which is symmetric and therefore real
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)


def mean_pairwise_distance(features: np.ndarray) -> float:
    """The mean Euclidean distance between the features ``(N, D)`` of different pictures: diversity. NaN for fewer than 2."""
    n = len(features)
    if n < 2:
        return float("nan")
    f = features.astype(np.float64) - features.mean(axis=0)
    squares = (f**2).sum(axis=1)
    distances = np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * f @ f.T, 0, None))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (n * (n - 1)))


def distances_to_real(images: Mapping[str, np.ndarray], real: np.ndarray, seed: int = 0) -> dict[str, float | int]:
    """``fd_random_{name}`` and ``fd_pixels_{name}`` of each set of pictures against real ones, and ``…_real``, the floor.

    The real pictures are cut into two halves at random: one is the reference, the other the floor. Every side has the same n,
    the least of all, returned as ``fd_n``. Features are reduced to ``fd_dimensions``: 64, or a quarter of n where that is less, on
    axes of the reference. ``diversity_{name}`` is the mean pairwise distance of the random features. Nothing for n below 8.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    n = min(len(real) // 2, *(len(v) for v in images.values()))
    if n < LEAST:
        return {"fd_n": n}
    reference, floor = (np.asarray(real[np.sort(part)]) for part in (order[:n], order[n : 2 * n]))
    sides = {**{k: v[:n] for k, v in images.items()}, "real": floor}
    dimensions = min(DIMENSIONS, n // 4)
    figures: dict[str, float | int] = {"fd_n": n, "fd_dimensions": dimensions}
    for name, of in (("random", random_features()), ("pixels", pixel_features)):
        raw = of(reference)
        reduce = reduction(raw, dimensions)
        for side, pictures in sides.items():
            found = of(pictures)
            figures[f"fd_{name}_{side}"] = frechet_distance(reduce(found), reduce(raw))
            if name == "random":
                figures[f"diversity_{side}"] = mean_pairwise_distance(found)
    return figures


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
