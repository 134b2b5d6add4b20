"""Start the pages as a user does, and find the processes that remain."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port(host: str = "127.0.0.1") -> int:
    """A port of ``host`` on which no server listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def start(code: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Run ``code`` as a script with SIGINT ignored, as a shell starts a job in the background."""
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{code}"
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", ignoring, *arguments],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes], seconds: float = 240) -> str:
    """Wait until ``process`` has printed ``text``, and return its output."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        printed = log.read_text(encoding="utf-8", errors="replace")
        if text in printed:
            return printed
        assert process.poll() is None, f"ended with {process.returncode}:\n{printed}"
        time.sleep(0.2)
    raise AssertionError(
        f"no {text!r} after {seconds} s in:\n{log.read_text(encoding='utf-8', errors='replace')}"
    )


def processes_of(root: Path) -> list[str]:
    """The command lines of the processes that were started for ``root``, which is in their
    environment."""
    mark = f"\0GAIP3_ROOT={root}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                int(folder.name) != os.getpid()
                and mark in b"\0" + (folder / "environ").read_bytes() + b"\0"
            ):
                found.append(
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            continue
    return found


def wait_until_gone(root: Path, seconds: float = 30) -> list[str]:
    """The processes of ``root`` that remain after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while processes_of(root) and time.monotonic() < deadline:
        time.sleep(0.2)
    return processes_of(root)
