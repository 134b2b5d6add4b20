"""Contact sheets stay small whatever they show."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.imaging.contact_sheet import contact_sheet, pairs, to_markdown
from gaip3_pipeline_tests.imaging.pictures import photograph


@pytest.mark.parametrize("count", [1, 7, 64])
def test_a_sheet_of_noise_takes_at_most_100_kilobytes(count: int) -> None:
    noise = [
        np.random.default_rng(i).integers(0, 256, (128, 104, 3), dtype=np.uint8)
        for i in range(count)
    ]
    sheet = contact_sheet(
        noise, 8, captions=[f"얼굴 {i} with a long name" for i in range(count)], title="noise"
    )
    assert len(sheet) <= 100_000
    assert Image.open(io.BytesIO(sheet)).format == "JPEG"


def test_pictures_stand_in_rows_in_their_own_proportions() -> None:
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    shown = np.asarray(Image.open(io.BytesIO(contact_sheet([red, blue], 2, cell=(50, 100)))))
    assert shown.shape == (4 + 104, 4 + 2 * 54, 3)
    assert np.abs(shown[54, 29].astype(int) - [255, 0, 0]).max() < 30
    assert np.abs(shown[54, 83].astype(int) - [0, 0, 255]).max() < 30
    assert shown[10, 29].min() > 230


def test_a_sheet_without_pictures_is_a_jpeg_too() -> None:
    assert Image.open(io.BytesIO(contact_sheet([], 8, title="none"))).format == "JPEG"


def test_pairs_show_no_difference_as_grey() -> None:
    image = np.asarray(photograph(0, 64))
    shown = np.asarray(Image.open(io.BytesIO(pairs([image], [image], cell=(64, 64), title=None))))
    assert np.abs(shown[36, 4 + 2 * 68 + 32].astype(int) - 128).max() < 8


def test_markdown_contains_the_picture() -> None:
    text = to_markdown(b"\xff\xd8bytes", "two [faces]\nhere")
    assert text.startswith("![two (faces) here](data:image/jpeg;base64,")
    assert base64.b64decode(text.partition("base64,")[2].rstrip(")")) == b"\xff\xd8bytes"
