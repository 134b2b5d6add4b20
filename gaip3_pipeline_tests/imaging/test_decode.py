"""Every kind of picture file gives upright RGB pixels or a reason in one line."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode, reduction
from gaip3_pipeline.imaging.jpeg import for_an_eighth, structure
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline_tests.imaging.pictures import file_of, jpeg, photograph

TARGET = Target(128, 104, 0.09375)
MAX = 10_000_000


def small(data: bytes, name: str = "a.jpg") -> np.ndarray:
    return resize(decode(data, name, TARGET, MAX), TARGET)


def by_pillow(data: bytes) -> np.ndarray:
    """The reference: upright, full decode, crop, box filter."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    cut = round(image.width * TARGET.crop)
    cropped = image.crop((cut, 0, image.width - cut, image.height))
    return np.asarray(cropped.resize((TARGET.width, TARGET.height), Image.Resampling.BOX)).astype(
        float
    )


def full_area(data: bytes) -> np.ndarray:
    full = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    left, right = TARGET.columns(full.shape[1])
    return cv2.resize(full[:, left:right], (104, 128), interpolation=cv2.INTER_AREA).astype(float)


@pytest.mark.parametrize("size", [256, 400, 512, 768, 1000, 1024, 1200, 1536])
@pytest.mark.parametrize("progressive", [False, True])
def test_scaled_decoding_stays_within_half_a_grey_level_of_a_full_decode(
    size: int, progressive: bool
) -> None:
    data = jpeg(photograph(1, size), progressive=progressive)
    assert np.abs(small(data) - full_area(data)).mean() < 0.5


def test_the_large_photographs_stay_within_half_a_grey_level(real_faces) -> None:
    paths = sorted((real_faces / "large").rglob("*.jpg"))[::10]
    differences = [np.abs(small(p.read_bytes()) - full_area(p.read_bytes())).mean() for p in paths]
    assert max(differences) < 0.5


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_leaving_out_scans_changes_no_pixel_of_an_eighth(subsampling: int) -> None:
    data = jpeg(photograph(2, 1024), progressive=True, subsampling=subsampling)
    less = for_an_eighth(structure(data))
    assert len(less) < 0.7 * len(data)
    whole, part = (
        cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) for d in (data, less)
    )
    assert np.array_equal(whole, part)


def test_leaving_out_scans_changes_no_pixel_of_the_large_photographs(real_faces) -> None:
    for path in sorted((real_faces / "large").rglob("*.jpg"))[::12]:
        data = path.read_bytes()
        whole, part = (
            cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
            for d in (data, for_an_eighth(structure(data)))
        )
        assert np.array_equal(whole, part)


def test_a_grey_progressive_jpeg_is_decoded_at_an_eighth_as_well() -> None:
    data = jpeg(photograph(2, 1024).convert("L"), progressive=True)
    assert np.abs(small(data) - full_area(data)).mean() < 0.5


def test_the_usual_original_is_decoded_at_an_eighth_and_other_sizes_at_a_larger_scale() -> None:
    assert reduction(1024, 1024, TARGET) == 8
    assert reduction(512, 512, TARGET) == 2
    assert reduction(1000, 1000, TARGET) == 2
    assert reduction(300, 300, TARGET) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_before_the_crop(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(
        photograph(3, 384, 512), form, exif=exif, **({} if form == "PNG" else {"quality": 95})
    )
    picture = decode(data, f"a.{form.lower()}", TARGET, MAX)
    assert (picture.width, picture.height) == ((384, 512) if orientation >= 5 else (512, 384))
    assert np.abs(resize(picture, TARGET) - by_pillow(data)).mean() < 2
    assert picture.notes == (
        () if orientation == 1 else (f"turned by EXIF orientation {orientation}",)
    )


@pytest.mark.parametrize("size", [256, 512, 1000, 1024])
def test_cmyk_is_decoded_at_a_scale_as_well(size: int) -> None:
    data = jpeg(photograph(1, size).convert("CMYK"))
    assert decode(data, "a.jpg", TARGET, MAX).reduction == reduction(size, size, TARGET)
    assert np.abs(small(data) - by_pillow(data)).mean() < 2


def cmyk() -> bytes:
    return jpeg(photograph(4).convert("CMYK"))


def palette() -> bytes:
    return file_of(photograph(4).quantize(64), "PNG")


def with_alpha() -> bytes:
    image = photograph(4).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))))
    return file_of(image, "PNG")


@pytest.mark.parametrize(
    ("data", "name", "note"),
    [
        (cmyk(), "a.jpg", "CMYK"),
        (jpeg(photograph(4).convert("L")), "a.JPG", "greyscale"),
        (file_of(photograph(4).convert("L"), "PNG"), "a.png", "greyscale"),
        (palette(), "a.png", "palette"),
        (with_alpha(), "a.png", "transparency dropped"),
        (file_of(photograph(4), "PNG"), "a.jpg", "PNG named .jpg"),
        (jpeg(photograph(4)), "a.WebP", "JPEG named .WebP"),
        (file_of(photograph(4), "WEBP", quality=95), "a.webp", ""),
        (jpeg(photograph(4, 60)), "a.jpeg", "enlarged from 60 x 60"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_unusual_pictures_are_decoded_as_by_pillow_and_noted(
    data: bytes, name: str, note: str
) -> None:
    picture = decode(data, name, TARGET, MAX)
    assert "; ".join(picture.notes) == note
    assert np.abs(resize(picture, TARGET) - by_pillow(data)).mean() < 2


def test_sixteen_bits_become_eight_without_clipping() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (256, 1))
    picture = decode(cv2.imencode(".png", ramp)[1].tobytes(), "a.png", TARGET, MAX)
    assert "16-bit" in picture.notes
    assert np.abs(picture.pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    colour = decode(
        cv2.imencode(".png", np.dstack([ramp, ramp // 2, ramp * 0]))[1].tobytes(),
        "a.png",
        TARGET,
        MAX,
    )
    assert colour.notes == ("16-bit",)
    assert np.abs(colour.pixels[0, -1].astype(int) - [0, 127, 255]).max() <= 1


def damaged_inside() -> bytes:
    data = bytearray(jpeg(photograph(5)))
    middle = len(data) // 2
    data[middle : middle + 2000] = (
        np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    )
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html><body>404</body></html>", "not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture"),
        (b"\0" * 5000, "not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture"),
        (b"\xff\xd8\xff", "truncated"),
        (jpeg(photograph(5))[:-2000], "truncated"),
        (jpeg(photograph(5), progressive=True)[:4000], "truncated"),
        (jpeg(photograph(5))[:-2000] + b"\0" * 2000, "truncated"),
        (jpeg(photograph(5))[:300], "truncated"),
        (damaged_inside(), "damaged"),
        (file_of(photograph(5), "PNG")[:-5000], "damaged: truncated"),
        (file_of(photograph(5), "WEBP")[:-1000], "damaged: truncated"),
        (file_of(photograph(5), "GIF"), "a GIF file: convert it to JPEG or PNG"),
        (
            jpeg(Image.new("RGB", (4000, 3000))),
            "too large: 4000 x 3000 is more than 10,000,000 pixels",
        ),
        (file_of(Image.new("1", (4000, 3000)), "PNG"), "too large: 4000 x 3000"),
        (file_of(Image.new("1", (20000, 20000)), "PNG"), "too large"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_files_that_give_no_picture_are_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableImage, match=reason) as refused:
        decode(data, "a.jpg", TARGET, MAX)
    assert "\n" not in str(refused.value)


def test_a_jpeg_with_bytes_after_its_end_is_used() -> None:
    data = jpeg(photograph(6))
    assert np.array_equal(small(data + b"appended by a camera"), small(data))
