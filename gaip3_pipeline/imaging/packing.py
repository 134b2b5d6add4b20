"""Pictures as arrays: packed into one ``.npy`` file that training reads memory-mapped, or
streamed in batches for scoring."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode
from gaip3_pipeline.imaging.processing import in_order
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.tables.files import writing

_MAX_PIXELS = 50_000_000  # far above what the pipeline makes


def load_image(
    path: Path, height: int, width: int, crop: float = 0.0, max_pixels: int = _MAX_PIXELS
) -> np.ndarray:
    """One picture, ``crop`` of its width cut off each side, area-resized to ``(height, width, 3)
    uint8``.

    Raises :class:`UnusableImage` naming the file.
    """
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
    """Batches of ``(B, height, width, 3) uint8`` in the order of ``paths``, the last one smaller;
    memory does not grow with their number.

    Pictures are decoded by ``load``, which takes an element of ``paths``, ahead on all cores
    while the caller works. Raises :class:`UnusableImage` naming the file."""
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
    ``out_path``, whole or not at all.

    Raises :class:`UnusableImage` naming the file.
    """
    with writing(out_path) as temporary:
        packed = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(len(paths), height, width, 3)
        )
        at = 0
        for batch in load_images(paths, height, width, progress=progress, load=load):
            packed[at : at + len(batch)] = batch
            at += len(batch)
        packed.flush()
        del packed
