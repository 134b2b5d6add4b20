"""The inputs that all trainings share beside their settings: the examples, and the folder,
fingerprint and log of a run; and where independent trainings of one step run."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from gaip3_pipeline import layout
from gaip3_pipeline.progress import Progress

_Result = TypeVar("_Result")
Log = Callable[[int, dict[str, float]], None]  # an epoch, counted from 1, and its metrics


def keep_no_figures(epoch: int, figures: dict[str, float]) -> None:
    """A log that discards its metrics."""


@dataclass(frozen=True)
class Examples:
    """``images (N, H, W, 3) uint8`` of any size, possibly a memory map; ``values (N, K)`` in 0..1;
    ``split (N,)`` of ``train``, ``validation``, ``test``."""

    images: np.ndarray
    values: np.ndarray
    split: np.ndarray


@dataclass(frozen=True)
class Run:
    """One training: the ``folder`` of its model, and the ``fingerprint`` of its settings, data and
    code, with which it resumes.

    ``part`` names one of several models in the folder, whose checkpoints are kept separately.
    ``rank`` is the number of this process among the ``world`` that train the model together; only
    number 0 writes and reports."""

    folder: Path
    fingerprint: str
    log: Log = keep_no_figures
    progress: Progress | None = None
    part: str = ""
    rank: int = 0
    world: int = 1

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints from which it resumes."""
        return layout.checkpoints(self.folder) / self.part


class Trainings(Protocol):
    """Calls ``train(number, run)`` for each of ``runs``, counted from 0, and yields the results in
    their order; the first error is raised and ends it.

    The trainings are independent and may run in other processes at the same time, so ``train`` and
    its results must be picklable. Logs and progress of the runs are called here."""

    def __call__(
        self, train: Callable[[int, Run], _Result], runs: Iterable[Run]
    ) -> Iterator[_Result]: ...


def one_after_another(
    train: Callable[[int, Run], _Result], runs: Iterable[Run]
) -> Iterator[_Result]:
    """The trainings in this process."""
    for number, run in enumerate(runs):
        yield train(number, run)
