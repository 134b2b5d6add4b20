"""Faces are drawn from the aggregate posterior, with detail added; a seed determines both, and
earlier settings draw the same faces as before."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
from gaip3_pipeline.models.backend import compiled
from gaip3_pipeline.models.detail import build_detail, save_detail
from gaip3_pipeline.models.nvae.model import NVAE, build_nvae, save_nvae
from gaip3_pipeline.sampling.draw import (
    AGGREGATE,
    STANDARD,
    FaceGenerator,
    draw_samples,
    load_face_generator,
    matched_samples,
    noise_maps,
    noise_of_seeds,
    out_of_range,
    remove_others,
)
from gaip3_pipeline.settings import Samples, of_preset
from gaip3_pipeline.tables.files import foreign_entries
from gaip3_pipeline.tables.hashing import weights_version

RNG = np.random.default_rng(0)
VALUES = np.random.default_rng(1).random((21, 5)).astype(np.float32)
SEEDS = np.arange(21) + 100
SETTINGS = Samples(n=5, temperature=0.9, guidance=1.5, detail=1.0, seed=3)


@pytest.fixture(scope="module")
def nvae() -> NVAE:
    model = build_nvae(of_preset("tiny").nvae)
    for w in (w for w in model.weights if w.name != "range"):
        w.assign(w + 0.05 * RNG.standard_normal(w.shape).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def posterior(nvae: NVAE) -> AggregatePosterior:
    offsets, factors = [], []
    for shape in nvae.latent_shapes:
        k = int(np.prod(shape))
        offsets.append(RNG.normal(0, 0.5, (6, k)).astype(np.float32))
        root = RNG.normal(0, 0.3, (k, k)) / np.sqrt(k)
        factors.append((root @ root.T + np.eye(k)).astype(np.float32))
    return AggregatePosterior(offsets, factors)


@pytest.fixture(scope="module")
def generator(nvae: NVAE, posterior: AggregatePosterior) -> FaceGenerator:
    detail = build_detail((4, 6), 32, 26)
    for w in detail.weights:
        w.assign(w + 0.1 * RNG.standard_normal(w.shape).astype(np.float32))
    return FaceGenerator(nvae, posterior, detail, batch=8)


def drawn(generator: FaceGenerator, seeds=SEEDS, values=VALUES, **changes) -> np.ndarray:
    return np.concatenate(
        list(generator.draw(seeds, values, dataclasses.replace(SETTINGS, **changes)))
    ).astype(int)


def test_a_face_is_the_same_alone_and_among_others(generator: FaceGenerator) -> None:
    together = drawn(generator)
    assert together.shape == (21, 32, 26, 3)
    for i in (0, 9, 20):
        np.testing.assert_array_equal(
            drawn(generator, SEEDS[i : i + 1], VALUES[i : i + 1])[0], together[i]
        )


def test_without_detail_a_face_is_the_decoders_mean_to_the_byte(
    generator: FaceGenerator, nvae: NVAE, posterior: AggregatePosterior
) -> None:
    np.testing.assert_array_equal(
        drawn(generator, detail=0.0), drawn(FaceGenerator(nvae, posterior, batch=8))
    )


def test_half_of_the_detail_changes_pixels_half_as_much(generator: FaceGenerator) -> None:
    none, half, whole = (drawn(generator, detail=amount) for amount in (0.0, 0.5, 1.0))
    assert np.abs(whole - none).mean() > 2
    inside = (whole > 0) & (whole < 255)
    np.testing.assert_allclose(half[inside], ((none + whole) / 2)[inside], atol=1.01)


def test_the_seed_chooses_latents_and_noise_map_and_the_map_changes_no_latents(
    generator: FaceGenerator,
) -> None:
    latents = generator.latents(SEEDS, VALUES)
    means = generator.means(latents, VALUES)
    first, again, other = (
        generator.detailed(means, seeds, 1.0) for seeds in (SEEDS, SEEDS, SEEDS + 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    maps = noise_maps(SEEDS, 32, 26)
    assert abs(np.corrcoef(maps[:-1].ravel(), maps[1:].ravel())[0, 1]) < 0.05


def test_a_compiled_function_uses_the_weights_of_each_call_and_updates_seeds() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    random = network.random = keras.random.SeedGenerator(3)
    noisy = compiled(
        lambda given: {
            "product": network(given["x"]),
            "noise": keras.random.normal((4,), seed=random),
        },
        network,
    )
    ones = {"x": np.ones((1, 2))}  # float64
    network.set_weights([np.array([[1.0], [2.0]])])
    first = noisy(ones)
    network.set_weights([np.array([[3.0], [4.0]])])
    second = noisy(ones)
    assert (first["product"].item(), second["product"].item()) == (3.0, 7.0)
    assert first["product"].dtype == np.float32
    assert not np.array_equal(first["noise"], second["noise"])


def test_the_last_generator_is_kept_until_its_files_change(
    nvae: NVAE, posterior: AggregatePosterior, tmp_path
) -> None:
    root = DataRoot(tmp_path)
    save_nvae(nvae, root.nvae)
    detail = build_detail((4, 6), 32, 26)
    save_detail(root.detail, detail, posterior, weights_version(root.nvae), (32, 26))
    first = load_face_generator(root)
    assert load_face_generator(root) is first
    detail.weights[0].assign(detail.weights[0] + 1.0)
    save_detail(root.detail, detail, posterior, weights_version(root.nvae), (32, 26))
    assert load_face_generator(root) is not first


def test_a_generator_alone_draws_from_its_prior_as_before_there_was_detail(nvae: NVAE) -> None:
    expected = ops.convert_to_numpy(nvae.decode(noise_of_seeds(nvae, SEEDS), VALUES, 0.9, 1.5))
    np.testing.assert_allclose(drawn(FaceGenerator(nvae)), expected * 255, atol=0.51)


def test_latents_are_drawn_from_the_aggregate_posterior(
    generator: FaceGenerator, posterior: AggregatePosterior
) -> None:
    noise = noise_of_seeds(generator.nvae, SEEDS)
    for found, expected in zip(
        generator.latents(SEEDS, VALUES), posterior.move(noise, VALUES, 1.0), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    back = generator.displaced(generator.latents(SEEDS, VALUES), VALUES)
    for found, expected in zip(back, noise, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_values_outside_the_supported_range_have_the_latents_of_the_nearest_inside(
    nvae: NVAE, posterior: AggregatePosterior
) -> None:
    ranges = ops.convert_to_numpy(nvae.condition_embedding.range).copy()
    try:
        nvae.condition_embedding.range.assign(np.array([[0.4] * 5, [0.6] * 5], np.float32))
        generator = FaceGenerator(nvae, posterior)
        far, near = (
            generator.latents(SEEDS[:1], np.full((1, 5), v, np.float32)) for v in (0.0, 0.4)
        )
        for a, b in zip(far, near, strict=True):
            np.testing.assert_array_equal(a, b)
        [line] = out_of_range(generator, {"eyes": 0.1, "mouth": 0.5})
        assert line == "eyes 0.1: the data supports 0.40 to 0.60, so it is drawn as 0.40"
    finally:
        nvae.condition_embedding.range.assign(ranges)


def test_a_reconstruction_has_detail_as_a_sample_has(generator: FaceGenerator) -> None:
    images = RNG.integers(0, 256, (9, 64, 52, 3)).astype(np.uint8)
    plain, detailed = (
        generator.reconstructions(images, VALUES[:9], amount).astype(int) for amount in (0.0, 1.0)
    )
    assert plain.shape == (9, 32, 26, 3)
    assert np.abs(plain - detailed).mean() > 2
    np.testing.assert_array_equal(plain, generator.reconstructions(images, VALUES[:9], 0.0))
    assert np.abs(plain - generator.reconstructions(images, VALUES[:9], 0.0, draw=1)).max() > 0


def test_the_table_of_samples_records_how_they_were_drawn(
    generator: FaceGenerator, nvae: NVAE
) -> None:
    images, table = draw_samples(generator, VALUES, SETTINGS)
    assert len(images) == len(table) == 5
    assert set(table.prior) == {AGGREGATE}
    assert set(table.detail) == {1.0}
    values = table[["eyes", "mouth", "hair_color", "background", "head"]].to_numpy(np.float32)
    np.testing.assert_array_equal(drawn(generator, table.seed.to_numpy(), values), images)
    assert set(draw_samples(FaceGenerator(nvae), VALUES, SETTINGS)[1].prior) == {STANDARD}


def test_roles_never_share_a_face(generator: FaceGenerator) -> None:
    of_roles = [
        matched_samples(generator, VALUES[:4], SETTINGS, role)
        for role in ("guide", "judge", "detail")
    ]
    # samples that are shown
    of_roles.append(drawn(generator, SETTINGS.seed + np.arange(4), VALUES[:4]))
    assert len(np.unique(np.concatenate(of_roles), axis=0)) == 16


def test_only_samples_are_removed_and_what_is_not_theirs_is_named(tmp_path):
    (tmp_path / "000009.jpg").mkdir()
    for name in ("000000.jpg", "000001.jpg", "mine.jpg", "notes.txt", "samples.csv", ".DS_Store"):
        (tmp_path / name).touch()
    remove_others(tmp_path, ["000000.jpg"])
    foreign = [".DS_Store", "000009.jpg", "mine.jpg", "notes.txt"]
    assert foreign_entries(tmp_path, ["000000.jpg", "samples.csv"]) == foreign
