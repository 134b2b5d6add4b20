"""The studio's side of the models: one recipe, one picture, wherever it is followed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.evaluation.generate import noise_of_seeds
from gaip3_pipeline.evaluation.recipe import Drawn, Encoded, Face, Latents, Mixed, Recipe, RecipeError, pack_latents, read_recipe, write_png
from gaip3_pipeline.evaluation.studio import Studio
from gaip3_pipeline.layout import ATTRIBUTES, DataRoot
from gaip3_pipeline.models.nvae.model import build_nvae, save_nvae
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import write_input_values
from gaip3_pipeline.versions import weights_version
from gaip3_pipeline.web.registered import MODEL

OWN = [None] * len(ATTRIBUTES)


@dataclass
class Made:
    """A root with two generators: version 1 is the champion, version 2 the candidate and the root's own."""

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
        write_input_values(root.input_values(a), a, [f"final/{i}.jpg" for i in range(9)], generator.random(9))
    settings = load(root)
    model, tracking, versions = build_nvae(settings.nvae), tracking_of(root, settings), []
    for size in (0.05, 0.03):  # a fresh decoder hardly answers to latents and not at all to values
        for w in (w for w in model.weights if w.name != "range"):
            w.assign(w + size * generator.standard_normal(w.shape).astype(np.float32))
        save_nvae(model, root.nvae)
        versions.append(weights_version(root.nvae))
        run = tracking.training_run(
            asset=MODEL,
            dagster_run_id=f"run{size}",
            parent_id=None,
            on_parent=lambda _: None,
            code_version="1",
            inputs={},
            fingerprint=f"{size}",
            parameters={},
        )
        with run:
            run.result({"bits_per_dim": 4.0 + size})
            run.register(root.nvae, versions[-1])
    tracking.promote(MODEL, versions[0])
    return Made(root, versions, Studio(root, settings, root.nvae, versions[-1]))


def face(latents: Latents, values: list | None = None, **changes: float) -> Face:
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
    moved = [picture(made.studio, Drawn(seed=4)), *(picture(made.studio, Drawn(seed=3), **s) for s in settings)]
    moved.append(made.studio.pictures([face(Drawn(seed=3), [0.5, 1.0, 0.5, 0.5, 0.5])])[0].astype(int))
    assert all(np.abs(m - base).max() > 0 for m in moved)


def test_the_pictures_are_the_generators_own(made: Made) -> None:
    expected = made.studio.nvae.decode(noise_of_seeds(made.studio.nvae, [5]), np.full((1, 5), 0.5, np.float32), 0.8, 1.5)
    drawn = picture(made.studio, Drawn(seed=5), temperature=0.8, guidance=1.5)
    np.testing.assert_allclose(drawn, np.asarray(expected)[0] * 255, atol=1.01)


def test_mixtures_take_each_group_from_where_they_are_told(made: Made) -> None:
    groups = len(made.studio.nvae.latent_shapes)
    first, second = (noise_of_seeds(made.studio.nvae, [seed]) for seed in (1, 2))
    crossed = Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.0] + [1.0] * (groups - 1))
    as_numbers = pack_latents([first[0], *second[1:]])
    np.testing.assert_allclose(picture(made.studio, crossed), picture(made.studio, as_numbers), atol=1)
    for share, seed in ((0.0, 1), (1.0, 2)):
        mixed = Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[share])
        np.testing.assert_array_equal(picture(made.studio, mixed), picture(made.studio, Drawn(seed=seed)))
    halfway = made.studio._noise([Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.5])])
    spread = np.concatenate([level.ravel() for level in halfway]).std()
    assert 0.8 < spread < 1.2  # where the prior has its mass, not halfway to its centre


def test_latents_of_another_generator_are_refused(made: Made) -> None:
    with pytest.raises(RecipeError, match="another generator"):
        picture(made.studio, pack_latents([np.zeros((1, 1, 3))]))
    with pytest.raises(RecipeError, match="latent groups"):
        picture(made.studio, Mixed(first=Drawn(seed=1), second=Drawn(seed=2), share=[0.1] * 9))


def test_values_that_are_not_set_are_those_that_the_seed_chooses(made: Made) -> None:
    [first, again, half] = made.studio.resolved(
        [face(Drawn(seed=1), OWN), face(Drawn(seed=1), OWN), face(Drawn(seed=1), [None, 0.25, *OWN[2:]])]
    )
    assert first == again
    assert None not in first.values
    assert half.values == [first.values[0], 0.25, *first.values[2:]]


def downloaded(made: Made, folder: Path, faces: list[Face], version: int = -1) -> Path:
    """A picture as the studio gives it away."""
    path = folder / "picture.png"
    if version == -1:
        path.write_bytes(made.studio.png(faces))
    else:
        path.write_bytes(write_png(np.zeros((4, 4, 3), np.uint8), Recipe(model=made.versions[version], faces=faces)))
    return path


@pytest.mark.parametrize("n", [1, 3])
def test_a_downloaded_picture_is_made_again_to_equal_bytes(gaip3, made: Made, tmp_path: Path, n: int) -> None:
    moved = pack_latents([e[0] for e in noise_of_seeds(made.studio.nvae, [9])])
    faces = [face(Drawn(seed=1), OWN, temperature=0.7, guidance=1.5), face(moved, fidelity=0.5), face(Drawn(seed=2))][:n]
    source = downloaded(made, tmp_path, faces)
    assert isinstance(read_recipe(source.read_bytes()).faces[-1].latents, Drawn | Encoded)
    done = gaip3("generate", "--root", made.root.path, "--from", source, "--out", tmp_path / "again.png")
    assert done.exit_code == 0, done.output
    assert made.versions[-1][:12] in done.output
    assert (tmp_path / "again.png").read_bytes() == source.read_bytes()


def test_a_picture_of_an_earlier_generator_is_made_by_its_registered_version(gaip3, made: Made, tmp_path: Path) -> None:
    older = downloaded(made, tmp_path, [face(Drawn(seed=1))], version=0)
    outs = [tmp_path / "old.png", tmp_path / "new.png"]
    assert gaip3("generate", "--root", made.root.path, "--from", older, "--out", outs[0]).exit_code == 0
    outs[1].write_bytes(made.studio.png([face(Drawn(seed=1))]))
    assert read_recipe(outs[0].read_bytes()).model == made.versions[0]
    assert np.abs(np.asarray(Image.open(outs[0]), int) - np.asarray(Image.open(outs[1]), int)).max() > 0


def test_a_picture_of_an_unknown_generator_names_both_versions(gaip3, made: Made, tmp_path: Path) -> None:
    source = tmp_path / "foreign.png"
    source.write_bytes(write_png(np.zeros((4, 4, 3), np.uint8), Recipe(model="ab" * 32, faces=[face(Drawn(seed=1))])))
    done = gaip3("generate", "--root", made.root.path, "--from", source, "--out", tmp_path / "again.png")
    assert done.exit_code == 1
    assert "abababababab" in done.output
    assert made.versions[-1][:12] in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "again.png").exists()


def test_from_takes_no_other_settings_and_no_other_pictures(gaip3, made: Made, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    plain.write_bytes(write_png(np.zeros((4, 4, 3), np.uint8)))
    done = gaip3("generate", "--root", made.root.path, "--from", plain)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "no settings in this picture" in done.output
    done = gaip3("generate", "--root", made.root.path, "--from", downloaded(made, tmp_path, [face(Drawn(seed=1))]), "--hair-color", 1)
    assert done.exit_code == 2
    assert "leave out --hair-color" in done.output
