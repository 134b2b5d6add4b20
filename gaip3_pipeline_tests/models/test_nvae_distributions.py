"""The densities of the NVAE are those of its papers, to float64 references and by sampling."""

import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.models.nvae.distributions import likelihood_mean, log_likelihood, residual_kl, soft_clamp


def reference(levels: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The same density the plain way in float64: PixelCNN++, equation 2."""
    k = len(parameters) // 10
    logits, rest = parameters[:k].astype(np.float64), parameters[k:].reshape(k, 9).astype(np.float64)
    weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    total = np.zeros(len(levels))
    for i in range(k):
        means, scales, c = rest[i, :3], np.exp(np.maximum(rest[i, 3:6], -7)), np.tanh(rest[i, 6:])
        x = levels / 127.5 - 1
        centre = [means[0], means[1] + c[0] * x[:, 0], means[2] + c[1] * x[:, 0] + c[2] * x[:, 1]]
        p = weights[i] * np.ones(len(levels))
        for channel in range(3):
            upper = (x[:, channel] + 1 / 255 - centre[channel]) / scales[channel]
            lower = (x[:, channel] - 1 / 255 - centre[channel]) / scales[channel]
            above = np.where(levels[:, channel] == 255, 1.0, 1 / (1 + np.exp(-upper)))
            below = np.where(levels[:, channel] == 0, 0.0, 1 / (1 + np.exp(-lower)))
            p *= above - below
        total += p
    return np.log(total)


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("mixtures", [1, 3])
def test_the_likelihood_of_a_channel_sums_to_one_over_the_256_levels(channel, mixtures):
    components = np.random.default_rng(mixtures).normal(0, 1, (mixtures, 9)).astype(np.float32)
    others = [c for c in range(3) if c != channel]
    components[:, others], components[:, [3 + c for c in others]] = 9.0, -5.0  # the other channels are 255 for sure
    parameters = np.concatenate([np.arange(mixtures, dtype=np.float32), components.ravel()])
    levels = np.full((256, 3), 255, np.float32)
    levels[:, channel] = np.arange(256)
    p = np.exp(ops.convert_to_numpy(log_likelihood(levels, np.tile(parameters, (256, 1)))))
    assert p.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_likelihood_agrees_with_a_float64_reference_at_the_edges_too():
    rng = np.random.default_rng(5)
    levels = np.concatenate([rng.integers(0, 256, (200, 3)), [[0, 0, 0], [255, 255, 255], [0, 255, 1], [254, 0, 255]]]).astype(np.float32)
    for _ in range(5):
        parameters = rng.normal(0, 1, 30).astype(np.float32)
        ours = ops.convert_to_numpy(log_likelihood(levels, np.tile(parameters, (len(levels), 1))))
        np.testing.assert_allclose(ours, reference(levels, parameters), rtol=1e-4, atol=1e-4)


def test_the_likelihood_stays_finite_where_a_pixel_lies_far_from_a_narrow_component():
    narrow = np.array([[0.0, 1.0, 1.0, 1.0, -20.0, -20.0, -20.0, 0.0, 0.0, 0.0]], np.float32)
    assert np.isfinite(ops.convert_to_numpy(log_likelihood(np.zeros((1, 3), np.float32), narrow))).all()


def test_the_mean_is_the_mean_of_the_density():
    parameters = np.array([0.3, -0.2, 0.1, 0.0, -0.1, -3, -3, -3, 0.4, -0.3, 0.2, -0.3, 0.2, 0.1, -3, -3, -3, 0.1, 0.5, -0.4], np.float32)
    values = np.arange(0, 256, 5)
    grid = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    p = np.exp(reference(grid, parameters))
    expected = (p[:, None] * grid).sum(axis=0) / p.sum() / 255
    np.testing.assert_allclose(ops.convert_to_numpy(likelihood_mean(parameters[None]))[0], expected, atol=2e-3)


def test_kl_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    for delta_mean, delta_log_sigma, log_sigma in rng.normal(0, 0.7, (5, 3)):
        noise = rng.standard_normal(400_000)
        z = delta_mean + np.exp(log_sigma + delta_log_sigma) * noise  # the prior's mean at 0
        log_q = -0.5 * noise**2 - log_sigma - delta_log_sigma
        log_p = -0.5 * (z * np.exp(-log_sigma)) ** 2 - log_sigma
        ours = float(residual_kl(*(np.float32(v) for v in (delta_mean, delta_log_sigma, log_sigma))))
        assert ours == pytest.approx((log_q - log_p).mean(), abs=0.02)


def test_a_posterior_equal_to_the_prior_costs_nothing():
    zero = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(ops.convert_to_numpy(residual_kl(zero, zero, zero + 1.3)), 0.0)


def test_soft_clamp_keeps_small_numbers_and_bounds_large_ones():
    clamped = ops.convert_to_numpy(soft_clamp(np.array([-1e4, 0.01, 1e4], np.float32)))
    np.testing.assert_allclose(clamped, [-5, 0.01, 5], atol=1e-5)
