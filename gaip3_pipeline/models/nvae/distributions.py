"""The densities of NVAE: soft-clamped residual normals, discretised logistics for colour pictures,
Bernoulli for black and white pictures.

All are computed in float32. Sources: NVAE (Vahdat and Kautz 2020, arXiv 2007.03898), PixelCNN++
(Salimans et al. 2017, arXiv 1701.05517)."""

from dataclasses import dataclass
from typing import Any, Protocol

from keras import ops

from gaip3_pipeline.models.backend import fused

Tensor = Any
PIXEL_LEVELS = 256
MIN_LOG_SCALE = -7.0


def soft_clamp(x: Tensor, bound: float = 5.0) -> Tensor:
    """``x`` bounded to ±``bound`` with a non-zero gradient everywhere."""
    return bound * ops.tanh(x / bound)


def residual_kl(delta_mean: Tensor, delta_log_sigma: Tensor, prior_log_sigma: Tensor) -> Tensor:
    """KL(q || p) per latent, in nats, for p = N(μ, σ) and q = N(μ + Δμ, σ·Δσ): NVAE, equation 2.
    Any shape."""
    return (
        0.5
        * (
            ops.square(delta_mean) * ops.exp(-2.0 * prior_log_sigma)
            + ops.exp(2.0 * delta_log_sigma)
            - 1.0
        )
        - delta_log_sigma
    )


def residual_sample(
    mean: Tensor, log_sigma: Tensor, delta_mean: Tensor, delta_log_sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A draw z = μ + Δμ + σ·Δσ·noise of q = N(μ + Δμ, σ·Δσ), its KL to p = N(μ, σ), and log p(z) −
    log q(z): NVAE, section 3.2.

    All of one shape ``(B, …)``; KL and log-ratio are per latent, in nats.
    """
    z = mean + delta_mean + ops.exp(log_sigma + delta_log_sigma) * noise
    log_p = -0.5 * ops.square((z - mean) * ops.exp(-log_sigma)) - log_sigma
    log_q = -0.5 * ops.square(noise) - log_sigma - delta_log_sigma
    return z, residual_kl(delta_mean, delta_log_sigma, log_sigma), log_p - log_q


class Likelihood(Protocol):
    """p(x | z) of a picture, pixel by pixel."""

    @property
    def picture_channels(self) -> int:
        """Channels of a picture."""
        ...

    @property
    def channels(self) -> int:
        """Parameters per pixel."""
        ...

    def log_likelihood(self, levels: Tensor, parameters: Tensor) -> Tensor:
        """Nats per pixel ``(...)`` of ``levels (..., C)`` in 0..255 under ``parameters (...,
        channels)``."""
        ...

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean picture ``(..., C)`` in 0..1, differentiable."""
        ...


@dataclass(frozen=True)
class LogisticMixture:
    """A mixture of discretised logistics over RGB: per component a weight, three means, three
    log-scales, three coefficients."""

    mixtures: int
    picture_channels: int = 3

    @property
    def channels(self) -> int:
        return 10 * self.mixtures

    def log_likelihood(self, levels: Tensor, parameters: Tensor) -> Tensor:
        return log_likelihood(levels, parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        return likelihood_mean(parameters)


@dataclass(frozen=True)
class Bernoulli:
    """Black and white pixels, each white with its own probability: the likelihood of NVAE for
    binarised MNIST."""

    picture_channels: int = 1

    @property
    def channels(self) -> int:
        return 1

    def log_likelihood(self, levels: Tensor, parameters: Tensor) -> Tensor:
        logits = ops.cast(parameters, "float32")
        white = ops.cast(ops.cast(levels, "float32") > 127.0, "float32")
        return ops.sum(white * logits - ops.softplus(logits), axis=-1)

    def mean(self, parameters: Tensor) -> Tensor:
        return ops.sigmoid(ops.cast(parameters, "float32"))


def likelihood_of(name: str, mixtures: int) -> Likelihood:
    """The likelihood of the setting ``likelihood``. Raises ``ValueError`` for an unknown name."""
    known: dict[str, Likelihood] = {
        "logistics": LogisticMixture(mixtures),
        "bernoulli": Bernoulli(),
    }
    if name not in known:
        raise ValueError(f"nvae: likelihood must be one of {', '.join(known)}, not {name!r}")
    return known[name]


@fused
def log_likelihood(levels: Tensor, parameters: Tensor) -> Tensor:
    """log p(pixel) in nats of ``levels (..., 3)`` in 0..255 under ``parameters (..., 10·K)``:
    PixelCNN++, sections 2.1 and 2.2.

    Each channel is a logistic whose mass is summed over bins of one grey level; the outermost bins
    extend to infinity. Green depends on red, and blue on both, through the component's
    coefficients."""
    log_weights, means, log_scales, coefficients = _split(parameters)
    x = _planes(levels) * (2.0 / (PIXEL_LEVELS - 1)) - 1.0  # (3, N)
    red, green = x[0], x[1]
    inverse_scale = ops.exp(-log_scales)
    shift = ops.stack(
        [
            ops.zeros_like(coefficients[:, 0]),
            coefficients[:, 0] * red,
            coefficients[:, 1] * red + coefficients[:, 2] * green,
        ],
        axis=1,
    )
    centred = x - (means + shift)
    half_bin = 1.0 / (PIXEL_LEVELS - 1)
    upper = (centred + half_bin) * inverse_scale
    lower = (centred - half_bin) * inverse_scale
    # σ(upper) − σ(lower) = σ(upper)·σ(−lower)·(1 − exp(lower − upper)): exact where the plain
    # difference underflows. The outermost bins omit the factor of their missing edge.
    above = ops.cast(x > -1.0 + half_bin, "float32")
    below = ops.cast(x < 1.0 - half_bin, "float32")
    log_bins = (
        -below * ops.softplus(-upper)
        - above * ops.softplus(lower)
        + above * below * ops.log(-ops.expm1(-2.0 * half_bin * inverse_scale))
    )
    pixels = ops.logsumexp(log_weights + ops.sum(log_bins, axis=1), axis=0)
    return ops.reshape(pixels, ops.shape(levels)[:-1])


def likelihood_mean(parameters: Tensor) -> Tensor:
    """The mean colour ``(..., 3)`` in 0..1 of ``parameters (..., 10·K)``, differentiable."""
    log_weights, means, _, coefficients = _split(parameters)
    red = means[:, 0]
    green = means[:, 1] + coefficients[:, 0] * red
    blue = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
    weights = ops.exp(log_weights)
    mean = ops.stack(
        [ops.sum(weights * channel, axis=0) for channel in (red, green, blue)], axis=-1
    )
    return ops.reshape(mean * 0.5 + 0.5, (*ops.shape(parameters)[:-1], 3))


def _split(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-weights (K, N), means, log-scales and coefficients (K, 3, N) of the N pixels."""
    planes = _planes(parameters)
    k = planes.shape[0] // 10
    log_weights = ops.log_softmax(planes[:k], axis=0)
    rest = ops.reshape(planes[k:], (k, 9, -1))
    return (
        log_weights,
        rest[:, 0:3],
        ops.maximum(rest[:, 3:6], MIN_LOG_SCALE),
        ops.tanh(rest[:, 6:9]),
    )


def _planes(x: Tensor) -> Tensor:
    """``(..., C)`` to ``(C, N)`` float32: on CPUs a training step over long rows takes half the
    time of one over rows of three."""
    return ops.transpose(ops.reshape(ops.cast(x, "float32"), (-1, x.shape[-1])))
