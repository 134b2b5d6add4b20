"""Paints faces into JPEG files, on several processes. It imports few modules, since every process
imports it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2

from gaip3_pipeline.faces.painter import Face, paint
from gaip3_pipeline.tables.files import write_bytes_atomically

JPEG_QUALITY = 92
_CHUNK = 8

Job = tuple[Path, Face]


def paint_files(jobs: Sequence[Job], size: int, processes: int) -> Iterator[int]:
    """Paint each face at ``size`` pixels into its file; yields the number of pictures finished
    since the last yield.

    Few pictures are in memory at a time, whatever their number."""
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    if processes <= 1:
        for chunk in chunks:
            yield _paint_chunk(chunk, size)
        return
    # Not fork: threads of the caller (TensorFlow's, Dagster's) do not exist in a forked child.
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        waiting = iter(chunks)
        running = {
            pool.submit(_paint_chunk, chunk, size) for chunk in islice(waiting, 3 * processes)
        }
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {
                pool.submit(_paint_chunk, chunk, size) for chunk in islice(waiting, len(finished))
            }
            for f in finished:
                yield f.result()


def _paint_chunk(chunk: Sequence[Job], size: int) -> int:
    for path, face in chunk:
        picture = cv2.cvtColor(paint(face, size), cv2.COLOR_RGB2BGR)
        ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not ok:
            raise OSError(f"{path}: the JPEG encoder failed")
        write_bytes_atomically(path, data.tobytes())
    return len(chunk)
