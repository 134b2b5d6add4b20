"""Reads one picture file as upright sRGB pixels, no larger than its use needs.

JPEG is decoded by libjpeg-turbo (simplejpeg), at 1/2, 1/4 or 1/8 where the result is nearly that of
a full decode (:func:`reduction`); all other formats by Pillow. Formats are recognised by content,
never by suffix. What a decoder warns of is damage: the picture is refused. Transparency is dropped,
as by Pillow's ``convert("RGB")``, and not blended with a background: the colours of transparent
pixels belong to the photograph."""

import ctypes
import io
import math
import mmap
import struct
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from gaip3_pipeline.imaging import colour
from gaip3_pipeline.imaging.colour import UnreadableProfile, as_image, conversion
from gaip3_pipeline.imaging.jpeg import (
    BrokenJpeg,
    Structure,
    bare,
    exif_part,
    for_an_eighth,
    icc_profile,
    read_header,
    structure,
)
from gaip3_pipeline.imaging.png import SIGNATURE, BrokenPng, Png, has_all_rows, read_png, unzipped
from gaip3_pipeline.imaging.webp import BrokenWebp, refuse_holes, without_cut_metadata
from gaip3_pipeline.tables.image_files import UNREAD_FORMATS

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_SUFFIXES = {
    "JPEG": JPEG_SUFFIXES,
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
_FORMATS = tuple(_SUFFIXES)
_SOI = b"\xff\xd8"
# formats that are named when they are refused, by bytes at the beginning of the file
_REFUSED = UNREAD_FORMATS | {"PDF": (0, (b"%PDF",))}
DECODER = 2  # raised when the same file gives other pixels or notes: originals are decoded again
LARGE = 16_000_000  # pixels; larger pictures are decoded one at a time, which bounds memory
ORIENTATION = 0x0112  # EXIF tag; values 5..8 swap width and height
# EXIF tags of Adobe RGB in pictures without a profile: ColorSpace, and the interoperability index
# of the option file of DCF 2.0 (JEITA CP-3461)
_EXIF_IFD, _COLOR_SPACE, _INTEROPERABILITY_IFD, _INDEX = 0x8769, 0xA001, 0xA005, 1
_TIFF = (b"II*\0", b"MM\0*")
# TIFF tags and values
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 258, 259, 262, 277, 284
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_DEFLATED, _WHITE_IS_ZERO, _SEPARATE_PLANES, _SIGNED = (8, 32946), 0, 2, 2
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # channels without extra samples; other kinds have one
# of BMP: the length of the header that may name an embedded profile, and the mark that it does
_BMP_V5, _MBED = b"\x7c\0\0\0", b"DEBM"
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}

# Pillow warns of damage without the file's name; what it warns of and what matters is an error or a
# note here
warnings.filterwarnings("ignore", module=r"PIL\.")
with suppress(AttributeError, OSError):  # so does libtiff, whose errors Pillow raises as well
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
# Without libtiff, Pillow reads uncompressed planes of 16 bits as if they had 8, and loses that
# white is zero
TiffImagePlugin.READ_LIBTIFF = True


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
        return (_jpeg if data[:2] == _SOI else _other)(
            data, name, target, max_pixels, large or nullcontext()
        )
    except (UnusableImage, MemoryError):
        raise
    except Exception as e:
        raise UnusableImage(_reason(data, e)) from e


def original_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture at ``path``, upright, from its header alone. Raises
    :class:`UnusableImage`."""
    try:
        if not path.stat().st_size:
            raise UnusableImage("empty file")
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _size(data, path)
            except Exception as e:
                raise UnusableImage(_reason(data, e)) from e
    except (OSError, UnusableImage) as e:
        raise UnusableImage(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def _size(data: mmap.mmap, path: Path) -> tuple[int, int]:
    if data[:2] == _SOI:
        header = read_header(data)
        width, height = header.width, header.height
        exif = exif_part(data, header) if header.app1 else None
    elif data[:8] == SIGNATURE:
        png = read_png(data, pixels=False)
        width, height, exif = png.width, png.height, png.exif
    else:
        webp = data[8:12] == b"WEBP"
        file = io.BytesIO(without_cut_metadata(data[:])) if webp else path
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            turned = image.format != "TIFF" and _exif_of(image)[0] >= 5
        return (height, width) if turned else (width, height)
    return (height, width) if _exif(exif)[0] >= 5 else (width, height)


def _reason(data: bytes | mmap.mmap, error: Exception) -> str:
    """Why ``data`` gives no picture, in one line."""
    if isinstance(error, BrokenJpeg | BrokenPng | BrokenWebp):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, Image.UnidentifiedImageError):
        for form, (at, beginnings) in _REFUSED.items():
            if data[at : at + 16].startswith(beginnings):
                return f"a {form} file: convert it to JPEG or PNG"
        if data[:4] in _TIFF or data[:2] == _SOI:
            form = "JPEG" if data[:2] == _SOI else "TIFF"
            return (
                f"damaged, or a {form} file of a kind that is not supported: save it anew with 8"
                " bits per channel"
            )
        if data[4:12] in (b"ftypavif", b"ftypavis") or data[8:12] == b"WEBP" or data[:2] == b"BM":
            return f"damaged: the header of the picture, in a file of {len(data)} bytes"
        start = data[:8]
        return f"not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture (it begins with {_shown(start)})"
    if str(error).startswith("decoder error"):  # and a number
        return f"damaged: the pixels cannot be decoded, in a file of {len(data)} bytes"
    # Pillow raises many kinds of errors for damaged files: OSError, SyntaxError, struct.error,
    # zlib.error, …
    return f"damaged: {' '.join(str(error).split()) or type(error).__name__}"


def _shown(start: bytes) -> str:
    """The first bytes of a file as text, or in hexadecimal digits."""
    text = start.decode("latin-1")
    return f"“{text}”" if text.isascii() and text.isprintable() else f"the bytes {start.hex(' ')}"


def _jpeg(
    data: bytes, name: str, target: Target, max_pixels: int, large: AbstractContextManager[object]
) -> Picture:
    parts = structure(data)
    header = parts.header
    _refuse_huge(header.width, header.height, max_pixels)
    # Reading EXIF takes 0.1 ms, which is noticeable beside a decode of 3 ms, and most files have
    # none
    orientation, adobe = _exif(exif_part(parts.data, header) if header.app1 else None)
    width, height = (
        (header.height, header.width) if orientation >= 5 else (header.width, header.height)
    )
    factor = reduction(width, height, target)
    notes = _notes("JPEG", name, width, height, orientation, target)
    profile = icc_profile(parts.data, header)
    if profile is None and adobe:
        profile = colour.adobe_rgb_profile()
    with large if header.width * header.height > LARGE else nullcontext():
        try:
            stored = _decoded(parts, factor)
        except ValueError as e:
            if not parts.complete:
                raise BrokenJpeg(f"truncated: {len(data)} bytes and no end marker") from e
            raise
        if stored.shape[2] == 4:
            notes.append("CMYK")
        elif len(header.components) == 1:
            notes.append("greyscale")
            stored = stored if profile is None else stored[:, :, 0]
        pixels = _to_srgb(stored, profile, notes)
    return _upright(pixels, width, height, factor, orientation, notes)


def _decoded(parts: Structure, factor: int) -> np.ndarray:
    """The pixels of a JPEG at ``1 / factor`` as they are stored: ``(h, w, 3) uint8`` RGB, or ``(h,
    w, 4)`` CMYK with 0 for no ink. Raises ValueError for damage."""
    header = parts.header
    is_cmyk = len(header.components) == 4

    def decoded(parts: Structure) -> np.ndarray:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            for_an_eighth(parts) if factor == 8 and parts.complete else parts.data,
            "CMYK" if is_cmyk else "RGB",
            min_height=math.ceil(header.height / factor),
            min_width=math.ceil(header.width / factor),
        )
        return pixels

    try:
        pixels = decoded(parts)
    except ValueError:
        if not _has_usual_sampling(parts.data):
            with Image.open(io.BytesIO(parts.data), formats=("JPEG",)) as image:
                image.draft(None, (image.width // factor, image.height // factor))
                return np.asarray(image if image.mode == "CMYK" else image.convert("RGB"))
        pixels = decoded(bare(parts))
    return 255 - pixels if is_cmyk else pixels  # Adobe's programs store CMYK inverted, so all do


def _has_usual_sampling(data: bytes) -> bool:
    """Whether simplejpeg knows the sampling factors of a JPEG."""
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return True


def _other(
    data: bytes, name: str, target: Target, max_pixels: int, large: AbstractContextManager[object]
) -> Picture:
    png = read_png(data) if data[:8] == SIGNATURE else None
    if data[8:12] == b"WEBP":
        data = without_cut_metadata(data)
    with Image.open(io.BytesIO(png.data if png else data), formats=_FORMATS) as image:
        form = image.format or ""
        _refuse_huge(image.width, image.height, max_pixels)
        with large if image.width * image.height > LARGE else nullcontext():
            orientation, adobe = _exif(png.exif) if png else _exif_of(image)
            several = (png and b"acTL" in png.chunks) or getattr(image, "is_animated", False)
            bits = png.bits if png else _bits(image)
            if form == "WEBP":
                refuse_holes(data, image.width * image.height)
            elif isinstance(image, TiffImageFile):
                _refuse_layout(image)
                _verify_strips(data, image)
            stored, kinds = _stored(image)
            if png and _ends_in_one_colour(stored) and not has_all_rows(png):
                raise BrokenPng(f"damaged: rows are missing after {len(data)} bytes")
            notes = []
            profile: bytes | None = None
            try:
                profile = _png_profile(png) if png else _profile(image, data)
            except UnreadableProfile as e:
                notes.append(f"colour profile ignored: {e}")
            if profile is None and adobe and not notes:  # the file says nothing else
                profile = colour.adobe_rgb_profile()
            pixels = _to_srgb(stored, profile, notes)
    turned = 1 if form == "TIFF" else orientation  # Pillow turns TIFF itself
    height, width = pixels.shape[1::-1] if turned >= 5 else pixels.shape[:2]
    before = _notes(form, name, width, height, orientation, target)
    if bits == 16:
        before.append("16-bit")
    if several:
        before.append(f"the first of several {'pages' if form == 'TIFF' else 'frames'}")
    return _upright(pixels, width, height, 1, turned, [*before, *kinds, *notes])


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


def _stored(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """The pixels of a picture that Pillow has opened, and notes on conversions: ``(H, W) uint8`` or
    ``uint16`` grey, ``(H, W, 3) uint8`` RGB or ``(H, W, 4) uint8`` CMYK."""
    image.load()
    mode, notes = image.mode, []
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        return _sixteen_bits(image), ["greyscale"]
    if mode in ("I", "F"):
        raise UnusableImage("its pixels have 32 bits: save it with 8 or 16 bits per channel")
    if mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        notes.append("transparency dropped")
    if mode in ("L", "LA", "1"):
        return np.asarray(image.convert("L")), [*notes, "greyscale"]
    if mode == "CMYK":
        return np.asarray(image), ["CMYK"]
    if mode in ("P", "PA", "LAB"):
        notes.append("Lab" if mode == "LAB" else "palette")
    if mode == "LAB" and _planes_are_separate(image):
        # Pillow takes a* and b* of separate planes for unsigned
        image = as_image(np.asarray(image) ^ np.array([0, 128, 128], np.uint8), mode)
    return np.asarray(image.convert("RGB")), notes


def _sixteen_bits(image: Image.Image) -> np.ndarray:
    """``(H, W) uint16``: the levels of a grey picture in 0..65535."""
    levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    if isinstance(image, TiffImageFile):
        levels = levels * 65535 // (2 ** _bits(image) - 1)
        if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            levels = 65535 - levels
    return levels.astype(np.uint16)


def _bits(image: Image.Image) -> int:
    """Bits per channel, if they may be more than 8."""
    return max(image.tag_v2.get(_BITS, (8,))) if isinstance(image, TiffImageFile) else 8


def _ends_in_one_colour(stored: np.ndarray) -> bool:
    """Whether the last two rows have one colour, as missing rows have."""
    return bool((stored[-2:] == stored[-1, -1]).all())


def _planes_are_separate(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PLANAR) == _SEPARATE_PLANES


def _refuse_layout(image: TiffImageFile) -> None:
    """Raise :class:`UnusableImage` for channels that Pillow reads wrongly or not at all: signed
    ones, grey that is multiplied by alpha, and separate planes with an extra one that is not
    described or with several that are."""
    tags = image.tag_v2
    extra = tags.get(_EXTRA_SAMPLES, ())
    colours = _COLOURS.get(tags.get(_PHOTOMETRIC, 0), 1)
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and _bits(image) <= 16
    unread = (tags.get(_SAMPLES, 1) > colours and not extra) or (len(extra) > 1 and any(extra))
    if signed or image.mode == "La" or (unread and _planes_are_separate(image)):
        raise UnusableImage(
            "a TIFF file of a kind that is not supported: save it anew as RGB with 8 bits per"
            " channel"
        )


def _verify_strips(data: bytes, image: TiffImageFile) -> None:
    """Raise :class:`UnusableImage` if the checksum of a strip or tile that is compressed by zlib is
    wrong; libtiff does not verify it."""
    tags = image.tag_v2
    if tags.get(_COMPRESSION) not in _DEFLATED:
        return
    most = 16 * max(image.width * image.height, 65536)  # bytes of the largest strip or tile
    for starts, sizes in ((273, 279), (324, 325)):
        for start, size in zip(tags.get(starts, ()), tags.get(sizes, ()), strict=True):
            if unzipped(data[start : start + size], most) is None:
                raise UnusableImage(
                    f"damaged: wrong checksum of the strip at byte {start} of {len(data)}"
                )


def _to_srgb(stored: np.ndarray, profile: bytes | None, notes: list[str]) -> np.ndarray:
    """Pixels as :func:`_stored` describes them to ``(H, W, 3) uint8`` in sRGB, from the colours of
    ``profile``, if any. Appends to ``notes`` what became of it."""
    if stored.ndim == 3:
        return _converted(stored, profile, notes)
    table = _converted(np.arange(256, dtype=np.uint8)[None], profile, notes)[0]
    if stored.dtype == np.uint16:
        levels = np.arange(65536) / 257
        channels = [np.interp(levels, np.arange(256), table[:, c]) for c in range(3)]
        table = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return table[stored]


def _converted(pixels: np.ndarray, profile: bytes | None, notes: list[str]) -> np.ndarray:
    mode = "L" if pixels.ndim == 2 else {3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    if mode == "L" and (profile is None or profile[16:20] == b"RGB "):
        pixels, mode = np.repeat(pixels[:, :, None], 3, axis=2), "RGB"
    try:
        convert = None if profile is None else conversion(profile, mode)
    except UnreadableProfile as e:
        notes.append(f"colour profile ignored: {e}")
        convert = None
    if convert:
        notes.append(f"converted to sRGB from {convert.name or 'its colour profile'}")
        return convert(pixels)
    if mode == "RGB":
        return pixels
    return np.asarray(as_image(pixels, mode).convert("RGB"))


def _profile(image: Image.Image, data: bytes) -> bytes | None:
    """The colour encoding of a WebP, AVIF, TIFF or BMP picture as an ICC profile; None if it says
    nothing. Raises :class:`UnreadableProfile`."""
    if image.mode == "LAB":  # whose pixels are converted already
        return colour.srgb_profile()
    profile: bytes | None = image.info.get("icc_profile")
    if profile is None and image.format == "AVIF":
        return _nclx_profile(data)
    if (
        profile is None
        and image.format == "BMP"
        and data[14:18] == _BMP_V5
        and data[70:74] == _MBED
    ):
        start, size = struct.unpack("<II", data[126:134])
        return data[14 + start : 14 + start + size]
    return profile


def _nclx_profile(data: bytes) -> bytes | None:
    """The profile of the code points in the first ``colr`` box of an AVIF file (ISO/IEC 14496-12,
    section 12.1.5), which stands before the pixels."""
    at = data.find(b"colrnclx", 0, data.find(b"mdat"))
    if at < 0:
        return None
    primaries, transfer = struct.unpack(">HH", data[at + 8 : at + 12])
    return colour.coded_profile(primaries, transfer)


def _png_profile(png: Png) -> bytes | None:
    """The colour encoding of a PNG as an ICC profile; None if it says nothing. The order of the
    chunks is that of the specification (section 4.3). Raises :class:`UnreadableProfile`."""
    chunks = png.chunks
    if b"cICP" in chunks:
        primaries, transfer, _, full_range = _numbers(">4B", chunks[b"cICP"])
        return colour.coded_profile(primaries, transfer, full_range == 1)
    if b"iCCP" in chunks:
        _, _, packed = (chunks[b"iCCP"] or b"").partition(b"\0")
        return unzipped(packed[1:], colour.LONGEST_PROFILE) or b""
    if b"sRGB" in chunks:
        return colour.srgb_profile()
    if not chunks.keys() & {b"gAMA", b"cHRM"}:
        return None
    return colour.gamma_profile(
        _numbers(">I", chunks[b"gAMA"])[0] if b"gAMA" in chunks else None,
        _numbers(">8I", chunks[b"cHRM"]) if b"cHRM" in chunks else None,
    )


def _numbers(layout: str, body: bytes | None) -> tuple[int, ...]:
    if body is None or len(body) != struct.calcsize(layout):
        raise UnreadableProfile("damaged")
    return struct.unpack(layout, body)


def _exif(part: bytes | None) -> tuple[int, bool]:
    """As :func:`_exif_of`, of the part of a file that holds EXIF, if any."""
    if part is None:
        return 1, False
    try:
        with Image.open(io.BytesIO(part), formats=("JPEG", "PNG")) as image:
            return _exif_of(image)
    except Exception:
        return 1, False


def _exif_of(image: Image.Image) -> tuple[int, bool]:
    """The orientation of a picture, and whether it is in Adobe RGB by its EXIF."""
    try:
        exif = image.getexif()
        value = exif.get(ORIENTATION, 1)
        adobe = exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE) == 2 or str(
            exif.get_ifd(_INTEROPERABILITY_IFD).get(_INDEX)
        ).startswith("R03")
    except Exception:  # damaged EXIF is ignored: the picture may be intact
        return 1, False
    return (value if value in _UPRIGHT else 1), adobe
