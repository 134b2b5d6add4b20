"""Soft, anti-aliased drawing on planar float pictures: masks from polygons, blends, multiplied washes.

Positions are in picture units: x to the right and y down, 0..1 over the square picture. No face is known here.
"""

from dataclasses import dataclass

import cv2
import numpy as np

Colour = np.ndarray  # (3,) float32 RGB in 0..255, or (3, h, w) of a whole picture
_SHIFT = 6  # fractional bits of polygon corners, so that shapes move smoothly with the sliders
_UNIT = 1 << _SHIFT


@dataclass(frozen=True)
class Mask:
    """Coverage in 0..1 of a window of the picture: ``values`` is ``(h, w) float32`` whose first pixel is at ``(y, x)``."""

    y: int
    x: int
    values: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        h, w = self.values.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)

    def __mul__(self, factor: float) -> "Mask":
        return Mask(self.y, self.x, self.values * np.float32(factor))

    def times(self, picture: np.ndarray) -> "Mask":
        """The mask weighted by ``picture``, ``(S, S) float32`` over the whole picture."""
        return Mask(self.y, self.x, self.values * picture[self.window])

    def minus(self, other: "Mask") -> "Mask":
        """The part of the mask that ``other`` does not cover."""
        out = self.values.copy()
        y0, x0 = max(self.y, other.y), max(self.x, other.x)
        y1 = min(self.y + out.shape[0], other.y + other.values.shape[0])
        x1 = min(self.x + out.shape[1], other.x + other.values.shape[1])
        if y1 > y0 and x1 > x0:
            mine = slice(y0 - self.y, y1 - self.y), slice(x0 - self.x, x1 - self.x)
            out[mine] *= 1 - other.values[y0 - other.y : y1 - other.y, x0 - other.x : x1 - other.x]
        return Mask(self.y, self.x, out)


@dataclass(frozen=True)
class Similarity:
    """Turns, scales and shifts the whole drawing: ``centre + scale · R(roll) · (p − centre) + shift``."""

    roll: float = 0.0  # radians, clockwise
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0
    centre: tuple[float, float] = (0.5, 0.55)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """``(N, 2)`` drawing positions to picture positions."""
        c, s = self.scale * np.cos(self.roll), self.scale * np.sin(self.roll)
        x, y = points[..., 0] - self.centre[0], points[..., 1] - self.centre[1]
        return np.stack([self.centre[0] + self.dx + c * x - s * y, self.centre[1] + self.dy + s * x + c * y], -1)

    def inverse_grid(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Drawing positions ``(n, n) float32`` x and y of the centres of an n×n grid over the picture."""
        p = (np.arange(n, dtype=np.float32) + 0.5) / n
        x, y = np.meshgrid(p - self.centre[0] - self.dx, p - self.centre[1] - self.dy)
        c, s = np.cos(self.roll) / self.scale, np.sin(self.roll) / self.scale
        return (self.centre[0] + c * x + s * y).astype(np.float32), (self.centre[1] - s * x + c * y).astype(np.float32)


class Canvas:
    """A square picture that layers are blended onto, ``(3, size, size) float32`` RGB in 0..255."""

    def __init__(self, size: int, place: Similarity):
        self.size, self.place = size, place
        self.planes = np.zeros((3, size, size), np.float32)

    def polygon(self, points: np.ndarray, soft: float = 0.0, within: Mask | None = None) -> Mask:
        """The mask of a closed polygon, ``(N, 2)``; ``soft`` is the sigma of its edge; ``within`` limits it to another mask."""
        corners = self._pixels(points)
        window = self._window(corners, soft) if within is None else (within.y, within.x, *within.values.shape)
        return self._draw(window, corners, soft, within)

    def stroke(self, points: np.ndarray, width: float, soft: float = 0.0, within: Mask | None = None) -> Mask:
        """The mask of a line through ``points`` of even ``width``; its thickness in pixels is continuous, not whole."""
        return self.polygon(ribbon(points, np.full(len(points), width)), soft, within)

    def blob(self, centre: np.ndarray, rx: float, ry: float, soft: float = 0.0, within: Mask | None = None) -> Mask:
        """The mask of an ellipse along the axes."""
        return self.polygon(ellipse(centre, rx, ry), soft, within)

    def whole(self) -> Mask:
        return Mask(0, 0, np.ones((self.size, self.size), np.float32))

    def blend(self, mask: Mask, colour: Colour, opacity: float = 1.0) -> None:
        """Lay ``colour`` over the picture where the mask is."""
        m = mask.values if opacity == 1 else mask.values * np.float32(opacity)
        for plane, c in zip(self.planes, colour, strict=True):
            region = plane[mask.window]
            region += m * ((c[mask.window] if isinstance(c, np.ndarray) and c.ndim else np.float32(c)) - region)

    def wash(self, mask: Mask, factors: np.ndarray | tuple[float, float, float], opacity: float = 1.0) -> None:
        """Multiply the picture by ``factors`` (RGB) where the mask is: keeps what is beneath visible."""
        m = mask.values if opacity == 1 else mask.values * np.float32(opacity)
        for plane, f in zip(self.planes, factors, strict=True):
            plane[mask.window] *= 1 + m * np.float32(f - 1)

    def lighten(self, mask: Mask, amount: float) -> None:
        """Add ``amount`` grey levels where the mask is."""
        self.planes[(slice(None), *mask.window)] += mask.values * np.float32(amount)

    def upsample(self, field: np.ndarray) -> np.ndarray:
        """A smooth ``(n, n)`` or ``(3, n, n)`` field over the whole picture, at its size."""
        if field.ndim == 3:
            return np.stack([self.upsample(f) for f in field])
        return cv2.resize(field.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_LINEAR)

    def picture(self) -> np.ndarray:
        """``(size, size, 3) uint8`` RGB."""
        return cv2.merge([cv2.convertScaleAbs(np.maximum(p, 0)) for p in self.planes])

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return self.place(np.asarray(points, np.float64)) * self.size - 0.5

    def _window(self, corners: np.ndarray, soft: float) -> tuple[int, int, int, int]:
        pad = 3 * soft * self.size + 2
        x0, y0 = np.clip(np.floor(corners.min(0) - pad), 0, self.size - 1).astype(int)
        x1, y1 = np.clip(np.ceil(corners.max(0) + pad) + 1, 1, self.size).astype(int)
        return int(y0), int(x0), max(int(y1 - y0), 1), max(int(x1 - x0), 1)

    def _draw(self, window: tuple[int, int, int, int], corners: np.ndarray, soft: float, within: Mask | None) -> Mask:
        y, x, h, w = window
        # Shapes half outside are drawn outside too, so that the blur does not darken them at the picture's edge.
        margin = min(int(3 * soft * self.size) + 1, self.size)
        covered = np.zeros((h + 2 * margin, w + 2 * margin), np.uint8)
        shifted = np.round((corners - (x - margin, y - margin)) * _UNIT).astype(np.int32)
        cv2.fillPoly(covered, [shifted], 255, cv2.LINE_AA, _SHIFT)
        values = _blur(covered, soft * self.size)[margin : margin + h, margin : margin + w]
        values = values.astype(np.float32) * np.float32(1 / 255)
        return Mask(y, x, values if within is None else values * within.values)


def _blur(covered: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; a wide one on a reduced picture, where it costs the same and looks alike."""
    if sigma < 0.3:
        return covered
    if sigma > 6 and min(covered.shape) > 24:
        reduced = cv2.resize(covered, (covered.shape[1] // 4, covered.shape[0] // 4), interpolation=cv2.INTER_AREA)
        return cv2.resize(cv2.GaussianBlur(reduced, (0, 0), sigma / 4), covered.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(covered, (0, 0), sigma)


def smooth(points: np.ndarray, n: int = 12) -> np.ndarray:
    """An open Catmull–Rom curve through ``(N, 2)`` points, ``n`` positions per span."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    spans = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        spans.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*spans, p[-2:-1]])


def ribbon(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The outline of a line through ``(N, 2)`` points with ``(N,)`` widths."""
    p = np.asarray(points, np.float64)
    tangent = np.gradient(p, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    half = np.asarray(widths, np.float64)[:, None] / 2
    return np.concatenate([p + normal * half, (p - normal * half)[::-1]])


def ellipse(centre: np.ndarray, rx: float, ry: float, n: int = 28) -> np.ndarray:
    """``(n, 2)`` positions round an ellipse along the axes."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + rx * np.cos(a), centre[1] + ry * np.sin(a)], 1)
