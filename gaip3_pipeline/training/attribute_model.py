"""The models of the five values: Gaussian processes on features learned without labels, with a
relevance for each region.

The covariance of two pictures falls exponentially with the distance of their features, each
region and part of the face with a relevance of its own (automatic relevance determination,
Rasmussen and Williams 2006, section 5.1), and is averaged over each picture and its mirror
image. Relevances, noise and scale have the greatest marginal likelihood of the labels (their
equation 5.8). On 790 photographs this does better out of fold than a convolutional network for
each value, in seconds (docs/experiments/0018), and each prediction has a standard deviation."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.optimize import minimize

from gaip3_pipeline.attributes import BRIGHTENED, MIRRORED
from gaip3_pipeline.imaging.mapping import cores, in_order
from gaip3_pipeline.imaging.transform import brightened_value, brightness_ratio
from gaip3_pipeline.layout import weights_file
from gaip3_pipeline.settings import InputModel
from gaip3_pipeline.tables.files import write_hdf5
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.tables.values import DECIMALS, as_values
from gaip3_pipeline.threads import one_blas_thread
from gaip3_pipeline.training.label_regression import mirror_kernel, squared_distances
from gaip3_pipeline.training.linear_algebra import cholesky, inverse

FOLDS = 4
ITERATIONS = 25  # of the search; further ones change the likelihood little
# weight of the penalty on log relevances that differ; it bounds those of irrelevant regions
_PULL = 0.02
_TINY = 1e-9  # added to a squared distance, whose root has no derivative at 0
_BLOCK = 1024  # pictures predicted at a time
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class AttributeGP:
    """The Gaussian process of one attribute.

    ``features (2, n, D) float16`` of the labelled pictures and their mirror images; ``values (n,)``
    of their labels; ``groups (G + 1,) int``: the limits of each region's features;
    ``relevance (G,)``: the weight of each region's squared distances. ``noise`` and ``scale`` are
    the variances of a label's noise and of the process, relative to the variance of the labels."""

    attribute: str
    features: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    relevance: np.ndarray
    noise: float
    scale: float
    repeats: int  # number of pictures that share a label and its noise

    def predict(
        self, features: np.ndarray, progress: Done | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The values, in 0..1 with 4 decimals, and the standard deviations of a label about them,
        ``(N,) float32`` each, for ``features (2, N, D)``."""
        values, deviations = self.posterior(features, progress)
        return as_values(values), np.round(deviations, DECIMALS).astype(np.float32)

    @one_blas_thread
    def posterior(
        self, features: np.ndarray, progress: Done | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`predict`, neither clipped nor rounded, ``(N,) float64`` each."""
        values, deviations = np.empty(features.shape[1]), np.empty(features.shape[1])
        known, inverted, weights = self._conditioned
        mean, deviation = _moments(self.attribute, self.values)
        sign = _sign(self.attribute)

        def predict(start: int) -> int:
            some = slice(start, start + _BLOCK)
            x = features[:, some] * _spread(np.sqrt(self.relevance), self.groups)
            between = self.scale * mirror_kernel(x, known, exponential, sign)
            own = self.scale * 0.5 * (1.0 + sign * exponential(np.square(x[0] - x[1]).sum(axis=1)))
            variance = own - np.einsum("ij,ij->i", between @ inverted, between)
            values[some] = mean + deviation * (between @ weights)
            deviations[some] = deviation * np.sqrt(np.maximum(variance, 0.0) + self.noise)
            return min(start + _BLOCK, len(values))

        for done in in_order(predict, range(0, len(values), _BLOCK), cores()):
            if progress:
                progress(done, len(values))
        return values, deviations

    @one_blas_thread
    def left_out(self) -> np.ndarray:
        """Leave-one-out predictions: the value of each labelled picture, ``(n,)``, predicted
        without its label (Rasmussen and Williams 2006, equation 5.12)."""
        _, inverted, weights = self._conditioned
        return self.values - _moments(self.attribute, self.values)[1] * weights / np.diag(inverted)

    @cached_property
    def _conditioned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The features of the labelled pictures weighted by relevance, the inverse of their
        covariance, and its product with the labels."""
        known = self.features * _spread(np.sqrt(self.relevance), self.groups)
        covariance = (
            self.scale * mirror_kernel(known, known, exponential, _sign(self.attribute))
        ).astype(np.float64)
        covariance[np.diag_indices(len(covariance))] += self.noise * self.repeats
        inverted = inverse(cholesky(covariance))
        mean, deviation = _moments(self.attribute, self.values)
        return (
            known,
            inverted.astype(np.float32),
            (inverted @ ((self.values - mean) / deviation)).astype(np.float32),
        )


@dataclass(frozen=True)
class InputResult:
    """The process fitted to all labels, and the out-of-fold predictions of the labelled pictures:
    value and standard deviation, ``(N,) float32``."""

    process: AttributeGP
    predicted: np.ndarray
    deviation: np.ndarray


@one_blas_thread
def train_input_model(
    attribute: str,
    features: np.ndarray,
    groups: Sequence[int] | np.ndarray,
    values: np.ndarray,
    bucket: np.ndarray,
    settings: InputModel,
    *,
    repeats: int = 1,
    progress: Done | None = None,
) -> InputResult:
    """Fit the process of ``attribute`` to all labels, and for each of four folds to the labels of
    the others, for out-of-fold predictions.

    ``features (2, N, D)`` of labelled pictures and their mirror images with the regions' limits
    ``groups`` (features/groups.py); ``values (N,)`` in 0..1; ``bucket (N,)`` of the split, equal
    for twins. The out-of-fold prediction of a picture does not depend on its own label or on those
    of its twins, not even through the relevances. With ``repeats`` above 1 the pictures come in
    that many blocks, in the same order and with the same labels or labels derived from them:
    originals, then their brightness copies. Raises ``ValueError`` if a fold leaves fewer than two
    labels."""
    fold = folds_of(bucket, FOLDS)
    predicted, deviation = np.zeros(len(values), np.float32), np.zeros(len(values), np.float32)
    seen = [fold != k for k in range(FOLDS)]
    if min(some.sum() for some in seen) < 2:
        raise ValueError(
            f"input model {attribute}: {len(values)} labels are too few for {FOLDS} folds:"
            " label more images"
        )
    fits = [some for some in seen if not some.all()] + [np.ones(len(values), bool)]

    def fitted(some: np.ndarray) -> AttributeGP:
        process = fit_process(attribute, features[:, some], groups, values[some], settings, repeats)
        if not some.all():
            predicted[~some], deviation[~some] = process.predict(features[:, ~some])
        return process

    # The fits do not depend on each other, and each uses one thread. The limit is that of this
    # thread, since threadpoolctl lets one thread at a time set it.
    processes: list[AttributeGP] = []
    for process in in_order(fitted, fits, cores()):
        processes.append(process)
        if progress:
            progress(len(processes), len(fits))
    return InputResult(processes[-1], predicted, deviation)


def with_copies(attribute: str, values: np.ndarray, stems: Iterable[str]) -> np.ndarray:
    """``values (N,)`` of the pictures with these ``stems``, followed by the values of their
    brightness copies: ``(2N,)``."""
    ratios = np.array([brightness_ratio(stem) for stem in stems])
    return np.append(
        values, brightened_value(values, ratios) if attribute in BRIGHTENED else values
    )


@one_blas_thread
def fit_process(
    attribute: str,
    features: np.ndarray,
    groups: Sequence[int] | np.ndarray,
    values: np.ndarray,
    settings: InputModel,
    repeats: int = 1,
) -> AttributeGP:
    """The process with the largest marginal likelihood; shapes as in :func:`train_input_model`, all
    pictures labelled.

    The search uses at most ``settings.relevance_labels`` pictures of the first block, evenly spaced
    in the order of their values so that rare values are included. Brightness copies are added only
    after the search: a label that occurs twice would appear to have no noise."""
    groups, (mean, deviation) = np.asarray(groups), _moments(attribute, values)
    order = np.argsort(values[: len(values) // repeats], kind="stable")
    seen = np.sort(
        order[
            np.unique(
                np.linspace(0, len(order) - 1, min(len(order), settings.relevance_labels))
                .round()
                .astype(int)
            )
        ]
    )
    y = (values[seen].astype(np.float64) - mean) / deviation
    relevance, noise, scale = _search(
        _distances(features[:, seen].astype(np.float32), groups),
        y,
        _sign(attribute),
        settings.least_noise,
    )
    return AttributeGP(
        attribute,
        features.astype(np.float16),
        np.asarray(values, np.float64),
        groups,
        relevance,
        noise,
        scale,
        repeats,
    )


def save_input_model(process: AttributeGP, folder: Path, name: str = "model") -> None:
    """Write ``NAME.weights.h5``, completely or not at all."""
    arrays = {f.name: np.asarray(getattr(process, f.name)) for f in dataclasses.fields(process)}
    write_hdf5(weights_file(folder, name), arrays)


def load_input_model(folder: Path, name: str = "model") -> AttributeGP:
    """The process of ``folder``. Raises ``FileNotFoundError`` when there is none."""
    path = weights_file(folder, name)
    if not path.exists():
        raise FileNotFoundError(f"no trained model at {path}")
    with h5py.File(path) as file:
        arrays: dict[str, Any] = {key: item[()] for key, item in file.items()}
    attribute = arrays.pop("attribute").decode()
    plain: dict[str, Any] = {
        k: v if isinstance(v, np.ndarray) else v.item() for k, v in arrays.items()
    }
    return AttributeGP(attribute=attribute, **plain)


def _search(
    distances: np.ndarray, y: np.ndarray, sign: int, least_noise: float
) -> tuple[np.ndarray, float, float]:
    """Relevances ``(G,)``, noise and scale with the largest marginal likelihood, found by L-BFGS
    over their logarithms."""
    usual = np.median(distances[:, 0], axis=(1, 2)) + 1e-9
    n_groups = len(distances)
    start = np.append(
        np.full(n_groups, np.log(0.5 / n_groups)), (np.log(max(0.1, least_noise)), 0.0)
    )
    limits = [(-8.0, 3.0)] * n_groups + [(np.log(least_noise), 1.0), (-3.0, 3.0)]
    data = distances / usual[:, None, None, None], y, sign
    found = minimize(
        negative_log_marginal_likelihood,
        start,
        data,
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": ITERATIONS},
    ).x
    return (
        np.exp(found[:n_groups]) / usual,
        float(np.exp(found[n_groups])),
        float(np.exp(found[-1])),
    )


def negative_log_marginal_likelihood(
    logs: np.ndarray, distances: np.ndarray, y: np.ndarray, sign: int
) -> tuple[float, np.ndarray]:
    """Negative log marginal likelihood of ``y (n,)`` plus the penalty on relevances that differ,
    and its gradient.

    ``logs (G + 2,)``: logarithms of relevances, noise and scale; ``distances`` as from
    :func:`_distances`. Rasmussen and Williams 2006, equations 5.8 and 5.9."""
    n_groups, n = len(distances), len(y)
    equal = np.log(0.5 / n_groups)
    # plain floats: NumPy scalars would convert the arrays to float64
    relevance, (noise, scale) = np.exp(logs[:n_groups]), np.exp(logs[n_groups:]).tolist()
    apart = np.sqrt(np.tensordot(relevance.astype(np.float32), distances, 1) + _TINY)
    terms = np.exp(-apart)
    kernel = 0.25 * (terms[0] + terms[1] + sign * (terms[2] + terms[2].T))
    covariance = (scale * kernel).astype(np.float64)
    covariance[np.diag_indices(n)] += noise
    factor = cholesky(covariance)
    inverted = inverse(factor)
    weights = inverted @ y
    value = (
        0.5 * y @ weights
        + np.log(np.diag(factor)).sum()
        + _PULL * np.square(logs[:n_groups] - equal).sum()
    )
    slope = (0.5 * (inverted - np.outer(weights, weights))).astype(np.float32)
    pull = (
        terms
        / (2 * apart)
        * (0.25 * scale * slope)
        * np.array([1, 1, 2 * sign], np.float32)[:, None, None]
    )
    gradient = np.empty_like(logs)
    gradient[:n_groups] = -relevance * (
        distances.reshape(n_groups, -1) @ pull.ravel()
    ) + 2 * _PULL * (logs[:n_groups] - equal)
    gradient[n_groups:] = noise * np.trace(slope), scale * (slope * kernel).sum()
    return float(value), gradient


def exponential(squares: np.ndarray) -> np.ndarray:
    """The exponential covariance at distances of these ``squares`` (Rasmussen and Williams 2006,
    section 4.2.1).

    It does better out of fold than the Gaussian one and the smoother ones between
    (docs/experiments/0032): values are not smooth in features."""
    return np.exp(-np.sqrt(squares + _TINY))


def _distances(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``(G, 3, n, n) float32``: squared distances by region between pictures, between mirror
    images, and between pictures and mirror images."""
    n = x.shape[1]
    out = np.empty((len(groups) - 1, 3, n, n), np.float32)
    for g, part in enumerate(_parts(x, groups)):
        for i, (a, b) in enumerate(((0, 0), (1, 1), (0, 1))):
            out[g, i] = squared_distances(part[a], part[b])
    return out


def _parts(x: np.ndarray, groups: np.ndarray) -> Iterable[np.ndarray]:
    return (x[..., start:end] for start, end in pairwise(groups))


def _spread(of_groups: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``(D,) float32``: the number of a feature's region, for each feature."""
    return np.repeat(of_groups, np.diff(groups)).astype(np.float32)


def _moments(attribute: str, values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the labels; the mean of a mirrored attribute is fixed at one
    half."""
    mean = 0.5 if attribute in MIRRORED else float(values.mean())
    return mean, float(np.sqrt(np.square(values - mean).mean())) or 1.0


def _sign(attribute: str) -> int:
    return -1 if attribute in MIRRORED else 1
