"""Nearest-neighbour metrics detect missing kinds of pictures, unrealistic samples and copies."""

import numpy as np
import pytest

from gaip3_pipeline.metrics.neighbours import copying, nearest, neighbourhoods

RNG = np.random.default_rng(0)
REAL = RNG.normal(0, 1, (400, 2))


def test_two_sets_of_the_same_distribution_cover_each_other():
    figures = neighbourhoods(RNG.normal(0, 1, (400, 2)), REAL)
    assert figures["density"] == pytest.approx(1.0, abs=0.15)
    assert min(figures[k] for k in ("precision", "recall", "coverage")) > 0.9


def test_half_of_the_real_pictures_missing_lowers_recall_and_coverage_not_precision():
    figures = neighbourhoods(REAL[REAL[:, 0] > 0] + 0.01, REAL)
    assert figures["precision"] > 0.9
    assert figures["recall"] == pytest.approx(0.5, abs=0.1)
    assert figures["coverage"] == pytest.approx(0.5, abs=0.1)


def test_samples_far_from_all_real_pictures_lower_precision():
    half = REAL.copy()
    half[::2] += 50.0
    assert neighbourhoods(half, REAL)["precision"] == pytest.approx(0.5, abs=0.05)


def test_the_nearest_picture_is_found():
    distances, index = nearest(
        np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [3.0, 4.0]])
    )
    np.testing.assert_allclose(distances, [1.0, 0.0], atol=1e-7)
    np.testing.assert_array_equal(index, [0, 1])


def test_copies_of_training_pictures_are_detected():
    seen, fresh, held_out = RNG.normal(0, 1, (3, 300, 8))
    far, _ = nearest(held_out, seen)
    assert copying(nearest(fresh, seen)[0], far) == pytest.approx(0.5, abs=0.06)
    assert copying(nearest(seen[:100] + 0.01, seen)[0], far) == 1.0
    assert copying(np.array([1.0]), np.array([1.0])) == 0.5
