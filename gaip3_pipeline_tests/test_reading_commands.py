"""Commands that only read write nothing, and name a root that is not there."""

import json
import re
import sqlite3
from contextlib import closing

import dagster as dg
import pytest
from PIL import Image

from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.dagster_storage import reading_instance
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.run import observe
from gaip3_pipeline.tables.databases import check_writable
from gaip3_pipeline.tables.label_store import Edit, LabelStore

LABELS = "gender,img_id,path,value\nfemale,0,resized/a.png,1\n"


@pytest.fixture
def root(tmp_path):
    """Photographs and labels; no store yet."""
    root = DataRoot(tmp_path / "root")
    folder = root.originals / "ThisPersonDoesNotExist" / "Female"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 128)).save(folder / "a.png")
    root.labels.mkdir()
    root.hand_labels("eyes").write_text(LABELS)
    root.settings_file.write_text('preset = "tiny"\n')
    return root


def tree(root):
    return {(p, p.stat().st_mtime_ns, p.stat().st_size) for p in [root.path, *root.path.rglob("*")]}


def plan(gaip3, root, *words):
    result = gaip3("refresh", "--dry-run", "--json", *words, "--root", root.path)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])["plan"]


def with_history(root):
    """Give the root a Dagster store in which its photographs were observed."""
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:
        return observe(instance, root)


def test_a_dry_run_of_a_root_without_a_store_shows_the_whole_plan_and_writes_nothing(root, gaip3):
    before = tree(root)
    assert len(plan(gaip3, root)) == len(plan(gaip3, root, "--verify")) > 40
    told = gaip3("refresh", "--dry-run", "--root", root.path).output
    assert re.match(r"\d\d assets to make for the first time", told)
    assert tree(root) == before


def test_a_dry_run_of_a_root_with_a_store_reads_it_and_writes_nothing(root, gaip3):
    with_history(root)
    with dg.DagsterInstance.from_config(str(root.dagster_home)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("resized_d1")))
    before = tree(root)
    [step] = plan(gaip3, root, "--select", "resized_d1")
    assert step["reasons"] != ["never made"]
    assert plan(gaip3, root, "--verify", "--select", "resized_d1") == [step]
    assert tree(root) == before


def test_a_dry_run_sees_what_a_running_process_has_just_written(root):
    with_history(root)
    writer = sqlite3.connect(root.dagster_events)  # keeps the write-ahead log in use
    with closing(writer):
        writer.execute("SELECT count(*) FROM event_logs").fetchone()
        with dg.DagsterInstance.from_config(str(root.dagster_home)) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("new")))
        assert root.dagster_events.with_name("index.db-wal").stat().st_size
        with reading_instance(root) as instance:
            assert instance.fetch_materializations(dg.AssetKey("new"), limit=1).records


def test_a_dry_run_uses_the_cached_hashes_of_pictures_and_adds_none(root, gaip3):
    with_history(root)
    folder = root.originals / "ThisPersonDoesNotExist" / "Female"
    Image.new("RGB", (64, 64)).save(folder / "new.png")
    before = tree(root)
    plan(gaip3, root)
    assert tree(root) == before


def test_other_commands_that_only_show_write_nothing(root, gaip3, tmp_path):
    LabelStore(root).apply([Edit("eyes", "female", "a", 0.5)], "somebody")
    with_history(root)
    root.hand_labels("eyes").write_text(LABELS)  # an edit outside, not yet in the history
    first_run = tmp_path / "first run"
    (first_run / "logs").mkdir(parents=True)
    before = tree(root)
    for words in (
        ("import-labels", "--dry-run", root.hand_labels("eyes")),
        ("export-labels", "plain", tmp_path / "labels.csv"),
        ("export-labels", "csv", tmp_path / "csv"),
        ("import-first-run", "--dry-run", first_run),
    ):
        result = gaip3(*words, "--root", root.path)
        assert result.exit_code == 0, result.output
        assert tree(root) == before, words
    check_writable(root.databases)


@pytest.mark.parametrize("what", ["not there", "no data root"])
def test_a_root_that_is_not_there_is_one_line_and_is_not_made(what, tmp_path, gaip3):
    root = DataRoot(tmp_path / "mistyped")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    if what == "no data root":
        root.path.mkdir()
    for words in (
        ("refresh", "--dry-run"),
        ("refresh",),
        ("train", "nvae"),
        ("ui",),
        ("label",),
        ("generate",),
        ("retouch", pictures),
        ("drop", "a.png"),
        ("export-labels", "csv", tmp_path / "out"),
        ("import-labels", __file__),
    ):
        result = gaip3(*words, "--root", root.path)
        assert result.exit_code == 1
        [line] = result.output.splitlines()
        assert line.startswith(f"Error: {root.path} is {what}: ")
    assert gaip3("doctor", "--root", root.path).exit_code == 1
    assert {p.name for p in tmp_path.rglob("*")} <= {"mistyped", "pictures"}
    assert root.path.exists() == (what == "no data root")


@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_a_history_that_an_interrupted_copy_left_empty_is_named(root, gaip3, words):
    with_history(root)
    root.dagster_events.write_bytes(b"")
    done = gaip3("refresh", *words, "--select", "resized_d2_female", "--root", root.path)
    assert done.exit_code == 1
    assert f"{root.dagster_events} is empty: restore it from a backup" in done.output
    assert root.dagster_events.stat().st_size == 0
