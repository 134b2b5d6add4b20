"""Functions that several benches share: command line, last line, a network for one measurement."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Network
from gaip3_pipeline.training.run import Examples, Run


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of a bench, line by line."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def data_root(text: str) -> DataRoot:
    """The data root at the path ``text``, as the type of an argument."""
    return DataRoot(Path(text).resolve())


def folder(text: str) -> Path:
    """The folder ``text``, created if it does not exist, as the type of an argument."""
    path = Path(text)
    path.mkdir(parents=True, exist_ok=True)
    return path


def print_result(figures: dict[str, Any]) -> None:
    """Print the last line of a bench: one JSON object."""
    print(json.dumps(figures), flush=True)


def of_own_process(script: str, *words: object, **variables: str) -> dict[str, Any]:
    """The result of a bench with ``words`` in a process of its own, with ``variables`` in its
    environment; its figures are printed in a line. Raises CalledProcessError if it fails."""
    command = [sys.executable, script, *map(str, words)]
    done = subprocess.run(
        command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print("  ".join(f"{k} {v}" for k, v in figures.items()), flush=True)
    return figures


def network_values(
    attribute: str, images: np.ndarray, values: np.ndarray, split: np.ndarray, settings: Network
) -> np.ndarray:
    """``(N,) float32``: the predictions of a convolutional network for ``images (N, H, W, 3)
    uint8``.

    It is trained on ``values (N,)`` where ``split (N,)`` is ``train``, and then discarded."""
    from gaip3_pipeline.training.regressor import train_regressor  # Keras, which few need

    with tempfile.TemporaryDirectory() as kept:
        examples = Examples(images, np.asarray(values, np.float32)[:, None], split)
        run = Run(Path(kept), "bench")
        return train_regressor([attribute], examples, settings, run).predicted[:, 0]
