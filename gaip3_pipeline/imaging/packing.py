"""Pictures as arrays: packed into one ``.npy`` file that trainings read memory-mapped, or streamed
in batches for scoring."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode
from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.tables.files import writing

_MAX_PIXELS = 50_000_000  # far above the size of pictures that the pipeline writes


def load_image(
    path: Path, height: int, width: int, crop: float = 0.0, max_pixels: int = _MAX_PIXELS
) -> np.ndarray:
    """One picture as ``(height, width, 3) uint8``: the share ``crop`` of its width is cut off each
    side, the rest is area-resized.

    Raises :class:`UnusableImage` with the name of the file."""
    target = Target(height, width, crop)
    try:
        return resize(decode(path.read_bytes(), path.name, target, max_pixels), target)
    except UnusableImage as e:
        raise UnusableImage(f"{path}: {e}") from e


def load_images(
    paths: Sequence[Any],
    height: int,
    width: int,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    load: Callable[[Any, int, int], np.ndarray] = load_image,
) -> Iterator[np.ndarray]:
    """Yield batches of ``(B, height, width, 3) uint8`` in the order of ``paths``; the last may be
    smaller. Memory does not grow with the number of pictures.

    ``load`` decodes one element of ``paths``; it runs ahead on all cores while the caller works.
    Raises :class:`UnusableImage` with the name of the file."""
    batch: list[np.ndarray] = []
    for number, image in enumerate(in_order(lambda p: load(p, height, width), paths), 1):
        batch.append(image)
        if len(batch) == batch_size or number == len(paths):
            yield np.stack(batch)
            batch = []
            if progress:
                progress(number, len(paths))


def pack(
    paths: Sequence[Any],
    out_path: Path,
    height: int,
    width: int,
    progress: Callable[[int, int], None] | None = None,
    load: Callable[[Any, int, int], np.ndarray] = load_image,
) -> None:
    """Write ``(N, height, width, 3) uint8`` in the order of ``paths`` as the ``.npy`` file
    ``out_path``, completely or not at all.

    Raises :class:`UnusableImage` with the name of the file."""
    with mapped(out_path, np.uint8, (len(paths), height, width, 3)) as packed:
        at = 0
        for batch in load_images(paths, height, width, progress=progress, load=load):
            packed[at : at + len(batch)] = batch
            at += len(batch)


@contextmanager
def mapped(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A new array in the ``.npy`` file ``path``, for the block to fill; the file appears when the
    block has ended without an error. Memory does not grow with the array."""
    with writing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        # a write into a mapped file that does not fit on the disk would kill the process
        with temporary.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        yield array
        array.flush()
        del array
