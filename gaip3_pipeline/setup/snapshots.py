"""``gaip3 snapshot``: the whole state of a root under a name, to compare with and to go back to.

A snapshot is a table of files with their hashes. Their contents lie in ``.gaip3/snapshots/files/``,
each once, however many snapshots have it: hard links where the file system allows them, copies of
what people and databases write in place. The snapshot's own file, ``NAME.json``, is written last,
so a snapshot is there whole or not at all."""

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.dagster_home import dagster_store, mlflow_store
from gaip3_pipeline.layout import OWN_FOLDERS, DataRoot
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.databases import SUFFIXES
from gaip3_pipeline.tables.files import (
    TEMPORARY,
    link_or_copy,
    sync_file,
    sync_folder,
    temporary_folder,
    write_bytes_atomically,
    write_text_atomically,
    writing,
)
from gaip3_pipeline.tables.hashing import Hashes, content_version, file_sha256
from gaip3_pipeline.tables.names import nfc
from gaip3_pipeline.web import servers

FORMAT = 1
PHOTOGRAPH, SOURCE, MADE, STATE = "photograph", "source", "made", "state"
COLUMNS = ("path", "size", "sha256", "kind")
_NAME = re.compile(r"\w[\w.-]{0,59}")
_SETTINGS = "gaip3.toml"
Done = Callable[[int, int], None]


class SnapshotError(ValueError):
    """A snapshot cannot be made, read or restored; the message is one line with the remedy."""


@dataclass(frozen=True)
class Snapshot:
    """``created``: ISO 8601, UTC. ``content``: the hash of photographs, labels, curation and
    settings, of which everything else is made. ``manifest``: the hash of its table of files.
    ``complete``: whether it has the pictures."""

    name: str
    created: str
    content: str
    manifest: str
    files: int
    bytes: int
    complete: bool = True


@dataclass(frozen=True)
class Difference:
    """What the second of two snapshots has that the first has not: photographs by path, labels as
    ``attribute, gender, stem, before, after``, settings as ``setting: (before, after)``."""

    added: list[str]
    dropped: list[str]
    replaced: list[str]
    labels: pd.DataFrame
    settings: dict[str, tuple[Any, Any]]


def take(root: DataRoot, name: str, done: Done | None = None) -> Snapshot:
    """Make the snapshot ``name`` of ``root``; ``done(n, of)`` is called with the files kept so far.

    Raises :class:`SnapshotError` if there is one of that name, or the history of the root is in
    Postgres, and ``RefreshError`` while a refresh runs."""
    _check_name(name)
    if root.snapshot(name).exists():
        raise SnapshotError(f"there is a snapshot {name} already: choose another name")
    _check_stores(root)
    with only_one(root):
        root.snapshots.mkdir(parents=True, exist_ok=True)
        kept = Files(root)
        found = list(contents(root))
        with Hashes(root.hash_cache) as hashes, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            keep = [pool.submit(_keep, kept, hashes, root, path, kind) for path, kind in found]
            rows = []
            try:
                for one in keep:
                    rows.append(one.result())
                    if done:
                        done(len(rows), len(found))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("path", ignore_index=True)
        manifest = kept.add_table(table)
        kept.sync()
        sources = table[table.kind.isin((PHOTOGRAPH, SOURCE))]
        made = Snapshot(
            name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            content_version(zip(sources.path, sources["size"], sources.sha256, strict=True)),
            manifest,
            len(table),
            int(table["size"].sum()),
        )
        write_pointer(root, made)
    return made


def snapshots(root: DataRoot) -> list[Snapshot]:
    """The snapshots of ``root``, the oldest first."""
    names = [f.stem for f in root.snapshots.glob("*.json")]
    return sorted((find(root, name) for name in names), key=lambda s: (s.created, s.name))


def find(root: DataRoot, name: str) -> Snapshot:
    """The snapshot ``name``. Raises :class:`SnapshotError` if there is none."""
    _check_name(name)
    try:
        text = root.snapshot(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(sorted(f.stem for f in root.snapshots.glob("*.json")))
        raise SnapshotError(
            f"{root.path} has no snapshot {name}: "
            + (f"it has {known}" if known else "gaip3 snapshot NAME makes one")
        ) from None
    return read_pointer(name, text)


def read_pointer(name: str, text: str) -> Snapshot:
    """The snapshot ``name`` from the text of its file. Raises :class:`SnapshotError`."""
    try:
        about = json.loads(text)
        known = about.pop("format") == FORMAT
        snapshot = Snapshot(**about) if known else None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise SnapshotError(f"the snapshot {name} is damaged: {e}") from e
    if snapshot is None:
        raise SnapshotError(f"the snapshot {name} is of a newer version of gaip3: update it")
    return snapshot


def pointer_of(snapshot: Snapshot) -> str:
    """The text of the file of a snapshot."""
    return json.dumps({"format": FORMAT, **vars(snapshot)}, indent=1) + "\n"


def write_pointer(root: DataRoot, snapshot: Snapshot) -> None:
    """Write the file of a snapshot, by which it is there."""
    write_text_atomically(root.snapshot(snapshot.name), pointer_of(snapshot))


def files_of(root: DataRoot, snapshot: Snapshot) -> pd.DataFrame:
    """The files of ``snapshot``: ``path``, ``size``, ``sha256`` and ``kind`` (photograph, source,
    made, state). Raises :class:`SnapshotError` if its table is damaged."""
    file = Files(root).path(snapshot.manifest)
    if not file.exists() or file_sha256(file) != snapshot.manifest:
        raise SnapshotError(f"the snapshot {snapshot.name} is damaged: {file} is gone or changed")
    return pd.read_parquet(file)


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of ``table``, with its columns as attributes."""
    yield from table.itertuples()


def compare(root: DataRoot, first: str, second: str) -> Difference:
    """What changed between two snapshots of ``root``."""
    tables = [files_of(root, find(root, name)) for name in (first, second)]
    before, after = (t[t.kind == PHOTOGRAPH].set_index("path").sha256 for t in tables)
    both = before.index.intersection(after.index)
    shas, files = [t.set_index("path").sha256 for t in tables], Files(root)
    labels = [
        (attribute, *key, *values)
        for attribute in ATTRIBUTES
        for key, values in _changes(*(_labels(root, files, s, attribute) for s in shas)).items()
    ]
    return Difference(
        sorted(after.index.difference(before.index)),
        sorted(before.index.difference(after.index)),
        sorted(both[before[both] != after[both]]),
        pd.DataFrame(labels, columns=["attribute", "gender", "stem", "before", "after"]),
        _changes(*(_flat(_text(files, s.get(_SETTINGS))) for s in shas)),
    )


def _changes(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    """What differs, ``key: (before, after)``, None where there is none."""
    values = {key: (before.get(key), after.get(key)) for key in sorted(before | after)}
    return {key: of for key, of in values.items() if of[0] != of[1]}


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
            present = {path: (hashes.of(_place(root, path)), kind) for path, kind in contents(root)}
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
            target = _place(root, row.path)
            files.put(row.sha256, target, linked=row.kind in (PHOTOGRAPH, MADE))
            if row.kind == STATE and row.path.endswith(SUFFIXES):
                for log in ("-wal", "-shm"):  # of the database that was replaced
                    Path(f"{target}{log}").unlink(missing_ok=True)
            if done:
                done(i + 1, len(lacking))
        for path in gone:
            _place(root, path).unlink(missing_ok=True)
        for folder in {_place(root, path).parent for path in [*(r.path for r in lacking), *gone]}:
            sync_folder(folder)
    return len(lacking), len(gone)


def described(difference: Difference) -> str:
    """The difference as lines for a terminal."""
    lines = [
        f"{kind} {path}"
        for kind, paths in (
            ("added   ", difference.added),
            ("dropped ", difference.dropped),
            ("replaced", difference.replaced),
        )
        for path in paths
    ]
    for attribute, part in difference.labels.groupby("attribute", sort=False):
        lines.append(f"{attribute}: {len(part):,} labels")
        lines += [
            f"  {row.gender}/{row.stem}  {_value(row.before)} → {_value(row.after)}"
            for row in rows_of(part)
        ]
    lines += [f"{k}: {a} → {b}" for k, (a, b) in difference.settings.items()]
    return "\n".join(lines) or "no difference in photographs, labels and settings"


def _value(label: float | None) -> str:
    return "none" if label is None or pd.isna(label) else f"{label:g}"


class Files:
    """The contents of all snapshots of a root, each once, by its hash."""

    def __init__(self, root: DataRoot) -> None:
        self._folder = root.snapshot_files

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def add(self, file: Path, sha256: str, copy: bool) -> str:
        """Keep the content of ``file``, as a hard link unless ``copy``; returns its hash."""
        if not self.path(sha256).exists():
            if not copy:
                sync_file(file)  # a photograph that was put there a moment ago
            _put(file, self.path(sha256), linked=not copy)
        return sha256

    def sync(self) -> None:
        """Flush the names of all contents to disk."""
        for folder in self._folder.iterdir():
            sync_folder(folder)

    def add_table(self, table: pd.DataFrame) -> str:
        """Keep ``table`` as Parquet; returns its hash."""
        data = io.BytesIO()
        table.to_parquet(data, index=False)
        sha256 = hashlib.sha256(data.getvalue()).hexdigest()
        write_bytes_atomically(self.path(sha256), data.getvalue())
        return sha256

    def check(self, sha256: str, path: str) -> None:
        """Raises :class:`SnapshotError` if the content of ``path`` is gone or has changed, as when
        a photograph was edited in place."""
        file = self.path(sha256)
        if not file.exists() or file_sha256(file) != sha256:
            raise SnapshotError(f"{path} of the snapshot is gone or changed: {file}")

    def put(self, sha256: str, target: Path, linked: bool) -> None:
        """Make ``target`` a file of this content, whole or not at all."""
        _put(self.path(sha256), target, linked)


def _put(source: Path, target: Path, linked: bool) -> None:
    if linked:
        link_or_copy(source, target)
        return
    with writing(target) as temporary:
        shutil.copy2(source, temporary)


def _keep(files: Files, hashes: Hashes, root: DataRoot, path: str, kind: str) -> tuple[Any, ...]:
    """Keep the file at ``path``; returns its row of the table."""
    file = _place(root, path)
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
    if root.settings_file.exists():
        yield _SETTINGS, SOURCE
    photographs, checked = (f"{root.relative(p)}/" for p in (root.originals, root.labels_checked))
    written = (f"{root.relative(root.labels)}/", root.relative(root.dropped))
    for folder in OWN_FOLDERS:
        for path in _below(root.path / folder, root.path):
            if path.startswith(photographs):
                yield path, PHOTOGRAPH
            else:
                by_people = path.startswith(written) and not path.startswith(checked)
                yield path, SOURCE if by_people else MADE
    # the rest of the state is locks, caches and logs of processes
    history = (root.dagster_storage, root.mlflow_artifacts, root.refreshes, root.mlflow_db)
    for place in (*history, root.identity):
        for path in _below(place, root.state.parent):
            yield path, STATE


def _place(root: DataRoot, path: str) -> Path:
    """Where the file with this path of a snapshot belongs: settings and state of the root ``data/``
    are in the repository."""
    if path == _SETTINGS:
        return root.settings_file
    return (root.state.parent if path.startswith(".gaip3/") else root.path) / path


def _below(place: Path, root: Path) -> Iterator[str]:
    if place.is_file():
        yield place.relative_to(root).as_posix()
    for folder, _, names in os.walk(place):
        for name in names:
            if not name.startswith(TEMPORARY) and not name.endswith(("-wal", "-shm", "-journal")):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SnapshotError(
            f"{name!r} is no name of a snapshot: use letters, digits, - and _, at most 60"
        )


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


def _text(files: Files, sha256: str | None) -> str:
    return files.path(sha256).read_text(encoding="utf-8") if sha256 else ""


def _labels(
    root: DataRoot, files: Files, shas: pd.Series, attribute: str
) -> dict[tuple[str, str], float]:
    sha256 = shas.get(root.relative(root.hand_labels(attribute)))
    if sha256 is None:
        return {}
    table = read_labels(files.path(sha256)).table
    return {(r.gender, nfc(r.stem)): r.value for r in rows_of(table)}


def _flat(text: str, prefix: str = "") -> dict[str, Any]:
    def pairs(table: dict[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from pairs(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(pairs(tomllib.loads(text), prefix))
