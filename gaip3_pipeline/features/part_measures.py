"""Measurements of a portrait whose person and points are known (features/landmarks.py): colours of
hair, skin and background, the mouth, the eyes, the turn of the head. Pure functions of arrays.

The indices of points are those of MediaPipe's canonical face mesh."""

from collections.abc import Callable

import cv2
import numpy as np

from gaip3_pipeline.imaging.transform import opponent

PARTS = [
    "hair",
    "hair_colours",
    "skin",
    "background",
    "background_colours",
    "mouth",
    "lips",
    "eyes",
    "turn",
]
PART_AXES = [24, 40, 8, 8, 30, 30, 10, 30, 1]  # most axes of each part
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
OUTER_LIPS = (
    61,
    146,
    91,
    181,
    84,
    17,
    314,
    405,
    321,
    375,
    291,
    409,
    270,
    269,
    267,
    0,
    37,
    39,
    40,
    185,
)
INNER_LIPS = (
    78,
    95,
    88,
    178,
    87,
    14,
    317,
    402,
    318,
    324,
    308,
    415,
    310,
    311,
    312,
    13,
    82,
    81,
    80,
    191,
)
# corners and lids of the eye on the picture's left, and of that on its right
EYES = (33, 133, 159, 145), (362, 263, 386, 374)
FOREHEAD, CHIN = 10, 152
# rows and columns of the crops, and their margin as a share of the width of the points
MOUTH_SIZE, EYE_SIZE, MARGIN = (16, 24), (10, 18), 0.4
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # quantiles of a region's lightness
FEW = 20  # pixels: a smaller region is replaced by the next larger one
Words = Callable[[np.ndarray], np.ndarray]


def measures(
    picture: np.ndarray,
    person: np.ndarray,
    points: np.ndarray,
    shape: np.ndarray,
    turn: float,
    words: Words,
) -> list[np.ndarray]:
    """One vector for each of ``PARTS``, for ``picture (H, W, 3) uint8`` with its ``person (H, W)``
    and ``points (468, 3)``.

    ``shape (468, 3)`` are the aligned points and ``turn`` the angle of the head
    (:func:`in_own_frame`); ``words((n, 3)) -> (n, K)`` gives the similarity of opponent colours to
    each colour of a dictionary."""
    half = picture.shape[1] // 2, picture.shape[0] // 2
    small, person = (cv2.resize(x, half, interpolation=cv2.INTER_AREA) for x in (picture, person))
    region = regions(person, points / 2)
    pixels = {name: opponent(small[region[name]]) for name in ("hair", "skin", "background")}
    # masks over the pixels of hair
    hair = [region[name][region["hair"]] for name in ("hair", "hair_above", "hair_beside")]
    colours = words(pixels["hair"])
    lips = shape[[*OUTER_LIPS, *INNER_LIPS]]
    mouth = crop(picture, points[list(OUTER_LIPS)], MOUTH_SIZE)
    eyes = [crop(picture, points[list(eye)], EYE_SIZE) for eye in EYES]
    return [
        np.concatenate([_statistics(pixels["hair"][where]) for where in hair]),
        np.sqrt(np.concatenate([colours[where].mean(axis=0) for where in hair])),
        _statistics(pixels["skin"]),
        _statistics(pixels["background"]),
        np.sqrt(words(pixels["background"]).mean(axis=0)),
        opponent(mouth).ravel(),
        (lips - lips.mean(axis=0)).ravel(),
        opponent(np.stack(eyes)).ravel(),
        np.array([turn]),
    ]


def regions(person: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """``(H, W) bool`` of each region. A region of fewer than ``FEW`` pixels is replaced by the next
    larger one, in the end by the whole picture.

    Hair is the part of the person outside the face and above the chin, which includes ears, hats
    and bald heads."""
    rows = np.arange(person.shape[0])[:, None]
    face = np.zeros(person.shape, np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.rint(points[list(OVAL), :2]).astype(np.int32)), 1)
    eyes, chin = points[[33, 263], 1].mean(), points[CHIN, 1]
    everything = np.ones(person.shape, bool)
    hair = (person > 0.7) & (cv2.dilate(face, np.ones((3, 3), np.uint8)) == 0) & (rows < chin)
    hair = _or(hair, _or(person > 0.5, everything))
    return {
        "hair": hair,
        "hair_above": _or(hair & (rows < points[FOREHEAD, 1]), hair),
        "hair_beside": _or(hair & (rows >= points[FOREHEAD, 1]) & (rows < (eyes + chin) / 2), hair),
        "skin": _or(face > 0, everything),
        "background": _or(person < 0.5, everything),
    }


def in_own_frame(points: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``points (N, 468, 3)``, centred, scaled to unit size and rotated to fit ``mean (468, 3)``
    best, and the turns of the heads ``(N,)``.

    A turn is the rotation about the vertical axis in radians (Kabsch 1976: the rotation of least
    squares)."""
    shapes = of_unit_size(points)
    u, _, v = np.linalg.svd(np.einsum("npi,pj->nij", shapes, mean))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    rotation = u @ v  # of row vectors
    return shapes @ rotation, np.arctan2(rotation[:, 2, 0], rotation[:, 2, 2])


def lid_opening(points: np.ndarray) -> np.ndarray:
    """``(N,)``: the distance of the lids of ``points (N, 468, 3)`` divided by the eye's width, mean
    of both eyes.

    This is the eye aspect ratio (Soukupová and Čech 2016) of one pair of points; about .3 for open
    eyes."""
    ratios = [
        np.linalg.norm(points[:, upper] - points[:, lower], axis=1)
        / (np.linalg.norm(points[:, a] - points[:, b], axis=1) + 1e-9)
        for a, b, upper, lower in EYES
    ]
    return np.mean(ratios, axis=0)


def of_unit_size(points: np.ndarray) -> np.ndarray:
    """``points (N, 468, 3)`` centred and scaled to a mean square distance of 1 from the centre."""
    centred = points - points.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).sum(axis=(1, 2), keepdims=True) / points.shape[1])


def crop(picture: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of ``picture (H, W, C)`` around ``points (n, 2 or more)``, ``MARGIN`` wider than
    they are, resampled to ``size`` (rows, columns)."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    # pixels of the picture per pixel of the crop
    scale = max((high[0] - low[0]) * (1 + MARGIN), 8.0) / size[1]
    corner = (low + high) / 2 - scale * np.array([size[1], size[0]]) / 2
    to_picture = np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]], np.float32)
    return cv2.warpAffine(
        picture,
        to_picture,
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _statistics(pixels: np.ndarray) -> np.ndarray:
    """``(8,)``: quantiles of the lightness and the mean colour of ``pixels (n, 3)``."""
    return np.concatenate([np.quantile(pixels[:, 0], QUANTILES), pixels.mean(axis=0)])


def _or(mask: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return mask if mask.sum() >= FEW else otherwise
