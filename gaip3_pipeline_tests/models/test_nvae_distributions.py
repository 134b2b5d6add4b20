"""The densities of the NVAE are those of its papers, checked against float64 references and by
sampling."""

import numpy as np
import pytest
from keras import ops

from gaip3_pipeline.models.nvae.bound import importance_weighted
from gaip3_pipeline.models.nvae.distributions import (
    Bernoulli,
    likelihood_mean,
    likelihood_of,
    log_likelihood,
    residual_kl,
    residual_sample,
    soft_clamp,
)


def reference(levels: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The same density computed directly in float64: PixelCNN++, equation 2."""
    k = len(parameters) // 10
    logits, rest = (
        parameters[:k].astype(np.float64),
        parameters[k:].reshape(k, 9).astype(np.float64),
    )
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
    # the other channels are 255 with probability 1
    components[:, others], components[:, [3 + c for c in others]] = 9.0, -5.0
    parameters = np.concatenate([np.arange(mixtures, dtype=np.float32), components.ravel()])
    levels = np.full((256, 3), 255, np.float32)
    levels[:, channel] = np.arange(256)
    p = np.exp(ops.convert_to_numpy(log_likelihood(levels, np.tile(parameters, (256, 1)))))
    assert p.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_likelihood_agrees_with_a_float64_reference_at_the_edges_too():
    rng = np.random.default_rng(5)
    levels = np.concatenate(
        [rng.integers(0, 256, (200, 3)), [[0, 0, 0], [255, 255, 255], [0, 255, 1], [254, 0, 255]]]
    ).astype(np.float32)
    for _ in range(5):
        parameters = rng.normal(0, 1, 30).astype(np.float32)
        ours = ops.convert_to_numpy(log_likelihood(levels, np.tile(parameters, (len(levels), 1))))
        np.testing.assert_allclose(ours, reference(levels, parameters), rtol=1e-4, atol=1e-4)


def test_the_likelihood_stays_finite_where_a_pixel_lies_far_from_a_narrow_component():
    narrow = np.array([[0.0, 1.0, 1.0, 1.0, -20.0, -20.0, -20.0, 0.0, 0.0, 0.0]], np.float32)
    assert np.isfinite(
        ops.convert_to_numpy(log_likelihood(np.zeros((1, 3), np.float32), narrow))
    ).all()


def test_the_mean_is_the_mean_of_the_density():
    parameters = np.array(
        [
            0.3,
            -0.2,
            0.1,
            0.0,
            -0.1,
            -3,
            -3,
            -3,
            0.4,
            -0.3,
            0.2,
            -0.3,
            0.2,
            0.1,
            -3,
            -3,
            -3,
            0.1,
            0.5,
            -0.4,
        ],
        np.float32,
    )
    values = np.arange(0, 256, 5)
    grid = (
        np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1)
        .reshape(-1, 3)
        .astype(np.float32)
    )
    p = np.exp(reference(grid, parameters))
    expected = (p[:, None] * grid).sum(axis=0) / p.sum() / 255
    np.testing.assert_allclose(
        ops.convert_to_numpy(likelihood_mean(parameters[None]))[0], expected, atol=2e-3
    )


def test_kl_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    for delta_mean, delta_log_sigma, log_sigma in rng.normal(0, 0.7, (5, 3)):
        noise = rng.standard_normal(400_000)
        z = delta_mean + np.exp(log_sigma + delta_log_sigma) * noise  # the prior's mean at 0
        log_q = -0.5 * noise**2 - log_sigma - delta_log_sigma
        log_p = -0.5 * (z * np.exp(-log_sigma)) ** 2 - log_sigma
        ours = float(
            residual_kl(*(np.float32(v) for v in (delta_mean, delta_log_sigma, log_sigma)))
        )
        assert ours == pytest.approx((log_q - log_p).mean(), abs=0.02)


def test_a_posterior_equal_to_the_prior_costs_nothing():
    zero = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(ops.convert_to_numpy(residual_kl(zero, zero, zero + 1.3)), 0.0)


def test_soft_clamp_keeps_small_numbers_and_bounds_large_ones():
    clamped = ops.convert_to_numpy(soft_clamp(np.array([-1e4, 0.01, 1e4], np.float32)))
    np.testing.assert_allclose(clamped, [-5, 0.01, 5], atol=1e-5)


def test_black_and_white_have_probabilities_that_sum_to_one_and_a_mean():
    logits = np.linspace(-30, 30, 61, dtype=np.float32)[:, None]
    p = [
        np.exp(ops.convert_to_numpy(Bernoulli().log_likelihood(np.full((61, 1), level), logits)))
        for level in (0, 255)
    ]
    np.testing.assert_allclose(p[0] + p[1], 1.0, atol=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(Bernoulli().mean(logits))[:, 0], p[1], atol=1e-6
    )


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match="logistics, bernoulli, not 'normal'"):
        likelihood_of("normal", 1)


class LinearGaussian:
    """p(z) = N(0, 1), p(x | z) = N(slope · z + offset, spread): its evidence and posterior are
    known exactly."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self.slope, self.offset, self.spread = 1.7, -0.4, 0.6
        self.x = rng.normal(self.offset, np.hypot(self.slope, self.spread), n)
        self.variance = 1.0 / (1.0 + (self.slope / self.spread) ** 2)
        self.mean = self.variance * self.slope * (self.x - self.offset) / self.spread**2

    def evidence(self) -> np.ndarray:
        return normal(self.x, self.offset, np.hypot(self.slope, self.spread))

    def log_weights(self, k: int, shift: float = 0.0, widen: float = 1.0) -> np.ndarray:
        """``(k, n)`` of the exact posterior, moved by ``shift`` of its deviations and widened."""
        deviation = np.sqrt(self.variance)
        zero = np.zeros((k, len(self.x)), np.float32)
        delta_mean = np.broadcast_to(self.mean + shift * deviation, zero.shape).astype(np.float32)
        delta_log_sigma = np.full_like(zero, np.log(deviation * widen))
        noise = np.random.default_rng(1).standard_normal(zero.shape).astype(np.float32)
        z, _, log_ratio = (
            ops.convert_to_numpy(t)
            for t in residual_sample(zero, zero, delta_mean, delta_log_sigma, noise)
        )
        return normal(self.x, self.slope * z + self.offset, self.spread) + log_ratio


def normal(x, mean, deviation):
    return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)


def test_under_the_exact_posterior_a_single_draw_gives_the_exact_evidence_of_a_linear_gaussian():
    model = LinearGaussian(50)
    np.testing.assert_allclose(
        importance_weighted(model.log_weights(1)), model.evidence(), atol=1e-4
    )


def test_under_a_wrong_posterior_the_importance_weighted_bound_rises_to_the_exact_evidence():
    model = LinearGaussian(200)
    exact = model.evidence().mean()
    bounds = [
        importance_weighted(model.log_weights(k, shift=0.8, widen=1.3)).mean()
        for k in (1, 10, 5000)
    ]
    assert bounds[0] < bounds[1] - 0.1 < bounds[2] - 0.1
    assert bounds[2] == pytest.approx(exact, abs=0.01)
    assert bounds[0] < exact - 0.2
