"""``gaip3`` as a process that is killed, or must end well or with one clear line."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from drills.drill import Exercise, Lost
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.tables.problems import complaint

PATIENCE = 1800.0  # seconds that any command may take


def command(root: DataRoot, *words: str) -> list[str]:
    """``gaip3 WORDS --root ROOT`` as a process of this Python."""
    return [*gaip3(*words), "--root", str(root.path)]


def selecting(*assets: str) -> list[str]:
    """The options of ``gaip3 refresh`` for these assets."""
    return [word for asset in assets for word in ("--select", asset)]


@contextmanager
def running(
    words: Sequence[str], env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process in a group of its own, and the file with its output; the group is killed at the
    end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        with log.open("wb") as output:
            process = subprocess.Popen(
                words,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        try:
            yield process, log
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of a process and all of its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def killed_after(words: Sequence[str], seconds: float, begins: str = "") -> bool:
    """Start a command and kill its group ``seconds`` after it printed ``begins``, or after its
    start; False if it had ended before."""
    with running(words) as (process, log):
        until = time.monotonic() + PATIENCE
        while begins and begins not in printed(log) and process.poll() is None:
            if time.monotonic() > until:
                raise Lost(f"{shown(words)}: no {begins!r} in {PATIENCE:.0f} s")
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        alive = process.poll() is None
        if not alive and process.returncode:
            raise Lost(f"{shown(words)} failed: {last_line(printed(log))}")
        kill(process)
        return alive


def succeed(words: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its output. Raises :class:`Lost` if it fails."""
    code, output = outcome(words, env)
    if code:
        raise Lost(f"{shown(words)} failed: {last_line(output)}")
    return output


def outcome(words: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; its exit code and output."""
    with running(words, env) as (process, log):
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Lost(f"{shown(words)} did not end in {PATIENCE:.0f} s") from None
        return process.returncode, printed(log)


def refused(exercise: Exercise, words: Sequence[str], *named: str) -> bool:
    """Run a command that may fail: then it must end with a clear line that has all of ``named``.
    Returns whether it failed."""
    code, output = outcome(words)
    if code:
        line = last_line(output)
        exercise.check(clear(output), f"{shown(words)} is not one clear line: {output[-1500:]}")
        for name in named:
            exercise.check(name in line, f"{shown(words)}: {name!r} is not in {line!r}")
    return code != 0


def clear(output: str) -> bool:
    """Whether an output ends with one clear line, or with one for each step that failed, and has no
    lines of libraries."""
    said = any(word in output for word in ("Traceback", "Exception", "WARNING", "(Background on"))
    first, *others = complaint(output.splitlines()).splitlines()
    each = not others or all(re.match(r"\w+: ", line) for line in [first, *others])
    return "Error: " in output and each and not said


def printed(log: Path) -> str:
    """What a process has printed so far."""
    return log.read_text(encoding="utf-8", errors="replace")


def last_line(output: str) -> str:
    """The last line of an output."""
    return next(reversed(output.strip().splitlines()), "")


def shown(words: Sequence[str]) -> str:
    """A command as a user writes it."""
    return " ".join(["gaip3", *words[3:]])
