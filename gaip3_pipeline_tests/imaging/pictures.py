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


def tiff(
    channels: np.ndarray,
    photometric: int,
    *,
    separate: bool = True,
    packed: bool = False,
    order: str = "<",
    tile: int = 0,
    **tags: tuple[int, ...],
) -> bytes:
    """A TIFF file of ``(H, W, C) uint8`` or ``uint16`` channels, in separate planes or interleaved,
    raw or compressed by zlib, in the byte ``order`` of struct, in one strip or in square tiles.
    ``tags`` are more tags of 16 bits, such as ``t338=(2,)``."""
    height, width, count = channels.shape
    pieces = []
    for plane in np.split(channels, count, axis=2) if separate else [channels]:
        step = tile or max(height, width)
        for y in range(0, height, step):
            for x in range(0, width, step):
                part = plane[y : y + step, x : x + step]
                if tile:
                    missing = [(0, tile - n) for n in part.shape[:2]]
                    part = np.pad(part, [*missing, (0, 0)])
                raw = part.astype(part.dtype.newbyteorder(order)).tobytes()
                pieces.append(zlib.compress(raw) if packed else raw)
    sizes = [len(piece) for piece in pieces]
    starts = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    shorts = {258: (8 * channels.itemsize,) * count, 259: (8 if packed else 1,)}
    shorts |= {262: (photometric,), 277: (count,), 284: (1 + separate,)}
    shorts |= {int(name[1:]): values for name, values in tags.items()}
    longs = {256: [width], 257: [height]}
    longs |= (
        {322: [tile], 323: [tile], 324: starts, 325: sizes}
        if tile
        else {273: starts, 278: [height], 279: sizes}
    )
    entries = {key: (3, struct.pack(f"{order}{len(v)}H", *v)) for key, v in shorts.items()}
    entries |= {key: (4, struct.pack(f"{order}{len(v)}I", *v)) for key, v in longs.items()}
    body = b"".join(pieces)
    at, table, values = 8 + len(body), struct.pack(f"{order}H", len(entries)), b""
    for key, (kind, value) in sorted(entries.items()):
        table += struct.pack(f"{order}HHI", key, kind, len(value) // (2 if kind == 3 else 4))
        if len(value) > 4:
            table += struct.pack(f"{order}I", at + 6 + 12 * len(entries) + len(values))
            values += value
        else:
            table += value.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", at) + body + table + bytes(4) + values


def fill(root: DataRoot, image_set: ImageSet, count: int, size: int = 256) -> list[Path]:
    """``count`` JPEG originals named p0.jpg, p1.jpg, …"""
    folder = root.original(image_set)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(jpeg(photograph(i, size)))
    return paths
