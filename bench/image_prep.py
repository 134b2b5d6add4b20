"""How fast one core makes the pipeline's small pictures from JPEG photographs, and the limits.

    python bench/image_prep.py FOLDER [--repeats 5]

FOLDER holds JPEG photographs. Two kinds of files are measured: progressive ones (the photographs
themselves if all are progressive, else copies) and baseline copies. Copies have quality 95 and
4:2:0 subsampling, in a temporary folder.

Rows are images per second of CPU time of one core, since wall time on a shared machine depends on
other processes. The variants alternate on each picture, and the median of each picture's repeats
counts:

- ``ours``: the project's path from file to small picture: read the file, check its markers, decode,
  crop, area-resize;
- ``ours_to_jpeg``: the same, then encoded as the JPEG that ``resized/`` holds;
- ``pillow_full``, ``opencv_full``: only reading the file and decoding it at full size;
- ``decoder_limit``: only reading the file and libjpeg-turbo's decoding at the scale that ``ours``
  uses.

The limit is entropy decoding: at scale 1/8 hardly any transform remains, but the code of every
coefficient must be read. A progressive file has most coefficients in scans that scale 1/8 does not
need. ``ours`` skips these scans, so it may exceed the limit there. A baseline file interleaves all
coefficients, and nothing can be skipped. ``mean_abs_diff`` (grey levels) compares ``ours`` before
encoding with a full decode and area resize; ``two_process_speedup`` is the wall-clock rate of two
processes over that of one. Prints a table; the last line is one JSON object.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
from common import command_line, print_result
from PIL import Image

from gaip3_pipeline.imaging.decode import Target, decode, reduction
from gaip3_pipeline.imaging.processing import read_picture, resize_picture
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.image_files import list_images

SETTINGS = Images()
TARGET = Target(SETTINGS.height, SETTINGS.width, SETTINGS.crop)
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def ours(path: Path) -> np.ndarray:
    """The small picture of a file, as the pipeline makes it."""
    data, _ = read_picture(path, SETTINGS.max_pixels)
    return resize(decode(data, path.name, TARGET, SETTINGS.max_pixels), TARGET)


def ours_to_jpeg(path: Path) -> bytes:
    """The JPEG of the small picture, as the pipeline makes it."""
    return resize_picture(read_picture(path, SETTINGS.max_pixels)[0], path.name, SETTINGS)[0]


def pillow_full(path: Path) -> np.ndarray:
    """The picture at its own size, by Pillow."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def opencv(path: Path, factor: int) -> np.ndarray:
    """The picture at its own size divided by ``factor``, by OpenCV, blue first."""
    data = np.frombuffer(read_picture(path, SETTINGS.max_pixels)[0], np.uint8)
    decoded = cv2.imdecode(data, REDUCED[factor])
    if decoded is None:
        raise ValueError(f"{path} is no JPEG photograph")
    return decoded


def measure(paths: list[Path], repeats: int) -> dict[str, float]:
    """The figures of one kind of files."""
    sizes = [Image.open(path).size for path in paths]
    factors = [reduction(width, height, TARGET) for width, height in sizes]
    variants: dict[str, Callable[[int], object]] = {
        "ours": lambda i: ours(paths[i]),
        "ours_to_jpeg": lambda i: ours_to_jpeg(paths[i]),
        "pillow_full": lambda i: pillow_full(paths[i]),
        "opencv_full": lambda i: opencv(paths[i], 1),
        "decoder_limit": lambda i: opencv(paths[i], factors[i]),
    }
    for run in variants.values():  # warm-up
        run(0)
    names = list(variants)
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in paths] for name in names}
    for repeat in range(repeats):
        for i in range(len(paths)):
            # The order rotates, since each variant leaves the file in the processor's caches for
            # the next one.
            first = repeat % len(names)
            for name in names[first:] + names[:first]:
                start = time.process_time()
                variants[name](i)
                seconds[name][i].append(time.process_time() - start)
    figures = {
        name: round(len(paths) / sum(map(statistics.median, taken)), 1)
        for name, taken in seconds.items()
    }
    figures["mean_abs_diff"] = round(statistics.mean(difference(path) for path in paths), 3)
    figures["two_process_speedup"] = round(two_process_speedup(paths, repeats), 2)
    return figures


def difference(path: Path) -> float:
    """Mean absolute difference in grey levels from a full decode with area resize."""
    full = opencv(path, 1)
    left, right = TARGET.columns(full.shape[1])
    size = (TARGET.width, TARGET.height)
    want = cv2.resize(full[:, left:right], size, interpolation=cv2.INTER_AREA)[:, :, ::-1]
    return float(np.abs(want.astype(np.int16) - ours(path)).mean())


def two_process_speedup(paths: list[Path], repeats: int) -> float:
    """Wall-clock rate of two processes, each doing all of ``paths``, over the rate of one: the
    median of ``repeats``."""
    context = multiprocessing.get_context("spawn")
    ratios = []
    with context.Manager() as manager:
        results = manager.list()
        for _ in range(repeats):
            rates = []
            for count in (1, 2):
                barrier = context.Barrier(count)
                results[:] = []
                workers = [
                    context.Process(target=_worker, args=(paths, barrier, results))
                    for _ in range(count)
                ]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
                if len(results) != count:
                    raise RuntimeError("a measuring process failed")
                rates.append(count * len(paths) / max(results))
            ratios.append(rates[1] / rates[0])
    return statistics.median(ratios)


def _worker(paths: list[Path], barrier: Barrier, results: list[float]) -> None:
    cv2.setNumThreads(1)
    ours_to_jpeg(paths[0])
    barrier.wait()
    start = time.perf_counter()
    for path in paths:
        ours_to_jpeg(path)
    results.append(time.perf_counter() - start)


def resaved(paths: list[Path], folder: Path, progressive: bool) -> list[Path]:
    """Copies of ``paths`` as quality 95, 4:2:0 JPEG in ``folder``."""
    folder.mkdir()
    copies = [folder / f"{i}.jpg" for i in range(len(paths))]
    for path, copy in zip(paths, copies, strict=True):
        picture = Image.open(path).convert("RGB")
        picture.save(copy, "JPEG", quality=95, subsampling=2, progressive=progressive)
    return copies


def main() -> None:
    """Re-save, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    cv2.setNumThreads(1)
    paths = list_images(a.folder)
    if not paths:
        sys.exit(f"no pictures in {a.folder}: name a folder of JPEG photographs")
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        as_they_are = all("progressive" in Image.open(path).info for path in paths)
        progressive = paths if as_they_are else resaved(paths, temporary / "progressive", True)
        kinds = {
            "progressive": progressive,
            "baseline": resaved(paths, temporary / "baseline", False),
        }
        figures = {kind: measure(files, a.repeats) for kind, files in kinds.items()}
    print(f"{len(paths)} photographs, images per second of one core's CPU time")
    for name in figures["baseline"]:
        print(f"{name:>22}" + "".join(f"  {kind} {figures[kind][name]:8.3f}" for kind in figures))
    print_result(figures)


if __name__ == "__main__":
    main()
