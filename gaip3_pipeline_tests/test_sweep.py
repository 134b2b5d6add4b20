"""A sweep trains every combination, keeps what it finished, and changes no asset."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot, checkpoints, is_trained, sweep_result
from gaip3_pipeline.settings import SettingsError, load, of_preset
from gaip3_pipeline.sweep import MEASURE, Sweep, SweepError, grid, run_sweep, shown, table
from gaip3_pipeline.tables.contracts import write_input_values
from gaip3_pipeline.training import generator

SETTINGS = """\
preset = "tiny"
[nvae]
height = 2
width = 2
channels = [8]
latents = [2]
cells = [1]
kl_weights = [1.0]
condition_width = 8
control = 0.0
spectral = 0.0
epochs = 2
batch_size = 8
"""


@pytest.fixture
def root(tmp_path):
    return inputs_of_a_generator(tmp_path / "root")


def inputs_of_a_generator(folder):
    """What a training of the generator reads, without the assets that make it."""
    root = DataRoot(folder)
    root.packed_final.parent.mkdir(parents=True)
    root.settings_file.write_text(SETTINGS, encoding="utf-8")
    rng = np.random.default_rng(0)
    paths = [f"final/{i}.jpg" for i in range(36)]
    split = np.array(["test", "validation", *["train"] * 4])[np.arange(36) % 6]
    root.manifest("final_dataset").parent.mkdir()
    pd.DataFrame({"path": paths, "split": split}).to_parquet(root.manifest("final_dataset"))
    np.save(root.packed_final, rng.integers(0, 256, (36, 8, 8, 3), np.uint8))
    root.figures("x").parent.mkdir(parents=True)
    root.figures("control_regressor").write_text(json.dumps({f"r2_{a}": 0.9 for a in ATTRIBUTES}))
    for a in ATTRIBUTES:
        write_input_values(root.input_values(a), a, paths, rng.random(36))
        root.figures(f"evaluator_{a}").write_text(json.dumps({"r2": 0.9}))
    return root


def sweep_of(root, *given, seeds=1):
    return Sweep(grid(load(root), given, seeds), {"final_dataset": "f" * 64}, "5-abc")


def test_a_grid_has_every_combination_with_each_seed():
    points = grid(
        of_preset("tiny"), ["learning_rate=.002,.005", "latents=(2,1,0),(4,2,0)"], 2, epochs=3
    )
    assert len(points) == 8
    assert [p.settings.nvae.learning_rate for p in points] == [0.002] * 4 + [0.005] * 4
    assert [p.seed - points[0].seed for p in points] == [0, 1] * 4
    assert {p.settings.nvae.latents for p in points} == {(2, 1, 0), (4, 2, 0)}
    assert {p.settings.nvae.epochs for p in points} == {3}
    assert points[0].name == "learning_rate=0.002, latents=(2, 1, 0), seed=1"
    assert [p.settings.nvae.cell for p in grid(of_preset("tiny"), ["cell=dense,paper"], 1)] == [
        "dense",
        "paper",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("learning_rat=.1", "has no setting 'learning_rat'; known: height"),
        ("epochs=2.5", "epochs = 2.5 must be of type int"),
        ("epochs=many", "epochs = 'many' must be of type int"),
        ("learning_rate", "write it as learning_rate=.002,.005"),
        ("seed=1,2", "with --seeds"),
    ],
)
def test_a_mistake_in_the_grid_is_named(given, message):
    with pytest.raises(SettingsError, match=message):
        grid(of_preset("tiny"), [given], 1)


def test_a_mistake_is_one_line_and_comes_before_tensorflow_is_imported(tmp_path):
    DataRoot(tmp_path).settings_file.write_text('preset = "tiny"\n')
    code = (
        "import sys; from gaip3_pipeline.cli import main\n"
        "try: main(['sweep', 'nvae', '--root', sys.argv[1], '--set', 'epoch=3'])\n"
        "finally: print([m for m in ('tensorflow', 'keras', 'jax', 'ray') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 1
    assert ran.stdout == "[]\n"
    assert ran.stderr.startswith("Error: --set: [nvae] has no setting 'epoch'; known: ")
    assert ran.stderr.count("\n") == 1


def test_the_best_combination_comes_first_and_a_failed_training_is_counted():
    points = grid(of_preset("tiny"), ["learning_rate=.002,.005,.5"], 2)
    measured = [5.0, 5.2, 4.0, 4.2]
    results = [{MEASURE: m} for m in measured] + [{"failed": "the loss is nan"}] * 2
    made = table(points, results)
    assert made.learning_rate.tolist() == [0.005, 0.002, 0.5]
    assert made.trainings.tolist() == [2, 2, 2]
    assert made.failed.tolist() == [0, 0, 2]
    np.testing.assert_allclose(made[MEASURE][:2], [4.1, 5.1])
    np.testing.assert_allclose(made[f"{MEASURE}_sd"][:2], 0.2 / np.sqrt(2))
    assert "4.1000 ± 0.1414" in shown(made).splitlines()[1]
    assert shown(made).splitlines()[3].split() == ["0.500", "2", "2", "none"]


def test_a_killed_sweep_continues_and_ends_with_a_table(root, monkeypatch):
    sweep, trained = sweep_of(root, "learning_rate=.002,.005"), []
    finished = sweep_result(root.sweep_point(sweep.id, 0))
    finished.parent.mkdir(parents=True)
    finished.write_text(json.dumps({MEASURE: 99.0}))
    real = generator.fit

    def killed_after_an_epoch(model, batches, run, **options):
        def log(epoch, figures):
            run.log(epoch, figures)
            raise KeyboardInterrupt

        return real(model, batches, dataclasses.replace(run, log=log), **options)

    def watched(model, batches, run, **options):
        history = real(model, batches, run, **options)
        trained.append((run.folder.name, len(history)))
        return history

    monkeypatch.setattr(generator, "fit", killed_after_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(root, sweep, print)
    monkeypatch.setattr(generator, "fit", watched)
    said = []
    made = run_sweep(root, sweep, said.append)

    assert said == [f"sweep {sweep.id}: 2 trainings, 1 of them finished"]
    assert trained == [("1", 2)]
    assert made.learning_rate.tolist() == [0.005, 0.002]
    assert made.trainings.tolist() == [1, 1]
    assert made[MEASURE].notna().all()
    tracking = tracking_of(root, load(root))
    client = tracking.client()
    runs = client.search_runs([tracking.experiment(client)])
    child, parent = sorted(runs, key=lambda r: r.info.run_name)
    assert [r.info.run_name for r in (child, parent)] == [
        "learning_rate=0.005, seed=1",
        f"sweep nvae {sweep.id}",
    ]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {r.info.status for r in runs} == {"FINISHED"}
    [file] = client.list_artifacts(parent.info.run_id)
    kept = pd.read_csv(client.download_artifacts(parent.info.run_id, file.path))
    pd.testing.assert_frame_equal(kept, made)
    assert child.data.params["epochs"] == "2"
    curve = client.get_metric_history(child.info.run_id, "epoch/loss")
    assert [m.step for m in curve] == [1, 2]  # each epoch once, interrupted or not
    assert "final/bits_per_dim" in child.data.metrics
    [sheet] = client.list_artifacts(child.info.run_id)
    assert sheet.path == "samples_and_sweeps.jpg"
    assert not client.search_registered_models()
    assert not is_trained(root.nvae)
    assert not checkpoints(root.sweep_point(sweep.id, 1)).exists()
    assert run_sweep(root, sweep, print).equals(made)


def test_a_training_that_fails_ends_no_other(root):
    said = []
    made = run_sweep(root, sweep_of(root, "channels=(8,8),(8,8,8)"), said.append)
    assert made.failed.tolist() == [1, 1]
    _, first, second = said
    assert first.startswith("channels=(8, 8), seed=1: nvae: channels needs 1 numbers")
    assert second.startswith("channels=(8, 8, 8), seed=1: nvae: channels needs 1 numbers")


def test_a_sweep_that_runs_already_is_refused(root):
    import fcntl

    sweep = sweep_of(root, "learning_rate=.002")
    lock = root.sweep_lock(sweep.id)
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match="runs already"):
            run_sweep(root, sweep, print)
