"""What share of damaged picture files is refused, and what the others look like.

    python bench/damage.py FOLDER [--count 120]

FOLDER holds photographs. COUNT files of each kind are made: photographs at 256², 512² and 1024² in
turn, as baseline and progressive JPEG (quality 75 to 95, every other one with subsampled colour),
PNG, WebP, AVIF and TIFF (zlib, LZW). In each, 64 bytes at a random place between the first quarter
and the end of the file, the pixels' data, are overwritten by random bytes or by zeros.

- ``found``: the share that is refused at its own size, and its 95 % interval (Wilson);
- ``found_resizing``: the share that is refused while it is resized to 128 × 104. This does not read
  all scans of a progressive file, but the damage in those that it leaves out changes no pixel;
- ``error``, ``error_resizing``: grey levels, the mean absolute difference of the files not found
  from the sound picture, at its own size and resized; null if all were found.

Prints a table; the last line is one JSON object.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, print_result
from PIL import Image

from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.metrics.intervals import wilson_interval
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.image_files import list_images

SETTINGS = Images()
SMALL = Target(SETTINGS.height, SETTINGS.width, SETTINGS.crop)
SIZES = (256, 512, 1024)
LENGTH = 64
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 85}),
    "AVIF": ("AVIF", {"quality": 85, "speed": 9}),
    "TIFF, zlib": ("TIFF", {"compression": "tiff_deflate"}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
}


def file_of(photograph: Image.Image, kind: str, number: int) -> bytes:
    """A sound file of ``kind``."""
    form, options = KINDS[kind]
    if form == "JPEG":
        options = options | {"quality": 75 + number % 21, "subsampling": 2 * (number % 2)}
    size = SIZES[number % len(SIZES)]
    file = io.BytesIO()
    photograph.resize((size, size)).save(file, form, **options)
    return file.getvalue()


def pixels(data: bytes, target: Target) -> np.ndarray | None:
    """The picture at the size of ``target``, None if it is refused."""
    try:
        return resize(decode(data, "", target, SETTINGS.max_pixels), target).astype(np.int16)
    except UnusableImage:
        return None


def measure(photographs: list[Image.Image], kind: str, count: int) -> dict[str, Any]:
    """The figures of one kind of files, for each kind of damage."""
    random = np.random.default_rng(0)
    errors: dict[tuple[str, str], list[float | None]] = {}  # None where the damage is found
    for number in range(count):
        sound = file_of(photographs[number % len(photographs)], kind, number)
        at = int(random.integers(len(sound) // 4, len(sound) - LENGTH))
        size, damages = SIZES[number % len(SIZES)], (random.bytes(LENGTH), bytes(LENGTH))
        for name, target in (("", Target(size, size)), ("_resizing", SMALL)):
            want = pixels(sound, target)
            for damage, by in zip(("random", "zeros"), damages, strict=True):
                got = pixels(sound[:at] + by + sound[at + LENGTH :], target)
                error = None if got is None else float(np.abs(got - want).mean())
                errors.setdefault((damage, name), []).append(error)
    figures: dict[str, Any] = {"random": {"n": count}, "zeros": {"n": count}}
    for (damage, name), all_of in errors.items():
        missed = [e for e in all_of if e is not None]
        found = count - len(missed)
        figures[damage] |= {
            f"found{name}": round(found / count, 3),
            f"interval{name}": [round(v, 3) for v in wilson_interval(found, count)],
            f"error{name}": round(float(np.mean(missed)), 2) if missed else None,
        }
    return figures


def main() -> None:
    """Damage, decode, report."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=120)
    a = parser.parse_args()
    paths = list_images(a.folder)
    if not paths:
        sys.exit(f"no pictures in {a.folder}: name a folder of photographs")
    chosen = paths[:: max(1, len(paths) // 40)][:40]
    photographs = [Image.open(path).convert("RGB") for path in chosen]
    figures = {kind: measure(photographs, kind, a.count) for kind in KINDS}
    print(f"{a.count} files each, {LENGTH} bytes overwritten: share found, error of the others")
    for kind, of in figures.items():
        for damage, said in of.items():
            numbers = "".join(
                f"  {said[f'found{n}']:6.3f} {said[f'error{n}'] or 0:7.2f}"
                for n in ("", "_resizing")
            )
            print(f"{kind:>12} {damage:>7}{numbers}")
    print_result(figures)


if __name__ == "__main__":
    main()
