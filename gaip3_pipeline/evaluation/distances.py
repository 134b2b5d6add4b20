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
# all pictures are resized to this, so that distances of generators of different sizes compare
SIZE = (64, 52)
# patches of each level of each picture; their side in pixels; random directions
PATCHES, PATCH, PROJECTIONS = 64, 7, 256


def random_features(seed: int = 0) -> Features:
    """Features of a convolutional network with fixed random weights: ``(N, H, W, 3) uint8 -> (N,
    64) float32``.

    They are the means and standard deviations of the 32 maps of the last layer, at an eighth of the
    picture's size. The weights are drawn by NumPy, so they are the same on every backend."""
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
    concatenated: ``(N, sum of F)``."""
    networks = [keras.Model(m.input, m.get_layer("features").output) for m in models]
    for network in networks:
        network.jit_compile = False
    return lambda images: np.concatenate(
        [score(n, [images], *n.input_shape[1:3]) for n in networks], axis=1
    )


def pixel_features(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, 3) uint8`` as ``(N, 32 · 26 · 3) float32`` in 0..1: the pixels of small pictures,
    to be projected by :func:`reduction`."""
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

    Raises ``ValueError`` for fewer than 2 rows. Its bias decreases with n: compare only at equal n,
    and with the distance of real from real pictures."""
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
    """How much faces changed, from features ``(N, D)`` of the same faces ``before`` and ``after``.

    ``identity``: their mean distance over the mean distance between different faces: 0 is the same
    picture, 1 another person. ``recognised``: the share of faces after whose nearest neighbour
    before is the same face."""
    apart = mean_pairwise_distance(before)
    moved = np.linalg.norm(after - before, axis=1)
    # The squared distances without the term that is equal in a row have the same minimum, and need
    # no (N, N, D) array.
    own = ((before**2).sum(axis=1) - 2 * after @ before.T).argmin(axis=1) == np.arange(len(before))
    return {
        "identity": float(moved.mean() / apart) if apart > 0 else math.nan,
        "recognised": float(own.mean()),
    }


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared maximum mean discrepancy of two sets of features ``(N, D)``, ``(M, D)``,
    unbiased: KID (Bińkowski et al. 2018).

    The kernel is theirs, (x·y / D + 1)³, on features scaled to unit mean square in ``b``. For two
    sets of one distribution it is near 0 and may be negative."""
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
    """The sliced Wasserstein distance of patches, times 1,000: the mean over the levels of a
    Laplacian pyramid (Karras et al. 2018, section 5).

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
    """Distances of each set of pictures to real ones, with the suffix ``_{set}``, and of real to
    real ones, the baseline, with the suffix ``_real``.

    The real pictures are split at random into two halves: one is the reference, the other the
    baseline. All sets are cut to the same n, the least of all, returned as ``fd_n``.
    ``fd_{features}`` (Fréchet) and ``kid_{features}`` are computed for random features, pixels and
    those of ``features``, projected on ``fd_dimensions`` principal axes of the reference: 64, or a
    quarter of n if that is less. ``swd`` is the sliced Wasserstein distance. For the random
    features there are also ``diversity``, the mean pairwise distance, and the figures of
    :func:`neighbourhoods`. For n below 8 only ``fd_n`` is returned."""
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
    """Three levels ``(N, h, w, 3) float32`` of pictures resized to ``SIZE``: each but the coarsest
    is a picture minus the next coarser one, enlarged."""
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
