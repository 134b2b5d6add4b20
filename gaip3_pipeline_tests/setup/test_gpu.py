"""The generator trained on another machine: the package, the training there, its checkpoint in the
root."""

import json
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.layout import DataRoot, checkpoints, filmstrip_file
from gaip3_pipeline.settings import load
from gaip3_pipeline.training.rented import FOLDER, Package
from gaip3_pipeline.training_data import final_images
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline_tests.refreshing import with_few_cells

BACKEND = "jax" if find_spec("jax") else "tensorflow"
# dependencies of the pipeline that the package does not ask for
LACKING = {"dagster", "mlflow", "sklearn", "matplotlib", "fastapi", "click", "ray"}
# as where the packages in sys.argv are not installed; Keras imports some of them if they are there
TRAIN = """
import importlib.abc, runpy, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
runpy.run_module("gaip3_pipeline.training.rented", run_name="__main__")
import gaip3_pipeline
print(gaip3_pipeline.__file__)
"""


def train_there(folder: Path) -> str:
    """Train in the unpacked folder, without the other packages; where the code was."""
    lacking = LACKING | ({"tensorflow"} if BACKEND == "jax" else set())
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *lacking],
        cwd=folder,
        env=os.environ | {"KERAS_BACKEND": BACKEND, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *_, told, where = done.stdout.splitlines()
    assert "run gaip3 gpu take there" in told
    return where


def test_a_generator_trained_elsewhere_is_taken_over_with_its_curves(
    gaip3, root_copy: DataRoot, tmp_path: Path
) -> None:
    root_copy.settings_file.write_text(with_few_cells(), encoding="utf-8")
    file = tmp_path / "faces.tar"
    packed = gaip3("gpu", "pack", file, "--root", root_copy.path)
    assert packed.exit_code == 0, packed.output
    assert f"{file.stat().st_size / 1e6:.1f} MB" in packed.output
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path, filter="data")
    there, data = tmp_path / FOLDER, final_images(root_copy, load(root_copy))
    nvae, package = load(root_copy).nvae, Package.read(there)
    np.testing.assert_array_equal(package.images, shrink(data.images, nvae.height, nvae.width))
    np.testing.assert_array_equal(package.values, data.values)
    assert package.settings == nvae

    assert train_there(there).startswith(str(there))
    weights = sorted((there / "checkpoints").glob("epoch_*.npz"))
    assert weights

    refused = gaip3("gpu", "take", there, "--root", root_copy.path)
    assert refused.exit_code == 1
    assert "holds no checkpoint: copy the folder checkpoints whole" in refused.output
    taken = gaip3("gpu", "take", there / "checkpoints", "--root", root_copy.path)
    assert taken.exit_code == 0, taken.output
    assert (
        f"{nvae.epochs} of {nvae.epochs} epochs now. Continue with: gaip3 refresh" in taken.output
    )
    again = gaip3("gpu", "take", there / "checkpoints", "--root", root_copy.path)
    assert "nothing was copied" in again.output

    made = gaip3("refresh", "--root", root_copy.path, "--select", "nvae_weights")
    assert made.exit_code == 0, made.output
    for before, now in zip(
        weights, sorted(checkpoints(root_copy.nvae).glob("epoch_*.npz")), strict=True
    ):
        assert now.read_bytes() == before.read_bytes()  # nothing was trained here
    assert read_figures(root_copy, "nvae_weights")["epochs"] == nvae.epochs
    client = tracking_of(root_copy, load(root_copy)).client()
    [run] = client.search_runs(
        [client.get_experiment_by_name("gaip3").experiment_id],
        "tags.`gaip3.asset` = 'nvae_weights'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    assert len(client.get_metric_history(run.info.run_id, "epoch/loss")) == nvae.epochs


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_damaged_checkpoint_is_refused_and_the_own_one_stays(
    gaip3, root_copy: DataRoot, tmp_path: Path, damage: str
) -> None:
    own = checkpoints(root_copy.nvae)
    copy = tmp_path / "checkpoints"
    copy.mkdir()
    for path in own.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    part = next(copy.glob("epoch_*.npz"))
    if damage == "cut":
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    else:
        part.unlink()
    before = {p.name: p.read_bytes() for p in own.iterdir() if p.is_file()}
    done = gaip3("gpu", "take", copy, "--root", root_copy.path)
    assert done.exit_code == 1
    assert "cannot be read" in done.output
    assert "copy the folder again" in done.output
    assert before == {p.name: p.read_bytes() for p in own.iterdir() if p.is_file()}


def test_a_checkpoint_of_another_state_of_the_root_says_how_to_use_it(
    gaip3, root_copy: DataRoot, tmp_path: Path
) -> None:
    copy = tmp_path / "checkpoints"
    copy.mkdir()
    for path in checkpoints(root_copy.nvae).iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    about = json.loads((copy / "last.json").read_text())
    (copy / "last.json").write_text(json.dumps(about | {"fingerprint": "of another state"}))
    assert filmstrip_file(checkpoints(root_copy.nvae)).exists()
    done = gaip3("gpu", "take", copy, "--root", root_copy.path)
    assert done.exit_code == 0, done.output
    assert "gaip3 train nvae --resume" in done.output
    # with --resume, the next training would continue the strip of the one before
    assert not filmstrip_file(checkpoints(root_copy.nvae)).exists()
