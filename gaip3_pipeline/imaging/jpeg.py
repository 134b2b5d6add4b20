"""The marker structure of a JPEG file: whether the file is complete, its metadata segments, and the
part of it that is needed to decode at 1/8.

At 1/8 every 8x8 block of luma becomes one pixel, its mean, which is the DC coefficient alone. A
progressive file stores the other (AC) coefficients in separate scans, most of its bytes, and those
of luma need not be decoded at all. Entropy decoding takes most of the time of a progressive JPEG,
so this saves most of the time and changes no pixel. In a baseline file DC and AC are interleaved
and nothing can be left out. Markers and segments: ITU-T T.81, annex B. ICC profiles in APP2
segments: ICC.1:2022, annex B.4."""

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

EOI, SOS, DQT, APP0, APP1, APP2, APP14 = 0xD9, 0xDA, 0xDB, 0xE0, 0xE1, 0xE2, 0xEE
SOF_PROGRESSIVE = 0xC2
END = b"\xff\xd9"
_ICC = b"ICC_PROFILE\0"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# what may follow a scan: tables for the next one (DHT, DAC, DQT, DNL, DRI), the next scan, the end,
# APPn, COM
_AFTER_SCAN = frozenset({0xC4, 0xCC, DQT, 0xDC, 0xDD, SOS, EOI, 0xFE}) | frozenset(
    range(0xE0, 0xF0)
)
_METADATA = frozenset(range(0xE0, 0xF0)) | {0xFE}  # APPn, COM
# which bytes after 0xFF end a scan: not 0x00 (then 0xFF is data), a restart marker or another 0xFF
# (fill)
_ENDS_SCAN = np.array([code not in (0, 0xFF) and not 0xD0 <= code <= 0xD7 for code in range(256)])
_MARKERS = _SOF | _AFTER_SCAN
Bytes = bytes | mmap.mmap


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
    """Bytes ``start:end``: an SOS segment with its entropy-coded data, its components' ids, its
    first and last coefficient (0 is DC), and the lowest bit of them that it holds."""

    start: int
    end: int
    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int


@dataclass(frozen=True)
class Header:
    """What stands before the first scan: frame marker (SOFn), width and height as stored,
    components, and the positions of the frame header's segment, of the APP1 segments (EXIF, XMP),
    of the payloads of ICC segments and of quantisation tables."""

    marker: int
    width: int
    height: int
    components: tuple[Component, ...]
    frame: tuple[int, int]
    app1: tuple[tuple[int, int], ...]
    icc: tuple[tuple[int, int], ...]
    tables: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Structure:
    """The header and the scans, in file order, of ``data``: the file's bytes without stray bytes
    between segments, with an end marker.

    ``complete`` is False if the file itself has no end marker; ``late_tables`` says whether
    quantisation tables follow the first scan."""

    data: bytes
    header: Header
    scans: tuple[Scan, ...]
    complete: bool
    late_tables: bool


def read_header(data: Bytes) -> Header:
    """The header of a JPEG file; the rest of it is not read. Raises :class:`BrokenJpeg`."""
    frame: tuple[int, int] | None = None
    marker = width = height = 0
    components: tuple[Component, ...] = ()
    app1, icc, tables = [], [], []
    for code, start, end in _segments(data, until=SOS):
        payload = start + 4
        if code in _SOF:
            body = data[payload:end]
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                raise BrokenJpeg(f"damaged: frame header at byte {start}")
            frame, marker = (start, end), code
            height, width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
            entries = [body[k : k + 3] for k in range(6, 6 + 3 * body[5], 3)]
            components = tuple(Component(e[0], e[1] >> 4, e[1] & 15, e[2]) for e in entries)
        elif code == APP1:
            app1.append((start, end))
        elif code == APP2 and data[payload : payload + len(_ICC)] == _ICC:
            icc.append((payload + len(_ICC), end))
        elif code == DQT:
            tables.append((payload, end))
    if frame is None or not (width and height):
        raise BrokenJpeg("damaged: no picture in it")
    return Header(marker, width, height, components, frame, tuple(app1), tuple(icc), tuple(tables))


def structure(data: bytes) -> Structure:
    """Walk the markers of a JPEG file without decoding it. Raises :class:`BrokenJpeg` when it is
    damaged, when scans are missing, or when it is cut off before its last scan.

    Stray bytes between segments, which decoders skip, are left out. A file without an end marker is
    given one: only decoding shows whether its last scan is complete."""
    segments = list(_segments(data))
    scans = tuple(_scan(data, start, end) for code, start, end in segments if code == SOS)
    complete = any(code == EOI for code, _, _ in segments)
    cut = BrokenJpeg(f"truncated: {len(data)} bytes and no end marker")
    if not complete and not scans:
        raise cut
    if not complete or any(code is None for code, _, _ in segments):
        parts = [data[start:end] for code, start, end in segments if code is not None]
        whole = b"".join([b"\xff\xd8", *parts, b"" if complete else END])
        try:
            return replace(structure(whole), complete=complete)
        except BrokenJpeg as e:
            raise e if complete else cut from e
    header = read_header(data)
    if missing := _missing(header, scans):
        raise BrokenJpeg(f"damaged: {missing}")
    late = any(code == DQT and start > scans[0].start for code, start, _ in segments)
    return Structure(data, header, scans, complete, late)


def exif_part(data: Bytes, header: Header) -> bytes:
    """A JPEG of the APP1 segments and the frame header alone, for a reader of EXIF and XMP."""
    parts = [data[start:end] for start, end in (*header.app1, header.frame)]
    return b"".join([b"\xff\xd8", *parts])


def icc_profile(data: Bytes, header: Header) -> bytes | None:
    """The embedded ICC profile; None if there is none, empty if a part of it is missing."""
    if not header.icc:
        return None
    parts = sorted((data[start], data[start + 2 : end]) for start, end in header.icc)
    count = data[header.icc[0][0] + 1]
    whole = [number for number, _ in parts] == list(range(1, count + 1))
    return b"".join(part for _, part in parts) if whole else b""


def with_icc_profile(jpeg: bytes, profile: bytes) -> bytes:
    """The JPEG file ``jpeg`` with an ICC profile of at most 65,519 bytes."""
    at = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[3] == APP0 else 2  # JFIF's APP0 comes first
    body = _ICC + b"\x01\x01" + profile
    segment = bytes([0xFF, APP2]) + (len(body) + 2).to_bytes(2, "big") + body
    return jpeg[:at] + segment + jpeg[at:]


def bare(parts: Structure) -> Structure:
    """The same without metadata and without zero bytes at the end of the last scan.

    Decoders warn of metadata that they do not know, and of the zero bytes that some programs write
    before the end marker. A complete scan may end in zero bytes too, so only a file that cannot be
    decoded otherwise is tried in this way."""
    data, kept = parts.data, [b"\xff\xd8"]
    for code, start, end in _segments(data):
        segment = data[start:end]
        if start == parts.scans[-1].start:
            segment = segment.rstrip(b"\0")
            # 0xFF is followed by a zero byte in entropy-coded data
            segment += b"\0" if segment.endswith(b"\xff") else b""
        # Adobe's segment tells RGB from YCbCr
        is_adobe = code == APP14 and segment[4:9] == b"Adobe" and segment[15:16] <= b"\2"
        if code not in _METADATA or is_adobe:
            kept.append(segment)
    return replace(structure(b"".join(kept)), complete=parts.complete)


def for_an_eighth(parts: Structure) -> bytes:
    """A JPEG that decodes at 1/8 to the same pixels as ``parts.data``, without the scans that such
    a decode does not use.

    Subsampled chroma is decoded at 2/8 or more, so its AC scans stay. If nothing can be left out,
    ``parts.data`` itself is returned.

    libjpeg smooths blocks whose AC coefficients are missing, and with them the DC values, unless a
    quantisation table has a zero among its low frequencies (``smoothing_ok`` in jdcoefct.c).
    Therefore the first AC entry is set to 0 in the tables of components that lose their AC scans.
    It scales only coefficients that are no longer there."""
    data, header = parts.data, parts.header
    components = header.components
    if header.marker != SOF_PROGRESSIVE or parts.late_tables:
        return data
    widest, tallest = max(c.horizontal for c in components), max(c.vertical for c in components)
    dropped = {c.id: c.table for c in components if (c.horizontal, c.vertical) == (widest, tallest)}
    if {c.table for c in components if c.id not in dropped} & set(dropped.values()):
        return data
    head = bytearray(data[: parts.scans[0].start])
    for start, end in header.tables:
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
    return b"".join([*kept, END])


def _segments(data: Bytes, until: int = EOI) -> Iterator[tuple[int | None, int, int]]:
    """The segments after the SOI marker, up to the first marker ``until``, EOI or the end of the
    file: marker code, first byte, end (exclusive); stray bytes have the code None.

    The end of an SOS segment is that of its entropy-coded data."""
    ends: list[int] | None = None
    at = 2
    while at + 2 <= len(data):
        code = data[at + 1]
        if data[at] != 0xFF or (code != 0xFF and code not in _MARKERS):
            end = _next_marker(data, at + 1)
            if data.find(b"\xff\xd8", at, end) >= 0:  # the thumbnail of a damaged EXIF segment
                raise BrokenJpeg(
                    f"damaged: no marker where one belongs, at byte {at} of {len(data)}"
                )
            yield None, at, end
            at = end
            continue
        if code == 0xFF:  # fill
            at += 1
            continue
        if code == EOI:
            yield EOI, at, at + 2
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if code == until or end > len(data) or end < at + 4:
            return
        if code == SOS:
            ends = _possible_ends(data) if ends is None else ends
            index = bisect_left(ends, end)
            end = ends[index] if index < len(ends) else len(data) - (data[-1:] == b"\xff")
            if index < len(ends) and data[end + 1] not in _AFTER_SCAN:
                raise BrokenJpeg(
                    f"damaged: marker {data[end + 1]:#x} inside the picture's data, at byte {end}"
                )
        yield code, at, end
        at = end


def _next_marker(data: Bytes, at: int) -> int:
    """The position of the first marker of a segment from ``at`` on, or the end of the file."""
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        if data[at + 1] in _MARKERS:
            return at
        at += 1
    return len(data)


def _scan(data: bytes, start: int, end: int) -> Scan:
    body = data[start + 4 : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
    if not body or len(body) != 4 + 2 * body[0]:
        raise BrokenJpeg(f"damaged: scan header at byte {start}")
    first, last, bits = body[-3:]
    return Scan(start, end, tuple(body[1 : 1 + 2 * body[0] : 2]), first, last, bits & 15)


def _missing(header: Header, scans: Sequence[Scan]) -> str:
    """What the scans lack of the picture; empty if nothing."""
    progressive = header.marker == SOF_PROGRESSIVE
    for component in header.components:
        lowest: dict[int, int] = {}  # the lowest bit given of each coefficient
        for scan in scans:
            if component.id in scan.components:
                given = range(scan.first, scan.last + 1) if progressive else range(64)
                lowest |= dict.fromkeys(given, scan.low_bit if progressive else 0)
        if any(lowest.get(k) != 0 for k in range(64)):
            return f"scans of component {component.id} are missing"
    return ""


def _possible_ends(data: Bytes) -> list[int]:
    """The positions of all bytes 0xFF that would end a scan if they were inside one."""
    content = np.frombuffer(data, np.uint8)
    places = (content[:-1] == 0xFF).nonzero()[0]
    return places[_ENDS_SCAN[content[places + 1]]].tolist()
