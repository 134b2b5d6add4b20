"""Checkpoints of a training: every variable of model and optimiser, the epoch and the history, in one file without pickle."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gaip3_pipeline.tables.files import writing

FILE = "last.npz"


@dataclass(frozen=True)
class Position:
    """Where a training stands: the number of complete epochs and the figures of each."""

    epoch: int
    history: list[dict[str, float]]


def save(folder: Path, model: keras.Model, fingerprint: str, position: Position) -> None:
    """Write the checkpoint of ``model``, whole or not at all."""
    variables = _variables(model)
    about = {
        "fingerprint": fingerprint,
        "epoch": position.epoch,
        "history": position.history,
        "variables": _signature(variables),
    }
    arrays = {f"v{i}": np.asarray(keras.ops.convert_to_numpy(v.value)) for i, v in enumerate(variables)}
    with writing(folder / FILE) as temporary, temporary.open("wb") as f:
        np.savez(f, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]


def restore(folder: Path, model: keras.Model, fingerprint: str) -> Position:
    """Bring ``model`` to its last checkpoint; epoch 0 if there is none of this very training.

    A checkpoint with another ``fingerprint`` (other data, settings or code), of another architecture, or one that cannot be
    read is not used: the training starts afresh.
    """
    try:
        with np.load(folder / FILE, allow_pickle=False) as data:
            about: dict[str, Any] = json.loads(data["about"].tobytes().decode())
            variables = _variables(model)
            if about["fingerprint"] != fingerprint or about["variables"] != _signature(variables):
                return Position(0, [])
            arrays = [data[f"v{i}"] for i in range(len(variables))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return Position(0, [])
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return Position(about["epoch"], about["history"])


def discard(folder: Path) -> None:
    """Remove the checkpoints of a training whose weights are safe."""
    shutil.rmtree(folder, ignore_errors=True)


def _variables(model: keras.Model) -> list[Any]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _signature(variables: list[Any]) -> list[list[Any]]:
    # Paths carry counters of the process ("dense_3"), so shapes and dtypes in order stand for the architecture.
    return [[str(v.dtype), list(v.shape)] for v in variables]
