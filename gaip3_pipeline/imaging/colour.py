"""From the colour encoding of a file to sRGB, by LittleCMS.

Every encoding is an ICC profile here: the embedded one, or one that is written for what the file
says in another way (gAMA and cHRM of PNG, the code points of ITU-T H.273, Adobe RGB by EXIF). An
encoding that is sRGB, by its values and not by its name, needs no conversion. The rendering intent
is perceptual, as Pillow's and LittleCMS's default."""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageCms

LONGEST_PROFILE = 8 << 20  # bytes; profiles of printing presses have up to 3 MB
_SAME = 1  # grey levels; what differs from sRGB by no more is sRGB
_LEVELS = (0, 16, 32, 64, 96, 128, 192, 255)
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # of a picture's mode
# CIE 1931 chromaticities of white, red, green and blue
Primaries = tuple[float, ...]
_D65 = (0.3127, 0.3290)
BT709: Primaries = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE: Primaries = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_UNSPECIFIED = 2  # in both tables of ITU-T H.273
# ITU-T H.273, table 2
_PRIMARIES: dict[int, Primaries] = {
    1: BT709,
    _UNSPECIFIED: BT709,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
# ITU-T H.273, table 3: transfer characteristics that are sRGB's, unspecified, or the camera curves
# of television, which viewers of pictures show as sRGB
_LIKE_SRGB = (1, _UNSPECIFIED, 6, 13, 14, 15)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_WHITE = 203.0  # cd/m² of white in a picture of high dynamic range (ITU-R BT.2408)
_SRGB_CURVE = struct.pack(
    ">4sIHH5i",
    b"para",
    0,
    3,
    0,
    *(round(65536 * v) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)),
)


class UnreadableProfile(ValueError):
    """A colour profile that cannot be used; the message is the reason in a few words."""


@dataclass(frozen=True)
class Conversion:
    """To sRGB from the profile called ``name``, for pictures of Pillow's ``mode``."""

    name: str
    mode: str
    transform: ImageCms.ImageCmsTransform

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """``(H, W) uint8`` of mode L, or ``(H, W, C) uint8``, to ``(H, W, 3) uint8``."""
        image = as_image(pixels, self.mode)
        return np.asarray(ImageCms.applyTransform(image, self.transform))


def as_image(pixels: np.ndarray, mode: str) -> Image.Image:
    """``(H, W) uint8`` or ``(H, W, C) uint8`` as Pillow's image of ``mode``."""
    size = pixels.shape[1::-1]
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


@lru_cache(maxsize=8)
def conversion(profile: bytes, mode: str) -> Conversion | None:
    """The conversion of pictures of ``mode`` (L, RGB or CMYK) from an ICC ``profile``; None if it
    changes nothing. Raises :class:`UnreadableProfile`."""
    if not 0 < len(profile) <= LONGEST_PROFILE:
        raise UnreadableProfile(f"{len(profile):,} bytes" if profile else "damaged")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != _SPACES[mode]:
            raise UnreadableProfile(f"it is for {space} pictures, not {_SPACES[mode]}")
        made = Conversion(
            _one_line(ImageCms.getProfileDescription(source)),
            mode,
            ImageCms.buildTransform(
                source,
                ImageCms.createProfile("sRGB"),
                mode,
                "RGB",
                ImageCms.Intent.PERCEPTUAL,
            ),
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as e:
        raise e if isinstance(e, UnreadableProfile) else UnreadableProfile("damaged") from e
    return None if _changes_nothing(made) else made


@lru_cache(maxsize=64)
def matrix_profile(name: str, primaries: Primaries, curve: bytes) -> bytes:
    """An ICC profile (version 4.3) of three ``primaries`` with one tone ``curve``, which is a
    ``para`` or ``curv`` element. ICC.1:2022, section 8.3.3. Raises :class:`UnreadableProfile` for
    primaries on a line.

    Equal arguments give equal bytes."""
    white, *colours = np.reshape(primaries, (4, 2))
    xyz = np.array([[x / y, 1, (1 - x - y) / y] if y else [0, 0, 0] for x, y in (white, *colours)])
    columns = xyz[1:].T
    try:
        matrix = columns * np.linalg.solve(columns, xyz[0])
    except np.linalg.LinAlgError as e:
        raise UnreadableProfile("its primaries are no triangle") from e
    # Bradford's adaptation to the white of the profile connection space, D50
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapt = np.linalg.solve(cone, np.diag(cone @ d50 / (cone @ xyz[0])) @ cone)
    matrix = adapt @ matrix
    text = name.encode("utf-16-be")
    words = struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(text), 28) + text
    elements = {
        b"desc": words,
        b"cprt": struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", 4, 28) + b"\0C\0C",
        b"wtpt": _numbers(b"XYZ ", d50),
        b"chad": _numbers(b"sf32", adapt.ravel()),
        **{
            key: _numbers(b"XYZ ", matrix[:, i])
            for i, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
        },
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body = struct.pack(">I", len(elements)), b""
    start = 128 + 4 + 12 * len(elements)
    for key, element in elements.items():
        table += struct.pack(">4sII", key, start + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    return (
        struct.pack(
            ">I4sI4s4s4s6H4s7I3I4s",
            start + len(body),
            bytes(4),
            0x04300000,
            b"mntr",
            b"RGB ",
            b"XYZ ",
            *(2026, 1, 1, 0, 0, 0),
            b"acsp",
            *(0, 0, 0, 0, 0, 0, 0),
            *(round(65536 * v) for v in d50),
            bytes(4),
        )
        + bytes(44)
        + table
        + body
    )


def srgb_profile() -> bytes:
    """An ICC profile of sRGB."""
    return matrix_profile("sRGB", BT709, _SRGB_CURVE)


def adobe_rgb_profile() -> bytes:
    """An ICC profile of Adobe RGB (1998)."""
    return matrix_profile("Adobe RGB", _ADOBE, _gamma(563 / 256))


def coded_profile(primaries: int, transfer: int, full_range: bool = True) -> bytes | None:
    """An ICC profile of code points of ITU-T H.273, as in PNG's cICP; None if both are
    unspecified. Raises :class:`UnreadableProfile` for code points that are not known here.

    A picture of high dynamic range is cut off at 203 cd/m², which becomes white."""
    name = f"code points {primaries}/{transfer}"
    known = transfer in (*_LIKE_SRGB, *_GAMMAS, _PQ, _HLG) and primaries in _PRIMARIES
    if not known or not full_range:
        raise UnreadableProfile(f"{name} are not supported")
    if primaries == transfer == _UNSPECIFIED:
        return None
    if transfer in _LIKE_SRGB:
        return matrix_profile(name, _PRIMARIES[primaries], _SRGB_CURVE)
    if transfer in _GAMMAS:
        return matrix_profile(name, _PRIMARIES[primaries], _gamma(_GAMMAS[transfer]))
    levels = np.linspace(0, 1, 4096)
    light = _pq(levels) if transfer == _PQ else _hlg(levels)
    table = np.rint(65535 * np.minimum(light / _WHITE, 1)).astype(">u2").tobytes()
    return matrix_profile(
        name, _PRIMARIES[primaries], struct.pack(">4sII", b"curv", 0, len(levels)) + table
    )


def gamma_profile(gamma: int | None, primaries: tuple[int, ...] | None) -> bytes:
    """An ICC profile of PNG's gAMA and cHRM chunks in units of 1/100,000.

    A missing one is that of sRGB. Raises :class:`UnreadableProfile`."""
    is_srgb = gamma is None or abs(gamma - 45455) <= 500
    wanted = tuple(v / 100_000 for v in primaries) if primaries else BT709
    if max(abs(a - b) for a, b in zip(wanted, BT709, strict=True)) <= 0.001:
        wanted = BT709
    if gamma is not None and not 10_000 <= gamma <= 1_000_000:
        raise UnreadableProfile(f"a gamma of {gamma / 100_000:g}")
    curve = _SRGB_CURVE if is_srgb or gamma is None else _gamma(100_000 / gamma)
    name = f"gamma {(gamma or 45455) / 100_000:g}"
    return matrix_profile(name, wanted, curve)


def _gamma(exponent: float) -> bytes:
    return struct.pack(">4sIHHi", b"para", 0, 0, 0, round(65536 * exponent))


def _pq(levels: np.ndarray) -> np.ndarray:
    """cd/m² of levels in 0..1 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
    power = levels ** (1 / m2)
    return 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg(levels: np.ndarray) -> np.ndarray:
    """cd/m² of levels in 0..1 on a display of 1000 cd/m² (ITU-R BT.2100), for grey."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - c) / a) + b) / 12)
    return 1000 * scene**1.2


def _numbers(kind: bytes, values: np.ndarray) -> bytes:
    return struct.pack(f">4sI{len(values)}i", kind, 0, *(round(65536 * float(v)) for v in values))


def _changes_nothing(made: Conversion) -> bool:
    if made.mode == "CMYK":
        return False
    if made.mode == "L":
        levels = np.arange(256, dtype=np.uint8)[None]
        want = np.repeat(levels[:, :, None], 3, axis=2)
    else:
        levels = want = np.array(list(product(_LEVELS, repeat=3)), np.uint8)[None]
    return int(np.abs(made(levels).astype(np.int16) - want).max()) <= _SAME


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:60]
