"""A critic detects real differences, not those of codecs, and guide and judge share no picture."""

import dataclasses

import cv2
import numpy as np
import pytest

from gaip3_pipeline.evaluation.critic import critic_figures, occlusion_chart, occlusion_map
from gaip3_pipeline.models.scoring import score
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.critic import (
    NETWORKS,
    as_jpegs,
    critic_logits,
    draws_for,
    load_critic,
    pictures_of_role,
    same_way,
    train_critic,
)
from gaip3_pipeline.training.run import Run

TINY = Critic(
    epochs=8,
    batch_size=16,
    learning_rate=5e-3,
    width_multiplier=0.25,
    dropout=0.0,
    shift=1,
    jitter=0.0,
    noise=0.01,
)


def silent(step, figures):
    pass


def textured(n, seed, size=(16, 12)):
    """Smooth blobs with a checkerboard over them."""
    rng = np.random.default_rng(seed)
    coarse = (
        rng.integers(60, 180, (n, size[0] // 4, size[1] // 4, 3))
        .repeat(4, axis=1)
        .repeat(4, axis=2)
    )
    board = 40 * (np.indices(size).sum(axis=0) // 2 % 2)[None, :, :, None]
    return (coarse + board).astype(np.uint8)


def flat(n, seed, size=(16, 12)):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(60, 180, (n, size[0] // 4, size[1] // 4, 3))
        .repeat(4, axis=1)
        .repeat(4, axis=2)
        + 20
    ).astype(np.uint8)


BUCKETS = np.arange(96)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("critic")
    real, generated = textured(96, 0), flat(96, 1)
    return (
        real,
        generated,
        folder,
        train_critic(real[None], generated[None], BUCKETS, TINY, Run(folder, "a", silent)),
    )


def test_an_obvious_difference_is_found_on_held_out_pictures(trained):
    figures = critic_figures(trained[3])
    assert figures["n"] == 192
    assert figures["auc"] > 0.95
    assert figures["mean_logit_real"] > figures["mean_logit_generated"]
    assert figures["accuracy_low"] < figures["accuracy"] <= figures["accuracy_high"]


def test_saved_and_loaded_it_gives_equal_logits_whatever_the_size_of_the_pictures(trained):
    real, _, folder, result = trained
    critic = load_critic(folder)
    sized = critic_logits(critic, real)
    by_network = score(critic.model, [same_way(real, 16, 12)], 16, 12)
    np.testing.assert_allclose(by_network.mean(axis=1), sized, atol=1e-5)
    np.testing.assert_allclose(
        by_network[np.arange(96), folds_of(BUCKETS, NETWORKS)], result.real_logits, atol=1e-4
    )
    assert critic_logits(critic, real.repeat(2, axis=1).repeat(2, axis=2)) == pytest.approx(
        sized, abs=0.5
    )


def test_each_network_learns_from_all_folds_but_its_own(tmp_path):
    """Other pictures in one fold change every network but that fold's, whose logits keep their
    proportions."""
    fold, probe = folds_of(BUCKETS, NETWORKS), textured(20, 9)
    settings = dataclasses.replace(TINY, epochs=2)
    outputs = []
    for name, seed in (("one", 0), ("other", 5)):
        real, generated = textured(96, 0), flat(96, 1)
        real[fold == 2], generated[fold == 2] = (
            flat(96, seed)[fold == 2],
            textured(96, seed + 1)[fold == 2],
        )
        train_critic(
            real[None], generated[None], BUCKETS, settings, Run(tmp_path / name, "a", silent)
        )
        logits = score(load_critic(tmp_path / name).model, [probe], 16, 12)
        outputs.append(logits / logits.std(axis=0))
    apart = np.abs(outputs[1] - outputs[0]).max(axis=0)
    assert apart[2] < 1e-3
    assert np.delete(apart, 2).min() > 1e-2


@pytest.mark.parametrize(
    ("samples", "bucket"), [(4, [10] * 4), (3, [10, 11, 12, 13])], ids=["one fold", "unpaired"]
)
def test_pictures_that_cannot_be_cross_fitted_are_named(tmp_path, samples, bucket):
    with pytest.raises(
        ValueError,
        match=f"4 pictures that the generator has not seen and {samples} samples.*add photographs",
    ):
        train_critic(
            textured(4, 0)[None],
            flat(samples, 1)[None],
            np.array(bucket),
            TINY,
            Run(tmp_path, "a", silent),
        )


def test_few_pictures_are_drawn_several_times():
    assert [draws_for(n) for n in (0, 10, 250, 400, 999, 5000)] == [4, 4, 4, 3, 2, 1]


def test_pictures_of_the_same_distribution_are_not_distinguished(tmp_path):
    figures = critic_figures(
        train_critic(
            textured(96, 2)[None], textured(96, 3)[None], BUCKETS, TINY, Run(tmp_path, "a", silent)
        )
    )
    assert 0.2 < figures["auc"] < 0.8


def faces(n, seed, size=(32, 26)):
    """Smooth colour fields with a little grain, as small photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (n, 5, 4, 3)).astype(np.uint8)
    smooth = np.stack([cv2.resize(c, size[::-1], interpolation=cv2.INTER_CUBIC) for c in coarse])
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def framed(images):
    out = images.copy()
    out[:, [0, -1]] = out[:, :, [0, -1]] = 0
    return out


def coded(quality):
    return lambda images: as_jpegs(images, [quality] * len(images))


@pytest.mark.parametrize(
    "cue", [framed, coded(60), coded(30)], ids=["frame", "JPEG of quality 60", "JPEG of quality 30"]
)
def test_a_planted_artefact_is_not_learned(tmp_path, cue):
    planted = Critic(epochs=6, batch_size=16, width_multiplier=0.5)
    result = train_critic(
        faces(240, 0)[None],
        cue(faces(240, 1))[None],
        np.arange(240),
        planted,
        Run(tmp_path, "a", silent),
    )
    assert 0.35 < critic_figures(result)["auc"] < 0.65


def test_the_occlusion_map_is_largest_where_the_difference_is(tmp_path):
    real, generated = faces(240, 0), faces(240, 1)
    board = 60 * (np.indices((12, 12)).sum(axis=0) // 2 % 2)[None, :, :, None]
    real[:, 16:28, 8:20] = np.clip(real[:, 16:28, 8:20].astype(int) + board - 30, 0, 255)
    train_critic(real[None], generated[None], np.arange(240), TINY, Run(tmp_path, "a", silent))
    critic = load_critic(tmp_path)
    assert critic.held_out == 240
    assert critic.auc > 0.9
    found = occlusion_map(critic, real[:16])
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 12 <= row * 2 <= 28  # patches of 5 pixels, 2 apart
    assert 4 <= column * 2 <= 20
    assert occlusion_chart(critic, real[:4], generated[:4], "critic")[:2] == b"\xff\xd8"


def test_real_and_generated_go_through_the_same_jpeg():
    images = textured(3, 4)
    once = same_way(images, 16, 12)
    assert once.dtype == np.uint8
    assert 0 < np.abs(once.astype(int) - images).mean() < 5
    # A real picture that was a JPEG before is treated like a new sample.
    assert np.abs(same_way(once, 16, 12).astype(int) - once).mean() < 1


def test_guide_and_judge_share_no_picture_twins_stay_together_and_the_generator_saw_none():
    bucket = np.array([0, 1, 2, 3, 3, 18, 19, 20, 99])
    guide, judge = (pictures_of_role(bucket, role) for role in ("guide", "judge"))
    assert bucket[guide].tolist() == [0, 2, 18]
    assert bucket[judge].tolist() == [1, 3, 3, 19]


def test_a_killed_training_ends_as_an_unbroken_one(trained, tmp_path):
    real, generated, _, result = trained

    def killed(step, figures):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_critic(real[None], generated[None], BUCKETS, TINY, Run(tmp_path, "a", killed))
    resumed = train_critic(real[None], generated[None], BUCKETS, TINY, Run(tmp_path, "a", silent))
    np.testing.assert_array_equal(resumed.real_logits, result.real_logits)
