"""Reads one picture file as upright RGB pixels, no larger than its use needs.

JPEG is decoded by OpenCV's libjpeg-turbo, at 1/2, 1/4 or 1/8 where the result is nearly that of a
full decode (:func:`reduction`); PNG, WebP and CMYK by Pillow. Formats are recognised by content,
never by suffix. Transparency is dropped, as by OpenCV and by Pillow's ``convert("RGB")``, and not
blended with a background: the colours of transparent pixels belong to the photograph."""

import io
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.jpeg import BrokenJpeg, for_an_eighth, structure

_FORMATS = ("JPEG", "PNG", "WEBP")
_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",)}
LARGE = 16_000_000  # pixels; larger pictures are decoded one at a time, which bounds memory
ORIENTATION = 0x0112  # EXIF tag; values 5..8 swap width and height
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


class UnusableImage(ValueError):
    """A file without a usable picture; the message is one line with the reason."""


@dataclass(frozen=True)
class Target:
    """The size that a picture is decoded for: the share ``crop`` of the width is cut off each side,
    the rest is area-resized to ``height`` x ``width`` pixels."""

    height: int
    width: int
    crop: float = 0.0

    def columns(self, width: int) -> tuple[int, int]:
        """The columns kept of a picture ``width`` pixels wide: the first, and the end
        (exclusive)."""
        cut = round(width * self.crop)
        return cut, width - cut


@dataclass(frozen=True)
class Picture:
    """``pixels`` is ``(h, w, 3) uint8`` RGB, upright: the picture of ``width`` x ``height`` pixels
    reduced by ``reduction``.

    ``notes`` lists what is unusual (``greyscale``, ``turned by EXIF orientation 6``, …); it is
    empty for most pictures."""

    pixels: np.ndarray
    width: int
    height: int
    reduction: int
    notes: tuple[str, ...]


def reduction(width: int, height: int, target: Target) -> int:
    """The largest of 8, 4, 2, 1 by which a JPEG may be reduced while decoding for ``target``;
    ``width`` and ``height`` are those of the upright picture.

    The mean absolute difference from a full decode must stay below 0.5 grey levels. On photographs
    saved again at 256² to 2048² this holds in two cases. First, if output pixels begin and end on
    pixels of the reduced picture and span at least 2 of them per axis, or at least 1 at an eighth
    (differences 0.10 to 0.39; 1 at a quarter gave up to 0.53 with strong colour noise). Second, if
    output pixels span at least 3 of them per axis, wherever their edges lie (up to 0.4; 2.3 gave
    0.48, 1.5 gave 1.0)."""
    left, right = target.columns(width)
    for factor in (8, 4, 2):
        across, down = (right - left) / factor / target.width, height / factor / target.height
        aligned = (
            not (left % factor or width % factor or height % factor)
            and across.is_integer()
            and down.is_integer()
        )
        if min(across, down) >= 3 or (aligned and min(across, down) >= (1 if factor == 8 else 2)):
            return factor
    return 1


def decode(
    data: bytes,
    name: str,
    target: Target,
    max_pixels: int,
    large: AbstractContextManager[object] | None = None,
) -> Picture:
    """The picture in the bytes ``data`` of a file called ``name``. Raises :class:`UnusableImage`.

    A picture of more than ``max_pixels`` is refused after reading its header. The lock ``large`` is
    held while a picture of more than :data:`LARGE` pixels is decoded."""
    if not data:
        raise UnusableImage("empty file")
    try:
        return (_jpeg if data[:3] == b"\xff\xd8\xff" else _other)(
            data, name, target, max_pixels, large or nullcontext()
        )
    except (UnusableImage, MemoryError):
        raise
    except BrokenJpeg as e:
        raise UnusableImage(str(e)) from e
    except Image.DecompressionBombError as e:
        raise UnusableImage(f"too large: {e}") from e
    except Image.UnidentifiedImageError as e:
        raise UnusableImage(f"not a JPEG, PNG or WebP picture (it begins with {data[:8]!r})") from e
    # Pillow raises many kinds of errors for damaged files: OSError, SyntaxError, struct.error,
    # zlib.error, …
    except Exception as e:
        raise UnusableImage(f"damaged: {' '.join(str(e).split()) or type(e).__name__}") from e


def original_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture at ``path``, upright, from its header alone. Raises
    :class:`UnusableImage`."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            return (height, width) if _orientation(image) >= 5 else (width, height)
    except (OSError, Image.DecompressionBombError) as e:
        raise UnusableImage(f"{path}: {e}") from e


def _jpeg(
    data: bytes, name: str, target: Target, max_pixels: int, large: AbstractContextManager[object]
) -> Picture:
    parts = structure(data)
    _refuse_huge(parts.width, parts.height, max_pixels)
    # Reading the header with Pillow takes 0.1 ms, which is noticeable beside a decode of 3 ms, and
    # most files do not need it
    orientation = (
        _orientation(Image.open(io.BytesIO(data), formats=_FORMATS)) if parts.has_app1 else 1
    )
    width, height = (parts.height, parts.width) if orientation >= 5 else (parts.width, parts.height)
    factor = reduction(width, height, target)
    notes = _notes("JPEG", name, width, height, orientation, target)
    with large if parts.width * parts.height > LARGE else nullcontext():
        if len(parts.components) in (1, 3):
            flags = _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
            found = cv2.imdecode(
                np.frombuffer(for_an_eighth(data, parts) if factor == 8 else data, np.uint8), flags
            )
            if found is None:
                raise UnusableImage("damaged: the JPEG cannot be decoded")
            pixels = cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
            if len(parts.components) == 1:
                notes.append("greyscale")
        else:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                image.draft(None, (image.width // factor, image.height // factor))
                notes.append(image.mode)
                pixels = np.asarray(image.convert("RGB"))
    return _upright(pixels, width, height, factor, orientation, notes)


def _other(
    data: bytes, name: str, target: Target, max_pixels: int, large: AbstractContextManager[object]
) -> Picture:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _refuse_huge(image.width, image.height, max_pixels)
        with large if image.width * image.height > LARGE else nullcontext():
            orientation = _orientation(image)
            width, height = (
                (image.height, image.width) if orientation >= 5 else (image.width, image.height)
            )
            notes = _notes(image.format or "", name, width, height, orientation, target)
            if image.format == "PNG" and data[24] == 16:  # bits per channel, in the header
                notes.append("16-bit")
            return _upright(_pillow(image, notes), width, height, 1, orientation, notes)


def _refuse_huge(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnusableImage(f"too large: {width} x {height} is more than {max_pixels:,} pixels")


def _notes(
    form: str, name: str, width: int, height: int, orientation: int, target: Target
) -> list[str]:
    notes = []
    suffix = PurePath(name).suffix
    if suffix.lower() not in _SUFFIXES[form]:
        notes.append(f"{form} named {suffix}")
    if orientation != 1:
        notes.append(f"turned by EXIF orientation {orientation}")
    left, right = target.columns(width)
    if right - left < target.width or height < target.height:
        notes.append(f"enlarged from {width} x {height}")
    return notes


def _upright(
    pixels: np.ndarray, width: int, height: int, factor: int, orientation: int, notes: list[str]
) -> Picture:
    if orientation != 1:
        pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels))
    expected = (math.ceil(height / factor), math.ceil(width / factor), 3)
    if pixels.shape != expected:
        raise UnusableImage(f"damaged: decoded to {pixels.shape}, not {expected}")
    return Picture(pixels, width, height, factor, tuple(notes))


def _pillow(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Decode a PNG or WebP picture to ``(H, W, 3) uint8`` and add notes on conversions to
    ``notes``."""
    image.load()
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip at 255
        notes.append("greyscale")
        grey = (np.clip(np.asarray(image), 0, 65535).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        notes.append("transparency dropped")
    if image.mode in ("L", "LA", "1"):
        notes.append("greyscale")
    elif image.mode in ("P", "PA"):
        notes.append("palette")
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF is ignored: the picture may be intact
        return 1
    return value if value in _UPRIGHT else 1
