"""Contact sheets small enough for metadata: pictures in a grid as one JPEG, and its Markdown."""

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gaip3_pipeline.imaging.transform import area_resize

MAX_BYTES = 100_000
_GAP = 4
_PAPER, _INK = (250, 250, 250), (40, 40, 40)


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    cell: tuple[int, int] = (104, 128),
    captions: Sequence[str] | None = None,
    title: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """A JPEG of ``images`` (``(H, W, 3) uint8`` RGB each) in rows of ``columns``, each fitted into
    ``cell`` (width, height) in pixels.

    The JPEG quality and then the size are lowered until the sheet takes at most ``max_bytes``.
    Raises ValueError if no sheet fits."""
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    caption_height, title_height = (14 if captions else 0), (20 if title else 0)
    width = _GAP + columns * (cell[0] + _GAP)
    height = title_height + _GAP + rows * (cell[1] + caption_height + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text(
            (_GAP, 3), _fitting(draw, title, width - 2 * _GAP, _font(13)), fill=_INK, font=_font(13)
        )
    for i, image in enumerate(images):
        left = _GAP + i % columns * (cell[0] + _GAP)
        top = title_height + _GAP + i // columns * (cell[1] + caption_height + _GAP)
        fitted = Image.fromarray(_fit(image, cell))
        sheet.paste(
            fitted, (left + (cell[0] - fitted.width) // 2, top + (cell[1] - fitted.height) // 2)
        )
        if captions:
            draw.text(
                (left, top + cell[1] + 1),
                _fitting(draw, captions[i], cell[0], _font(10)),
                fill=_INK,
                font=_font(10),
            )
    return _at_most(np.asarray(sheet), max_bytes)


def pairs(
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    *,
    cell: tuple[int, int] = (104, 128),
    captions: Sequence[str] | None = None,
    title: str | None = "before | after | difference (grey: none)",
    max_bytes: int = MAX_BYTES,
    gain: float = 2.0,
    across: int = 3,
) -> bytes:
    """A JPEG of triples: before, after and difference (``128 + gain·(after − before)``), ``across``
    triples in a row."""
    shown: list[np.ndarray] = []
    for x, y in zip(before, after, strict=True):
        difference = 128 + gain * (y.astype(np.float32) - x.astype(np.float32))
        shown += [x, y, np.clip(np.rint(difference), 0, 255).astype(np.uint8)]
    texts = [t for caption in captions for t in (caption, "", "")] if captions else None
    return contact_sheet(shown, 3 * max(1, min(across, len(before))), cell, texts, title, max_bytes)


def data_url(data: bytes, form: str = "jpeg") -> str:
    """The picture ``data`` as a URL that contains it; ``form``: its format."""
    return f"data:image/{form};base64,{base64.b64encode(data).decode('ascii')}"


def to_markdown(jpeg: bytes, alt: str) -> str:
    """A Markdown image that contains the bytes of ``jpeg``, which Dagster's metadata displays."""
    text = " ".join(alt.replace("[", "(").replace("]", ")").split())
    return f"![{text}]({data_url(jpeg)})"


def _fit(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """``image`` scaled to the largest size that fits into ``cell``, its proportions kept."""
    scale = min(cell[0] / image.shape[1], cell[1] / image.shape[0])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    if scale > 1:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return area_resize(image, height, width)


def _at_most(sheet: np.ndarray, max_bytes: int) -> bytes:
    while True:
        for quality in (90, 82, 74, 66, 58, 50, 42, 34):
            done, encoded = cv2.imencode(
                ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
            )
            if done and encoded.size <= max_bytes:
                return encoded.tobytes()
        height, width = round(sheet.shape[0] * 0.8), round(sheet.shape[1] * 0.8)
        if min(height, width) < 8:
            raise ValueError(f"no contact sheet fits into {max_bytes} bytes")
        sheet = area_resize(sheet, height, width)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(
    draw: ImageDraw.ImageDraw,
    text: str,
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> str:
    """``text`` cut to ``width`` pixels."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
