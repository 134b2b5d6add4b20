"""The inputs that all trainings share beside their settings: the examples, and the folder,
fingerprint and log of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaip3_pipeline import layout
from gaip3_pipeline.progress import Progress

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

    ``part`` names one of several models in the folder, whose checkpoints are kept separately."""

    folder: Path
    fingerprint: str
    log: Log = keep_no_figures
    progress: Progress | None = None
    part: str = ""

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints from which it resumes."""
        return layout.checkpoints(self.folder) / self.part
