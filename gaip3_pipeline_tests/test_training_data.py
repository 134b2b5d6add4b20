"""A generator larger than the final images is trained on the originals, cropped and brightened in
the same way."""

import dataclasses

import numpy as np

from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.settings import load
from gaip3_pipeline.training_data import final_images


def test_large_images_show_what_the_final_ones_show_and_are_made_once(root_copy):
    settings = load(root_copy)
    large = dataclasses.replace(
        settings, nvae=dataclasses.replace(settings.nvae, height=256, width=208)
    )
    small = final_images(root_copy, settings)
    big = final_images(root_copy, large)
    assert big.images.shape == (len(small.images), 256, 208, 3)
    np.testing.assert_array_equal(big.values, small.values)
    difference = np.abs(shrink(big.images, 128, 104).astype(int) - small.images)
    assert difference.mean(axis=(1, 2, 3)).max() < 4  # due to JPEG and enlarged originals of 128²
    copies = small.table.source.str.startswith("augmented/").to_numpy()
    assert 0 < copies.sum() < len(copies)

    packed = root_copy.packed_large(256, 208)
    written = packed.stat().st_mtime_ns
    final_images(root_copy, large)
    assert packed.stat().st_mtime_ns == written
    packed.with_suffix(".json").write_text("of other pictures")
    final_images(root_copy, large)
    assert packed.stat().st_mtime_ns > written
