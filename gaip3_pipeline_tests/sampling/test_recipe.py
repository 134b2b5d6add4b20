"""Recipes: a picture stores them unchanged, and invalid ones are refused."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gaip3_pipeline.sampling.recipe import (
    CHUNK,
    Drawn,
    Encoded,
    Face,
    Mixed,
    Recipe,
    RecipeError,
    pack_latents,
    parse_recipe,
    read_recipe,
    recipe_in,
    seed_of,
    unpack_latents,
    write_png,
)

SHAPES = [(1, 1, 4), (2, 3, 2)]
PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
FACE = {"latents": {"seed": 7}, "values": [0.5] * 5}


def with_text(text: str) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(CHUNK, text)
    Image.fromarray(PICTURE).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def recipe_of(**changes: object) -> str:
    return json.dumps({"model": "0" * 64, "faces": [FACE | changes]})


def test_a_picture_contains_its_recipe_and_its_pixels() -> None:
    mixed = Mixed(
        first=Drawn(seed=1), second=pack_latents([np.ones(s) for s in SHAPES]), share=[0.25]
    )
    recipe = Recipe(
        model="ab" * 32,
        faces=[
            Face(latents=mixed, values=[0, 0.25, 0.5, 0.75, 1], guidance=1.5, drawn=Drawn(seed=2))
        ],
    )
    png = write_png(PICTURE, recipe)
    assert read_recipe(png) == recipe_in(png) == recipe
    assert png == write_png(PICTURE, recipe)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), PICTURE)
    assert seed_of(mixed) == 1


def test_a_photograph_contains_no_recipe_and_a_damaged_recipe_is_refused() -> None:
    assert recipe_in(b"") is recipe_in(b"GIF89a") is recipe_in(write_png(PICTURE)) is None
    with pytest.raises(RecipeError, match="its settings are damaged"):
        recipe_in(with_text("no JSON"))


def test_numbers_are_read_back_within_the_precision_of_16_bits() -> None:
    levels = [np.random.default_rng(1).standard_normal(s).astype(np.float32) for s in SHAPES]
    for before, after in zip(levels, unpack_latents(pack_latents(levels), SHAPES), strict=True):
        np.testing.assert_allclose(after, before, atol=2e-3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        write_png(PICTURE),
        with_text("no JSON"),
        with_text("[" * 100_000),
        with_text('{"model": 1}'),
    ],
    ids=[
        "empty",
        "another format",
        "cut off",
        "no recipe",
        "no JSON",
        "nested",
        "no recipe's JSON",
    ],
)
def test_a_picture_without_a_recipe_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(RecipeError) as refused:
        read_recipe(data)
    assert str(refused.value).count("\n") == 0
    assert len(str(refused.value)) < 300
    assert "object at" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [0.5] * 4},
        {"values": [0.5] * 4 + [1.01]},
        {"values": [0.5] * 4 + ["NaN"]},
        {"latents": {"seed": -1}},
        {"latents": {"seed": 2**60}},
        {"latents": {"seed": 1, "path": "/etc/passwd"}},
        {"latents": {"encoded": "A" * 300_000}},
        {"latents": {"first": {"seed": 1}, "second": {"seed": 2}, "share": []}},
        {"temperature": 1e9},
        {"guidance": -1},
        {"of": "another kind"},
    ],
)
def test_a_recipe_with_an_invalid_field_is_refused(changes: dict) -> None:
    with pytest.raises(RecipeError, match="damaged"):
        parse_recipe(recipe_of(**changes))


def test_a_mixture_of_too_many_parts_is_refused() -> None:
    latents: dict = {"seed": 0}
    for seed in range(40):
        latents = {"first": latents, "second": {"seed": seed}, "share": [0.1]}
    assert len(parse_recipe(recipe_of(latents=latents)).faces) == 1
    for seed in range(40):
        latents = {"first": latents, "second": {"seed": seed}, "share": [0.1]}
    with pytest.raises(RecipeError, match="more than 128 parts"):
        parse_recipe(recipe_of(latents=latents))


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(15, "<f2").tobytes(),  # one is missing
        np.full(16, np.inf, "<f2").tobytes(),
        bytes(100_000_000),  # a hundred kilobytes of zlib
    ],
    ids=["too few", "infinite", "a bomb"],
)
def test_numbers_that_are_no_latents_are_refused(data: bytes) -> None:
    with pytest.raises(RecipeError):
        unpack_latents(Encoded(encoded=base64.b64encode(zlib.compress(data)).decode()), SHAPES)
    with pytest.raises(RecipeError):
        unpack_latents(Encoded(encoded="AAAA"), SHAPES)
