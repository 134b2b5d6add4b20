"""Snapshots of a root: kept in seconds, compared, and gone back to, without losing a label."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.setup.snapshots import restore, take
from gaip3_pipeline.tables.content import content_hash
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.tables.snapshots import SnapshotError, compare, files_of, find, snapshots
from gaip3_pipeline_tests.refreshing import refresh_root

PASSING = ("dagster.yaml", "hashes.sqlite", "lock", "-wal", "-shm", ".log")


@pytest.fixture
def kept(root_copy: DataRoot) -> DataRoot:
    take(root_copy, "before")
    return root_copy


def contents(root: DataRoot) -> dict[str, str]:
    """The hash of every file of a root but caches, locks, databases and snapshots."""
    return {
        path.relative_to(root.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.path.rglob("*")
        if path.is_file()
        and not path.name.endswith((*PASSING, ".db"))
        and root.snapshots not in path.parents
        and "heartbeats" not in path.parts
        and "compiled" not in path.parts
    }


def relabel(root: DataRoot) -> tuple[str, str]:
    store = LabelStore(root)
    (gender, stem), value = next(iter(store.values("mouth").items()))
    store.apply([Edit("mouth", gender, stem, 0.75 if value < 0.6 else 0.25)], "me", "s")
    return gender, stem


def test_a_root_is_what_it_was_after_relabelling_and_a_refresh(kept, gaip3):
    before = contents(kept)
    gender, stem = relabel(kept)
    photograph = sorted(kept.original(IMAGE_SETS[0]).glob("*.jpg"))[0]
    new = photograph.with_name("another.jpg")
    shutil.copyfile(photograph, new)
    with kept.settings_file.open("a") as file:
        file.write("[samples]\nn = 5\n")
    refresh_root(kept, ["labels_mouth", "resized_d1"])
    take(kept, "after")

    found = compare(kept, "before", "after")
    assert found.added == [new.relative_to(kept.path).as_posix()]
    assert found.dropped == found.replaced == []
    assert [(r.attribute, r.gender, r.stem) for r in found.labels.itertuples()] == [
        ("mouth", gender, stem)
    ]
    assert found.settings == {"samples.n": (None, 5)}
    said = gaip3("diff", "before", "after", "--root", kept.path).output
    assert f"added    {found.added[0]}" in said
    assert f"  {gender}/{stem}  " in said
    assert "samples.n: None → 5" in said
    assert "no difference" in gaip3("diff", "after", "after", "--root", kept.path).output

    done = gaip3("restore", "before", "--root", kept.path)
    assert done.exit_code == 0, done.output
    assert contents(kept) == before
    plan = gaip3("refresh", "--dry-run", "--root", kept.path)
    assert "Nothing is stale: 0 assets" in plan.output
    assert restore(kept, "after")[1] == 0
    assert new.exists()
    listed = gaip3("snapshots", "--root", kept.path).output.splitlines()
    assert [line.split()[1] for line in listed] == ["before", "after"]


def test_pictures_are_linked_and_what_people_write_is_copied(kept):
    table = files_of(kept, find(kept, "before")).set_index("path")
    picture = next(p for p in table.index if p.startswith("resized/"))
    labels = "labels/train_output_mouth.csv"

    def kept_as(path: str) -> Path:
        sha256 = table.sha256[path]
        return kept.snapshots / "files" / sha256[:2] / sha256

    assert kept_as(picture).samefile(kept.path / picture)
    assert not kept_as(labels).samefile(kept.path / labels)
    with (kept.path / labels).open("a") as file:
        file.write("\n")
    assert hashlib.sha256(kept_as(labels).read_bytes()).hexdigest() == table.sha256[labels]
    again = take(kept, "again")
    assert again.content != find(kept, "before").content


def test_labels_of_now_are_not_lost(kept, gaip3):
    relabel(kept)
    before = contents(kept)
    done = gaip3("restore", "before", "--root", kept.path)
    assert done.exit_code == 1
    assert "would be lost; run gaip3 snapshot NAME first" in done.output
    assert contents(kept) == before


def test_a_refresh_takes_a_snapshot_of_changed_content_whose_hash_its_trainings_carry(
    root_copy, gaip3
):
    def refreshed(asset: str) -> str:
        done = gaip3("refresh", "--select", asset, "--root", root_copy.path)
        assert done.exit_code == 0, done.output
        return done.output

    refreshed("labels_mouth")
    assert snapshots(root_copy) == []
    with root_copy.settings_file.open("a") as file:
        file.write("[snapshots]\nautomatic = true\n")
    assert "snapshot 20" in refreshed("labels_mouth")
    assert "snapshot 20" not in refreshed("labels_mouth")
    assert len(snapshots(root_copy)) == 1
    relabel(root_copy)
    assert "snapshot 20" in refreshed("input_model_mouth")
    content = snapshots(root_copy)[1].content
    assert content == content_hash(root_copy) != snapshots(root_copy)[0].content
    client = tracking_of(root_copy, load(root_copy)).client()
    runs = client.search_runs(["1"], order_by=["attributes.start_time DESC"], max_results=2)
    assert {run.data.tags.get("gaip3.asset") for run in runs} == {"input_model_mouth", None}
    assert [run.data.tags["gaip3/content"] for run in runs] == [content, content]


def test_a_snapshot_that_was_interrupted_is_not_there_and_can_be_made_again(root_copy):
    def stop(done: int, of: int) -> None:
        if done == of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(root_copy, "half", stop)
    assert snapshots(root_copy) == []
    take(root_copy, "half")
    assert [s.name for s in snapshots(root_copy)] == ["half"]


def test_a_restore_that_was_interrupted_goes_on(kept):
    before = contents(kept)
    shutil.rmtree(kept.path / "resized")
    shutil.rmtree(kept.samples)

    def stop(done: int, of: int) -> None:
        if done == of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(kept, "before", stop)
    assert contents(kept) != before
    restore(kept, "before")
    assert contents(kept) == before


def test_a_damaged_snapshot_is_named_and_nothing_changes(kept):
    table = files_of(kept, find(kept, "before"))
    [row] = table[table.path.str.startswith("samples/")].head(1).itertuples()
    file = kept.snapshots / "files" / row.sha256[:2] / row.sha256
    os.unlink(file)  # else the root's own picture would change, too
    file.write_bytes(b"another")
    shutil.rmtree(kept.samples)
    before = contents(kept)
    with pytest.raises(SnapshotError, match=f"{row.path} of the snapshot is gone or changed"):
        restore(kept, "before")
    assert contents(kept) == before


def test_names_are_checked(kept, gaip3):
    assert "there is a snapshot before already" in said(gaip3, kept, "snapshot", "before")
    assert "is no name of a snapshot" in said(gaip3, kept, "snapshot", "../x")
    assert "has no snapshot other: it has before" in said(gaip3, kept, "restore", "other")


def said(gaip3, root: DataRoot, *words: str) -> str:
    done = gaip3(*words, "--root", root.path)
    assert done.exit_code == 1
    return done.output
