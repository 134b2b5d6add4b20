"""Content hashes of files, folders, arrays and weights; those of pictures are cached by size,
mtime_ns and inode."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from gaip3_pipeline.tables.image_files import list_folder
from gaip3_pipeline.tables.names import nfc

MISSING = "missing"  # the version of a file that does not exist
_BATCH = 512  # files hashed between two writes to the cache; a killed run loses at most these
_KEY = tuple[int, int, int]


class FolderVersion(NamedTuple):
    """``hash`` of the names and contents of a folder's pictures and of the names of its other
    files, the number of the pictures, their total size in bytes, and the number of the others."""

    hash: str
    files: int
    bytes: int
    others: int


def file_sha256(path: Path) -> str:
    """sha256 of a file's content in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def stat_key(stat: os.stat_result) -> _KEY:
    """Size, mtime_ns and inode: while these are equal, a file is assumed to be unchanged."""
    # some file systems' inodes exceed a signed 64-bit column
    return stat.st_size, stat.st_mtime_ns, stat.st_ino & (2**63 - 1)


def content_version(files: Iterable[tuple[str, int, str]]) -> str:
    """sha256 over sorted (path, size, sha256). Paths may hold undecodable bytes as surrogates."""
    digest = hashlib.sha256()
    for path, size, sha256 in sorted(files):
        digest.update(json.dumps([path, int(size), sha256]).encode("ascii") + b"\n")
    return digest.hexdigest()


def folder_version(
    folder: Path, cache: Path, verify: bool = False, remember: bool = True
) -> FolderVersion:
    """The version of the picture files below ``folder``: sha256 over sorted (relative path, size,
    sha256). Other files count with their names, since the manifest lists them; hidden and system
    files do not (:func:`~gaip3_pipeline.tables.image_files.list_folder`).

    A file is read again only if its size, mtime_ns or inode differs from those in the SQLite file
    ``cache``, or with ``verify``. New hashes are written to ``cache``, unless ``remember`` is
    False. Several processes may share the cache. It names files relative to its own folder, so that
    it stays valid when both are moved. A missing folder has the version of an empty one. A file
    that cannot be read counts with the hash ``unreadable``."""
    folder = folder.absolute()
    below = os.fsencode(os.path.relpath(folder, cache.absolute().parent)) + b"/"
    listing = list_folder(folder)
    beginning = len(str(folder)) + 1
    known = {} if verify else _remembered(cache, below)
    entries: list[tuple[str, int, str]] = []
    unknown: list[tuple[str, bytes, _KEY]] = []
    for path in listing.pictures:
        name = below + os.fsencode(path[beginning:])
        try:
            stat = os.stat(path)
        except OSError:
            stat = None
        if stat is None or not S_ISREG(stat.st_mode):  # to read from a pipe would wait for ever
            entries.append((path[beginning:], 0, "unreadable"))
            continue
        key = stat_key(stat)
        remembered = known.get(name)
        if remembered and remembered[0] == key:
            entries.append((path[beginning:], stat.st_size, remembered[1]))
        else:
            unknown.append((path, name, key))
    todo = iter(unknown)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for batch in iter(lambda: list(islice(todo, _BATCH)), []):
            hashes = list(pool.map(_readable_sha256, (path for path, _, _ in batch)))
            if remember:
                _remember(
                    cache,
                    (
                        (name, *key, sha)
                        for (_, name, key), sha in zip(batch, hashes, strict=True)
                        if sha != "unreadable"
                    ),
                )
            entries += [
                (path[beginning:], key[0], sha)
                for (path, _, key), sha in zip(batch, hashes, strict=True)
            ]
    # Pictures are named in NFC. If an original is not, its name in NFC is part of the version, so
    # that roots of before, whose pictures have the other spelling, make them again.
    respelt = [
        (nfc(path), 0, "nfc") for path, _, _ in entries if nfc(own := os.path.basename(path)) != own
    ]
    others = [(path[beginning:], 0, "not used") for path in listing.others]
    return FolderVersion(
        content_version([*entries, *respelt, *others]),
        len(entries),
        sum(size for _, size, _ in entries),
        len(others),
    )


class Hashes:
    """sha256 of single files, remembered in the SQLite file ``cache`` like those of
    :func:`folder_version`. Used in a ``with`` block, at whose end new hashes are written. Safe to
    use from several threads."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known = _remembered(cache, b"")
        self._folders: dict[str, bytes] = {}  # as names of the cache begin
        self._new: list[tuple[bytes, int, int, int, str]] = []

    def __enter__(self) -> "Hashes":
        return self

    def __exit__(self, *_: object) -> None:
        if self._new:
            _remember(self._cache, iter(self._new))

    def of(self, path: Path) -> str:
        """The hash of the file at ``path``. Raises ``OSError`` if it cannot be read."""
        folder, name_there = os.path.split(os.path.abspath(path))
        if folder not in self._folders:
            beginning = os.path.relpath(folder, self._cache.absolute().parent)
            self._folders[folder] = b"" if beginning == "." else os.fsencode(beginning) + b"/"
        name = self._folders[folder] + os.fsencode(name_there)
        key = stat_key(os.stat(path))
        remembered = self._known.get(name)
        if remembered and remembered[0] == key:
            return remembered[1]
        sha256 = file_sha256(path)
        self._new.append((name, *key, sha256))
        return sha256


def _readable_sha256(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError:
        return "unreadable"


def _open(cache: Path) -> sqlite3.Connection:
    """Open the cache; a file that is not a database is replaced, since its content can be computed
    again."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(2):
        connection = sqlite3.connect(cache, timeout=60)
        try:
            # paths are bytes, since a file name need not be valid UTF-8
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime_ns"
                " INTEGER, inode INTEGER, sha256 TEXT)"
            )
            return connection
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError:
            connection.close()
            if attempt:
                raise
            cache.unlink(missing_ok=True)
    raise AssertionError


def _remembered(cache: Path, below: bytes) -> dict[bytes, tuple[_KEY, str]]:
    """The hashes of the names that begin with ``below``, or of all if it is empty. Writes nothing;
    of a cache that cannot be read, nothing is known."""
    if not cache.exists():
        return {}
    try:
        uri = f"{cache.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
            rows = connection.execute(
                "SELECT path, size, mtime_ns, inode, sha256 FROM files"
                + (" WHERE path >= ? AND path < ?" if below else ""),
                (below, below[:-1] + b"0") if below else (),
            )
            return {
                path: ((size, mtime_ns, inode), sha) for path, size, mtime_ns, inode, sha in rows
            }
    except sqlite3.Error:
        return {}


def _remember(cache: Path, rows: Iterator[tuple[bytes, int, int, int, str]]) -> None:
    with closing(_open(cache)) as connection, connection:
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)


def forget(cache: Path, files: Iterable[Path]) -> None:
    """Remove the names and hashes of ``files`` from the SQLite file ``cache``."""
    if not cache.exists():
        return
    folder = cache.absolute().parent
    names = [(os.fsencode(os.path.relpath(file.absolute(), folder)),) for file in files]
    with closing(_open(cache)) as connection:
        with connection:
            connection.executemany("DELETE FROM files WHERE path = ?", names)
        connection.execute("VACUUM")  # else the names stay in pages that are free


def digest(parts: Iterable[str]) -> str:
    """sha256 over strings, one per line."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.encode() + b"\n")
    return h.hexdigest()


def rows_version(rows: Iterable[Sequence[str | float]]) -> str:
    """sha256 over the sorted rows of a table: equal rows in another order, of a file in another
    form, have the same version."""
    return digest(sorted(json.dumps(list(row)) for row in rows))


def file_version(path: Path) -> str:
    """sha256 of a file's bytes; ``MISSING`` if there is none."""
    if not path.exists():
        return MISSING
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def files_version(files: Iterable[Path]) -> str:
    """sha256 over (name, sha256) of ``files``, sorted."""
    return digest(f"{p.name} {file_version(p)}" for p in sorted(files))


def arrays_version(file: Path) -> str:
    """sha256 over sorted (array's name, dtype, shape, bytes) of an ``.npz``, not over the file,
    which contains timestamps."""
    import numpy as np

    h = hashlib.sha256()
    with np.load(file) as arrays:
        for name in sorted(arrays.files):
            array = arrays[name]
            h.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            h.update(array.tobytes())
    return h.hexdigest()


def weights_version(folder: Path) -> str:
    """sha256 over sorted (file, variable path, dtype, shape, array bytes) of a folder's
    ``*.weights.h5``.

    The arrays are hashed, not the files, which contain timestamps (HDF5). The files hold only what
    is used downstream, not the optimiser's state."""
    import h5py
    import numpy as np

    h = hashlib.sha256()
    for file in sorted(folder.glob("*.weights.h5")):
        with h5py.File(file) as f:
            arrays: dict[str, h5py.Dataset] = {}
            f.visititems(
                lambda name, item: (
                    arrays.__setitem__(name, item) if isinstance(item, h5py.Dataset) else None  # noqa: B023
                )
            )
            for name in sorted(arrays):
                array = np.asarray(arrays[name][()])  # a string is read as bytes
                h.update(f"{file.name} {name} {array.dtype.str} {array.shape}\n".encode())
                h.update(array.tobytes())
    return h.hexdigest()
