"""Retouching raises the guide's logit, holds the values, stays on the prior's shell and leaves a broken sample alone."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from gaip3_pipeline.evaluation.retouch import bootstrap_interval, judged, retouch_figures
from gaip3_pipeline.layout import ATTRIBUTES
from gaip3_pipeline.models.nvae.model import build_nvae
from gaip3_pipeline.settings import Nvae, Retouch
from gaip3_pipeline.training.critic import TrainedCritic
from gaip3_pipeline.training.regressor import Regressor
from gaip3_pipeline.training.retouch import DIVERGED, RETOUCHED, retouch

SETTINGS = Retouch(steps=4, step_size=0.3, prior_weight=0.0, values_weight=0.0, batch_size=4)
N = 6


@pytest.fixture(scope="module")
def nvae():
    settings = Nvae(height=34, width=28, channels=(16, 16, 16, 16, 8, 8), latents=(8, 0, 4, 2, 0, 0), condition_width=8, seed=2)
    model = build_nvae(settings)
    # A fresh decoder hardly answers to its latents; louder weights make pictures differ.
    model.set_weights([w * 1.5 for w in model.get_weights()])
    return model


def brightness_model(channel, slope=1.0):
    """A network that gives the mean of one colour channel, times ``slope``."""
    pictures = keras.Input((34, 28, 3))
    dense = layers.Dense(1, use_bias=False)
    model = keras.Model(pictures, dense(layers.GlobalAveragePooling2D()(pictures)))
    dense.set_weights([(slope * np.eye(3)[:, [channel]]).astype(np.float32)])
    model.compile(jit_compile=False)
    return model


@pytest.fixture(scope="module")
def guide():
    return TrainedCritic(brightness_model(0, slope=4.0), 34, 28)


def samples(nvae, n=N):
    table = pd.DataFrame(np.random.default_rng(0).random((n, 5)), columns=list(ATTRIBUTES)).assign(temperature=1.0, guidance=1.0)
    return nvae.sample_noise(n, 5), table


@pytest.fixture(scope="module")
def retouched(nvae, guide):
    noise, table = samples(nvae)
    return noise, table, retouch(nvae, guide, [], noise, table, SETTINGS)


def test_the_guides_logit_rises_for_every_sample(retouched):
    _, _, result = retouched
    assert result.reasons == [RETOUCHED] * N
    assert (result.guide_after > result.guide_before).all()
    assert result.after.shape == (N, 34, 28, 3)
    assert result.after.dtype == np.uint8
    assert (result.after != result.before).any()
    assert result.evaluations == 5


def test_the_latents_stay_on_their_shell_and_give_the_picture_kept(nvae, retouched):
    noise, table, result = retouched
    for before, after in zip(noise, result.noise, strict=True):
        np.testing.assert_allclose(np.linalg.norm(after.reshape(N, -1), axis=1), np.linalg.norm(before.reshape(N, -1), axis=1), rtol=1e-4)
    drawn = keras.ops.convert_to_numpy(nvae.decode(result.noise, table[list(ATTRIBUTES)].to_numpy(np.float32), 1.0, 1.0))
    assert np.abs(np.round(drawn * 255) - result.after).max() <= 1


def test_a_sample_is_retouched_alike_alone_and_in_company(nvae, guide, retouched):
    noise, table, result = retouched
    alone = retouch(nvae, guide, [], [e[5:] for e in noise], table[5:], SETTINGS)
    assert np.abs(alone.after[0].astype(int) - result.after[5]).max() <= 1


def test_a_sample_that_is_not_a_number_is_kept_as_it_was_and_harms_no_other(nvae, guide, retouched):
    noise, table, result = retouched
    broken = [e.copy() for e in noise]
    broken[0][2] = np.nan
    again = retouch(nvae, guide, [], broken, table, SETTINGS)
    assert again.reasons[2] == DIVERGED
    assert again.reasons.count(DIVERGED) == 1
    np.testing.assert_array_equal(again.after[2], again.before[2])
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(again.after[others], result.after[others])


def test_values_that_are_held_change_less(nvae, guide, retouched):
    noise, table, free = retouched
    held = Regressor(brightness_model(0), ("background",), 34, 28)
    result = retouch(nvae, guide, [held], noise, table, Retouch(**{**vars(SETTINGS), "values_weight": 1e5}))

    def change(r):
        return np.abs(r.after[..., 0].astype(float).mean(axis=(1, 2)) - r.before[..., 0].mean(axis=(1, 2))).mean()

    assert change(result) < 0.5 * change(free)


def test_figures_show_the_rise_by_a_judge_and_count_what_was_kept(nvae, guide, retouched):
    _, _, result = retouched
    judge = TrainedCritic(brightness_model(0, slope=10.0), 34, 28)
    real = np.random.default_rng(1).integers(0, 255, (20, 34, 28, 3)).astype(np.uint8)
    regressors = [Regressor(brightness_model(1), ("background",), 34, 28)]
    figures = retouch_figures(result, regressors, real) | judged("judge", judge, result, real)
    assert figures["judge_logit_after"] > figures["judge_logit_before"]
    assert 0 < figures["judge_gain_low"] <= figures["judge_gain"] <= figures["judge_gain_high"]
    assert (figures["n"], figures["retouched"], figures["kept_diverged"]) == (N, N, 0)
    assert {"values_mae_before", "values_mae_after", "mean_change_grey_levels"} <= set(figures)


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_n():
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, 20), rng.normal(1, 1, 2000)
    low, high = bootstrap_interval(many)
    assert low < 1.0 < high
    assert high - low < np.diff(bootstrap_interval(few))[0]
