"""Retouching increases the guide's logit, keeps the values, keeps the norm of the latents and
leaves a broken sample unchanged."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.metrics.intervals import bootstrap_interval
from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
from gaip3_pipeline.models.critic import build_critic, evidence, networks_of
from gaip3_pipeline.models.nvae.model import build_nvae
from gaip3_pipeline.retouching import figures as retouch_evaluation
from gaip3_pipeline.retouching.aggregate_posterior import fit_aggregate_posterior
from gaip3_pipeline.retouching.figures import judged, retouch_figures, retouch_samples
from gaip3_pipeline.retouching.methods import METHODS
from gaip3_pipeline.retouching.prior_critic import (
    load_prior_critic,
    prior_critic_figures,
    train_prior_critic,
)
from gaip3_pipeline.retouching.retoucher import (
    BLIND,
    DIVERGED,
    FIDELITY_0,
    GOOD,
    RETOUCHED,
    Retoucher,
    Tools,
)
from gaip3_pipeline.sampling.draw import FaceGenerator, read_jpegs
from gaip3_pipeline.settings import RETOUCHING_METHODS, Critic, Nvae, Retouch
from gaip3_pipeline.training.critic import TrainedCritic, critic_logits
from gaip3_pipeline.training.regressor import Regressor
from gaip3_pipeline.training.run import Examples, Run

SETTINGS = Retouch(
    method="ascent",
    fidelity=0.5,
    steps=4,
    step_size=0.3,
    prior_weight=0.0,
    values_weight=0.0,
    batch_size=4,
)
N = 6


@pytest.fixture(scope="module")
def nvae():
    settings = Nvae(
        height=34,
        width=28,
        channels=(16, 16, 16, 16, 8, 8),
        latents=(8, 0, 4, 2, 0, 0),
        condition_width=8,
        seed=2,
    )
    model = build_nvae(settings)
    # The pictures of an untrained decoder hardly depend on its latents; larger weights change that.
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


def retouch(tools, noise, table, settings):
    return Retoucher(tools, settings)(noise, table)


def samples(nvae, n=N):
    table = pd.DataFrame(np.random.default_rng(0).random((n, 5)), columns=list(ATTRIBUTES)).assign(
        temperature=1.0, guidance=1.0
    )
    return nvae.sample_noise(n, 5), table


@pytest.fixture(scope="module")
def retouched(nvae, guide):
    noise, table = samples(nvae)
    return noise, table, retouch(Tools(FaceGenerator(nvae), guide, []), noise, table, SETTINGS)


def test_the_guides_logit_rises_for_every_sample(retouched):
    _, _, result = retouched
    assert result.reasons == [RETOUCHED] * N
    assert (result.guide_after > result.guide_before).all()
    assert result.after.shape == (N, 34, 28, 3)
    assert result.after.dtype == np.uint8
    assert (result.after != result.before).any()
    assert (result.evaluations == 5).all()


def test_the_latents_keep_their_norm_and_decode_to_the_picture_that_is_kept(nvae, retouched):
    noise, table, result = retouched
    for before, after in zip(noise, result.noise, strict=True):
        np.testing.assert_allclose(
            np.linalg.norm(after.reshape(N, -1), axis=1),
            np.linalg.norm(before.reshape(N, -1), axis=1),
            rtol=1e-4,
        )
    drawn = keras.ops.convert_to_numpy(
        nvae.decode(result.noise, table[list(ATTRIBUTES)].to_numpy(np.float32), 1.0, 1.0)
    )
    assert np.abs(np.round(drawn * 255) - result.after).max() <= 1


def test_a_sample_is_retouched_alike_alone_and_in_a_batch(nvae, guide, retouched):
    noise, table, result = retouched
    alone = retouch(
        Tools(FaceGenerator(nvae), guide, []), [e[5:] for e in noise], table[5:], SETTINGS
    )
    assert np.abs(alone.after[0].astype(int) - result.after[5]).max() <= 1


def test_a_sample_that_is_not_a_number_is_kept_as_it_was_and_harms_no_other(nvae, guide, retouched):
    noise, table, result = retouched
    broken = [e.copy() for e in noise]
    broken[0][2] = np.nan
    again = retouch(Tools(FaceGenerator(nvae), guide, []), broken, table, SETTINGS)
    assert again.reasons[2] == DIVERGED
    assert again.reasons.count(DIVERGED) == 1
    np.testing.assert_array_equal(again.after[2], again.before[2])
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(again.after[others], result.after[others])


def test_values_that_are_held_change_less(nvae, guide, retouched):
    noise, table, free = retouched
    held = Regressor(brightness_model(0), ("background",), 34, 28)
    result = retouch(
        Tools(FaceGenerator(nvae), guide, [held]),
        noise,
        table,
        Retouch(**{**vars(SETTINGS), "values_weight": 1e5}),
    )

    def change(r):
        return np.abs(
            r.after[..., 0].astype(float).mean(axis=(1, 2)) - r.before[..., 0].mean(axis=(1, 2))
        ).mean()

    assert change(result) < 0.5 * change(free)


def critic_that_knows(held_out=200, auc=0.9, typical=np.inf, slope=4.0):
    return TrainedCritic(brightness_model(0, slope), 34, 28, held_out, auc, typical)


@pytest.mark.parametrize(
    ("auc", "said"),
    [(0.52, "cannot tell real from generated, AUC 0.520"), (1.0, "perfectly, AUC 1")],
)
def test_a_guide_of_no_use_is_named_and_nothing_is_changed(nvae, auc, said):
    noise, table = samples(nvae)
    result = retouch(Tools(FaceGenerator(nvae), critic_that_knows(auc=auc)), noise, table, SETTINGS)
    assert all(r.startswith(BLIND) and said in r for r in result.reasons)
    np.testing.assert_array_equal(result.after, result.before)
    assert (result.evaluations == 1).all()


def test_samples_with_the_logit_of_real_pictures_stay_and_others_stop_at_it(nvae, guide, retouched):
    noise, table, free = retouched
    typical = float(np.sort(free.guide_before)[N // 2])
    result = retouch(
        Tools(FaceGenerator(nvae), critic_that_knows(typical=typical)), noise, table, SETTINGS
    )
    good = free.guide_before >= typical
    assert [r == GOOD for r in result.reasons] == good.tolist()
    np.testing.assert_array_equal(result.after[good], result.before[good])
    assert (result.evaluations[good] == 1).all()
    assert result.evaluations[~good].min() > 1
    np.testing.assert_allclose(result.guide_before, free.guide_before, atol=1e-5)


def test_at_fidelity_0_nothing_moves_and_at_1_more_than_at_a_half(nvae, guide):
    noise, table = samples(nvae)
    leashed = dataclasses.replace(SETTINGS, prior_weight=3.0)

    def moved(fidelity):
        result = retouch(
            Tools(FaceGenerator(nvae), guide),
            noise,
            table,
            dataclasses.replace(leashed, fidelity=fidelity),
        )
        return result, np.abs(result.noise[0] - noise[0]).mean()

    still, nothing = moved(0.0)
    assert (still.reasons, nothing) == ([FIDELITY_0] * N, 0.0)
    assert moved(0.1)[1] < moved(0.5)[1] < moved(1.0)[1]
    with pytest.raises(ValueError, match=r"0 to 1, not 1\.5"):
        moved(1.5)


def test_every_method_that_the_settings_accept_exists():
    assert tuple(METHODS) == RETOUCHING_METHODS


def test_the_addends_of_a_logit_sum_to_it():
    keras.utils.set_random_seed(3)
    critic = build_critic(34, 28, 0.25, 0.0, networks=3)
    pictures = np.random.default_rng(0).random((4, 34, 28, 3)).astype(np.float32)
    bias = np.concatenate(
        [network.get_layer("logit").get_weights()[1] for network in networks_of(critic)]
    )
    by_place = keras.ops.convert_to_numpy(evidence(critic)(pictures))
    np.testing.assert_allclose(
        by_place.sum(axis=(2, 3)) + bias,
        keras.ops.convert_to_numpy(critic(pictures)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.fixture(scope="module")
def pictures(nvae):
    """Pictures that the generator decodes from latents which do not follow its prior."""
    generator = np.random.default_rng(4)
    values = generator.random((160, 5)).astype(np.float32)
    noise = nvae.sample_noise(160, 9)
    noise[0] = 0.5 * noise[0] + 1.0 + values[:, None, None, :1]
    made = np.round(keras.ops.convert_to_numpy(nvae.decode(noise, values)) * 255).astype(np.uint8)
    return (
        made,
        values,
        np.array(["test", "validation", "train", "train", "train"])[np.arange(160) % 5],
    )


def test_transport_moves_latents_to_the_distribution_of_those_of_pictures(
    nvae, guide, pictures, tmp_path
):
    images, values, split = pictures
    found, figures = fit_aggregate_posterior(nvae, images, values, split)
    assert figures["nats"] > 0
    assert figures["n"] == 64
    found.save(tmp_path / "gaussians.npz")
    again = load_aggregate_posterior(tmp_path / "gaussians.npz")
    noise, table = nvae.sample_noise(2000, 3), np.tile(values, (13, 1))[:2000]
    there = again.move(noise, table, 1.0)
    of_pictures = FaceGenerator(nvae).encoded(images, values, 5)
    np.testing.assert_allclose(there[0].mean(axis=0), of_pictures[0].mean(axis=0), atol=0.35)
    np.testing.assert_allclose(
        again.move(noise, table, 0.25)[0], 0.75 * noise[0] + 0.25 * there[0], atol=1e-5
    )
    assert again.log_density_gain(there, table).mean() > again.log_density_gain(noise, table).mean()

    start, rows = samples(nvae)
    freely = Retouch(method="transport", fidelity=1.0, batch_size=4)
    assert (
        retouch(
            Tools(FaceGenerator(nvae), critic_that_knows(typical=-np.inf), correction=again),
            start,
            rows,
            freely,
        ).reasons
        == [GOOD] * N
    )
    # A guide of no use cannot tell which samples are good already; transport works without it.
    result = retouch(
        Tools(FaceGenerator(nvae), critic_that_knows(auc=0.5, typical=-np.inf), correction=again),
        start,
        rows,
        freely,
    )
    assert result.reasons == [RETOUCHED] * N
    np.testing.assert_allclose(
        result.noise[0],
        again.move(start, rows[list(ATTRIBUTES)].to_numpy(np.float32), 1.0)[0],
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="transport needs a correction"):
        retouch(Tools(FaceGenerator(nvae), guide), start, rows, Retouch(method="transport"))


def test_the_critic_of_the_prior_finds_latents_of_pictures_and_moves_samples_towards_them(
    nvae, pictures, tmp_path
):
    images, values, split = pictures
    settings = Critic(epochs=6, batch_size=16, learning_rate=3e-3)
    result = train_prior_critic(nvae, Examples(images, values, split), settings, Run(tmp_path, "a"))
    figures = prior_critic_figures(result)
    assert figures["n"] == 64
    assert figures["auc"] > 0.8
    critic = load_prior_critic(tmp_path)
    noise = nvae.sample_noise(32, 3)
    before = critic.logits(noise, values[:32]).sum(axis=1)
    small, large = (
        critic.logits(critic.move(noise, values[:32], f), values[:32]).sum(axis=1)
        for f in (0.1, 0.9)
    )
    assert before.mean() < small.mean() < large.mean()


def test_a_folder_of_samples_is_retouched_in_chunks_and_goes_on_after_a_kill(
    nvae, guide, tmp_path, monkeypatch
):
    monkeypatch.setattr(retouch_evaluation, "CHUNK", 4)
    table = samples(nvae)[1].assign(
        seed=np.arange(N) + 7, image_path=[f"samples/{i:06d}.jpg" for i in range(N)]
    )
    folder, part = tmp_path / "retouched", tmp_path / "part.csv"
    folder.mkdir()

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 4:
            raise Killed

    whole = retouch_samples(Tools(FaceGenerator(nvae), guide), table, SETTINGS, folder, part, "a")
    pixels = read_jpegs(folder, [f"{i:06d}.jpg" for i in range(N)])
    part.unlink()
    with pytest.raises(Killed):
        retouch_samples(
            Tools(FaceGenerator(nvae), guide), table, SETTINGS, folder, part, "a", progress=kill
        )
    (folder / "000001.jpg").unlink()  # shows whether this sample is made again
    seen = []
    resumed = retouch_samples(
        Tools(FaceGenerator(nvae), guide),
        table,
        SETTINGS,
        folder,
        part,
        "a",
        progress=lambda done, total: seen.append(done),
    )
    assert seen == [6]
    assert not (folder / "000001.jpg").exists()
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert resumed.to_csv() == whole.to_csv()
    retouch_samples(
        Tools(FaceGenerator(nvae), guide),
        table,
        SETTINGS,
        folder,
        part,
        "other",
        progress=lambda done, total: seen.append(done),
    )
    assert seen == [6, 4, 6]
    np.testing.assert_array_equal(read_jpegs(folder, [f"{i:06d}.jpg" for i in range(N)]), pixels)


def test_figures_show_the_rise_by_a_judge_and_count_what_was_kept(nvae, guide, retouched):
    _, rows, result = retouched
    judge = TrainedCritic(brightness_model(0, slope=10.0), 34, 28)
    real = np.random.default_rng(1).integers(0, 255, (20, 34, 28, 3)).astype(np.uint8)
    table = rows.assign(outcome=result.reasons, evaluations=result.evaluations)
    table = table.assign(guide_before=result.guide_before, guide_after=result.guide_after)
    regressors = [Regressor(brightness_model(1), ("background",), 34, 28)]
    said = (critic_logits(judge, images) for images in (result.before, result.after, real))
    figures = retouch_figures(table, result.before, result.after, regressors, real) | judged(
        "judge", *said
    )
    assert figures["judge_logit_after"] > figures["judge_logit_before"]
    assert 0 < figures["judge_gain_low"] <= figures["judge_gain"] <= figures["judge_gain_high"]
    assert (figures["n"], figures["retouched"], figures["kept_diverged"]) == (N, N, 0)
    assert {"values_mae_before", "values_mae_after", "mean_change_grey_levels"} <= set(figures)
    assert 0 < figures["identity"] < 1


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_n():
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, 20), rng.normal(1, 1, 2000)
    low, high = bootstrap_interval(np.mean, many)
    assert low < 1.0 < high
    assert high - low < np.diff(bootstrap_interval(np.mean, few))[0]
