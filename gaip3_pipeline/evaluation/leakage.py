"""Whether one photograph lies on both sides of a split: pictures compared with pictures, whatever a table of groups says."""

from collections.abc import Sequence

import numpy as np

from gaip3_pipeline.imaging.duplicates import LEAST_CORRELATION, coarse, correlation

_COARSE = 4
_LEAST_COARSE = 0.9  # of copies of 16 × 13, blurred so that a move of two pixels leaves them alike
_BLOCK = 2048


def leaks(copies: np.ndarray, sides: Sequence[str] | np.ndarray, most: int = 20) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, correlation)`` of one photograph, mirrored or not, on different ``sides (N,)``, at most ``most``.

    ``copies (N, 64, 52) uint8`` are grey copies (:func:`gaip3_pipeline.imaging.duplicates.grey_copy`). Each
    picture of one side is compared with each of another, by blocks of a matrix product; no hash takes part.
    """
    sides, found = np.asarray(sides), []
    small = {turned: coarse(copies[:, :, ::-1] if turned else copies, _COARSE) for turned in (False, True)}
    for turned in (False, True):
        for top in range(0, len(copies), _BLOCK):
            for left in range(top, len(copies), _BLOCK):
                rows, columns = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
                alike = small[False][rows] @ small[turned][columns].T >= _LEAST_COARSE
                alike &= sides[rows, None] != sides[None, columns]
                for i, j in zip(*np.nonzero(alike), strict=True):
                    first, second = int(top + i), int(left + j)
                    other = copies[second][:, ::-1] if turned else copies[second]
                    if first < second and (likeness := correlation(copies[first], other)) >= LEAST_CORRELATION:
                        found.append((first, second, likeness))
                        if len(found) >= most:
                            return found
    return found
