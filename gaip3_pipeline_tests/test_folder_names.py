"""A root works under every name that Linux allows for a folder."""

import os
import subprocess
import sys

import dagster as dg
import pytest
from PIL import Image

from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.dagster_storage import reading_instance
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.databases import sqlite_file, sqlite_url
from gaip3_pipeline_tests.registering import register

NAMES = [
    "per%20cent 100%",
    "ques?tion; ha#sh",
    "br[ack]et*",
    "quo'te\"s {brace} back\\slash",
    " 한글 $HOME\nline",
    "col:on@host&p=+",
    "~",
]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An MLflow database with its tables, which take seconds to make."""
    root = DataRoot(tmp_path_factory.mktemp("empty"))
    tracking_of(root, load(root)).client()
    return root.mlflow_db


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()


def beside(root):
    """The names in the root's parent folder."""
    return {p.name for p in root.path.parent.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_every_legal_name_of_a_folder_works_for_both_stores(name, tmp_path, cache, empty_store):
    root = DataRoot(tmp_path / "roots" / name)
    root.path.mkdir(parents=True)
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("made")))
        assert instance.get_settings("concurrency")  # of dagster.yaml, which Dagster has found
    assert root.dagster_events.exists()
    with reading_instance(root) as instance:
        assert instance.fetch_materializations(dg.AssetKey("made"), limit=1).records
    root.mlflow_db.write_bytes(empty_store.read_bytes())
    root.nvae.mkdir(parents=True)
    (root.nvae / "model.json").write_text("{}")
    tracking = tracking_of(root, load(root))
    assert sqlite_file(tracking.uri) == root.mlflow_db
    register(tracking, "nvae_weights", root.nvae, "version", {}, "one")
    [version] = tracking.versions("nvae_weights", "evaluation")
    assert version.folder.is_relative_to(root.mlflow_artifacts)
    assert (version.folder / "model.json").read_text() == "{}"
    assert beside(root) == {name}


def test_two_roots_whose_names_match_as_patterns_have_homes_of_their_own(tmp_path, cache):
    homes = []
    for name in ("a*", "ab", "a?"):
        root = DataRoot(tmp_path / name)
        root.path.mkdir()
        with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))):
            assert root.dagster_events.exists()
        homes.append(root.dagster_home)
    assert len(set(homes)) == 3


def test_the_commands_work_in_a_root_with_a_difficult_name(tmp_path, cache):
    root = DataRoot(tmp_path / "roots" / "b[r]%20c?;# '\"$HOME\\\n한글")
    folder = root.originals / "thispersondoesnotexist.10k"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 128)).save(folder / "a.png")
    root.settings_file.write_text('preset = "tiny"\n')
    code = """
import os, sys
from click.testing import CliRunner
from gaip3_pipeline.cli import main
for words in (
    ["refresh", "--select", "resized_d1"],
    ["refresh", "--select", "resized_d1", "--dry-run"],
    ["drop", "original/thispersondoesnotexist.10k/a.png"],
    ["doctor"],
):
    result = CliRunner().invoke(main, [*words, "--root", sys.argv[1]])
    print(result.output)
    assert result.exit_code == (words == ["doctor"]), result.exception
    if "--dry-run" in words:
        assert "Nothing is stale" in result.output
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(root.path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root.path / "resized" / "10k-images" / "a.jpg").exists()
    assert beside(root) == {root.path.name}


def test_a_name_that_is_no_text_is_refused_in_one_line(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    done = subprocess.run(
        [sys.executable, "-m", "gaip3_pipeline.cli", "drop", "--root", folder],
        capture_output=True,
    )
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "is not valid UTF-8: rename the folder" in line


def test_a_url_names_its_file_whatever_is_in_the_name(tmp_path):
    for name in NAMES:
        assert (
            sqlite_file(sqlite_url(tmp_path / name / "mlflow.db")) == tmp_path / name / "mlflow.db"
        )
    assert sqlite_file("http://localhost:5000") is None
    assert sqlite_file("sqlite://") is None
