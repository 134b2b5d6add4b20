"""A training of the generator improves its bound, ends with a model on disk, and resumes after an
interruption."""

import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.generator import generator_sheet, swept
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.filmstrip import Filmstrip
from gaip3_pipeline.models.nvae.bound import bits_per_dim
from gaip3_pipeline.models.nvae.model import load_nvae, warm_start
from gaip3_pipeline.models.nvae.objective import NvaeTraining
from gaip3_pipeline.settings import Nvae
from gaip3_pipeline.training.generator import (
    ENOUGH,
    RAREST,
    augmented,
    mirrored_at_random,
    optimizer,
    rarity,
    supported_range,
    train_nvae,
)
from gaip3_pipeline.training.run import Examples, Run

SMALL = Nvae(
    height=7,
    width=6,
    channels=(16, 16, 16),
    latents=(4, 2, 0),
    cells=(1, 1, 1),
    kl_weights=(1.0, 2.0, 1.0),
    condition_width=8,
    mixtures=1,
    epochs=5,
    batch_size=8,
    learning_rate=5e-3,
)


class Interruption(Exception):
    pass


def silent(epoch, figures):
    pass


@pytest.fixture(scope="module")
def coloured():
    """Uniform pictures whose colour is given by three of the values."""
    conditions = np.random.default_rng(0).random((48, 5)).astype(np.float32)
    images = np.broadcast_to((conditions[:, None, None, :3] * 255), (48, 14, 12, 3)).astype(
        np.uint8
    )
    return images, conditions, np.array(["test", "validation", *["train"] * 4])[np.arange(48) % 6]


@pytest.fixture(scope="module")
def trained(coloured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvae")
    return folder, train_nvae(Examples(*coloured), SMALL, Run(folder, "one", silent))


def test_training_lowers_the_held_out_bound(trained):
    _, result = trained
    held_out = [epoch["val_bits_per_dim"] for epoch in result.history]
    assert len(held_out) == SMALL.epochs
    assert np.isfinite(held_out).all()
    assert held_out[-1] < held_out[0] - 0.1
    assert result.figures["n_held_out"] == 8
    assert result.figures["bits_per_dim"] == pytest.approx(held_out[-1], abs=1.0)  # other pictures


def test_bfloat16_reaches_the_same_bound_with_weights_and_losses_of_float32(
    trained, coloured, tmp_path
):
    half = dataclasses.replace(SMALL, precision="bfloat16")
    training = NvaeTraining(half, 10)
    assert {w.dtype for w in training.weights if "float" in w.dtype} == {"float32"}
    assert training.nvae.cells[0][0].first.compute_dtype == "bfloat16"
    told = training.nvae(
        {"image": coloured[0][:2, ::2, ::2][:, :7, :6], "condition": coloured[1][:2]}
    )
    assert {
        keras.backend.standardize_dtype(t.dtype) for t in (told["log_likelihood"], *told["kl"])
    } == {"float32"}
    assert NvaeTraining(SMALL, 10).precision == "float32"  # "auto" on a CPU

    _, whole = trained
    result = train_nvae(Examples(*coloured), half, Run(tmp_path, "one", silent))
    assert result.precision == "bfloat16"
    assert result.figures["bits_per_dim"] == pytest.approx(whole.figures["bits_per_dim"], abs=0.02)
    # what is kept computes in float32
    assert result.model.cells[0][0].first.compute_dtype == "float32"


def test_the_saved_model_is_the_average_and_the_best_and_the_last_are_kept(trained, coloured):
    folder, result = trained
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints",
        "model.json",
        "model.weights.h5",
    ]
    assert result.epoch == SMALL.epochs
    counted = [epoch["val_loss"] for epoch in result.history[2:]]
    assert result.best_epoch == 3 + int(np.argmin(counted))
    images, conditions, split = coloured
    part = split == "validation"
    best = bits_per_dim(
        load_nvae(folder / "checkpoints" / "best"),
        shrink(images[part], 7, 6),
        conditions[part],
        samples=50,
    )
    assert best.bits_per_dim == pytest.approx(
        result.history[result.best_epoch - 1]["val_bits_per_dim"], abs=0.2
    )
    loaded, noise = load_nvae(folder), result.model.sample_noise(3, seed=1)
    drawn = [ops.convert_to_numpy(m.decode(noise, coloured[1][:3])) for m in (loaded, result.model)]
    np.testing.assert_array_equal(*drawn)


def test_an_interrupted_training_ends_as_an_unbroken_one_and_continues_its_filmstrip(
    trained, coloured, tmp_path
):
    def strip():
        return Filmstrip(tmp_path / "strip.npz", "one")

    def interrupted(epoch, figures):
        if epoch == 2:
            raise Interruption

    with pytest.raises(Interruption):
        train_nvae(Examples(*coloured), SMALL, Run(tmp_path, "one", interrupted), show=strip().add)
    epochs, before = [], np.load(tmp_path / "strip.npz")["faces"]
    resumed = train_nvae(
        Examples(*coloured),
        SMALL,
        Run(tmp_path, "one", lambda epoch, figures: epochs.append(epoch)),
        show=strip().add,
    )
    assert epochs == [3, 4, 5]
    with np.load(tmp_path / "strip.npz") as kept:
        assert kept["epochs"].tolist() == [1, 2, 3, 4, 5]
        assert kept["faces"].shape == (5, 4 * 7, 6, 3)
        np.testing.assert_array_equal(kept["faces"][:2], before)
        assert (kept["faces"][-1] != kept["faces"][0]).any()
    # Nothing was shown in the unbroken training: what is shown has no effect on the weights.
    # Sums over threads may differ in the last bit from run to run.
    for ours, theirs in zip(resumed.history, trained[1].history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for a, b in zip(resumed.model.weights, trained[1].model.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-3)


def test_a_finished_training_is_resumed_with_more_epochs_and_other_data(
    trained, coloured, tmp_path
):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    images, conditions, split = coloured
    longer, epochs = dataclasses.replace(SMALL, epochs=9), []
    result = train_nvae(
        Examples(images[:-6], conditions[:-6], split[:-6]),
        longer,
        Run(tmp_path, "two", lambda epoch, figures: epochs.append(epoch)),
        resume=True,
    )
    assert epochs == list(range(1, 10))
    assert result.history[:5] == trained[1].history
    assert result.history[-1]["bits_per_dim"] < trained[1].history[-1]["bits_per_dim"]


def test_a_warm_start_improves_on_the_last_weights_in_a_third_of_the_epochs(
    trained, coloured, tmp_path
):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    logged = []
    last = warm_start(tmp_path, SMALL)
    result = train_nvae(
        Examples(*coloured),
        SMALL,
        Run(tmp_path, "two", lambda epoch, figures: logged.append(figures)),
        start_from=last,
    )
    assert len(logged) == len(result.history) == 2
    assert logged[0]["bits_per_dim"] < trained[1].history[-1]["bits_per_dim"]
    assert result.best_epoch in (1, 2)


def test_a_killed_warm_start_resumes_as_a_warm_start(trained, coloured, tmp_path):
    def interrupted(epoch, figures):
        raise Interruption

    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(Interruption):
        train_nvae(
            Examples(*coloured),
            SMALL,
            Run(tmp_path, "two", interrupted),
            start_from=warm_start(tmp_path, SMALL),
        )
    epochs = []
    train_nvae(
        Examples(*coloured),
        SMALL,
        Run(tmp_path, "two", lambda epoch, figures: epochs.append(epoch)),
        start_from=warm_start(tmp_path, SMALL),
    )
    assert epochs == [2]


def test_a_warm_start_begins_with_the_last_weights_past_the_warm_up(trained, tmp_path):
    training = NvaeTraining(SMALL, 30, ranges=[[0.2] * 5, [0.8] * 5])
    training.start_from(trained[1].model, 20)
    assert float(training.step) == 20.0
    for network in (training.nvae, training.ema):
        np.testing.assert_allclose(
            ops.convert_to_numpy(network.condition_embedding.range), [[0.2] * 5, [0.8] * 5]
        )
        for ours, theirs in zip(network.weights, trained[1].model.weights, strict=True):
            if ours is not network.condition_embedding.range:
                np.testing.assert_array_equal(*map(ops.convert_to_numpy, (ours, theirs)))


def test_there_is_no_warm_start_from_another_architecture(trained, tmp_path):
    assert warm_start(trained[0], SMALL) is not None
    assert (
        warm_start(
            trained[0],
            dataclasses.replace(SMALL, epochs=9, learning_rate=1e-3, kl_weights=(1.0, 1.0, 1.0)),
        )
        is not None
    )
    assert warm_start(trained[0], dataclasses.replace(SMALL, channels=(16, 16, 8))) is None
    assert warm_start(tmp_path, SMALL) is None
    (tmp_path / "model.json").write_text('{"a_setting_of_old": 1}', encoding="utf-8")
    assert warm_start(tmp_path, SMALL) is None


TRAIN_UNDER = """
import sys
import keras, numpy as np
from pathlib import Path
from gaip3_pipeline.training.generator import train_nvae
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline_tests.training.test_generator import SMALL
folder, backend, until = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
assert keras.backend.backend() == backend
given = np.load(folder / "given.npz")

def log(epoch, figures):
    print(epoch, figures["bits_per_dim"], flush=True)
    if epoch == until:
        sys.exit()

examples = Examples(given["images"], given["conditions"], given["split"])
train_nvae(examples, SMALL, Run(folder / "nvae", "one", log))
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs the extra jax")
def test_a_checkpoint_of_one_backend_is_continued_under_another(trained, coloured, tmp_path):
    np.savez(
        tmp_path / "given.npz",
        **dict(zip(("images", "conditions", "split"), coloured, strict=True)),
    )
    bits = []
    for backend, until in (("jax", 2), ("tensorflow", 4), ("jax", 0)):
        command = [sys.executable, "-c", TRAIN_UNDER, str(tmp_path), backend, str(until)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": backend}
        )
        assert done.returncode == 0, done.stderr
        bits += [line.split() for line in done.stdout.splitlines()]
    assert [int(epoch) for epoch, _ in bits] == [1, 2, 3, 4, 5]
    # The backends draw different noise, so the curves agree only as well as those of two seeds.
    for (_, ours), epoch in zip(bits, trained[1].history, strict=True):
        assert float(ours) == pytest.approx(epoch["bits_per_dim"], abs=0.3)
    loaded = load_nvae(tmp_path / "nvae")
    assert np.isfinite(
        ops.convert_to_numpy(loaded.decode(loaded.sample_noise(3, seed=1), coloured[1][:3]))
    ).all()


TRAIN_ALONE = """
import os, signal, sys
from pathlib import Path
import numpy as np
import gaip3_pipeline
import tensorflow as tf
# else the order of sums, and with it the last bit, is the scheduler's
tf.config.threading.set_intra_op_parallelism_threads(1)
from gaip3_pipeline.training.generator import train_nvae
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline_tests.training.test_generator import SMALL
given = np.load(Path(sys.argv[1]) / "given.npz")
examples = Examples(given["images"], given["conditions"], given["split"])

def log(epoch, figures):
    if epoch == killed_in:
        os.kill(os.getpid(), signal.SIGKILL)

for folder, killed_in in zip(sys.argv[2::2], map(int, sys.argv[3::2])):
    train_nvae(examples, SMALL, Run(Path(folder), "one", log))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sets TensorFlow's threads")
def test_a_training_killed_by_force_ends_with_the_bits_of_an_unbroken_one(coloured, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    np.savez(
        tmp_path / "given.npz",
        **dict(zip(("images", "conditions", "split"), coloured, strict=True)),
    )

    def train(*words):
        command = [sys.executable, "-c", TRAIN_ALONE, str(tmp_path), *map(str, words)]
        return subprocess.run(command).returncode

    # The one that is killed is the second training of its process, and the first of the next one.
    assert train(unbroken, 0, killed, 3) == -signal.SIGKILL
    assert train(killed, 0) == 0
    weights = [[ops.convert_to_numpy(w) for w in load_nvae(f).weights] for f in (unbroken, killed)]
    for unbroken, killed in zip(*weights, strict=True):
        np.testing.assert_array_equal(unbroken, killed)


def test_a_batch_with_nan_is_skipped_and_counted(coloured, tmp_path):
    images, conditions, split = coloured
    broken = conditions.copy()
    broken[np.flatnonzero(split == "train")[0]] = np.nan  # one batch of four an epoch
    result = train_nvae(Examples(images, broken, split), SMALL, Run(tmp_path, "x", silent))
    assert [epoch["skipped_updates"] for epoch in result.history] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(ops.convert_to_numpy(w)).all() for w in result.model.weights)
    assert np.isfinite([epoch["bits_per_dim"] for epoch in result.history]).all()
    assert result.history[-1]["bits_per_dim"] < result.history[0]["bits_per_dim"]


def eye(channel, weight):
    """A frozen regressor: the mean of one colour, times ``weight``."""
    pictures = keras.Input((5, 4, 3))  # not the generator's size
    look = keras.layers.Dense(1, use_bias=False)
    seen = look(keras.layers.GlobalAveragePooling2D()(pictures))
    look.set_weights([np.eye(3, dtype=np.float32)[:, channel : channel + 1] * weight])
    return keras.Model(pictures, seen)


def test_with_guides_samples_have_the_values_that_were_asked_for(coloured, trained, tmp_path):
    images, conditions, split = coloured
    told = conditions.copy()
    # conditions of other pictures, so that only the guides can teach the sliders
    told[:, :3] = np.random.default_rng(4).permuted(conditions[:, :3], axis=0)
    guides = [eye(i, 1.0) for i in range(3)] + [eye(0, 0.0)] * 2
    settings = dataclasses.replace(
        SMALL, control=50.0, epochs=40, learning_rate=2e-2, clip_norm=10.0
    )
    result = train_nvae(
        Examples(images, told, split), settings, Run(tmp_path, "x", silent), guides=guides
    )
    asked = np.random.default_rng(1).random((64, 5)).astype(np.float32)
    drawn = ops.convert_to_numpy(result.model.decode(result.model.sample_noise(64, 0), asked))
    # 1/12 if sliders have no effect
    assert np.square(drawn.mean(axis=(1, 2)) - asked[:, :3]).mean() < 0.04
    assert "val_control_mse" in result.history[-1]
    # not computed before it is in force
    assert ["control_mse" in figures for figures in result.history] == [False] * 20 + [True] * 20
    assert "val_control_mse" not in trained[1].history[-1]  # without guides


def test_values_that_the_guides_cannot_predict_take_no_part_in_control(coloured):
    images, conditions, _ = coloured
    batch = {"image": shrink(images[:8], 7, 6), "condition": conditions[:8]}
    errors = []
    for known in ([True] * 5, [True, True, True, False, False], [False] * 5):
        training = NvaeTraining(
            dataclasses.replace(SMALL, control=1.0),
            10,
            [eye(i, 1.0) for i in range(3)] + [eye(0, 9.0)] * 2,
            known=known,
        )
        training.compile(optimizer=optimizer(SMALL, 10, 10), jit_compile=False)
        errors.append(training.test_on_batch(batch, return_dict=True).get("control_mse"))
    assert errors[0] > errors[1] > 0  # the last two guides predict values nine times too large
    assert errors[2] is None


def test_the_range_of_a_value_is_where_enough_pictures_are():
    values = np.linspace(0, 1, 5001, dtype=np.float32)[:, None].repeat(2, axis=1)
    # only thirty pictures show the low end
    values[:, 1] = np.where(np.arange(5001) < 30, 0.1, 0.9)
    low, high = supported_range(values)
    assert (values[:, 0] <= low[0]).sum() == ENOUGH
    assert (values[:, 0] >= high[0]).sum() == ENOUGH
    assert low[1] == high[1] == pytest.approx(0.9)
    few = np.linspace(0, 1, 100)[:, None]
    assert supported_range(few)[0] == pytest.approx(0.02, abs=0.011)


def test_pictures_of_rare_values_are_drawn_more_often_up_to_a_limit():
    values = np.full((500, 5), 0.55)
    values[:4, 0] = 0.05  # closed eyes
    often = rarity(values)
    assert (often[:4] == RAREST).all()
    assert (often[4:] == 1).all()


def test_pictures_are_shifted_by_at_most_the_given_distance():
    images = np.zeros((60, 7, 7, 3), np.uint8)
    images[:, 3, 3] = 255
    conditions = np.full((60, 5), 0.5, np.float32)
    (batch,) = augmented(2, {"image": images, "condition": conditions}, np.random.default_rng(0))
    _, rows, columns = np.nonzero(batch["image"][..., 0])
    assert set(rows) == set(columns) == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(batch["condition"], conditions)
    (same,) = augmented(0, {"image": images, "condition": conditions}, np.random.default_rng(0))
    np.testing.assert_array_equal(same["image"], images)


def test_nothing_in_the_training_split_is_a_clear_error(coloured, tmp_path):
    images, conditions, _ = coloured
    with pytest.raises(ValueError, match="'train'"):
        train_nvae(
            Examples(images, conditions, np.full(48, "test")), SMALL, Run(tmp_path, "x", silent)
        )


def test_mirroring_turns_the_head_and_nothing_else():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3).repeat(20, axis=0)
    conditions = np.tile(np.array([0.1, 0.2, 0.3, 0.4, 0.8], np.float32), (40, 1))
    (batch,) = mirrored_at_random(
        {"image": images, "condition": conditions}, np.random.default_rng(0)
    )
    flipped = np.isclose(batch["condition"][:, ATTRIBUTES.index("head")], 0.2)
    assert 0 < flipped.sum() < 40
    np.testing.assert_array_equal(batch["image"][flipped], images[flipped][:, :, ::-1])
    np.testing.assert_array_equal(batch["image"][~flipped], images[~flipped])
    np.testing.assert_array_equal(batch["condition"][:, :4], conditions[:, :4])


def test_the_bound_of_more_posterior_samples_is_not_looser(trained, coloured):
    images, conditions, _ = coloured
    small = np.ascontiguousarray(images[:16, ::2, ::2])
    one, many = (bits_per_dim(trained[1].model, small, conditions[:16], samples=k) for k in (1, 20))
    assert many.importance_weighted <= many.bits_per_dim
    assert many.bits_per_dim == pytest.approx(one.bits_per_dim, abs=0.2)
    assert list(one.kl) == ["1x1", "2x2"]
    again = bits_per_dim(trained[1].model, small, conditions[:16], samples=1)
    # not to the bit: TensorFlow fuses the operations of a graph that it traces anew in another way
    # now and then
    assert again.bits_per_dim == pytest.approx(one.bits_per_dim, abs=1e-6)
    assert again.importance_weighted == pytest.approx(one.importance_weighted, abs=1e-6)
    assert again.kl == pytest.approx(one.kl, abs=1e-5)


def test_a_sweep_replaces_one_value_and_keeps_the_others():
    conditions = np.array([[0.1] * 5, [0.2] * 5], np.float32)
    rows = swept(conditions, 1, [0.0, 0.5, 1.0]).reshape(2, 3, 5)
    np.testing.assert_array_equal(rows[:, :, 1], [[0.0, 0.5, 1.0]] * 2)
    np.testing.assert_array_equal(np.delete(rows, 1, axis=2)[:, 2], conditions[:, 1:])
    assert (conditions[:, 1] == conditions[:, 0]).all()


def test_the_sheet_is_a_small_jpeg(trained, coloured):
    sheet = generator_sheet(trained[0], *coloured)
    assert sheet[:2] == b"\xff\xd8"
    assert len(sheet) <= 100_000


def test_all_images_may_be_for_training(coloured, tmp_path):
    images, conditions, _ = coloured
    once = dataclasses.replace(SMALL, epochs=1)
    result = train_nvae(
        Examples(images[:16], conditions[:16], np.full(16, "train")),
        once,
        Run(tmp_path, "x", silent),
    )
    assert result.held_out is None
    ends = {f"{end}_{a}" for end in ("from", "to") for a in ATTRIBUTES}
    assert {k: v for k, v in result.figures.items() if k not in ends} == {
        "n_train": 16,
        "epochs": 1,
        "epoch": 1,
        "best_epoch": 0,
    }
    assert ends <= set(result.figures)


def test_a_training_that_gets_worse_on_held_out_pictures_ends_with_its_best_weights(
    coloured, tmp_path
):
    images, conditions, split = (np.array(x) for x in coloured)
    dark, noise = split == "train", split == "validation"
    images[dark] //= 8
    images[noise] = np.random.default_rng(0).integers(0, 256, images[noise].shape)
    settings = dataclasses.replace(SMALL, epochs=60, patience=3, learning_rate=2e-2)
    shown = []
    result = train_nvae(
        Examples(images, conditions, split),
        settings,
        Run(tmp_path, "x", silent),
        show=lambda *given: shown.append(given),
    )
    held_out = [epoch["val_bits_per_dim"] for epoch in result.history]
    assert 36 <= result.epoch == len(held_out) - 3 < 57  # not before control would be in force
    assert result.epoch - 1 == 35 + int(np.argmin(held_out[35:]))
    again = bits_per_dim(
        load_nvae(tmp_path), shrink(images[noise], 7, 6), conditions[noise], samples=50
    ).bits_per_dim
    assert abs(again - held_out[result.epoch - 1]) < abs(again - held_out[-1])
    assert [epoch for epoch, _ in shown] == list(range(3, len(held_out) + 1, 3))
    assert shown[0][1].shape == (16, 7, 6, 3)
    assert np.abs(shown[0][1].astype(int) - shown[-1][1]).max() > 0
