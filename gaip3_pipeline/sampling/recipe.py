"""Recipes: what is needed to draw a face again, and how a PNG stores it. No model is loaded here,
and all input is validated.

A recipe contains a face's latents and the generator's inputs. Latents are those of a seed, a
mixture of two others (level by level, coarse to fine), or numbers where no seed gives them, as for
a photograph or a retouched face."""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gaip3_pipeline.attributes import ATTRIBUTES

FACES = 64  # most faces that the studio draws into one picture, or opens from one
LISTED = 1024  # most faces in one recipe
CHUNK = "gaip3"  # keyword of the PNG's text chunk that contains the recipe
_LATENTS = 128  # most seeds, mixtures and sets of numbers in the latents of one face
_NUMBERS = 65_536  # most numbers of latents without a seed; the largest preset has 3,000
_TEXT = 1_000_000  # most characters of a recipe; Pillow's own limit is slightly higher
RECIPE_BYTES = 2_000_000  # the beginning of a PNG, which contains its recipe
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Pair:
    """A generator and the detail network that was trained for it, each as its folder and the
    content hash of its weights."""

    folder: Path
    version: str
    detail_folder: Path | None = None
    detail_version: str | None = None


class RecipeError(ValueError):
    """A recipe that cannot be drawn; the message is one line with the reason."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Drawn(_Strict):
    """The latents of a seed, as :func:`gaip3_pipeline.sampling.draw.noise_of_seeds` gives them."""

    seed: Annotated[int, Field(ge=0, lt=2**53)]  # exact integers of JavaScript


class Mixed(_Strict):
    """For each latent group, top-down, a ``share`` of ``second`` and the rest of ``first``; a
    single share counts for all groups."""

    first: "Latents"
    second: "Latents"
    share: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=64)]


class Encoded(_Strict):
    """Latents as numbers: base64 of zlib-compressed little-endian float16, group after group. See
    :func:`pack_latents`."""

    encoded: Annotated[str, Field(max_length=4 * _NUMBERS)]


Latents = Drawn | Mixed | Encoded


class Face(_Strict):
    """One face. A value None is replaced by that of a picture of the data, which the face's seed
    selects (:func:`gaip3_pipeline.sampling.draw.values_of_seeds`)."""

    latents: Latents
    values: Annotated[
        list[Annotated[float, Field(ge=0, le=1)] | None],
        Field(min_length=len(ATTRIBUTES), max_length=len(ATTRIBUTES)),
    ]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    guidance: Annotated[float, Field(ge=0, le=10)] = 1.0
    # The distribution of latents drawn from seeds: the prior, as in all recipes from before the
    # detail network, or the aggregate posterior (see sampling/draw.py).
    prior: Literal["standard", "aggregate"] = "standard"
    # share of the detail network's change that is added
    detail: Annotated[float, Field(ge=0, le=1)] = 0.0
    # the fidelity at which retouching turned ``drawn`` into ``latents``; 0: not retouched
    fidelity: Annotated[float, Field(ge=0, le=1)] = 0.0
    drawn: Latents | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "Face":
        if sum(1 for _ in parts(self.latents)) > _LATENTS or (
            self.drawn and sum(1 for _ in parts(self.drawn)) > _LATENTS
        ):
            raise ValueError(f"the face is a mixture of more than {_LATENTS} parts")
        return self


class Recipe(_Strict):
    """The faces of one picture, and the content hashes of the weights of the generator and of the
    detail network that drew them."""

    format: Literal[1] = 1
    model: Hash
    detail_model: Hash | None = None
    faces: Annotated[list[Face], Field(min_length=1, max_length=LISTED)]

    @model_validator(mode="after")
    def _named(self) -> "Recipe":
        if self.detail_model is None and any(
            face.detail or face.prior == "aggregate" for face in self.faces
        ):
            raise ValueError("it does not name the detail network that its faces need")
        return self


def parts(latents: Latents) -> Iterable[Latents]:
    """Yield ``latents`` and, for a mixture, all its parts recursively."""
    waiting: list[Latents] = [latents]
    while waiting:
        yield (part := waiting.pop())
        if isinstance(part, Mixed):
            waiting += [part.second, part.first]


def seed_of(latents: Latents) -> int:
    """The first seed in ``latents``, which selects the values that are not set; 0 if there is
    none."""
    return next((part.seed for part in parts(latents) if isinstance(part, Drawn)), 0)


def noise_seed(face: "Face") -> int:
    """The seed of the face's noise map: that of the latents before retouching."""
    return seed_of(face.drawn or face.latents)


def pack_latents(levels: Iterable[np.ndarray]) -> Encoded:
    """``(h, w, c)`` arrays as 16-bit numbers; the rounding error is half of a thousandth of a
    standard deviation, less than a grey level in the picture."""
    flat = np.concatenate([np.ravel(level) for level in levels]).astype("<f2")
    return Encoded(encoded=base64.b64encode(zlib.compress(flat.tobytes(), 9)).decode())


def unpack_latents(encoded: Encoded, shapes: Iterable[tuple[int, int, int]]) -> list[np.ndarray]:
    """Arrays ``(h, w, c) float32`` of ``shapes``. Raises :class:`RecipeError` unless ``encoded``
    contains exactly as many finite numbers."""
    shapes = list(shapes)
    sizes = [int(np.prod(shape)) for shape in shapes]
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(encoded.encoded, validate=True), 2 * _NUMBERS)
    except (zlib.error, binascii.Error) as e:
        raise RecipeError(f"the face is damaged: {e}") from e
    if len(data) != 2 * sum(sizes) or unpacking.unconsumed_tail:
        raise RecipeError(
            f"this face is of another generator: here a face has {sum(sizes)} numbers"
        )
    flat = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(flat).all():
        raise RecipeError("the face is damaged: not all are numbers")
    return [
        part.reshape(shape)
        for part, shape in zip(np.split(flat, np.cumsum(sizes)[:-1]), shapes, strict=True)
    ]


def write_png(pixels: np.ndarray, recipe: Recipe | None = None) -> bytes:
    """``pixels (H, W, 3) uint8`` as a PNG that contains the ``recipe``; equal arguments give equal
    bytes."""
    info = PngImagePlugin.PngInfo()
    if recipe:
        info.add_text(CHUNK, recipe.model_dump_json(exclude_none=True))
    buffer = io.BytesIO()
    # Level 1 is ten times as fast as the default 6 and gives files a tenth larger.
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info, compress_level=6 if recipe else 1)
    return buffer.getvalue()


def read_recipe(png: bytes) -> Recipe:
    """The recipe in a PNG, of which the first ``RECIPE_BYTES`` suffice. Raises
    :class:`RecipeError` if there is none or if it is invalid."""
    if not png.startswith(_SIGNATURE):
        raise RecipeError("not a PNG: give a PNG of the studio or of gaip3 generate")
    try:
        text = _text_of(png)
    except _UNREADABLE as e:
        raise RecipeError("this PNG is incomplete or damaged: download it again") from e
    if text is None:
        raise RecipeError(
            "there are no settings in this picture: it is not of the studio or gaip3 generate, has"
            f" more than {LISTED:,} faces, or another program saved it anew"
        )
    return parse_recipe(text)


def recipe_in(picture: bytes) -> Recipe | None:
    """The recipe in a picture, None if there is none, as in a photograph. Raises
    :class:`RecipeError` if it is invalid."""
    try:
        text = _text_of(picture)
    except _UNREADABLE:
        return None
    return None if text is None else parse_recipe(text)


def _text_of(png: bytes) -> str | None:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        text = image.info.get(CHUNK)
    return text if isinstance(text, str) and len(text) <= _TEXT else None


def parse_recipe(text: str) -> Recipe:
    """A recipe from JSON. Raises :class:`RecipeError` if it is invalid."""
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as e:
        first = e.errors()[0]
        raise RecipeError(
            f"its settings are damaged: {'.'.join(map(str, first['loc'])) or 'JSON'}:"
            f" {first['msg']}"
        ) from e
    except RecursionError as e:
        raise RecipeError("its settings are damaged: nested too deeply") from e
