"""Synthetic picture files for the tests: smooth colours with some detail, as in photographs."""

import io
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gaip3_pipeline.layout import DataRoot, ImageSet


@cache
def photograph(seed: int = 0, size: int = 256, width: int | None = None) -> Image.Image:
    """A synthetic picture of ``size`` pixels height: large soft shapes, fine detail, noise."""
    rng = np.random.default_rng(seed)
    shape = (width or size, size)
    layers = [
        cv2.resize(rng.normal(0, s, (n, n, 3)), shape, interpolation=cv2.INTER_CUBIC)
        for n, s in ((4, 50), (16, 20), (64, 8))
    ]
    return Image.fromarray(
        np.clip(128 + sum(layers) + rng.normal(0, 2, layers[0].shape), 0, 255).astype(np.uint8)
    )


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 92, **options})
    return file.getvalue()


def fill(root: DataRoot, image_set: ImageSet, count: int, size: int = 256) -> list[Path]:
    """``count`` JPEG originals named p0.jpg, p1.jpg, …"""
    folder = root.original(image_set)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(jpeg(photograph(i, size)))
    return paths
