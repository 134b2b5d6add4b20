"""The outline and the points of a face: at the painted positions, and finite where there is no
face."""

import dataclasses
import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from gaip3_pipeline.faces.dataset import portraits
from gaip3_pipeline.faces.painter import paint
from gaip3_pipeline.features import landmarks
from gaip3_pipeline.features.landmarks import POINTS, find_parts
from gaip3_pipeline.features.outline_network import with_faster_end
from gaip3_pipeline.features.part_measures import CHIN, EYES, FEW, FOREHEAD, OUTER_LIPS, regions
from gaip3_pipeline.layout import LANDMARK_NETWORKS
from gaip3_pipeline.settings import Faces


@pytest.fixture(scope="module")
def pictures():
    return np.stack(
        [paint(p.face, 128)[:, 12:116] for p in portraits(Faces(d1=0, female=6, male=6, size=128))]
    )


def test_person_and_points_lie_where_the_face_is(pictures):
    parts = find_parts(pictures)
    assert parts.person.shape == pictures.shape[:3]
    assert parts.points.shape == (len(pictures), POINTS, 3)
    assert 0 <= parts.person.min() <= parts.person.max() <= 1.001
    assert (parts.person[:, 60:70, 47:57].mean(axis=(1, 2)) > 0.9).all()  # the middle of the face
    assert (parts.person[:, :6, :6].mean(axis=(1, 2)) < 0.2).all()  # a corner of the wall
    for points in parts.points:
        mouth, eyes = points[list(OUTER_LIPS), 1].mean(), points[np.ravel(EYES), 1].mean()
        assert 0 < points[FOREHEAD, 1] < eyes < mouth < points[CHIN, 1] < 128


@pytest.mark.parametrize(
    ("value", "region"), [("background", "background"), ("hair_color", "hair_above")]
)
def test_a_region_is_where_the_picture_changes_with_its_colour(value, region):
    for portrait in portraits(Faces(d1=0, female=4, male=0, size=128)):
        light, dark = (
            paint(dataclasses.replace(portrait.face, **{value: v}), 128)[:, 12:116]
            for v in (0.1, 0.9)
        )
        parts = find_parts(light[None])
        found = regions(parts.person[0], parts.points[0])
        assert not (found["hair"] & (found["skin"] | found["background"])).any()
        change = np.abs(light.astype(float) - dark).mean(axis=2)
        elsewhere = {"background": "hair", "hair_above": "background"}[region]
        assert np.median(change[found[region]]) > 40 > 8 > np.median(change[found[elsewhere]])


NOISE = np.random.default_rng(0).integers(0, 256, (64, 80, 3))


@pytest.mark.parametrize(
    "picture",
    [np.zeros((128, 104, 3)), np.full((128, 104, 3), 255), NOISE],
    ids=["black", "white", "noise"],
)
def test_a_picture_without_a_face_has_regions_too(picture):
    parts = find_parts(picture[None].astype(np.uint8))
    assert np.isfinite(parts.points).all()
    assert all(mask.sum() >= FEW for mask in regions(parts.person[0], parts.points[0]).values())


def test_a_picture_has_the_same_parts_alone_and_among_others(pictures):
    together, alone = find_parts(pictures), find_parts(pictures[3:4])
    np.testing.assert_array_equal(together.points[3], alone.points[0])
    np.testing.assert_array_equal(together.person[3], alone.person[0])


def test_points_follow_a_picture_that_is_moved(pictures):
    moved = np.stack(
        [
            cv2.warpAffine(
                p, np.float32([[1, 0, 5], [0, 1, -4]]), (104, 128), borderMode=cv2.BORDER_REPLICATE
            )
            for p in pictures
        ]
    )
    shift = np.median(find_parts(moved).points - find_parts(pictures).points, axis=1)[:, :2]
    np.testing.assert_allclose(shift, np.tile([5, -4], (len(pictures), 1)), atol=1.5)


def test_the_networks_are_those_that_their_readme_names():
    folder = Path(landmarks.__file__).parent / "mediapipe"
    named = dict(
        re.findall(r"`(\w+\.tflite)`.*`([0-9a-f]{64})`", (folder / "README.md").read_text())
    )
    assert named == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.tflite")
    }


def test_the_faster_end_of_the_outline_has_the_same_bits(pictures):
    plain, faster = (
        _outlines(content, pictures)
        for content in (
            (LANDMARK_NETWORKS / "selfie_segmentation.tflite").read_bytes(),
            landmarks._content("selfie_segmentation"),
        )
    )
    assert 0.2 < plain.mean() < 0.8  # both a person and a background
    np.testing.assert_array_equal(faster, plain)


def test_only_a_network_with_one_such_end_gets_another():
    content = (LANDMARK_NETWORKS / "face_landmark.tflite").read_bytes()
    with pytest.raises(ValueError, match="0 layers Convolution2DTransposeBias instead of one"):
        with_faster_end(content)


def _outlines(content, pictures):
    network = Interpreter(model_content=content, num_threads=1)
    network.allocate_tensors()
    found = []
    for picture in pictures:
        seen = cv2.resize(picture, (256, 256))[None].astype(np.float32) / 255
        network.set_tensor(network.get_input_details()[0]["index"], seen)
        network.invoke()
        found.append(network.get_tensor(network.get_output_details()[0]["index"]))
    return np.stack(found)
