"""Which pictures show the same photograph: once more, re-encoded, resized, brightened, moved or cut
by a few pixels, or mirrored.

A perceptual hash (ImageHash's pHash) of each picture and of its mirror image names the
candidates, pixels decide: the correlation of two grey pictures, one moved and stretched onto the
other, does not care about brightness and contrast."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import imagehash
import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.processing import in_order

HASH_SIZE = 16  # bits a side, of the 256 of a hash
# Of 3.9 million pairs of different photographs (2,781 of them, each also mirrored) the most alike
# have .975 after alignment, of 142 million of painted faces .989; 398 twins each, re-encoded at
# quality 30, darkened, mirrored, moved by 1 or 2 pixels, or cut by 1 to 3 pixels and enlarged, have
# at least .992. Unaligned, a twin moved by 2 pixels both ways has .937 beside its slopes, and 82
# other bits.
LEAST_CORRELATION = 0.99
MOST_BITS = 96
# the grey pictures: the size of resized pictures, since coarser ones cannot be moved by a part of a
# pixel unharmed
GREY_SIZE = (128, 104)
_COARSE = (32, 26)
# correlation of coarse pictures where a small move is allowed for: spares the alignment of most
# candidates
_LEAST_MOVED = 0.935
_STEPS = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 5, 1e-3)
_BLOCK = 2048  # pictures on a side of what is compared at once


@dataclass(frozen=True)
class Pair:
    """Two pictures (``first < second``) of one photograph: the bits in which their hashes
    differ, correlation, whether one is mirrored."""

    first: int
    second: int
    bits: int
    correlation: float
    mirrored: bool


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8 -> (2, 32) uint8``: the packed hash of a picture and that of its mirror
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
    """``(H, W, 3) uint8 -> (128, 104) uint8``."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return (
        grey
        if grey.shape == GREY_SIZE
        else cv2.resize(grey, GREY_SIZE[::-1], interpolation=cv2.INTER_AREA)
    )


def near_duplicates(hashes: np.ndarray, greys: np.ndarray) -> list[Pair]:
    """Every pair of one photograph, for ``hashes (N, 2, 32) uint8`` and ``greys (N, 128, 104)
    uint8``; memory does not grow with N²."""
    small = coarse(greys, _COARSE)
    bits = [
        np.where(np.unpackbits(hashes[:, turned], axis=1), 1.0, -1.0).astype(np.float32)
        for turned in (0, 1)
    ]
    # of a block that is compared with many
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
    """``(first, second, mirrored, compare's result)`` of every pair of ``greys (N, h, w)``,
    ``first < second``, that is a candidate.

    ``candidates(rows, columns, mirrored)`` gives ``(rows, columns) bool`` for a block of pairs,
    the second of each mirrored or not; they are compared on all cores."""
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
    """The correlation of ``a`` and ``b`` (``(h, w) uint8``), one moved and stretched onto the
    other; 0 where that fails."""
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
    except cv2.error:  # flat, or so unlike that it does not converge
        return 0.0


def coarse(greys: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(N, h, w) uint8 -> (N, *size) float32``, of zero mean and unit norm; ``size`` divides
    that of ``greys``."""
    n, (height, width), (rows, columns) = len(greys), greys.shape[1:], size
    small = greys.reshape(n, rows, height // rows, columns, width // columns).mean(
        axis=(2, 4), dtype=np.float32
    )
    small -= small.mean(axis=(1, 2), keepdims=True)
    return small / (np.linalg.norm(small, axis=(1, 2), keepdims=True) + 1e-6)


def _moves(small: np.ndarray) -> np.ndarray:
    """``(N, 32, 26)`` of :func:`coarse` ``-> (4, N, 832) float32``: what a picture becomes when
    moved and stretched a little, orthonormal.

    A small move adds a multiple of the picture's slopes (Simard et al. 1993, tangent distance).
    """
    y, x = np.mgrid[: _COARSE[0], : _COARSE[1]].astype(np.float32)
    down, across = np.gradient(small, axis=(1, 2))
    stretched = (y - y.mean()) * down + (x - x.mean()) * across
    span = np.stack([small, down, across, stretched], axis=-1).reshape(len(small), -1, 4)
    axes: np.ndarray = np.linalg.qr(span - span.mean(axis=1, keepdims=True))[0]
    return np.ascontiguousarray(axes.transpose(2, 0, 1))


def _likeness(axes: np.ndarray, small: np.ndarray) -> np.ndarray:
    """``(N, M)``: the correlation of each of ``small (M, 32, 26)`` with each picture of ``axes
    (4, N, 832)``, moved as fits best."""
    flat = small.reshape(len(small), -1).T
    return np.sqrt(sum((axis @ flat) ** 2 for axis in axes))
