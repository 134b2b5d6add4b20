"""Manifests: a Parquet table per processed set with a row for every original, including unusable
ones, and for every other file of their folder.

Columns of the contract: ``path`` (relative to the root; for an unusable original the path that its
picture would have, for a file that is not read as a picture its own path), ``size`` and ``sha256``
of the file at ``path``, ``status`` and ``reason``. The further columns record what a later run
needs to redo only what changed. While a set is being made, finished rows are appended to a journal
of JSON lines, which remains if the run is killed."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gaip3_pipeline.tables.files import writing
from gaip3_pipeline.tables.hashing import content_version

OK, NOTED, UNUSABLE = "ok", "ok_with_note", "unusable"


@dataclass(frozen=True)
class Row:
    """One original. The fields ``source*`` describe the file that was read; ``mtime_ns`` is that of
    the file at ``path``."""

    path: str
    size: int
    sha256: str
    status: str
    reason: str
    source: str
    source_size: int
    source_mtime_ns: int
    source_inode: int
    source_sha256: str
    mtime_ns: int

    @property
    def usable(self) -> bool:
        return self.status != UNUSABLE

    @classmethod
    def of_unusable(cls, path: str, source: str, reason: str) -> "Row":
        """The row of an original, or of another file, that was not read."""
        return cls(path, 0, "", UNUSABLE, reason, source, 0, 0, 0, "", 0)


_SCHEMA = pa.schema([(f.name, pa.int64() if f.type is int else pa.string()) for f in fields(Row)])


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """``rows`` as a table with the columns of :class:`Row`."""
    return pa.Table.from_pylist([asdict(r) for r in rows], schema=_SCHEMA).to_pandas()


def write_manifest(path: Path, table: pd.DataFrame, fingerprint: str = "") -> pd.DataFrame:
    """Write ``table`` (the contract's columns and any others) to the Parquet file ``path``, with
    the ``fingerprint`` of the settings that made it."""
    written = pa.Table.from_pandas(table, preserve_index=False)
    with writing(path) as temporary:
        pq.write_table(
            written.replace_schema_metadata(
                {**(written.schema.metadata or {}), "fingerprint": fingerprint}
            ),
            temporary,
        )
    return table


def read_manifest(path: Path) -> pd.DataFrame:
    """The manifest at ``path``, a row per original."""
    return pd.read_parquet(path)


def usable_paths(path: Path) -> list[str]:
    """The paths of the usable pictures in the manifest at ``path``; none if there is no
    manifest."""
    if not path.exists():
        return []
    manifest = read_manifest(path)
    return list(manifest["path"][manifest["status"] != UNUSABLE])


def manifest_rows(path: Path, fingerprint: str) -> list[Row]:
    """The rows of the manifest at ``path``; none if it is missing, damaged or was made under
    another ``fingerprint``."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return []
    if (table.schema.metadata or {}).get(
        b"fingerprint"
    ) != fingerprint.encode() or table.schema.names != _SCHEMA.names:
        return []
    return [Row(**r) for r in table.to_pylist()]


def manifest_version(manifest: pd.DataFrame) -> str:
    """sha256 over sorted (path, size, sha256) of the usable rows: it depends on the content of the
    set's files, not on their times."""
    usable = manifest[manifest["status"] != UNUSABLE]
    return content_version(zip(usable["path"], usable["size"], usable["sha256"], strict=True))


class Journal:
    """Rows finished since the last manifest, one JSON line each; a torn last line is ignored on
    reading."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self._file: TextIO | None = None

    def rows(self) -> Iterator[Row]:
        """The rows of a run that was killed, if it ran under the same fingerprint."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines):
                try:
                    entry: Any = json.loads(line)
                    row = None if number == 0 else Row(**entry)
                except (ValueError, TypeError):
                    continue
                if number == 0 and entry != {"fingerprint": self.fingerprint}:
                    return
                if row is not None:
                    yield row

    def append(self, row: Row) -> None:
        """Add a row; it is not lost if the process is killed."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            going_on = any(True for _ in self.rows())
            self._file = self.path.open("a" if going_on else "w", encoding="utf-8")
            # the line break ends a torn line
            self._file.write(
                "\n" if going_on else json.dumps({"fingerprint": self.fingerprint}) + "\n"
            )
        self._file.write(json.dumps(asdict(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Remove the journal once the manifest holds its rows."""
        self.close()
        self.path.unlink(missing_ok=True)
