"""Metrics of regressions agree with their definitions and with SciPy's."""

import numpy as np
import pytest
from scipy import stats

from gaip3_pipeline.metrics.regression import (
    level_recall,
    mean_absolute_error,
    pearson,
    r_squared,
    regression_figures,
    root_mean_square_error,
    spearman,
)


def test_figures_agree_with_scipy():
    rng = np.random.default_rng(0)
    labelled = np.round(rng.random(200) * 4) / 4
    predicted = labelled + rng.normal(0, 0.2, 200)
    figures = regression_figures(predicted, labelled)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(predicted, labelled).statistic)
    assert figures["pearson"] == pytest.approx(stats.pearsonr(predicted, labelled).statistic)
    assert figures["mae"] == pytest.approx(np.abs(predicted - labelled).mean())
    assert figures["r2"] == pytest.approx(1 - ((predicted - labelled) ** 2).mean() / labelled.var())


def test_predicting_the_mean_of_the_labels_has_an_r_squared_of_zero():
    labelled = np.array([0.0, 0.5, 1.0])
    assert regression_figures(np.full(3, 0.5), labelled)["r2"] == 0.0
    assert np.isnan(regression_figures(labelled, np.full(3, 0.5))["r2"])


def test_each_sex_has_its_own_figures():
    labelled, is_female = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1, 1, 0, 0], bool)
    figures = regression_figures(np.array([0.0, 1.0, 0.5, 0.5]), labelled, is_female)
    assert (figures["female_mae"], figures["male_mae"], figures["male_n"]) == (0.0, 0.5, 2)


def test_each_of_a_few_levels_has_a_recall_of_its_own():
    labelled = np.array([1.0] * 30 + [0.0] * 2)
    predicted = np.array([0.9] * 30 + [0.3, 0.8])
    assert level_recall(predicted, labelled) == {0.0: (0.5, 2), 1.0: (1.0, 30)}
    figures = regression_figures(predicted, labelled)
    assert (figures["recall_at_0"], figures["n_at_0"]) == (0.5, 2)
    assert (figures["recall_at_1"], figures["n_at_1"]) == (1.0, 30)
    exact = np.linspace(0, 1, 50)
    assert not [name for name in regression_figures(exact, exact) if name.startswith("recall_at_")]


@pytest.mark.parametrize(
    "figure", [r_squared, mean_absolute_error, root_mean_square_error, pearson, spearman]
)
def test_a_figure_over_an_axis_is_that_of_each_row_and_a_plain_float_for_one(figure):
    rng = np.random.default_rng(3)
    labelled = rng.integers(0, 5, (4, 30)).astype(np.float32) / 4
    labelled[3] = 0.5  # does not vary
    predicted = labelled + rng.normal(0, 0.2, (4, 30)).astype(np.float32)
    alone = [figure(p, x) for p, x in zip(predicted, labelled, strict=True)]
    assert {type(value) for value in alone} == {float}
    np.testing.assert_allclose(figure(predicted, labelled), alone, rtol=1e-6)
