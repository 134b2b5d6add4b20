"""The detail network learns what the mean pictures lack and stays close to them; a training that is
killed resumes, and one that collapses fails."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import layers, ops

from gaip3_pipeline.layout import DETAIL_START
from gaip3_pipeline.metrics.sharpness import sharpness_figures
from gaip3_pipeline.models.backend import compile_options
from gaip3_pipeline.models.nvae.model import build_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.settings import Detail, of_preset
from gaip3_pipeline.training import detail as detail_training
from gaip3_pipeline.training.detail import (
    DetailTraining,
    Pool,
    Watched,
    begin_with,
    draw_pool,
    optimizer,
    save_start,
    train_detail,
)
from gaip3_pipeline.training.fit import DivergedError
from gaip3_pipeline.training.run import Run
from gaip3_pipeline_tests.faces.portraits import painted

SMALL = Detail(
    channels=(6, 8),
    discriminator=(8, 8, 12),
    epochs=3,
    steps=4,
    batch_size=4,
    learning_rate=1e-3,
    ema=0.9,
)
N = 24


def silent(epoch: int, figures: dict[str, float]) -> None:
    pass


def soft(pictures: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(p, (0, 0), 1.2) for p in pictures])


def pool_of(photographs: np.ndarray) -> Pool:
    n = len(photographs)
    values = np.random.default_rng(0).random((n, 5), np.float32)
    return Pool(
        soft(photographs)[::-1], values[::-1], soft(photographs), np.arange(n), photographs, values
    )


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return painted(N, 32, 26)


@pytest.fixture(scope="module")
def pool(faces: np.ndarray) -> Pool:
    return pool_of(faces)


def test_no_more_pictures_are_drawn_than_a_short_training_sees(faces: np.ndarray) -> None:
    generator = FaceGenerator(build_nvae(of_preset("tiny").nvae), batch=8)
    values = np.random.default_rng(0).random((N, 5), np.float32)
    short = draw_pool(generator, faces, values, of_preset("tiny").samples, seen=10)
    assert len(short.samples) == len(short.asked) == len(short.rebuilt) == len(short.of) == 10
    assert len(set(short.of)) == 10
    longer = draw_pool(generator, faces, values, of_preset("tiny").samples, seen=2 * N + 1)
    assert len(longer.samples) == 2 * N + 1
    assert longer.of.tolist() == [*range(N)] * 3
    np.testing.assert_array_equal(short.asked, longer.asked[:10])


@pytest.fixture
def watched(faces: np.ndarray) -> Watched:
    return Watched(soft(faces[:8]), faces)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(w).copy() for w in model.weights]


def step(training: DetailTraining, batch: dict[str, np.ndarray]) -> DetailTraining:
    training.compile(optimizer=optimizer(training), **compile_options())
    training.train_on_batch(batch)
    return training


def test_the_adversarial_loss_of_the_network_does_not_train_the_discriminator(pool: Pool) -> None:
    (batch,) = pool.batches(SMALL)[0]
    learned = []
    for near in (0.0, 50.0):
        keras.utils.set_random_seed(3)
        training = DetailTraining(dataclasses.replace(SMALL, near=near, low=near), 32, 26)
        before = weights(training.discriminator)
        step(training, batch)
        learned.append(weights(training.discriminator))
        assert any(np.abs(a - b).max() > 0 for a, b in zip(before, learned[-1], strict=True))
    for a, b in zip(*learned, strict=True):
        np.testing.assert_array_equal(a, b)

    class Unpleased(DetailTraining):
        def call(self, inputs, training=False):
            told = super().call(inputs, training)
            return told | {"pleases": [ops.stop_gradient(part) for part in told["pleases"]]}

    keras.utils.set_random_seed(3)
    alone = weights(step(Unpleased(SMALL, 32, 26), batch).discriminator)
    for a, b in zip(learned[0], alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_a_reconstruction_and_its_photograph_are_mirrored_together_and_the_head_with_them(
    faces: np.ndarray,
) -> None:
    values = np.full((N, 5), 0.2, np.float32)
    pool = Pool(faces, values, faces, np.arange(N), faces, values)
    (batch,) = pool.batches(dataclasses.replace(SMALL, batch_size=16))[0]
    np.testing.assert_array_equal(batch["rebuilt"], batch["photograph"])
    plain = [(faces == p).all(axis=(1, 2, 3)).any() for p in batch["sample"]]
    assert all(
        was or (faces == p[:, ::-1]).all(axis=(1, 2, 3)).any()
        for was, p in zip(plain, batch["sample"], strict=True)
    )
    mirrored = ~np.array(plain)
    assert 0 < mirrored.sum() < 16
    np.testing.assert_allclose(batch["asked"][:, 4], np.where(mirrored, 0.8, 0.2), rtol=1e-6)
    np.testing.assert_allclose(batch["asked"][:, :4], 0.2)


def test_pictures_become_sharper_than_their_means_and_stay_close_to_them(
    faces: np.ndarray, tmp_path: Path
) -> None:
    photographs = painted(100, 32, 26, seed=5)
    settings = dataclasses.replace(SMALL, epochs=6, steps=50, batch_size=8, learning_rate=2e-3)
    shown: dict[int, tuple[int, ...]] = {}
    result = train_detail(
        pool_of(photographs),
        Watched(soft(faces), faces),
        settings,
        Run(tmp_path, "one", silent),
        start=None,
        show=lambda epoch, faces: shown.update({epoch: faces.shape}),
    )
    assert shown == dict.fromkeys(range(1, 7), (16, 32, 26, 3))
    before = sharpness_figures(soft(faces), faces)["power_1"]
    assert result.history[-1]["val_power_1"] > 2 * before
    assert result.history[-1]["low"] < 0.03
    assert {"overfitting", "val_kurtosis_1", "val_diversity"} <= set(result.history[-1])
    assert result.figures["n_train"] == 100


def test_the_values_loss_uses_only_values_that_the_regressor_can_predict(pool: Pool) -> None:
    pictures = keras.Input((32, 26, 3))
    guide = keras.Model(pictures, layers.Dense(5)(layers.GlobalAveragePooling2D()(pictures)))
    (batch,) = pool.batches(SMALL)[0]
    errors = []
    for known in ([True] * 5, [False] * 5):
        training = DetailTraining(SMALL, 32, 26, [guide], known)
        training.compile(optimizer=optimizer(training), **compile_options())
        errors.append(training.train_on_batch(batch, return_dict=True)["values"])
    assert errors[0] > 0
    assert errors[1] == 0


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (lambda p: np.full_like(p, 90), "diversity 0.0"),
        (lambda p: 255 * (np.indices(p.shape)[2] % 2), "power"),
    ],
)
def test_a_network_that_collapses_ends_the_training_and_is_not_kept(
    pool: Pool, watched: Watched, tmp_path: Path, monkeypatch, ruin, message
) -> None:
    to = ruin(watched.means).astype(np.float32) / 255.0

    def collapsed(self, x, training=False):
        # compiled, it is for batches of any size
        return to - x[..., :3] if x.shape[0] in (None, len(to)) else call(self, x)

    call = detail_training.DetailNetwork.call
    monkeypatch.setattr(detail_training.DetailNetwork, "call", collapsed)
    with pytest.raises(DivergedError, match=f"collapsed in epoch 1 .*{message}"):
        train_detail(pool, watched, SMALL, Run(tmp_path, "one", silent), start=None)
    assert not (tmp_path / "checkpoints").exists()


def test_a_training_ends_when_its_discriminator_has_memorised_its_pictures(
    pool: Pool, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [{"overfitting": r} for r in (0.9, 0.5, 0.7, 0.62, 0.55, 0.6, 0.7)]
    assert [detail_training.knows_by_heart(known[:n]) for n in range(8)] == [False] * 5 + [
        True,
        False,
        True,
    ]

    epochs: list[int] = []
    monkeypatch.setattr(detail_training, "knows_by_heart", lambda history: len(history) == 2)
    for _ in range(2):  # the second continues from the checkpoint and has nothing to do
        result = train_detail(
            pool,
            watched,
            SMALL,
            Run(tmp_path, "x", lambda epoch, figures: epochs.append(epoch)),
            start=None,
        )
        assert len(result.history) == 2
    assert epochs == [1, 2]


def test_a_loss_that_is_not_finite_ends_the_training(
    pool: Pool, watched: Watched, tmp_path: Path
) -> None:
    broken = dataclasses.replace(
        pool, read=np.full_like(pool.read, np.nan), asked=np.full_like(pool.asked, np.nan)
    )
    pictures = keras.Input((32, 26, 3))
    guide = keras.Model(pictures, layers.Dense(5)(layers.GlobalAveragePooling2D()(pictures)))
    with pytest.raises(DivergedError, match="the loss is nan in epoch 1"):
        train_detail(
            broken,
            watched,
            SMALL,
            Run(tmp_path, "one", silent),
            start=None,
            guides=[guide],
            known=[True] * 5,
        )


TRAIN_ALONE = """
import os, signal, sys
from pathlib import Path
import numpy as np
import gaip3_pipeline
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
from gaip3_pipeline.training.detail import Pool, Watched, train_detail
from gaip3_pipeline.training.run import Run
from gaip3_pipeline_tests.training.test_detail import SMALL
given = np.load(Path(sys.argv[1]) / "given.npz")
pool = Pool(*(given[name] for name in ("samples", "asked", "rebuilt", "of", "photographs", "read")))

def log(epoch, figures):
    if epoch == killed_in:
        os.kill(os.getpid(), signal.SIGKILL)

watched = Watched(given["means"], given["photographs"])
for folder, killed_in in zip(map(Path, sys.argv[2::2]), map(int, sys.argv[3::2])):
    result = train_detail(pool, watched, SMALL, Run(folder, "one", log), start=None)
    np.savez(folder / "weights.npz", *result.network.get_weights())
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sets TensorFlow's threads")
def test_a_training_killed_by_force_ends_with_the_bits_of_an_unbroken_one(
    pool: Pool, watched: Watched, tmp_path: Path
) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    np.savez(tmp_path / "given.npz", means=watched.means, **vars(pool))

    def train(*words: object) -> int:
        command = [sys.executable, "-c", TRAIN_ALONE, str(tmp_path), *map(str, words)]
        return subprocess.run(command).returncode

    # The one that is killed is the second training of its process, and the first of the next one.
    assert train(unbroken, 0, killed, 2) == -signal.SIGKILL
    assert train(killed, 0) == 0
    with np.load(unbroken / "weights.npz") as ours, np.load(killed / "weights.npz") as theirs:
        assert ours.files == theirs.files
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_it_begins_with_start_weights_only_if_the_networks_have_their_sizes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "start.npz"
    kept = DetailTraining(SMALL, 32, 26)
    kept.network.exit.bias.assign(np.full(3, 0.25))
    kept.ema.set_weights(kept.network.get_weights())
    save_start(kept.ema, kept.discriminator, file)
    same, wider, larger = (
        DetailTraining(SMALL, 32, 26),
        DetailTraining(dataclasses.replace(SMALL, channels=(6, 10)), 32, 26),
        DetailTraining(SMALL, 64, 52),
    )
    assert begin_with(same, file)
    np.testing.assert_allclose(same.ema.exit.bias, 0.25)
    for other in (wider, larger):
        before = weights(other.network)
        assert not begin_with(other, file)
        for a, b in zip(before, weights(other.network), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_included_start_weights_fit_the_presets_demo_and_small() -> None:
    assert os.path.getsize(DETAIL_START) <= 2 << 20
    for preset in ("demo", "small"):
        settings = of_preset(preset)
        assert begin_with(
            DetailTraining(settings.detail, settings.nvae.height, settings.nvae.width), DETAIL_START
        )
