"""The head as a solid: elliptical slices with bumps for brows, nose, cheeks and lips, turned, projected and lit.

Drawing positions are picture units; x, y, z of the head are to the picture's right, down and towards the viewer, x and z
from the axis of the head.
"""

from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.faces.canvas import Similarity
from gaip3_pipeline.faces.identity import Identity

MAX_YAW = np.deg2rad(33)
FOLLOW = 0.62  # share of the eyes' shift that the framing takes back, as aligned photographs do
TOP = 0.055
WIDEST = 0.46
EYE_Y = 0.472
MOUTH_Y = 0.722


@dataclass(frozen=True)
class Light:
    """Shading of the picture on an n×n grid: ``tone`` about 1, ``gloss`` in 0..1."""

    tone: np.ndarray
    gloss: np.ndarray


class Head:
    """An identity's head, turned by ``yaw`` radians (positive: to the picture's right), its jaw lowered by ``jaw``."""

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
        shape = np.where(y < WIDEST, (1 - skull**2.5) ** (1 / 2.2), (1 - t**self.who.jaw_power) ** (1 / self.who.jaw_round))
        front = np.interp(y, [0.05, 0.2, 0.4, 0.5, 0.7, 1.0], [0.16, 0.235, 0.25, 0.245, 0.25, 0.24])
        back = np.interp(t, [0, 0.25, 0.55, 0.8, 1], [-0.34, -0.28, -0.06, 0.06, 0.12])
        depth = (front - back) / 2 * np.where(y < WIDEST, shape, np.minimum(1, shape * 1.5))
        return self.who.cheek * shape, front - (front - back) / 2, depth

    def outline(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x of the middle and the half width of the silhouette at ``y``."""
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        return self.x0 + zc * self.sin, np.sqrt((w * self.cos) ** 2 + (d * self.sin) ** 2)

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray | float) -> np.ndarray:
        """``(N, 2)`` drawing positions of points of the head."""
        x, y, z = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(z, float))
        return np.stack([self.x0 + x * self.cos + z * self.sin, y], -1)

    def on_face(self, x: np.ndarray | float, y: np.ndarray | float, out: float = 0.0) -> np.ndarray:
        """``(N, 2)`` drawing positions of points on the front of the face, ``out`` in front of it."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        z = zc + d * np.sqrt(np.clip(1 - (x / np.maximum(w, 1e-3)) ** 2, 0.01, 1))
        return self.project(x, y, z + out)

    def round_face(self, phi: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Drawing positions at angles ``phi`` round the head (0 in front, positive to its side at the picture's right).

        Angles beyond the horizon stay on it, so that a curve round the head ends at the silhouette.
        """
        w, zc, d = (np.interp(y, self._y, v) for v in (self._w, self._zc, self._d))
        reach = np.arctan2(w * self.cos, d * self.sin)  # the horizon at the picture's right; the left one is half a turn away
        phi = np.clip(phi, reach - np.pi, reach)
        return self.project(w * np.sin(phi), y, zc + d * np.cos(phi))

    def visible(self) -> tuple[float, float]:
        """The least and the largest angle round the head that the viewer sees, at the eyes."""
        w, d = (float(np.interp(EYE_Y, self._y, v)) for v in (self._w, self._d))
        reach = float(np.arctan2(w * self.cos, d * self.sin))
        return reach - np.pi, reach

    def light(self, place: Similarity, n: int) -> Light:
        """Lambert's shading with soft wrap, and Blinn's highlights, of the head's surface with its bumps."""
        who = self.who
        x, y = place.inverse_grid(n)
        middle, half = (np.interp(y[:, n // 2], self._y, v) for v in self._silhouette())
        # Rows of the grid are taken as level: the roll is a degree or two, and shading is soft.
        half = np.maximum(half, 0.02)[:, None]
        across = np.clip((x - middle[:, None]) / half, -0.985, 0.985)
        # 1.15: an ellipsoid alone is darker at the cheeks than a face, whose front is flatter.
        z = half * (1 - np.abs(across) ** 2.6) ** (1 / 2.6) / 1.15
        for bx, by, out, high, sx, sy in self._bumps():
            cx, cy = self.on_face(bx, by, out)
            z = z + high * np.exp(-(((x - cx) / sx) ** 2) / 2 - ((y - cy) / sy) ** 2 / 2)
        zy, zx = np.gradient(z, 1 / (n * place.scale))
        zy = zy.astype(np.float32)
        norm = 1 / np.sqrt(zx * zx + zy * zy + 1)
        el, az = who.light_elevation, who.light_azimuth
        lx, ly, lz = np.sin(az) * np.cos(el), -np.sin(el), np.cos(az) * np.cos(el)
        facing = (-zx * lx - zy * ly + lz) * norm
        diffuse = np.clip((facing + 0.3) / 1.3, 0, None)
        hx, hy, hz = lx, ly, lz + 1
        h = np.sqrt(hx * hx + hy * hy + hz * hz)
        gloss = np.clip((-zx * hx - zy * hy + hz) * norm / h, 0, 1) ** 24
        tone = (1 - 0.78 * who.light_strength) + who.light_strength * diffuse
        return Light(tone.astype(np.float32), gloss.astype(np.float32))

    def _silhouette(self) -> tuple[np.ndarray, np.ndarray]:
        return self.outline(self._y)

    def _bumps(self) -> list[tuple[float, float, float, float, float, float]]:
        """x, y, distance before the face, height, and sigmas along x and y of each bump."""
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
            bumps.append((0.0, 0.47 + (tip - 0.47) * t, 0.012 + 0.05 * t, high, 0.016 + 0.006 * t, 0.022))
        bumps.append((0.0, tip + 0.002, 0.068, 0.03 * who.nose_high, 0.022, 0.02))
        return bumps
