"""Metrics from nearest neighbours: how well samples cover the real pictures, and whether they copy
training pictures."""

import numpy as np

NEIGHBOURS = 5


def neighbourhoods(samples: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of the
    features ``samples (N, D)`` and ``real (M, D)``.

    The ball of a picture reaches to its ``k``-th nearest neighbour in its own set. ``precision``:
    the share of samples inside the ball of a real picture; ``recall``: the share of real pictures
    inside the ball of a sample; ``density``: the mean number of real balls that contain a sample,
    divided by ``k``; ``coverage``: the share of real balls that contain a sample. Two sets of the
    same distribution have a density of about 1."""
    between = _distances(real, samples)
    real_radius, sample_radius = (_radius(x, k) for x in (real, samples))
    in_real = between < real_radius[:, None]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float((between < sample_radius[None]).any(axis=1).mean()),
        "density": float(in_real.sum(axis=0).mean() / k),
        "coverage": float(in_real.any(axis=1).mean()),
    }


def nearest(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``features (N, D)`` its nearest row of ``others (M, D)``: distances
    ``(N,)`` and indices ``(N,)``."""
    distances = _distances(features, others)
    index = distances.argmin(axis=1)
    return distances[np.arange(len(features)), index], index


def copying(samples: np.ndarray, held_out: np.ndarray) -> float:
    """The probability that a sample is nearer to the training pictures than a held-out picture is;
    .5 means no copying.

    ``samples (N,)``, ``held_out (M,)``: distances to the nearest training picture; ties count half
    (the Mann-Whitney statistic of Meehan et al. 2020, section 3). Blurred samples lie near the mean
    of all pictures and may exceed .5 without copying, so a high value needs a visual check."""
    difference = np.sign(held_out[None] - samples[:, None])
    return float(difference.mean() / 2.0 + 0.5)


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """The distance of each row to its ``k``-th nearest other row, or to the farthest if there are
    fewer."""
    distances = np.sort(_distances(x, x), axis=1)
    return distances[:, min(k, len(x) - 1)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances ``(N, M)``; those of equal rows are 0 up to rounding."""
    centre = b.mean(axis=0, dtype=np.float64)
    a, b = a.astype(np.float64) - centre, b.astype(np.float64) - centre
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.sqrt(np.clip(squares, 0.0, None))


def mean_pairwise_distance(features: np.ndarray) -> float:
    """The mean Euclidean distance between the features ``(N, D)`` of different pictures, a measure
    of diversity. NaN for fewer than 2."""
    n = len(features)
    if n < 2:
        return float("nan")
    f = features.astype(np.float64) - features.mean(axis=0)
    squares = (f**2).sum(axis=1)
    distances = np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * f @ f.T, 0, None))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (n * (n - 1)))
