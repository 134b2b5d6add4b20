"""SQLite files of a data root: their URLs, who has locked one, and messages for their errors."""

import fcntl
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

PATIENCE_SECONDS = 10  # a refresh or the UI holds a lock for milliseconds
# Bytes that SQLite locks, in the database or in its -shm file: the beginning and the number of
# bytes (https://www.sqlite.org/fileformat2.html#the_lock_byte_page, https://www.sqlite.org/walformat.html)
_LOCKS = (("", 0x40000000, 512), ("-shm", 120, 1))
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux

# What SQLite says, what it means, and the remedy
_MEANINGS = (
    ("database is locked", "is locked", "wait for the process that writes to it, or end it"),
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
    """The id of another process that has locked ``path`` for writing; None if there is none. Writes
    nothing and takes no lock.

    Must not be called while this process has the database open: POSIX drops the locks of a process
    on a file when the process closes any of its descriptors."""
    for suffix, start, length in _LOCKS:
        try:
            with Path(f"{path}{suffix}").open("rb") as file:
                asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
                kind, _, _, _, holder = struct.unpack(
                    _FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked)
                )
        except OSError:
            continue
        if kind != fcntl.F_UNLCK:
            return holder
    return None


def wait_until_free(paths: Iterable[Path]) -> None:
    """Wait until no other process has one of ``paths`` locked for writing. Raises
    :class:`DatabaseError` after ten seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for path in paths:
        while (holder := lock_holder(path)) is not None:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"{path} is locked by process {holder}: wait for it or end it, then run the"
                    " same command again"
                )
            time.sleep(0.1)


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
    what = "" if place.suffix == ".db" else "a database in "
    for said, meaning, remedy in _MEANINGS:
        if said in error:
            return f"{what}{place} {meaning}: {remedy}, then run the same command again"
    return None
