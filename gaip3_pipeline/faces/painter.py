"""Synthetic portraits with exact values of the five attributes: eyes, mouth, hair colour,
background, head turn.

``paint`` is a pure function of a :class:`Face`. The identity depends on the seed and the sex only,
so a sweep of one value changes only what this value describes."""

from dataclasses import dataclass

import cv2
import numpy as np

from gaip3_pipeline.faces.canvas import (
    Canvas,
    Mask,
    Similarity,
    ellipse,
    grid,
    ribbon,
    shifted,
    smooth,
)
from gaip3_pipeline.faces.head import EYE_Y, MAX_YAW, MOUTH_Y, TOP, Head, Light
from gaip3_pipeline.faces.identity import identity

LUMA = np.array([0.299, 0.587, 0.114])
_HAIR_AT = [0, 0.25, 0.5, 0.75, 1]
_HAIR = np.array(
    [(236, 224, 196), (214, 178, 118), (150, 102, 62), (88, 58, 40), (30, 24, 24)], float
)
_U = np.linspace(-1, 1, 25)


@dataclass(frozen=True)
class Face:
    """The input of ``paint``: an identity (``sex`` "female" or "male", ``seed``) and the five
    values, each in 0..1.

    ``eyes`` 0 closed … 1 open; ``mouth`` 0 closed … 1 open; ``hair_color`` 0 light … 1 dark;
    ``background`` 0 dark … 1 bright; ``head`` 0 turned to the picture's left, 0.5 frontal, 1 turned
    to its right. Raises ValueError for any other sex or value."""

    sex: str
    seed: int
    eyes: float = 1.0
    mouth: float = 0.0
    hair_color: float = 0.5
    background: float = 0.5
    head: float = 0.5

    def __post_init__(self) -> None:
        if self.sex not in ("female", "male"):
            raise ValueError(f"sex is {self.sex!r}; use 'female' or 'male'")
        for name in ("eyes", "mouth", "hair_color", "background", "head"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use a number from 0 to 1")


def random_face(rng: np.random.Generator, sex: str) -> Face:
    """A face of a new identity. Its values cover their whole range; open eyes, closed mouths and
    frontal heads are the most frequent."""
    seed = int(rng.integers(2**31))
    kinds = rng.random(3)
    eyes = (
        rng.uniform(0.8, 1.0)
        if kinds[0] < 0.5
        else rng.uniform(0, 1)
        if kinds[0] < 0.8
        else rng.uniform(0, 0.12)
    )
    mouth = rng.uniform(0, 0.1) if kinds[1] < 0.35 else rng.uniform(0, 1)
    head = rng.normal(0.5, 0.06) if kinds[2] < 0.3 else rng.uniform(0, 1)
    hair_color, background = rng.beta(0.9, 0.8), rng.beta(0.9, 0.9)
    values = [
        round(float(np.clip(v, 0, 1)), 4) for v in (eyes, mouth, hair_color, background, head)
    ]
    return Face(sex, seed, *values)


def paint(face: Face, size: int) -> np.ndarray:
    """The portrait, ``(size, size, 3) uint8`` RGB. Deterministic."""
    return _Portrait(face, size).picture()


def hair_rgb(value: float, warmth: float) -> np.ndarray:
    """``(3,) float64`` RGB in 0..255 of hair; its luma falls linearly with ``value``. ``warmth`` 0
    is grey, 1 natural."""
    natural = np.array([np.interp(value, _HAIR_AT, _HAIR[:, c]) for c in range(3)])
    ratio = (natural / (natural @ LUMA)) ** warmth
    return (216 - 192 * value) * ratio / (ratio @ LUMA)


class _Portrait:
    """Paints one picture in layers, from the back to the front."""

    def __init__(self, face: Face, size: int):
        self.face, self.who = face, identity(face.seed, face.sex)
        who = self.who
        self.canvas = Canvas(size, Similarity(who.roll, who.scale, who.dx, who.dy))
        self.head = Head(who, (face.head - 0.5) * 2 * MAX_YAW, face.mouth)
        self.rng = np.random.default_rng(who.noise_seed)
        self.hair = hair_rgb(face.hair_color, who.hair_warmth)
        self.side = float(np.sign(np.sin(who.light_azimuth)))

    def picture(self) -> np.ndarray:
        self._backdrop()
        light = self.head.light(128)
        self.tone = self.canvas.place_grid(light.tone)
        self.skin = self._skin_planes(light)
        self.hair_planes = self._hair_planes()
        self._hair_behind()
        self._neck_and_clothes()
        self._ear(far=True)
        self._hair_cap()
        face = self._face()
        self._ear(far=False)
        self._cheeks(face)
        self._beard(face)
        self._nose(face)
        self._mouth()
        for s in (-1.0, 1.0):
            self._eye(s)
            self._brow(s, face)
        self._hair_front(face)
        self._glasses()
        self._earrings()
        self._grade()
        return self.canvas.picture()

    # surroundings
    def _backdrop(self) -> None:
        """A background with mean grey level 12 + 232 · value, whatever its pattern."""
        who, n = self.who, 64
        y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
        angle = self.rng.uniform(0, 2 * np.pi)
        field = np.zeros((n, n), np.float32)
        if who.backdrop == "gradient":
            field = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
        elif who.backdrop == "window":
            for _ in range(5):
                at, wide, high = (
                    self.rng.uniform(-0.1, 1.1),
                    self.rng.uniform(0.05, 0.2),
                    self.rng.normal(0, 0.6),
                )
                field += high / (1 + np.exp((np.abs(x - at + 0.15 * (y - 0.5)) - wide) * 28))
        elif who.backdrop == "bokeh":
            for _ in range(14):
                cx, cy, r = (
                    self.rng.uniform(-0.1, 1.1),
                    self.rng.uniform(-0.1, 1.1),
                    self.rng.uniform(0.05, 0.18),
                )
                field += self.rng.normal(0, 0.5) / (1 + np.exp((np.hypot(x - cx, y - cy) - r) * 32))
        field = field - field.mean()
        level = 12 + 232 * self.face.background
        # The pattern's contrast falls towards black and white, where grey levels end.
        swing = min(level - 4, 252 - level, 42)
        field = np.clip(field * swing * 0.9, -swing, swing)
        mix = 0.5 + 0.5 * np.tanh(
            3 * (np.cos(angle + 1) * (x - 0.5) + np.sin(angle + 1) * (y - 0.5))
        )
        tint = (
            who.backdrop_hue[0][:, None, None] * (1 - mix)
            + who.backdrop_hue[1][:, None, None] * mix
        )
        room = 1 - abs(2 * self.face.background - 1) ** 3
        tint = 1 + (tint - 1) * room
        self.canvas.blend(
            self.canvas.whole(), self.canvas.upsample((level + field - field.mean()) * tint)
        )

    def _neck_and_clothes(self) -> None:
        who, c = self.who, self.canvas
        middle = float(self.head.project(0.0, 0.9, -0.07)[0])
        base = 0.5 + (middle - 0.5) * 0.4
        wide = who.neck

        def edge(s: int) -> np.ndarray:
            at = [
                (middle + s * wide * 0.95, 0.56),
                (middle + s * wide, 0.86),
                (base + s * wide * 1.12, 0.95),
                (base + s * 0.4, 1.05),
            ]
            return smooth(np.array(at))

        neck = c.polygon(np.concatenate([edge(-1), edge(1)[::-1]]), 0.002)
        shade = 0.86 - 0.14 * who.light_strength
        c.blend(neck, who.skin * shade * (1.0, 0.97, 0.95))
        c.lighten(
            c.blob(np.array([middle + self.side * wide, 0.93]), 0.05, 0.15, 0.03, within=neck),
            18 * who.light_strength,
        )
        y = np.linspace(0.6, self.head.chin, 20)
        cx, half = self.head.outline(y)
        jaw = np.concatenate([np.stack([cx - half, y], 1), np.stack([cx + half, y], 1)[::-1]])
        c.wash(
            c.polygon(shifted(jaw, -0.02 * self.side, 0.035), 0.016, within=neck),
            (0.66, 0.58, 0.55),
            0.9,
        )
        self._clothes(base)

    def _clothes(self, base: float) -> None:
        who, c = self.who, self.canvas
        slope = 0.935 if who.sex == "male" else 0.955
        wide = who.neck * 1.08
        deep = {"scoop": 1.03, "vee": 1.06, "crew": 0.985, "collar": 1.03, "suit": 1.05}[
            who.neckline
        ]

        def shoulder(s: int) -> np.ndarray:
            """From the neck outwards."""
            at = [(wide, slope - 0.005), (wide + 0.06, slope), (0.42, slope + 0.035), (0.62, 1.04)]
            return smooth(np.array([(base + s * x, y) for x, y in at]))

        dip = np.array(
            [
                (base - wide * 0.7, (slope + deep) / 2 + 0.01),
                (base, deep),
                (base + wide * 0.7, (slope + deep) / 2 + 0.01),
            ]
        )
        below = [(base + 0.62, 1.2), (base - 0.62, 1.2)]
        cloth = c.polygon(np.concatenate([shoulder(-1)[::-1], dip, shoulder(1), below]), 0.002)
        c.blend(cloth, who.cloth)
        for s in (-1, 1):
            c.wash(
                c.blob(np.array([base + s * 0.3, 1.05]), 0.1, 0.1, 0.03, within=cloth),
                (1.15,) * 3 if s == self.side else (0.8, 0.8, 0.82),
            )
        if who.neckline in ("collar", "suit"):
            for s in (-1, 1):
                at = [
                    (wide * 0.98, slope - 0.03),
                    (wide + 0.035, slope),
                    (0.09, 1.04),
                    (0.02, 1.03),
                ]
                flap = np.array([(base + s * x, y) for x, y in at])
                c.blend(c.polygon(flap, 0.002), who.cloth_second)
                c.wash(c.stroke(flap[1:3], 0.006, 0.003), (0.6, 0.6, 0.6), 0.7)
        elif who.neckline == "crew":
            rim = smooth(np.concatenate([shoulder(-1)[:1], dip, shoulder(1)[:1]]))
            c.wash(c.stroke(rim, 0.012, 0.003), (0.7, 0.7, 0.72), 0.8)

    # skin
    def _skin_planes(self, light: Light) -> np.ndarray:
        """``(3, S, S)``: the lit skin; shadows are redder, as light that is scattered under the
        skin makes them."""
        tone = np.maximum(light.tone, 0.05)
        gloss = (
            42 * self.who.light_strength * (0.6 + 0.4 * self.who.skin.mean() / 200) * light.gloss
        )
        planes = np.stack(
            [self.who.skin[i] * tone**p + gloss for i, p in enumerate((0.82, 1.0, 1.1))]
        )
        return self.canvas.place_grid(planes)

    def _face(self) -> Mask:
        """The skin of the face: bounded by the hairline above and the silhouette below."""
        who, head = self.who, self.head
        top = who.hairline
        lo, hi = head.visible()
        reach = np.linspace(lo, hi, 61)
        angle = np.abs(np.rad2deg(reach))
        if who.style in ("buzz", "short", "quiff"):
            at = [0, 30, 48, 58, 68, 80, 92, 108, 118, 150]
            line = np.interp(
                angle,
                at,
                [top, top, top + 0.015, top + 0.06, top + 0.2, 0.49, 0.47, 0.43, 0.6, 0.74],
            )
        else:
            at = [0, 35, 55, 68, 80, 90, 108, 120, 150]
            line = np.interp(
                angle,
                at,
                [top - 0.01, top + 0.01, top + 0.07, top + 0.18, 0.45, 0.47, 0.44, 0.62, 0.78],
            )
        curve = head.round_face(reach, line)
        y = np.linspace(max(curve[0, 1], curve[-1, 1], 0.4), head.chin, 50)
        y = head.chin - (head.chin - y[0]) * (1 - np.linspace(0, 1, 50)) ** 1.6
        right, left = y[y > curve[-1, 1]], y[y > curve[0, 1]]
        cr, hr = head.outline(right)
        cl, hl = head.outline(left)
        outline = np.concatenate(
            [curve, np.stack([cr + hr, right], 1), np.stack([cl - hl, left], 1)[::-1]]
        )
        mask = self.canvas.polygon(outline, 0.0016)
        self.canvas.blend(mask, self.skin)
        # Hair casts a shadow on the skin along the hairline.
        shadow = ribbon(shifted(curve, 0, 0.006), np.full(len(curve), 0.03))
        self.canvas.wash(self.canvas.polygon(shadow, 0.009, within=mask), (0.78, 0.7, 0.66), 0.75)
        return mask

    def _cheeks(self, face: Mask) -> None:
        who, c = self.who, self.canvas
        for s in (-1, 1):
            at = self.head.on_face(s * 0.15, 0.605)
            c.wash(
                c.blob(at, 0.05 * self.head.cos, 0.035, 0.024, within=face),
                (1.05, 0.82, 0.82),
                who.blush,
            )
        if who.freckles:
            at = self.rng.normal((0, 0.57), (0.1, 0.022), (40, 2))
            dots = [ellipse(p, 0.0026, 0.0024, 8) for p in self.head.on_face(at[:, 0], at[:, 1])]
            c.wash(c.polygon(dots, 0.0012, within=face), (0.8, 0.68, 0.6), 0.6)

    def _ear(self, far: bool) -> None:
        who, head, c = self.who, self.head, self.canvas
        if who.style in ("long", "bob", "shaggy"):
            return
        for s in (-1, 1):
            if (s * head.sin > 0.03) != far:
                continue
            q = np.array([0.0, 0.25, 0.7, 1.0, 0.95, 0.55, 0.2, 0.0])
            y = np.array([0.475, 0.452, 0.448, 0.475, 0.52, 0.565, 0.592, 0.57])
            ear = smooth(head.project(s * (who.cheek - 0.014 + 0.036 * q), y, -0.03 - 0.06 * q), 6)
            mask = c.polygon(ear, 0.0015)
            c.blend(
                mask,
                who.skin * (0.9, 0.82, 0.8) * (1.0 - 0.22 * who.light_strength * (s != self.side)),
            )
            inner = head.project(s * (who.cheek + 0.008), np.array(0.515), -0.065)
            c.wash(
                c.blob(inner, 0.012 * (0.4 + abs(head.sin)), 0.03, 0.006, within=mask),
                (0.72, 0.58, 0.56),
                0.8,
            )

    def _beard(self, face: Mask) -> None:
        who, head, c = self.who, self.head, self.canvas
        if not who.beard:
            return
        colour = hair_rgb(min(1, self.face.hair_color * 0.85 + 0.18), who.hair_warmth) * 0.92
        lit = np.stack([np.clip(self.tone, 0.3, 1.15) * v for v in colour])
        if not who.moustache_only:
            side = np.array([(0.98, 0.50), (0.90, 0.56), (0.80, 0.64), (0.60, 0.685)])
            w = head.half_width(side[:, 1])
            right = head.on_face(side[:, 0] * w, side[:, 1])
            left = head.on_face(-side[:, 0] * w, side[:, 1])
            lip = head.on_face(
                np.array([0.07, 0.04, 0.0, -0.04, -0.07]),
                np.array([0.675, 0.66, 0.655, 0.66, 0.675]),
            )
            jaw = np.linspace(0.5, head.chin, 24)
            cx, half = head.outline(jaw)
            around = np.concatenate(
                [
                    np.stack([cx - half - 0.01, jaw], 1),
                    np.stack([cx + half + 0.01, jaw + 0.01], 1)[::-1],
                ]
            )
            mask = c.polygon(
                np.concatenate([smooth(right, 6), lip, smooth(left[::-1], 6), around]),
                0.007,
                within=face,
            )
            around_mouth = c.blob(
                head.on_face(0.0, MOUTH_Y + 0.008 + 0.02 * head.jaw),
                0.066,
                0.028 + 0.03 * head.jaw,
                0.008,
            )
            c.blend(mask.minus(around_mouth * 0.6), lit, who.beard)
        moustache = smooth(
            head.on_face(
                np.array([-0.082, -0.045, 0.0, 0.045, 0.082]),
                np.array([0.712, 0.678, 0.672, 0.678, 0.712]),
                0.01,
            )
        )
        width = np.interp(
            np.linspace(0, 1, len(moustache)),
            [0, 0.3, 0.5, 0.7, 1],
            [0.008, 0.026, 0.02, 0.026, 0.008],
        )
        c.blend(c.polygon(ribbon(moustache, width), 0.004), lit, who.beard)

    # features
    def _nose(self, face: Mask) -> None:
        who, head, c = self.who, self.head, self.canvas
        tip, wide = 0.595 + who.nose_length, who.nose_width
        deep = 0.75 if who.sex == "male" else 0.5
        base = head.on_face(
            np.array([-1, -0.5, 0, 0.5, 1, 0]) * wide,
            tip + np.array([0.02, 0.028, 0.032, 0.028, 0.02, 0.045]),
            0.04,
        )
        c.wash(c.polygon(base, 0.008, within=face), (0.66, 0.55, 0.52), deep)
        wings = []
        for s in (-1, 1):
            at = head.on_face(s * wide * 0.48, tip + 0.022, 0.045)
            c.wash(
                c.blob(
                    at, 0.0105 * max(0.35, head.cos - 0.5 * s * head.sin), 0.006, 0.003, within=face
                ),
                (0.36, 0.25, 0.23),
                0.85,
            )
            wing = smooth(
                head.on_face(
                    s * wide * np.array([0.98, 1.1, 0.95]),
                    tip + np.array([-0.004, 0.013, 0.027]),
                    0.03,
                ),
                6,
            )
            wings.append(ribbon(wing, np.full(len(wing), 0.006)))
        c.wash(c.polygon(wings, 0.004, within=face), (0.62, 0.5, 0.47), deep)
        # The side of the nose that is turned away or is in the shade.
        away = head.sin * 1.4 - self.side * 0.5 * who.light_strength
        s = 1 if away > 0 else -1
        edge = smooth(
            head.on_face(
                s * np.array([0.034, 0.02, 0.02, 0.026]),
                np.array([0.445, 0.49, 0.545, tip - 0.005]),
                0.03,
            )
        )
        side = c.polygon(ribbon(edge, np.linspace(0.012, 0.022, len(edge))), 0.008, within=face)
        c.wash(side, (0.7, 0.6, 0.57), min(0.75, 0.2 + abs(away) * 0.6))
        ridge = head.on_face(np.zeros(5), np.linspace(0.47, tip, 5), 0.06)
        c.lighten(c.stroke(ridge, 0.012, 0.007, within=face), 14)

    def _mouth(self) -> None:
        who, head, c = self.who, self.head, self.canvas
        a = self.face.mouth
        gap = 0.078 * a
        half = who.mouth_width + 0.012 * who.smile - 0.008 * a
        lift = 0.014 * who.smile * (1 - _U**2) - 0.007 * who.smile
        middle = MOUTH_Y + lift
        inside = np.maximum(1 - _U**2, 0) ** 0.62
        bow = 0.82 + 0.18 * np.cos(2 * np.pi * np.clip(_U / 0.62, -1, 1)) * -1
        upper_in = middle - 0.32 * gap * inside
        lower_in = middle + 0.68 * gap * inside
        upper_out = (
            upper_in - who.lip_upper * (1 - 0.3 * a) * bow * np.maximum(1 - _U**2, 0) ** 0.55
        )
        lower_out = lower_in + who.lip_lower * (1 - 0.2 * a) * np.maximum(1 - _U**2, 0) ** 0.6

        def curve(y: np.ndarray) -> np.ndarray:
            return head.on_face(_U * half, y, 0.012)

        colour = who.lip * (1 - 0.22 * who.light_strength)
        c.wash(
            c.polygon(shifted(curve(lower_out + 0.012), 0, 0.004), 0.007), (0.75, 0.65, 0.62), 0.5
        )
        upper = c.polygon(np.concatenate([curve(upper_out), curve(upper_in)[::-1]]), 0.0016)
        lower = c.polygon(np.concatenate([curve(lower_in), curve(lower_out)[::-1]]), 0.0016)
        c.blend(upper, colour * 0.86)
        c.blend(lower, colour * 1.04)
        shine = head.on_face(
            self.side * 0.012,
            MOUTH_Y + 0.68 * gap + who.lip_lower * 0.55 + 0.006 * who.smile,
            0.012,
        )
        c.lighten(c.blob(shine, 0.03, 0.004, 0.004, within=lower), 34 + 22 * who.lip_strength)
        if gap > 0.002:
            mouth = c.polygon(np.concatenate([curve(upper_in), curve(lower_in)[::-1]]), 0.0012)
            c.blend(mouth, np.array([62.0, 20.0, 22.0]))
            tongue = head.on_face(0.0, MOUTH_Y + 0.68 * gap + 0.008, 0.0)
            c.blend(
                c.blob(tongue, half * 0.55, 0.028 * a + 0.004, 0.006, within=mouth),
                np.array([176.0, 84.0, 84.0]),
                0.85,
            )
            reach = min(0.031, 0.012 + 0.5 * gap)
            row = np.concatenate(
                [curve(upper_in - 0.006), curve(upper_in + reach * (1 - 0.35 * _U**2))[::-1]]
            )
            teeth = c.polygon(row, 0.0012, within=mouth)
            c.blend(teeth, np.array([242.0, 238.0, 228.0]))
            corners = [
                ellipse(head.on_face(s * half * 0.95, MOUTH_Y), half * 0.3, 0.05) for s in (-1, 1)
            ]
            c.wash(c.polygon(corners, 0.01, within=teeth), (0.55, 0.5, 0.5), 0.9)
            span = np.array([MOUTH_Y - 0.04, MOUTH_Y + 0.04])
            seams = [
                head.on_face(np.full(2, x * half), span, 0.01)
                for x in (-0.59, -0.36, -0.12, 0.12, 0.36, 0.59)
            ]
            c.wash(
                c.polygon(
                    [ribbon(seam, np.full(2, 0.0016)) for seam in seams], 0.001, within=teeth
                ),
                (0.8, 0.78, 0.76),
                0.7,
            )
        line = c.polygon(
            ribbon(curve(middle - 0.32 * gap * inside), 0.0055 - 0.002 * np.abs(_U)), 0.0014
        )
        c.wash(line, (0.42, 0.3, 0.3), 0.85)
        corners, folds = [], []
        for s in (-1, 1):
            corners.append(ellipse(head.on_face(s * half, middle[0], 0.01), 0.008, 0.006))
            fold = smooth(
                head.on_face(s * np.array([0.062, 0.088, 0.108]), np.array([0.615, 0.655, 0.7])), 6
            )
            folds.append(ribbon(fold, np.full(len(fold), 0.008)))
        c.wash(c.polygon(corners, 0.005), (0.6, 0.48, 0.46), 0.7)
        c.wash(c.polygon(folds, 0.006), (0.72, 0.62, 0.6), 0.25 + 0.3 * who.smile)

    def _eye(self, s: float) -> None:
        who, head, c = self.who, self.head, self.canvas
        open_ = self.face.eyes
        x = s * (who.eye_gap + s * _U * who.eye_width)
        outer = s * _U  # 1 at the outer corner
        tilt = -who.eye_tilt * outer
        arch = np.maximum(1 - np.abs(_U) ** 2.3, 0) ** 0.85
        shut = 0.017
        upper = EYE_Y + tilt + (shut + (-who.eye_height * 0.64 - shut) * open_) * arch
        lower = EYE_Y + tilt + (shut + (who.eye_height * 0.40 - shut) * open_) * arch

        def curve(y: np.ndarray) -> np.ndarray:
            return head.on_face(x, y)

        crease = EYE_Y + tilt - (who.eye_height * 0.64 + 0.013) * (0.35 + 0.65 * arch)
        socket = c.polygon(
            np.concatenate([curve(crease - 0.012), curve(lower + 0.014)[::-1]]), 0.008
        )
        c.wash(socket, (0.86, 0.78, 0.76), 0.55)
        lid = c.polygon(
            np.concatenate([curve(crease), curve(np.maximum(lower, upper))[::-1]]), 0.004
        )
        c.wash(lid, (0.93, 0.86, 0.83))
        if who.makeup:
            ratio = np.clip(who.eyeshadow / who.skin, 0.3, 1.1)
            c.wash(
                c.polygon(np.concatenate([curve(crease - 0.006), curve(upper)[::-1]]), 0.006),
                tuple(ratio),
                0.75 * who.makeup,
            )
        c.wash(c.stroke(curve(crease), 0.004, 0.0025), (0.55, 0.45, 0.42), 0.7)
        if open_ > 0.03:
            self._eyeball(s, np.concatenate([curve(upper), curve(lower)[::-1]]), curve(upper))
        dark = np.array([34.0, 24.0, 22.0])
        lash = 0.0068 + 0.0042 * who.makeup
        along = np.linspace(-1, 1, len(_U)) * s
        line = [ribbon(curve(upper), lash * (0.55 + 0.45 * arch) * (1 + 0.3 * along))]
        if who.makeup:
            last = -1 if s > 0 else 0
            ends = upper[last] + np.array([-0.003, -0.002, -0.011 + 0.010 * (1 - open_)])
            wing = head.on_face(x[last] + s * np.array([-0.012, 0.004, 0.016]), ends)
            line.append(ribbon(wing, np.array([0.009, 0.007, 0.002])))
        c.blend(c.polygon(line, 0.0012), dark, 0.92 if who.makeup else 0.75)
        if who.makeup:
            self._lashes(s, x, upper, open_, dark)
        below = ribbon(curve(lower), np.full(len(_U), 0.0035 + 0.001 * who.makeup))
        c.wash(c.polygon(below, 0.0015), (0.5, 0.38, 0.36), 0.65 * (0.5 + 0.5 * open_))

    def _eyeball(self, s: float, outline: np.ndarray, upper: np.ndarray) -> None:
        who, head, c = self.who, self.head, self.canvas
        aperture = c.polygon(outline, 0.001)
        shade = 0.93 - 0.16 * who.light_strength
        c.blend(aperture, np.array([244.0, 240.0, 236.0]) * shade)
        slant = max(0.45, float(np.cos(np.arcsin(np.clip(head.sin, -1, 1)) + s * 0.35)) + 0.08)
        at = head.on_face(s * who.eye_gap, EYE_Y - 0.005, -0.004) - (0.004 * head.sin, 0)
        r = 0.0275
        c.blend(c.blob(at, r * slant, r, 0.0014, within=aperture), who.iris * 0.5)
        c.blend(c.blob(at, r * 0.86 * slant, r * 0.86, 0.002, within=aperture), who.iris)
        c.lighten(
            c.blob(shifted(at, 0, r * 0.4), r * 0.55 * slant, r * 0.35, 0.004, within=aperture), 30
        )
        c.blend(
            c.blob(at, r * 0.44 * slant, r * 0.44, 0.0012, within=aperture),
            np.array([14.0, 11.0, 12.0]),
        )
        c.wash(
            c.polygon(
                ribbon(shifted(upper, 0, 0.005), np.full(len(upper), 0.016)), 0.004, within=aperture
            ),
            (0.55, 0.5, 0.5),
            0.8,
        )
        glint = shifted(at, self.side * 0.010 * slant, -0.010)
        c.blend(
            c.blob(glint, 0.0062, 0.0062, 0.001, within=aperture),
            np.array([255.0, 255.0, 252.0]),
            0.95,
        )

    def _lashes(
        self, s: float, x: np.ndarray, upper: np.ndarray, open_: float, dark: np.ndarray
    ) -> None:
        c, head = self.canvas, self.head
        rise = -0.013 if open_ > 0.35 else 0.010 - 0.023 * open_ / 0.35
        order = slice(None) if s > 0 else slice(None, None, -1)
        roots_x, roots_y = x[order][10:24:3], upper[order][10:24:3]
        hairs = []
        for k, (rx, ry) in enumerate(zip(roots_x, roots_y, strict=True)):
            hair = head.on_face(
                np.array([rx, rx + s * 0.003 * k]), np.array([ry, ry + rise * (0.7 + 0.1 * k)])
            )
            hairs.append(ribbon(hair, np.array([0.0038, 0.001])))
        c.blend(c.polygon(hairs, 0.0008), dark, 0.75 * self.who.makeup)

    def _brow(self, s: float, face: Mask) -> None:
        who, head, c = self.who, self.head, self.canvas
        t = np.linspace(0, 1, 15)
        inner, outer = who.eye_gap - 0.062, who.eye_gap + 0.074
        x = s * (inner + (outer - inner) * t)
        lift = -0.004 * (self.face.eyes - 0.5)
        y = (
            who.brow_y
            + lift
            + 0.006 * (1 - t) ** 2
            - who.brow_arch * np.sin(np.pi * np.clip(t, 0, 1) ** 1.3)
            + 0.012 * t**3
        )
        width = who.brow_thick * np.interp(t, [0, 0.12, 0.5, 1], [0.62, 1, 0.9, 0.22])
        dark = (
            hair_rgb(min(1, 0.42 + 0.58 * self.face.hair_color), min(1.0, who.hair_warmth)) * 0.85
        )
        mask = c.polygon(ribbon(head.on_face(x, y), width), 0.0028, within=face)
        c.blend(mask, dark, 0.85 if who.sex == "male" else 0.8)

    # hair
    def _outer(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x of the middle and the half width of the hair's silhouette at ``y``."""
        who, head = self.who, self.head
        top = self._hair_top()
        t = np.clip((0.46 - y) / (0.46 - top), 0, 1)
        long_ = who.style in ("long", "bob", "shaggy")
        half = (who.cheek + who.volume_side) * (1 - t**2.4) ** (1 / 2.25)
        back = 0.31 * (1 - t**2.4) ** (1 / 2.25) + 0.6 * who.volume_side
        if long_:
            fall = np.clip((y - 0.46) / 0.4, 0, 1.5)
            half = (
                half
                + (0.035 if who.style == "long" else 0.03 * np.sin(np.pi * np.clip(fall, 0, 1)))
                * fall
            )
            ripple = 0.008 * np.sin(y * 46 + who.noise_seed % 7) + 0.006 * np.sin(
                y * 23 + who.noise_seed % 5
            )
            curl = who.wave * ripple * np.clip((y - 0.3) * 5, 0, 1)
            half = half + curl
            if who.style == "bob":
                half = half * np.clip(
                    1 - np.clip((y - who.length + 0.08) / 0.08, 0, 1) ** 3 * 0.18, 0.5, 1
                )
        else:
            half = half * (1 - 0.35 * np.clip((y - 0.46) / 0.2, 0, 1) ** 1.5)
            back = back * (1 - 0.25 * np.clip((y - 0.46) / 0.2, 0, 1) ** 1.5)
        return head.x0 - 0.065 * head.sin + 0 * y, np.sqrt(
            (half * head.cos) ** 2 + (back * head.sin) ** 2
        )

    def _hair_top(self) -> float:
        return TOP - self.who.volume_top * (0.9 if self.who.style != "buzz" else 1.0)

    def _hair_end(self) -> float:
        return self.who.length if self.who.style in ("long", "bob", "shaggy") else 0.64

    def _silhouette(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Left and right edges of the hair between two heights, ``(N, 2)`` each, from top to
        bottom."""
        y = start + (end - start) * np.linspace(0, 1, 70) ** 1.7
        cx, half = self._outer(y)
        return np.stack([cx - half, y], 1), np.stack([cx + half, y], 1)

    def _hair_planes(self) -> np.ndarray:
        """``(3, S, S)``: hair colour in strands that follow the silhouette, with a sheen and with
        light from one side."""
        who = self.who
        n = min(256, self.canvas.size)
        p = grid(n)
        x, y = p[None, :], p[:, None]
        cx, half = (
            v.astype(np.float32)[:, None]
            for v in self._outer(np.clip(p, self._hair_top() + 0.004, 1.3))
        )
        lean = np.float32(who.part) * np.clip((np.float32(0.5) - y) / np.float32(0.4), 0, 1)
        across = (x - cx - lean) / np.maximum(half, np.float32(0.03))
        if who.wave:
            across = across + np.float32(who.wave * 0.035) * np.sin(y * 38 + 3 * across)
        # The strands are one row of pixels: fine, medium and wide ones added up.
        count = 1024
        at, row = np.linspace(-2, 2, count), np.zeros(count)
        for strands, amount in ((26, 0.08), (70, 0.07), (170, 0.05)):
            row += amount * np.interp(
                at, np.linspace(-2, 2, 2 * strands), self.rng.normal(0, 0.8, 2 * strands)
            )
        place = np.clip((across + 2) * np.float32(count / 4), 0, count - 1)
        strands_at = cv2.remap(
            row.astype(np.float32)[None], place, np.zeros_like(place), cv2.INTER_LINEAR
        )
        far = across * across
        sheen = np.float32(0.17) * np.exp(
            -(((y - np.float32(0.17) - np.float32(0.10) * far) * 20) ** 2)
        )
        sheen += np.float32(0.08) * np.exp(-(((y - np.float32(0.62)) / np.float32(0.09)) ** 2))
        lit = np.float32(0.16 * who.light_strength * np.sin(who.light_azimuth)) * across
        rim = np.float32(-0.22) * np.clip(np.abs(across) - np.float32(0.55), 0, np.float32(0.6))
        tone = (
            1
            + strands_at * np.float32(0.5 if who.style == "buzz" else 1.15)
            + sheen * (1 + 3 * strands_at)
            + lit
            + rim
        )
        # Strands stay visible in black hair: an offset is added, since a factor changes nothing
        # there.
        placed, planes = self.canvas.place_grid(tone), np.empty_like(self.canvas.planes)
        for plane, v in zip(planes, self.hair, strict=True):
            np.multiply(placed, np.float32(v + 26), out=plane)
            plane -= np.float32(26)
        return planes

    def _hair_behind(self) -> None:
        who, c = self.who, self.canvas
        if who.style == "updo":
            self._ponytail()
        if who.style not in ("long", "bob", "shaggy"):
            return
        left, right = self._silhouette(0.4, who.length)
        mask = c.polygon(np.concatenate([left, right[::-1]]), 0.003)
        c.blend(mask, self.hair_planes)
        c.wash(mask, (0.62, 0.6, 0.6), 0.85)

    def _ponytail(self) -> None:
        """Hair tied at the back that falls forward over one shoulder."""
        who, c = self.who, self.canvas
        s = 1 if who.part > 0 else -1
        at = self.head.project(
            s * np.array([0.12, 0.2, 0.25, 0.24, 0.2]),
            np.array([0.5, 0.62, 0.76, 0.92, 1.08]),
            -0.16,
        )
        tail = smooth(at)
        mask = c.polygon(
            ribbon(tail, np.interp(np.linspace(0, 1, len(tail)), [0, 0.5, 1], [0.1, 0.15, 0.1])),
            0.003,
        )
        c.blend(mask, self.hair_planes)
        c.wash(mask, (0.82, 0.8, 0.8), 0.8)

    def _hair_cap(self) -> None:
        """All hair on the skull; the face is painted over it."""
        who, c = self.who, self.canvas
        left, right = self._silhouette(self._hair_top(), min(self._hair_end(), 0.66))
        c.blend(c.polygon(np.concatenate([left, right[::-1]]), 0.0025), self.hair_planes)
        if who.style == "buzz":
            mask = c.polygon(np.concatenate([left, right[::-1]]), 0.004)
            c.blend(mask, who.skin * 0.8, 0.25)

    def _hair_front(self, face: Mask) -> None:
        who = self.who
        if who.style in ("long", "bob", "shaggy"):
            self._locks(face)
        elif who.style in ("quiff", "short", "pixie"):
            self._tuft(face)
        if who.bangs:
            self._bangs(face)

    def _lay(self, mask: Mask, face: Mask, outline: np.ndarray) -> None:
        """Paint hair over the face, with the shadow that it casts."""
        c = self.canvas
        c.wash(
            c.polygon(shifted(outline, -0.008 * self.side, 0.012), 0.010, within=face),
            (0.66, 0.56, 0.52),
            0.7,
        )
        c.blend(mask, self.hair_planes)

    def _locks(self, face: Mask) -> None:
        """Hair that falls from the parting over the temples and in front of the shoulders."""
        who, head, c = self.who, self.head, self.canvas
        end = who.length
        for s in (-1, 1):
            swoop = 0.02 if s * who.part < 0 else 0.0
            x = np.array(
                [
                    who.part,
                    who.part + s * (0.045 + swoop),
                    s * 0.165,
                    s * 0.218,
                    s * 0.231,
                    s * 0.226,
                    s * 0.222,
                ]
            )
            y = np.array(
                [
                    who.hairline - 0.035,
                    who.hairline + 0.002,
                    who.hairline + 0.055 + swoop,
                    0.36,
                    0.48,
                    0.6,
                    0.70,
                ]
            )
            inner = head.round_face(head.angle(x, y), y)
            if end > 0.74:
                low = np.linspace(0.78, end, 4)
                drift = 0.215 + 0.02 * np.linspace(0, 1, 4) + 0.006 * who.wave * np.sin(low * 40)
                inner = np.concatenate([inner, head.project(s * drift, low, 0.03)])
            inner = smooth(inner, 8)
            left, right = self._silhouette(self._hair_top(), end)
            edge = right if s > 0 else left
            # Beyond the visible horizon the lock has no width: it stays inside the silhouette.
            bound = np.interp(inner[:, 1], edge[:, 1], edge[:, 0])
            inner[:, 0] = (
                np.minimum(inner[:, 0], bound - 0.012)
                if s > 0
                else np.maximum(inner[:, 0], bound + 0.012)
            )
            outline = np.concatenate([inner, edge[::-1]])
            self._lay(c.polygon(outline, 0.003), face, outline)
            c.wash(c.stroke(inner[8:], 0.014, 0.008), (0.7, 0.68, 0.68), 0.45)

    def _tuft(self, face: Mask) -> None:
        """Hair of a short cut that covers parts of the hairline."""
        who, head, c = self.who, self.head, self.canvas
        top = who.hairline
        turn = 1.0 if who.part >= 0 else -1.0
        phi = np.linspace(-0.95, 0.95, 22)
        ragged = self.rng.uniform(-0.012, 0.016, 22)
        drop = {"short": 0.02, "quiff": -0.006, "pixie": 0.055}[who.style]
        low = (
            top
            + 0.004
            + drop * (1 + turn * np.sin(phi)) / 1.3
            + ragged
            + 0.11 * np.clip(np.abs(phi) - 0.5, 0, 1) ** 1.5
        )
        lower = head.round_face(phi, low)
        upper = head.round_face(phi, np.full(22, top - 0.06))
        outline = np.concatenate([smooth(lower, 3), upper[::-1]])
        self._lay(c.polygon(outline, 0.003), face, outline)

    def _bangs(self, face: Mask) -> None:
        who, head, c = self.who, self.head, self.canvas
        phi = np.linspace(-1.12, 1.12, 34)
        low = (
            0.345
            + 0.012 * np.cos(phi * 2) * -1
            + self.rng.uniform(-0.012, 0.012, 34)
            - 0.05 * who.part * phi
        )
        lower = head.round_face(phi, low)
        upper = head.round_face(phi, np.full(34, who.hairline - 0.07))
        outline = np.concatenate([smooth(lower, 3), upper[::-1]])
        self._lay(c.polygon(outline, 0.003), face, outline)

    # accessories
    def _glasses(self) -> None:
        who, head, c = self.who, self.head, self.canvas
        if not who.glasses:
            return
        dark = np.array([40.0, 34.0, 34.0])
        a = np.linspace(0, 2 * np.pi, 33)
        for s in (-1, 1):
            x, y = s * (who.eye_gap + 0.004) + 0.088 * np.cos(a), EYE_Y + 0.008 + 0.066 * np.sin(a)
            rim = head.project(x, y, 0.265 - 0.5 * x**2)
            c.blend(c.polygon(ribbon(rim, np.full(33, 0.008)), 0.001), dark, 0.9)
            c.lighten(c.polygon(rim, 0.002), 6)
            temple = head.project(
                np.array([s * 0.21, s * who.cheek]), np.array([0.462, 0.455]), np.array([0.24, 0.0])
            )
            if s * head.sin < 0.25:
                c.blend(c.stroke(temple, 0.008, 0.001), dark, 0.85)
        bridge = head.project(
            np.array([-0.032, 0.0, 0.032]), np.array([0.468, 0.460, 0.468]), 0.275
        )
        c.blend(c.stroke(smooth(bridge), 0.007, 0.001), dark, 0.9)

    def _earrings(self) -> None:
        who, head, c = self.who, self.head, self.canvas
        if not who.earrings or who.style not in ("updo", "pixie"):
            return
        for s in (-1, 1):
            if s * head.sin > 0.12:
                continue
            at = head.project(s * (who.cheek + 0.004), np.array(0.615), -0.04)
            c.blend(c.blob(at, 0.011, 0.014, 0.0015), np.array([226.0, 192.0, 110.0]))
            c.lighten(c.blob(shifted(at, -0.003, -0.004), 0.004, 0.004, 0.001), 60)

    def _grade(self) -> None:
        who = self.who
        warm = who.light_warmth
        for plane, f in zip(self.canvas.planes, (1 + warm, 1.0, 1 - warm), strict=True):
            plane *= np.float32(who.exposure * f)
