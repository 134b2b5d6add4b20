"""The models of the five values learn simple values, keep the held-out pictures apart and come back from disk as they were."""

import numpy as np
import pytest

from gaip3_pipeline.evaluation.regression import regression_figures
from gaip3_pipeline.settings import InputModel
from gaip3_pipeline.training.inputs import as_values, load_input_model, predict_values, train_input_model

TINY = InputModel(height=16, width=12, epochs=12, batch_size=8, learning_rate=4e-3, width_multiplier=0.25, dropout=0.0, shift=1, jitter=0.0)


def silent(step, figures):
    pass


def bright_pictures(n=64):
    rng = np.random.default_rng(1)
    values = rng.random(n).astype(np.float32)
    images = (40 + 170 * values)[:, None, None, None] + rng.normal(0, 15, (n, 32, 24, 3))
    split = np.where(np.arange(n) % 4 == 0, "test", np.where(np.arange(n) % 4 == 1, "validation", "train"))
    return np.clip(images, 0, 255).astype(np.uint8), values, split


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input")
    images, values, split = bright_pictures()
    return images, values, split, folder, train_input_model("background", images, values, split, TINY, folder, "a", silent)


def test_brightness_is_learnt_and_holds_on_pictures_kept_apart(trained):
    _, values, split, _, result = trained
    test = split == "test"
    assert regression_figures(result.predicted[test], values[test])["r2"] > 0.8
    assert "val_mae" in result.history[-1]


def test_saved_and_loaded_it_gives_equal_values(trained):
    images, _, _, folder, result = trained
    regressor = load_input_model(folder)
    assert regressor.attribute == "background"
    np.testing.assert_allclose(predict_values(regressor, [images[:10], images[10:]]), result.predicted, atol=1.01e-4)


def test_held_out_pictures_do_not_change_the_weights(trained, tmp_path):
    images, values, split, _, result = trained
    changed, other = images.copy(), values.copy()
    changed[split == "test"] = 0
    other[split != "train"] = 0.5
    again = train_input_model("background", changed, other, split, TINY, tmp_path, "a", silent)
    seen = split == "train"
    np.testing.assert_array_equal(again.predicted[seen], result.predicted[seen])


def test_a_killed_training_ends_as_an_unbroken_one(trained, tmp_path):
    images, values, split, _, result = trained

    def killed(step, figures):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_input_model("background", images, values, split, TINY, tmp_path, "a", killed)
    steps = []
    resumed = train_input_model("background", images, values, split, TINY, tmp_path, "a", lambda step, figures: steps.append(step))
    assert steps[0] == 10
    np.testing.assert_array_equal(resumed.predicted, result.predicted)


def test_a_mirrored_head_is_turned_to_the_other_side(tmp_path):
    rng = np.random.default_rng(2)
    values = np.full(48, 0.1, np.float32)
    images = rng.integers(20, 60, (48, 16, 12, 3)).astype(np.uint8)
    images[:, :, :6] += 150  # all look left: what the right looks like is known from flips only
    result = train_input_model("head", images, values, np.full(48, "train"), TINY, tmp_path, "a", silent)
    mirrored = predict_values(load_input_model(tmp_path), [np.ascontiguousarray(images[:, :, ::-1])])
    assert result.predicted.mean() < 0.25
    assert mirrored.mean() > 0.75
    np.testing.assert_allclose(mirrored, 1 - result.predicted, atol=1.01e-4)  # both see the picture and its mirror image


def test_values_are_clipped_and_rounded():
    np.testing.assert_array_equal(as_values(np.array([[-0.2], [1.3], [0.123456]])), np.array([0.0, 1.0, 0.1235], np.float32))


def test_nothing_to_train_on_is_an_error_that_names_the_value(tmp_path):
    images, values, _ = bright_pictures(4)
    with pytest.raises(ValueError, match="input model eyes: none of the 4"):
        train_input_model("eyes", images, values, np.full(4, "test"), TINY, tmp_path, "a", silent)
