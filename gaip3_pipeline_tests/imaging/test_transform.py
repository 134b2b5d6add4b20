"""Crop, area resize, brightness and encoding follow the contract."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.imaging.decode import Picture, Target
from gaip3_pipeline.imaging.transform import (
    RATIOS,
    area_resize,
    brighten,
    brightness_ratio,
    encode_jpeg,
    resize,
)
from gaip3_pipeline_tests.imaging.pictures import photograph


def test_the_crop_takes_9_375_percent_of_the_width_off_each_side_and_nothing_off_the_height() -> (
    None
):
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, 24:232] = 200
    assert (resize(Picture(pixels, 256, 256, 1, ()), Target(128, 104, 0.09375)) == 200).all()
    pixels[:, 24] = pixels[:, 231] = pixels[0] = pixels[255] = 0
    edges = resize(Picture(pixels, 256, 256, 1, ()), Target(128, 104, 0.09375))
    assert (edges[1:-1, [0, -1]] == 100).all()
    assert (edges[[0, -1], 1:-1] == 100).all()


@pytest.mark.parametrize("size", [(128, 104), (64, 52), (100, 90), (50, 30)])
def test_area_resizing_keeps_the_mean(size: tuple[int, int]) -> None:
    pixels = np.asarray(photograph(0, 200))
    assert np.abs(area_resize(pixels, *size).mean((0, 1)) - pixels.mean((0, 1))).max() < 0.6


def test_pixels_count_by_the_area_that_is_covered() -> None:
    pixels = np.asarray(photograph(0, 250))
    whole = Picture(pixels, 250, 250, 1, ())
    reduced = Picture(
        cv2.resize(
            np.pad(pixels, ((0, 2), (0, 2), (0, 0)), "edge"),
            (126, 126),
            interpolation=cv2.INTER_AREA,
        ),
        251,
        251,
        2,
        (),
    )
    target = Target(32, 26, 0.09375)
    assert np.abs(resize(whole, target).astype(int) - resize(reduced, target)).mean() < 2


def test_an_enlarged_picture_repeats_its_pixels() -> None:
    pixels = np.asarray(photograph(0, 4))
    assert np.array_equal(area_resize(pixels, 8, 8), pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("stem", ["00001", "이미지 3", "face 😀", ""])
def test_the_brightness_ratio_follows_from_the_name(stem: str) -> None:
    assert brightness_ratio(stem) == RATIOS[zlib.crc32(stem.encode("utf-8")) % 12]
    assert len(RATIOS) == 12


@pytest.mark.parametrize("ratio", RATIOS)
def test_brightness_follows_the_formula_rounded(ratio: float) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    want = x * ratio if ratio < 1 else x * (2 - ratio) + 255 * (ratio - 1)
    assert np.array_equal(brighten(x, ratio), np.rint(want))


def test_the_jpeg_keeps_colour_at_full_resolution() -> None:
    pixels = np.asarray(photograph(1, 128))
    image = Image.open(io.BytesIO(encode_jpeg(pixels, 95)))
    assert [c[1:3] for c in image.layer] == [(1, 1)] * 3
    assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 3
    assert encode_jpeg(pixels, 95) == encode_jpeg(pixels, 95)
