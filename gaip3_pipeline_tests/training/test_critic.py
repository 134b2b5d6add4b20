"""A critic finds a real difference, not one of codecs, and guide and judge share no picture."""

import cv2
import numpy as np
import pytest

from gaip3_pipeline.evaluation.critic import critic_figures, occlusion_chart, occlusion_map
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.training.critic import as_jpegs, critic_logits, load_critic, same_way, share_of_role, train_critic

TINY = Critic(epochs=8, batch_size=16, learning_rate=5e-3, width_multiplier=0.25, dropout=0.0, shift=1, jitter=0.0, noise=0.01)


def silent(step, figures):
    pass


def textured(n, seed, size=(16, 12)):
    """Smooth blobs with a checkerboard over them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 180, (n, size[0] // 4, size[1] // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    board = 40 * (np.indices(size).sum(axis=0) // 2 % 2)[None, :, :, None]
    return (coarse + board).astype(np.uint8)


def flat(n, seed, size=(16, 12)):
    rng = np.random.default_rng(seed)
    return (rng.integers(60, 180, (n, size[0] // 4, size[1] // 4, 3)).repeat(4, axis=1).repeat(4, axis=2) + 20).astype(np.uint8)


def splits(n):
    return np.array(["test", "validation", "train", "train"])[np.arange(n) % 4]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("critic")
    real, generated = textured(96, 0), flat(96, 1)
    return real, generated, folder, train_critic(real, generated, splits(96), TINY, folder, "a", silent)


def test_an_obvious_difference_is_found_on_held_out_pictures(trained):
    figures = critic_figures(trained[3])
    assert figures["n"] == 48
    assert figures["auc"] > 0.95
    assert figures["mean_logit_real"] > figures["mean_logit_generated"]
    assert figures["accuracy_low"] < figures["accuracy"] <= figures["accuracy_high"]


def test_saved_and_loaded_it_gives_equal_logits_whatever_the_size_of_the_pictures(trained):
    real, _, folder, result = trained
    critic = load_critic(folder)
    np.testing.assert_allclose(critic_logits(critic, real), result.real_logits, atol=1e-4)
    assert critic_logits(critic, real.repeat(2, axis=1).repeat(2, axis=2)) == pytest.approx(result.real_logits, abs=0.5)


def test_pictures_of_one_kind_are_not_told_apart(tmp_path):
    figures = critic_figures(train_critic(textured(96, 2), textured(96, 3), splits(96), TINY, tmp_path, "a", silent))
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


@pytest.mark.parametrize("cue", [framed, lambda images: as_jpegs(images, [60] * len(images))], ids=["frame", "jpeg quality"])
def test_a_planted_cue_is_not_what_is_learned(tmp_path, cue):
    planted = Critic(epochs=6, batch_size=16, width_multiplier=0.5)
    result = train_critic(faces(240, 0), cue(faces(240, 1)), splits(240), planted, tmp_path, "a", silent)
    assert 0.35 < critic_figures(result)["auc"] < 0.65


def test_what_a_critic_looks_at_is_where_the_difference_is(tmp_path):
    real, generated = faces(240, 0), faces(240, 1)
    board = 60 * (np.indices((12, 12)).sum(axis=0) // 2 % 2)[None, :, :, None]
    real[:, 16:28, 8:20] = np.clip(real[:, 16:28, 8:20].astype(int) + board - 30, 0, 255)
    train_critic(real, generated, splits(240), TINY, tmp_path, "a", silent)
    critic = load_critic(tmp_path)
    assert critic.held_out == 120
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
    # A real picture that has been a JPEG before is treated as a fresh sample is.
    assert np.abs(same_way(once, 16, 12).astype(int) - once).mean() < 1


def test_guide_and_judge_share_no_real_picture_and_twins_stay_together():
    bucket = np.array([0, 1, 2, 3, 3, 98, 99])
    guide, judge = share_of_role(bucket, "guide"), share_of_role(bucket, "judge")
    assert set(guide).isdisjoint(judge)
    assert len(guide) + len(judge) == len(bucket)
    assert set(bucket[guide]).isdisjoint(bucket[judge])


def test_a_killed_training_ends_as_an_unbroken_one(trained, tmp_path):
    real, generated, _, result = trained

    def killed(step, figures):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_critic(real, generated, splits(96), TINY, tmp_path, "a", killed)
    resumed = train_critic(real, generated, splits(96), TINY, tmp_path, "a", silent)
    np.testing.assert_array_equal(resumed.real_logits, result.real_logits)


def test_unpaired_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="8 real and 4 generated"):
        train_critic(textured(8, 0), flat(4, 0), splits(8), TINY, tmp_path, "a", silent)
