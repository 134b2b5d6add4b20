"""Out-of-fold predictions do not depend on a picture's own label or its twin's, and follow a
mirrored picture."""

import numpy as np
import pytest

from gaip3_pipeline.training.label_regression import cross_fit, fit_regressions, predict


def features_of(seen: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """``(2, N, 3)`` features: one that determines the value, with the opposite sign in the mirror
    image if ``mirrored``, and two of noise."""
    noise = np.random.default_rng(0).normal(0, 0.3, (2, len(seen), 2))
    return np.concatenate(
        [np.stack([seen, -seen if mirrored else seen])[:, :, None], noise], axis=2
    ).astype(np.float32)


def test_held_out_values_are_predicted_and_unlabelled_ones_too():
    exact = np.random.default_rng(1).random(120)
    values = np.where(np.arange(120) % 5 == 0, np.nan, exact)
    found = cross_fit(features_of(4 * exact - 2), values, np.arange(120) % 100, mirrored=False)
    assert np.abs(found.predicted - exact).mean() < 0.08
    assert (found.variance > 0).all()


def test_a_label_changes_neither_its_own_prediction_nor_its_twins():
    exact = np.random.default_rng(2).random(80)
    bucket = np.arange(80)
    bucket[1] = bucket[0]  # twins
    features = features_of(exact)
    before = cross_fit(features, exact, bucket, mirrored=False)
    changed = exact.copy()
    changed[0] = 1 - changed[0]
    after = cross_fit(features, changed, bucket, mirrored=False)
    same_fold = bucket % 4 == bucket[0] % 4
    np.testing.assert_array_equal(after.predicted[same_fold], before.predicted[same_fold])
    assert (after.predicted[~same_fold] != before.predicted[~same_fold]).any()


def test_the_mirror_image_of_a_mirrored_value_has_the_opposite_one():
    exact = np.random.default_rng(3).random(60)
    features = features_of(2 * exact - 1, mirrored=True)
    models = fit_regressions(features, exact, mirrored=True)
    there, _ = predict(models, features)
    mirrored, _ = predict(models, features[::-1])
    np.testing.assert_allclose(mirrored, 1 - there, atol=1e-5)
    assert np.corrcoef(there, exact)[0, 1] > 0.95


def test_a_picture_unlike_all_labelled_ones_is_less_certain():
    exact = np.random.default_rng(4).random(60)
    features = features_of(exact)
    features[:, -1] += 8.0
    values = exact.copy()
    values[-2:] = np.nan
    found = cross_fit(features, values, np.arange(60), mirrored=False)
    assert found.variance[-1] > 2 * found.variance[-2]


def test_too_few_labels_are_an_error_that_says_so():
    values = np.full(20, np.nan)
    values[:2] = 0.0, 1.0
    with pytest.raises(ValueError, match="2 labels are too few for 4 folds"):
        cross_fit(features_of(np.arange(20.0)), values, np.arange(20), mirrored=False)
