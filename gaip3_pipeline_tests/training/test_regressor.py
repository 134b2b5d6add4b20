"""The convolutional regressors learn simple values, do not use held-out pictures, and are equal
after saving and loading."""

import dataclasses

import numpy as np
import pytest

from gaip3_pipeline.metrics.regression import regression_figures
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.values import as_values
from gaip3_pipeline.training.regressor import load_regressor, predict_values, train_regressor
from gaip3_pipeline.training.run import Examples, Run

TINY = Network(
    height=16,
    width=12,
    epochs=12,
    batch_size=8,
    learning_rate=4e-3,
    width_multiplier=0.25,
    dropout=0.0,
    shift=1,
    jitter=0.0,
)


def silent(step, figures):
    pass


def bright_pictures(n=64):
    rng = np.random.default_rng(1)
    values = rng.random(n).astype(np.float32)
    images = (40 + 170 * values)[:, None, None, None] + rng.normal(0, 15, (n, 32, 24, 3))
    split = np.where(
        np.arange(n) % 4 == 0, "test", np.where(np.arange(n) % 4 == 1, "validation", "train")
    )
    return np.clip(images, 0, 255).astype(np.uint8), values, split


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input")
    images, values, split = bright_pictures()
    return (
        images,
        values,
        split,
        folder,
        train_regressor(
            ["background"], Examples(images, values[:, None], split), TINY, Run(folder, "a", silent)
        ),
    )


def test_brightness_is_learned_and_predicted_on_held_out_pictures(trained):
    _, values, split, _, result = trained
    test = split == "test"
    assert regression_figures(result.predicted[test, 0], values[test])["r2"] > 0.8
    assert "val_mae" in result.history[-1]


def test_a_saved_and_loaded_regressor_gives_equal_values(trained):
    images, _, _, folder, result = trained
    regressor = load_regressor(folder)
    assert regressor.attributes == ("background",)
    np.testing.assert_allclose(
        predict_values(regressor, [images[:10], images[10:]]), result.predicted, atol=1.01e-4
    )


def test_held_out_pictures_do_not_change_the_weights(trained, tmp_path):
    images, values, split, _, result = trained
    changed, other = images.copy(), values.copy()
    changed[split == "test"] = 0
    other[split != "train"] = 0.5
    again = train_regressor(
        ["background"], Examples(changed, other[:, None], split), TINY, Run(tmp_path, "a", silent)
    )
    seen = split == "train"
    np.testing.assert_array_equal(again.predicted[seen], result.predicted[seen])


def test_a_killed_training_ends_as_an_unbroken_one(trained, tmp_path):
    images, values, split, _, result = trained

    def killed(step, figures):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_regressor(
            ["background"],
            Examples(images, values[:, None], split),
            TINY,
            Run(tmp_path, "a", killed),
        )
    steps = []
    resumed = train_regressor(
        ["background"],
        Examples(images, values[:, None], split),
        TINY,
        Run(tmp_path, "a", lambda step, figures: steps.append(step)),
    )
    assert steps[0] == 10
    np.testing.assert_array_equal(resumed.predicted, result.predicted)


def test_a_mirrored_head_is_turned_to_the_other_side(tmp_path):
    rng = np.random.default_rng(2)
    values = np.full(48, 0.1, np.float32)
    images = rng.integers(20, 60, (48, 16, 12, 3)).astype(np.uint8)
    images[:, :, :6] += 150  # all face left: the other side occurs only in mirrored pictures
    result = train_regressor(
        ["head"],
        Examples(images, values[:, None], np.full(48, "train")),
        TINY,
        Run(tmp_path, "a", silent),
    )
    mirrored = predict_values(load_regressor(tmp_path), [np.ascontiguousarray(images[:, :, ::-1])])
    assert result.predicted.mean() < 0.25
    assert mirrored.mean() > 0.75
    # both are averages over the picture and its mirror image
    np.testing.assert_allclose(mirrored, 1 - result.predicted, atol=1.01e-4)


def test_one_network_learns_several_values_and_turns_only_those_that_a_mirror_turns(tmp_path):
    images, background, split = bright_pictures()
    head = np.random.default_rng(3).random(len(images)).astype(np.float32)
    images[:, :, :12] = np.clip(
        images[:, :, :12] * (0.6 + 0.8 * head[:, None, None, None]), 0, 255
    ).astype(np.uint8)
    settings = dataclasses.replace(TINY, epochs=40)
    values = np.stack([background, head], axis=1)
    train_regressor(
        ["background", "head"],
        Examples(images, values, split),
        settings,
        Run(tmp_path, "a", silent),
    )
    regressor = load_regressor(tmp_path)
    seen = predict_values(regressor, [images])
    turned = predict_values(regressor, [np.ascontiguousarray(images[:, :, ::-1])])
    np.testing.assert_allclose(turned[:, 0], seen[:, 0], atol=1.01e-4)
    np.testing.assert_allclose(turned[:, 1], 1 - seen[:, 1], atol=1.01e-4)
    assert np.corrcoef(seen[split == "test", 0], background[split == "test"])[0, 1] > 0.7


def test_values_are_clipped_and_rounded():
    np.testing.assert_array_equal(
        as_values(np.array([-0.2, 1.3, 0.123456])), np.array([0.0, 1.0, 0.1235], np.float32)
    )


def test_nothing_to_train_on_is_an_error_that_names_the_value(tmp_path):
    images, values, _ = bright_pictures(4)
    with pytest.raises(ValueError, match="regressor of eyes: none of the 4"):
        train_regressor(
            ["eyes"],
            Examples(images, values[:, None], np.full(4, "test")),
            TINY,
            Run(tmp_path, "a", silent),
        )
