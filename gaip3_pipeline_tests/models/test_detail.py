"""The detail network starts at the mean picture, its discriminator is smooth, and it belongs to one
generator."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
from gaip3_pipeline.models.backend import gradient
from gaip3_pipeline.models.detail import (
    Discriminator,
    PairError,
    build_detail,
    doubled,
    halved,
    load_detail,
    save_detail,
)
from gaip3_pipeline.models.nvae.model import build_nvae, save_nvae
from gaip3_pipeline.models.storage import detail_version
from gaip3_pipeline.settings import of_preset
from gaip3_pipeline.tables.hashing import weights_version

POSTERIOR = AggregatePosterior([np.zeros((6, 4), np.float32)], [np.eye(4, dtype=np.float32)])


def pictures(n: int = 3, height: int = 20, width: int = 14, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, height, width, channels), np.float32)


@pytest.mark.parametrize("size", [(20, 14), (19, 15), (7, 6)])
def test_a_fresh_network_changes_nothing_whatever_the_size(size: tuple[int, int]) -> None:
    network = build_detail((4, 6, 8), *size)
    change = ops.convert_to_numpy(network(pictures(2, *size, channels=4)))
    assert change.shape == (2, *size, 3)
    assert not change.any()
    patches, whole = Discriminator((4, 4, 6), *size)(pictures(2, *size))
    assert patches.shape == (2, *(math.ceil(math.ceil(n / 2) / 2) for n in size), 1)
    assert whole.shape == (2, 1)


def test_downsampling_takes_means_and_upsampling_leaves_no_grid() -> None:
    flat = np.full((1, 5, 4, 2), 3.0, np.float32)
    np.testing.assert_allclose(halved(flat), np.full((1, 3, 2, 2), 3.0), rtol=1e-6)
    np.testing.assert_allclose(
        doubled(ops.convert_to_tensor(flat), 9, 8), np.full((1, 9, 8, 2), 3.0), rtol=1e-6
    )
    ramp = np.arange(6, dtype=np.float32)[None, :, None, None] * np.ones((1, 6, 6, 1), np.float32)
    inside = ops.convert_to_numpy(doubled(ops.convert_to_tensor(ramp), 12, 12))[0, 1:-1, 0, 0]
    # a ramp stays a ramp: no row differs
    np.testing.assert_allclose(np.diff(inside), 0.5, rtol=1e-5)


def test_another_noise_map_gives_another_change_of_the_same_mean() -> None:
    network = build_detail((4, 6), 20, 14)
    for w in network.weights:
        w.assign(w + 0.1 * np.random.default_rng(1).standard_normal(w.shape).astype(np.float32))
    mean, first, second = pictures(1), pictures(1, channels=1), 1 - pictures(1, channels=1)
    changes = [
        ops.convert_to_numpy(network(np.concatenate([mean, noise], axis=-1)))
        for noise in (first, second)
    ]
    assert np.abs(changes[0] - changes[1]).max() > 1e-3


def test_kernels_have_the_gain_as_their_norm_and_heads_are_not_constrained() -> None:
    discriminator = Discriminator((4, 6, 8), 20, 14)
    for _ in range(150):  # one power iteration each
        discriminator(pictures(), training=True)
    for convolution in (*discriminator.entry, *discriminator.coarser):
        kernel = ops.convert_to_numpy(convolution.kernel)
        used = (
            convolution.gain
            * kernel
            / ops.convert_to_numpy(
                convolution._largest(ops.convert_to_tensor(kernel), learning=False)
            )
        )
        assert np.linalg.svd(used.reshape(-1, used.shape[-1]), compute_uv=False)[
            0
        ] == pytest.approx(Discriminator.GAIN, rel=1e-3)
    assert discriminator.whole.gain is None


def test_a_frozen_pass_gives_equal_logits_and_a_gradient_of_the_picture() -> None:
    discriminator = Discriminator((4, 6, 8), 20, 14)
    free, frozen = (discriminator(pictures(), frozen=f) for f in (False, True))
    for a, b in zip(free, frozen, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    _, (found,) = gradient(lambda arrays: discriminator(arrays[0], frozen=True)[1])([pictures()])
    assert np.abs(found).max() > 0


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    nvae, folder = tmp_path / "nvae", tmp_path / "detail"
    save_nvae(build_nvae(of_preset("tiny").nvae), nvae)
    save_detail(folder, build_detail((4, 6), 32, 26), POSTERIOR, weights_version(nvae), (32, 26))
    return nvae, folder


def test_a_network_is_the_same_after_saving_and_loading(saved: tuple[Path, Path]) -> None:
    nvae, folder = saved
    finish = load_detail(folder, nvae)
    for w, again in zip(finish.network.weights, load_detail(folder).network.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(w), ops.convert_to_numpy(again))
    np.testing.assert_array_equal(finish.posterior.factors[0], POSTERIOR.factors[0])
    assert sorted(p.name for p in folder.iterdir()) == [
        "aggregate_posterior.npz",
        "model.json",
        "model.weights.h5",
    ]


def test_a_network_of_another_generator_is_refused_and_both_are_named(
    saved: tuple[Path, Path], tmp_path: Path
) -> None:
    nvae, folder = saved
    theirs = weights_version(nvae)
    other = build_nvae(of_preset("tiny").nvae)
    other.weights[0].assign(other.weights[0] + 1.0)
    save_nvae(other, nvae)
    with pytest.raises(
        PairError,
        match=rf"belongs to generator {theirs[:12]}, and .* holds {weights_version(nvae)[:12]}",
    ):
        load_detail(folder, nvae)


def test_its_version_changes_with_its_weights_and_with_the_aggregate_posterior(
    saved: tuple[Path, Path],
) -> None:
    _, folder = saved
    versions = [detail_version(folder)]
    wider = AggregatePosterior(POSTERIOR.offsets, [2 * f for f in POSTERIOR.factors])
    save_detail(folder, build_detail((4, 6), 32, 26), wider, "a", (32, 26))
    versions.append(detail_version(folder))
    keras.utils.set_random_seed(9)
    save_detail(folder, build_detail((4, 6), 32, 26), POSTERIOR, "a", (32, 26))
    versions.append(detail_version(folder))
    assert len(set(versions)) == 3
