"""Finds pictures that show the same photograph: repeated, re-encoded, resized, brightened, shifted
or cut by a few pixels, or mirrored.

A perceptual hash (ImageHash's pHash) of each picture and of its mirror image selects candidates.
Pixels decide: the correlation of two grey pictures after aligning one with the other, which does
not depend on brightness and contrast."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import imagehash
import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.threads import one_blas_thread

HASH_SIZE = 16  # bits per side; a hash has 256 bits
# After alignment, the highest correlation of different pictures is .975 among 3.9 million pairs of
# photographs (2,781 photographs, each also mirrored) and .989 among 142 million pairs of painted
# faces. Twins have at least .992: 398 each that are re-encoded at quality 30, darkened, mirrored,
# shifted by 1 or 2 pixels, or cut by 1 to 3 pixels and enlarged. Before alignment, a twin shifted
# by 2 pixels along both axes has .937 with the picture and its derivatives (_moves), and 82 other
# bits.
LEAST_CORRELATION = 0.99
MOST_BITS = 96
# size of the grey pictures, that of resized pictures: smaller ones would lose accuracy when shifted
# by a fraction of a pixel
GREY_SIZE = (128, 104)
_COARSE = (32, 26)
# least correlation of coarse pictures, small shifts allowed for; most candidates do not reach it
# and are not aligned
_LEAST_MOVED = 0.935
_STEPS = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 5, 1e-3)
_BLOCK = 2048  # pictures on each side of a block of pairs compared at once


@dataclass(frozen=True)
class Pair:
    """Two pictures (``first < second``) of one photograph: the number of bits in which their hashes
    differ, their correlation, and whether one is mirrored."""

    first: int
    second: int
    bits: int
    correlation: float
    mirrored: bool


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8`` to ``(2, 32) uint8``: the packed hash of a picture and that of its mirror
    image."""
    both = (image, image[:, ::-1])
    return np.stack(
        [
            np.packbits(
                imagehash.phash(Image.fromarray(np.ascontiguousarray(x)), HASH_SIZE).hash.ravel()
            )
            for x in both
        ]
    )


def to_grey(image: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8`` to ``(128, 104) uint8``."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return (
        grey
        if grey.shape == GREY_SIZE
        else cv2.resize(grey, GREY_SIZE[::-1], interpolation=cv2.INTER_AREA)
    )


@one_blas_thread
def near_duplicates(hashes: np.ndarray, greys: np.ndarray) -> list[Pair]:
    """Every pair that shows one photograph, for ``hashes (N, 2, 32) uint8`` and
    ``greys (N, 128, 104) uint8``; memory does not grow with N²."""
    small = coarse(greys, _COARSE)
    bits = [
        np.where(np.unpackbits(hashes[:, turned], axis=1), 1.0, -1.0).astype(np.float32)
        for turned in (0, 1)
    ]
    # cached, since one block is compared with many others
    moves = lru_cache(1)(lambda start: _moves(small[start : start + _BLOCK]))

    def candidates(rows: slice, columns: slice, mirrored: bool) -> np.ndarray:
        same = bits[0][rows] @ bits[int(mirrored)][columns].T
        other = small[columns, :, ::-1] if mirrored else small[columns]
        return (_likeness(moves(rows.start), other) >= _LEAST_MOVED) & (
            same >= bits[0].shape[1] - 2 * MOST_BITS
        )

    best: dict[tuple[int, int], Pair] = {}
    for first, second, mirrored, likeness in compared(greys, candidates, correlation):
        known = best.get((first, second))
        if likeness >= LEAST_CORRELATION and (known is None or likeness > known.correlation):
            different = int(np.unpackbits(hashes[first, 0] ^ hashes[second, int(mirrored)]).sum())
            best[first, second] = Pair(first, second, different, likeness, mirrored)
    return [best[key] for key in sorted(best)]


def compared(
    greys: np.ndarray,
    candidates: Callable[[slice, slice, bool], np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], float],
) -> Iterator[tuple[int, int, bool, float]]:
    """Yield ``(first, second, mirrored, result of compare)`` for each candidate pair of
    ``greys (N, h, w)``, with ``first < second``.

    ``candidates(rows, columns, mirrored)`` gives ``(rows, columns) bool`` for a block of pairs,
    with the second picture of each mirrored or not. Pairs are compared on all cores."""
    for top in range(0, len(greys), _BLOCK):
        for left in range(top, len(greys), _BLOCK):
            for mirrored in (False, True):
                alike = np.argwhere(
                    candidates(slice(top, top + _BLOCK), slice(left, left + _BLOCK), mirrored)
                )
                pairs = [(top + i, left + j) for i, j in alike.tolist() if top + i < left + j]
                others = greys[:, :, ::-1] if mirrored else greys
                results = in_order(
                    lambda pictures: compare(*pictures), ((greys[i], others[j]) for i, j in pairs)
                )
                for (first, second), result in zip(pairs, results, strict=True):
                    yield first, second, mirrored, result


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ``a`` and ``b`` (``(h, w) uint8``) after an affine alignment; 0 if the
    alignment fails."""
    start, everywhere = np.eye(2, 3, dtype=np.float32), np.full(a.shape, 255, np.uint8)
    try:
        return float(
            cv2.findTransformECC(
                np.ascontiguousarray(a),
                np.ascontiguousarray(b),
                start,
                cv2.MOTION_AFFINE,
                _STEPS,
                everywhere,
                5,
            )[0]
        )
    except cv2.error:  # a flat picture, or pictures so different that it does not converge
        return 0.0


def coarse(greys: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(N, h, w) uint8`` to ``(N, *size) float32`` with zero mean and unit norm; ``size`` must
    divide that of ``greys``."""
    n, (height, width), (rows, columns) = len(greys), greys.shape[1:], size
    small = greys.reshape(n, rows, height // rows, columns, width // columns).mean(
        axis=(2, 4), dtype=np.float32
    )
    small -= small.mean(axis=(1, 2), keepdims=True)
    return small / (np.linalg.norm(small, axis=(1, 2), keepdims=True) + 1e-6)


def _moves(small: np.ndarray) -> np.ndarray:
    """For ``small (N, 32, 26)`` of :func:`coarse` an orthonormal basis of its small shifts and
    stretches, ``(4, N, 832) float32``.

    A small shift adds a multiple of the picture's derivatives (tangent distance, Simard et al.
    1993)."""
    y, x = np.mgrid[: _COARSE[0], : _COARSE[1]].astype(np.float32)
    down, across = np.gradient(small, axis=(1, 2))
    stretched = (y - y.mean()) * down + (x - x.mean()) * across
    span = np.stack([small, down, across, stretched], axis=-1).reshape(len(small), -1, 4)
    axes: np.ndarray = np.linalg.qr(span - span.mean(axis=1, keepdims=True))[0]
    return np.ascontiguousarray(axes.transpose(2, 0, 1))


def _likeness(axes: np.ndarray, small: np.ndarray) -> np.ndarray:
    """``(N, M)``: the correlation of each of ``small (M, 32, 26)`` with the best small shift of
    each picture of ``axes (4, N, 832)``."""
    flat = small.reshape(len(small), -1).T
    return np.sqrt(sum((axis @ flat) ** 2 for axis in axes))
