"""The MLflow runs of a finished root, and how runs end."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import suppress

import dagster as dg
import pytest

from gaip3_pipeline import mlflow_tracking
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import NOTE, MlflowTracking, TrainingRun
from gaip3_pipeline.models.storage import save_config
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.settings import flatten, load
from gaip3_pipeline.tables.databases import sqlite_file, sqlite_url
from gaip3_pipeline.versions import DATA_VERSION_TAG, AssetResult, keep, read_figures
from gaip3_pipeline_tests.refreshing import TRAINED, definitions_of, instance_of

MEASURED = {  # assets without a training that log a run, with the files that they log
    "generator_evaluation": {
        "control.csv",
        "sweeps.jpg",
        "control.jpg",
        "faces.jpg",
        "nearest_training_pictures.jpg",
    },
    "curation_report": {
        "curation.html",
        "folders.csv",
        "rule.jpg",
        "reliability.jpg",
        "brightness.jpg",
    },
    "retouched_samples": {"at_random.jpg", "best.jpg", "worst.jpg"},
    "inputs_report": {
        "inputs.html",
        "inputs.csv",
        "predicted.jpg",
        "uncertainty.jpg",
        "worst_eyes.jpg",
    },
}


@pytest.fixture
def store(tmp_path):
    return MlflowTracking(
        uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "artifacts")
    )


def start(store, **changes):
    given = {
        "asset": "gender_model",
        "dagster_run_id": "0123456789",
        "parent_id": None,
        "on_parent": lambda run_id: None,
        "code_version": "1-abc",
        "inputs": {"resized_d2_female": "f" * 64},
        "fingerprint": "print",
        "parameters": {"epochs": 3},
    }
    return TrainingRun(store, **(given | changes))


def status(store, run_id):
    return store.client().get_run(run_id).info.status


def test_every_training_is_a_finished_child_with_its_settings_inputs_and_model(finished_root):
    tracking = tracking_of(finished_root, load(finished_root))
    client = tracking.client()
    runs = client.search_runs(
        [tracking.experiment(client)], "tags.`gaip3.asset` != ''", max_results=100
    )
    assert {r.data.tags["gaip3.asset"] for r in runs} == TRAINED | set(MEASURED)
    for run in runs:
        name = run.data.tags["gaip3.asset"]
        assert run.info.status == "FINISHED", name
        parent = client.get_run(run.data.tags["mlflow.parentRunId"])
        assert parent.info.status == "FINISHED"
        assert run.data.params, name
        assert run.data.metrics, name
        assert run.inputs.dataset_inputs, name
        for given in run.inputs.dataset_inputs:
            assert run.data.tags[f"gaip3.input.{given.dataset.name}"].startswith(
                given.dataset.digest
            )
        kept = {a.path for a in client.list_artifacts(run.info.run_id)}
        assert kept >= MEASURED.get(name, {"model"}), name
    [parent_id] = {r.data.tags["mlflow.parentRunId"] for r in runs}  # of the refresh
    parent = client.get_run(parent_id)
    [record] = read_records(finished_root)
    assert parent.data.tags["gaip3.refresh_id"] == record["refresh_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d · first run", parent.info.run_name)
    bits = read_figures(finished_root, "nvae_weights")["bits_per_dim"]
    assert parent.data.metrics["nvae_weights/bits_per_dim"] == pytest.approx(bits)
    nvae = next(r for r in runs if r.data.tags["gaip3.asset"] == "nvae_weights")
    assert nvae.data.params["epochs"] == str(flatten(load(finished_root).nvae)["epochs"])
    epochs = load(finished_root).nvae.epochs
    assert len(client.get_metric_history(nvae.info.run_id, "epoch/loss")) == epochs
    assert len(client.get_metric_history(nvae.info.run_id, "final/bits_per_dim")) == 1
    assert 0 < nvae.data.metrics["final/bits_per_dim"] < 10
    assert nvae.data.metrics["meta/epochs"] == epochs
    # at least one grid of samples per epoch
    assert len(client.list_artifacts(nvae.info.run_id, "images")) >= epochs
    for name in ("nvae_weights", "detail_weights"):
        run = next(r for r in runs if r.data.tags["gaip3.asset"] == name)
        assert "progress.jpg" in {a.path for a in client.list_artifacts(run.info.run_id)}


def test_the_first_metric_of_a_run_is_a_main_figure(finished_root):
    """MLflow opens a comparison on it."""
    tracking = tracking_of(finished_root, load(finished_root))
    client = tracking.client()
    for asset, first in (
        ("nvae_weights", "epoch/val_bits_per_dim"),
        ("input_model_eyes", "final/r2"),
        ("critic_weights", "epoch/val_accuracy"),
        ("generator_evaluation", "final/r2_eyes"),
    ):
        [run] = client.search_runs([tracking.experiment(client)], f"tags.`gaip3.asset` = '{asset}'")
        assert next(iter(run.data.metrics)) == first


def test_runs_and_models_say_what_they_are_and_lead_to_dagster(finished_root):
    tracking = tracking_of(finished_root, load(finished_root))
    client = tracking.client()
    [run] = client.search_runs([tracking.experiment(client)], "tags.`gaip3.asset` = 'nvae_weights'")
    bits = f"bits_per_dim {read_figures(finished_root, 'nvae_weights')['bits_per_dim']:.4g}"
    there = f"{tracking.dagster}/runs/{run.data.tags['gaip3.dagster_run_id']}"
    version = client.get_model_version_by_alias("nvae_weights", "champion")
    for text in (run.data.tags[NOTE], version.description):
        assert bits in text
        assert f"({there})" in text
        assert f"({tracking.dagster}/assets/nvae_weights)" in text
    assert "first run" in version.description
    model = client.get_registered_model("nvae_weights")
    for text in (run.data.tags[NOTE], model.description):
        assert text.startswith("The generator: an NVAE")
    parent = client.get_run(run.data.tags["mlflow.parentRunId"]).data.tags
    assert bits in parent[NOTE]
    assert parent["gaip3.refresh_id"] in parent[NOTE]


def test_a_description_that_a_user_wrote_stays(store, tmp_path):
    folder = tmp_path / "model"
    for version in ("one", "two"):
        with start(store, fingerprint=version, description="The sex of a face.") as run:
            save_config(folder, {"weights": version})
            run.register(folder, version)
        if version == "one":
            before = store.client().get_registered_model("gender_model").description
            store.client().update_registered_model("gender_model", "Ours, of May.")
    assert before.startswith("The sex of a face.")
    assert store.client().get_registered_model("gender_model").description == "Ours, of May."


def test_the_champion_is_the_version_whose_check_passed(finished_root):
    tracking = tracking_of(finished_root, load(finished_root))
    client = tracking.client()
    for name in ("gender_model", "nvae_weights"):
        model = client.get_registered_model(name)
        assert model.aliases["champion"] == model.aliases["candidate"]
        version = client.get_model_version_by_alias(name, "champion")
        assert (
            client.get_run(version.run_id).data.tags["gaip3.data_version"]
            == version.tags["gaip3.data_version"]
        )


def test_a_failing_check_does_not_move_the_champion_while_the_candidate_moves(tmp_path):
    root = DataRoot(tmp_path)
    definitions, tracking = definitions_of(root), tracking_of(root, load(root))
    key, check = (
        dg.AssetKey("input_model_mouth"),
        dg.AssetCheckKey(dg.AssetKey("input_model_mouth"), "learned"),
    )
    outcomes = []
    with instance_of(root) as instance:
        for version, r2 in (("good", 0.5), ("worse", -0.1)):
            with start(tracking, asset="input_model_mouth", fingerprint=version) as run:
                save_config(root.input_model("mouth"), {"weights": version})
                run.register(root.input_model("mouth"), version)
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, tags={DATA_VERSION_TAG: version})
            )
            keep(root, "input_model_mouth", AssetResult(version, {"r2": r2, "mae": 0.2, "n": 50}))
            job = dg.define_asset_job("checking", dg.AssetSelection.checks(check)).resolve(
                asset_graph=definitions.resolve_asset_graph()
            )
            [evaluation] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
            versions = {
                alias: (
                    tracking.client()
                    .get_model_version_by_alias("input_model_mouth", alias)
                    .tags["gaip3.data_version"]
                )
                for alias in ("candidate", "champion")
            }
            outcomes.append((evaluation.passed, versions))
    assert outcomes == [
        (True, {"candidate": "good", "champion": "good"}),
        (False, {"candidate": "worse", "champion": "good"}),
    ]


def test_a_failed_training_is_failed_and_an_interrupted_one_killed(store):
    with pytest.raises(ValueError, match="no data"), start(store) as failed:
        raise ValueError("no data")
    with pytest.raises(KeyboardInterrupt), start(store, fingerprint="other") as killed:
        raise KeyboardInterrupt
    assert status(store, failed.run_id) == "FAILED"
    assert status(store, killed.run_id) == "KILLED"
    assert store.client().get_run(failed.run_id).data.tags["gaip3.error"] == "ValueError: no data"


def test_the_run_of_a_failed_training_is_continued_by_the_same_training_only(store):
    with pytest.raises(ValueError), start(store) as first:  # noqa: PT011
        raise ValueError
    with start(store) as again:
        again.log(1, {"loss": 0.5, "nothing": float("nan")})
    with start(store, fingerprint="other") as other:
        pass
    with start(store) as third:
        pass
    assert again.run_id == first.run_id
    assert len({first.run_id, other.run_id, third.run_id}) == 3
    run = store.client().get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["gaip3.resumed"] == "1"
    assert run.data.metrics == {"epoch/loss": 0.5}


def test_a_parent_run_fails_with_any_of_its_children_until_that_child_succeeds(store):
    parents = []
    with suppress(RuntimeError), start(store, fingerprint="1", on_parent=parents.append):
        raise RuntimeError("no memory")
    assert status(store, parents[0]) == "FAILED"
    with start(store, fingerprint="2", parent_id=parents[0]):
        pass
    assert status(store, parents[0]) == "FAILED"
    with start(store, fingerprint="1", parent_id=parents[0]):
        pass
    assert status(store, parents[0]) == "FINISHED"


def test_runs_of_dead_processes_are_marked_and_those_of_living_ones_are_not(store, tmp_path):
    code = (
        "import os, sys; from gaip3_pipeline.mlflow_tracking import MlflowTracking, TrainingRun;t ="
        " MlflowTracking(uri=sys.argv[1]); r = TrainingRun(t, asset='a', dagster_run_id='d',"
        " parent_id=None,on_parent=lambda i: None, code_version='1', inputs={}, fingerprint='f',"
        " parameters={}); r.__enter__();print(r.run_id, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.uri], capture_output=True, text=True, check=False
    )
    dead = done.stdout.split()[-1]
    assert status(store, dead) == "RUNNING"
    assert store.end_dead_runs() == 2  # the training and its parent
    assert status(store, dead) == "KILLED"
    store.client().update_run(dead, status="RUNNING")
    with start(store, asset="b") as living:  # as each training does when it starts
        assert status(store, dead) == "KILLED"
        assert store.end_dead_runs() == 0
        assert status(store, living.run_id) == "RUNNING"


def test_variables_of_other_projects_have_no_part_in_the_roots_own_store(store, monkeypatch):
    for name, value in {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_ENABLE_WORKSPACES": "true",
        "MLFLOW_WORKSPACE": "other",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "many",
    }.items():
        monkeypatch.setenv(name, value)
    with start(store) as run:
        run.log(1, {"loss": 0.5})
    assert store.client().get_run(run.run_id).data.metrics == {"epoch/loss": 0.5}
    # a server that the user names in the settings may need theirs
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    MlflowTracking(uri=store.uri).client()
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "secret"


def test_without_mlflow_the_same_code_runs():
    with start(MlflowTracking(enabled=False)) as run:
        run.log(1, {"loss": 1.0})
        run.picture("a.jpg", b"")
    assert run.url == ""


def test_a_database_whose_creation_was_interrupted_is_made_by_the_next_call(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    file = tmp_path / "state" / "mlflow.db"

    def interrupted(url):
        with sqlite3.connect(sqlite_file(url)) as connection:
            connection.execute("CREATE TABLE evaluation_datasets (dataset_id VARCHAR)")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_tracking, "create_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mlflow_tracking.create_database(file)
    assert list(file.parent.iterdir()) == []
    mlflow_tracking.create_database(file)
    assert MlflowClient(sqlite_url(file)).create_experiment("gaip3")
