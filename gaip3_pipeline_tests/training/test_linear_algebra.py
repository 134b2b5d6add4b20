"""Cholesky factors and inverses while other threads run."""

import threading
import time

import numpy as np
import pytest
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from gaip3_pipeline.threads import one_blas_thread
from gaip3_pipeline.training.linear_algebra import cholesky, inverse


def covariance(n: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(n, 30))
    lengths = np.square(x).sum(axis=1)
    squares = np.maximum(lengths[:, None] + lengths[None] - 2.0 * x @ x.T, 0.0)
    return np.exp(-np.sqrt(squares) / 5) + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", [1, 50, 801, 1300])  # the last one is solved in parts
@one_blas_thread
def test_the_bits_are_those_of_scipy(n: int) -> None:
    matrix = covariance(n)
    factor, lower = cho_factor(matrix, lower=True)
    ours = cholesky(matrix)
    assert np.array_equal(np.tril(ours), np.tril(factor))
    assert np.array_equal(inverse(ours), cho_solve((factor, lower), np.eye(n)))


def test_what_has_no_factor_is_refused() -> None:
    with pytest.raises(LinAlgError, match="not positive definite at row 3"):
        cholesky(np.diag([1.0, 2.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match="infs or NaNs"):
        cholesky(np.array([[1.0, np.nan], [np.nan, 1.0]]))


@one_blas_thread
def test_other_threads_run_meanwhile() -> None:
    factor, spans = cholesky(covariance(1000)), []

    def invert() -> None:
        start = time.monotonic()
        inverse(factor)
        spans.append((start, time.monotonic()))

    worker, seen = threading.Thread(target=invert), []
    worker.start()
    while worker.is_alive():
        seen.append(time.monotonic())
        time.sleep(0)
    ((start, end),) = spans
    # a thread that held the lock would leave the others out for the whole call
    middle = (start + 0.2 * (end - start), start + 0.8 * (end - start))
    assert any(middle[0] < at < middle[1] for at in seen)
