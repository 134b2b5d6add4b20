"""The commands as a user types them: their output, and one line for a mistake."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.cli import LABEL_EXPORTS
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import ASSET_LIST, IMAGE_SETS, REPOSITORY, DataRoot
from gaip3_pipeline.models.detail import load_detail, save_detail
from gaip3_pipeline.models.nvae.model import load_nvae, save_nvae
from gaip3_pipeline.sampling.recipe import Drawn, Face, Recipe, read_recipe, write_png
from gaip3_pipeline.settings import load
from gaip3_pipeline.studio.faces import Studio
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline.web.registered import Generators
from gaip3_pipeline_tests.imaging.profiles import P3, rgb_profile
from gaip3_pipeline_tests.refreshing import with_few_cells


def test_the_list_of_commands_is_readable_at_80_columns(gaip3, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = gaip3("--help").output
    assert "  refresh  " in said
    assert "..." not in said.partition("Commands:")[2]
    assert max(map(len, said.splitlines())) <= 80


def test_generate_is_reproducible_and_follows_its_options(gaip3, finished_root, tmp_path):
    def grid(name, *options):
        out = tmp_path / name
        done = gaip3(
            "generate", "--root", finished_root.path, "--n", 4, "--seed", 7, "--out", out, *options
        )
        assert done.exit_code == 0, done.output
        return out

    first, again = (
        grid("a.png", "--mouth", 1, "--head", 0.5),
        grid("b.png", "--mouth", 1, "--head", 0.5),
    )
    assert first.read_bytes() == again.read_bytes()
    alone = gaip3(
        "generate",
        "--root",
        finished_root.path,
        "--n",
        1,
        "--seed",
        8,
        "--mouth",
        1,
        "--head",
        0.5,
        "--out",
        tmp_path / "d.png",
    )
    assert alone.exit_code == 0, alone.output
    assert "d.png: 1 face, seed 8" in alone.output
    # its values, too, depend only on its seed
    [second] = read_recipe((tmp_path / "d.png").read_bytes()).faces
    assert read_recipe(first.read_bytes()).faces[1] == second
    assert second.values[1] == 1
    assert Image.open(tmp_path / "d.png").height == 512
    soft = grid("e.png", "--mouth", 1, "--head", 0.5, "--detail", 0)
    assert (
        np.abs(np.asarray(Image.open(first), float) - np.asarray(Image.open(soft), float)).max() > 0
    )
    other = grid("c.png", "--mouth", 1, "--head", 0.5, "--background", 1)
    assert (
        np.abs(np.asarray(Image.open(first), float) - np.asarray(Image.open(other), float)).mean()
        > 0
    )


def test_a_grid_carries_its_settings_and_is_drawn_again_from_them(gaip3, finished_root, tmp_path):
    root, grid, again = finished_root.path, tmp_path / "grid.png", tmp_path / "again.png"
    options = ("--n", 70, "--seed", 7, "--eyes", 0.5, "--temperature", 0.8)
    for words in ((*options, "--out", grid), ("--from", grid, "--out", again)):
        done = gaip3("generate", "--root", root, *words)
        assert done.exit_code == 0, done.output
    assert "70 faces of generator" in done.output
    assert again.read_bytes() == grid.read_bytes()
    faces = read_recipe(grid.read_bytes()).faces
    assert [face.latents for face in faces] == [Drawn(seed=7 + i) for i in range(70)]
    # the command that the studio copies names all values of a face, and gives its download
    pair = Generators(finished_root).find(None)
    face, studio = faces[3], Studio(finished_root, load(finished_root), pair)
    values = [
        word
        for a, v in zip(ATTRIBUTES, face.values, strict=True)
        for word in (f"--{a.replace('_', '-')}", v)
    ]
    words = ("--n", 1, "--seed", 10, *values, "--temperature", 0.8, "--out", again)
    done = gaip3("generate", "--root", root, *words)
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == studio.png([face])


def test_a_slider_outside_the_supported_range_is_named_and_drawn_as_the_nearest_value(
    gaip3, root_copy, tmp_path
):
    model = load_nvae(root_copy.nvae)
    model.condition_embedding.range.assign(
        np.array([[0.7, 0, 0, 0, 0], [1, 1, 1, 1, 1]], np.float32)
    )
    save_nvae(model, root_copy.nvae)
    foreign = gaip3("generate", "--root", root_copy.path, "--n", 2, "--out", tmp_path / "g.png")
    assert foreign.exit_code == 1
    assert "belongs to generator" in foreign.output
    assert "gaip3 refresh" in foreign.output
    finish = load_detail(root_copy.detail)
    save_detail(
        root_copy.detail,
        finish.network,
        finish.posterior,
        weights_version(root_copy.nvae),
        (32, 26),
    )
    outs = []
    for eyes in (0.1, 0.7):
        outs.append(tmp_path / f"{eyes}.png")
        done = gaip3(
            "generate", "--root", root_copy.path, "--n", 2, "--eyes", eyes, "--out", outs[-1]
        )
        assert done.exit_code == 0, done.output
        assert (
            "eyes 0.1: the data supports 0.70 to 1.00, so it is drawn as 0.70" in done.output
        ) == (eyes == 0.1)
    np.testing.assert_array_equal(*(np.asarray(Image.open(out)) for out in outs))


def test_generate_without_a_generator_names_the_command_to_run(gaip3, tmp_path):
    (tmp_path / "original").mkdir()
    done = gaip3("generate", "--root", tmp_path, "--out", tmp_path / "g.png")
    assert done.exit_code != 0
    assert "there is no generator" in done.output
    assert "gaip3 refresh" in done.output
    assert not (tmp_path / "g.png").exists()


def test_a_slider_outside_0_to_1_is_refused(gaip3, tmp_path):
    done = gaip3("generate", "--root", tmp_path, "--mouth", 1.5)
    assert done.exit_code != 0
    assert "0<=x<=1" in done.output


REFUSED = """
import json, sys
from click.testing import CliRunner
from gaip3_pipeline.cli import main
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, words)
    print(json.dumps([done.exit_code, done.output]))
print(json.dumps(sorted({"keras", "tensorflow", "jax"} & set(sys.modules))))
"""


def test_mistakes_are_reported_in_one_line_before_the_networks_are_imported(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photographs").mkdir()
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "photographs" / "a.jpg")
    picture.save(tmp_path / "plain.png")
    whole = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:20])
    (tmp_path / "text.txt").write_text("no picture", encoding="utf-8")
    recipe = Recipe(model="0" * 64, faces=[Face(latents=Drawn(seed=1), values=[0.5] * 5)])
    (tmp_path / "foreign.png").write_bytes(write_png(np.zeros((8, 8, 3), np.uint8), recipe))
    trained = DataRoot(tmp_path / "root")  # the commands look for the file alone
    trained.nvae.mkdir(parents=True)
    (trained.nvae / "model.weights.h5").touch()
    generate, retouch = ["generate", "--from"], ["retouch", tmp_path / "photographs"]
    expected = {
        (*generate, tmp_path / "photographs" / "a.jpg"): "a.jpg: not a PNG: give a PNG of the",
        (*generate, tmp_path / "text.txt"): "text.txt: not a PNG: give a PNG of the studio",
        (*generate, "/dev/zero"): "/dev/zero: not a PNG",
        (*generate, tmp_path / "cut.png"): "this PNG is incomplete or damaged: download it again",
        (*generate, tmp_path / "plain.png"): "there are no settings in this picture",
        (*generate, tmp_path): "is a directory",
        ("generate", "--eyes", "nan"): "'--eyes': nan is not a number",
        ("generate", "--temperature", "nan"): "'--temperature': nan is not a number",
        ("generate", "--eyes", "1,0"): "'1,0' is not a valid float",
        ("generate", "--seed", "-1"): "-1 is not in the range",
        ("generate", "--seed", "9" * 30): "is not in the range",
        ("generate", "--n", "0"): "0 is not in the range",
        ("generate", "--out", "x.jpg"): "--out x.jpg: a PNG is written; name it x.png",
        ("generate", "--out", "/proc/x/y.png"): "--out: /proc/x cannot be written to",
        (*retouch, "--out", "/proc/x"): "--out: /proc/x cannot be written to",
        (*retouch, "--fidelity", "nan"): "nan is not a number",
        ("retouch", tmp_path / "empty"): "contains no picture",
        ("label", "--port", "99999"): "99999 is not in the range 1<=x<=65535",
        ("label", "--port", "0"): "0 is not in the range",
        ("ui", "--label-port", "-1"): "-1 is not in the range",
    }
    calls = [[*map(str, words), "--root", str(trained.path)] for words in expected]
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, json.dumps(calls)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        cwd=REPOSITORY,
    )
    *answers, imported = map(json.loads, done.stdout.splitlines())
    for (code, output), (words, line) in zip(answers, expected.items(), strict=True):
        error = output.splitlines()[-1]
        assert code, words
        assert error.startswith("Error: "), output
        assert line in error, output
        assert " at 0x" not in error
    assert imported == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("nvae_weight", "did you mean nvae_weights"),
        ("+nvae_weight*", "did you mean nvae_weights"),
        ("group:input", "did you mean group:inputs"),
        ("nosuch", "give a name such as nvae_weights"),
        ("nvae_weights or nosuch", "did you mean nvae_weights"),
        ("nvae_weights,nvae_samples", "repeat --select for several"),
        ("status:stale", "give a name such as"),
        ("", "--select '': no asset has this name"),
        ("++(", "give a name such as"),
    ],
)
def test_an_unknown_asset_is_answered_by_similar_names_in_one_line(gaip3, tmp_path, text, hint):
    (tmp_path / "original").mkdir()
    for more in (["--dry-run"], []):
        done = gaip3("refresh", "--root", tmp_path, "--select", text, *more)
        assert done.exit_code == 1
        assert done.output.count("\n") == 1
        assert done.output.startswith(f"Error: --select {text}")
        assert hint in done.output
        assert str(ASSET_LIST) in done.output
        assert "AssetKey" not in done.output


def test_the_training_of_the_generator_continues_with_more_epochs(gaip3, root_copy):
    words = ["train", "nvae", "--root", root_copy.path, "--resume"]
    at_its_end = gaip3(*words)
    assert at_its_end.exit_code != 0
    assert "raise epochs to continue" in at_its_end.output
    before = read_figures(root_copy, "nvae_weights")
    root_copy.settings_file.write_text(
        f'preset = "tiny"\n[nvae]\nepochs = {before["epochs"] + 1}\n', encoding="utf-8"
    )
    done = gaip3(*words)
    assert done.exit_code == 0, done.output
    assert "making nvae_weights" in done.output
    assert read_figures(root_copy, "nvae_weights")["epochs"] == before["epochs"] + 1
    shutil.rmtree(root_copy.nvae / "checkpoints")
    without = gaip3(*words)
    assert without.exit_code != 0
    assert "there is no checkpoint in" in without.output


def test_a_warm_start_trains_the_generator_from_its_last_weights_where_they_fit(gaip3, root_copy):
    def start_under(settings):
        root_copy.settings_file.write_text(settings, encoding="utf-8")
        done = gaip3(
            "refresh", "--root", root_copy.path, "--select", "nvae_weights", "--warm-start"
        )
        assert done.exit_code == 0, done.output
        runs = client.search_runs(
            [experiment],
            "tags.`gaip3.asset` = 'nvae_weights'",
            order_by=["attributes.start_time DESC"],
        )
        figures = read_figures(root_copy, "nvae_weights")
        assert runs[0].data.tags["gaip3.start"] == figures["start"]
        return figures["start"], figures["epochs"]

    client = tracking_of(root_copy, load(root_copy)).client()
    experiment = client.get_experiment_by_name("gaip3").experiment_id
    before = read_figures(root_copy, "nvae_weights")
    assert before["start"] == "afresh"
    same_cells = 'preset = "tiny"\n[nvae]\nlearning_rate = 0.004\n'
    assert start_under(same_cells) == ("warm_start", math.ceil(before["epochs"] / 3))
    assert start_under(with_few_cells(epochs=2, learning_rate=0.01)) == ("afresh", 2)


def test_a_dry_run_names_each_asset_with_its_reason_and_writes_nothing(gaip3, root_copy):
    from gaip3_pipeline_tests.refresh.test_run import relabel

    relabel(root_copy, "mouth")
    before = {
        p: p.stat().st_mtime_ns
        for p in root_copy.path.rglob("*")
        if p.is_file() and ".gaip3" not in p.parts
    }
    done = gaip3("refresh", "--root", root_copy.path, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "12 labels of mouth changed → up to" in done.output
    assert "eyes, hair_color, background, head stay" in done.output
    assert "hand_labels_mouth changed" in done.output
    assert "input_model_eyes" not in done.output
    assert before == {
        p: p.stat().st_mtime_ns
        for p in root_copy.path.rglob("*")
        if p.is_file() and ".gaip3" not in p.parts
    }


def test_a_plan_without_stale_assets_is_one_line(gaip3, finished_root):
    assert (
        gaip3("refresh", "--root", finished_root.path).output
        == "Nothing is stale: 0 assets to make.\n"
    )


def test_the_help_of_export_labels_lists_each_format_on_a_line_of_its_own(gaip3):
    lines = gaip3("export-labels", "--help").output.splitlines()
    assert set(LABEL_EXPORTS) <= {line.split()[0] for line in lines if line.strip()}


def test_mistakes_are_one_line_without_a_traceback(gaip3, tmp_path):
    (tmp_path / "gaip3.toml").write_text("[nvae]\nepoch = 1\n", encoding="utf-8")
    done = gaip3("refresh", "--root", tmp_path)
    assert done.exit_code != 0
    assert done.output.startswith("Error: ")
    assert "[nvae] has no setting 'epoch'" in done.output
    assert "Traceback" not in done.output
    unknown = gaip3("refresh", "--root", tmp_path / "other", "--select", "nothing_like_this")
    assert unknown.exit_code != 0
    assert "Traceback" not in unknown.output


def test_for_an_empty_root_the_error_names_the_folder_to_fill(gaip3, tmp_path):
    done = gaip3("refresh", "--root", tmp_path / "빈 폴더")
    assert done.exit_code != 0
    assert "ThisPersonDoesNotExist" in done.output or "thispersondoesnotexist" in done.output
    assert "Traceback" not in done.output


def test_the_summary_of_a_finished_run_names_its_files(finished_root):
    from gaip3_pipeline.assets.report import summary

    said = summary(finished_root)
    assert str(finished_root.report) in said
    assert "bits/dim" in said


def test_the_report_shows_the_generators_curves_sweeps_and_nearest_training_pictures(finished_root):
    page = finished_root.report.read_text(encoding="utf-8")
    for name in (
        "nvae_weights",
        "nvae_weights.curves",
        "nvae_samples",
        "generator_evaluation",
        "generator_evaluation.control",
    ):
        assert f'<img data-name="{name}" ' in page
    assert 'data-name="generator_evaluation.nearest_training_pictures"' in page


def test_retouch_does_not_change_photographs_and_names_files_that_it_cannot_use(
    gaip3, finished_root, tmp_path
):
    photographs = sorted(finished_root.original(IMAGE_SETS[0]).iterdir())[:3]
    folder = tmp_path / "사진"
    (folder / "more").mkdir(parents=True)
    for source, name in zip(photographs, ("a.jpg", "b.jpeg", "more/a.jpg"), strict=True):
        shutil.copy(source, folder / name)
    (folder / "broken.png").write_text("no picture")
    wide = rgb_profile(P3, 2.2)
    noise = np.random.default_rng(0).integers(0, 256, (128, 104, 3), np.uint8)
    Image.fromarray(noise).save(folder / "wide.png", icc_profile=wide)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    done = gaip3("retouch", folder, "--root", finished_root.path, "--fidelity", 1)
    assert done.exit_code == 0, done.output
    assert f"{folder / 'broken.png'}: not used:" in done.output
    assert f"{folder / 'wide.png'}: unlike the training pictures" in done.output
    assert f"{folder / 'a.jpg'}: unlike" not in done.output
    out = tmp_path / "사진-retouched"
    assert f"{out}: 4 of 5 photographs" in done.output
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    table = pd.read_csv(out / "retouched.csv", keep_default_na=False)
    names = ["a.jpg", "more/a.jpg", "b.jpeg", "broken.png", "wide.png"]
    assert table.file.tolist() == names  # by name
    is_copy = (table.outcome != "").tolist()
    wide_result = "wide.png" if is_copy[4] else "wide.png.jpg"
    assert table.picture.tolist() == [*names[:3], "", wide_result]
    for row, copied in zip(table.itertuples(), is_copy, strict=True):
        if row.picture:
            result, photograph = out / row.picture, folder / row.file
            assert (result.read_bytes() == photograph.read_bytes()) == copied
            assert Image.open(result).size == Image.open(photograph).size
    assert (out / "changes.jpg").exists()

    gaip3(
        "retouch",
        folder,
        "--root",
        finished_root.path,
        "--fidelity",
        0,
        "--out",
        tmp_path / "still",
    )
    for name in ("a.jpg", "wide.png"):
        assert (tmp_path / "still" / name).read_bytes() == (folder / name).read_bytes()
    # results in the folder itself are no photographs of the second run, which replaces them
    inside = folder / "results"
    (folder / "same.png").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "same.png.jpg").write_bytes((folder / "b.jpeg").read_bytes())
    (folder / "changes.jpg").write_bytes((folder / "b.jpeg").read_bytes())
    (folder / "a.json").write_text("{}")
    words = ("retouch", folder, "--root", finished_root.path, "--fidelity", 0, "--out", inside)
    done = gaip3(*words)
    assert f"{inside}: 7 of 8 photographs used" in done.output, done.output
    assert f"{folder / 'a.json'}: left out: not a picture (.json)" in done.output
    made = set(pd.read_csv(inside / "retouched.csv", keep_default_na=False).picture) - {""}
    assert {"a.jpg", "same.png", "same.png.jpg.jpg"} < made  # copies
    there = {p.relative_to(inside).as_posix() for p in inside.rglob("*") if p.is_file()}
    assert there == {*made, "changes.jpg", "retouched.csv"}
    assert len(made) == 7
    # a photograph that is gone keeps its result, one that is broken does not
    (folder / "b.jpeg").unlink()
    (folder / "same.png").write_text("no picture")
    assert f"{inside}: 5 of 7 photographs used" in gaip3(*words).output
    table = pd.read_csv(inside / "retouched.csv", keep_default_na=False).set_index("file")
    assert table.picture["b.jpeg"] == "b.jpeg"
    assert (inside / "b.jpeg").exists()
    assert not (inside / "same.png").exists()
    (inside / "mine.jpg").write_bytes(b"a photograph of the user")
    assert "mine.jpg was not made by gaip3 retouch" in gaip3(*words).output
    refused = gaip3("retouch", folder, "--root", finished_root.path, "--out", folder)
    assert refused.exit_code == 1
    assert "this is the folder of the photographs" in refused.output
