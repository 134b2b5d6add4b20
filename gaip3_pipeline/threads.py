"""Fixed thread counts for numerical libraries, so that equal inputs have results of equal bits
whatever the machine's number of cores and its load."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, during which BLAS and LAPACK (NumPy, SciPy) use one thread, also if
    ``OPENBLAS_NUM_THREADS`` says otherwise.

    Several threads add the parts of a sum in an order that depends on their number, and a search
    of a maximum enlarges the difference. The matrices of a fit have a few hundred rows; for these
    one thread is also faster beside other work, since no thread waits for another."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        # entered anew in each call: it limits the libraries that are loaded by then
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
