"""The classifier of sex never scores a picture by a model that saw it, and survives being killed."""

import numpy as np
import pytest

from gaip3_pipeline.settings import GenderModel
from gaip3_pipeline.training import gender
from gaip3_pipeline.training.gender import NO_FOLD, combine, folds_of, load_gender_models, score_gender, softmax, train_gender

TINY = GenderModel(height=16, width=12, folds=2, epochs=6, batch_size=8, learning_rate=3e-3, width_multiplier=0.25, dropout=0.0)


def silent(step, figures):
    pass


def pictures(n=48, seed=0):
    """Noise, brighter at the top for "women": something a network learns in seconds."""
    rng = np.random.default_rng(seed)
    is_female = np.arange(n) % 2 == 0
    images = rng.integers(60, 120, (n, 32, 24, 3))
    images[is_female, :16] += 100
    return images.astype(np.uint8), is_female, rng.integers(0, 100, n)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gender")
    images, is_female, bucket = pictures()
    return images, is_female, bucket, folder, train_gender(images, is_female, bucket, TINY, folder, "a", silent)


def test_an_easy_difference_is_learnt_on_pictures_that_were_not_seen(trained):
    _, is_female, _, _, result = trained
    assert ((result.probabilities[:, gender.FEMALE] > 0.5) == is_female).mean() > 0.9
    assert len(result.history) == TINY.epochs
    assert {"fold0_loss", "fold1_accuracy"} <= set(result.history[-1])


def test_each_out_of_fold_score_is_that_of_the_model_of_its_own_fold(trained):
    images, _, bucket, folder, result = trained
    logits = score_gender(load_gender_models(folder), [images[:20], images[20:]])
    assert logits.shape == (len(images), 2, 2)
    np.testing.assert_allclose(combine(logits, folds_of(bucket, 2)), result.logits, atol=1e-5)


def test_a_model_does_not_depend_on_the_pictures_of_its_own_fold(trained, tmp_path):
    images, is_female, bucket, _, result = trained
    fold = folds_of(bucket, 2)
    changed = images.copy()
    victim = int(np.flatnonzero(fold == 0)[0])
    changed[victim] = 255 - changed[victim]
    again = train_gender(changed, is_female, bucket, TINY, tmp_path, "a", silent)
    others = (fold == 0) & (np.arange(len(images)) != victim)
    np.testing.assert_array_equal(again.logits[others], result.logits[others])
    assert not np.allclose(again.logits[fold == 1], result.logits[fold == 1])


def test_a_training_killed_in_the_second_fold_ends_as_an_unbroken_one(trained, tmp_path):
    images, is_female, bucket, _, result = trained

    def killed(step, figures):
        if "fold1_loss" in figures and step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gender(images, is_female, bucket, TINY, tmp_path, "a", killed)
    trained_again = []
    resumed = train_gender(images, is_female, bucket, TINY, tmp_path, "a", lambda step, figures: trained_again.extend(figures))
    assert not any(name.startswith("fold0") for name in trained_again)
    np.testing.assert_array_equal(resumed.logits, result.logits)
    assert not (tmp_path / "checkpoints").exists()


def test_pictures_without_a_fold_have_the_mean_of_all_logits():
    logits = np.array([[[0.0, 8.0], [0.0, 12.0]], [[0.0, 8.0], [0.0, 12.0]]], np.float32)
    np.testing.assert_array_equal(combine(logits, np.array([NO_FOLD, 1])), [[0.0, 10.0], [0.0, 12.0]])


def test_probabilities_of_extreme_logits_are_finite_and_sum_to_one():
    probabilities = softmax(np.array([[0.0, 9.3], [500.0, -500.0]], np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    assert probabilities[0, gender.FEMALE] > 0.9999
    assert probabilities[1, gender.FEMALE] == 0.0


def test_a_fold_without_pictures_is_refused_with_the_reason(tmp_path):
    images, is_female, _ = pictures(8)
    with pytest.raises(ValueError, match="do not fill 2 folds"):
        train_gender(images, is_female, np.zeros(8, int), TINY, tmp_path, "a", silent)
    with pytest.raises(FileNotFoundError):
        load_gender_models(tmp_path)
