"""Files that appear complete or not at all, also after a power loss: each is written to a temporary
file in the same folder, flushed to disk and renamed, and the folder is flushed.

The name of a temporary file holds the process that writes it, so that another process can remove
what a killed one has left."""

import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gaip3_pipeline.processes import of_this_host, process_lives, this_process
from gaip3_pipeline.tables.names import printable

if TYPE_CHECKING:  # commands that only write text start without it
    import numpy as np

WRITING, LINKING = ".writing-", ".linking-"
TEMPORARY = (WRITING, LINKING)  # how the names of unfinished files begin
_BETWEEN = "~"  # in such a name: host~pid~start~random
_FOREIGN_SECONDS = 86_400.0  # an unfinished file of another host is left so long


@contextmanager
def writing(path: Path, size: int = 0) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces ``path`` when the block ends without
    an error; then it is on disk under its name.

    The temporary file has the suffix of ``path``, since some writers choose the format by it. An
    ``OSError`` names ``path``, also that of a library that reports a full disk in its own words. It
    is raised before the block if the disk has no room for ``size`` bytes: HDF5 cannot close a file
    that it could not complete, and prints so when the process ends. Raises IsADirectoryError,
    before the block, if ``path`` is a folder."""
    with _replacing(path) as temporary:
        if shutil.disk_usage(temporary.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield temporary
    sync_folder(path.parent)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """As :func:`writing`, but a power loss may take the name until the folder is synced."""
    refuse_folder(path)
    try:
        _make_folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_begun(WRITING), suffix=path.suffix)
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        sync_file(temporary)
        os.replace(temporary, path)
    except BaseException as e:
        full = isinstance(e, Exception) and _is_full(e, path.parent)
        temporary.unlink(missing_ok=True)
        if full:
            raise OSError(full, os.strerror(full), str(path)) from e
        raise


def write_hdf5(path: Path, arrays: Mapping[str, "np.ndarray"]) -> None:
    """Write ``arrays``, those of no dimensions as plain values, completely or not at all."""
    import h5py  # a command that only writes text starts without it

    with writing(path, hdf5_size(arrays.values())) as temporary, h5py.File(temporary, "w") as file:
        for name, array in arrays.items():
            file[name] = array.item() if array.ndim == 0 else array


def hdf5_size(arrays: Iterable["np.ndarray"]) -> int:
    """At least the bytes of a file of HDF5 that holds ``arrays``, each in a group of its own."""
    return sum(array.nbytes + 4096 for array in arrays) + 65_536


def _is_full(error: Exception, folder: Path) -> int:
    """The error number if ``error`` means that a write did not fit on the disk; 0 otherwise."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        # HDF5 and Arrow quote the system's text, NumPy says how much it did not write
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return number
    short = isinstance(error, OSError) and error.errno is None
    return errno.ENOSPC if short and not shutil.disk_usage(folder).free else 0


def refuse_folder(path: Path) -> None:
    """Raise IsADirectoryError if there is a folder where the file ``path`` belongs."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder in the place of a file: move it away")


def foreign_entries(folder: Path, own: Iterable[str]) -> list[str]:
    """The names of what is in ``folder`` beside the files ``own``, sorted, as
    :func:`~gaip3_pipeline.tables.names.printable` writes them."""
    names = set(os.listdir(folder)) - set(own)
    return sorted(map(printable, names))


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source`` where the file system allows it, else a copy.

    A link is created under another name and renamed, so that ``target`` is never missing or
    incomplete. The other name is short: a long one may not be lengthened. The name is on disk after
    :func:`sync_folder`. Raises IsADirectoryError if ``target`` is a folder."""
    refuse_folder(target)
    _make_folder(target.parent)
    temporary = target.with_name(f"{_begun(LINKING)}{uuid.uuid4().hex}")
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
    except OSError:
        with _replacing(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        temporary.unlink(missing_ok=True)  # it stays if both are links to one file already


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, completely or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def create_atomically(path: Path, data: bytes) -> None:
    """Write a file that may not be there yet, completely or not at all. Raises ``FileExistsError``,
    also to all but one of those who do so at the same time where there are hard links."""
    _make_folder(path.parent)
    with temporary_folder(path.parent) as folder:
        whole = folder / path.name
        write_bytes_atomically(whole, data)
        try:
            os.link(whole, path)
        except FileExistsError:
            raise
        except OSError:
            if path.exists():
                raise FileExistsError(str(path)) from None
            os.replace(whole, path)
    sync_folder(path.parent)


def write_one_of_many(path: Path, data: bytes) -> None:
    """As :func:`write_bytes_atomically`, for thousands of files in a folder: their names are on
    disk after one :func:`sync_folder`, which takes as long as the rest of a write."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def sync_file(path: Path) -> None:
    """Flush the content of a file to disk."""
    with path.open("rb") as f:
        os.fsync(f.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to disk, where its file system can and it may be read."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise OSError(e.errno, e.strerror, str(folder)) from e
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` for unfinished files, removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix=_begun(WRITING), dir=parent) as name:
        yield Path(name)


def remove_abandoned(folders: Iterable[Path]) -> int:
    """Remove the temporary files that killed processes have left in or below ``folders``; returns
    their number. Those of other hosts are removed after a day."""
    removed = 0
    for place in folders:
        for folder, inside, names in os.walk(place):
            for name in [n for n in (*inside, *names) if n.startswith(TEMPORARY)]:
                path = Path(folder, name)
                if name in inside:
                    inside.remove(name)
                with suppress(OSError):  # its process has just removed it, or it stays
                    if _is_abandoned(path):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                        removed += 1
    return removed


def _is_abandoned(path: Path) -> bool:
    writer = ":".join(path.name.partition("-")[2].split(_BETWEEN)[:3])
    if of_this_host(writer):
        return not process_lives(writer, path.parent)
    # a link has the time of its file, but was itself created at the time of its last change
    return time.time() - path.lstat().st_ctime > _FOREIGN_SECONDS


def _begun(kind: str) -> str:
    """How the names of the temporary files of this process begin."""
    return f"{kind}{this_process().replace(':', _BETWEEN)}{_BETWEEN}"


def _make_folder(folder: Path) -> None:
    """Create ``folder`` and those above it, with their names on disk."""
    if folder.is_dir():
        return
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with LF line ends, completely or not at all."""
    write_bytes_atomically(path, text.encode())


# mkstemp creates files with mode 0600. The umask can only be read by setting it, so this is done
# once, at import.
_UMASK = os.umask(0)
os.umask(_UMASK)
