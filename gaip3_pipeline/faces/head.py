"""The head as a solid: elliptical slices with bumps for brows, nose, cheeks and lips, rotated,
projected and lit.

Drawing positions are in picture units. The head's x, y, z point to the picture's right, down and
towards the viewer; x and z are measured from the axis of the head."""

from dataclasses import dataclass

import cv2
import numpy as np

from gaip3_pipeline.faces.canvas import HIGH, LOW, grid
from gaip3_pipeline.faces.identity import Identity

MAX_YAW = np.deg2rad(31)
FOLLOW = 0.62  # share of the eyes' shift that the framing compensates, as in aligned photographs
TOP = 0.055
WIDEST = 0.46
EYE_Y = 0.472
MOUTH_Y = 0.722


@dataclass(frozen=True)
class Light:
    """Shading on the drawing's n×n grid: ``tone`` about 1, ``gloss`` in 0..1."""

    tone: np.ndarray
    gloss: np.ndarray


class Head:
    """An identity's head, rotated by ``yaw`` radians (positive: to the picture's right), its jaw
    lowered by ``jaw`` in 0..1."""

    def __init__(self, who: Identity, yaw: float, jaw: float):
        self.who = who
        self.sin, self.cos = float(np.sin(yaw)), float(np.cos(yaw))
        self.chin = who.chin + 0.022 * jaw
        self.jaw = jaw
        self.x0 = 0.5 - FOLLOW * 0.25 * self.sin
        self._y = np.linspace(TOP, self.chin, 160)
        self._w, self._zc, self._d = self._slices(self._y)

    def _slices(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half width, z of the middle and half depth of the slice at ``y``."""
        skull = np.clip((WIDEST - y) / (WIDEST - TOP), 0, 1)
        t = np.clip((y - WIDEST) / (self.chin - WIDEST), 0, 1)
        shape = np.where(
            y < WIDEST,
            (1 - skull**2.5) ** (1 / 2.2),
            (1 - t**self.who.jaw_power) ** (1 / self.who.jaw_round),
        )
        front = np.interp(
            y, [0.05, 0.2, 0.4, 0.5, 0.7, 1.0], [0.16, 0.235, 0.25, 0.245, 0.25, 0.24]
        )
        back = np.interp(t, [0, 0.13, 0.3, 0.5, 0.75, 1], [-0.34, -0.3, -0.1, -0.01, 0.09, 0.15])
        # The back of the jaw is smoothed: kinks would be visible as streaks in the shading.
        even = np.ones(25) / 25
        back = np.convolve(np.pad(back, 12, "edge"), even, "valid")
        depth = (front - back) / 2 * np.where(y < WIDEST, shape, np.minimum(1, shape * 1.5))
        return self.who.cheek * shape, front - (front - back) / 2, depth

    def outline(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x of the middle and the half width of the silhouette at ``y``."""
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        return self.x0 + zc * self.sin, np.sqrt((w * self.cos) ** 2 + (d * self.sin) ** 2)

    def project(
        self, x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float
    ) -> np.ndarray:
        """``(N, 2)`` drawing positions of points of the head."""
        across = self.x0 + np.asarray(x) * self.cos + np.asarray(z) * self.sin
        out = np.empty((*np.broadcast_shapes(np.shape(across), np.shape(y)), 2))
        out[..., 0], out[..., 1] = across, y
        return out

    def on_face(self, x: np.ndarray | float, y: np.ndarray | float, out: float = 0.0) -> np.ndarray:
        """``(N, 2)`` drawing positions of points on the front of the face, at the distance ``out``
        in front of it."""
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        z = zc + d * np.sqrt(np.maximum(1 - (x / np.maximum(w, 1e-3)) ** 2, 0.01))
        return self.project(x, y, z + out)

    def round_face(self, phi: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Drawing positions at angles ``phi`` round the head (0 in front, positive towards the
        picture's right).

        Angles beyond the visible horizon are clipped to it, so that a curve round the head ends at
        the silhouette."""
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        # the horizon at the picture's right; the left one is half a turn away
        reach = np.arctan2(w * self.cos, d * self.sin)
        phi = np.clip(phi, reach - np.pi, reach)
        return self.project(w * np.sin(phi), y, zc + d * np.cos(phi))

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Half width of the unrotated head at ``y``."""
        return np.interp(y, self._y, self._w)

    def angle(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The angle round the head at which an unrotated face shows ``x``."""
        return np.arcsin(np.clip(x / np.maximum(self.half_width(y), 1e-3), -1, 1))

    def visible(self) -> tuple[float, float]:
        """The smallest and the largest visible angle round the head, at the height of the eyes."""
        w, d = (float(np.interp(EYE_Y, self._y, v)) for v in (self._w, self._d))
        reach = float(np.arctan2(w * self.cos, d * self.sin))
        return reach - np.pi, reach

    def light(self, n: int) -> Light:
        """The head's surface with its bumps under Lambert's shading with soft wrap and Blinn's
        highlights, on an n×n grid."""
        who, p = self.who, grid(n)
        x, y = p[None, :], p[:, None]
        middle, half = (
            v.astype(np.float32)[:, None] for v in self.outline(np.clip(p, TOP, self.chin - 0.004))
        )
        half = np.maximum(half, np.float32(0.02))
        across = np.clip((x - middle) / half, -0.985, 0.985)
        # 1.15: the cheeks of an ellipsoid are darker than those of a face, whose front is flatter.
        z = half * (1 - np.abs(across) ** 2.6) ** np.float32(1 / 2.6) / np.float32(1.15)
        bumps = np.array(self._bumps(), np.float32)
        at = np.array([self.on_face(b[0], b[1], float(b[2])) for b in bumps], np.float32)
        columns = np.exp(-(((x - at[:, :1]) / bumps[:, 4:5]) ** 2) / 2)
        rows = np.exp(-(((y.T - at[:, 1:]) / bumps[:, 5:6]) ** 2) / 2)
        z += (rows * bumps[:, 3:4]).T @ columns
        step = np.float32(2 * (HIGH - LOW) / n)
        zx, zy = np.zeros_like(z), np.zeros_like(z)
        zx[:, 1:-1] = (z[:, 2:] - z[:, :-2]) / step
        zy[1:-1] = (z[2:] - z[:-2]) / step
        norm = 1 / np.sqrt(zx * zx + zy * zy + 1)
        el, az = who.light_elevation, who.light_azimuth
        lx, ly, lz = (
            np.float32(v) for v in (np.sin(az) * np.cos(el), -np.sin(el), np.cos(az) * np.cos(el))
        )
        facing = (-zx * lx - zy * ly + lz) * norm
        diffuse = np.maximum((facing + np.float32(0.3)) / np.float32(1.3), 0)
        halfway = np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
        gloss = np.clip((-zx * lx - zy * ly + lz + 1) * norm / halfway, 0, 1)
        for _ in range(4):
            gloss = gloss * gloss
        s = np.float32(who.light_strength)
        tone = (1 - np.float32(0.86) * s) + np.float32(0.96) * s * diffuse
        # Outside the silhouette the tone of its edge is used: otherwise the soft edge of the skin
        # would have a bright rim.
        column = (np.clip(x, middle - 0.93 * half, middle + 0.93 * half) - LOW) / (
            HIGH - LOW
        ) * n - 0.5
        row = np.broadcast_to(
            (np.clip(y, LOW, self.chin - 0.014) - LOW) / (HIGH - LOW) * n - 0.5, column.shape
        )
        place = column.astype(np.float32), row.astype(np.float32)
        return Light(
            *(cv2.remap(v.astype(np.float32), *place, cv2.INTER_LINEAR) for v in (tone, gloss))
        )

    def _bumps(self) -> list[tuple[float, float, float, float, float, float]]:
        """For each bump: x, y, distance in front of the face, height, and sigmas along x and y."""
        who, drop = self.who, self.jaw
        tip = 0.595 + who.nose_length
        man = who.sex == "male"
        bumps = [
            (0.0, 0.27, 0.0, 0.012, 0.12, 0.06),
            (0.0, 0.415, 0.0, 0.008, 0.05, 0.03),
            (0.0, 0.88 * self.chin + 0.055, 0.01, 0.020 if man else 0.015, 0.05, 0.035),
            (0.0, MOUTH_Y, 0.0, 0.014, 0.07, 0.05),
            (0.0, MOUTH_Y + 0.048 + 0.03 * drop, 0.01, -0.008, 0.045, 0.012),
            (0.0, 0.668, 0.01, -0.004, 0.009, 0.02),
        ]
        for s in (-1, 1):
            bumps += [
                (s * 0.115, who.brow_y + 0.012, 0.0, 0.012 if man else 0.007, 0.06, 0.02),
                (s * who.eye_gap, EYE_Y, 0.0, -0.012, 0.05, 0.028),
                (s * who.eye_gap, EYE_Y, 0.0, 0.008, 0.032, 0.026),
                (s * 0.14, 0.59, 0.0, 0.016, 0.05, 0.045),
                (s * 0.05, EYE_Y - 0.01, 0.0, -0.008, 0.018, 0.03),
                (s * who.nose_width * 0.85, tip + 0.012, 0.022, 0.016, 0.014, 0.013),
            ]
        for t in np.linspace(0, 1, 6):
            high = who.nose_high * (0.006 + 0.012 * t)
            bumps.append(
                (0.0, 0.47 + (tip - 0.47) * t, 0.012 + 0.05 * t, high, 0.016 + 0.006 * t, 0.022)
            )
        bumps.append((0.0, tip + 0.002, 0.068, 0.03 * who.nose_high, 0.022, 0.02))
        return bumps
