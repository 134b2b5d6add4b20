"""SQLite files of a data root: their URLs, who has locked one, and messages for their errors."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

PATIENCE_SECONDS = 10  # a refresh or the UI holds a lock for milliseconds
# The first and the last byte that a writer locks, in the database or in its -shm file
# (https://www.sqlite.org/fileformat2.html#the_lock_byte_page, https://www.sqlite.org/walformat.html)
_LOCKS = (("", 0x40000000, 0x400001FF), ("-shm", 120, 120))

SUFFIXES = (".db", ".sqlite")
_LOCKED = "database is locked"

# What SQLite says, what it means, and the remedy
_MEANINGS = (
    (_LOCKED, "is locked", "wait for the process that writes to it, or end it"),
    ("disk is full", "cannot be written, its disk is full", "free space on it"),
    ("disk I/O error", "cannot be read or written", "see that its disk is healthy and not full"),
    ("readonly database", "is read-only", "give yourself the right to write to it"),
    ("unable to open", "cannot be opened", "see that its folder exists and can be written"),
    ("malformed", "is damaged", "restore it from a backup, or move it away"),
    ("not a database", "is damaged", "restore it from a backup, or move it away"),
)


class DatabaseError(RuntimeError):
    """A database cannot be used; the message is one line with its file and the remedy."""


def sqlite_url(path: Path | str, read_only: bool = False) -> str:
    """The SQLAlchemy URL of a SQLite file, in which every legal file name keeps its meaning.

    With ``read_only`` nothing is written, not even the files that SQLite keeps beside a
    database. The driver is named, since MLflow takes what follows ``sqlite:///`` for an unescaped
    path and would create its folders."""
    from sqlalchemy.engine import URL

    if not read_only:
        return URL.create("sqlite+pysqlite", database=str(path)).render_as_string(False)
    uri, _, query = read_only_uri(Path(path)).partition("?")
    options = dict(option.split("=") for option in query.split("&"))
    url = URL.create("sqlite+pysqlite", database=uri, query=options | {"uri": "true"})
    return url.render_as_string(False)


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for a URL of another kind."""
    from sqlalchemy.engine import make_url

    if not url.startswith("sqlite"):
        return None
    name = make_url(url).database
    return Path(name) if name else None


def read_only_uri(path: Path) -> str:
    """The URI of SQLite that opens ``path`` without writing.

    ``immutable`` keeps SQLite from creating files beside the database. It also ignores the
    write-ahead log, so it is left out while a process writes one; the files then exist."""
    log = Path(f"{path}-wal")
    immutable = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return f"file:{quote(str(path.absolute()))}?mode=ro{immutable}"


def lock_holder(path: Path) -> int | None:
    """The id of a process that has locked ``path`` for writing; None if there is none. Takes no
    lock and writes nothing.

    The kernel's list is read, since opening and closing the file would drop the locks that this
    process itself has on it (POSIX)."""
    ranges = {}
    for suffix, first, last in _LOCKS:
        with suppress(OSError):
            stat = os.stat(f"{path}{suffix}")
            device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
            ranges[f"{device}:{stat.st_ino}"] = first, last
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: POSIX  ADVISORY  WRITE 4711 fd:01:1234567 1073741825 1073741825
            words = line.split()  # one more, "->", where a process waits for the lock
            if (
                len(words) == 8
                and (words[1], words[3]) == ("POSIX", "WRITE")
                and words[5] in ranges
            ):
                first, last = ranges[words[5]]
                end = float("inf") if words[7] == "EOF" else int(words[7])
                if int(words[6]) <= last and end >= first:
                    return int(words[4])
    return None


def check_writable(paths: Iterable[Path]) -> None:
    """Raises :class:`DatabaseError` if one of the databases ``paths`` that exist is locked by
    another process for ten seconds, or cannot be written."""
    for path in filter(Path.exists, paths):
        try:
            uri = f"{path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS)) as store:
                store.execute("BEGIN IMMEDIATE")
                store.rollback()
        except sqlite3.Error as e:
            raise DatabaseError(explain(e, path) or f"{path}: {e}") from e


def check_history(runs: Path, events: Path) -> None:
    """Raises :class:`DatabaseError` if Dagster's database ``events`` is an empty file beside one of
    ``runs``, as an interrupted copy leaves it: SQLite would take it for a new one."""
    with suppress(FileNotFoundError):
        if runs.stat().st_size and not events.stat().st_size:
            raise DatabaseError(
                f"{events} is empty: restore it from a backup, or delete it to start a new history"
            )


def explain(error: BaseException | str, place: Path) -> str | None:
    """One line for an error of SQLite, which may be wrapped or given as text; None for other
    errors. ``place`` is the database, or the folder of the databases."""
    while isinstance(error, BaseException):
        text = f"{type(error).__module__}.{type(error).__name__}: {error}"
        if "sqlite3." in text or not (error.__cause__ or error.__context__):
            error = text
        else:
            error = error.__cause__ or error.__context__ or text
    if "sqlite3." not in error:
        return None
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.suffix in SUFFIXES)
        locked = [p for p in files if lock_holder(p)]
        where = str(locked[0]) if locked else f"a database in {place}"
    else:
        where, locked = str(place), [place]
    for said, meaning, remedy in _MEANINGS:
        if said in error:
            holder = lock_holder(locked[0]) if said == _LOCKED and locked else None
            by = f" by process {holder}" if holder else ""
            return f"{where} {meaning}{by}: {remedy}, then run the same command again"
    return None
