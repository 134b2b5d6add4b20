"""Packed and streamed pictures are the files' pixels in the given order."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.imaging.packing import load_images, pack
from gaip3_pipeline_tests.imaging.pictures import jpeg, photograph


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{i}.jpg" for i in range(10)]
    for i, path in enumerate(made):
        path.write_bytes(jpeg(photograph(i, 128, 104)))
    return made[::-1]


def test_the_packed_file_holds_the_pixels_in_order(paths, tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    pack(
        paths,
        tmp_path / "packed" / "final.npy",
        128,
        104,
        lambda done, total: seen.append((done, total)),
    )
    packed = np.load(tmp_path / "packed" / "final.npy", mmap_mode="r")
    assert packed.shape == (10, 128, 104, 3)
    assert packed.dtype == np.uint8
    assert all(np.array_equal(packed[i], np.asarray(Image.open(p))) for i, p in enumerate(paths))
    assert seen[-1] == (10, 10)


def test_a_picture_that_cannot_be_read_is_named_and_leaves_the_old_file(paths, tmp_path) -> None:
    out = tmp_path / "packed" / "final.npy"
    pack(paths[:2], out, 128, 104)
    before = out.read_bytes()
    paths[3].write_bytes(b"no picture")
    with pytest.raises(UnusableImage, match=r"6\.jpg"):
        pack(paths, out, 128, 104)
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["final.npy"]


def test_no_pictures_are_packed_to_an_empty_array(tmp_path) -> None:
    pack([], tmp_path / "none.npy", 128, 104)
    assert np.load(tmp_path / "none.npy", mmap_mode="r").shape == (0, 128, 104, 3)


def test_batches_come_in_order_at_the_size_of_the_model(paths) -> None:
    batches = list(load_images(paths, 64, 52, batch_size=4))
    assert [b.shape for b in batches] == [(4, 64, 52, 3), (4, 64, 52, 3), (2, 64, 52, 3)]
    full = np.concatenate(list(load_images(paths, 128, 104)))
    means = full.reshape(10, 64, 2, 52, 2, 3).mean((2, 4))
    assert np.abs(np.concatenate(batches) - means).max() <= 1


def test_a_missing_picture_is_an_error_that_names_it(paths) -> None:
    shutil.move(paths[0], paths[0].with_suffix(".gone"))
    with pytest.raises(FileNotFoundError, match=r"9\.jpg"):
        list(load_images(paths, 64, 52))
