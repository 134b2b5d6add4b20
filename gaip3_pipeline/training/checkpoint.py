"""Checkpoints of a training: every variable of model and optimiser, the epoch and the history,
without pickle.

``last.json`` lists the parts, files of at most ``PART_BYTES`` so that each can be transferred
easily. It is written after the parts; files that it does not list are removed afterwards. The
arrays are those of Keras variables in their order, so a checkpoint of one backend can be continued
under another."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gaip3_pipeline.tables.files import write_text_atomically, writing
from gaip3_pipeline.training.optimizer import AllAtOnce

INDEX = "last.json"
# what NumPy and zipfile raise for a damaged part
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
PART_BYTES = 15 << 20  # of arrays; a larger variable has a part of its own


class CheckpointError(RuntimeError):
    """There is no checkpoint from which the training can continue; the message gives the reason and
    the remedy."""


@dataclass(frozen=True)
class Position:
    """The state of a training: the number of complete epochs, the metrics of each, the fingerprint
    of settings, data and code, and whether the log has these epochs: not if another machine trained
    them."""

    epoch: int
    history: list[dict[str, float]]
    fingerprint: str
    logged: bool = True


def save(folder: Path, model: keras.Model, position: Position) -> None:
    """Write the checkpoint of ``model``, completely or not at all."""
    arrays = _arrays(model)
    names = []
    for i, part in enumerate(_parts({f"v{n}": array for n, array in enumerate(arrays)})):
        names.append(f"epoch_{position.epoch:05d}_{i:02d}.npz")
        with writing(folder / names[-1]) as temporary, temporary.open("wb") as f:
            np.savez(f, **part)  # type: ignore[arg-type]
    about = {
        "fingerprint": position.fingerprint,
        "epoch": position.epoch,
        "history": position.history,
        "parts": names,
        "variables": _signature(arrays),
    }
    write_text_atomically(folder / INDEX, json.dumps(about))
    for file in folder.glob("epoch_*.npz"):
        if file.name not in names:
            file.unlink()


def restore(folder: Path, model: keras.Model, fingerprint: str) -> Position:
    """Set ``model`` to its last checkpoint; the position has epoch 0 if there is none of this
    training.

    A checkpoint with another ``fingerprint`` (other data, settings or code), with another
    architecture, or one that cannot be read is ignored, and the training starts from the
    beginning."""
    try:
        about = read_index(folder)
        if about["fingerprint"] == fingerprint:
            return _assign(folder, about, model)
    except CheckpointError:
        pass
    return Position(0, [], fingerprint)


def resume(folder: Path, model: keras.Model) -> Position:
    """Set ``model`` to its last checkpoint, whatever its data, settings and code. Raises
    :class:`CheckpointError`."""
    return _assign(folder, read_index(folder), model)


def discard(folder: Path) -> None:
    """Remove the checkpoints of a training whose weights are saved."""
    shutil.rmtree(folder, ignore_errors=True)


def read_index(folder: Path) -> dict[str, Any]:
    """What ``last.json`` of a checkpoint says. Raises :class:`CheckpointError`."""
    try:
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise CheckpointError(f"there is no checkpoint in {folder}: train without --resume") from e
    except (OSError, ValueError) as e:
        raise CheckpointError(
            f"{folder / INDEX} cannot be read ({e}): train without --resume"
        ) from e
    if not isinstance(about, dict) or not {
        "fingerprint",
        "epoch",
        "history",
        "parts",
        "variables",
    } <= set(about):
        raise CheckpointError(
            f"{folder / INDEX} is not the index of a checkpoint: train without --resume"
        )
    return about


def read_parts(folder: Path, about: Mapping[str, Any]) -> list[np.ndarray]:
    """The arrays in the parts that ``about``, the index, names, in their order. Raises
    :class:`CheckpointError`."""
    arrays: dict[str, np.ndarray] = {}
    try:
        for name in about["parts"]:
            with np.load(folder / name, allow_pickle=False) as data:
                arrays |= dict(data)
        return [arrays[f"v{i}"] for i in range(len(about["variables"]))]
    except _UNREADABLE as e:
        raise CheckpointError(
            f"a part of the checkpoint in {folder} cannot be read ({e}): train without --resume"
        ) from e


def _assign(folder: Path, about: dict[str, Any], model: keras.Model) -> Position:
    present = _arrays(model)
    if about["variables"] != _signature(present):
        raise CheckpointError(
            f"the checkpoint in {folder} is of a network of another shape: train without --resume"
        )
    ordered = read_parts(folder, about)
    of_model = len(model.variables)
    for variable, array in zip(model.variables, ordered[:of_model], strict=True):
        variable.assign(array)
    _set_state(model.optimizer, ordered[of_model:])
    return Position(
        about["epoch"], about["history"], about["fingerprint"], about.get("logged", True)
    )


def _arrays(model: keras.Model) -> list[np.ndarray]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    optimizer = model.optimizer
    if isinstance(optimizer, AllAtOnce):
        return [*_values(model.variables), *optimizer.state]
    return _values([*model.variables, *optimizer.variables])


def _set_state(optimizer: keras.optimizers.Optimizer, arrays: list[np.ndarray]) -> None:
    if isinstance(optimizer, AllAtOnce):
        optimizer.state = arrays
        return
    for variable, array in zip(optimizer.variables, arrays, strict=True):
        variable.assign(array)


def _values(variables: list[Any]) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(v.value)) for v in variables]


def _signature(arrays: list[np.ndarray]) -> list[list[Any]]:
    # Variable paths contain counters of the process ("dense_3"), so shapes and dtypes in order
    # represent the architecture. The dtype of seeds depends on the backend: uint32 or int64.
    return [["int" if "int" in str(a.dtype) else str(a.dtype), list(a.shape)] for a in arrays]


def _parts(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The arrays in their order, in groups of at most ``PART_BYTES``."""
    parts: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in arrays.items():
        if parts[-1] and size + array.nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes
    return parts
