"""The classifier of sex never scores a picture by a model that was trained on it, and resumes after
a kill."""

import dataclasses
import pickle

import numpy as np
import pytest

from gaip3_pipeline.features.extractor import extract, learn_extractor
from gaip3_pipeline.features.groups import trunk_groups
from gaip3_pipeline.settings import GenderModel
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.training import gender
from gaip3_pipeline.training.gender import (
    NO_FOLD,
    LabelledFaces,
    combine,
    folds_of,
    load_gender_models,
    probabilities_of,
    score_gender,
    train_gender,
)
from gaip3_pipeline.training.run import Run, one_after_another

TINY = GenderModel(
    height=16,
    width=12,
    folds=2,
    epochs=6,
    batch_size=8,
    learning_rate=3e-3,
    width_multiplier=0.25,
    dropout=0.0,
)


def silent(step, figures):
    pass


def pictures(n=48, seed=0):
    """Noise, brighter at the top for "women": a difference that a network learns in seconds."""
    rng = np.random.default_rng(seed)
    is_female = np.arange(n) % 2 == 0
    images = rng.integers(60, 120, (n, 32, 24, 3))
    images[is_female, :16] += 100
    return images.astype(np.uint8), is_female, rng.integers(0, 100, n)


@pytest.fixture(scope="module")
def extractor():
    return learn_extractor(pictures()[0])[0]


@pytest.fixture(scope="module")
def train(extractor):
    def run(images, is_female, bucket, folder, log=silent, trainings=one_after_another):
        features = extract(extractor, [images], with_parts=False)
        return train_gender(
            LabelledFaces(images, is_female, bucket, features, trunk_groups()),
            TINY,
            Run(folder, "a", log),
            trainings,
        )

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, train):
    folder = tmp_path_factory.mktemp("gender")
    images, is_female, bucket = pictures()
    return images, is_female, bucket, folder, train(images, is_female, bucket, folder)


def test_an_easy_difference_is_recognised_on_pictures_not_used_in_training(trained):
    _, is_female, _, _, result = trained
    assert ((result.probabilities[:, gender.FEMALE] > 0.5) == is_female).mean() > 0.9
    assert len(result.history) == TINY.epochs
    assert {"fold0_loss", "fold1_accuracy"} <= set(result.history[-1])


def test_each_out_of_fold_score_is_that_of_the_models_of_its_own_fold(trained, extractor):
    images, _, bucket, folder, result = trained
    logits, features = score_gender(
        load_gender_models(folder), extractor, [images[:20], images[20:]]
    )
    assert logits.shape == (len(images), 2, 2)
    np.testing.assert_array_equal(
        features, extract(extractor, [images[:20], images[20:]], with_parts=False)
    )
    np.testing.assert_allclose(
        combine(logits, folds_of(bucket, 2)), result.logits, atol=0.02
    )  # features of other batches differ in the last bit of float16


def test_a_model_does_not_depend_on_the_pictures_of_its_own_fold(trained, train, tmp_path):
    images, is_female, bucket, _, result = trained
    fold = folds_of(bucket, 2)
    changed = images.copy()
    victim = int(np.flatnonzero(fold == 0)[0])
    changed[victim] = 255 - changed[victim]
    again = train(changed, is_female, bucket, tmp_path)
    others = (fold == 0) & (np.arange(len(images)) != victim)
    np.testing.assert_allclose(again.logits[others], result.logits[others], atol=0.02)
    assert not np.allclose(again.logits[fold == 1], result.logits[fold == 1], atol=0.02)


def test_folds_trained_elsewhere_equal_those_trained_here(trained, train, tmp_path):
    images, is_female, bucket, folder, result = trained

    def elsewhere(work, runs):
        for number, run in reversed(list(enumerate(runs))):
            sent = pickle.dumps((work, number, dataclasses.replace(run, log=silent)))
            there, *given = pickle.loads(sent)
            results[number] = pickle.dumps(there(*given))
        yield from (pickle.loads(results[number]) for number in sorted(results))

    results = {}
    again = train(images, is_female, bucket, tmp_path, trainings=elsewhere)
    np.testing.assert_array_equal(again.logits, result.logits)
    assert again.history == result.history
    assert weights_version(tmp_path) == weights_version(folder)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f.name for f in folder.iterdir())


def test_a_training_killed_in_the_second_fold_ends_as_an_unbroken_one(trained, train, tmp_path):
    images, is_female, bucket, _, result = trained

    def killed(step, figures):
        if "fold1_loss" in figures and step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(images, is_female, bucket, tmp_path, killed)
    trained_again = []
    resumed = train(
        images, is_female, bucket, tmp_path, lambda step, figures: trained_again.extend(figures)
    )
    assert not any(name.startswith("fold0") for name in trained_again)
    np.testing.assert_allclose(resumed.logits, result.logits, atol=1e-4)
    assert not (tmp_path / "checkpoints").exists()


def test_a_leave_one_out_prediction_does_not_depend_on_the_pictures_own_label():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (2, 60, 8)).astype(np.float16)
    features[1] = features[0]
    labels = (features[0, :, 0] + rng.normal(0, 0.5, 60) > 0).astype(int)
    scaled = gender.fit_platt(features, np.array([0, 4, 8]), labels)
    flipped = dataclasses.replace(
        scaled.process,
        values=np.where(np.arange(60) == 7, 1.0 - scaled.process.values, scaled.process.values),
    )
    moved = np.abs(flipped.left_out()[7] - scaled.process.left_out()[7])
    assert moved < 0.05  # the mean of the labels moves a little
    assert (
        np.abs(flipped.posterior(features)[0][7] - scaled.process.posterior(features)[0][7])
        > 3 * moved
    )
    assert scaled.slope > 0
    assert scaled.logits(features).std() > 0.5


def test_pictures_without_a_fold_have_the_mean_of_all_logits():
    logits = np.array([[[0.0, 8.0], [0.0, 12.0]], [[0.0, 8.0], [0.0, 12.0]]], np.float32)
    np.testing.assert_array_equal(
        combine(logits, np.array([NO_FOLD, 1])), [[0.0, 10.0], [0.0, 12.0]]
    )


def test_probabilities_of_extreme_logits_are_finite_and_sum_to_one():
    probabilities = probabilities_of(np.array([[0.0, 9.3], [500.0, -500.0]], np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    assert probabilities[0, gender.FEMALE] > 0.9999
    assert probabilities[1, gender.FEMALE] == 0.0


def test_a_fold_without_pictures_is_refused_with_the_reason(train, tmp_path):
    images, is_female, _ = pictures(8)
    with pytest.raises(ValueError, match="do not fill 2 folds"):
        train(images, is_female, np.zeros(8, int), tmp_path)
    with pytest.raises(FileNotFoundError):
        load_gender_models(tmp_path)
