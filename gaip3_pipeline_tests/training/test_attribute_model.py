"""Gaussian processes of the values: accuracy, relevance, uncertainty, and no influence of a
picture's own label."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist

from gaip3_pipeline.metrics.regression import r_squared
from gaip3_pipeline.settings import InputModel
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.training.attribute_model import (
    fit_process,
    load_input_model,
    negative_log_marginal_likelihood,
    save_input_model,
    train_input_model,
)

GROUPS = np.array([0, 6, 12, 18])  # three regions of six features
SETTINGS = InputModel()


def pictures(n=160, seed=0, noise=0.03):
    """``(2, n, 18)`` features of pictures and mirror images, values of the second region alone,
    and buckets."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.3, (2, n, 18)).astype(np.float16)
    features[1] = features[0]
    values = np.clip(
        0.5
        + 0.5 * np.tanh(features[0, :, 6:9].astype(float).sum(axis=1))
        + rng.normal(0, noise, n),
        0,
        1,
    )
    return features, values, rng.integers(0, 100, n)


def test_out_of_fold_predictions_are_accurate_and_the_relevant_region_is_found():
    features, values, bucket = pictures()
    result = train_input_model("mouth", features, GROUPS, values, bucket, SETTINGS)
    assert r_squared(result.predicted, values) > 0.7
    relevance = result.process.relevance
    assert relevance[1] > 5 * max(relevance[0], relevance[2])


def test_no_label_affects_the_prediction_for_its_picture():
    features, values, bucket = pictures()
    other = values.copy()
    asked = bucket % 4 == 1
    other[asked] = 1 - other[asked]
    before = train_input_model("mouth", features, GROUPS, values, bucket, SETTINGS)
    after = train_input_model("mouth", features, GROUPS, other, bucket, SETTINGS)
    np.testing.assert_array_equal(before.predicted[asked], after.predicted[asked])
    assert not np.array_equal(before.predicted[~asked], after.predicted[~asked])


def test_its_standard_deviation_matches_its_errors():
    features, values, bucket = pictures(240, noise=0.08)
    result = train_input_model("mouth", features, GROUPS, values, bucket, SETTINGS)
    within = np.abs(result.predicted - values) < result.deviation
    assert 0.55 < within.mean() < 0.9
    far = np.full((2, 1, 18), 50.0, np.float16)  # unlike all labelled pictures
    value, deviation = result.process.predict(far)
    assert value[0] == pytest.approx(values.mean(), abs=0.02)
    assert deviation[0] > 1.5 * np.median(result.deviation)


def test_a_mirrored_head_is_turned_to_the_other_side_and_no_other_value():
    features, _, _ = pictures()
    features[1, :, 6:12] = -features[0, :, 6:12]
    values = 0.5 + 0.5 * np.tanh(features[0, :, 6:9].astype(float).sum(axis=1))
    turned = features[::-1]
    head = fit_process("head", features, GROUPS, values, SETTINGS)
    np.testing.assert_allclose(head.predict(turned)[0], 1 - head.predict(features)[0], atol=2e-4)
    mouth = fit_process("mouth", features, GROUPS, values, SETTINGS)
    np.testing.assert_allclose(mouth.predict(turned)[0], mouth.predict(features)[0], atol=2e-4)


def test_a_saved_and_loaded_process_predicts_the_same_and_equal_labels_give_equal_relevances(
    tmp_path,
):
    features, values, _ = pictures()
    process = fit_process("mouth", features, GROUPS, values, SETTINGS)
    save_input_model(process, tmp_path)
    loaded = load_input_model(tmp_path)
    assert loaded.attribute == "mouth"
    for mine, theirs in zip(process.predict(features), loaded.predict(features), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(
        fit_process("mouth", features, GROUPS, values, SETTINGS).relevance, process.relevance
    )


def test_its_version_depends_on_its_content_including_the_attribute(tmp_path):
    features, values, _ = pictures(60)
    process = fit_process("mouth", features, GROUPS, values, SETTINGS)
    folders = [tmp_path / name for name in ("one", "again", "other")]
    for folder, saved in zip(
        folders, (process, process, dataclasses.replace(process, attribute="eyes")), strict=True
    ):
        save_input_model(saved, folder)
    one, again, other = (weights_version(folder) for folder in folders)
    assert one == again != other


def test_rare_values_are_among_those_that_relevance_is_learned_from():
    features, _, _ = pictures(200)
    values = np.ones(200)
    values[:7] = 0.0  # closed eyes
    features[0, :7, 6:9] += 1.0
    features[1] = features[0]
    few = fit_process("eyes", features, GROUPS, values, InputModel(relevance_labels=60))
    assert few.relevance[1] > 2 * max(few.relevance[0], few.relevance[2])
    assert few.predict(features[:, :7])[0].mean() < 0.4


def test_copies_with_the_same_label_do_not_reduce_the_uncertainty():
    features, values, bucket = pictures(noise=0.1)
    alone = train_input_model("mouth", features, GROUPS, values, bucket, SETTINGS)
    twice = np.concatenate([features, features], axis=1)
    doubled = train_input_model(
        "mouth", twice, GROUPS, np.tile(values, 2), np.tile(bucket, 2), SETTINGS, repeats=2
    )
    np.testing.assert_allclose(doubled.predicted[:160], alone.predicted, atol=1e-2)
    np.testing.assert_allclose(doubled.deviation[:160], alone.deviation, atol=1e-2)


def test_too_few_labels_are_an_error_that_says_so():
    features, values, _ = pictures(4)
    with pytest.raises(
        ValueError, match="input model eyes: 2 labels are too few for 4 folds: label more images"
    ):
        train_input_model("eyes", features[:, :2], GROUPS, values[:2], np.array([0, 1]), SETTINGS)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_gradient_of_the_likelihood_is_that_of_finite_differences(sign):
    generator = np.random.default_rng(3)
    points = generator.normal(size=(3, 2, 40, 4))  # regions, mirror images, pictures, features
    pairs = ((0, 0), (1, 1), (0, 1))
    distances = (
        np.stack([[cdist(p[a], p[b], "sqeuclidean") for a, b in pairs] for p in points]).astype(
            np.float32
        )
        / 8
    )
    y, logs = generator.normal(size=40), np.log([0.3, 0.1, 0.5, 0.2, 0.8])
    numeric = approx_fprime(
        logs, lambda x: negative_log_marginal_likelihood(x, distances, y, sign)[0], 1e-3
    )
    np.testing.assert_allclose(
        negative_log_marginal_likelihood(logs, distances, y, sign)[1], numeric, rtol=0.02, atol=0.02
    )
