"""The chunks of a PNG file: what decoding needs, with its checksums verified, and what is said
about colour and orientation.

Texts, dates and other metadata are left out unread, so neither their size nor their damage matters.
Chunks and their checksums: PNG specification, third edition, section 5."""

import mmap
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = (b"PLTE", b"IDAT", b"tRNS")
_SAYING = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"acTL")
_EXIF = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# texts in which programs keep EXIF (before there was eXIf) and XMP; both may hold the orientation
_EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_LONGEST_EXIF = 1 << 20  # bytes in the file
_CHANNELS = {2: 3, 4: 2, 6: 4}  # of colour types; others have one
# interlaced pictures: first column and row of each pass, and the steps to the next ones
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_AT_ONCE = 1 << 20  # bytes
Bytes = bytes | mmap.mmap


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return len(body).to_bytes(4, "big") + name + body + checksum.to_bytes(4, "big")


_END = _chunk(b"IEND", b"")
# a picture of one pixel, to which the chunks of EXIF are added
_PIXEL = (
    SIGNATURE + _chunk(b"IHDR", bytes((0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0))),
    _chunk(b"IDAT", zlib.compress(b"\0\0")) + _END,
)


class BrokenPng(ValueError):
    """The file is cut off, or a checksum of the picture is wrong."""


@dataclass(frozen=True)
class Png:
    """Width and height as stored, bits per channel, and three parts of the file: ``data`` is a PNG
    file of the picture alone; ``exif`` one of EXIF and XMP with one pixel, None if there are none;
    ``chunks`` maps the names of chunks on colour and animation to their bodies, None where the
    checksum is wrong."""

    width: int
    height: int
    bits: int
    data: bytes
    exif: bytes | None
    chunks: dict[bytes, bytes | None]


def read_png(data: Bytes, pixels: bool = True) -> Png:
    """Take a PNG file apart; without ``pixels``, ``Png.data`` lacks them and their checksums are
    not verified.

    Raises :class:`BrokenPng` if a chunk of the picture is cut off or has a wrong checksum."""
    if data[12:16] != b"IHDR" or not _intact(data, 8, 33):
        raise BrokenPng("damaged: the header is missing or its checksum is wrong")
    head = data[:33]
    picture, exif, at = [head], b"", 33
    chunks: dict[bytes, bytes | None] = {}
    while (name := data[at + 4 : at + 8]) != b"IEND" and at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if not name.isalpha():
            raise BrokenPng(f"damaged: no chunk where one belongs, at byte {at} of {len(data)}")
        if end > len(data):
            if name == b"IDAT" or len(picture) == 1:
                raise BrokenPng(f"damaged: truncated after {len(data)} bytes")
            break
        if name in _PICTURE and (pixels or name != b"IDAT"):
            if _intact(data, at, end):
                picture.append(data[at:end])
            elif name != b"tRNS":
                raise BrokenPng(
                    f"damaged: the checksum of chunk {name.decode()} is wrong, at byte {at} of"
                    f" {len(data)}"
                )
        elif name in _SAYING:
            chunks.setdefault(name, data[at + 8 : end - 4] if _intact(data, at, end) else None)
        elif (
            name in _EXIF
            and end - at <= _LONGEST_EXIF
            and (name == b"eXIf" or data[at + 8 : at + 40].startswith(_EXIF_TEXTS))
            and _intact(data, at, end)
        ):
            exif += data[at:end]
        at = end
    width, height = (int.from_bytes(head[i : i + 4], "big") for i in (16, 20))
    return Png(
        width,
        height,
        head[24],
        b"".join([*picture, _END]),
        exif.join(_PIXEL) if exif else None,
        chunks,
    )


def has_all_rows(png: Png) -> bool:
    """Whether the picture's compressed data hold all its rows; Pillow leaves missing rows as
    they are, in one colour."""
    bits = png.bits * _CHANNELS.get(png.data[25], 1)
    passes = _ADAM7 if png.data[28] else ((0, 0, 1, 1),)
    wanted = 0
    for x, y, across, down in passes:
        columns, rows = -(-(png.width - x) // across), -(-(png.height - y) // down)
        if columns > 0:
            wanted += max(rows, 0) * (1 + (columns * bits + 7) // 8)
    unzip, at = zlib.decompressobj(), 33
    while at < len(png.data) and wanted > 0:
        end = at + 12 + int.from_bytes(png.data[at : at + 4], "big")
        packed = png.data[at + 8 : end - 4] if png.data[at + 4 : at + 8] == b"IDAT" else b""
        while packed and wanted > 0:
            wanted -= len(unzip.decompress(packed, _AT_ONCE))
            packed = unzip.unconsumed_tail
        at = end
    return wanted <= 0


def unzipped(body: bytes, most: int) -> bytes | None:
    """The content of the zlib stream ``body``; None if it is damaged or longer than ``most``
    bytes."""
    unzip = zlib.decompressobj()
    try:
        content = unzip.decompress(body, most)
    except zlib.error:
        return None
    return content if unzip.eof else None


def _intact(data: Bytes, start: int, end: int) -> bool:
    """Whether the checksum of the chunk at ``start:end`` is right."""
    return zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
