"""Detection of one photograph on both sides of a split, without the table of near-duplicates."""

from collections.abc import Sequence

import cv2
import numpy as np

from gaip3_pipeline.imaging.bands import Bands, Greys, block_sums, standardised
from gaip3_pipeline.imaging.duplicates import compared
from gaip3_pipeline.threads import one_blas_thread

# Of the 1,500 most alike pairs of different photographs (of 3.9 million, 2,781 photographs) the
# nearest has .981, of painted ones .962; twins re-encoded at quality 30, brightened, moved by 1 or
# 2, or cut by up to 3 of 128 pixels and enlarged seldom less than .987 (398 of each,
# docs/experiments/0020).
LEAST_MATCH = 0.987
_LEAST_WHOLE = 0.97  # least match at whole pixels: most pairs fail it and skip the finer match
# size of pictures of means of 8 × 8 pixels, and least correlation of two of them: a twin moved by
# two pixels in both directions has .918
BLURRED, _LEAST_BLURRED = (16, 13), 0.91
_PIXELS = 64  # of a block of these
_SEED = 1  # of the buckets, so that they are not those of the near-duplicates
_BATCH = 4096  # pairs handled at once
_MOST_MATCHED = 8  # pictures with which one is matched: those most alike
_SIDE, _REACH, _SIGMA = 24, 4, 1.0  # pixels: side of a block, range of its search, blur


def blurred_sums(greys: np.ndarray) -> np.ndarray:
    """``(N, 128, 104) uint8`` to ``(N, 16, 13) uint16``, which :func:`leaks` takes."""
    return block_sums(greys, BLURRED)


@one_blas_thread
def leaks(
    sums: np.ndarray, greys: Greys, sides: Sequence[str] | np.ndarray, most: int = 20
) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, match)`` of pictures of one photograph, mirrored or not, that lie on different
    ``sides (N,)``; at most ``most`` pairs.

    ``greys (128, 104) uint8`` are grey pictures (:func:`gaip3_pipeline.imaging.duplicates.to_grey`)
    and ``sums`` their :func:`blurred_sums`. Pictures of one side are compared with those of
    another that look alike (:class:`gaip3_pipeline.imaging.bands.Bands`). The hashes and the
    alignment that find near-duplicates are not used, so this test can find what they miss."""
    if len(sums) < 2:
        return []
    of, found = np.unique(np.asarray(sides), return_inverse=True)[1], []
    blurred = np.empty(sums.shape, np.float16)  # of a million pictures all of them are in memory
    for start in range(0, len(sums), _BATCH):
        blurred[start : start + _BATCH] = standardised(sums[start : start + _BATCH], _PIXELS)

    def likeness(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        found = np.empty(len(first), np.float32)
        for start in range(0, len(first), _BATCH):
            part = slice(start, start + _BATCH)
            turned = mirrored[part]
            one, other = (blurred[n[part]].astype(np.float32) for n in (first, second))
            other[turned] = other[turned][:, :, ::-1]
            found[part] = np.einsum("nhw,nhw->n", one, other)
        return found

    def apart(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        return of[first] != of[second]

    bands = Bands(sums, greys, _SEED)
    pairs = bands.pairs(apart, likeness, _LEAST_BLURRED, _MOST_MATCHED)
    for first, second, _, match in compared(greys, *pairs, _match):
        if match >= LEAST_MATCH:
            found.append((first, second, match))
            if len(found) >= most:
                break
    return found


def _match(a: np.ndarray, b: np.ndarray) -> float:
    """Block matching of ``a`` and ``b (128, 104) uint8``: the weighted mean correlation of 24 × 24
    blocks, each at the shift where it fits best; at most 1.

    Shifts are whole pixels and, where that match is high, half pixels. Blocks of higher contrast
    have more weight, because in a flat block the correlation is that of noise."""
    whole = _blocks(a, b, 1, _LEAST_WHOLE)
    return whole if whole < _LEAST_WHOLE else _blocks(a, b, 2, LEAST_MATCH)


def _blocks(a: np.ndarray, b: np.ndarray, scale: int, least: float) -> float:
    """The match with shifts of ``1 / scale`` pixels. As soon as it can no longer reach ``least``,
    the remaining blocks are skipped and an upper bound is returned."""
    a, b = (_enlarged(x, scale) for x in (a, b))
    side, reach = _SIDE * scale, _REACH * scale
    height, width = a.shape
    corners = [
        (y, x)
        for y in range(reach, height - side - reach + 1, side)
        for x in range(reach, width - side - reach + 1, side)
    ]
    weights = np.array([a[y : y + side, x : x + side].std() for y, x in corners]) ** 0.5 + 1e-6
    weights, match = weights / weights.sum(), 1.0
    for i in np.argsort(-weights):
        y, x = corners[i]
        around = b[y - reach : y + side + reach, x - reach : x + side + reach]
        match -= weights[i] * (
            1 - cv2.matchTemplate(around, a[y : y + side, x : x + side], cv2.TM_CCOEFF_NORMED).max()
        )
        if match < least:
            break
    return float(min(1.0, match))


def _enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    picture = np.ascontiguousarray(picture)
    large = (
        picture
        if scale == 1
        else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    )
    return cv2.GaussianBlur(large, (0, 0), _SIGMA * scale)
