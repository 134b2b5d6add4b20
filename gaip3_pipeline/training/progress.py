"""Progress of long work with the time left: one line rewritten on a terminal, a line every few seconds elsewhere."""

import sys
import time
from typing import TextIO


class Progress:
    """Counts ``done`` of ``total`` and says how long the rest will take.

    The rate is taken from this process's own work, so that a resumed training does not look faster than it is.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None, every: float | None = None) -> None:
        self.label = label
        self.total = total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = every if every is not None else (0.2 if self._terminal else 10.0)
        self._start = self._last = time.monotonic()
        self._first_done, self._measured_from = -1, self._start
        self._warm = False
        self._finished = False

    def update(self, done: int, **figures: float) -> None:
        """Report that ``done`` of ``total`` units are complete, with figures worth seeing."""
        now = time.monotonic()
        if self._first_done < 0 or (not self._warm and done > self._first_done):
            # What was resumed and the first unit, in which a graph is compiled, say nothing about the rate.
            self._warm = self._first_done >= 0
            self._first_done, self._measured_from = done, now
        complete = done >= self.total
        if self._finished or (not complete and now - self._last < self._every):
            return
        self._last = now
        self._finished = complete
        fresh = done - self._first_done
        if complete:
            rest = f"done in {clock(now - self._start)}"
        elif fresh > 0:
            rest = f"{clock((now - self._measured_from) / fresh * (self.total - done))} left"
        else:
            rest = ""
        shown = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
        line = f"{self.label}  {done:,}/{self.total:,}  {done / max(self.total, 1):4.0%}  {rest}  {shown}".rstrip()
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{line}" + ("\n" if complete else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def __call__(self, done: int, total: int) -> None:
        """The form that image work calls: ``(done, total)``."""
        self.total = total
        self.update(done)


def clock(seconds: float) -> str:
    """``75`` as ``1m 15s``."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m {s % 60:02d}s" if s < 3600 else f"{s // 3600}h {s % 3600 // 60:02d}m"
