"""The commands as a user types them: their output, and one line for a mistake."""

import math
import shutil

import numpy as np
import pandas as pd
from PIL import Image

from gaip3_pipeline.cli import LABEL_EXPORTS
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.models.detail import load_detail, save_detail
from gaip3_pipeline.models.nvae.model import load_nvae, save_nvae
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.versions import read_figures


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
    second = np.asarray(Image.open(tmp_path / "d.png"), float)
    height, width = second.shape[:2]
    # Its values, too, depend only on its seed; batches of other sizes may round differently.
    np.testing.assert_allclose(
        np.asarray(Image.open(first), float)[:height, width:], second, atol=2
    )
    soft = grid("e.png", "--mouth", 1, "--head", 0.5, "--detail", 0)
    assert (
        np.abs(np.asarray(Image.open(first), float) - np.asarray(Image.open(soft), float)).max() > 0
    )
    other = grid("c.png", "--mouth", 1, "--head", 0.5, "--background", 1)
    assert (
        np.abs(np.asarray(Image.open(first), float) - np.asarray(Image.open(other), float)).mean()
        > 0
    )


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
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_generate_without_a_generator_names_the_command_to_run(gaip3, tmp_path):
    done = gaip3("generate", "--root", tmp_path, "--out", tmp_path / "g.png")
    assert done.exit_code != 0
    assert "there is no generator" in done.output
    assert "gaip3 refresh" in done.output
    assert not (tmp_path / "g.png").exists()


def test_a_slider_outside_0_to_1_is_refused(gaip3, tmp_path):
    done = gaip3("generate", "--root", tmp_path, "--mouth", 1.5)
    assert done.exit_code != 0
    assert "0<=x<=1" in done.output


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
    def start_under(nvae):
        root_copy.settings_file.write_text(f'preset = "tiny"\n[nvae]\n{nvae}\n', encoding="utf-8")
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
    assert start_under("learning_rate = 0.004") == ("warm_start", math.ceil(before["epochs"] / 3))
    assert start_under("condition_width = 24\nepochs = 2") == ("afresh", 2)


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
        assert f'<img alt="{name}" src="data:image/jpeg;base64,' in page
    assert 'alt="generator_evaluation.nearest_training_pictures"' in page


def test_retouch_does_not_change_photographs_and_names_files_that_it_cannot_use(
    gaip3, finished_root, tmp_path
):
    photographs = sorted(finished_root.original(IMAGE_SETS[0]).iterdir())[:3]
    folder = tmp_path / "사진"
    (folder / "more").mkdir(parents=True)
    for source, name in zip(photographs, ("a.jpg", "b.jpeg", "more/a.jpg"), strict=True):
        shutil.copy(source, folder / name)
    (folder / "broken.png").write_text("no picture")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    done = gaip3("retouch", folder, "--root", finished_root.path, "--fidelity", 1)
    assert done.exit_code == 0, done.output
    assert f"{folder / 'broken.png'}: not used:" in done.output
    out = tmp_path / "사진-retouched"
    assert f"{out}: 3 of 4 photographs" in done.output
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    table = pd.read_csv(out / "retouched.csv", keep_default_na=False)
    assert table.file.tolist() == ["a.jpg", "more/a.jpg", "b.jpeg", "broken.png"]  # by name
    assert table.picture.tolist() == ["a.jpg", "more/a.jpg", "b.jpeg", ""]
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
    section = load(finished_root).images
    target = Target(section.height, section.width, section.crop)
    cut = resize(
        decode((folder / "a.jpg").read_bytes(), "a.jpg", target, section.max_pixels), target
    )
    # a JPEG of quality 95
    assert np.abs(np.asarray(Image.open(tmp_path / "still" / "a.jpg"), float) - cut).mean() < 3
    # results in the folder itself are no photographs of the second run, which replaces them
    inside = folder / "results"
    (folder / "same.png").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "same.png.jpg").write_bytes((folder / "b.jpeg").read_bytes())
    (folder / "changes.jpg").write_bytes((folder / "b.jpeg").read_bytes())
    (folder / "a.json").write_text("{}")
    words = ("retouch", folder, "--root", finished_root.path, "--fidelity", 0, "--out", inside)
    done = gaip3(*words)
    assert f"{inside}: 6 of 7 photographs used" in done.output, done.output
    assert f"{folder / 'a.json'}: left out: not a picture (.json)" in done.output
    made = set(pd.read_csv(inside / "retouched.csv", keep_default_na=False).picture) - {""}
    assert {"a.jpg", "same.png.jpg", "same.png.jpg.jpg"} < made
    there = {p.relative_to(inside).as_posix() for p in inside.rglob("*") if p.is_file()}
    assert there == {*made, "changes.jpg", "retouched.csv"}
    assert len(made) == 6
    # a photograph that is gone keeps its result, one that is broken does not
    (folder / "b.jpeg").unlink()
    (folder / "same.png").write_text("no picture")
    assert f"{inside}: 4 of 6 photographs used" in gaip3(*words).output
    table = pd.read_csv(inside / "retouched.csv", keep_default_na=False).set_index("file")
    assert table.picture["b.jpeg"] == "b.jpeg"
    assert (inside / "b.jpeg").exists()
    assert not (inside / "same.png.jpg").exists()
    (inside / "mine.jpg").write_bytes(b"a photograph of the user")
    assert "mine.jpg was not made by gaip3 retouch" in gaip3(*words).output
    refused = gaip3("retouch", folder, "--root", finished_root.path, "--out", folder)
    assert refused.exit_code == 1
    assert "this is the folder of the photographs" in refused.output
