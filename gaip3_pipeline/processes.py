"""The command of a process of this project; names of processes, and whether the process of a name
still runs.

A process of this host is looked up by its pid. A process of another host lives while it touches its
file in the folder of heartbeats, which lies in the data root and is thus seen by every host."""

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0


def gaip3(*words: str) -> list[str]:
    """The command ``gaip3`` with ``words``, as a process of this Python."""
    return [sys.executable, "-m", "gaip3_pipeline.cli", *words]


def this_process() -> str:
    """An identifier of this process (host, pid and start time), by which another process can tell
    whether it still runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def of_this_host(name: str) -> bool:
    """Whether ``name``, an identifier from :func:`this_process`, is of a process of this host."""
    return name.rsplit(":", 2)[0] == socket.gethostname()


def process_lives(name: str, heartbeats: Path) -> bool:
    """Whether the process with the identifier ``name`` (:func:`this_process`) still runs.

    A process of another host runs if its file in ``heartbeats`` was touched within the last minute;
    one without such a file has ended."""
    try:
        _, pid, started = name.rsplit(":", 2)
        number = int(pid)
    except ValueError:
        return False
    if of_this_host(name):
        return bool(started) and _started(number) == started
    with suppress(FileNotFoundError):
        return _touched(heartbeats / name) > _now(heartbeats) - DEAD_AFTER_SECONDS
    return False


@contextmanager
def beating(heartbeats: Path) -> Iterator[None]:
    """While the block runs, a thread touches the file of this process in ``heartbeats`` every few
    seconds. Files of dead processes are removed first.

    Inside another such block of this process, nothing is done: that block beats already."""
    file = heartbeats / this_process()
    if file.exists():
        yield
        return
    heartbeats.mkdir(parents=True, exist_ok=True)
    now = _now(heartbeats)
    for other in heartbeats.iterdir():
        with suppress(FileNotFoundError):  # its process or another one has removed it
            if _touched(other) < now - DEAD_AFTER_SECONDS:
                other.unlink()
    file.touch()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            # The next beat comes in any case; a file server that does not answer for a moment must
            # not end the beats.
            with suppress(OSError):
                file.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        file.unlink(missing_ok=True)


def _now(heartbeats: Path) -> float:
    """The time by the clock that dates the files of ``heartbeats``. On a network file system it is
    the server's, and may differ from that of this host."""
    with tempfile.TemporaryFile(dir=heartbeats) as f:
        return os.fstat(f.fileno()).st_mtime


def _touched(file: Path) -> float:
    # NFS keeps the times of a file for up to a minute, but asks for them anew when it is opened.
    with file.open("rb") as f:
        return os.fstat(f.fileno()).st_mtime


def _started(pid: int) -> str:
    try:
        # The 22nd field is the start time in clock ticks since boot; the second field may contain
        # spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
