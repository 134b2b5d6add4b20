"""Files that appear complete or not at all: each is written to a temporary file in the same folder,
flushed to disk, then renamed."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gaip3_pipeline.tables.names import printable

WRITING, LINKING = ".writing-", ".linking-"
TEMPORARY = (WRITING, LINKING)  # how the names of unfinished files begin


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces ``path`` when the block ends without
    an error.

    The temporary file has the suffix of ``path``, since some writers choose the format by it. An
    ``OSError`` names ``path``, also that of a library that reports a full disk in its own words.
    Raises IsADirectoryError, before the block, if ``path`` is a folder."""
    refuse_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=WRITING, suffix=path.suffix)
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException as e:
        full = isinstance(e, Exception) and _is_full(e, path.parent)
        temporary.unlink(missing_ok=True)
        if full:
            raise OSError(full, os.strerror(full), str(path)) from e
        raise


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
    incomplete. The other name is short: a long one may not be lengthened. Raises
    IsADirectoryError if ``target`` is a folder."""
    refuse_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{LINKING}{uuid.uuid4().hex}")
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
    except OSError:
        with writing(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        temporary.unlink(missing_ok=True)  # it stays if both are links to one file already


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, completely or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with LF line ends, completely or not at all."""
    write_bytes_atomically(path, text.encode())


# mkstemp creates files with mode 0600. The umask can only be read by setting it, so this is done
# once, at import.
_UMASK = os.umask(0)
os.umask(_UMASK)
