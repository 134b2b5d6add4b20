"""What a drill is: its name, what it does, how often, and what it promises.

A drill gets an :class:`Exercise` and counts each thing that it does. A promise that is not kept is
noted, and the drill goes on where it can, so that its figure is honest."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gaip3_pipeline.layout import DataRoot


class Skipped(Exception):
    """This machine does not allow the drill; the message says why."""


class Lost(AssertionError):
    """A promise was not kept, and the drill cannot go on."""


@dataclass
class Exercise:
    """One run of a drill: a temporary folder, how often it is wanted, random moments, and a
    function that copies a finished root. ``done`` counts what was done, ``lost`` holds a line for
    each promise that was not kept."""

    folder: Path
    times: int
    moments: random.Random
    finished: Callable[[Path], DataRoot]
    done: int = 0
    lost: list[str] = field(default_factory=list)
    details: dict[str, float] = field(default_factory=dict)

    def check(self, kept: bool, promise: str) -> None:
        """Note ``promise`` as not kept unless ``kept``."""
        if not kept:
            self.lost.append(promise)
            print(f"  LOST: {promise}", flush=True)

    def count(self, what: str) -> None:
        """Count one more, and say it."""
        self.done += 1
        print(f"  {self.done}/{self.times} {what}", flush=True)


@dataclass(frozen=True)
class Drill:
    """``what`` is done, in words for the table; ``times`` in a whole run, ``sample`` in a test, 0
    for none."""

    name: str
    what: str
    times: int
    sample: int
    function: Callable[[Exercise], None]

    def run(self, exercise: Exercise) -> float:
        """Do it; returns its seconds. Raises :class:`Skipped`."""
        start = time.monotonic()
        try:
            self.function(exercise)
        except Lost as e:
            exercise.check(False, str(e))
        return time.monotonic() - start


DRILLS: dict[str, Drill] = {}


def drill(
    name: str, what: str, times: int, sample: int = 0
) -> Callable[[Callable[[Exercise], None]], Callable[[Exercise], None]]:
    """Enter a function as the drill ``name``."""

    def enter(function: Callable[[Exercise], None]) -> Callable[[Exercise], None]:
        DRILLS[name] = Drill(name, what, times, sample, function)
        return function

    return enter
