"""Damage inside a file is found where the format or its decoder shows it; what is not the picture
does not matter."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode, original_size
from gaip3_pipeline.imaging.jpeg import structure
from gaip3_pipeline_tests.imaging.pictures import (
    file_of,
    jpeg,
    photograph,
    png_chunk,
    png_with,
    tiff,
)

TARGET = Target(128, 104, 0.09375)
MAX = 10_000_000
KINDS = [False, True]  # baseline, progressive


def pixels(data: bytes, target: Target = TARGET) -> np.ndarray:
    return decode(data, "a.jpg", target, MAX).pixels


def overwritten(data: bytes, at: int, by: bytes) -> bytes:
    return data[:at] + by + data[at + len(by) :]


def refusal(data: bytes) -> str:
    with pytest.raises(UnusableImage) as refused:
        decode(data, "a.jpg", TARGET, MAX)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("progressive", KINDS)
@pytest.mark.parametrize("size", [256, 512, 1024])
def test_a_jpeg_with_a_hole_of_400_bytes_is_damaged(size: int, progressive: bool) -> None:
    data = jpeg(photograph(5, size), progressive=progressive)
    scan = structure(data).scans[0]
    middle = (scan.start + scan.end) // 2 - 200
    assert refusal(overwritten(data, middle, bytes(400))).startswith("damaged")


@pytest.mark.parametrize("progressive", KINDS)
def test_half_a_jpeg_is_refused_with_and_without_an_end_marker(progressive: bool) -> None:
    data = jpeg(photograph(5), progressive=progressive)
    half = data[: len(data) // 2]
    assert refusal(half).startswith("truncated")
    assert refusal(half + b"\xff\xd9").startswith("damaged")


def test_a_jpeg_that_lacks_a_scan_is_damaged() -> None:
    data = jpeg(photograph(5), progressive=True)
    for scan in structure(data).scans:
        without = data[: scan.start] + data[scan.end :]
        assert refusal(without).startswith("damaged")


@pytest.mark.parametrize("progressive", KINDS)
@pytest.mark.parametrize("size", [256, 1024])
def test_a_jpeg_is_used_without_its_last_bytes_and_with_stray_ones(
    size: int, progressive: bool
) -> None:
    data = jpeg(photograph(6, size), progressive=progressive)
    whole, quantisation, last = pixels(data), data.find(b"\xff\xdb"), data.rfind(b"\xff\xda")
    for same in (
        data[:-1],
        data[:-2],
        data[:-2] + bytes(500),  # a file of another length than its picture
        data[:-2] + bytes(3) + data[-2:],
        data[:-2] + b"\xff" * 9 + data[-2:],
        data[:2] + b"\0\0" + data[2:],
        data[:quantisation] + b"stray\xff\0bytes" + data[quantisation:],
        data[:last] + b"stray" + data[last:] if progressive else data,
    ):
        assert np.array_equal(pixels(same), whole)


def test_damage_in_scans_that_resizing_leaves_out_is_found_at_full_size() -> None:
    data = jpeg(photograph(5, 1024), progressive=True)
    luma = next(s for s in structure(data).scans if s.first > 0 and s.components == (1,))
    damaged = overwritten(data, (luma.start + luma.end) // 2, bytes(400))
    assert np.array_equal(pixels(damaged), pixels(data))
    with pytest.raises(UnusableImage, match="damaged"):
        pixels(damaged, Target(512, 416, 0.09375))


def test_a_jpeg_of_a_kind_that_no_decoder_reads_is_named() -> None:
    data = bytearray(jpeg(photograph(5)))
    data[data.find(b"\xff\xc0") + 9] = 2  # components
    assert refusal(bytes(data)).startswith("damaged")


def test_the_thumbnail_of_a_damaged_jpeg_is_not_taken_for_the_picture(tmp_path: Path) -> None:
    thumbnail = jpeg(photograph(1, 64))
    body = b"Exif\0\0" + bytes(100) + thumbnail
    segment = b"\xff\xe1" + (40).to_bytes(2, "big") + body  # its length is wrong
    data = jpeg(photograph(5))
    data = data[:2] + segment + data[2:]
    assert refusal(data).startswith("damaged")
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(UnusableImage, match=r"a\.jpg: damaged"):
        original_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("progressive", KINDS)
def test_damaged_metadata_of_a_jpeg_do_not_matter(progressive: bool) -> None:
    plain = jpeg(photograph(6), progressive=progressive)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09"  # of an unknown kind
    for same in (
        overwritten(plain, 6, b"\xff" * 14),
        overwritten(plain, 11, b"\7\7"),  # an unknown version of JFIF
        plain[:20] + adobe + plain[20:],
        jpeg(photograph(6), progressive=progressive, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        jpeg(photograph(6), progressive=progressive, comment=b"\xff\xfe" * 30_000),
    ):
        assert np.array_equal(pixels(same), pixels(plain))


def test_unusual_sampling_factors_are_decoded() -> None:
    planes = [jpeg(plane) for plane in photograph(6).convert("YCbCr").split()]
    frame = planes[0].find(b"\xff\xc0")
    tables = planes[0].find(b"\xff\xc4")
    factors = b"".join(bytes([number, 0x22, 0]) for number in (1, 2, 3))
    data = planes[0][:frame] + b"\xff\xc0\0\x11\x08\1\0\1\0\3" + factors
    data += planes[0][tables : planes[0].find(b"\xff\xda")]
    for number, plane in enumerate(planes, 1):
        scan = structure(plane).scans[0]
        data += (
            b"\xff\xda\0\x08\1" + bytes([number, 0, 0, 63, 0]) + plane[scan.start + 10 : scan.end]
        )
    whole = data + b"\xff\xd9"
    assert np.abs(pixels(whole).astype(int) - np.asarray(photograph(6))).mean() < 3


def test_a_wrong_checksum_of_a_chunk_of_the_picture_is_damage() -> None:
    palette = file_of(photograph(5).quantize(64), "PNG")
    for data, name in ((file_of(photograph(5), "PNG"), b"IDAT"), (palette, b"PLTE")):
        at = data.find(name) + 30
        said = refusal(overwritten(data, at, bytes([data[at] ^ 1])))
        assert said.startswith(f"damaged: the checksum of chunk {name.decode()} is wrong")
    assert refusal(overwritten(palette, 18, b"\2")).startswith("damaged: the header")


def png_of(raw: bytes, packed: bytes | None = None) -> bytes:
    """A PNG of 256 x 256 pixels of colour with these rows, or with these compressed data."""
    head = png_chunk(b"IHDR", struct.pack(">II5B", 256, 256, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", packed or zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + png_chunk(b"IEND", b"")


def test_a_png_whose_data_end_early_is_refused_and_one_without_an_end_is_not() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(photograph(5)))
    whole = png_of(rows)
    assert np.array_equal(pixels(whole), np.asarray(photograph(5)))
    assert "rows are missing" in refusal(png_of(rows[: len(rows) // 2]))
    assert refusal(png_of(b"", zlib.compress(rows)[:5000])).startswith("damaged")
    assert refusal(png_of(b"", zlib.compress(rows)[:-4] + b"abcd")).startswith("damaged")
    assert refusal(whole[:5000]).startswith("damaged: truncated")
    for cut in (3, 12):
        assert np.array_equal(pixels(whole[:-cut]), np.asarray(photograph(5)))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA"])
def test_a_png_that_ends_in_one_colour_is_whole(mode: str) -> None:
    image = photograph(5).convert(mode)
    image.paste(0, (0, 200, 256, 256))
    wanted = np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels(file_of(image, "PNG")), wanted)


def bomb(length: int) -> bytes:
    return zlib.compress(bytes(length))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + bomb(20_000_000)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb(20_000_000)),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb(20_000_000)),
        png_chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        png_chunk(b"tEXt", b"Comment\0text")[:-1] + b"?",
        png_chunk(b"eXIf", b"junk"),
        png_chunk(b"tIME", b"short"),
        png_chunk(b"pHYs", b"")[:-4] + b"\0\0\0\0",
        png_chunk(b"prVt", bytes(100)),
    ],
    ids=["zTXt", "XMP", "EXIF", "tEXt", "checksum", "eXIf", "tIME", "pHYs", "own"],
)
def test_metadata_of_a_png_do_not_matter(chunk: bytes, tmp_path: Path) -> None:
    data = png_with(photograph(6), chunk)
    picture = decode(data, "a.png", TARGET, MAX)
    assert picture.notes == ()
    assert np.array_equal(picture.pixels, np.asarray(photograph(6)))
    (tmp_path / "a.png").write_bytes(data)
    assert original_size(tmp_path / "a.png") == (256, 256)


def test_the_orientation_in_a_text_of_a_png_still_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()
    text = f"\nexif\n{len(body):8}\n{body.hex()}\n".encode()
    chunk = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    data = png_with(photograph(6, 300, 200), chunk)
    assert decode(data, "a.png", TARGET, MAX).notes == ("turned by EXIF orientation 6",)
    (tmp_path / "a.png").write_bytes(data)
    assert original_size(tmp_path / "a.png") == (300, 200)


@pytest.mark.parametrize("options", [{"quality": 90}, {"lossless": True}])
def test_a_webp_with_a_hole_is_damaged_and_one_of_one_colour_is_not(
    options: dict[str, object],
) -> None:
    data = file_of(photograph(5), "WEBP", **options)
    middle = len(data) // 2
    assert "zero bytes" in refusal(overwritten(data, middle, bytes(400)))
    assert refusal(data[:middle]).startswith("damaged: truncated")
    for size in (256, 1024):
        image = Image.new("RGB", (size, size), "white")
        image.paste(photograph(5, size).crop((0, 0, size, size // 8)))
        for quality in (30, 75, 95):
            pixels(file_of(image, "WEBP", **options | {"quality": quality}))


def test_a_webp_that_was_cut_off_in_its_metadata_is_used(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = file_of(photograph(6), "WEBP", lossless=True, exif=exif)
    (tmp_path / "a.webp").write_bytes(data[:-9])
    assert np.array_equal(pixels(data[:-9]), np.asarray(photograph(6)))
    assert original_size(tmp_path / "a.webp") == (256, 256)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate"])
def test_damage_of_a_tiff_is_found_where_its_compression_shows_it(compression: str) -> None:
    data = file_of(photograph(5), "TIFF", compression=compression)
    assert np.array_equal(pixels(data), np.asarray(photograph(5)))
    said = refusal(data[: len(data) // 2])
    assert said.startswith("damaged")
    assert "decoder" not in said
    if compression != "raw":
        holed = overwritten(data, len(data) // 2, bytes(400))
        assert refusal(holed).startswith("damaged")


def test_nothing_is_printed_about_damaged_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for form, options in (
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 90}),
        ("AVIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("BMP", {}),
    ):
        data = file_of(photograph(5), form, **options)
        for share in (0.02, 0.3, 0.6, 0.9):
            at = int(share * len(data))
            for kind, damaged in (
                ("zeros", overwritten(data, at, bytes(300))),
                ("noise", overwritten(data, at, rng.bytes(300))),
                ("cut", data[:at]),
            ):
                (tmp_path / f"{form} {len(options)} {share} {kind}").write_bytes(damaged)
    code = """
import sys
from pathlib import Path
from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode, original_size
for path in Path(sys.argv[1]).iterdir():
    for read in (lambda: decode(path.read_bytes(), path.name, Target(128, 104), 10**7),
                 lambda: original_size(path)):
        try:
            read()
        except UnusableImage as e:
            assert "\\n" not in str(e), e
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pictures_of_other_formats_are_read(tmp_path: Path) -> None:
    frames = [photograph(i, 128, 160) for i in range(3)]
    grey16 = Image.fromarray(np.asarray(frames[0].convert("L")).astype(np.uint16) * 257)
    for image, name, options, note in (
        (frames[0], "a.bmp", {}, ""),
        (frames[0].convert("RGBA"), "a.BMP", {}, ""),
        (frames[0], "a.tif", {}, ""),
        (frames[0], "a.TIFF", {"compression": "tiff_lzw"}, ""),
        (frames[0].convert("CMYK"), "a.tiff", {}, "CMYK"),
        (frames[0].convert("L"), "a.tif", {}, "greyscale"),
        (grey16, "a.tif", {}, "16-bit; greyscale"),
        (frames[0], "a.avif", {"quality": 95}, ""),
        (frames[0], "a.jpe", {"quality": 95}, ""),
        (frames[0], "a.jfif", {"quality": 95}, ""),
        (frames[0], "b.tif", {"save_all": True, "append_images": frames[1:]},
         "the first of several pages"),
        (frames[0], "b.png", {"save_all": True, "append_images": frames[1:]},
         "the first of several frames"),
        (frames[0], "b.webp", {"save_all": True, "append_images": frames[1:], "lossless": True},
         "the first of several frames"),
        (frames[0], "b.avif", {"save_all": True, "append_images": frames[1:], "quality": 95},
         "the first of several frames"),
    ):  # fmt: skip
        path = tmp_path / name
        image.save(path, {".JPE": "JPEG", ".JFIF": "JPEG"}.get(path.suffix.upper()), **options)
        picture = decode(path.read_bytes(), name, Target(128, 104), MAX)
        assert "; ".join(picture.notes) == note, name
        assert original_size(path) == (picture.width, picture.height) == (160, 128)
        wanted = np.asarray(frames[0].convert("L" if "grey" in note else "RGB").convert("RGB"))
        assert np.abs(picture.pixels.astype(int) - wanted).mean() < 4, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "AVIF"])
def test_orientation_is_applied_in_other_formats(
    orientation: int, form: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{form.lower()}"
    photograph(3, 128, 160).save(path, exif=exif, **({"quality": 95} if form == "AVIF" else {}))
    picture = decode(path.read_bytes(), path.name, Target(100, 80), MAX)
    wanted = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    image = photograph(3, 128, 160)
    turned = image if wanted is None else image.transpose(Image.Transpose(wanted))
    assert original_size(path) == (picture.width, picture.height) == turned.size
    assert np.abs(picture.pixels.astype(int) - np.asarray(turned)).mean() < 3
    assert bool(picture.notes) == (orientation > 1)


def test_sixteen_bits_of_a_tiff_count_from_its_own_white() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (128, 1))
    data = file_of(Image.fromarray(ramp), "TIFF")
    inverted = bytearray(data)
    at = data.find(struct.pack("<HHI", 262, 3, 1))
    inverted[at + 8] = 0  # white is zero
    for file, wanted in ((data, np.arange(256)), (bytes(inverted), np.arange(256)[::-1])):
        levels = decode(file, "a.tif", Target(128, 256), MAX).pixels[0, :, 0]
        assert np.abs(levels.astype(int) - wanted).max() <= 1


GREY = np.asarray(photograph(5).convert("L"))[:, :, None]
ALPHA = np.full((256, 256, 1), 128, np.uint8)
RGB, CMYK = (np.asarray(photograph(5).convert(mode)) for mode in ("RGB", "CMYK"))


def with_alpha(channels: np.ndarray, count: int = 1) -> np.ndarray:
    return np.concatenate([channels, *[ALPHA] * count], axis=2)


@pytest.mark.parametrize(
    ("channels", "photometric", "tags", "mode"),
    [
        (RGB, 2, {}, "RGB"),
        (with_alpha(RGB), 2, {"t338": (2,)}, "RGB"),
        (with_alpha(RGB), 2, {"t338": (0,)}, "RGB"),
        (CMYK, 5, {}, "CMYK"),
        (GREY, 1, {}, "L"),
        (255 - GREY, 0, {}, "L"),
    ],
    ids=["RGB", "alpha", "extra", "CMYK", "grey", "white is zero"],
)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("layout", ["strip", "tiles", "big-endian", "zlib"])
def test_separate_planes_of_a_tiff_are_read_as_interleaved_channels(
    channels: np.ndarray,
    photometric: int,
    tags: dict[str, tuple[int, ...]],
    mode: str,
    deep: bool,
    layout: str,
) -> None:
    if deep:
        channels = channels.astype(np.uint16) * 257
    order = ">" if layout == "big-endian" and not (deep and photometric == 0) else "<"
    data = tiff(
        channels,
        photometric,
        packed=layout == "zlib",
        order=order,
        tile=96 if layout == "tiles" else 0,
        **tags,
    )
    wanted = np.asarray(photograph(5).convert(mode).convert("RGB"))
    assert np.abs(pixels(data).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("channels", "photometric", "separate", "tags"),
    [
        (with_alpha(RGB), 2, True, {}),
        (with_alpha(RGB, 2), 2, True, {"t338": (2, 0)}),
        (with_alpha(GREY), 1, True, {"t338": (1,)}),
        (with_alpha(GREY), 1, False, {"t338": (1,)}),
        (GREY, 1, False, {"t339": (2,)}),
        (GREY.astype(np.uint16), 1, False, {"t339": (2,)}),
    ],
    ids=["undescribed", "two extra", "multiplied", "interleaved", "signed", "signed, 16 bits"],
)
def test_channels_of_a_tiff_that_would_be_read_wrongly_are_refused(
    channels: np.ndarray,
    photometric: int,
    separate: bool,
    tags: dict[str, tuple[int, ...]],
    packed: bool,
) -> None:
    said = refusal(tiff(channels, photometric, separate=separate, packed=packed, **tags))
    assert said.startswith("a TIFF file of a kind that is not supported: save it anew as RGB")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of(photograph(5).quantize(), "GIF"), "a GIF file: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "a HEIC file: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1" + bytes(100), "a HEIC file: convert it to JPEG or PNG"),
        (b"\xff\x0a" + bytes(100), "a JPEG XL file: convert it to JPEG or PNG"),
        (file_of(photograph(5), "JPEG2000"), "a JPEG 2000 file: convert it to JPEG or PNG"),
        (file_of(photograph(5).convert("F"), "TIFF"), "its pixels have 32 bits"),
        (file_of(photograph(5).convert("I"), "TIFF"), "its pixels have 32 bits"),
        (file_of(Image.new("RGB", (4000, 3000)), "BMP"), "too large: 4000 x 3000"),
        (file_of(Image.new("1", (4000, 3000)), "TIFF"), "too large: 4000 x 3000"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_other_files_are_refused_with_their_format_and_the_remedy(data: bytes, reason: str) -> None:
    assert refusal(data).startswith(reason)
