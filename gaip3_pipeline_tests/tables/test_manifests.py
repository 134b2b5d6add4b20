"""Manifests, content versions of sets and folders, and the cache of hashes."""

import os
import sqlite3
import threading
from pathlib import Path

import pandas as pd
import pytest

from gaip3_pipeline.tables import hashing, manifests
from gaip3_pipeline.tables.hashing import folder_version
from gaip3_pipeline.tables.image_files import list_images
from gaip3_pipeline.tables.manifests import Row, manifest_version


def row(path: str, sha: str = "a", status: str = "ok", mtime: int = 1) -> Row:
    return Row(path, 1, sha, status, "", "original/x.jpg", 1, 2, 3, "s", mtime)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "originals 원본"
    for name in ("b.jpg", "a.PNG", "deeper/c.webp", ".hidden.jpg", "notes.txt"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode())
    return made


def test_pictures_are_listed_in_plain_order_of_their_names_without_hidden_ones(
    folder: Path,
) -> None:
    assert [p.relative_to(folder).as_posix() for p in list_images(folder)] == [
        "a.PNG",
        "b.jpg",
        "deeper/c.webp",
    ]
    assert list_images(folder / "missing") == []


def test_the_version_of_a_set_depends_on_the_content_of_its_usable_files_only(
    tmp_path: Path,
) -> None:
    rows = [row("x/1.jpg"), row("x/2.jpg", "b"), row("x/3.jpg", status="unusable")]
    version = manifest_version(manifests.table_of(rows))
    assert version == manifest_version(
        manifests.table_of([row("x/2.jpg", "b", mtime=9), row("x/1.jpg", mtime=9)])
    )
    assert version != manifest_version(
        manifests.table_of([row("x/1.jpg", "b"), row("x/2.jpg", "a")])
    )
    path = tmp_path / "manifests" / "m.parquet"
    manifests.write_manifest(path, manifests.table_of(rows), "made so")
    assert list(pd.read_parquet(path).columns[:5]) == ["path", "size", "sha256", "status", "reason"]
    assert manifest_version(manifests.read_manifest(path)) == version
    assert manifests.manifest_rows(path, "made so") == rows
    assert manifests.manifest_rows(path, "made otherwise") == []
    path.write_bytes(b"damaged")
    assert manifests.manifest_rows(path, "made so") == []


def test_the_version_of_a_folder_depends_on_names_and_contents_only(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.sqlite"
    first = folder_version(folder, cache)
    assert (first.files, first.bytes) == (3, len("b.jpg" + "a.PNG" + "deeper/c.webp"))
    os.utime(folder / "b.jpg", ns=(5, 5))
    (folder / "notes.txt").write_text("changed")
    assert folder_version(folder, cache) == first
    (folder / "b.jpg").write_bytes(b"other")
    second = folder_version(folder, cache)
    assert second.hash != first.hash
    (folder / "b.jpg").rename(folder / "z.jpg")
    assert folder_version(folder, cache).hash not in (first.hash, second.hash)


def test_missing_and_empty_folders_have_one_version_and_no_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = folder_version(tmp_path / "missing", tmp_path / "cache.sqlite")
    assert missing == folder_version(tmp_path / "empty", tmp_path / "cache.sqlite")
    assert missing.files == 0


def test_files_are_read_again_only_when_touched_or_verified(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache.sqlite"
    read: list[str] = []
    hash_of = hashing.file_sha256
    monkeypatch.setattr(hashing, "file_sha256", lambda p: (read.append(p.name), hash_of(p))[1])
    folder_version(folder, cache)
    assert sorted(read) == ["a.PNG", "b.jpg", "c.webp"]
    read.clear()
    folder_version(folder, cache)
    assert read == []
    os.utime(folder / "b.jpg", ns=(5, 5))
    folder_version(folder, cache)
    assert read == ["b.jpg"]
    read.clear()
    folder_version(folder, cache, verify=True)
    assert len(read) == 3


def test_verifying_finds_a_change_that_left_size_and_times_equal(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.sqlite"
    before = folder_version(folder, cache)
    stat = (folder / "b.jpg").stat()
    with (folder / "b.jpg").open("r+b") as f:
        f.write(b"B")
    os.utime(folder / "b.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert folder_version(folder, cache) == before
    verified = folder_version(folder, cache, verify=True)
    assert verified != before
    assert folder_version(folder, cache) == verified


def test_names_that_are_not_utf8_have_a_version_too(folder: Path, tmp_path: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff.jpg", "wb") as f:
        f.write(b"x")
    assert folder_version(folder, tmp_path / "c.sqlite") == folder_version(
        folder, tmp_path / "c.sqlite"
    )


def test_a_damaged_cache_is_replaced(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    before = folder_version(folder, cache)
    cache.write_bytes(b"this is no database" * 100)
    assert folder_version(folder, cache) == before
    assert sqlite3.connect(cache).execute("SELECT COUNT(*) FROM files").fetchone() == (3,)


def test_several_users_of_one_cache_agree(folder: Path, tmp_path: Path) -> None:
    for i in range(50):
        (folder / f"{i}.jpg").write_bytes(bytes([i]))
    found: list[hashing.FolderVersion] = []
    threads = [
        threading.Thread(target=lambda: found.append(folder_version(folder, tmp_path / "c.sqlite")))
        for _ in range(6)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 6
    assert len(set(found)) == 1
