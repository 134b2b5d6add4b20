"""A plan of a refresh within a second or two: a process that has imported the libraries and waits.

Most of the time of ``gaip3 refresh --dry-run`` is the import of Dagster. The process that waits
has imported libraries only; the code and the settings of this project are read when the plan is
asked for, so that the plan is the same as that of a process started then."""

import signal
import subprocess
import sys
import threading
from contextlib import suppress

from gaip3_pipeline.layout import REPOSITORY, DataRoot

IDLE = 1800  # seconds after which a process that nobody asked ends
SLOW = 120  # seconds that a plan may take
# Ctrl-C in a terminal also reaches the process; it ends when the server closes its standard input.
WAITING = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import dagster, pandas
import dagster._core.execution.asset_backfill, dagster._core.launcher.sync_in_memory_run_launcher
import dagster._core.storage.sqlite_storage, pyarrow.parquet, sqlalchemy.dialects.sqlite
signal.alarm({IDLE})
asked = sys.stdin.readline()
signal.alarm(0)
if asked:
    from gaip3_pipeline.cli import main
    main()
"""


class Planner:
    """Plans of the refreshes of one root, each by a process of its own. Safe to use from several
    threads."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._waiting: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start a process, unless one waits already."""
        with self._lock:
            if self._waiting is None or self._waiting.poll() is not None:
                self._waiting = self._start()

    def plan(self) -> subprocess.CompletedProcess[bytes]:
        """The end of ``gaip3 refresh --dry-run --json``; the next process is prepared. Raises
        ``subprocess.TimeoutExpired``."""
        with self._lock:
            process, self._waiting = self._waiting, None
        if process is None or process.poll() is not None:
            process = self._start()
        try:
            out, errors = process.communicate(b"plan\n", timeout=SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        self.prepare()
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def close(self) -> None:
        """End the process that waits."""
        with self._lock:
            process, self._waiting = self._waiting, None
        if process:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)  # it has done nothing yet
            process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        # UTF-8 whatever the locale is: otherwise the command would start itself again in that mode
        words = ["refresh", "--root", str(self._root.path), "--dry-run", "--json"]
        return subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", WAITING, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
        )
