"""Finds pictures that show the same photograph: repeated, re-encoded, resized, brightened, shifted
or cut by a few pixels, or mirrored.

A perceptual hash (ImageHash's pHash) of each picture and of its mirror image selects candidates.
Pixels decide: the correlation of two grey pictures after aligning one with the other, which does
not depend on brightness and contrast."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.bands import Bands, Greys, block_sums
from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.threads import one_blas_thread

HASH_SIZE = 16  # bits per side; a hash has 256 bits
# After alignment, the highest correlation of different pictures is .975 among 3.9 million pairs of
# photographs (2,781 photographs, each also mirrored) and .989 among 142 million pairs of painted
# faces. Twins have at least .992: 398 each that are re-encoded at quality 30, darkened, mirrored,
# shifted by 1 or 2 pixels, or cut by 1 to 3 pixels and enlarged. A twin shifted by 2 pixels along
# both axes has 82 other bits.
LEAST_CORRELATION = 0.99
MOST_BITS = 96
# size of the grey pictures, that of resized pictures: smaller ones would lose accuracy when shifted
# by a fraction of a pixel
GREY_SIZE = (128, 104)
COARSE = (32, 26)
# Coarse pictures are compared after a Gaussian blur, at 14 × 11 points. Of 13,946 pairs of one
# photograph the least alike has .836 as they are and .992 with small moves of one picture; most
# candidates have less and are not aligned (docs/experiments/0053).
_BLUR = 1.4  # blocks
_MARGIN, _STRIDE = 2.5, 2  # blocks from the border to the first point, and between points
_LEAST_BLURRED, _LEAST_MOVED = 0.8, 0.989
# Alignment takes milliseconds, and a picture has the more look-alikes the more pictures there are.
_MOST_ALIGNED = 32
_STEPS = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 5, 1e-3)
_BATCH = 4096  # pairs handled at once


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


@dataclass(frozen=True)
class ReadGreys:
    """``n`` grey pictures that are read when asked for; ``load`` takes a number and gives
    ``(H, W, 3) uint8``."""

    n: int
    load: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int, /) -> np.ndarray:
        return to_grey(self.load(number))


def coarse_sums(greys: np.ndarray) -> np.ndarray:
    """``(N, 128, 104) uint8`` to ``(N, 32, 26) uint16``, which :func:`near_duplicates` takes."""
    return block_sums(greys, COARSE)


@one_blas_thread
def near_duplicates(hashes: np.ndarray, sums: np.ndarray, greys: Greys) -> list[Pair]:
    """Every pair that shows one photograph, for ``hashes (N, 2, 32) uint8``, the
    :func:`coarse_sums` of the pictures, and their ``greys (128, 104) uint8``, of which few are
    asked for. Time and memory grow with N, not with N²."""
    if len(sums) < 2:
        return []
    words, coarse = hashes.view(np.uint64), _Coarse(sums)

    def alike_enough(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        good = _different_bits(words, first, second, mirrored) <= MOST_BITS
        blurred = coarse.plain(first[good], second[good], mirrored[good])
        good[good] = blurred >= _LEAST_BLURRED
        return good

    pairs = Bands(sums, greys).pairs(alike_enough, coarse.moved, _LEAST_MOVED, _MOST_ALIGNED)
    best: dict[tuple[int, int], Pair] = {}
    for first, second, mirrored, likeness in compared(greys, *pairs):
        known = best.get((first, second))
        if likeness >= LEAST_CORRELATION and (known is None or likeness > known.correlation):
            different = int(np.unpackbits(hashes[first, 0] ^ hashes[second, int(mirrored)]).sum())
            best[first, second] = Pair(first, second, different, likeness, mirrored)
    return [best[key] for key in sorted(best)]


def _different_bits(
    words: np.ndarray, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """In how many bits the hashes ``words (N, 2, 4) uint64`` of pairs differ."""
    different = words[first, 0] ^ words[second, mirrored.astype(np.intp)]
    return np.bitwise_count(different).sum(axis=1, dtype=np.int32)


class _Coarse:
    """Likeness of coarse pictures ``sums (N, 32, 26) uint16``."""

    def __init__(self, sums: np.ndarray) -> None:
        self._sums = sums
        # of half precision, since they are a fifth of all that is in memory of a million pictures
        self._blurred = np.empty((len(sums), len(_DOWN[0]) * len(_ACROSS[0])), np.float16)
        for start in range(0, len(sums), _BATCH):
            part = slice(start, start + _BATCH)
            blurred = _DOWN[0] @ (sums[part].astype(np.float32) @ _ACROSS[0].T)
            self._blurred[part] = _standardised(blurred.reshape(len(blurred), -1))

    def plain(self, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """``(pairs,) float32``: the correlation of blurred pictures; nearly 0 for a flat
        one."""
        found = np.empty(len(first), np.float32)
        for start in range(0, len(first), _BATCH):
            part = slice(start, start + _BATCH)
            other = self._turned(second[part], mirrored[part])
            one = self._blurred[first[part]].astype(np.float32)
            found[part] = np.einsum("np,np->n", one, other)
        return found

    def moved(self, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """``(pairs,) float32``: the correlation of the second blurred picture with the best small
        move of the first one; nearly 0 for a flat one. ``first`` is sorted."""
        starts = range(0, len(first), _BATCH)

        def some(start: int) -> np.ndarray:
            part = slice(start, start + _BATCH)
            numbers, begins = np.unique(first[part], return_index=True)
            axes, other = _moves(self._sums[numbers]), self._turned(second[part], mirrored[part])
            along = np.empty((len(other), axes.shape[2]), np.float32)
            for i, of in enumerate(map(slice, begins, [*begins[1:], len(other)])):
                along[of] = other[of] @ axes[i]
            return np.linalg.norm(along, axis=1)

        return np.concatenate([np.zeros(0, np.float32), *in_order(some, starts)])

    def _turned(self, numbers: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        found = self._blurred[numbers].astype(np.float32)
        turned = found[mirrored].reshape(-1, len(_DOWN[0]), len(_ACROSS[0]))[:, :, ::-1]
        found[mirrored] = turned.reshape(len(turned), found.shape[1])
        return found


def compared(
    greys: Greys,
    first: np.ndarray,
    second: np.ndarray,
    mirrored: np.ndarray,
    compare: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> Iterator[tuple[int, int, bool, float]]:
    """Yield ``(first, second, mirrored, result of compare)`` for each pair of pictures, with the
    second one mirrored or not; by default their :func:`correlation`. Pairs are compared on all
    cores."""

    def result(pair: tuple[int, int, bool]) -> tuple[int, int, bool, float]:
        first, second, mirrored = pair
        other = greys[second]
        other = other[:, ::-1] if mirrored else other
        return first, second, mirrored, (compare or correlation)(greys[first], other)

    pairs = zip(map(int, first), map(int, second), map(bool, mirrored), strict=True)
    return in_order(result, pairs)


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


def _gaussian(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(points, length) float32`` each: a Gaussian filter along an axis, its first and its second
    derivative, at points that are symmetric about the middle."""
    points = np.arange(_MARGIN, length - 1 - _MARGIN + 1e-6, _STRIDE)
    away = (np.arange(length) - points[:, None]) / _BLUR
    blur = np.exp(-(away**2) / 2)
    blur /= blur.sum(axis=1, keepdims=True)
    filters = [blur]
    for factor in (away / _BLUR, (away**2 - 1) / _BLUR**2):
        derivative = factor * blur
        # the border cuts filters off; a flat picture must have no derivative all the same
        filters.append(derivative - derivative.sum(axis=1, keepdims=True) * blur)
    first, *others = (f.astype(np.float32) for f in filters)
    return first, others[0], others[1]


_DOWN, _ACROSS = map(_gaussian, COARSE)


def _standardised(flat: np.ndarray) -> np.ndarray:
    """Zero mean and unit norm of each row; nearly 0 for a row that differs by rounding only."""
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1.0)


def _moves(sums: np.ndarray) -> np.ndarray:
    """For ``sums (N, 32, 26) uint16`` an orthonormal basis of the small shifts and stretches of
    each blurred picture, ``(N, points, 7) float32``.

    A small shift adds multiples of the picture's first and second derivatives, and a blurred
    picture has derivatives that hold for larger shifts (tangent distance, Simard et al. 1993)."""
    whole = sums.astype(np.float32)
    plain, first, second = (whole @ across.T for across in _ACROSS)
    down, across = _DOWN[1] @ plain, _DOWN[0] @ first
    y, x = map(_from_the_middle, (_DOWN, _ACROSS))
    span = [
        _DOWN[0] @ plain,
        down,
        across,
        y[:, None] * down + x * across,
        _DOWN[2] @ plain,
        _DOWN[1] @ first,
        _DOWN[0] @ second,
    ]
    flat = np.stack([part.reshape(len(sums), -1) for part in span], axis=-1)
    axes: np.ndarray = np.linalg.qr(flat - flat.mean(axis=1, keepdims=True))[0]
    return axes


def _from_the_middle(filters: tuple[np.ndarray, ...]) -> np.ndarray:
    """The points of ``filters`` in blocks from the middle of the picture."""
    n = len(filters[0])
    return np.linspace(-1, 1, n, dtype=np.float32) * (_STRIDE * (n - 1) / 2)
