"""``gaip3 export-dataset``: what a data-set hub, and whoever loads the data there, gets."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.contracts import read_all_input_values, read_labels


@pytest.fixture(scope="module")
def exported(finished_root: DataRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from click.testing import CliRunner

    from gaip3_pipeline.cli import main

    folder = tmp_path_factory.mktemp("hub") / "faces"
    words = ["export-dataset", folder, "--license", "cc0-1.0", "--root", finished_root.path]
    done = CliRunner().invoke(main, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    n = len(manifest(finished_root))
    assert f"{folder}: {n} pictures (train " in done.output
    return folder


def manifest(root: DataRoot) -> pd.DataFrame:
    return pd.read_parquet(root.manifest("final_dataset"))


def metadata(folder: Path) -> pd.DataFrame:
    parts = {f.parent.name: pd.read_csv(f) for f in folder.glob("images/*/metadata.csv")}
    return pd.concat([part.assign(split=split) for split, part in parts.items()])


def test_every_final_image_is_there_with_its_values_and_labels(exported, finished_root):
    made, wanted = metadata(exported), manifest(finished_root)
    by_name = wanted.set_index(wanted.path.str.removeprefix("final/"))
    assert sorted(made.file_name) == sorted(by_name.index)
    values = read_all_input_values(finished_root)
    labels = read_labels(finished_root.checked_labels("mouth")).table
    labelled = {f"{r.gender}/{r.stem}": r.value for r in labels.itertuples()}
    for row in made.itertuples():
        known = by_name.loc[row.file_name]
        picture = exported / "images" / row.split / row.file_name
        assert hashlib.sha256(picture.read_bytes()).hexdigest() == known.sha256
        assert (row.split, f"{row.set}/{row.original}") == (known.split, known.original)
        assert row.brightness_copy == row.file_name.startswith("augmented_")
        for attribute in ATTRIBUTES:
            assert getattr(row, attribute) == values.loc[known.path, attribute]
            assert getattr(row, f"{attribute}_deviation") > 0
        label = labelled.get(f"{row.set.removeprefix('d2_')}/{row.original}")
        assert row.mouth_label == label if label is not None else pd.isna(row.mouth_label)
    assert made.mouth_label.notna().any()
    assert made.groupby("group").split.nunique().max() == 1


def test_parquet_files_hold_the_same_rows_and_the_pictures_themselves(exported):
    made = metadata(exported)
    for split, part in made.groupby("split"):
        [file] = (exported / "data").glob(f"{split}-*-of-00001.parquet")
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert about.keys() == set(table.column_names)
        assert about["image"] == {"_type": "Image"}
        rows = table.to_pandas()
        folder = exported / "images" / str(split)
        for image, name in zip(rows.image, part.file_name, strict=True):
            assert image["path"] == name
            assert image["bytes"] == (folder / name).read_bytes()
        columns = [c for c in part.columns if c not in ("file_name", "split")]
        pd.testing.assert_frame_equal(
            rows[columns], part[columns].reset_index(drop=True), check_dtype=False
        )


def test_the_card_names_licence_splits_and_sources(exported, finished_root):
    _, front, text = (exported / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "cc0-1.0"
    assert about["size_categories"] == ["n<1000"]
    [config] = about["configs"]
    for part in config["data_files"]:
        assert list(exported.glob(part["path"]))
    counts = manifest(finished_root).split.value_counts()
    assert {p["split"] for p in config["data_files"]} == set(counts.index)
    for split, n in counts.items():
        assert f"| {split} | {n} |" in text
    assert "- `d1`: " in text
    assert "painted by gaip3 demo" in text
    assert {p.name for p in exported.iterdir()} == {"README.md", "data", "images"}


def test_a_folder_that_exists_and_a_word_that_is_no_licence_are_refused(
    exported, finished_root, gaip3, tmp_path
):
    def said(folder: Path, license_id: str) -> str:
        done = gaip3(
            "export-dataset", folder, "--license", license_id, "--root", finished_root.path
        )
        assert done.exit_code == 1
        return done.output

    before = sorted(exported.rglob("*"))
    assert f"{exported} exists already: name a new folder" in said(exported, "cc0-1.0")
    assert sorted(exported.rglob("*")) == before
    assert "is not the name of a licence on a hub" in said(tmp_path / "new", "Public Domain")
    missing = gaip3("export-dataset", tmp_path / "new", "--root", finished_root.path)
    assert "Missing option '--license'" in missing.output
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_changed_is_named_and_nothing_is_left(root_copy, gaip3, tmp_path):
    changed = root_copy.path / manifest(root_copy).path.iloc[-1]
    changed.unlink()  # hard links share their content
    changed.write_bytes(b"another picture")
    done = gaip3(
        "export-dataset", tmp_path / "hub" / "x", "--license", "mit", "--root", root_copy.path
    )
    assert done.exit_code == 1
    assert f"{changed} differs from its manifest: run gaip3 refresh --verify" in done.output
    assert list((tmp_path / "hub").iterdir()) == []
