"""Finds pictures that show the same photograph: repeated, re-encoded, resized, brightened, shifted
or cut by a few pixels, or mirrored.

A perceptual hash (ImageHash's pHash) of each picture and of its mirror image selects candidates.
Pixels decide: the correlation of two grey pictures after aligning one with the other, which does
not depend on brightness and contrast."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.bands import Bands, Greys, block_sums, standardised
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
COARSE = (32, 26)
PIXELS = 16  # of a block of a coarse picture
# least correlation of coarse pictures, small shifts allowed for; most candidates do not reach it
# and are not aligned
_LEAST_MOVED = 0.935
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

    def few_bits(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        return _different_bits(words, first, second, mirrored) <= MOST_BITS

    *pairs, alike = Bands(sums, greys).pairs(few_bits, coarse.likeness, _LEAST_MOVED)
    near = nearest(pairs[0], pairs[1], alike, _MOST_ALIGNED)
    columns = [column[near].tolist() for column in pairs]
    best: dict[tuple[int, int], Pair] = {}
    for first, second, mirrored, likeness in compared(greys, zip(*columns, strict=True)):
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
        self._norms = np.empty(len(sums), np.float32)
        for start in range(0, len(sums), _BATCH):
            part = sums[start : start + _BATCH].astype(np.float32)
            part -= part.mean(axis=(1, 2), keepdims=True)
            self._norms[start : start + _BATCH] = np.linalg.norm(part, axis=(1, 2))

    def likeness(self, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """``(pairs,) float32``: the correlation of the second picture with the best small move of
        the first one, 0 for a flat picture. ``first`` is sorted."""
        starts = range(0, len(first), _BATCH)

        def of(start: int) -> np.ndarray:
            part = slice(start, start + _BATCH)
            return self._of(first[part], second[part], mirrored[part])

        return np.concatenate([np.zeros(0, np.float32), *in_order(of, starts)])

    def _of(self, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        numbers, begins = np.unique(first, return_index=True)
        axes = _moves(standardised(self._sums[numbers], PIXELS))
        turned = axes.reshape(4, -1, *COARSE)[..., ::-1].reshape(axes.shape)
        both = np.concatenate([axes, turned])  # (8, pictures, 832)
        along = np.empty((len(first), 2, 4), np.float32)
        # the axes have no mean, so that of the second picture need not be subtracted
        for i, part in enumerate(map(slice, begins, [*begins[1:], len(first)])):
            other = self._sums[second[part]].reshape(-1, both.shape[2]).astype(np.float32)
            along[part] = (other @ both[:, i].T).reshape(-1, 2, 4)
        chosen = along[np.arange(len(first)), mirrored.astype(np.intp)]
        return np.linalg.norm(chosen, axis=1) / np.maximum(self._norms[second], 1e-3)


def nearest(first: np.ndarray, second: np.ndarray, likeness: np.ndarray, most: int) -> np.ndarray:
    """``(pairs,) bool``: whether a pair is among the ``most`` most alike ones of one of its two
    pictures."""
    of = np.concatenate([first, second])
    order = np.lexsort((-np.tile(likeness, 2), of))
    rank = np.empty(len(of), np.int64)
    rank[order] = np.arange(len(of)) - np.searchsorted(of[order], of[order])
    near = rank < most
    return near[: len(first)] | near[len(first) :]


def compared(
    greys: Greys,
    pairs: Iterable[tuple[int, int, bool]],
    compare: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> Iterator[tuple[int, int, bool, float]]:
    """Yield ``(first, second, mirrored, result of compare)`` for each of ``pairs``, with the second
    picture mirrored or not; by default their :func:`correlation`. Pairs are compared on all
    cores."""

    def result(pair: tuple[int, int, bool]) -> tuple[int, int, bool, float]:
        first, second, mirrored = pair
        other = greys[second]
        other = other[:, ::-1] if mirrored else other
        return first, second, mirrored, (compare or correlation)(greys[first], other)

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


def _moves(small: np.ndarray) -> np.ndarray:
    """For ``small (N, 32, 26)`` of :func:`standardised` an orthonormal basis of its small shifts
    and stretches, ``(4, N, 832) float32``.

    A small shift adds a multiple of the picture's derivatives (tangent distance, Simard et al.
    1993)."""
    y, x = np.mgrid[: COARSE[0], : COARSE[1]].astype(np.float32)
    down, across = np.gradient(small, axis=(1, 2))
    stretched = (y - y.mean()) * down + (x - x.mean()) * across
    span = np.stack([small, down, across, stretched], axis=-1).reshape(len(small), -1, 4)
    axes: np.ndarray = np.linalg.qr(span - span.mean(axis=1, keepdims=True))[0]
    return np.ascontiguousarray(axes.transpose(2, 0, 1))
