"""Figures and pictures about a generator: its bound on held-out images and sweeps of its sliders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keras import ops

from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import area_resize
from gaip3_pipeline.layout import ATTRIBUTES
from gaip3_pipeline.models.nvae.model import NVAE, load_nvae
from gaip3_pipeline.settings import Samples

to_numpy = ops.convert_to_numpy
# The sheet is part of a training, whose settings do not hold these: the defaults.
SHEET_TEMPERATURE, SHEET_GUIDANCE = Samples.temperature, Samples.guidance


@dataclass(frozen=True)
class Bound:
    """Bits per dimension of ``n`` images, the mean over images."""

    n: int
    bits_per_dim: float  # the evidence lower bound, analytic KL
    importance_weighted: float  # the tighter bound by ``samples`` posterior samples (IWAE, arXiv 1509.00519, equation 8)
    samples: int
    standard_error: float  # of bits_per_dim, over images
    kl: dict[str, float]  # nats per image of each latent group, top-down: "1x1", "4x4", …; "4x4 (2)" for a second one


def bits_per_dim(
    model: NVAE, images: np.ndarray, conditions: np.ndarray, *, samples: int = 1, batch_size: int = 64, seed: int = 0
) -> Bound:
    """The bound on ``images`` (N, H, W, 3) uint8 under ``conditions`` (N, 5) from ``samples`` posterior samples each.

    Raises ``ValueError`` when there are no images.
    """
    if not len(images):
        raise ValueError("no images to evaluate on")
    model.noise_seed.state.assign([seed, 0])
    bounds, weighted, kl = [], [], []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        inputs = {"image": np.asarray(images[rows]), "condition": np.asarray(conditions[rows], np.float32)}
        elbo, log_weights = [], []
        for _ in range(samples):
            terms = model(inputs, training=False)
            groups = np.stack([to_numpy(k) for k in terms["kl"]], axis=1).astype(np.float64)
            likelihood = to_numpy(terms["log_likelihood"]).astype(np.float64)
            elbo.append(likelihood - groups.sum(axis=1))
            log_weights.append(likelihood + to_numpy(terms["log_ratio"]))
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
        standard_error=float(per_image.std(ddof=1) / math.sqrt(len(per_image))) if len(per_image) > 1 else math.nan,
        kl=dict(zip(group_names(model), np.concatenate(kl).mean(axis=0).tolist(), strict=True)),
    )


def importance_weighted(log_weights: np.ndarray) -> np.ndarray:
    """``(N,)``: log of the mean over k draws of p(x, z) / q(z | x), from its logarithms ``(k, N)`` (IWAE, equation 8)."""
    return np.logaddexp.reduce(log_weights, axis=0) - math.log(len(log_weights))


def group_names(model: NVAE) -> list[str]:
    """A name for each latent group by its size, top-down."""
    names: list[str] = []
    for h, w, _ in model.latent_shapes:
        name = f"{h}x{w}"
        count = sum(n.split(" ")[0] == name for n in names)
        names.append(f"{name} ({count + 1})" if count else name)
    return names


def sweep(
    model: NVAE,
    noise: Sequence[np.ndarray],
    conditions: np.ndarray,
    attribute_index: int,
    values: Sequence[float],
    temperature: float = 1.0,
    guidance: float = 1.0,
) -> np.ndarray:
    """Pictures with one value swept and all else fixed: ``(N, len(values), H, W, 3)`` float32 in 0..1.

    ``noise`` holds N rows in each array and ``conditions`` (N, 5) the other four values.
    """
    columns = []
    for value in values:
        swept = np.array(conditions, np.float32)
        swept[:, attribute_index] = value
        columns.append(to_numpy(model.decode(noise, swept, temperature, guidance)))
    return np.stack(columns, axis=1)


def rebuild(model: NVAE, images: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Reconstructions ``(N, H, W, 3)`` float32 in 0..1 of ``images`` from their posterior means."""
    return to_numpy(model.decode(model.encode(images, conditions), conditions))


def generator_sheet(folder: Path, images: np.ndarray, values: np.ndarray, split: np.ndarray, columns: int = 8, seed: int = 7) -> bytes:
    """A JPEG of the generator in ``folder``: held-out images above their reconstructions, samples, and a sweep of each slider.

    ``images`` (N, H, W, 3) uint8 of any size, ``values`` (N, 5), ``split`` (N,); training images stand in where nothing is held out.
    """
    model = load_nvae(folder)
    size = (model.settings.height, model.settings.width)
    held_out = np.flatnonzero(np.asarray(split) != "train")
    chosen = np.resize(held_out if len(held_out) else np.arange(len(images)), columns)
    real = np.stack([area_resize(np.asarray(images[i]), *size) for i in chosen])
    drawn = np.random.default_rng(seed).integers(0, len(values), 2 * columns)
    rows = [real / 255.0, rebuild(model, real, values[chosen])]
    rows.append(to_numpy(model.decode(model.sample_noise(2 * columns, seed), values[drawn], SHEET_TEMPERATURE, SHEET_GUIDANCE)))
    one = model.sample_noise(1, seed)
    middle = np.median(values, axis=0, keepdims=True)
    for attribute in range(len(ATTRIBUTES)):
        values_swept = np.linspace(0.0, 1.0, columns).tolist()
        rows.append(sweep(model, one, middle, attribute, values_swept, SHEET_TEMPERATURE, SHEET_GUIDANCE)[0])
    pictures = np.round(np.concatenate(rows) * 255.0).astype(np.uint8)
    title = f"held out | rebuilt | samples (2 rows) | one face, 0 to 1: {', '.join(ATTRIBUTES)}"
    return contact_sheet(list(pictures), columns, cell=(size[1] * 3 // 2, size[0] * 3 // 2), title=title)
