"""The marker structure of a JPEG file: whether the file is complete, and the part of it that is
needed to decode at 1/8.

At 1/8 every 8x8 block of luma becomes one pixel, its mean, which is the DC coefficient alone. A
progressive file stores the other (AC) coefficients in separate scans, most of its bytes, and those
of luma need not be decoded at all. Entropy decoding takes most of the time of a progressive JPEG,
so this saves most of the time and changes no pixel. In a baseline file DC and AC are interleaved
and nothing can be left out. Markers and segments: ITU-T T.81, annex B."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

EOI, SOS, DQT, APP1 = 0xD9, 0xDA, 0xDB, 0xE1
SOF_PROGRESSIVE = 0xC2
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# what may follow a scan: tables for the next one (DHT, DAC, DQT, DNL, DRI), the next scan, the end,
# APPn, COM
_AFTER_SCAN = frozenset({0xC4, 0xCC, DQT, 0xDC, 0xDD, SOS, EOI, 0xFE}) | frozenset(
    range(0xE0, 0xF0)
)
# which bytes after 0xFF end a scan: not 0x00 (then 0xFF is data), a restart marker or another 0xFF
# (fill)
_ENDS_SCAN = np.array([code not in (0, 0xFF) and not 0xD0 <= code <= 0xD7 for code in range(256)])


class BrokenJpeg(ValueError):
    """The marker structure shows that the file is cut off or damaged."""


@dataclass(frozen=True)
class Component:
    """One colour component: its id, horizontal and vertical sampling factors and quantisation
    table."""

    id: int
    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class Scan:
    """Bytes ``start:end``: an SOS segment with its entropy-coded data, its components' ids and
    its first coefficient (0 is DC)."""

    start: int
    end: int
    components: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Structure:
    """Frame marker (SOFn), width and height as stored, components, scans in file order, the
    position of each quantisation table segment's payload, and whether there is an APP1 segment
    (EXIF or XMP), which may contain the orientation."""

    frame: int
    width: int
    height: int
    components: tuple[Component, ...]
    scans: tuple[Scan, ...]
    tables: tuple[tuple[int, int], ...]
    has_app1: bool


def structure(data: bytes) -> Structure:
    """Walk the markers of a JPEG file without decoding it. Raises :class:`BrokenJpeg` when it is
    cut off or damaged."""
    truncated = BrokenJpeg(f"truncated: {len(data)} bytes and no end marker")
    frame = width = height = 0
    has_app1 = False
    components: tuple[Component, ...] = ()
    scans: list[Scan] = []
    tables: list[tuple[int, int]] = []
    ends = _possible_ends(data)
    at = 2
    while True:
        if at + 4 > len(data) and data[at : at + 2] != b"\xff\xd9":
            raise truncated
        if data[at] != 0xFF:
            raise BrokenJpeg(f"damaged: no marker where one belongs, at byte {at} of {len(data)}")
        marker = data[at + 1]
        if marker == EOI:
            break
        if marker == 0xFF:  # fill
            at += 1
            continue
        payload, end = at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            raise truncated
        body = data[payload:end]
        if marker in _SOF:
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                raise BrokenJpeg(f"damaged: frame header at byte {at}")
            frame, height, width = (
                marker,
                int.from_bytes(body[1:3], "big"),
                int.from_bytes(body[3:5], "big"),
            )
            entries = [body[k : k + 3] for k in range(6, 6 + 3 * body[5], 3)]
            components = tuple(Component(e[0], e[1] >> 4, e[1] & 15, e[2]) for e in entries)
        elif marker == APP1:
            has_app1 = True
        elif marker == DQT:
            tables.append((payload, end))
        elif marker == SOS:
            if not body or len(body) != 4 + 2 * body[0]:
                raise BrokenJpeg(f"damaged: scan header at byte {at}")
            index = bisect_left(ends, end)
            if index == len(ends):
                raise truncated
            end = ends[index]
            if data[end + 1] not in _AFTER_SCAN:
                raise BrokenJpeg(
                    f"damaged: marker {data[end + 1]:#x} inside the picture's data, at byte {end}"
                )
            scans.append(Scan(at, end, tuple(body[1 : 1 + 2 * body[0] : 2]), body[-3]))
        at = end
    if not (width and height and scans):
        raise BrokenJpeg("damaged: no picture in it")
    return Structure(frame, width, height, components, tuple(scans), tuple(tables), has_app1)


def _possible_ends(data: bytes) -> list[int]:
    """The positions of all bytes 0xFF that would end a scan if they were inside one."""
    content = np.frombuffer(data, np.uint8)
    places = (content[:-1] == 0xFF).nonzero()[0]
    return places[_ENDS_SCAN[content[places + 1]]].tolist()


def for_an_eighth(data: bytes, parts: Structure) -> bytes:
    """A JPEG that decodes at 1/8 to the same pixels as ``data``, without the scans that such a
    decode does not use.

    Subsampled chroma is decoded at 2/8 or more, so its AC scans stay. If nothing can be left out,
    ``data`` itself is returned.

    libjpeg smooths blocks whose AC coefficients are missing, and with them the DC values, unless a
    quantisation table has a zero among its low frequencies (``smoothing_ok`` in jdcoefct.c).
    Therefore the first AC entry is set to 0 in the tables of components that lose their AC scans.
    It scales only coefficients that are no longer there."""
    if parts.frame != SOF_PROGRESSIVE or any(
        start > parts.scans[0].start for start, _ in parts.tables
    ):
        return data
    widest, tallest = (
        max(c.horizontal for c in parts.components),
        max(c.vertical for c in parts.components),
    )
    dropped = {
        c.id: c.table for c in parts.components if (c.horizontal, c.vertical) == (widest, tallest)
    }
    if {c.table for c in parts.components if c.id not in dropped} & set(dropped.values()):
        return data
    head = bytearray(data[: parts.scans[0].start])
    for start, end in parts.tables:
        at = start
        while at < end:
            size = 2 if head[at] >> 4 else 1
            if head[at] & 15 in dropped.values():
                head[at + 1 + size : at + 1 + 2 * size] = bytes(size)
            at += 1 + 64 * size
    kept = [bytes(head)]
    for scan, following in zip(parts.scans, [*parts.scans[1:], None], strict=True):
        if scan.first == 0 or not dropped.keys() >= set(scan.components):
            kept.append(data[scan.start : scan.end])
        if following is not None:
            kept.append(data[scan.end : following.start])  # the Huffman tables of later scans
    return b"".join([*kept, b"\xff\xd9"])
