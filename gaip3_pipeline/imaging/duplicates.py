"""Which pictures show the same photograph: once more, re-encoded, resized, brightened, moved by a few pixels or mirrored.

A perceptual hash (ImageHash's pHash) of each picture and of its mirror image names the candidates, pixels decide: the correlation of two
small grey copies, at the best of a few shifts, does not care about brightness and contrast.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from PIL import Image

HASH_SIZE = 16  # bits a side, of the 256 of a hash
# Of 2,781 photographs (3.9 million pairs) the most alike two that are not one photograph have a correlation of .965; 97 twins of another
# size have .9997 and up to 4 other bits, copies at JPEG quality 30 .993 (12 bits), at gamma .7 .991 (18), moved by 2 pixels 1.000 (80).
LEAST_CORRELATION = 0.98
MOST_BITS = 80
COPY = (64, 52)  # the small grey copies
SHIFTS = 1  # pixels of the copies, both ways: two of the pictures
_COARSE, _LEAST_COARSE = 2, 0.86  # correlation of copies of half that size, unmoved: spares the shifts of most candidates
_BLOCK = 2048


@dataclass(frozen=True)
class Pair:
    """Two pictures (``first < second``) of one photograph: the bits in which their hashes differ, correlation, whether one is mirrored."""

    first: int
    second: int
    bits: int
    correlation: float
    mirrored: bool


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8 -> (2, 32) uint8``: the packed hash of a picture and that of its mirror image."""
    both = (image, image[:, ::-1])
    return np.stack([np.packbits(imagehash.phash(Image.fromarray(np.ascontiguousarray(x)), HASH_SIZE).hash.ravel()) for x in both])


def grey_copy(image: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8 -> (64, 52) uint8``."""
    return cv2.resize(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), COPY[::-1], interpolation=cv2.INTER_AREA)


def near_duplicates(hashes: np.ndarray, copies: np.ndarray) -> list[Pair]:
    """Every pair of one photograph, for ``hashes (N, 2, 32) uint8`` and ``copies (N, 64, 52) uint8``; memory does not grow with N²."""
    found = []
    small = coarse(copies, _COARSE)
    for mirrored in (False, True):
        turned = copies[:, :, ::-1] if mirrored else copies
        for first, second, bits in _candidates(hashes[:, 0], hashes[:, int(mirrored)], small, coarse(turned, _COARSE)):
            likeness = correlation(copies[first], turned[second])
            if likeness >= LEAST_CORRELATION:
                found.append(Pair(first, second, bits, likeness, mirrored))
    best: dict[tuple[int, int], Pair] = {}
    for pair in found:
        known = best.get((pair.first, pair.second))
        if known is None or pair.correlation > known.correlation:
            best[pair.first, pair.second] = pair
    return [best[key] for key in sorted(best)]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The greatest correlation of ``a`` and ``b`` (``(h, w) uint8``) over shifts of up to ``SHIFTS`` pixels; 0 where one is flat."""
    s = SHIFTS
    middle = _normal(a[s:-s, s:-s])
    height, width = a.shape
    moved = (b[y : height - 2 * s + y, x : width - 2 * s + x] for y in range(2 * s + 1) for x in range(2 * s + 1))
    return max(float((middle * _normal(m)).sum()) for m in moved)


def _normal(x: np.ndarray) -> np.ndarray:
    centred = x.astype(np.float32) - x.mean()
    return centred / (np.linalg.norm(centred) + 1e-6)


def coarse(copies: np.ndarray, factor: int) -> np.ndarray:
    """``(N, h·w / factor²) float32``: copies ``(N, h, w) uint8`` smaller by ``factor``, of zero mean and unit norm."""
    n, height, width = copies.shape
    small = copies.reshape(n, height // factor, factor, width // factor, factor).mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    small -= small.mean(axis=1, keepdims=True)
    return small / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-6)


def _candidates(a: np.ndarray, b: np.ndarray, coarse_a: np.ndarray, coarse_b: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """``(i, j, bits)`` of ``i < j`` whose hashes ``(N, 32) uint8`` differ in at most ``MOST_BITS`` bits and whose copies are alike."""
    x, y = (np.where(np.unpackbits(h, axis=1), 1.0, -1.0).astype(np.float32) for h in (a, b))
    bits = x.shape[1]
    for top in range(0, len(x), _BLOCK):
        for left in range(top, len(y), _BLOCK):
            rows, columns = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
            same = x[rows] @ y[columns].T
            alike = (same >= bits - 2 * MOST_BITS) & (coarse_a[rows] @ coarse_b[columns].T >= _LEAST_COARSE)
            for i, j in zip(*np.nonzero(alike), strict=True):
                if top + i < left + j:
                    yield int(top + i), int(left + j), int((bits - same[i, j]) // 2)
