"""Pictures come out in sRGB, whatever their files say about colour and wherever they say it."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from gaip3_pipeline.imaging.colour import conversion, matrix_profile, srgb_profile
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.jpeg import with_icc_profile
from gaip3_pipeline.imaging.processing import resize_set
from gaip3_pipeline.imaging.transform import encode_jpeg, resize
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.manifests import manifest_rows
from gaip3_pipeline_tests.imaging.pictures import (
    file_of,
    jpeg,
    photograph,
    png_chunk,
    png_with,
    tiff,
)
from gaip3_pipeline_tests.imaging.profiles import (
    ADOBE,
    P3,
    ROMM,
    SRGB,
    cmyk_profile,
    grey_profile,
    rgb_profile,
)

TARGET = Target(128, 104, 0.09375)
MAX = 10_000_000
PROFILES = {
    "Display P3": rgb_profile(P3, 2.2),
    "Adobe RGB": rgb_profile(ADOBE, 2.2),
    "ROMM": rgb_profile(ROMM, 1.8),
    "linear": rgb_profile(SRGB, 1.0),
}
# of pixels that are written without loss, or nearly so
FORMATS = {
    "JPEG": {"quality": 92},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
}
GREY = np.full((128, 104, 3), 128, np.uint8)


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    """The reference: full decode, conversion by Pillow's LittleCMS, crop, box filter."""
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.PERCEPTUAL,
        "RGB",
    )
    assert converted is not None
    cut = round(converted.width * TARGET.crop)
    cropped = converted.crop((cut, 0, converted.width - cut, converted.height))
    return np.asarray(cropped.resize((TARGET.width, TARGET.height), Image.Resampling.BOX)).astype(
        int
    )


def difference(data: bytes, image: Image.Image, profile: bytes) -> np.ndarray:
    picture = decode(data, "a.jpg", TARGET, MAX)
    assert any("converted to sRGB" in note for note in picture.notes)
    return np.abs(resize(picture, TARGET) - by_littlecms(image, profile))


def grey_of(data: bytes, notes: tuple[str, ...] = ()) -> int:
    """The level of a picture of one grey level, whose notes end with ``notes``."""
    picture = decode(data, "a.png", Target(128, 104), MAX)
    assert picture.notes[len(picture.notes) - len(notes) :] == notes
    assert np.ptp(picture.pixels) == 0
    return int(picture.pixels[0, 0, 0])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", PROFILES)
def test_an_embedded_profile_is_converted_as_by_littlecms(name: str, form: str) -> None:
    data = file_of(photograph(1), form, icc_profile=PROFILES[name], **FORMATS[form])
    found = difference(data, Image.open(io.BytesIO(data)), PROFILES[name])
    assert found.max() <= 3


@pytest.mark.parametrize("size", [512, 1000, 1024])
@pytest.mark.parametrize("name", PROFILES)
def test_a_jpeg_with_a_profile_is_decoded_at_a_scale_with_nearly_the_same_colours(
    name: str, size: int
) -> None:
    data = jpeg(photograph(1, size), icc_profile=PROFILES[name])
    assert decode(data, "a.jpg", TARGET, MAX).reduction > 1
    assert difference(data, Image.open(io.BytesIO(data)), PROFILES[name]).mean() < 1


def test_a_profile_in_several_segments_is_put_together_and_a_part_of_one_is_ignored() -> None:
    profile = PROFILES["linear"] + bytes(150_000)
    data = jpeg(photograph(1), icc_profile=profile)
    assert difference(data, photograph(1), profile).mean() < 3
    second = data.find(b"ICC_PROFILE\0\2") - 4
    end = second + 2 + int.from_bytes(data[second + 2 : second + 4], "big")
    picture = decode(data[:second] + data[end:], "a.jpg", TARGET, MAX)
    assert picture.notes == ("colour profile ignored: damaged",)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_grey_profile_is_converted_in_grey_pictures(gamma: float, form: str) -> None:
    image = photograph(1).convert("L")
    data = file_of(image, form, icc_profile=grey_profile(gamma))
    read = Image.open(io.BytesIO(data))
    assert difference(data, read, grey_profile(gamma)).max() <= 3


def test_grey_with_alpha_or_16_bits_is_converted_as_well() -> None:
    grey, profile = photograph(1).convert("L"), grey_profile(1.0)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for image, form in ((grey.convert("LA"), "PNG"), (deep, "PNG"), (deep, "TIFF")):
        data = file_of(image, form, icc_profile=profile)
        assert difference(data, grey, profile).max() <= 3


def test_dark_grey_of_16_bits_keeps_its_steps() -> None:
    levels = np.tile(np.arange(256, dtype=np.uint16), (128, 1))  # all within one 8-bit level
    data = file_of(Image.fromarray(levels), "PNG", icc_profile=grey_profile(1.0))
    row = decode(data, "a.png", Target(128, 256), MAX).pixels[0, :, 0]
    assert row[0] == 0
    assert (np.diff(row.astype(int)) >= 0).all()
    assert len(np.unique(row)) == row[-1] + 1 > 4


def test_a_profile_of_rgb_in_a_grey_picture_is_used() -> None:
    image = Image.fromarray(GREY).convert("L")
    assert grey_of(file_of(image, "PNG", icc_profile=PROFILES["linear"])) == 188


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(form: str) -> None:
    data = file_of(photograph(1).convert("CMYK"), form, icc_profile=cmyk_profile())
    found = difference(data, Image.open(io.BytesIO(data)), cmyk_profile())
    assert found.max() <= 3


def test_a_palette_is_converted_by_the_profile() -> None:
    image = photograph(1).quantize(64)
    data = file_of(image, "PNG", icc_profile=PROFILES["Display P3"])
    assert difference(data, image.convert("RGB"), PROFILES["Display P3"]).max() <= 3


def test_lab_is_converted() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(photograph(1), to_lab)
    assert lab is not None
    picture = decode(file_of(lab, "TIFF"), "a.tif", TARGET, MAX)
    assert picture.notes == ("Lab",)
    assert np.abs(picture.pixels.astype(int) - np.asarray(photograph(1))).mean() < 1


def test_a_profile_in_a_bmp_is_converted() -> None:
    plain, profile = file_of(Image.fromarray(GREY), "BMP"), PROFILES["linear"]
    pixels = plain[54:]
    head = struct.pack("<2sIII", b"BM", 138 + len(pixels) + len(profile), 0, 138)
    info = struct.pack("<I", 124) + plain[18:54] + struct.pack("<4I", 0, 0, 0, 0) + b"DEBM"
    info += bytes(36 + 12) + struct.pack("<4I", 0, 124 + len(pixels), len(profile), 0)
    assert grey_of(head + info + pixels + profile) == 188


@pytest.mark.parametrize(
    ("image", "profile", "note"),
    [
        (photograph(4), b"x" * 5000, "damaged"),
        (photograph(4), PROFILES["Display P3"][:300], "damaged"),
        (photograph(4), grey_profile(1.0), "it is for GRAY pictures, not RGB"),
        (photograph(4), cmyk_profile(), "it is for CMYK pictures, not RGB"),
        (photograph(4).convert("CMYK"), PROFILES["linear"], "it is for RGB pictures, not CMYK"),
        (photograph(4), PROFILES["linear"] + bytes(9_000_000), "9,000,492 bytes"),
    ],
    ids=["junk", "cut", "grey in RGB", "CMYK in RGB", "RGB in CMYK", "huge"],
)
def test_a_profile_that_cannot_be_used_is_noted_and_the_picture_decoded_without_it(
    image: Image.Image, profile: bytes, note: str
) -> None:
    with_it = decode(jpeg(image, icc_profile=profile), "a.jpg", TARGET, MAX)
    assert with_it.notes[-1] == f"colour profile ignored: {note}"
    assert np.array_equal(with_it.pixels, decode(jpeg(image), "a.jpg", TARGET, MAX).pixels)


def test_profiles_that_are_srgb_change_no_pixel_and_are_not_noted() -> None:
    plain = decode(jpeg(photograph(4)), "a.jpg", TARGET, MAX)
    by_littlecms = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb_profile(), by_littlecms):
        picture = decode(jpeg(photograph(4), icc_profile=profile), "a.jpg", TARGET, MAX)
        assert picture.notes == ()
        assert np.array_equal(picture.pixels, plain.pixels)


@pytest.mark.parametrize("gamma", [100_000, 55_556, 50_000, 38_462, 22_222])
def test_the_gamma_of_a_png_is_the_formula(gamma: int) -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (128, 1)))
    data = png_with(ramp, png_chunk(b"gAMA", struct.pack(">I", gamma)))
    row = decode(data, "a.png", Target(128, 256), MAX).pixels[0, :, 0]
    light = (np.arange(256) / 255) ** (100_000 / gamma)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(row - 255 * coded).max() <= 1


def test_the_primaries_of_a_png_are_those_of_the_profile_of_the_same_colours() -> None:
    values = [round(100_000 * v) for v in P3]
    chunks = [
        png_chunk(b"gAMA", struct.pack(">I", 45455)),
        png_chunk(b"cHRM", struct.pack(">8I", *values)),
    ]
    coded = png_chunk(b"cICP", bytes([12, 13, 0, 1]))
    curve = struct.pack(">4sIHH5i", b"para", 0, 3, 0, 157286, 62119, 3417, 5072, 2651)
    profile = matrix_profile("P3", P3, curve)
    for data in (png_with(photograph(1), *chunks), png_with(photograph(1), coded)):
        assert difference(data, photograph(1), profile).max() <= 3


LINEAR = png_chunk(b"gAMA", struct.pack(">I", 100_000))
ICC = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(PROFILES["linear"]))


@pytest.mark.parametrize(
    ("chunks", "grey", "notes"),
    [
        ([png_chunk(b"gAMA", struct.pack(">I", 45455))], 128, ()),
        ([LINEAR], 188, ("converted to sRGB from gamma 1",)),
        ([LINEAR, png_chunk(b"sRGB", b"\0")], 128, ()),
        ([ICC, png_chunk(b"sRGB", b"\0")], 188, ("converted to sRGB from test",)),
        ([ICC, png_chunk(b"cICP", bytes([1, 13, 0, 1]))], 128, ()),
        ([png_chunk(b"cICP", bytes([1, 8, 0, 1]))], 188,
         ("converted to sRGB from code points 1/8",)),
        ([png_chunk(b"cICP", bytes([99, 8, 0, 1]))], 128,
         ("colour profile ignored: code points 99/8 are not supported",)),
        ([ICC[:-1] + b"?"], 128, ("colour profile ignored: damaged",)),
        ([png_chunk(b"iCCP", b"x\0\0junk")], 128, ("colour profile ignored: damaged",)),
        ([png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000)))], 128,
         ("colour profile ignored: damaged",)),
        ([png_chunk(b"gAMA", b"\1")], 128, ("colour profile ignored: damaged",)),
        ([png_chunk(b"gAMA", bytes(4))], 128, ("colour profile ignored: a gamma of 0",)),
        ([png_chunk(b"cHRM", bytes(32))], 128,
         ("colour profile ignored: its primaries are no triangle",)),
    ],
    ids=lambda v: "",
)  # fmt: skip
def test_the_chunks_of_a_png_are_read_in_the_order_of_the_specification(
    chunks: list[bytes], grey: int, notes: tuple[str, ...]
) -> None:
    assert grey_of(png_with(Image.fromarray(GREY), *chunks), notes) == grey


def test_white_of_203_candelas_is_white_and_less_is_darker_in_pictures_of_high_range() -> None:
    for transfer, white in ((16, 148), (18, 191)):  # the levels of 203 cd/m² (ITU-R BT.2408)
        chunk = png_chunk(b"cICP", bytes([9, transfer, 0, 1]))
        levels = [white, white - 20, 0]
        greys = [grey_of(png_with(Image.fromarray(GREY * 0 + v), chunk)) for v in levels]
        assert greys[0] >= 254
        assert 150 < greys[1] < 240
        assert greys[2] == 0


def test_the_code_points_of_an_avif_are_used() -> None:
    data = file_of(photograph(1), "AVIF", quality=95)
    at = data.find(b"colrnclx")
    assert at > 0
    data = data[: at + 8] + struct.pack(">H", 12) + data[at + 10 :]
    curve = struct.pack(">4sIHH5i", b"para", 0, 3, 0, 157286, 62119, 3417, 5072, 2651)
    read = Image.open(io.BytesIO(data))
    assert difference(data, read, matrix_profile("P3", P3, curve)).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_adobe_rgb_by_exif_is_used_where_there_is_no_profile(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769).update({0xA001: 65535, 0xA005: {1: "R03"}})
    options = FORMATS[form]
    data = file_of(photograph(1), form, exif=exif, **options)
    read = Image.open(io.BytesIO(data))
    assert difference(data, read, rgb_profile(ADOBE, 563 / 256)).max() <= 3
    plain = decode(file_of(photograph(1), form, exif=exif, icc_profile=srgb_profile(), **options),
                   "a", TARGET, MAX)  # fmt: skip
    assert not any("converted" in note for note in plain.notes)


BT709 = [round(100_000 * v) for v in SRGB]
SAYS_SRGB = {
    "sRGB": [png_chunk(b"sRGB", b"\0")],
    "gAMA and cHRM": [
        png_chunk(b"gAMA", struct.pack(">I", 45455)),
        png_chunk(b"cHRM", struct.pack(">8I", *BT709)),
    ],
    "gAMA": [png_chunk(b"gAMA", struct.pack(">I", 45455))],
    "cHRM": [png_chunk(b"cHRM", struct.pack(">8I", *BT709))],
    "cICP": [png_chunk(b"cICP", bytes([1, 13, 0, 1]))],
    "cICP of television": [png_chunk(b"cICP", bytes([1, 1, 0, 1]))],
}


def adobe_rgb_by_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a camera"  # without a tag of its own, Pillow writes none into an AVIF
    exif.get_ifd(0x8769).update({0xA001: 2, 0xA005: {1: "R03"}})
    return exif


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize("said", SAYS_SRGB)
def test_adobe_rgb_by_exif_does_not_count_in_a_png_that_says_srgb(said: str, mode: str) -> None:
    image = photograph(1).convert(mode)
    data = file_of(image, "PNG", exif=adobe_rgb_by_exif())
    tagged = data[:33] + b"".join(SAYS_SRGB[said]) + data[33:]
    picture = decode(tagged, "a.png", TARGET, MAX)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert not any("converted" in note for note in picture.notes)
    assert "converted to sRGB from Adobe RGB" in decode(data, "a.png", TARGET, MAX).notes


def test_adobe_rgb_by_exif_counts_in_an_avif_only_if_its_code_points_say_nothing() -> None:
    data = file_of(photograph(1), "AVIF", quality=95, exif=adobe_rgb_by_exif())
    assert decode(data, "a.avif", TARGET, MAX).notes == ()
    at = data.find(b"colrnclx") + 8
    silent = data[:at] + struct.pack(">HH", 2, 2) + data[at + 4 :]
    notes = decode(silent, "a.avif", TARGET, MAX).notes
    assert notes == ("converted to sRGB from Adobe RGB",)


def lab(image: Image.Image) -> Image.Image:
    srgb, wanted = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, srgb, wanted, outputMode="LAB")
    assert converted is not None
    return converted


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_a_lab_tiff_has_its_colours_in_one_plane_or_three(separate: bool, packed: bool) -> None:
    data = tiff(np.asarray(lab(photograph(1))), 8, separate=separate, packed=packed)
    picture = decode(data, "a.tif", TARGET, MAX)
    assert picture.notes == ("Lab",)
    assert np.abs(picture.pixels.astype(int) - np.asarray(photograph(1))).mean() < 3


def test_adobe_rgb_by_exif_does_not_count_in_a_lab_tiff() -> None:
    data = file_of(lab(photograph(1)), "TIFF", exif=adobe_rgb_by_exif().tobytes())
    assert decode(data, "a.tif", TARGET, MAX).notes == ("Lab",)


def test_a_profile_that_is_added_to_a_jpeg_is_read_by_others_and_changes_no_pixel() -> None:
    plain = encode_jpeg(np.asarray(photograph(1)), 95)
    tagged = with_icc_profile(plain, srgb_profile())
    image = Image.open(io.BytesIO(tagged))
    assert image.info["icc_profile"] == srgb_profile()
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(plain))))
    assert conversion(srgb_profile(), "RGB") is None


def test_the_manifest_says_what_became_of_a_profile(tmp_path: Path) -> None:
    root, d1 = DataRoot(tmp_path), IMAGE_SETS[0]
    root.original(d1).mkdir(parents=True)
    for name, profile in (("good", PROFILES["Display P3"]), ("bad", b"x" * 500)):
        (root.original(d1) / f"{name}.jpg").write_bytes(jpeg(photograph(1), icc_profile=profile))
    resized = resize_set(root, d1, Images(max_pixels=MAX)).manifest
    assert resized.reason.tolist() == [
        "colour profile ignored: damaged",
        "converted to sRGB from test",
    ]
    assert (resized.status == "ok_with_note").all()


def test_originals_that_were_resized_by_an_older_decoder_are_decoded_again(tmp_path: Path) -> None:
    root, d1 = DataRoot(tmp_path), IMAGE_SETS[0]
    root.original(d1).mkdir(parents=True)
    (root.original(d1) / "a.jpg").write_bytes(jpeg(photograph(1)))
    settings = Images(max_pixels=MAX)
    made_by = {"height": 128, "width": 104, "crop": settings.crop, "kind": "resized"}
    made_by |= {"jpeg_quality": settings.jpeg_quality, "max_pixels": MAX}
    resize_set(root, d1, settings)
    old = json.dumps(made_by, sort_keys=True)
    assert manifest_rows(root.manifest("resized_d1"), old) == []
