"""Out-of-fold predictions for labelled pictures, by models without them and their twins, in seconds
instead of a training per fold.

A Gaussian process over the features of features/extractor.py (Rasmussen and Williams 2006,
chapter 2), once in their own metric and once in one learned from the labels: the average outer
product of the gradients of the first fit (one round of the recursive feature machine,
Radhakrishnan et al. 2024). The mean of the two comes near the input models on photographs, but
for eyes (docs/experiments/0038)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.threads import one_blas_thread

FOLDS = 4
# variance of a label's noise relative to that of the process; .05 and .15 differ by less than .02
# in R²
NOISE = 0.15
# labels with residuals beyond this many deviations get more noise, in proportion to the square
ROBUST_FROM = 2.0
Fall = Callable[[np.ndarray], np.ndarray]  # squared distances to covariances
# added to the learned metric, so that directions without gradients keep a small weight
_RIDGE = 1e-6


@dataclass(frozen=True)
class CrossFit:
    """``predicted (N,) float64`` in 0..1 and ``variance (N,)``, the sum of the process's and the
    label's, in units of the process.

    Both are out of fold for labelled pictures, and from all labels for others. ``models`` are those
    of all labels."""

    predicted: np.ndarray
    variance: np.ndarray
    models: "list[KernelRegression]"


@dataclass(frozen=True)
class KernelRegression:
    """A Gaussian process of one value, whose kernel is averaged over a picture and its mirror
    image.

    ``features (2, n, d)`` in the metric of the model (``metric (D, d)``; None: unchanged),
    ``inverse`` of the labels' covariance."""

    metric: np.ndarray | None
    features: np.ndarray
    width: float
    sign: int  # -1 where the mirror image's value is 1 - value
    inverse: np.ndarray
    weights: np.ndarray
    mean: float

    @one_blas_thread
    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Posterior covariance ``(n, m)``, in units of the process, between pictures with features
        ``(2, n, D)`` and ``(2, m, D)``."""
        x, y = self._in_metric(a), self._in_metric(b)
        fall = gaussian(self.width)
        known_x, known_y = (mirror_kernel(z, self.features, fall, self.sign) for z in (x, y))
        return mirror_kernel(x, y, fall, self.sign) - known_x @ self.inverse @ known_y.T

    @one_blas_thread
    def posterior(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (which may exceed 0..1) and variance (in units of the process, without the label's
        noise), ``(n,)`` each."""
        x = self._in_metric(features)
        fall = gaussian(self.width)
        between = mirror_kernel(x, self.features, fall, self.sign)
        own = 0.5 * (1.0 + self.sign * fall(np.square(x[0] - x[1]).sum(axis=1)))
        variance = own - np.einsum("ij,ij->i", between @ self.inverse, between)
        return (between @ self.weights + self.mean).astype(np.float64), np.maximum(
            variance, 0.0
        ).astype(np.float64)

    def _in_metric(self, features: np.ndarray) -> np.ndarray:
        return features if self.metric is None else features @ self.metric


def cross_fit(
    features: np.ndarray, values: np.ndarray, bucket: np.ndarray, mirrored: bool
) -> CrossFit:
    """Predicted values of all pictures, out of fold for labelled ones.

    ``features (2, N, D)`` of pictures and their mirror images, ``values (N,)`` in 0..1 with NaN
    where there is no label, ``bucket (N,)`` of the split, equal for twins; ``mirrored``: a mirror
    image has ``1 - value``. The prediction of a picture does not depend on its own label or on
    those of its twins. Raises ``ValueError`` if a fold leaves fewer than two labels to learn
    from."""
    fold, labelled = folds_of(bucket, FOLDS), np.isfinite(values)
    predicted, variance = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for k in range(FOLDS):
        seen, asked = labelled & (fold != k), labelled & (fold == k)
        if seen.sum() < 2:
            raise ValueError(
                f"{labelled.sum()} labels are too few for {FOLDS} folds: label more images"
            )
        predicted[asked], variance[asked] = predict(
            fit_regressions(features[:, seen], values[seen], mirrored), features[:, asked]
        )
    models = fit_regressions(features[:, labelled], values[labelled], mirrored)
    predicted[~labelled], variance[~labelled] = predict(models, features[:, ~labelled])
    return CrossFit(predicted, variance, models)


@one_blas_thread
def fit_regressions(
    features: np.ndarray, values: np.ndarray, mirrored: bool
) -> list[KernelRegression]:
    """The regressions in the features' own metric and in a learned one; shapes as in
    :func:`cross_fit`, all pictures labelled.

    A label that is far from its leave-one-out prediction (closed form, Rasmussen and Williams 2006,
    section 5.4.2) gets more noise, so that wrong labels have less influence: with one label in
    twenty wrong, mean R² against the right ones rose from .60 to .62 on photographs."""
    sign = -1 if mirrored else 1
    noise = np.full(len(values), NOISE)
    first = _fit(None, features, values, noise, sign)
    # the leave-one-out residual divided by its standard deviation
    off = np.abs(first.weights) / np.sqrt(np.diag(first.inverse))
    off /= 1.4826 * np.median(off) + 1e-6
    noise *= np.maximum(1.0, np.square(off / ROBUST_FROM))
    plain = _fit(None, features, values, noise, sign)
    metric = _learned_metric(plain)
    return [plain, _fit(metric, features @ metric, values, noise, sign)]


def predict(
    models: Sequence[KernelRegression], features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of ``models``, clipped to 0..1, and their mean variance plus that of a label,
    ``(n,) float64`` each."""
    found = [model.posterior(features) for model in models]
    return np.clip(np.mean([m for m, _ in found], axis=0), 0.0, 1.0), np.mean(
        [v for _, v in found], axis=0
    ) + NOISE


def _fit(
    metric: np.ndarray | None, x: np.ndarray, values: np.ndarray, noise: np.ndarray, sign: int
) -> KernelRegression:
    squares = squared_distances(x[0], x[0])
    width = float(2.0 * np.median(squares[np.triu_indices(len(squares), 1)])) + 1e-12
    covariance = mirror_kernel(x, x, gaussian(width), sign)
    covariance[np.diag_indices(len(covariance))] += noise.astype(np.float32)
    inverse = np.linalg.inv(covariance)
    mean = 0.5 if sign < 0 else float(values.mean())
    return KernelRegression(
        metric, x, width, sign, inverse, inverse @ (values - mean).astype(np.float32), mean
    )


def _learned_metric(model: KernelRegression) -> np.ndarray:
    """``(D, D)``: the root of the mean outer product of the gradients at the labelled pictures and
    their mirror images."""
    x = np.concatenate(list(model.features))
    weights = np.concatenate([model.weights, model.sign * model.weights])
    pull = gaussian(model.width)(squared_distances(x, x)) * weights
    # float64, so that the product's rounding errors stay below the ridge
    gradients = (pull.sum(axis=1)[:, None] * x - pull @ x).astype(np.float64)
    outer = gradients.T @ gradients
    return np.linalg.cholesky(
        outer / (np.trace(outer) / len(outer) + 1e-30) + _RIDGE * np.eye(len(outer))
    ).astype(np.float32)


def mirror_kernel(a: np.ndarray, b: np.ndarray, fall: Fall, sign: int) -> np.ndarray:
    """Covariance ``(n, m)`` between pictures with features ``(2, n, D)`` and ``(2, m, D)``:
    ``fall`` of squared distances.

    It is averaged over a picture and its mirror image; ``sign`` is -1 if the mirror image has
    ``1 - value``."""
    same, other = (
        fall(squared_distances(a[0], b[i])) + fall(squared_distances(a[1], b[1 - i]))
        for i in (0, 1)
    )
    return 0.25 * (same + sign * other)


def gaussian(width: float) -> Fall:
    """The Gaussian covariance exp(-d² / ``width``) as a function of squared distances d²."""
    return lambda squares: np.exp(-squares / width)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances ``(n, m)`` of ``(n, d)`` and ``(m, d)``."""
    return np.maximum(
        np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2.0 * a @ b.T, 0.0
    )
