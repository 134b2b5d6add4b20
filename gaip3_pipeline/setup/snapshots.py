"""``gaip3 snapshot`` and ``gaip3 restore``: the whole state of a root under a name, and back to it.

Contents are kept as hard links where the file system allows them, as copies of what people and
databases write in place. What a snapshot is, and how two are compared, is in
:mod:`gaip3_pipeline.tables.snapshots`."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from gaip3_pipeline.dagster_home import dagster_store, mlflow_store
from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.layout import OWN_FOLDERS, DataRoot
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.tables.content import (
    PHOTOGRAPH,
    SETTINGS,
    SOURCE,
    content_hash,
    files_below,
    sources,
)
from gaip3_pipeline.tables.databases import SUFFIXES
from gaip3_pipeline.tables.files import sync_folder, temporary_folder
from gaip3_pipeline.tables.hashing import Hashes, file_sha256
from gaip3_pipeline.tables.snapshots import (
    COLUMNS,
    MADE,
    STATE,
    Files,
    Snapshot,
    SnapshotError,
    check_name,
    content_of,
    files_of,
    find,
    history,
    rows_of,
    snapshots,
    write_pointer,
)
from gaip3_pipeline.web import servers

Done = Callable[[int, int], None]


def take(root: DataRoot, name: str, done: Done | None = None) -> Snapshot:
    """Make the snapshot ``name`` of ``root``; ``done(n, of)`` is called with the files kept so far.

    Raises :class:`SnapshotError` if there is one of that name, or the history of the root is in
    Postgres, and ``RefreshError`` while a refresh runs."""
    check_name(name)
    if root.snapshot(name).exists():
        raise SnapshotError(f"there is a snapshot {name} already: choose another name")
    _check_stores(root)
    with only_one(root):
        root.snapshots.mkdir(parents=True, exist_ok=True)
        kept = Files(root)
        table = _kept(kept, root, done).sort_values("path", ignore_index=True)
        manifest = kept.add_table(table)
        kept.sync()
        made = Snapshot(
            name,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            content_of(table),
            manifest,
            len(table),
            int(table["size"].sum()),
        )
        write_pointer(root, made)
    return made


def take_automatically(root: DataRoot) -> Snapshot | None:
    """Make a snapshot named by date and time, unless the content of ``root`` is that of its latest
    one; raises as :func:`take`."""
    kept = snapshots(root)
    if kept and kept[-1].content == content_hash(root):
        return None
    return take(root, f"{datetime.now():%Y-%m-%d_%H-%M-%S}")


def restore(root: DataRoot, name: str, done: Done | None = None) -> tuple[int, int]:
    """Make ``root`` what it was when the snapshot ``name`` was taken; returns the numbers of files
    that were put in place and removed. Interrupted, the same call goes on.

    Raises :class:`SnapshotError` if photographs, labels or settings of now are in no snapshot, or
    a file of the snapshot is damaged; ``RefreshError`` and ``ServerError`` while a refresh or
    ``gaip3 ui`` runs. Nothing has changed then."""
    snapshot = find(root, name)
    wanted = files_of(root, snapshot)
    _check_stores(root)
    files = Files(root)
    with servers.only_one(root, {"": "gaip3 restore"}), only_one(root):
        with Hashes(root.hash_cache) as hashes:
            present = {
                path: (hashes.of(place_of(root, path)), kind) for path, kind in contents(root)
            }
        _check_nothing_is_lost(root, present)
        lacking = [
            row
            for row in rows_of(wanted)
            if row.kind == STATE or present.get(row.path, ("", ""))[0] != row.sha256
        ]
        for row in lacking:
            files.check(row.sha256, row.path)
        gone = sorted(set(present) - set(wanted.path)) if snapshot.complete else []
        for i, row in enumerate(lacking):
            target = place_of(root, row.path)
            files.put(row.sha256, target, linked=row.kind in (PHOTOGRAPH, MADE))
            if row.kind == STATE and row.path.endswith(SUFFIXES):
                for log in ("-wal", "-shm"):  # of the database that was replaced
                    Path(f"{target}{log}").unlink(missing_ok=True)
            if done:
                done(i + 1, len(lacking))
        for path in gone:
            place_of(root, path).unlink(missing_ok=True)
        for folder in {place_of(root, p).parent for p in [*(r.path for r in lacking), *gone]}:
            sync_folder(folder)
    return len(lacking), len(gone)


def _kept(files: Files, root: DataRoot, done: Done | None) -> pd.DataFrame:
    """The table of the root's files, which are kept; its rows, as much again, end with the call."""
    found, rows = list(contents(root)), []
    with (
        Hashes(root.hash_cache) as hashes,
        closing(in_order(lambda one: _keep(files, hashes, root, *one), found)) as keep,
    ):
        for row in keep:
            rows.append(row)
            if done:
                done(len(rows), len(found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _keep(files: Files, hashes: Hashes, root: DataRoot, path: str, kind: str) -> tuple[Any, ...]:
    """Keep the file at ``path``; returns its row of the table."""
    file = place_of(root, path)
    if kind in (SOURCE, STATE):
        # others may write to it meanwhile, so the copy is what is hashed
        with _copied(root, file) as copy:
            size, sha256 = copy.stat().st_size, file_sha256(copy)
            files.add(copy, sha256, copy=True)
    else:
        size, sha256 = file.stat().st_size, hashes.of(file)
        files.add(file, sha256, copy=False)
    return path, size, sha256, kind


@contextmanager
def _copied(root: DataRoot, file: Path) -> Iterator[Path]:
    """A copy of ``file``; of a SQLite database a consistent one."""
    with temporary_folder(root.snapshots) as folder:
        copy = folder / file.name
        if file.suffix in SUFFIXES:
            with (
                closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        else:
            shutil.copy2(file, copy)
        yield copy


def contents(root: DataRoot) -> Iterator[tuple[str, str]]:
    """The path and the kind of every file of ``root`` that a snapshot has."""
    own = {path: kind for path, kind, _ in sources(root)}
    yield from own.items()
    for folder in OWN_FOLDERS:
        for path, _ in files_below(root.path / folder, root.path):
            if path not in own:
                yield path, MADE
    for place in history(root):
        for path, _ in files_below(place, root.state.parent):
            yield path, STATE


def path_in_snapshot(root: DataRoot, place: Path) -> str:
    """The path that a file or folder of ``root`` has in a snapshot."""
    if place == root.settings_file:
        return SETTINGS
    top = root.state.parent if place.is_relative_to(root.state) else root.path
    return place.relative_to(top).as_posix()


def place_of(root: DataRoot, path: str) -> Path:
    """Where the file with this path of a snapshot belongs: settings and state of the root ``data/``
    are in the repository."""
    if path == SETTINGS:
        return root.settings_file
    return (root.state.parent if path.startswith(".gaip3/") else root.path) / path


def _check_stores(root: DataRoot) -> None:
    if dagster_store(root) or mlflow_store(root).in_postgres:
        raise SnapshotError(
            "the history of this root is in Postgres, which a snapshot does not hold: back it up"
            " with pg_dump"
        )


def _check_nothing_is_lost(root: DataRoot, present: dict[str, tuple[str, str]]) -> None:
    own = {sha: path for path, (sha, kind) in present.items() if kind in (PHOTOGRAPH, SOURCE)}
    known: set[str] = set()
    for snapshot in snapshots(root):
        known |= set(files_of(root, snapshot).sha256)
    lost = sorted(path for sha, path in own.items() if sha not in known)
    if lost:
        others = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        raise SnapshotError(
            f"{lost[0]}{others}: in no snapshot, and would be lost; run gaip3 snapshot NAME first"
        )
