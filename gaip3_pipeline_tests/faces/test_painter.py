"""The painted portraits: which pixels each slider changes, and which it does not."""

from dataclasses import replace

import numpy as np
import pytest

from gaip3_pipeline.faces.identity import identity
from gaip3_pipeline.faces.painter import Face, paint, random_face

SIZE = 128
STEPS = np.linspace(0, 1, 5)


def luma(picture: np.ndarray) -> np.ndarray:
    return picture.astype(float) @ (0.299, 0.587, 0.114)


def part(picture: np.ndarray, top: float, bottom: float, left: float, right: float) -> np.ndarray:
    n = len(picture)
    return picture[round(top * n) : round(bottom * n), round(left * n) : round(right * n)]


def people(n: int = 4) -> list[Face]:
    """A few identities of each sex without glasses, which would hide the eyes from these
    measurements."""
    out = []
    for sex in ("female", "male"):
        seeds = [
            seed
            for seed in range(100)
            if not identity(seed, sex).glasses and not identity(seed, sex).bangs
        ]
        out += [Face(sex, seed) for seed in seeds[:n]]
    return out


def sweep(face: Face, value: str) -> list[np.ndarray]:
    return [paint(replace(face, **{value: float(v)}), SIZE) for v in STEPS]


@pytest.mark.parametrize("size", [64, 256, 300])
def test_a_portrait_is_square_rgb_and_the_same_every_time(size):
    face = Face("female", 5, 0.4, 0.6, 0.2, 0.8, 0.3)
    first = paint(face, size)
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    assert (first == paint(face, size)).all()


def test_sizes_show_the_same_portrait():
    face = Face("male", 5, 0.4, 0.6, 0.2, 0.8, 0.3)
    large = paint(face, 256).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(large - paint(face, 128)).mean() < 3


def test_seeds_and_sexes_are_different_people():
    faces = [
        paint(Face(sex, seed), 64).astype(float) for sex in ("female", "male") for seed in range(4)
    ]
    assert all(np.abs(a - b).mean() > 8 for i, a in enumerate(faces) for b in faces[:i])


@pytest.mark.parametrize("face", people(), ids=lambda f: f"{f.sex}{f.seed}")
class TestSliders:
    def test_background_brightens_the_corners_and_does_not_change_the_face(self, face):
        pictures = sweep(face, "background")
        corners = [
            np.mean([luma(part(p, 0, 0.2, 0, 0.1)).mean(), luma(part(p, 0, 0.2, 0.9, 1)).mean()])
            for p in pictures
        ]
        assert (np.diff(corners) > 25).all()
        assert corners[0] < 40
        assert corners[-1] > 195
        faces = [part(p, 0.4, 0.72, 0.38, 0.62).astype(int) for p in pictures]
        assert all(np.abs(f - faces[0]).max() <= 1 for f in faces)  # 1: rounding

    def test_hair_color_darkens_the_hair_and_does_not_change_mouth_and_background(self, face):
        pictures = sweep(face, "hair_color")
        hair = [luma(part(p, 0.08, 0.13, 0.42, 0.58)).mean() for p in pictures]
        assert (np.diff(hair) < -25).all()
        assert hair[0] > 170
        assert hair[-1] < 60
        assert all(
            (part(p, 0, 0.3, 0, 0.08) == part(pictures[0], 0, 0.3, 0, 0.08)).all() for p in pictures
        )
        if face.sex == "female":
            assert all(
                (part(p, 0.68, 0.78, 0.42, 0.58) == part(pictures[0], 0.68, 0.78, 0.42, 0.58)).all()
                for p in pictures
            )

    def test_eyes_gain_contrast_as_they_open_and_nothing_else_changes(self, face):
        pictures = sweep(face, "eyes")
        contrast = [
            np.mean(
                [np.ptp(luma(part(p, 0.45, 0.475, x - 0.025, x + 0.025))) for x in (0.38, 0.62)]
            )
            for p in pictures
        ]
        assert contrast[-1] > 1.25 * contrast[0]
        changed = [np.abs(p.astype(int) - pictures[-1]).max(2) for p in pictures[:-1]]
        size = [part(c, 0.4, 0.55, 0.25, 0.75).mean() for c in changed]
        assert (np.diff(size) < 0).all()
        assert all(
            part(c, 0.6, 1, 0, 1).max() == 0 and part(c, 0, 0.3, 0, 1).max() == 0 for c in changed
        )

    def test_an_open_mouth_shows_bright_teeth_and_a_dark_inside(self, face):
        pictures = sweep(face, "mouth")
        mouths = [part(p, 0.68, 0.78, 0.43, 0.57).astype(float) for p in pictures]
        rows = [part(p, 0.69, 0.77, 0.47, 0.53).astype(float).mean(1) for p in pictures]
        # Teeth are bright and nearly colourless, lips and skin are not; the inside of the mouth is
        # dark.
        teeth = [max(luma(r) * (1 - (r.max(1) - r.min(1)) / r.max(1))) for r in rows]
        assert teeth[-1] > 150
        assert teeth[-1] > teeth[0] + 25
        assert luma(rows[-1]).min() < 80
        size = [np.abs(m - mouths[0]).mean() for m in mouths]
        assert size[-1] == max(size)
        assert min(size[1:]) > 5
        # Nothing changes above the eyes; the jaw is lowered, and the shading of the cheeks changes
        # with it.
        assert all(
            np.abs(part(p, 0, 0.42, 0, 1).astype(int) - part(pictures[0], 0, 0.42, 0, 1)).max() <= 3
            for p in pictures
        )

    def test_head_moves_the_mouth_to_the_side_it_turns_to(self, face):
        pictures = sweep(replace(face, hair_color=0.0, background=1.0, mouth=1.0), "head")
        places = []
        for p in pictures:
            mouth = part(p, 0.69, 0.78, 0.35, 0.65)
            dark = luma(mouth) <= np.quantile(luma(mouth), 0.06)
            places.append(np.nonzero(dark)[1].mean() / SIZE + 0.35)
        assert places[0] < 0.475
        assert places[-1] > 0.525
        assert (np.diff(places) > 0).all()
        assert (part(pictures[0], 0, 0.05, 0, 0.1) == part(pictures[-1], 0, 0.05, 0, 0.1)).all()


def test_values_outside_their_range_and_unknown_sexes_are_refused():
    with pytest.raises(ValueError, match=r"mouth is 1\.2; use a number from 0 to 1"):
        Face("female", 1, mouth=1.2)
    with pytest.raises(ValueError, match="sex is 'other'"):
        Face("other", 1)


def test_random_faces_spread_over_the_whole_range():
    rng = np.random.default_rng(0)
    faces = [random_face(rng, "female") for _ in range(1000)]
    for value in ("eyes", "mouth", "hair_color", "background", "head"):
        v = np.array([getattr(f, value) for f in faces])
        assert v.std() > 0.2, value
        assert (v < 0.1).mean() > 0.05, value
        assert (v > 0.9).mean() > 0.05, value
    assert len({f.seed for f in faces}) == 1000
