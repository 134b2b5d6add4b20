"""Shares, intervals and calibration agree with published and simulated values."""

import numpy as np
import pytest
from scipy.special import expit

from gaip3_pipeline.metrics.classification import (
    calibration_curve,
    expected_calibration_error,
    fit_temperature,
    gender_figures,
    roc_auc,
)
from gaip3_pipeline.metrics.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (1, 347, 0.00051, 0.01615),
        (10, 10, 0.7225, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_agree_with_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_shares_of_each_sex_are_reported_with_their_intervals():
    margin = np.array([9.3, 9.0, -3.0, 9.3, -9.0, -1.0])
    figures = gender_figures(
        np.stack([0 * margin, margin], axis=1), np.array([1, 1, 1, 0, 0, 0], bool)
    )
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert (figures["n_female"], figures["n_male"]) == (3, 3)
    assert figures["female_recall"] == pytest.approx(2 / 3)
    assert figures["male_recall_low"] < 2 / 3 < figures["male_recall_high"]


def test_the_temperature_of_overconfident_scores_is_found_and_lowers_only_the_scaled_error():
    rng = np.random.default_rng(0)
    true_margin = rng.normal(0, 2, 20_000)
    positive = rng.random(20_000) < expit(true_margin)
    margin = 3 * true_margin
    assert fit_temperature(margin, positive) == pytest.approx(3.0, rel=0.1)
    figures = gender_figures(np.stack([0 * margin, margin], axis=1), positive)
    assert figures["ece"] < 0.02 < figures["ece_plain"]


def test_roc_auc_counts_ties_half():
    assert roc_auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1], bool)) == 1.0
    assert roc_auc(np.array([1.0, 1.0, 1.0, 1.0]), np.array([0, 0, 1, 1], bool)) == 0.5
    assert np.isnan(roc_auc(np.array([1.0]), np.array([True])))


def test_calibration_bins_hold_every_picture_once():
    score, positive = np.array([0.0, 0.05, 0.95, 1.0]), np.array([0, 0, 1, 0], bool)
    curve = calibration_curve(score, positive)
    assert [n for _, _, n in curve] == [2, 2]
    assert expected_calibration_error(score, positive) == pytest.approx((0.025 * 2 + 0.475 * 2) / 4)
