"""Files that appear complete or not at all: each is written to a temporary file in the same folder,
flushed to disk, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path`` that replaces ``path`` when the block ends without
    an error. An ``OSError`` without a file, such as that of a full disk, or one that names the
    temporary file is given ``path``.

    The temporary file has the suffix of ``path``, since some writers choose the format by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    except OSError as e:
        e.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException as e:
        temporary.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.errno and e.filename in (None, str(temporary)):
            e.filename = str(path)
        raise


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
