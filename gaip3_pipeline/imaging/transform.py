"""Cropping, area resizing, brightness copies and JPEG encoding of single pictures. Pure
functions of arrays."""

import zlib
from typing import Any, NamedTuple

import cv2
import numpy as np

from gaip3_pipeline.imaging.decode import Picture, Target

Array = Any
RATIOS = (0.84, 0.864, 0.888, 0.912, 0.936, 0.96, 1.04, 1.064, 1.088, 1.112, 1.136, 1.16)


class Box(NamedTuple):
    """A part of a picture, in shares of its width and height, from its top left corner."""

    left: float
    top: float
    right: float
    bottom: float

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The part ``(h, w, 3)`` of ``pixels (H, W, 3)``, at least one pixel."""
        height, width = pixels.shape[:2]
        left, right = round(self.left * width), round(self.right * width)
        top, bottom = round(self.top * height), round(self.bottom * height)
        return pixels[top : max(bottom, top + 1), left : max(right, left + 1)]


def resize(picture: Picture, target: Target) -> np.ndarray:
    """Crop and area-resize to ``(target.height, target.width, 3) uint8``: every output pixel is
    the mean of the area it covers."""
    left, right = target.columns(picture.width)
    factor = picture.reduction
    if not (left % factor or picture.width % factor or picture.height % factor):
        cropped = picture.pixels[:, left // factor : right // factor]
        return area_resize(cropped, target.height, target.width)
    rows = _area_weights(0, picture.height / factor, picture.pixels.shape[0], target.height)
    columns = _area_weights(left / factor, right / factor, picture.pixels.shape[1], target.width)
    return _weighted(picture.pixels, rows, columns)


def area_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(h, w, 3) uint8`` to ``(height, width, 3) uint8`` by the mean of the area that each
    output pixel covers."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    if pixels.shape[0] >= height and pixels.shape[1] >= width:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    # INTER_AREA interpolates when it enlarges
    rows = _area_weights(0, pixels.shape[0], pixels.shape[0], height)
    return _weighted(pixels, rows, _area_weights(0, pixels.shape[1], pixels.shape[1], width))


def brightness_ratio(stem: str) -> float:
    """The ratio of the brightness copy of the picture with this file stem; it depends on the name
    only, so other pictures do not change it."""
    return RATIOS[zlib.crc32(stem.encode("utf-8")) % len(RATIOS)]


def brighten(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """``uint8`` to ``uint8``: x·r for a ratio r below 1, x·(2−r) + 255·(r−1) above, rounded."""
    levels = np.arange(256)
    table = levels * ratio if ratio < 1 else levels * (2 - ratio) + 255 * (ratio - 1)
    return np.rint(table).astype(np.uint8)[pixels]


def opponent_channels(pixels: Array) -> tuple[Array, Array, Array]:
    """``pixels (…, 3)`` in 0..255 to lightness and two weighted colour differences, each ``(…)``
    and about 0..1. For arrays and tensors."""
    red, green, blue = (pixels[..., i] / 255.0 for i in range(3))
    return (
        (red + green + blue) / 3.0,
        1.5 * (red - green) / 2.0,
        1.5 * ((red + green) / 2.0 - blue) / 2.0,
    )


def opponent(pixels: np.ndarray) -> np.ndarray:
    """:func:`opponent_channels` of an array, ``(…, 3) float32``."""
    return np.stack(opponent_channels(pixels.astype(np.float32)), axis=-1)


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """``(H, W, 3) uint8`` RGB as a baseline JPEG with full-resolution colour, since subsampled
    colour is visible in pictures this small. Raises ValueError if it cannot be encoded."""
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise ValueError(f"cannot encode an array of shape {pixels.shape} as JPEG")
    return encoded.tobytes()


def _weighted(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    mixed = np.tensordot(rows, pixels.astype(np.float32), (1, 0))
    return np.rint(np.tensordot(columns, mixed, (1, 1)).transpose(1, 0, 2)).astype(np.uint8)


def _area_weights(start: float, stop: float, size: int, count: int) -> np.ndarray:
    """``(count, size) float32``: the weight of each of ``size`` pixels in each of ``count`` equal
    parts of ``start..stop``."""
    edges = np.linspace(start, stop, count + 1)
    pixel = np.arange(size)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.clip(covered, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def brightened_value(value: np.ndarray, ratio: np.ndarray | float) -> np.ndarray:
    """The brightness ``value`` in 0..1 after :func:`brighten` with ``ratio``."""
    return np.where(np.asarray(ratio) < 1, value * ratio, value * (2 - ratio) + (ratio - 1))
