"""Painted portraits as arrays, for tests that need pictures of faces."""

import numpy as np

from gaip3_pipeline.faces.painter import paint, random_face
from gaip3_pipeline.imaging.transform import area_resize


def painted(n: int, height: int = 64, width: int = 52, seed: int = 0) -> np.ndarray:
    """``(n, height, width, 3) uint8``: painted women, cropped as the pipeline crops."""
    rng = np.random.default_rng(seed)
    pictures = [paint(random_face(rng, "female"), 128)[:, 12:-12] for _ in range(n)]
    return np.stack([area_resize(p, height, width) for p in pictures])
