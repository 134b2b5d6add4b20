"""Progress of long work with the time left: one line rewritten on a terminal, a line every few
seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

# label, done, total, seconds left (None while unknown)
Watch = Callable[[str, int, int, float | None], None]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Within the block, every :class:`Progress` created in this thread also calls ``watch``."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


class Progress:
    """Reports ``done`` of ``total`` and the estimated time left.

    The rate counts this process's own work only, so a resumed training does not appear faster than
    it is. The callback of :func:`watched_by` is called at most once a second, and at the end."""

    def __init__(
        self,
        label: str,
        total: int,
        stream: TextIO | None = None,
        every: float | None = None,
    ) -> None:
        self.label = label
        self.total = total
        self._watch, self._last_told = _WATCH.get(), -1.0
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = every if every is not None else (0.2 if self._terminal else 10.0)
        self._start = self._last = time.monotonic()
        self._first_done, self._measured_from = -1, self._start
        self._warm = False
        self._finished = False

    def update(self, done: int, **figures: float) -> None:
        """Report that ``done`` of ``total`` units are complete; ``figures`` are shown in the same
        line."""
        now = time.monotonic()
        if self._first_done < 0 or (not self._warm and done > self._first_done):
            # Resumed units do not count towards the rate, nor does the first unit, in which a graph
            # is compiled.
            self._warm = self._first_done >= 0
            self._first_done, self._measured_from = done, now
        complete = done >= self.total
        if self._finished:
            return
        self._finished = complete
        fresh = done - self._first_done
        left = (
            0.0
            if complete
            else (now - self._measured_from) / fresh * (self.total - done)
            if fresh > 0
            else None
        )
        if self._watch and (complete or now - self._last_told >= 1.0):
            self._last_told = now
            self._watch(self.label.strip(), done, self.total, left)
        if not complete and now - self._last < self._every:
            return
        self._last = now
        rest = (
            f"done in {clock(now - self._start)}"
            if complete
            else ""
            if left is None
            else f"{clock(left)} left"
        )
        shown = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
        line = (
            f"{self.label}  {done:,}/{self.total:,}  {done / max(self.total, 1):4.0%}  {rest} "
            f" {shown}".rstrip()
        )
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{line}" + ("\n" if complete else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def another(self, label: str) -> "Progress":
        """The progress of a further part of the same work."""
        return Progress(label, 0, self._stream, self._every)

    def __call__(self, done: int, total: int) -> None:
        """Set ``total`` and report ``done``: the signature that image processing calls."""
        self.total = total
        self.update(done)


def clock(seconds: float) -> str:
    """``75`` as ``1m 15s``."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m {s % 60:02d}s" if s < 3600 else f"{s // 3600}h {s % 3600 // 60:02d}m"
