"""Distances are small between pictures of one kind and grow with the difference of two kinds."""

import cv2
import numpy as np
import pytest

from gaip3_pipeline.evaluation.distances import (
    distances_to_real,
    frechet_distance,
    kernel_distance,
    pixel_features,
    random_features,
    reduction,
    sliced_wasserstein,
    trained_features,
)
from gaip3_pipeline.metrics.neighbours import mean_pairwise_distance
from gaip3_pipeline.models.regressor import build_regressor


def pictures(n, seed, brighter=0):
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 160, (n, 8, 7, 3)).repeat(8, axis=1).repeat(8, axis=2)[:, :, :52]
    return np.clip(base + brighter, 0, 255).astype(np.uint8)


def test_the_distance_of_gaussians_is_that_of_their_means_and_covariances():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (200_000, 3))
    b = rng.normal(0, 1, (200_000, 3)) * [1, 2, 1] + [3, 0, 0]
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(9 + 1, rel=0.02)  # |3|² + (2 − 1)²


def test_it_needs_two_pictures_on_each_side():
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))


def test_shifted_pictures_are_farther_than_others_of_the_same_kind():
    figures = distances_to_real(
        {"near": pictures(100, 1), "far": pictures(100, 2, brighter=60)}, pictures(200, 3)
    )
    assert (figures["fd_n"], figures["fd_dimensions"]) == (100, 25)
    for name in ("random", "pixels"):
        assert figures[f"fd_{name}_near"] < 3 * figures[f"fd_{name}_real"]
        assert figures[f"fd_{name}_far"] > 3 * figures[f"fd_{name}_near"]


def test_too_few_pictures_give_no_distance():
    assert distances_to_real({"samples": pictures(4, 1)}, pictures(50, 2)) == {"fd_n": 4}


def test_features_do_not_change_from_one_network_to_the_next():
    images = pictures(5, 0)
    features = random_features()(images)
    assert features.shape == (5, 64)
    np.testing.assert_array_equal(features, random_features()(images))
    assert not np.allclose(features, random_features(seed=1)(images))


def test_diversity_counts_pairs_of_different_pictures():
    assert mean_pairwise_distance(np.array([[0.0], [3.0], [0.0]])) == pytest.approx(2.0)
    assert mean_pairwise_distance(np.ones((3, 2))) == 0.0
    assert np.isnan(mean_pairwise_distance(np.ones((1, 2))))


def test_the_reduction_keeps_what_varies_most():
    rng = np.random.default_rng(0)
    features = pixel_features(pictures(20, 0))
    assert reduction(features, 8)(features).shape == (20, 8)
    flat = rng.normal(0, 1, (100, 4)) * [0.1, 5, 0.1, 0.1]
    assert reduction(flat, 1)(flat).std() == pytest.approx(flat[:, 1].std(), rel=0.01)


def test_the_kernel_distance_is_that_of_its_definition_and_about_zero_for_one_kind():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (7, 3)), rng.normal(0.5, 2, (5, 3))
    scale = np.sqrt(np.mean(b**2))

    def kernel(x, y):
        return (np.dot(x, y) / (3 * scale**2) + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    assert kernel_distance(a, b) == pytest.approx(
        sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    )
    same, other = rng.normal(0, 1, (2, 400, 8)), rng.normal(0.3, 1, (400, 8))
    assert abs(kernel_distance(*same)) < 0.1 * kernel_distance(same[0], other)


def test_the_sliced_wasserstein_distance_sees_lost_detail():
    one, other = pictures(60, 1), pictures(60, 2)
    blurred = np.stack([cv2.GaussianBlur(i, (0, 0), 2.0) for i in other])
    assert sliced_wasserstein(one, one) == 0
    assert sliced_wasserstein(one, blurred) > 1.5 * sliced_wasserstein(one, other)


def test_distances_over_trained_features_are_asked_for_by_name():
    model = build_regressor(32, 26, 0.25, 0.0)
    features = trained_features([model, model])
    assert features(pictures(3, 0)).shape == (3, 2 * 32)
    figures = distances_to_real(
        {"samples": pictures(40, 1)}, pictures(80, 2), features={"attributes": features}
    )
    assert {
        "fd_attributes_samples",
        "fd_attributes_real",
        "kid_attributes_samples",
        "swd_real",
        "coverage_samples",
    } <= set(figures)
