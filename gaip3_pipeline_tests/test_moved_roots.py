"""A root that was moved, copied or restored uses the files where it is now, and those alone."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.models.storage import save_config
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.databases import sqlite_url
from gaip3_pipeline_tests.registering import register

MODEL = "nvae_weights"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A root with one registered model; tests copy or move copies of it."""
    root = DataRoot(tmp_path_factory.mktemp("roots") / "per%20cent 폴더")
    train(root, "one")
    return root


@pytest.fixture
def root(first, tmp_path):
    """A root with that model, at the place where it was last written to. Each test has a place of
    its own, since MLflow keeps its databases open."""
    root = DataRoot(tmp_path / "was" / first.path.name)
    shutil.copytree(first.path, root.path)
    assert tracking(root).follow_root()
    return root


def tracking(root):
    return tracking_of(root, load(root))


def train(root, version):
    save_config(root.nvae, {"weights": version})
    register(tracking(root), MODEL, root.nvae, version, {"auc": 0.5}, version)


def folders(root):
    """The folder of each registered version, by its content hash."""
    return {v.data_version: v.folder for v in tracking(root).versions(MODEL, "evaluation")}


def stored(root):
    """Every text in MLflow's database that begins with a path of this machine, other than that of
    MLflow's own default experiment."""
    found = set()
    with closing(sqlite3.connect(root.mlflow_db)) as store:
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for row in store.execute(f'SELECT * FROM "{table}"').fetchall():
                found |= {
                    v for v in row if str(v).startswith(("/", "file:")) and "Default" not in row
                }
    return found


def tree(folder):
    return {(p, p.stat().st_mtime_ns, p.stat().st_size) for p in [folder, *folder.rglob("*")]}


def below(root):
    return f"{root.path.as_uri()}/"


def test_a_moved_root_shows_its_versions_before_anything_is_written(root, tmp_path):
    now = DataRoot(tmp_path / "ha#sh")
    root.path.rename(now.path)
    before = tree(now.path)
    assert folders(now)["one"].is_relative_to(now.path)
    assert tree(now.path) == before


def test_a_training_in_a_moved_root_writes_below_it_and_keeps_the_older_version(
    root, tmp_path, capsys
):
    now = DataRoot(tmp_path / "ques?tion; 100%")
    root.path.rename(now.path)
    train(now, "two")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"The data root moved from {root.path} to {now.path}: ")
    assert not root.path.exists()
    found = folders(now)
    assert set(found) == {"one", "two"}
    assert all(f.is_relative_to(now.path) and list(f.iterdir()) for f in found.values())
    assert all(text.startswith(below(now)) for text in stored(now))
    train(now, "three")
    assert capsys.readouterr().err == ""


def test_a_copy_leaves_the_first_root_alone_and_works_without_it(root, tmp_path):
    copy = DataRoot(tmp_path / "copy")
    shutil.copytree(root.path, copy.path)
    before = tree(root.path)
    assert folders(copy)["one"].is_relative_to(copy.path)
    train(copy, "two")
    assert tree(root.path) == before
    train(root, "other")
    assert set(folders(root)) == {"one", "other"}
    assert all(f.is_relative_to(root.path) for f in folders(root).values())
    shutil.rmtree(root.path)
    assert set(folders(copy)) == {"one", "two"}
    assert not root.path.exists()


def test_a_root_moved_twice_and_back_leads_to_where_it_is(root, tmp_path):
    places = [tmp_path / "a", tmp_path / "deep" / "한글", root.path]
    (tmp_path / "deep").mkdir()
    here = root
    for place in places:
        here.path.rename(place)
        here = DataRoot(place)
        assert tracking(here).follow_root()
        assert all(text.startswith(below(here)) for text in stored(here))
        assert folders(here)["one"].is_relative_to(place)


def test_files_that_a_copy_left_at_the_first_place_are_brought_over(root, tmp_path):
    """As versions did that did not follow: they trained in the copy and wrote to the first root."""
    copy = DataRoot(tmp_path / "copy")
    shutil.copytree(root.path, copy.path)
    left = MlflowTracking(uri=sqlite_url(copy.mlflow_db), artifacts=str(root.mlflow_artifacts))
    register(left, MODEL, copy.nvae, "two", {}, "two")
    assert folders(copy)["two"].is_relative_to(root.path)
    before = tree(root.path)
    followed = tracking(copy).follow_root()
    assert followed
    assert followed.runs == 1
    assert tree(root.path) == before
    shutil.rmtree(root.path)
    assert {v: f.is_relative_to(copy.path) for v, f in folders(copy).items()} == {
        "one": True,
        "two": True,
    }


def test_a_root_that_is_reached_by_a_link_has_not_moved(root, tmp_path):
    link = DataRoot(tmp_path / "link")
    link.path.symlink_to(root.path)
    before = tree(root.path)
    assert tracking(link).follow_root() is None
    assert set(folders(link)) == {"one"}
    assert tree(root.path) == before


def test_what_lies_outside_the_root_and_a_store_of_the_user_are_left_alone(root, tmp_path):
    elsewhere = f"{root.path}2/.gaip3/mlartifacts/1/artifacts"
    with closing(sqlite3.connect(root.mlflow_db)) as store, store:
        store.execute(
            "INSERT INTO experiments (name, artifact_location) VALUES ('mine', ?)", (elsewhere,)
        )
    now = DataRoot(tmp_path / "now")
    root.path.rename(now.path)
    assert MlflowTracking(uri=sqlite_url(now.mlflow_db)).follow_root() is None
    assert tracking(now).follow_root()
    assert elsewhere in stored(now)


def test_a_moved_root_is_not_hashed_again(root, tmp_path):
    from gaip3_pipeline.tables.hashing import folder_version

    def hashed(root, content=b""):
        picture = root.originals / "a.png"
        time = picture.stat().st_mtime_ns
        if content:
            picture.write_bytes(content)
            os.utime(picture, ns=(time, time))
        return folder_version(root.originals, root.hash_cache).hash

    root.originals.mkdir()
    (root.originals / "a.png").write_bytes(b"one")
    first = hashed(root)
    now = DataRoot(Path(tmp_path, "now"))
    root.path.rename(now.path)
    assert hashed(now, b"two") == first  # size, time and inode are those in the cache
