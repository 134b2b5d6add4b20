"""Features learned without labels: reproducible, swapped for mirror images, equal after saving and
loading."""

import dataclasses

import numpy as np
import pytest

from gaip3_pipeline.faces.dataset import portraits
from gaip3_pipeline.faces.painter import paint
from gaip3_pipeline.features.extractor import (
    extract,
    learn_extractor,
    load_extractor,
    save_extractor,
)
from gaip3_pipeline.features.groups import GROUPS, PATCH_AXES, groups, trunk_groups
from gaip3_pipeline.settings import Faces


@pytest.fixture(scope="module")
def faces():
    people = [p.face for p in portraits(Faces(d1=0, female=24, male=24, size=128))]
    return np.stack([paint(face, 128)[:, 12:116] for face in people]), people


@pytest.fixture(scope="module")
def learned(faces):
    return learn_extractor(faces[0])


def test_a_picture_has_its_features_and_those_of_its_mirror_image(faces, learned):
    features = extract(learned[0], [faces[0][:10], faces[0][10:]])
    assert features.shape == (2, 48, groups()[-1])
    assert features.dtype == np.float16
    turned = extract(learned[0], [np.ascontiguousarray(faces[0][:, :, ::-1])])
    np.testing.assert_allclose(turned[::-1].astype(float), features.astype(float), atol=2e-3)
    assert len(groups()) == len(GROUPS) + 1
    assert 0.3 < learned[1] <= 1.0


def test_a_change_on_one_side_moves_the_features_of_its_region_alone(faces, learned):
    image = faces[0][0].copy()
    changed = image.copy()
    changed[100:128, :12] = 255 - changed[100:128, :12]  # the lower left corner
    before, after = (extract(learned[0], [x[None]])[0, 0].astype(float) for x in (image, changed))
    moved = {
        name: np.abs(after - before)[a:b]
        for name, a, b in zip(GROUPS, groups()[:-1], groups()[1:], strict=True)
    }
    assert moved["patches_3_side"][:PATCH_AXES].max() > 0.05
    assert moved["patches_3_side"][PATCH_AXES:].max() < 1e-3  # the right side
    assert (
        max(
            moved[name].max()
            for name in (
                "patches_0_side",
                "patches_1_middle",
                "colours_0_middle",
                "colours_2_middle",
            )
        )
        < 1e-3
    )


def group(features, name):
    at = GROUPS.index(name)
    return features[..., groups()[at] : groups()[at + 1]].astype(float)


def test_the_features_of_trunk_and_parts_alone_are_together_all(faces, learned):
    trunk = extract(learned[0], [faces[0][:5]], with_parts=False)
    parts = extract(learned[0], [faces[0][:5]], with_trunk=False)
    assert trunk.shape == (2, 5, trunk_groups()[-1])
    np.testing.assert_array_equal(
        np.concatenate([trunk, parts], axis=2), extract(learned[0], [faces[0][:5]])
    )
    for alone, found in (("with_parts", trunk), ("with_trunk", parts)):
        assert extract(learned[0], [], **{alone: False}).shape == (2, 0, found.shape[2])


def test_the_head_and_the_background_each_change_the_features_of_their_own_part(learned):
    someone = portraits(Faces(d1=0, female=1, male=0, size=128))[0].face

    def painted(**changes):
        return paint(dataclasses.replace(someone, **changes), 128)[:, 12:116]

    heads = extract(learned[0], [np.stack([painted(head=v) for v in (0.1, 0.3, 0.5, 0.7, 0.9)])])
    turn = group(heads, "turn")[0, :, 0]
    assert (np.diff(turn) > 0).all() or (np.diff(turn) < 0).all()
    # a mirror image is turned to the other side
    np.testing.assert_allclose(turn, -group(heads, "turn")[1, :, 0], atol=0.35)
    walls = extract(learned[0], [np.stack([painted(background=v) for v in (0.2, 0.8)])])
    moved = {
        name: np.abs(np.diff(group(walls, name)[0], axis=0)).max()
        for name in ("background", "hair", "skin", "mouth")
    }
    assert moved["background"] > 1.0
    assert max(moved["hair"], moved["skin"], moved["mouth"]) < 0.3


def test_a_saved_and_loaded_extractor_gives_equal_features(faces, learned, tmp_path):
    save_extractor(learned[0], tmp_path)
    np.testing.assert_array_equal(
        extract(load_extractor(tmp_path), [faces[0][:8]]), extract(learned[0], [faces[0][:8]])
    )


def test_the_same_pictures_give_the_same_extractor(faces, learned):
    again = learn_extractor(faces[0])[0]
    np.testing.assert_allclose(
        extract(again, [faces[0][:8]]).astype(float),
        extract(learned[0], [faces[0][:8]]).astype(float),
        atol=2e-3,
    )


def test_no_pictures_have_no_features(learned):
    assert extract(learned[0], []).shape == (2, 0, groups()[-1])
