"""An interrupted training ends like an uninterrupted one."""

import json

import keras
import numpy as np
import pytest

from gaip3_pipeline.layout import checkpoints
from gaip3_pipeline.models.backend import WorldError
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import DivergedError, KeepBest, OutOfMemoryError, fit
from gaip3_pipeline.training.optimizer import SpikeSkippingAdamax
from gaip3_pipeline.training.run import Run


class Killed(Exception):
    pass


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 6)).astype("float32")
    return {"x": x, "y": (x[:, :1] * 2 - x[:, 1:2]).astype("float32")}


def noisy(batch, generator):
    return batch["x"] + generator.normal(0, 0.01, batch["x"].shape).astype("float32"), batch["y"]


def make_model(loss="mse"):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, jit_compile=False)
    return model


def train(
    model, data, folder, epochs=5, fingerprint="a", log=lambda epoch, figures: None, resume=False
):
    batches = ArrayBatches(data, 16, seed=1, transform=noisy)
    return fit(model, batches, Run(folder, fingerprint, log), epochs=epochs, resume=resume)


def weights(model):
    return [np.asarray(w) for w in model.get_weights()]


def test_an_epoch_may_have_a_number_of_batches_of_its_own(data):
    batches = ArrayBatches(
        data, 16, seed=1, transform=lambda batch, generator: batch["x"], steps=11
    )
    assert len(batches) == 11
    seen = np.concatenate([batches[i] for i in range(11)])
    assert len(seen) == 176
    assert len(np.unique(seen, axis=0)) == 70  # all of them, before any a third time
    first = batches[10]
    batches.on_epoch_end()
    assert (batches[10] != first).any()
    batches.start_at(0)
    np.testing.assert_array_equal(batches[10], first)


def test_the_parts_of_a_batch_are_those_of_the_whole_batch(data):
    whole = ArrayBatches(data, 16, seed=1, transform=noisy)
    parts = [ArrayBatches(data, 16, seed=1, transform=noisy) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.split(rank, 2)
    for together, *halves in zip(whole[3], parts[0][3], parts[1][3], strict=True):
        assert [len(half) for half in halves] == [8, 8]
        np.testing.assert_array_equal(together, np.concatenate(halves))


def test_a_process_that_finds_itself_alone_in_a_group_of_two_is_refused(data, tmp_path):
    batches = ArrayBatches(data, 16, seed=1, transform=noisy)
    with pytest.raises(WorldError, match=r"2 processes were to train .* this one found 1"):
        fit(make_model(), batches, Run(tmp_path, "a", world=2), epochs=1)
    assert not checkpoints(tmp_path).exists()


def test_rows_of_larger_weights_come_more_often(data):
    weights = np.where(np.arange(70) < 10, 3.0, 1.0)
    batches = ArrayBatches(
        data, 70, seed=1, transform=lambda batch, generator: batch["x"], weights=weights
    )
    counts = np.zeros(70)
    for epoch in range(40):
        batches.start_at(epoch)
        rows = np.concatenate([batches[i] for i in range(len(batches))])
        assert len(rows) == 70
        counts += [(rows == x).all(axis=1).sum() for x in data["x"]]
    rare, usual = counts[:10].mean() / 40, counts[10:].mean() / 40
    assert rare == pytest.approx(3 * usual, rel=0.15)
    assert rare * 10 + usual * 60 == pytest.approx(70)


def test_a_training_killed_between_epochs_ends_with_the_weights_of_an_unbroken_one(data, tmp_path):
    unbroken = make_model()
    history = train(unbroken, data, tmp_path / "unbroken")

    def killed_in_epoch_3(epoch, figures):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(make_model(), data, tmp_path / "killed", log=killed_in_epoch_3)
    trained = []
    resumed = make_model()
    resumed_history = train(
        resumed, data, tmp_path / "killed", log=lambda epoch, figures: trained.append(epoch)
    )

    assert trained == [4, 5]
    assert len(resumed_history) == len(history) == 5
    for a, b in zip(weights(unbroken), weights(resumed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_another_training_is_not_used(data, tmp_path):
    train(make_model(), data, tmp_path, epochs=2)
    trained = []
    train(
        make_model(),
        data,
        tmp_path,
        epochs=2,
        fingerprint="other data",
        log=lambda epoch, figures: trained.append(epoch),
    )
    assert trained == [1, 2]


def test_a_training_of_other_settings_is_resumed_when_asked_for_and_logs_its_whole_history(
    data, tmp_path
):
    first = make_model()
    train(first, data, tmp_path, epochs=2)
    logged, second = [], make_model()
    history = train(
        second,
        data,
        tmp_path,
        epochs=4,
        fingerprint="longer",
        log=lambda *given: logged.append(given),
        resume=True,
    )
    assert [epoch for epoch, _ in logged] == [1, 2, 3, 4]
    assert [figures for _, figures in logged] == history
    unbroken = make_model()
    train(unbroken, data, tmp_path / "unbroken", epochs=4)
    for a, b in zip(weights(unbroken), weights(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    trained = []  # now it is the checkpoint of the longer training
    train(
        make_model(),
        data,
        tmp_path,
        epochs=5,
        fingerprint="longer",
        log=lambda epoch, figures: trained.append(epoch),
    )
    assert trained == [5]


def test_a_checkpoint_that_cannot_be_resumed_is_refused_with_the_reason(data, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="there is no checkpoint in"):
        train(make_model(), data, tmp_path, resume=True)
    train(make_model(), data, tmp_path, epochs=2)
    with pytest.raises(checkpoint.CheckpointError, match="is finished, at epoch 2: raise epochs"):
        train(make_model(), data, tmp_path, epochs=2, fingerprint="other data", resume=True)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    other.compile(optimizer="sgd", loss="mse", jit_compile=False)
    with pytest.raises(checkpoint.CheckpointError, match="of a network of another shape"):
        train(other, data, tmp_path, resume=True)
    (file,) = checkpoints(tmp_path).glob("epoch_*.npz")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(checkpoint.CheckpointError, match="cannot be read"):
        train(make_model(), data, tmp_path, resume=True)
    (checkpoints(tmp_path) / checkpoint.INDEX).write_text("[]")
    with pytest.raises(checkpoint.CheckpointError, match="not the index of a checkpoint"):
        train(make_model(), data, tmp_path, resume=True)


def test_a_training_ends_after_its_patience_and_the_best_epoch_is_kept_also_after_a_kill(
    data, tmp_path
):
    falling = [5.0, 1.0, 4.0, 3.0, 3.5, 3.6, 2.0]  # the second does not count

    class Figure(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val"] = falling[epoch]

    def run(folder, kept, epochs, log=lambda epoch, figures: None):
        model = make_model()
        stop = KeepBest("val", lambda: kept.append(weights(model)), patience=2, first_epoch=3)
        batches = ArrayBatches(data, 16, seed=1, transform=noisy)
        callbacks = {"callbacks": (Figure(),), "keep_best": stop}
        return fit(model, batches, Run(folder, "a", log), epochs=epochs, **callbacks), stop

    kept = []
    history, stop = run(tmp_path / "whole", kept, 7)
    assert [figures["val"] for figures in history] == falling[:6]
    assert (stop.best(history), len(kept)) == (4, 2)
    again = []
    run(tmp_path / "cut", again, 4)
    history, _ = run(tmp_path / "cut", again, 7)
    assert len(history) == 6
    for a, b in zip(kept[-1], again[-1], strict=True):
        np.testing.assert_array_equal(a, b)
    run(tmp_path / "cut", again, 7, log=lambda epoch, figures: pytest.fail("trained again"))


def test_a_torn_checkpoint_is_not_used(data, tmp_path):
    train(make_model(), data, tmp_path, epochs=1)
    (file,) = checkpoints(tmp_path).glob("epoch_*.npz")
    file.write_bytes(file.read_bytes()[:200])
    trained = []
    train(make_model(), data, tmp_path, epochs=1, log=lambda epoch, figures: trained.append(epoch))
    assert trained == [1]


def test_a_checkpoint_is_cut_into_parts_and_only_the_last_one_is_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PART_BYTES", 200)
    first = make_model()
    train(first, data, tmp_path, epochs=2)
    parts = sorted(checkpoints(tmp_path).glob("*.npz"))
    assert len(parts) > 1
    assert {p.name for p in parts} == set(
        json.loads((checkpoints(tmp_path) / checkpoint.INDEX).read_text())["parts"]
    )
    again = make_model()
    assert checkpoint.restore(checkpoints(tmp_path), again, "a").epoch == 2
    for a, b in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_training_is_not_trained_again(data, tmp_path):
    first = make_model()
    train(first, data, tmp_path, epochs=2)
    again = make_model()
    train(again, data, tmp_path, epochs=2, log=lambda epoch, figures: pytest.fail("trained again"))
    for a, b in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_diverging_training_stops_with_its_remedy_and_keeps_the_last_good_checkpoint(
    data, tmp_path
):
    train(make_model(), data, tmp_path, epochs=1)
    data["y"][0] = np.nan
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train(make_model(), data, tmp_path, epochs=3)
    assert checkpoint.restore(checkpoints(tmp_path), make_model(), "a").epoch == 1


def finite_without_a_finite_gradient(wanted, given):
    return keras.ops.sqrt(keras.ops.abs(given - given))


class Hungry(keras.layers.Layer):
    """Allocates 400 TB per batch."""

    def call(self, x):
        return x + keras.ops.sum(
            keras.ops.zeros((keras.ops.shape(x)[0], 10**13)) * keras.random.normal(())
        )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX folds the zeros")
def test_a_batch_that_does_not_fit_into_memory_names_the_batch_size_to_try(data, tmp_path):
    model = keras.Sequential([keras.Input((6,)), Hungry(), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", jit_compile=False)
    with pytest.raises(OutOfMemoryError, match=r"batch_size = 16: try batch_size = 8"):
        train(model, data, tmp_path, epochs=1)


def test_skipped_updates_are_counted_and_a_training_of_spikes_only_stops(data, tmp_path):
    def spiky(loss):
        model = make_model()
        model.compile(optimizer=SpikeSkippingAdamax(0.01, spike=10.0), loss=loss, jit_compile=False)
        return model

    history = train(spiky("mse"), data, tmp_path / "calm", epochs=2)
    assert [epoch["skipped_updates"] for epoch in history] == [0.0, 0.0]
    with pytest.raises(DivergedError, match=r"4 of 4 updates of epoch 1 were spikes"):
        train(spiky(finite_without_a_finite_gradient), data, tmp_path / "broken")


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own(data):
    rows = {"x": np.arange(64), "y": np.arange(64)}
    batches = ArrayBatches(rows, 16, seed=1, transform=lambda batch, generator: batch["x"])
    first = np.concatenate([batches[i] for i in range(len(batches))])
    batches.on_epoch_end()
    second = np.concatenate([batches[i] for i in range(len(batches))])
    assert sorted(first) == sorted(second) == list(range(64))
    assert list(first) != list(second)
