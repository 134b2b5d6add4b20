"""Snapshots of a root: their files, and what differs between two of them.

A snapshot is a table of files with their hashes. Their contents lie in ``.gaip3/snapshots/files/``,
each once, however many snapshots have it. The snapshot's own file, ``NAME.json``, is written last,
so a snapshot is there whole or not at all."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import OWN_FOLDERS, DataRoot
from gaip3_pipeline.tables.content import PHOTOGRAPH, SETTINGS, SOURCE
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.files import (
    link_or_copy,
    sync_file,
    sync_folder,
    write_bytes_atomically,
    write_text_atomically,
    writing,
)
from gaip3_pipeline.tables.hashing import content_version, file_sha256
from gaip3_pipeline.tables.names import nfc

FORMAT = 1
MADE, STATE = "made", "state"  # further kinds of files
COLUMNS = ("path", "size", "sha256", "kind")
_NAME, _HASH = re.compile(r"\w[\w.-]{0,59}"), re.compile("[0-9a-f]{64}")


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


def check_name(name: str) -> None:
    """Raises :class:`SnapshotError` if a snapshot cannot have this name."""
    if not _NAME.fullmatch(name):
        raise SnapshotError(
            f"{name!r} is no name of a snapshot: use letters, digits, - and _, at most 60"
        )


def content_of(files: pd.DataFrame) -> str:
    """The content hash of a snapshot with these ``files``: that of its photographs, labels,
    curation and settings."""
    sources = files[files.kind.isin((PHOTOGRAPH, SOURCE))]
    return content_version(zip(sources.path, sources["size"], sources.sha256, strict=True))


def changed_snapshot(snapshot: Snapshot, files: pd.DataFrame, manifest: str) -> Snapshot:
    """``snapshot`` with other ``files``, whose table has the hash ``manifest``."""
    total = int(files["size"].sum())
    if not files.kind.eq(PHOTOGRAPH).any():  # it was pushed without them, and is still the same
        return replace(snapshot, manifest=manifest, files=len(files), bytes=total)
    content = content_of(files)
    return replace(snapshot, content=content, manifest=manifest, files=len(files), bytes=total)


def snapshots(root: DataRoot) -> list[Snapshot]:
    """The snapshots of ``root``, the oldest first."""
    names = [f.stem for f in root.snapshots.glob("*.json")]
    return sorted((find(root, name) for name in names), key=lambda s: (s.created, s.name))


def find(root: DataRoot, name: str) -> Snapshot:
    """The snapshot ``name``. Raises :class:`SnapshotError` if there is none."""
    check_name(name)
    try:
        text = root.snapshot(name).read_bytes()
    except FileNotFoundError:
        known = ", ".join(sorted(f.stem for f in root.snapshots.glob("*.json")))
        raise SnapshotError(
            f"{root.path} has no snapshot {name}: "
            + (f"it has {known}" if known else "gaip3 snapshot NAME makes one")
        ) from None
    return read_pointer(name, text)


def read_pointer(name: str, text: bytes) -> Snapshot:
    """The snapshot ``name`` from the text of its file, which may come from elsewhere. Raises
    :class:`SnapshotError`."""
    check_name(name)
    try:
        about = json.loads(text)
        known = about.pop("format") == FORMAT
        snapshot = Snapshot(**about) if known else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise SnapshotError(f"the snapshot {name} is damaged: {e}") from e
    if snapshot is None:
        raise SnapshotError(f"the snapshot {name} is of a newer version of gaip3: update it")
    for field in dataclasses.fields(Snapshot):
        value = getattr(snapshot, field.name)
        sound = type(value) is field.type and (field.type is not int or value >= 0)
        if field.name in ("content", "manifest"):
            sound = sound and _HASH.fullmatch(value) is not None
        if not sound or snapshot.name != name:
            raise SnapshotError(f"the snapshot {name} is damaged: its {field.name} is {value!r}")
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
    return read_files(root, file)


def read_files(root: DataRoot, file: Path, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """The table of a snapshot's files, with at least :data:`COLUMNS` and ``more``. It may come
    from elsewhere: every path is checked to lie where ``root`` has files of a snapshot. Raises
    :class:`SnapshotError`."""
    try:
        table = pd.read_parquet(file)
    except (ArrowException, OSError, ValueError) as e:
        raise SnapshotError(f"{file}: not a table of a snapshot's files: {e}") from e
    inside = _inside(root)
    checks = {
        "path": lambda v: isinstance(v, str) and inside.fullmatch(v),
        "kind": lambda v: v in (PHOTOGRAPH, SOURCE, MADE, STATE),
        **dict.fromkeys(("sha256", "shard"), lambda v: isinstance(v, str) and _HASH.fullmatch(v)),
        **dict.fromkeys(("size", "offset"), lambda v: isinstance(v, int) and v >= 0),
    }
    for column in (*COLUMNS, *more):
        if column not in table:
            raise SnapshotError(f"{file}: the table of a snapshot has no column {column}")
        wrong = next((v for v in table[column].tolist() if not checks[column](v)), None)
        if wrong is not None or table[column].hasnans:
            raise SnapshotError(f"{file}: a snapshot cannot have the {column} {wrong!r}")
    if not table.path.is_unique:
        raise SnapshotError(f"{file}: the table of a snapshot has a path twice")
    return table


def history(root: DataRoot) -> tuple[Path, ...]:
    """The files and folders of the state that a snapshot has; the rest of it is locks, caches and
    logs of processes."""
    stores = (root.dagster_storage, root.mlflow_artifacts, root.refreshes, root.mlflow_db)
    return (*stores, root.identity)


def _inside(root: DataRoot) -> re.Pattern[str]:
    """The paths that the files of a snapshot of ``root`` may have."""
    state = [place.relative_to(root.state.parent).as_posix() for place in history(root)]
    first = "|".join(map(re.escape, (*OWN_FOLDERS, *state)))
    return re.compile(rf"{re.escape(SETTINGS)}|(?:{first})(?:/(?!\.\.?(?:/|$))[^/\0]+)*")


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
        _changes(*(_flat(_text(files, s.get(SETTINGS))) for s in shas)),
    )


def _changes(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    """What differs, ``key: (before, after)``, None where there is none."""
    values = {key: (before.get(key), after.get(key)) for key in sorted(before | after)}
    return {key: of for key, of in values.items() if of[0] != of[1]}


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
        for folder in self._folder.glob("*"):
            sync_folder(folder)

    def add_table(self, table: pd.DataFrame) -> str:
        """Keep ``table`` as Parquet; returns its hash."""
        data = io.BytesIO()
        table.to_parquet(data, index=False)
        sha256 = hashlib.sha256(data.getvalue()).hexdigest()
        write_bytes_atomically(self.path(sha256), data.getvalue())
        return sha256

    def check(self, sha256: str, path: str) -> Path:
        """The file with the content of ``path``. Raises :class:`SnapshotError` if it is gone or has
        changed, as when a photograph was edited in place."""
        file = self.path(sha256)
        if not file.exists() or file_sha256(file) != sha256:
            raise SnapshotError(f"{path} of the snapshot is gone or changed: {file}")
        return file

    def keep_only(self, wanted: Collection[str]) -> int:
        """Delete every content but these; returns how many there were."""
        gone = [p for p in self._folder.rglob("*") if p.is_file() and p.name not in wanted]
        for file in gone:
            file.unlink()
        return len(gone)

    def put(self, sha256: str, target: Path, linked: bool) -> None:
        """Make ``target`` a file of this content, whole or not at all."""
        _put(self.path(sha256), target, linked)


def _put(source: Path, target: Path, linked: bool) -> None:
    if linked:
        link_or_copy(source, target)
        return
    with writing(target) as temporary:
        shutil.copy2(source, temporary)


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
