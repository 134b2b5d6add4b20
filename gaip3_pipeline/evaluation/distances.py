"""Distances between sets of pictures without any pretrained network.

Fréchet and kernel distances over at most 64 fixed features, the sliced Wasserstein distance over
a Laplacian pyramid."""

import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import keras
import numpy as np
from keras import layers

from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.metrics.neighbours import mean_pairwise_distance, neighbourhoods
from gaip3_pipeline.models.scoring import score

Features = Callable[[np.ndarray], np.ndarray]
DIMENSIONS = 64
LEAST = 8
# pictures are brought to this size, so that distances at different sizes can be compared
SIZE = (64, 52)
# of each level of each picture; pixels across; random directions
PATCHES, PATCH, PROJECTIONS = 64, 7, 256


def random_features(seed: int = 0) -> Features:
    """Features of a random convolutional network of fixed weights: ``(N, H, W, 3) uint8 -> (N, 64)
    float32``.

    The weights are drawn by numpy, so they are the same on every backend. Means and standard
    deviations of 32 maps that see an eighth of the picture at a time."""
    pictures = keras.Input((*SIZE, 3))
    h = layers.Rescaling(2.0, -1.0)(pictures)
    for channels in (32, 48, 32):
        h = layers.Conv2D(
            channels, 4, strides=2, padding="same", activation="leaky_relu", use_bias=False
        )(h)
    mean = layers.GlobalAveragePooling2D()(h)
    square = layers.GlobalAveragePooling2D()(keras.ops.square(h))
    deviation = keras.ops.sqrt(keras.ops.maximum(square - keras.ops.square(mean), 1e-8))
    network = keras.Model(pictures, layers.Concatenate()([mean, deviation]))
    network.jit_compile = False
    generator = np.random.default_rng(seed)
    shapes = [w.shape for w in network.get_weights()]
    network.set_weights(
        [generator.normal(0, np.sqrt(2.0 / np.prod(s[:-1])), s).astype(np.float32) for s in shapes]
    )
    return lambda images: score(network, [images], *SIZE)


def trained_features(models: Sequence[keras.Model]) -> Features:
    """The penultimate features of frozen classifiers or regressors (models/classifier.trunk),
    side by side: ``(N, sum of F)``."""
    networks = [keras.Model(m.input, m.get_layer("features").output) for m in models]
    for network in networks:
        network.jit_compile = False
    return lambda images: np.concatenate(
        [score(n, [images], *n.input_shape[1:3]) for n in networks], axis=1
    )


def pixel_features(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, 3) uint8`` as ``(N, 32 · 26 · 3) float32`` in 0..1: small pictures, to be
    reduced by :func:`reduction`."""
    return shrink(images, 32, 26).reshape(len(images), -1).astype(np.float32) / 255.0


def reduction(reference: np.ndarray, dimensions: int) -> Features:
    """The projection on the first principal components of ``reference (N, D)``: at most
    ``dimensions``."""
    mean = reference.mean(axis=0)
    _, _, directions = np.linalg.svd(reference - mean, full_matrices=False)
    chosen = directions[:dimensions].T
    return lambda features: (features - mean) @ chosen


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½) of two sets of features ``(N, D)``, ``(M, D)``
    (Dowson and Landau 1982).

    Raises ``ValueError`` for fewer than 2 rows. Its bias falls with n: compare only at equal n,
    beside real against real."""
    if len(a) < 2 or len(b) < 2:
        raise ValueError(
            f"a Fréchet distance needs at least 2 pictures on each side, not {len(a)} and {len(b)}"
        )
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = _square_root(first)
    # tr((Σ_a Σ_b)^½) = tr((Σ_a^½ Σ_b Σ_a^½)^½), which is symmetric and therefore real
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(
        ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
        + np.trace(first)
        + np.trace(second)
        - 2 * cross
    )


def identity(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """How far faces went, from features ``(N, D)`` of the same ones ``before`` and ``after``.

    ``identity``: the mean distance over that between different faces, 0 is the same picture and
    1 another person; ``recognised``: the share that after is nearer to itself before than to any
    other."""
    apart = mean_pairwise_distance(before)
    moved = np.linalg.norm(after - before, axis=1)
    # Which is nearest shows in the squared distances less what all in a row have in common; no (N,
    # N, D) array is made.
    own = ((before**2).sum(axis=1) - 2 * after @ before.T).argmin(axis=1) == np.arange(len(before))
    return {
        "identity": float(moved.mean() / apart) if apart > 0 else math.nan,
        "recognised": float(own.mean()),
    }


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared maximum mean discrepancy of two sets of features ``(N, D)``, ``(M, D)``,
    unbiased: KID (Bińkowski et al. 2018).

    The kernel is theirs, (x·y / D + 1)³, of features scaled to unit mean square in ``b``. About
    0, also below it, for sets of one kind."""
    scale = 1.0 / np.sqrt(np.mean(np.square(b, dtype=np.float64)) + 1e-12)
    a, b = a.astype(np.float64) * scale, b.astype(np.float64) * scale
    n, m = len(a), len(b)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    within = sum(
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))
    )
    return float(within - 2.0 * kernel(a, b).sum() / (n * m))


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """The sliced Wasserstein distance of patches, the mean over a Laplacian pyramid (Karras et al.
    2018, section 5), times 1,000.

    ``a``, ``b (N, H, W, 3) uint8``, of equal N. Patches of 7×7, each channel with mean 0 and
    deviation 1 over all patches of a side."""
    levels = []
    for x, y in zip(_laplacian_pyramid(a), _laplacian_pyramid(b), strict=True):
        first, second = (_patches(level, np.random.default_rng(seed)) for level in (x, y))
        directions = (
            np.random.default_rng(seed + 1)
            .normal(size=(first.shape[1], PROJECTIONS))
            .astype(np.float32)
        )
        directions /= np.linalg.norm(directions, axis=0)
        levels.append(
            np.abs(
                np.sort(first @ directions, axis=0) - np.sort(second @ directions, axis=0)
            ).mean()
        )
    return float(np.mean(levels)) * 1e3


def distances_to_real(
    images: Mapping[str, np.ndarray],
    real: np.ndarray,
    seed: int = 0,
    features: Mapping[str, Features] | None = None,
) -> dict[str, float | int]:
    """How far each set of pictures is from real ones, and how far real ones are, the floor: names
    end in ``_{set}``, ``_real``.

    The real pictures are cut into two halves at random: one is the reference, the other the
    floor. Every side has the same n, the least of all, returned as ``fd_n``. ``fd_random``,
    ``fd_pixels`` and ``kid_…``, over ``features`` too, of features reduced to ``fd_dimensions``:
    64, or a quarter of n where that is less, on axes of the reference; ``swd``; of the random
    features also ``diversity``, the mean pairwise distance, and what :func:`neighbourhoods`
    gives. Nothing for n below 8."""
    order = np.random.default_rng(seed).permutation(len(real))
    n = min(len(real) // 2, *(len(v) for v in images.values()))
    if n < LEAST:
        return {"fd_n": n}
    reference, floor = (np.asarray(real[np.sort(part)]) for part in (order[:n], order[n : 2 * n]))
    sides = {**{k: v[:n] for k, v in images.items()}, "real": floor}
    dimensions = min(DIMENSIONS, n // 4)
    figures: dict[str, float | int] = {"fd_n": n, "fd_dimensions": dimensions}
    for name, of in {
        "random": random_features(),
        "pixels": pixel_features,
        **(features or {}),
    }.items():
        raw = of(reference)
        reduce = reduction(raw, dimensions)
        for side, pictures in sides.items():
            found = of(pictures)
            figures[f"fd_{name}_{side}"] = frechet_distance(reduce(found), reduce(raw))
            figures[f"kid_{name}_{side}"] = kernel_distance(reduce(found), reduce(raw))
            if name == "random":
                figures[f"diversity_{side}"] = mean_pairwise_distance(found)
                figures |= {f"{k}_{side}": v for k, v in neighbourhoods(found, raw).items()}
    return figures | {
        f"swd_{side}": sliced_wasserstein(pictures, reference) for side, pictures in sides.items()
    }


def _laplacian_pyramid(images: np.ndarray) -> list[np.ndarray]:
    """Three levels ``(N, h, w, 3) float32`` of pictures brought to ``SIZE``: each less what the
    next coarser one says of it."""
    levels = []
    current = shrink(images, *SIZE).astype(np.float32)
    for _ in range(2):
        coarser = np.stack([cv2.pyrDown(i) for i in current])
        height, width = current.shape[1:3]
        levels.append(current - np.stack([cv2.pyrUp(i, dstsize=(width, height)) for i in coarser]))
        current = coarser
    return [*levels, current]


def _patches(level: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """``(N · PATCHES, PATCH · PATCH · 3)`` at random places, each channel standardised."""
    n, height, width, _ = level.shape
    windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH, PATCH), axis=(1, 2))
    tops, lefts = (generator.integers(0, size - PATCH + 1, n * PATCHES) for size in (height, width))
    patches = windows[np.repeat(np.arange(n), PATCHES), tops, lefts]  # (P, 3, PATCH, PATCH)
    mean, deviation = (
        patches.mean(axis=(0, 2, 3), keepdims=True),
        patches.std(axis=(0, 2, 3), keepdims=True),
    )
    return ((patches - mean) / (deviation + 1e-6)).reshape(len(patches), -1)


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
