"""The five values as numbers in tables."""

import numpy as np

DECIMALS = 4  # so that equal models give equal files


def as_values(outputs: np.ndarray) -> np.ndarray:
    """Outputs of any shape as ``float32`` in 0..1, rounded to 4 decimals."""
    return np.round(np.clip(np.asarray(outputs, np.float64), 0.0, 1.0), DECIMALS).astype(np.float32)
