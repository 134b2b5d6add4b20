"""Figures from nearest neighbours: how much of the real pictures samples reach, and whether they
copy those that were learned from."""

import numpy as np

NEIGHBOURS = 5


def neighbourhoods(samples: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of
    features ``(N, D)``, ``(M, D)``.

    A picture's ball reaches to its ``k``-th nearest neighbour of its own kind. ``precision``:
    share of samples inside a real ball; ``recall``: share of real pictures inside a sample's;
    ``density``: real balls a sample lies in, over ``k``; ``coverage``: share of real balls with
    a sample in them. Two sets of one kind have a density of 1."""
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
    """The chance that a sample is nearer to what was learned from than a held-out picture is: .5
    where nothing is copied.

    ``samples (N,)``, ``held_out (M,)``: distances to the nearest training picture; ties count
    half (the Mann-Whitney statistic of Meehan et al. 2020, section 3). Blurred samples lie near
    every picture's mean and may pass .5 without copying: look at them."""
    difference = np.sign(held_out[None] - samples[:, None])
    return float(difference.mean() / 2.0 + 0.5)


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """The distance of each row to its ``k``-th nearest other row; to the farthest, if there are
    not so many."""
    distances = np.sort(_distances(x, x), axis=1)
    return distances[:, min(k, len(x) - 1)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances ``(N, M)``, with exact zeros for equal rows kept near 0."""
    centre = b.mean(axis=0, dtype=np.float64)
    a, b = a.astype(np.float64) - centre, b.astype(np.float64) - centre
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.sqrt(np.clip(squares, 0.0, None))


def mean_pairwise_distance(features: np.ndarray) -> float:
    """The mean Euclidean distance between the features ``(N, D)`` of different pictures:
    diversity. NaN for fewer than 2."""
    n = len(features)
    if n < 2:
        return float("nan")
    f = features.astype(np.float64) - features.mean(axis=0)
    squares = (f**2).sum(axis=1)
    distances = np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * f @ f.T, 0, None))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (n * (n - 1)))
