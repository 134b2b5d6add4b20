"""Fitting of the aggregate posterior (models/aggregate_posterior.py) to the encoder's posteriors of
pictures."""

import numpy as np
from sklearn.covariance import ledoit_wolf

from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior, with_one
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.threads import one_blas_thread

DRAWS = 3  # of the posterior for each picture
# Greatest dimension of a group whose covariance is fitted. Covariances of finer groups were shrunk
# to a multiple of the identity when they were fitted.
LARGEST = 1024


@one_blas_thread
def fit_aggregate_posterior(
    nvae: NVAE, images: np.ndarray, values: np.ndarray, split: np.ndarray
) -> tuple[AggregatePosterior, dict[str, float | int]]:
    """Fit the Gaussians to three posterior draws of each picture of split ``train``. Returns them
    with figures of the fit.

    ``images (N, H, W, 3) uint8`` of any size, ``values (N, 5)``, ``split (N,)``. Means are linear
    in the values; covariances are shrunk by the method of Ledoit and Wolf (2004). Figures:
    ``nats``, the mean log density above the prior's of the ``n`` held-out pictures; ``nats_train``,
    that of the fitted pictures; ``largest_variance`` and ``least_variance`` along any direction
    (the prior's are 1); ``shrinkage_0`` … of each group, 1 if the covariance is a multiple of the
    identity. Raises ``ValueError`` for fewer than two pictures to fit."""
    seen = np.asarray(split) == "train"
    if seen.sum() < 2:
        raise ValueError(
            f"aggregate posterior: {int(seen.sum())} of {len(seen)} pictures are in the training"
            " split; it needs 2"
        )
    values = np.asarray(values, np.float32)
    plain = FaceGenerator(nvae)
    draws = [plain.encoded(images, values, draw) for draw in range(DRAWS)]
    given = with_one(np.tile(values[seen], (DRAWS, 1)))
    offsets, factors, figures, variances = [], [], {}, []
    for group in range(len(nvae.latent_shapes)):
        flat = np.concatenate([d[group][seen].reshape(int(seen.sum()), -1) for d in draws]).astype(
            np.float64
        )
        offset = np.linalg.lstsq(given, flat, rcond=1e-3)[0]
        rest = flat - given @ offset
        figures[f"shrinkage_{group}"] = 1.0
        if flat.shape[1] <= LARGEST:
            # The shrinkage is estimated from one draw of each picture, since the draws of one
            # picture are not independent.
            figures[f"shrinkage_{group}"] = float(
                ledoit_wolf(rest[: int(seen.sum())], assume_centered=True)[1]
            )
            scale = (rest**2).mean()
            covariance = rest.T @ rest / len(rest)
            covariance = (1 - figures[f"shrinkage_{group}"]) * covariance + figures[
                f"shrinkage_{group}"
            ] * scale * np.eye(len(covariance))
            variance, directions = np.linalg.eigh(covariance)
            factors.append(
                ((directions * np.sqrt(np.maximum(variance, 1e-6))) @ directions.T).astype(
                    np.float32
                )
            )
            variances += [variance.min(), variance.max()]
        else:
            factors.append(np.array([[np.sqrt((rest**2).mean())]], np.float32))
        offsets.append(offset.astype(np.float32))
    found = AggregatePosterior(offsets, factors)
    gain = np.mean([found.log_density_gain(d, values) for d in draws], axis=0)
    figures |= {
        "n": int((~seen).sum()),
        "nats_train": float(gain[seen].mean()),
        "nats": float(gain[~seen].mean()) if (~seen).any() else np.nan,
    }
    figures |= {
        "largest_variance": float(max(variances, default=1.0)),
        "least_variance": float(min(variances, default=1.0)),
    }
    return found, figures
