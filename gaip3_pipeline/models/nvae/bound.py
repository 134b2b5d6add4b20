"""The evidence lower bound of pictures under a generator, and bounds by importance weighting."""

import math
from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.models.backend import compiled
from gaip3_pipeline.models.nvae.model import NVAE


@dataclass(frozen=True)
class Bound:
    """Bits per dimension of ``n`` images, the mean over images."""

    n: int
    bits_per_dim: float  # the evidence lower bound, analytic KL
    # the tighter bound by ``samples`` posterior samples (IWAE, arXiv 1509.00519, equation 8)
    importance_weighted: float
    samples: int
    standard_error: float  # of bits_per_dim, over images
    # nats per image of each latent group, top-down: "1x1", "4x4", …; "4x4 (2)" for a second one
    kl: dict[str, float]


def bits_per_dim(
    model: NVAE,
    images: np.ndarray,
    conditions: np.ndarray,
    *,
    samples: int = 1,
    batch_size: int = 64,
    seed: int = 0,
) -> Bound:
    """The bound on ``images (N, H, W, 3) uint8`` under ``conditions (N, 5)`` from ``samples``
    posterior samples each.

    Raises ``ValueError`` if there are no images."""
    if not len(images):
        raise ValueError("no images to evaluate on")
    model.noise_seed.state.assign([seed, 0])
    terms_of = compiled(lambda inputs: model(inputs, training=False), model)
    bounds, weighted, kl = [], [], []
    for start in range(0, len(images), batch_size):
        n = min(batch_size, len(images) - start)
        # batches of one shape, padded by repetition: each shape is compiled
        rows = start + np.arange(min(batch_size, len(images))) % n
        inputs = {
            "image": np.asarray(images[rows]),
            "condition": np.asarray(conditions[rows], np.float32),
        }
        elbo, log_weights = [], []
        for _ in range(samples):
            terms = terms_of(inputs)
            groups = np.stack([k[:n] for k in terms["kl"]], axis=1).astype(np.float64)
            likelihood = terms["log_likelihood"][:n].astype(np.float64)
            elbo.append(likelihood - groups.sum(axis=1))
            log_weights.append(likelihood + terms["log_ratio"][:n])
            kl.append(groups)
        bounds.append(np.mean(elbo, axis=0))
        weighted.append(importance_weighted(np.stack(log_weights)))
    to_bits = -1.0 / (math.prod(images.shape[1:]) * math.log(2.0))
    per_image = np.concatenate(bounds) * to_bits
    return Bound(
        n=len(images),
        bits_per_dim=float(per_image.mean()),
        importance_weighted=float(np.concatenate(weighted).mean() * to_bits),
        samples=samples,
        standard_error=float(per_image.std(ddof=1) / math.sqrt(len(per_image)))
        if len(per_image) > 1
        else math.nan,
        kl=dict(zip(group_names(model), np.concatenate(kl).mean(axis=0).tolist(), strict=True)),
    )


def importance_weighted(log_weights: np.ndarray) -> np.ndarray:
    """``(N,)``: the log of the mean over k draws of p(x, z) / q(z | x), given the logarithms
    ``(k, N)`` (IWAE, equation 8)."""
    return np.logaddexp.reduce(log_weights, axis=0) - math.log(len(log_weights))


def group_names(model: NVAE) -> list[str]:
    """A name for each latent group by its size, top-down."""
    names: list[str] = []
    for h, w, _ in model.latent_shapes:
        name = f"{h}x{w}"
        count = sum(n.split(" ")[0] == name for n in names)
        names.append(f"{name} ({count + 1})" if count else name)
    return names
