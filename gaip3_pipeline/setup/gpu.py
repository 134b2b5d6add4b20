"""``gaip3 gpu``: what a rented machine needs to train the generator, and its checkpoint taken
over."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaip3_pipeline.environment import pinned
from gaip3_pipeline.layout import DataRoot, best_epoch_folder, checkpoints, filmstrip_file
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.settings import load
from gaip3_pipeline.sweep import ASSET, state_of_inputs
from gaip3_pipeline.tables.files import write_text_atomically, writing
from gaip3_pipeline.versions import fingerprint_of

# what the training imports; JAX with the libraries of a CUDA GPU
PACKAGES = (
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "opencv-python-headless",
    "h5py",
    "simplejpeg",
)
JAX = "jax[cuda12]>=0.6"


class RentedError(RuntimeError):
    """The checkpoint cannot be taken over; the message is one line with the remedy."""


@dataclass(frozen=True)
class Packed:
    """What was packed: the number of pictures, their height and width, and the file's bytes."""

    pictures: int
    size: tuple[int, int]
    bytes: int


def pack(root: DataRoot, file: Path, definitions: Any, instance: Any) -> Packed:
    """Write ``file``, completely or not at all: everything that a training of the generator of
    ``root`` reads, in the state that the last refresh left."""
    from gaip3_pipeline.imaging.augment import shrink
    from gaip3_pipeline.training.rented import Package
    from gaip3_pipeline.training_data import final_images, known_values

    inputs, code_version = state_of_inputs(root, definitions, instance)
    settings = load(root)
    section = settings.nvae
    data = final_images(root, settings)
    package = Package(
        shrink(data.images, section.height, section.width),
        data.values,
        data.table.split.to_numpy(),
        section,
        fingerprint_of(ASSET, code_version, inputs),
        list(known_values(root).values()),
        root.control_regressor if section.control else None,
    )
    with writing(file) as temporary:
        package.write(temporary, [*pinned(PACKAGES), JAX])
    n, height, width, _ = package.images.shape
    return Packed(n, (height, width), file.stat().st_size)


def take(root: DataRoot, folder: Path, definitions: Any, instance: Any) -> str:
    """Copy the checkpoint in ``folder`` to where the training of the generator of ``root`` resumes,
    and return what to run next.

    It replaces a checkpoint of the root, unless that is of the same training and as far. Raises
    :class:`RentedError` for a folder without a complete checkpoint, and ``RefreshError`` while a
    refresh runs."""
    from gaip3_pipeline.training.checkpoint import INDEX

    found = _read(folder)
    inputs, code_version = state_of_inputs(root, definitions, instance)
    target = checkpoints(root.nvae)
    with only_one(root):
        try:
            present = _read(target)
        except RentedError:
            present = {}
        if present.get("fingerprint") == found["fingerprint"] and (
            present["epoch"] >= found["epoch"]
        ):
            raise RentedError(
                f"{target} is of the same training and has {present['epoch']} epochs,"
                f" {folder} has {found['epoch']}: nothing was copied"
            )
        for name in found["parts"]:
            with writing(target / name) as temporary:
                shutil.copyfile(folder / name, temporary)
        best = best_epoch_folder(folder)
        for path in sorted(best.iterdir()) if best.is_dir() else ():
            with writing(best_epoch_folder(target) / path.name) as temporary:
                shutil.copyfile(path, temporary)
        if present.get("fingerprint") != found["fingerprint"]:
            filmstrip_file(target).unlink(missing_ok=True)  # of the training that was here
        # last, since it names the parts; MLflow did not see these epochs
        write_text_atomically(target / INDEX, json.dumps(found | {"logged": False}))
        for path in target.glob("epoch_*.npz"):
            if path.name not in found["parts"]:
                path.unlink()
    epochs = load(root).nvae.epochs
    state = f"{target} has {found['epoch']} of {epochs} epochs now. "
    if found["fingerprint"] == fingerprint_of(ASSET, code_version, inputs):
        return state + f"Continue with: gaip3 refresh --root {root.path}"
    return state + (
        "The data, the settings or the code of the root changed after gaip3 gpu pack: gaip3 refresh"
        " would train anew. To use the checkpoint, raise epochs under [nvae] in gaip3.toml and"
        f" continue with: gaip3 train nvae --resume --root {root.path}"
    )


def _read(folder: Path) -> dict[str, Any]:
    """The index of the checkpoint in ``folder``, whose parts are all readable."""
    from gaip3_pipeline.training.checkpoint import CheckpointError, read_index, read_parts

    try:
        about = read_index(folder)
    except CheckpointError as e:
        raise RentedError(f"{folder} holds no checkpoint: copy the folder checkpoints whole") from e
    try:
        for name in about["parts"]:
            if Path(name).name != name:
                raise CheckpointError(f"a part is named {name!r}")
        read_parts(folder, about)
    except (CheckpointError, TypeError) as e:
        raise RentedError(
            f"a part of the checkpoint in {folder} cannot be read ({e.__cause__ or e}):"
            " copy the folder again"
        ) from e
    return about
