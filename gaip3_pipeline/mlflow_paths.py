"""Where the artefacts of MLflow are after their root was moved or copied.

MLflow stores absolute paths in its database. The folder of the pipeline's experiment says where the
root was when they were written. A command that writes rewrites them (:func:`follow_root`), one that
only reads resolves them (:func:`place_of`)."""

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gaip3_pipeline.tables.databases import read_only_uri
from gaip3_pipeline.tables.files import temporary_folder


@dataclass(frozen=True)
class Followed:
    """A move of a root that its MLflow database now follows."""

    before: Path
    now: Path
    paths: int
    runs: int  # runs whose artefacts were copied from the place before

    def __str__(self) -> str:
        copied = f", and the files of {self.runs} runs were copied from there" if self.runs else ""
        return (
            f"The data root moved from {self.before} to {self.now}: {self.paths} paths of MLflow"
            f" now lead here{copied}."
        )


def local_path(uri: str) -> Path | None:
    """The path that a ``file:`` URI or a plain path names; None for a URI of another kind."""
    if uri.startswith("/"):
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def place_of(uri: str, recorded: str, artifacts: Path | None) -> Path:
    """The folder that ``uri`` names, for an experiment with the artefact folder ``recorded`` whose
    root now has it at ``artifacts`` (None: the store is not a root's own)."""
    stored, before = local_path(uri), local_path(recorded)
    if stored is None:
        return Path(uri)
    if artifacts and before and stored.is_relative_to(before):
        here = artifacts / stored.relative_to(before)
        if here.exists():
            return here
    return stored


def follow_root(database: Path, experiment: str, artifacts: Path) -> Followed | None:
    """Rewrite the paths in ``database`` of a root that was moved or copied, in one transaction;
    None if they lead to the root already.

    ``experiment`` is the name of the pipeline's experiment, and ``artifacts`` the folder in which
    the root has its artefacts. What is not below the root's former place is left alone. Artefacts
    that exist only at the former place are copied; nothing there is changed."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as store:
        recorded = _recorded(store, experiment)
        before = local_path(recorded) if recorded else None
        if before is None or before == artifacts or _same(before, artifacts):
            return None
        now = artifacts.parents[1]
        if before.parts[-2:] == artifacts.parts[-2:]:
            place = before.parents[1]
        else:
            place, now = before, artifacts
        # both forms of a path; the stored URI shows how its writer escaped it
        depth = len(before.parts) - len(place.parts)
        prefixes = {str(place): str(now)}
        if recorded.startswith("file:"):
            prefixes[recorded.rsplit("/", depth)[0] if depth else recorded] = now.as_uri()
        store.execute("BEGIN IMMEDIATE")
        try:
            if _recorded(store, experiment) != recorded:  # another process was faster
                store.execute("ROLLBACK")
                return None
            paths = sum(_rewrite(store, old, new) for old, new in prefixes.items())
            runs = _copy_runs(store, before, artifacts)
            store.execute("COMMIT")
        except BaseException:
            if store.in_transaction:
                store.execute("ROLLBACK")
            raise
    return Followed(place, now, paths, runs)


def experiment_id(database: Path, experiment: str) -> str:
    """The id of the ``experiment`` in a root's own ``database``; "" if there is none yet, or the
    database cannot be read: the id is for a link."""
    if not database.exists():
        return ""
    with (
        suppress(sqlite3.DatabaseError),
        closing(sqlite3.connect(read_only_uri(database), uri=True)) as store,
    ):
        return _recorded(store, experiment, "experiment_id")
    return ""


def _recorded(store: sqlite3.Connection, experiment: str, column: str = "artifact_location") -> str:
    try:
        row = store.execute(
            f"SELECT {column} FROM experiments WHERE name = ?", (experiment,)
        ).fetchone()
    except sqlite3.OperationalError as e:
        if "no such table" in str(e):  # MLflow has not written its tables yet
            return ""
        raise
    return str(row[0] or "") if row else ""


def _same(before: Path, artifacts: Path) -> bool:
    """Whether both are one folder, reached by two mount points or by a link."""
    try:
        return os.path.samefile(before, artifacts)
    except OSError:
        return False


def _rewrite(store: sqlite3.Connection, old: str, new: str) -> int:
    """Replace the prefix ``old`` of every text in every table; returns the number of texts."""
    changed = 0
    tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for _, column, kind, *_ in store.execute(f"PRAGMA table_info({_quoted(table)})").fetchall():
            if not any(word in kind.upper() for word in ("CHAR", "TEXT")):
                continue
            name = _quoted(column)
            changed += store.execute(
                f"UPDATE {_quoted(table)} SET {name} = ? || substr({name}, ?)"
                f" WHERE {name} = ? OR substr({name}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            ).rowcount
    return changed


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _copy_runs(store: sqlite3.Connection, before: Path, artifacts: Path) -> int:
    """Copy the artefacts that runs of this database left at the root's former place."""
    copied = 0
    for (uri,) in store.execute("SELECT artifact_uri FROM runs").fetchall():
        here = local_path(uri or "")
        if here is None or not here.is_relative_to(artifacts) or here.exists():
            continue
        there = before / here.relative_to(artifacts)
        if not there.is_dir():
            continue
        here.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(here.parent) as folder:
            shutil.copytree(there, folder / here.name)
            (folder / here.name).rename(here)
        copied += 1
    return copied
