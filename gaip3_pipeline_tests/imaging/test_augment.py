"""Augmentation by blur softens half of the pictures and leaves the others as they are."""

import numpy as np

from gaip3_pipeline.imaging.augment import blur


def test_half_of_the_pictures_are_blurred_and_brightness_stays():
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 13, 3), dtype=np.uint8)
    soft = blur(images, 1.5, np.random.default_rng(1))
    same = (soft == images).all(axis=(1, 2, 3))
    assert 70 < same.sum() < 130
    assert soft[~same].std() < 0.8 * images[~same].std()
    np.testing.assert_allclose(soft.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3)), atol=6)
    np.testing.assert_array_equal(blur(images, 0.0, np.random.default_rng(1)), images)
