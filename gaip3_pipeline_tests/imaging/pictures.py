"""Synthetic picture files for the tests: smooth colours with some detail, as in photographs."""

import io
import struct
import zlib
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


def file_of(image: Image.Image, form: str, **options: object) -> bytes:
    """``image`` as a file of the format ``form``."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(image: Image.Image, *chunks: bytes) -> bytes:
    """``image`` as a PNG with more chunks after its header."""
    data = file_of(image, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def fill(root: DataRoot, image_set: ImageSet, count: int, size: int = 256) -> list[Path]:
    """``count`` JPEG originals named p0.jpg, p1.jpg, …"""
    folder = root.original(image_set)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(jpeg(photograph(i, size)))
    return paths
