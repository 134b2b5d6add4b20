"""Detection of one photograph on both sides of a split, by comparing all pictures; the table of
near-duplicates is not used."""

from collections.abc import Sequence

import cv2
import numpy as np

from gaip3_pipeline.imaging.duplicates import coarse, compared

# Of the 1,500 most alike pairs of different photographs (of 3.9 million, 2,781 photographs) the
# nearest has .981, of painted ones .962; twins re-encoded at quality 30, brightened, moved by 1 or
# 2, or cut by up to 3 of 128 pixels and enlarged seldom less than .987 (398 of each,
# docs/experiments/0020).
LEAST_MATCH = 0.987
_LEAST_WHOLE = 0.97  # least match at whole pixels: most pairs fail it and skip the finer match
# size of pictures of means of 8 × 8 pixels, and least correlation of two of them: a twin moved by
# two pixels in both directions has .918
_BLURRED, _LEAST_BLURRED = (16, 13), 0.91
_SIDE, _REACH, _SIGMA = 24, 4, 1.0  # pixels: side of a block, range of its search, blur


def leaks(
    greys: np.ndarray, sides: Sequence[str] | np.ndarray, most: int = 20
) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, match)`` of pictures of one photograph, mirrored or not, that lie on different
    ``sides (N,)``; at most ``most`` pairs.

    ``greys (N, 128, 104) uint8`` are grey pictures
    (:func:`gaip3_pipeline.imaging.duplicates.to_grey`). Each picture of one side is compared
    with each of another. The hashes and the alignment that find near-duplicates are not used, so
    this test can find what they miss."""
    sides, blurred, found = np.asarray(sides), coarse(greys, _BLURRED), []

    def candidates(rows: slice, columns: slice, mirrored: bool) -> np.ndarray:
        other = blurred[columns, :, ::-1] if mirrored else blurred[columns]
        likeness = np.tensordot(blurred[rows], other, ((1, 2), (1, 2)))
        return (likeness >= _LEAST_BLURRED) & (sides[rows, None] != sides[None, columns])

    for first, second, _, match in compared(greys, candidates, _match):
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
