"""The NVAE samples reproducibly, reconstructs what it encodes, and is the same model after saving
and loading."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.models.backend import compile_options, gradient
from gaip3_pipeline.models.nvae.model import (
    build_nvae,
    load_nvae,
    readjust_normalization,
    save_nvae,
    scale_sizes,
)
from gaip3_pipeline.models.nvae.objective import NvaeTraining, SpectralRegularization
from gaip3_pipeline.settings import Nvae

SMALL = Nvae(
    height=19,
    width=15,
    channels=(24, 16, 16, 16, 8),
    latents=(6, 0, 3, 2, 0),
    cells=(1, 0, 2, 1, 1),
    kl_weights=(1.0, 1.0, 1.0, 2.0, 1.0),
    condition_width=8,
    mixtures=1,
)
N = 6
CONDITIONS = np.random.default_rng(1).random((N, 5)).astype(np.float32)


@pytest.fixture(scope="module", params=["dense", "paper"])
def model(request):
    return jolted(build_nvae(dataclasses.replace(SMALL, cell=request.param)))


def jolted(model):
    """The model with random changes of its weights, so that parts initialised to 0 have an
    effect."""
    rng = np.random.default_rng(3)
    for w in (w for w in model.weights if w.name != "range"):
        w.assign(w + 0.03 * rng.standard_normal(w.shape).astype(np.float32))
    return model


def decoded(model, *args, **kwargs):
    return ops.convert_to_numpy(model.decode(*args, **kwargs))


def test_scales_halve_with_rounding_up_until_one():
    assert scale_sizes(64, 52, 1) == [(1, 1), (2, 2), (4, 4), (8, 7), (16, 13), (32, 26), (64, 52)]
    assert scale_sizes(128, 104, 4) == [(1, 1), (2, 2), (4, 4), (8, 7), (16, 13), (32, 26)]


def test_latent_groups_are_listed_top_down(model):
    assert model.latent_shapes == [(1, 1, 6), (3, 2, 3), (3, 2, 3), (5, 4, 2)]
    assert [e.shape for e in model.sample_noise(2, seed=0)] == [
        (2, *s) for s in model.latent_shapes
    ]


def test_settings_that_do_not_fit_the_number_of_scales_are_refused():
    with pytest.raises(
        ValueError,
        match=r"kl_weights needs 5 numbers, one per scale 1×1, 2×1, 3×2, 5×4, 10×8; it has 2",
    ):
        build_nvae(dataclasses.replace(SMALL, kl_weights=(1.0, 1.0)))


@pytest.mark.parametrize(
    ("name", "value"), [("cell", "dense, paper"), ("likelihood", "logistics, bernoulli")]
)
def test_an_unknown_kind_is_refused_with_the_known_ones(name, value):
    with pytest.raises(ValueError, match=f"{name} must be one of {value}, not 'other'"):
        build_nvae(dataclasses.replace(SMALL, **{name: "other"}))


def test_a_seed_gives_the_same_picture_every_time_and_another_seed_another(model):
    noise = model.sample_noise(N, seed=4)
    first = decoded(model, noise, CONDITIONS)
    assert first.shape == (N, 19, 15, 3)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first, decoded(model, model.sample_noise(N, seed=4), CONDITIONS))
    assert np.abs(first - decoded(model, model.sample_noise(N, seed=5), CONDITIONS)).max() > 1e-3


def test_the_first_pictures_of_a_seed_do_not_depend_on_how_many_are_drawn(model):
    for few, many in zip(model.sample_noise(2, seed=4), model.sample_noise(5, seed=4), strict=True):
        np.testing.assert_array_equal(few, many[:2])


def test_at_temperature_zero_the_noise_does_not_matter(model):
    one, other = (
        decoded(model, model.sample_noise(N, seed), CONDITIONS, temperature=0.0) for seed in (1, 2)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_guidance_one_is_the_conditional_model_and_zero_ignores_the_condition(model):
    noise = [np.repeat(e[:1], N, axis=0) for e in model.sample_noise(1, seed=0)]
    plain, nearly = (
        decoded(model, noise, CONDITIONS),
        decoded(model, noise, CONDITIONS, guidance=1.0 + 1e-6),
    )
    np.testing.assert_allclose(plain, nearly, atol=1e-4)
    unguided = decoded(model, noise, CONDITIONS, guidance=0.0)
    np.testing.assert_allclose(unguided, unguided[:1].repeat(N, axis=0), atol=1e-5)
    assert np.abs(plain - plain[:1]).max() > 1e-3


def test_values_outside_the_supported_range_are_drawn_as_the_nearest_inside(tmp_path):
    ranges = np.array([[0.7, 0, 0, 0, 0.1], [1, 1, 1, 1, 0.9]], np.float32)
    training = NvaeTraining(SMALL, 10, ranges=ranges)
    save_nvae(training.ema, tmp_path)
    for model in (training.nvae, load_nvae(tmp_path)):
        jolted(model)
        noise = model.sample_noise(1, 0)

        def face(eyes, head, model=model, noise=noise):
            return decoded(model, noise, np.array([[eyes, 0.5, 0.5, 0.5, head]], np.float32))

        np.testing.assert_array_equal(face(0.0, 0.0), face(0.7, 0.1))
        np.testing.assert_array_equal(face(1.0, 1.0), face(1.0, 0.9))
        assert np.abs(face(0.7, 0.5) - face(1.0, 0.5)).max() > 1e-4


def test_noise_of_the_wrong_shape_is_refused(model):
    with pytest.raises(ValueError, match="latents are"):
        model.decode(model.sample_noise(N, 0)[:-1], CONDITIONS)


def test_images_may_be_bytes_or_floats(model):
    images = np.random.default_rng(0).integers(0, 256, (N, 19, 15, 3), dtype=np.uint8)
    from_bytes, from_floats = (
        model.encode(images, CONDITIONS),
        model.encode(images.astype(np.float32) / 255, CONDITIONS),
    )
    for a, b in zip(from_bytes, from_floats, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-3)


def test_a_model_is_the_same_after_saving_and_loading(model, tmp_path):
    save_nvae(model, tmp_path)
    loaded = load_nvae(tmp_path)
    assert loaded.settings == model.settings
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.weights.h5"]
    noise = model.sample_noise(N, seed=4)
    np.testing.assert_array_equal(
        decoded(model, noise, CONDITIONS), decoded(loaded, noise, CONDITIONS)
    )


DECODE_AND_ENCODE = """
import sys
from pathlib import Path
import keras, numpy as np
from gaip3_pipeline.models.backend import compiled
from gaip3_pipeline.models.nvae.model import load_nvae
folder = Path(sys.argv[1])
given = np.load(folder / "given.npz")
model = load_nvae(folder)
noise = [given[f"noise{i}"] for i in range(len(model.latent_shapes))]
draw = compiled(lambda given: model.decode(*given, 0.8, 2.0), model)
encode = compiled(lambda given: model.encode(*given), model)
posterior = encode((given["images"], given["conditions"]))
made = {f"posterior{i}": z for i, z in enumerate(posterior)}
pictures = draw((noise, given["conditions"]))
np.savez(folder / f"{keras.backend.backend()}.npz", pictures=pictures, **made)
"""


def test_a_draw_of_the_posterior_lies_about_its_mean(model):
    images = (
        np.random.default_rng(6)
        .integers(0, 256, (N, SMALL.height, SMALL.width, 3))
        .astype(np.uint8)
    )
    noise = model.sample_noise(N, seed=3)
    mean = [ops.convert_to_numpy(e) for e in model.encode(images, CONDITIONS)]
    for still, expected in zip(
        model.encode(images, CONDITIONS, [0 * e for e in noise]), mean, strict=True
    ):
        np.testing.assert_allclose(still, expected, atol=1e-5)
    # Checked on the first group, which depends on no other draw: opposite noises lie on opposite
    # sides of the mean, at the posterior's standard deviation.
    one, other = (
        ops.convert_to_numpy(model.encode(images, CONDITIONS, [s * e for e in noise])[0])
        for s in (1, -1)
    )
    np.testing.assert_allclose((one + other) / 2, mean[0], atol=1e-4)
    deviation = (one - mean[0]) / noise[0]
    assert (deviation > 0).all()


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax")
def test_tensorflow_and_jax_draw_and_encode_alike(model, tmp_path):
    save_nvae(model, tmp_path)
    images = (
        np.random.default_rng(5)
        .integers(0, 256, (N, SMALL.height, SMALL.width, 3))
        .astype(np.uint8)
    )
    noise = {f"noise{i}": e for i, e in enumerate(model.sample_noise(N, seed=2))}
    np.savez(tmp_path / "given.npz", images=images, conditions=CONDITIONS, **noise)
    for backend in ("tensorflow", "jax"):
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run(
            [sys.executable, "-c", DECODE_AND_ENCODE, str(tmp_path)], env=environment, check=True
        )
    with np.load(tmp_path / "tensorflow.npz") as ours, np.load(tmp_path / "jax.npz") as theirs:
        assert (
            set(ours)
            == set(theirs)
            == {"pictures", *(f"posterior{i}" for i in range(len(model.latent_shapes)))}
        )
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, rtol=1e-4, err_msg=name)


def test_gradients_reach_noise_and_conditions_and_are_those_of_finite_differences(model):
    noise = model.sample_noise(2, seed=8)

    def brightness(arrays):
        return ops.sum(model.decode(arrays[:-1], arrays[-1], temperature=0.8), axis=(1, 2, 3))

    values, gradients = gradient(brightness)([*noise, CONDITIONS[:2]])
    assert values.shape == (2,)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients)
    step = [1e-3 * np.sign(g) for g in gradients]
    ends = []
    for side in (1, -1):
        moved = [a + side * d for a, d in zip([*noise, CONDITIONS[:2]], step, strict=True)]
        ends.append(ops.convert_to_numpy(brightness(moved)))
    expected = sum((g * d).reshape(2, -1).sum(axis=1) for g, d in zip(gradients, step, strict=True))
    np.testing.assert_allclose((ends[0] - ends[1]) / 2, expected, rtol=0.05)


def test_the_analytic_kl_is_the_mean_of_the_sampled_one(model):
    images = (
        np.random.default_rng(0)
        .integers(0, 256, (1, 19, 15, 3), dtype=np.uint8)
        .repeat(512, axis=0)
    )
    terms = model({"image": images, "condition": CONDITIONS[:1].repeat(512, axis=0)})
    analytic = sum(ops.convert_to_numpy(k) for k in terms["kl"])
    sampled = -ops.convert_to_numpy(terms["log_ratio"])
    assert sampled.mean() == pytest.approx(
        analytic.mean(), abs=5 * (sampled - analytic).std() / np.sqrt(512)
    )


def test_power_iteration_finds_the_largest_singular_values(model):
    spectral = SpectralRegularization(model)
    for _ in range(40):
        penalty = float(ops.convert_to_numpy(spectral.penalty()))
    kernels = [
        ops.convert_to_numpy(w).reshape(-1, w.shape[-1])
        for w in model.trainable_variables
        if len(w.shape) == 4 and w.name == "kernel"
    ]
    assert penalty == pytest.approx(
        sum(np.linalg.svd(k, compute_uv=False)[0] for k in kernels), rel=0.02
    )


def test_the_spectral_penalty_moves_each_kernel_along_its_singular_vectors_alone(model):
    spectral = SpectralRegularization(model)
    kernels = [w for w in model.trainable_variables if len(w.shape) == 4 and w.name == "kernel"]

    def penalty(arrays):
        with keras.StatelessScope([(k, a[0]) for k, a in zip(kernels, arrays, strict=True)]):
            return spectral.penalty()

    arrays = [ops.convert_to_numpy(k)[None] for k in kernels]
    total, gradients = gradient(penalty)(arrays)
    # uᵀMv with fixed unit vectors u and v: the gradient is their product, of norm and rank 1
    for found in gradients:
        first, *others = np.linalg.svd(found.reshape(-1, found.shape[-1]), compute_uv=False)
        assert first == pytest.approx(1.0, abs=1e-4)
        assert np.abs(others).max(initial=0.0) < 1e-4
    along = sum((k * g).sum() for k, g in zip(arrays, gradients, strict=True))
    assert total == pytest.approx(along, rel=1e-4)


def test_a_few_pictures_are_memorised_and_reconstructed():
    y, x = np.mgrid[0:19, 0:15]
    images = np.stack(
        [
            np.stack(
                [(x * 9 + 40 * i) % 256, (y * 8 + 90 * i) % 256, np.full_like(x, 60 * i)], axis=-1
            )
            for i in range(4)
        ]
    )
    images, conditions = images.astype(np.uint8), np.full((4, 5), 0.5, np.float32)
    settings = dataclasses.replace(
        SMALL, kl_weights=(0.1,) * 5, condition_dropout=0.0, kl_warmup=0.0, ema=0.9, spectral=0.0
    )
    training = NvaeTraining(settings, total_steps=1)
    training.compile(optimizer=keras.optimizers.Adamax(1e-2), **compile_options())
    training.optimizer.build(training.trainable_variables)
    batch = {"image": images, "condition": conditions}
    for _ in range(200):
        figures = training.train_on_batch(batch, return_dict=True)
    assert np.isfinite(figures["loss"])
    rebuilt = decoded(training.ema, training.ema.encode(images, conditions), conditions)
    assert np.abs(rebuilt - images / 255.0).mean() < 0.06


def test_two_pictures_are_overfitted_to_less_than_half_a_bit_per_dimension():
    y, x = np.mgrid[0:10, 0:8]
    images = np.stack(
        [
            np.stack(p, axis=-1)
            for p in ([x * 30, y * 25, x * y * 4], [255 - y * 25, x * 30, 255 - x * 30])
        ]
    ).astype(np.uint8)
    settings = Nvae(
        height=10,
        width=8,
        channels=(48, 48, 48, 48),
        latents=(8, 0, 4, 0),
        cells=(1, 0, 1, 1),
        kl_weights=(0.0,) * 4,
        condition_dropout=0.0,
        kl_warmup=0.0,
        spectral=0.0,
    )
    training = NvaeTraining(settings, total_steps=1)
    training.compile(
        optimizer=keras.optimizers.Adamax(keras.optimizers.schedules.CosineDecay(1e-2, 700)),
        **compile_options(),
    )
    training.optimizer.build(training.trainable_variables)
    batch = {"image": images, "condition": CONDITIONS[:2]}
    for _ in range(700):
        training.train_on_batch(batch)
    log_likelihood = ops.convert_to_numpy(training.nvae(batch)["log_likelihood"])
    assert (-log_likelihood / (images[0].size * np.log(2.0)) < 0.5).all()


def test_black_and_white_pictures_are_learned():
    images = (
        np.random.default_rng(0).random((16, 12, 12, 1)) < np.linspace(0.05, 0.95, 12)[:, None]
    ).astype(np.uint8) * 255
    settings = Nvae(
        height=12,
        width=12,
        likelihood="bernoulli",
        channels=(16, 16, 16, 16),
        latents=(4, 0, 0, 0),
        cells=(1, 0, 1, 1),
        kl_weights=(1.0,) * 4,
        spectral=0.0,
    )
    training = NvaeTraining(settings, total_steps=1)
    training.compile(optimizer=keras.optimizers.Adamax(1e-2), **compile_options())
    training.optimizer.build(training.trainable_variables)
    batch = {"image": images, "condition": CONDITIONS[:1].repeat(16, axis=0)}
    first, *_, last = (
        training.train_on_batch(batch, return_dict=True)["bits_per_dim"] for _ in range(60)
    )
    assert (
        last < 0.8 < first
    )  # independent pixels with the right probabilities take .66 bits, with equal ones 1
    columns = decoded(
        training.nvae, training.nvae.sample_noise(8, seed=0), CONDITIONS[:1].repeat(8, axis=0)
    ).mean(axis=(0, 1, 3))
    assert np.corrcoef(columns, np.linspace(0, 1, 12))[0, 1] > 0.9


def test_readjusted_normalisation_is_that_of_samples():
    model = jolted(build_nvae(dataclasses.replace(SMALL, cell="paper")))
    conditions = np.random.default_rng(2).random((64, 5)).astype(np.float32)
    noise = model.sample_noise(64, seed=9)
    of_the_batch = decoded(model, noise, conditions, 0.8, training=True)
    # training mode moved the averages
    model = jolted(build_nvae(dataclasses.replace(SMALL, cell="paper")))
    before = np.abs(decoded(model, noise, conditions, 0.8) - of_the_batch).mean()
    readjust_normalization(model, conditions, 0.8, draws=8)
    after = np.abs(decoded(model, noise, conditions, 0.8) - of_the_batch).mean()
    assert after < 0.3 * before


def test_dense_cells_need_no_readjustment(model):
    if model.settings.cell == "dense":
        weights = [ops.convert_to_numpy(w) for w in model.weights]
        readjust_normalization(model, CONDITIONS, 0.8, draws=2)
        for before, now in zip(weights, model.weights, strict=True):
            np.testing.assert_array_equal(before, ops.convert_to_numpy(now))
