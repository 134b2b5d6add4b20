"""Confidence intervals of 95 %."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap, norm

Z_95 = float(norm.ppf(0.975))
RESAMPLES = 1_000


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of the share ``successes / n``; (0, 1) for ``n`` =
    0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    figure: Callable[..., Any], *samples: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of ``figure(*samples, axis=-1)``. Rows of ``samples``, ``(N,)`` each,
    are resampled together; ``figure`` gets ``(resamples, N)`` of each.

    Resamples without a finite value are ignored. (NaN, NaN) if no resample has a finite value, or
    for fewer than two rows."""
    if len(samples[0]) < 2:
        return math.nan, math.nan
    drawn = bootstrap(
        [np.asarray(s) for s in samples],
        figure,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    found = drawn[np.isfinite(drawn)]
    return (
        (float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975)))
        if len(found)
        else (math.nan, math.nan)
    )
