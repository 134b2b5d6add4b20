"""Cholesky factors and inverses from SciPy's LAPACK, during which other Python threads run.

``scipy.linalg.cho_factor`` and ``cho_solve`` hold Python's lock while they compute, so threads that
fit models side by side would wait for each other. The routines are the same and are called through
the addresses that SciPy publishes for Cython (``scipy.linalg.cython_lapack``), by ctypes, which
releases the lock. The results have the same bits."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cython_lapack

from gaip3_pipeline.imaging.mapping import cores, in_order

# Columns of an inverse that are solved at a time: a multiple of what BLAS computes together, so
# that no sum depends on it.
_COLUMNS = 512
_LOWER = ctypes.c_char(b"L")


def cholesky(covariance: np.ndarray) -> np.ndarray:
    """The factor L of ``covariance (n, n) float64`` = L Lᵀ, in the lower triangle of ``(n, n)``;
    the upper one is not defined. Raises ``LinAlgError`` if the matrix is not positive definite,
    ``ValueError`` if a number of it is not finite."""
    factor = np.array(np.asarray_chkfinite(covariance), np.float64, order="F")
    _call("dpotrf", _LOWER, len(factor), factor, len(factor))
    return factor


def inverse(factor: np.ndarray) -> np.ndarray:
    """``(n, n) float64``: the inverse of the matrix with this factor of :func:`cholesky`, its
    columns solved on all cores."""
    n = len(factor)
    columns = np.eye(n, order="F")

    def solve(some: np.ndarray) -> None:
        _call("dpotrs", _LOWER, n, some.shape[1], factor, n, some, n)

    if n <= 2 * _COLUMNS:  # too small to gain from threads
        solve(columns)
    else:  # views, each one piece of memory
        parts = (columns[:, start : start + _COLUMNS] for start in range(0, n, _COLUMNS))
        for _ in in_order(solve, parts, cores()):
            pass
    return columns


def _call(name: str, *given: Any) -> None:
    """Call the routine ``name`` of LAPACK, whose last argument is its report ``info``. Integers are
    passed by reference, arrays by their memory, which must be in Fortran's order."""
    report = ctypes.c_int()
    held = [ctypes.c_int(x) if isinstance(x, int) else x for x in (*given, report)]
    _routine(name, len(held))(
        *(x.ctypes.data if isinstance(x, np.ndarray) else ctypes.addressof(x) for x in held)
    )
    if report.value > 0:
        raise LinAlgError(f"{name}: the matrix is not positive definite at row {report.value}")
    if report.value < 0:
        raise ValueError(f"{name}: argument {-report.value} is not valid")


@cache
def _routine(name: str, arguments: int) -> Callable[..., None]:
    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = (
        ctypes.c_void_p,
        [ctypes.py_object, ctypes.c_char_p],
    )
    address = pointer_of(capsule, name_of(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)
