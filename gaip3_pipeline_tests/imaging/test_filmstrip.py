"""The filmstrip of a training: which epochs it shows, and that an interrupted one continues."""

import io

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.imaging.filmstrip import COLUMNS, KEPT, Filmstrip


def faces(level):
    return np.full((16, 8, 6, 3), level, np.uint8)


def levels(strip):
    """The grey level of each column."""
    picture = np.asarray(Image.open(io.BytesIO(strip.jpeg())).convert("L"))
    row = picture[20]
    columns = np.split(row, np.flatnonzero(np.diff((row > 235).astype(int))) + 1)
    return [int(np.median(c)) for c in columns if np.median(c) <= 235]


def test_a_strip_shows_at_most_twelve_epochs_evenly_from_first_to_last(tmp_path):
    strip = Filmstrip(tmp_path / "strip.npz", "one")
    assert strip.jpeg() is None
    for epoch in range(1, 201):
        strip.add(epoch, faces(epoch))
    shown = levels(strip)
    assert len(shown) == COLUMNS
    assert shown[0] == pytest.approx(1, abs=2)
    assert shown[-1] == pytest.approx(200, abs=2)
    assert max(np.diff(shown)) <= 3 * min(np.diff(shown))
    with np.load(tmp_path / "strip.npz") as kept:
        assert len(kept["epochs"]) == KEPT


def test_an_interrupted_training_continues_its_strip_and_another_one_begins_anew(tmp_path):
    file = tmp_path / "strip.npz"
    strip = Filmstrip(file, "one")
    for epoch in (1, 2, 3):
        strip.add(epoch, faces(60 * epoch))
    again = Filmstrip(file, "one")
    assert again.jpeg() == strip.jpeg()
    again.add(3, faces(200))  # whose checkpoint was not written
    assert levels(again) == pytest.approx([60, 120, 200], abs=3)
    assert Filmstrip(file, "other").jpeg() is None
    assert levels(Filmstrip(file, "other", resume=True)) == pytest.approx([60, 120, 200], abs=3)
    file.write_bytes(b"PK damaged")
    assert Filmstrip(file, "one").jpeg() is None
