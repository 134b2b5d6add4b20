"""ICC profiles for the tests, of kinds that the package itself does not write: grey, CMYK, Lab.

Version 2 profiles with the elements that LittleCMS needs (ICC.1:2001-04)."""

import struct
from itertools import product

import numpy as np

from gaip3_pipeline.imaging.colour import Primaries, matrix_profile

P3: Primaries = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ROMM: Primaries = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
SRGB: Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def gamma_curve(gamma: float) -> bytes:
    return struct.pack(">4sIIHH", b"curv", 0, 1, round(gamma * 256), 0)


def rgb_profile(primaries: Primaries, gamma: float, name: str = "test") -> bytes:
    return matrix_profile(name, primaries, gamma_curve(gamma))


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(gamma)})


def cmyk_profile() -> bytes:
    """A table of two levels per ink: paper is not quite white, inks are dull, as in print."""
    levels = np.rint(np.linspace(0, 255, 256)).astype(np.uint8).tobytes()
    colours = []
    for c, m, y, k in product((0, 1), repeat=4):
        light = (1 - k) * (96 - 38 * c - 42 * m - 6 * y) + k * 12
        a = (1 - k) * (-30 * c + 60 * m - 5 * y)
        b = (1 - k) * (-40 * c - 5 * m + 75 * y)
        colours += [round(light * 2.55), round(a + 128), round(b + 128)]
    clut = bytes(max(0, min(255, v)) for v in colours)
    identity = struct.pack(">9i", *(65536 if i in (0, 4, 8) else 0 for i in range(9)))
    table = (
        struct.pack(">4sI4B", b"mft1", 0, 4, 3, 2, 0) + identity + 4 * levels + clut + 3 * levels
    )
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table})


def _profile(space: bytes, connection: bytes, elements: dict[bytes, bytes]) -> bytes:
    text = b"test\0"
    desc = struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78)
    white = struct.pack(">4sI3i", b"XYZ ", 0, 63190, 65536, 54061)
    elements = {b"desc": desc, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white, **elements}
    table, body, start = struct.pack(">I", len(elements)), b"", 132 + 12 * len(elements)
    for key, element in elements.items():
        table += struct.pack(">4sII", key, start + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, kind, space, connection
    )
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    return head + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + body
