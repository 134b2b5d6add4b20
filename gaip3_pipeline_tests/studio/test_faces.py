"""Faces of the studio: a recipe gives the same picture in the page, in a download and in ``gaip3
generate``."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
from gaip3_pipeline.models.detail import build_detail, load_detail, save_detail
from gaip3_pipeline.models.nvae.model import build_nvae, load_nvae, save_nvae
from gaip3_pipeline.models.storage import detail_version
from gaip3_pipeline.sampling.draw import noise_of_seeds
from gaip3_pipeline.sampling.recipe import (
    Drawn,
    Encoded,
    Face,
    Latents,
    Mixed,
    Pair,
    Recipe,
    RecipeError,
    pack_latents,
    read_recipe,
    write_png,
)
from gaip3_pipeline.settings import load
from gaip3_pipeline.studio.faces import Studio
from gaip3_pipeline.tables.contracts import write_input_values
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.web.registered import DETAIL, MODEL, Generators
from gaip3_pipeline_tests.registering import register

OWN = [None] * len(ATTRIBUTES)


@dataclass
class Made:
    """A root with two generators: version 1 is the champion, version 2 the candidate and the
    root's own."""

    root: DataRoot
    versions: list[str]
    studio: Studio


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = DataRoot(tmp_path_factory.mktemp("studio") / "그림")
    root.path.mkdir()
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    generator = np.random.default_rng(0)
    for a in ATTRIBUTES:
        write_input_values(
            root.input_values(a), a, [f"final/{i}.jpg" for i in range(9)], generator.random(9)
        )
    settings = load(root)
    model, tracking, versions = build_nvae(settings.nvae), tracking_of(root, settings), []
    for size in (0.05, 0.03):  # an untrained decoder hardly depends on latents and values
        for w in (w for w in model.weights if w.name != "range"):
            w.assign(w + size * generator.standard_normal(w.shape).astype(np.float32))
        save_nvae(model, root.nvae)
        versions.append(weights_version(root.nvae))
        register(tracking, MODEL, root.nvae, versions[-1], {"bits_per_dim": 4.0 + size}, f"{size}")
    tracking.promote(MODEL, versions[0])
    return Made(root, versions, Studio(root, settings, Pair(root.nvae, versions[-1])))


def face(latents: Latents, values: list | None = None, **changes: Any) -> Face:
    return Face(latents=latents, values=values or [0.5] * 5, **changes)


def picture(studio: Studio, latents: Latents, **changes: float) -> np.ndarray:
    return studio.pictures([face(latents, **changes)])[0].astype(int)


def test_a_face_is_the_same_alone_and_among_others_and_moves_with_every_setting(made: Made) -> None:
    faces = [face(Drawn(seed=i), temperature=0.5 + i / 20, guidance=i / 8) for i in range(19)]
    together = made.studio.pictures(faces).astype(int)
    assert together.shape == (19, 32, 26, 3)
    for i in (0, 8, 18):
        np.testing.assert_array_equal(made.studio.pictures([faces[i]])[0], together[i])
    base = picture(made.studio, Drawn(seed=3))
    settings: list[dict[str, float]] = [{"temperature": 0.2}, {"guidance": 4.0}]
    moved = [
        picture(made.studio, Drawn(seed=4)),
        *(picture(made.studio, Drawn(seed=3), **s) for s in settings),
    ]
    moved.append(
        made.studio.pictures([face(Drawn(seed=3), [0.5, 1.0, 0.5, 0.5, 0.5])])[0].astype(int)
    )
    assert all(np.abs(m - base).max() > 0 for m in moved)


def test_the_pictures_are_the_generators_own(made: Made) -> None:
    expected = made.studio.nvae.decode(
        noise_of_seeds(made.studio.nvae, [5]), np.full((1, 5), 0.5, np.float32), 0.8, 1.5
    )
    drawn = picture(made.studio, Drawn(seed=5), temperature=0.8, guidance=1.5)
    np.testing.assert_allclose(drawn, np.asarray(expected)[0] * 255, atol=1.01)


def test_a_mixture_takes_each_group_by_its_share(made: Made) -> None:
    groups = len(made.studio.nvae.latent_shapes)
    first, second = (noise_of_seeds(made.studio.nvae, [seed]) for seed in (1, 2))
    crossed = Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.0] + [1.0] * (groups - 1))
    as_numbers = pack_latents([first[0], *second[1:]])
    np.testing.assert_allclose(
        picture(made.studio, crossed), picture(made.studio, as_numbers), atol=1
    )
    for share, seed in ((0.0, 1), (1.0, 2)):
        mixed = Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[share])
        np.testing.assert_array_equal(
            picture(made.studio, mixed), picture(made.studio, Drawn(seed=seed))
        )
    between = face(Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.5]))
    halfway = made.studio._placed([between], [between.latents], [1.0])
    spread = np.concatenate([level.ravel() for level in halfway]).std()
    assert 0.8 < spread < 1.2  # the variance of the prior, not that of a plain mean


@pytest.fixture(scope="module")
def detailed(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same with a detail network for each of the two generators."""
    generator, root, settings = np.random.default_rng(2), made.root, load(made.root)
    tracking, network = tracking_of(root, settings), build_detail((4, 6), 32, 26)
    sizes = [int(np.prod(shape)) for shape in made.studio.nvae.latent_shapes]
    posterior = AggregatePosterior(
        [generator.normal(0, 0.3, (6, k)) for k in sizes], [np.full((1, 1), 0.8) for _ in sizes]
    )
    for version in made.versions:
        for w in network.weights:
            w.assign(w + 0.1 * generator.standard_normal(w.shape).astype(np.float32))
        save_detail(root.detail, network, posterior, version, (32, 26))
        register(
            tracking, DETAIL, root.detail, detail_version(root.detail), {"power_1": 1.0}, version
        )
    return Made(root, made.versions, Studio(root, settings, Generators(root).find(None)))


def test_a_recipe_of_a_version_without_detail_is_drawn_from_the_prior(
    made: Made, detailed: Made
) -> None:
    plain = face(Drawn(seed=3), temperature=0.7, guidance=1.5)
    assert Face.model_validate_json(plain.model_dump_json(exclude={"prior", "detail"})) == plain
    np.testing.assert_array_equal(made.studio.pictures([plain]), detailed.studio.pictures([plain]))
    assert b'"detail_model"' not in made.studio.png([plain])
    now = plain.model_copy(update={"prior": "aggregate", "detail": 1.0})
    assert (
        np.abs(
            detailed.studio.pictures([now]).astype(int) - detailed.studio.pictures([plain])
        ).max()
        > 0
    )


def test_a_generator_without_a_detail_network_draws_faces_without_detail(made: Made) -> None:
    [drawn] = made.studio.resolved([face(Drawn(seed=3), prior="aggregate", detail=1.0)])
    assert (drawn.prior, drawn.detail) == ("standard", 0.0)


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_a_picture_with_detail_names_both_networks_and_is_drawn_again_with_equal_bytes(
    gaip3, detailed: Made, tmp_path: Path, amount: float
) -> None:
    faces = [
        face(Drawn(seed=i), OWN, prior="aggregate", detail=amount, guidance=1.5) for i in (1, 2)
    ]
    source = downloaded(detailed, tmp_path, faces)
    recipe = read_recipe(source.read_bytes())
    assert (recipe.model, recipe.detail_model) == (
        detailed.versions[-1],
        detail_version(detailed.root.detail),
    )
    done = gaip3(
        "generate", "--root", detailed.root.path, "--from", source, "--out", tmp_path / "again.png"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.png").read_bytes() == source.read_bytes()


def test_the_registry_holds_each_generator_with_its_own_detail(
    gaip3, detailed: Made, tmp_path: Path
) -> None:
    older = Generators(detailed.root).find(detailed.versions[0])
    assert older.detail_folder is not None
    assert load_detail(older.detail_folder, older.folder).generator == detailed.versions[0]
    studio = Studio(detailed.root, load(detailed.root), older)
    source = tmp_path / "older.png"
    source.write_bytes(studio.png([face(Drawn(seed=1), prior="aggregate", detail=1.0)]))
    done = gaip3(
        "generate", "--root", detailed.root.path, "--from", source, "--out", tmp_path / "again.png"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.png").read_bytes() == source.read_bytes()


def test_another_pair_is_refused_by_name(gaip3, detailed: Made, tmp_path: Path) -> None:
    own, older = (Generators(detailed.root).find(v) for v in (None, detailed.versions[0]))
    faces = [face(Drawn(seed=1), prior="aggregate", detail=1.0)]
    source = tmp_path / "crossed.png"
    for detail in (older.detail_version, "cd" * 32):
        source.write_bytes(
            write_png(
                np.zeros((4, 4, 3), np.uint8),
                Recipe(model=own.version, detail_model=detail, faces=faces),
            )
        )
        done = gaip3(
            "generate",
            "--root",
            detailed.root.path,
            "--from",
            source,
            "--out",
            tmp_path / "again.png",
        )
        assert done.exit_code == 1
        assert f"generator {own.version[:12]} with detail network {detail[:12]}" in done.output
        assert done.output.count("\n") == 1
    with pytest.raises(ValueError, match="does not name the detail network"):
        Recipe(model=own.version, faces=faces)


def test_a_mixture_of_a_photograph_and_a_seed_reaches_both_ends(detailed: Made) -> None:
    studio, ways = detailed.studio, {"prior": "aggregate", "detail": 1.0}
    values = np.full((1, 5), 0.5, np.float32)
    photograph = pack_latents(e[0] for e in studio.generator.latents([40], values))
    mixed = [Mixed(first=photograph, second=Drawn(seed=2), share=[share]) for share in (0.0, 1.0)]
    for mixture, end in zip(mixed, (photograph, Drawn(seed=2)), strict=True):
        found = studio.generator.means(
            studio._placed([face(mixture, **ways)], [mixture], [1.0]), values
        )
        expected = studio.generator.means(studio._placed([face(end, **ways)], [end], [1.0]), values)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_mixture_that_has_one_part_only_is_that_part_at_any_temperature(detailed: Made) -> None:
    studio, values = detailed.studio, np.full((1, 5), 0.5, np.float32)
    photograph = pack_latents(e[0] for e in studio.generator.latents([40], values))
    for mixture, end in (
        (Mixed(first=photograph, second=Drawn(seed=2), share=[share]), end)
        for share, end in ((0.0, photograph), (1.0, Drawn(seed=2)))
    ):
        found, expected = (
            studio._placed([face(part, prior="aggregate")], [part], [0.5])
            for part in (mixture, end)
        )
        for level, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(level, wanted, atol=0.02)


def test_a_detail_network_of_an_older_generator_is_not_used(detailed: Made, tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "root")
    shutil.copytree(detailed.root.path, root.path)
    generators = Generators(root)
    assert generators.has_detail()
    model = load_nvae(root.nvae)
    model.weights[0].assign(model.weights[0] + 1.0)
    save_nvae(model, root.nvae)
    assert not generators.has_detail()
    assert generators.find(None).detail_folder is None


def test_latents_of_another_generator_are_refused(made: Made) -> None:
    with pytest.raises(RecipeError, match="another generator"):
        picture(made.studio, pack_latents([np.zeros((1, 1, 3))]))
    with pytest.raises(RecipeError, match="levels, and this generator has"):
        picture(made.studio, Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.1] * 9))


def test_values_that_are_not_set_are_chosen_by_the_seed(made: Made) -> None:
    [first, again, half] = made.studio.resolved(
        [
            face(Drawn(seed=1), OWN),
            face(Drawn(seed=1), OWN),
            face(Drawn(seed=1), [None, 0.25, *OWN[2:]]),
        ]
    )
    assert first == again
    assert None not in first.values
    assert half.values == [first.values[0], 0.25, *first.values[2:]]


def downloaded(made: Made, folder: Path, faces: list[Face], version: int = -1) -> Path:
    """A PNG as the studio offers it for download."""
    path = folder / "picture.png"
    if version == -1:
        path.write_bytes(made.studio.png(faces))
    else:
        path.write_bytes(
            write_png(
                np.zeros((4, 4, 3), np.uint8), Recipe(model=made.versions[version], faces=faces)
            )
        )
    return path


@pytest.mark.parametrize("n", [1, 3])
def test_a_downloaded_picture_is_drawn_again_with_equal_bytes(
    gaip3, made: Made, tmp_path: Path, n: int
) -> None:
    moved = pack_latents([e[0] for e in noise_of_seeds(made.studio.nvae, [9])])
    faces = [
        face(Drawn(seed=1), OWN, temperature=0.7, guidance=1.5),
        face(moved, fidelity=0.5),
        face(Drawn(seed=2)),
    ][:n]
    source = downloaded(made, tmp_path, faces)
    assert isinstance(read_recipe(source.read_bytes()).faces[-1].latents, Drawn | Encoded)
    done = gaip3(
        "generate", "--root", made.root.path, "--from", source, "--out", tmp_path / "again.png"
    )
    assert done.exit_code == 0, done.output
    assert made.versions[-1][:12] in done.output
    assert (tmp_path / "again.png").read_bytes() == source.read_bytes()


def test_a_picture_of_an_earlier_generator_is_made_by_its_registered_version(
    gaip3, made: Made, tmp_path: Path
) -> None:
    older = downloaded(made, tmp_path, [face(Drawn(seed=1))], version=0)
    outs = [tmp_path / "old.png", tmp_path / "new.png"]
    assert (
        gaip3("generate", "--root", made.root.path, "--from", older, "--out", outs[0]).exit_code
        == 0
    )
    outs[1].write_bytes(made.studio.png([face(Drawn(seed=1))]))
    assert read_recipe(outs[0].read_bytes()).model == made.versions[0]
    assert (
        np.abs(np.asarray(Image.open(outs[0]), int) - np.asarray(Image.open(outs[1]), int)).max()
        > 0
    )


def test_a_picture_of_an_unknown_generator_names_both_versions(
    gaip3, made: Made, tmp_path: Path
) -> None:
    source = tmp_path / "foreign.png"
    source.write_bytes(
        write_png(
            np.zeros((4, 4, 3), np.uint8), Recipe(model="ab" * 32, faces=[face(Drawn(seed=1))])
        )
    )
    done = gaip3(
        "generate", "--root", made.root.path, "--from", source, "--out", tmp_path / "again.png"
    )
    assert done.exit_code == 1
    assert "abababababab" in done.output
    assert made.versions[-1][:12] in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "again.png").exists()


def test_from_takes_no_other_settings_and_no_other_pictures(
    gaip3, made: Made, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.png"
    plain.write_bytes(write_png(np.zeros((4, 4, 3), np.uint8)))
    done = gaip3("generate", "--root", made.root.path, "--from", plain)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "no settings in this picture" in done.output
    done = gaip3(
        "generate",
        "--root",
        made.root.path,
        "--from",
        downloaded(made, tmp_path, [face(Drawn(seed=1))]),
        "--hair-color",
        1,
    )
    assert done.exit_code == 2
    assert "leave out --hair-color" in done.output
