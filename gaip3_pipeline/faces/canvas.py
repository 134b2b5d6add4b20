"""Soft, anti-aliased drawing on planar float pictures: masks from polygons, blending,
multiplication by colours.

Positions are in picture units: x to the right and y down, 0..1 over the square picture. Nothing in
this module is specific to faces."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Colour = np.ndarray  # (3,) float32 RGB in 0..255, or (3, h, w) of a whole picture
_SHIFT = 6  # fractional bits of polygon corners, so that shapes move smoothly with the sliders
_UNIT = 1 << _SHIFT
# the range of positions that grids cover: a little more than the picture, since the drawing is
# rotated by the roll
LOW, HIGH = -0.06, 1.06


@dataclass(frozen=True)
class Mask:
    """Coverage in 0..1 of a window of the picture: ``values`` is ``(h, w) float32`` whose first
    pixel is at ``(y, x)``."""

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
    """A similarity transform of the whole drawing: ``centre + scale · R(roll) · (p − centre) +
    shift``."""

    roll: float = 0.0  # radians, clockwise
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0
    centre: tuple[float, float] = (0.5, 0.55)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """``(N, 2)`` drawing positions to picture positions."""
        c, s = self.scale * np.cos(self.roll), self.scale * np.sin(self.roll)
        x, y = points[..., 0] - self.centre[0], points[..., 1] - self.centre[1]
        out = np.empty(points.shape)
        out[..., 0] = self.centre[0] + self.dx + c * x - s * y
        out[..., 1] = self.centre[1] + self.dy + s * x + c * y
        return out

    def to_grid(self, n: int) -> np.ndarray:
        """``(2, 3)``: pixels of an n×n picture to pixels of an n×n :func:`grid`."""
        c, s = np.cos(self.roll) / self.scale, np.sin(self.roll) / self.scale
        turn = np.array([[c, s], [-s, c]])
        centre, moved = (
            np.array(self.centre),
            np.array([self.centre[0] + self.dx, self.centre[1] + self.dy]),
        )
        # position = centre + turn · ((pixel + 0.5) / n − moved); grid pixel = (position − LOW) /
        # (HIGH − LOW) · n − 0.5
        offset = centre + turn @ (0.5 / n - moved)
        factor = n / (HIGH - LOW)
        return np.concatenate([turn * factor / n, ((offset - LOW) * factor - 0.5)[:, None]], 1)


class Canvas:
    """A square picture that layers are blended onto, ``(3, size, size) float32`` RGB in 0..255."""

    def __init__(self, size: int, place: Similarity):
        self.size, self.place = size, place
        self.planes = np.zeros((3, size, size), np.float32)

    def polygon(
        self, points: np.ndarray | list[np.ndarray], soft: float = 0.0, within: Mask | None = None
    ) -> Mask:
        """The mask of one or more closed polygons, ``(N, 2)`` each; ``soft`` is the sigma of the
        edge in picture units; ``within`` limits the mask."""
        corners = [self._pixels(p) for p in (points if isinstance(points, list) else [points])]
        window = self._window(corners[0] if len(corners) == 1 else np.concatenate(corners), soft)
        if within is None:
            return self._draw(window, corners, soft)
        (top, bottom), (left, right) = ((s.start, s.stop) for s in within.window)
        y0, x0, y1, x1 = (
            max(window[0], top),
            max(window[1], left),
            min(window[2], bottom),
            min(window[3], right),
        )
        if y1 <= y0 or x1 <= x0:
            return Mask(top, left, np.zeros((1, 1), np.float32))
        mask = self._draw((y0, x0, y1, x1), corners, soft)
        np.multiply(
            mask.values, within.values[y0 - top : y1 - top, x0 - left : x1 - left], out=mask.values
        )
        return mask

    def stroke(
        self, points: np.ndarray, width: float, soft: float = 0.0, within: Mask | None = None
    ) -> Mask:
        """The mask of a line through ``points`` of constant ``width``; its thickness in pixels need
        not be a whole number."""
        return self.polygon(ribbon(points, np.full(len(points), width)), soft, within)

    def blob(
        self,
        centre: np.ndarray,
        rx: float,
        ry: float,
        soft: float = 0.0,
        within: Mask | None = None,
    ) -> Mask:
        """The mask of an axis-aligned ellipse."""
        return self.polygon(ellipse(centre, rx, ry), soft, within)

    def whole(self) -> Mask:
        return Mask(0, 0, np.ones((self.size, self.size), np.float32))

    def blend(self, mask: Mask, colour: Colour, opacity: float = 1.0) -> None:
        """Blend ``colour`` over the picture, weighted by the mask."""
        m = mask.values if opacity == 1 else mask.values * np.float32(opacity)
        for plane, c in zip(self.planes, colour, strict=True):
            region = plane[mask.window]
            region += m * (
                (c[mask.window] if isinstance(c, np.ndarray) and c.ndim else np.float32(c)) - region
            )

    def wash(
        self, mask: Mask, factors: np.ndarray | tuple[float, float, float], opacity: float = 1.0
    ) -> None:
        """Multiply the picture by ``factors`` (RGB), weighted by the mask; what is beneath stays
        visible."""
        m = mask.values if opacity == 1 else mask.values * np.float32(opacity)
        for plane, f in zip(self.planes, factors, strict=True):
            plane[mask.window] *= 1 + m * np.float32(f - 1)

    def lighten(self, mask: Mask, amount: float) -> None:
        """Add ``amount`` grey levels, weighted by the mask."""
        self.planes[(slice(None), *mask.window)] += mask.values * np.float32(amount)

    def place_grid(self, field: np.ndarray) -> np.ndarray:
        """A field on the drawing's :func:`grid`, ``(n, n)`` or ``(3, n, n)``, transformed to the
        whole picture at its size."""
        if field.ndim == 3:
            return _each(self.place_grid, field, self.size)
        n = len(field)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return self.upsample(
            cv2.warpAffine(
                field.astype(np.float32),
                self.place.to_grid(n),
                (n, n),
                flags=how,
                borderMode=cv2.BORDER_REPLICATE,
            )
        )

    def upsample(self, field: np.ndarray) -> np.ndarray:
        """A smooth ``(n, n)`` or ``(3, n, n)`` field over the whole picture, enlarged to its
        size."""
        if field.ndim == 3:
            return _each(self.upsample, field, self.size)
        return cv2.resize(
            field.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_LINEAR
        )

    def picture(self) -> np.ndarray:
        """``(size, size, 3) uint8`` RGB."""
        return cv2.merge([cv2.convertScaleAbs(np.maximum(p, 0)) for p in self.planes])

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return self.place(np.asarray(points, np.float64)) * self.size - 0.5

    def _window(self, corners: np.ndarray, soft: float) -> tuple[int, int, int, int]:
        """First and last row and column (exclusive), as y0, x0, y1, x1, that the polygon covers
        within the picture."""
        pad = 3 * soft * self.size + 2
        x, y = corners[:, 0], corners[:, 1]
        x0, y0, x1, y1 = x.min() - pad, y.min() - pad, x.max() + pad, y.max() + pad
        last = self.size - 1
        y0, x0 = min(max(int(y0), 0), last), min(max(int(x0), 0), last)
        return (
            y0,
            x0,
            min(max(int(y1) + 2, y0 + 1), self.size),
            min(max(int(x1) + 2, x0 + 1), self.size),
        )

    def _draw(
        self, window: tuple[int, int, int, int], corners: list[np.ndarray], soft: float
    ) -> Mask:
        y0, x0, y1, x1 = window
        # A margin beyond the window is drawn too, so that the blur does not darken shapes at the
        # picture's edge.
        margin = min(int(3 * soft * self.size) + 1, 24)
        h, w = y1 - y0, x1 - x0
        covered = np.zeros((h + 2 * margin, w + 2 * margin), np.uint8)
        for outline in corners:
            moved = np.rint((outline - (x0 - margin, y0 - margin)) * _UNIT).astype(np.int32)
            cv2.fillPoly(covered, [moved], 255, cv2.LINE_AA, _SHIFT)
        values = _blur(covered, soft * self.size)[margin : margin + h, margin : margin + w]
        return Mask(y0, x0, np.multiply(values, np.float32(1 / 255), dtype=np.float32))


def _each(enlarge: Callable[[np.ndarray], np.ndarray], planes: np.ndarray, size: int) -> np.ndarray:
    out = np.empty((len(planes), size, size), np.float32)
    for plane, to in zip(planes, out, strict=True):
        to[:] = enlarge(plane)
    return out


def _blur(covered: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; a wide one is applied to a reduced picture, which limits its cost and gives
    nearly the same result."""
    if sigma < 0.45:
        return covered
    if sigma > 6 and min(covered.shape) > 24:
        reduced = cv2.resize(
            covered, (covered.shape[1] // 4, covered.shape[0] // 4), interpolation=cv2.INTER_AREA
        )
        return cv2.resize(
            cv2.GaussianBlur(reduced, (0, 0), sigma / 4),
            covered.shape[::-1],
            interpolation=cv2.INTER_LINEAR,
        )
    return cv2.GaussianBlur(covered, (0, 0), sigma)


def smooth(points: np.ndarray, n: int = 12) -> np.ndarray:
    """An open Catmull–Rom curve through ``(N, 2)`` points, ``n`` positions per span."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    a, b, c, d = (q[:, None] for q in (p[:-3], p[1:-2], p[2:-1], p[3:]))
    spans = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.concatenate([spans.reshape(-1, 2), p[-2:-1]])


def grid(n: int) -> np.ndarray:
    """``(n,) float32`` drawing positions of the rows, and of the columns, of an n×n grid."""
    return (LOW + (HIGH - LOW) * (np.arange(n, dtype=np.float32) + 0.5) / n).astype(np.float32)


def shifted(points: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """``(N, 2)`` points moved."""
    return points + np.array([dx, dy])


def ribbon(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The outline of a line through ``(N, 2)`` points with ``(N,)`` widths."""
    p = np.asarray(points, np.float64)
    tangent = np.empty_like(p)
    tangent[1:-1] = p[2:] - p[:-2]
    tangent[0], tangent[-1] = p[1] - p[0], p[-1] - p[-2]
    aside = (
        tangent[:, ::-1]
        * (-1, 1)
        * (np.asarray(widths, np.float64) / 2 / np.maximum(np.hypot(*tangent.T), 1e-9))[:, None]
    )
    return np.concatenate([p + aside, (p - aside)[::-1]])


def ellipse(centre: np.ndarray, rx: float, ry: float, n: int = 28) -> np.ndarray:
    """``(n, 2)`` positions on an axis-aligned ellipse."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + rx * np.cos(a), centre[1] + ry * np.sin(a)], 1)
