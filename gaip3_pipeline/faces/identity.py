"""The identity of a painted face: everything in a picture that the five values do not determine,
drawn from a seed and a sex."""

from dataclasses import dataclass

import numpy as np

STYLES = ("long", "bob", "updo", "pixie", "short", "quiff", "buzz", "shaggy")
_STYLE_ODDS = {
    "female": (0.48, 0.22, 0.18, 0.08, 0.0, 0.0, 0.0, 0.04),
    "male": (0.04, 0.0, 0.0, 0.0, 0.38, 0.30, 0.16, 0.12),
}
_SKINS = np.array(
    [
        (250, 220, 198),
        (240, 200, 170),
        (228, 178, 142),
        (203, 147, 110),
        (164, 110, 80),
        (122, 80, 58),
    ],
    float,
)
_LIPSTICKS = np.array(
    [(196, 60, 70), (214, 92, 104), (176, 48, 84), (204, 84, 76), (224, 112, 126)], float
)
_IRISES = np.array(
    [(74, 48, 32), (98, 66, 38), (104, 112, 62), (84, 124, 160), (112, 140, 150), (58, 40, 30)],
    float,
)


@dataclass(frozen=True)
class Identity:
    """The properties of an identity. Lengths are in picture units, colours ``(3,) float64`` RGB in
    0..255, angles in radians."""

    sex: str
    # the place of the head in the picture
    roll: float
    scale: float
    dx: float
    dy: float
    # head
    cheek: float  # half width of the head at the cheeks
    chin: float  # y of the chin
    jaw_power: float  # how far down the cheeks stay wide
    jaw_round: float  # larger values give a squarer chin
    neck: float  # half width
    # features
    eye_width: float
    eye_height: float
    eye_tilt: float
    eye_gap: float  # x of an eye's centre from the middle
    brow_y: float
    brow_thick: float
    brow_arch: float
    nose_length: float
    nose_width: float
    nose_high: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    smile: float
    skin: np.ndarray
    blush: float
    freckles: bool
    iris: np.ndarray
    lip: np.ndarray
    lip_strength: float
    eyeshadow: np.ndarray
    makeup: float
    beard: float  # opacity; 0 is shaved
    moustache_only: bool
    # hair
    style: str
    hair_warmth: float  # 0 ash or grey … 1.4 ginger
    volume_top: float
    volume_side: float
    length: float  # y of the hair's end
    part: float  # x of the parting
    bangs: bool
    wave: float
    hairline: float  # y of the hairline in the middle
    # surroundings
    cloth: np.ndarray
    cloth_second: np.ndarray
    neckline: str
    backdrop: str
    backdrop_hue: np.ndarray  # (2, 3) tints about 1
    light_azimuth: float  # negative: light from the picture's left
    light_elevation: float
    light_strength: float
    light_warmth: float
    exposure: float
    glasses: bool
    earrings: bool
    noise_seed: int


def identity(seed: int, sex: str) -> Identity:
    """The identity of ``seed`` and ``sex`` ("female" or "male"); it does not depend on the five
    values. Raises ValueError for another sex."""
    if sex not in _STYLE_ODDS:
        raise ValueError(f"sex is {sex!r}; use 'female' or 'male'")
    rng = np.random.default_rng([seed, sex == "female"])
    woman = sex == "female"

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def by_sex(female: tuple[float, float], male: tuple[float, float]) -> float:
        return u(*(female if woman else male))

    def chance(p: float) -> bool:
        return bool(rng.random() < p)

    style = STYLES[int(rng.choice(len(STYLES), p=_STYLE_ODDS[sex]))]
    skin = _along(_SKINS, rng.beta(1.2, 1.7)) * rng.normal(1, 0.008, 3)
    lip_natural = skin * (0.83, 0.62, 0.62)
    lipstick = (
        _LIPSTICKS[rng.integers(len(_LIPSTICKS))]
        * rng.normal(1, 0.05, 3)
        * (0.55 + 0.45 * skin.mean() / 200)
    )
    lip_strength = by_sex((0.45, 1.0), (0.0, 0.0))
    hue = rng.uniform(0, 2 * np.pi, 2)
    tint = np.stack([_hue(h) for h in hue])
    bearded = not woman and chance(0.62)
    return Identity(
        sex=sex,
        roll=float(rng.normal(0, 0.022)),
        scale=u(0.97, 1.03),
        dx=float(rng.normal(0, 0.006)),
        dy=float(rng.normal(0, 0.006)),
        cheek=by_sex((0.243, 0.260), (0.248, 0.266)),
        chin=by_sex((0.885, 0.908), (0.902, 0.93)),
        jaw_power=by_sex((1.95, 2.35), (2.2, 2.75)),
        jaw_round=by_sex((1.6, 1.85), (1.68, 2.0)),
        neck=by_sex((0.125, 0.145), (0.172, 0.2)),
        eye_width=by_sex((0.060, 0.066), (0.053, 0.059)),
        eye_height=by_sex((0.046, 0.054), (0.039, 0.046)),
        eye_tilt=by_sex((0.002, 0.010), (-0.003, 0.004)),
        eye_gap=u(0.115, 0.124),
        brow_y=by_sex((0.378, 0.390), (0.396, 0.408)),
        brow_thick=by_sex((0.010, 0.016), (0.021, 0.031)),
        brow_arch=by_sex((0.012, 0.022), (0.002, 0.010)),
        nose_length=u(-0.012, 0.014),
        nose_width=by_sex((0.036, 0.044), (0.044, 0.054)),
        nose_high=by_sex((0.85, 1.05), (1.0, 1.3)),
        mouth_width=by_sex((0.078, 0.092), (0.082, 0.097)),
        lip_upper=by_sex((0.019, 0.026), (0.010, 0.015)),
        lip_lower=by_sex((0.024, 0.033), (0.014, 0.021)),
        smile=u(0.0, 1.0),
        skin=skin,
        blush=by_sex((0.25, 0.8), (0.05, 0.3)),
        freckles=chance(0.12),
        iris=_IRISES[rng.integers(len(_IRISES))] * rng.normal(1, 0.08, 3),
        lip=lip_natural + (lipstick - lip_natural) * lip_strength,
        lip_strength=lip_strength if woman else 0.0,
        eyeshadow=skin * (0.74, 0.62, 0.62) * _hue(u(0, 2 * np.pi)),
        makeup=by_sex((0.45, 1.0), (0.0, 0.0)),
        beard=u(0.22, 0.92) if bearded else 0.0,
        moustache_only=bearded and chance(0.12),
        style=style,
        hair_warmth=u(0.25, 1.35),
        volume_top={"buzz": 0.012, "quiff": u(0.055, 0.085), "updo": u(0.02, 0.04)}.get(
            style, u(0.03, 0.06)
        ),
        volume_side={
            "buzz": 0.006,
            "short": u(0.012, 0.022),
            "quiff": u(0.008, 0.016),
            "updo": u(0.008, 0.016),
            "pixie": 0.02,
        }.get(style, u(0.035, 0.075)),
        length={"long": u(0.95, 1.2), "bob": u(0.68, 0.86), "shaggy": u(0.62, 0.72)}.get(
            style, 0.56
        ),
        part=float(rng.choice([-1, 1])) * u(0.0, 0.11),
        bangs=style in ("long", "bob", "shaggy", "pixie") and chance(0.3 if woman else 0.15),
        wave=float(rng.choice([0.0, 0.4, 1.0], p=[0.45, 0.3, 0.25])) * u(0.7, 1.2),
        hairline=by_sex((0.185, 0.215), (0.170, 0.225)),
        cloth=_cloth(rng),
        cloth_second=_cloth(rng),
        neckline=("scoop", "vee", "crew")[rng.integers(3)]
        if woman
        else ("crew", "collar", "suit")[rng.integers(3)],
        backdrop=("plain", "gradient", "bokeh", "window")[rng.integers(4)],
        backdrop_hue=tint,
        light_azimuth=u(-1.0, 1.0),
        light_elevation=u(0.3, 0.9),
        light_strength=u(0.35, 0.8),
        light_warmth=u(-0.05, 0.06),
        exposure=u(0.9, 1.05),
        glasses=chance(0.07),
        earrings=woman and chance(0.6),
        noise_seed=int(rng.integers(2**31)),
    )


def _along(stops: np.ndarray, t: float) -> np.ndarray:
    """The colour at ``t`` in 0..1 between equally spaced stops."""
    place = np.linspace(0, 1, len(stops))
    return np.array([np.interp(t, place, stops[:, c]) for c in range(3)])


def _hue(angle: float) -> np.ndarray:
    """RGB factors about 1 that tint a grey slightly and keep its luma."""
    raw = 1 + 0.17 * np.cos(angle - np.array([0.0, 2.1, 4.2]))
    return raw / (raw @ (0.299, 0.587, 0.114))


def _cloth(rng: np.random.Generator) -> np.ndarray:
    return np.clip(
        rng.uniform(25, 225) * _hue(rng.uniform(0, 2 * np.pi)) ** rng.uniform(0.2, 2.2), 8, 245
    )
