"""The chunks of a WebP file: whether its picture is complete.

WebP has no checksums, and its decoder does not notice bytes that were overwritten. Only holes are
found, the runs of zero bytes that a failed copy leaves. Chunks: RFC 9649, section 2."""

_PICTURE = (b"VP8 ", b"VP8L", b"ANMF")
_ALPHA = b"ALPH"
_METADATA_FLAGS = 0x08 | 0x04  # of EXIF and XMP in the chunk VP8X
# The shortest run of zero bytes that is a hole. The sound pixels of 252 drawn pictures have up to
# 153 of them (1024², 7/8 in one colour), those of 50 photographs, lossy and lossless, up to 4.
# Areas of one colour take up to a bit for three blocks of 16².
_HOLE, _PIXELS_PER_ZERO = 256, 4096


class BrokenWebp(ValueError):
    """The file is cut off, or there is a hole in it."""


def without_cut_metadata(data: bytes) -> bytes:
    """The WebP file ``data``; if it was cut off after its picture, without what follows. Raises
    :class:`BrokenWebp` if it was cut off before."""
    chunks = list(_chunks(data))
    if not any(name in _PICTURE for name, _, _ in chunks):
        raise BrokenWebp(f"damaged: truncated after {len(data)} bytes")
    end = chunks[-1][2]
    if end + end % 2 == 8 + int.from_bytes(data[4:8], "little"):
        return data
    if data[end + end % 2 :][:4] in (*_PICTURE, _ALPHA):
        raise BrokenWebp(f"damaged: truncated after {len(data)} bytes")
    body = bytearray(data[8:end] + bytes(end % 2))
    if chunks[0][0] == b"VP8X":
        body[12] &= ~_METADATA_FLAGS
    return b"RIFF" + len(body).to_bytes(4, "little") + bytes(body)


def refuse_holes(data: bytes, pixels: int) -> None:
    """Raise :class:`BrokenWebp` if there is a hole in a picture of so many ``pixels``."""
    hole = bytes(max(_HOLE, pixels // _PIXELS_PER_ZERO))
    for name, start, end in _chunks(data):
        if name in (*_PICTURE, _ALPHA) and (at := data.find(hole, start, end)) >= 0:
            raise BrokenWebp(f"damaged: {len(hole)} zero bytes at byte {at} of {len(data)}")


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """The complete chunks of a file: name, first byte and end (exclusive) of the content."""
    found, at = [], 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            break
        found.append((data[at : at + 4], at + 8, end))
        at = end + end % 2
    return found
