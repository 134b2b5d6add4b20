"""The plan that a refresh prints, and the record that it writes."""

import json
import os
import signal
import subprocess
import time

import dagster as dg
import pandas as pd
import pytest

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.refresh.estimate import estimates
from gaip3_pipeline.refresh.plan import (
    NEVER,
    Forecast,
    Planned,
    RefreshError,
    describe,
    forecast,
    spoken,
)
from gaip3_pipeline.refresh.record import KEPT, Record, begun, headlines, read_records, recording
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import read_labels, stem
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline_tests.refresh.test_run import relabel, set_tiny
from gaip3_pipeline_tests.refreshing import instance_of, plan_of, refresh_command, refresh_root

MOUTH = ["labels_mouth", "input_model_mouth", "input_values_mouth"]


def forecast_of(root: DataRoot) -> Forecast:
    with instance_of(root) as instance:
        return forecast(instance, root, plan_of(root))


def test_the_plan_counts_changed_labels_and_adds_up_last_times_durations(root_copy):
    relabel(root_copy, "mouth", 12)
    planned = forecast_of(root_copy)
    assert planned.label_changes == {"mouth": 12}
    assert set(planned.durations) == {p.name for p in planned.plan}
    assert planned.seconds == pytest.approx(sum(planned.durations.values()))
    n = len(planned.plan)
    assert (
        planned.summary
        == f"12 labels of mouth changed → up to {n} assets, about {spoken(planned.seconds)} by last"
        " time's durations; eyes, hair_color, background, head stay"
    )
    assert planned.steps[0] == {
        "name": "labels_mouth",
        "reasons": ["hand_labels_mouth changed"],
        "certain": True,
        "seconds": planned.durations["labels_mouth"],
    }


def test_rows_of_images_that_do_not_exist_are_no_changed_labels(root_copy):
    with root_copy.hand_labels("eyes").open("a", encoding="utf-8") as f:
        f.write("female,999999,resized/female/gone.jpg,0.5\n")
    planned = forecast_of(root_copy)
    assert planned.label_changes == {}
    assert planned.summary.startswith("hand_labels_eyes changed → up to ")


def test_a_first_run_is_told_in_one_line_and_many_new_assets_are_not_listed() -> None:
    new = [Planned(name, [NEVER], True) for name in ("a", "b", "c", "d")]
    assert describe(Forecast(new, {}, {})) == (
        "4 assets to make for the first time, time not known yet"
    )
    changed = Planned("labels_mouth", ["hand_labels_mouth changed"], True)
    _, *lines = describe(Forecast([changed, *new], {}, {})).splitlines()
    assert lines == [
        "  labels_mouth  hand_labels_mouth changed",
        "  and 4 assets that were never made",
    ]
    _, _, *few = describe(Forecast([changed, *new[:2]], {}, {})).splitlines()
    assert [line.split(maxsplit=1) for line in few] == [["a", NEVER], ["b", NEVER]]


def test_a_refresh_that_continues_says_what_had_changed(tmp_path) -> None:
    root = DataRoot(tmp_path)
    values = Planned("input_values_mouth", ["input_model_mouth changed"], True)
    before = Forecast(
        [Planned("labels_mouth", ["hand_labels_mouth changed"], True)], {"mouth": 9}, {}
    )

    def stopped() -> None:
        with recording(root, "a", before) as record:
            record.begins("input_model_mouth", "")
            record.made("input_model_mouth", 1.0, "")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert before.causes == "9 labels of mouth changed"
    assert Forecast([values], {}, {}, {}, begun(root)).causes == before.causes
    other = Planned("report", ["labels_head changed"], True)
    assert Forecast([other], {}, {}, {}, begun(root)).causes == "labels_head changed"
    with recording(root, "b", before):
        pass
    assert begun(root) == (set(), "")


def test_what_was_never_timed_is_estimated_from_pictures_and_epochs(tmp_path) -> None:
    root = DataRoot(tmp_path)
    names = ["resized_d1", "nvae_weights", "detail_weights", "evaluator_mouth"]
    assert estimates(root, names) == {}
    folder = root.original(IMAGE_SETS[0])
    folder.mkdir(parents=True)
    for i in range(10):
        (folder / f"{i}.jpg").touch()
    set_tiny(root, "[nvae]\nepochs = 100")
    few = estimates(root, names)
    set_tiny(root, "[nvae]\nepochs = 200")
    many = estimates(root, names)
    assert list(few) == names
    assert many["nvae_weights"] > few["nvae_weights"] > few["resized_d1"] > 0
    assert {n for n in names if many[n] != few[n]} == {"nvae_weights"}
    new = [Planned(name, [NEVER], True) for name in names]
    assert Forecast(new, {}, {}, dict.fromkeys(names, 60.0)).summary == (
        "4 assets to make for the first time, about 4 minutes as estimated for two CPU cores"
    )
    assert Forecast(new, {}, {names[0]: 60.0}, dict.fromkeys(names[1:], 60.0)).summary.endswith(
        "about 4 minutes by last time's durations and 3 estimated"
    )


def test_an_asset_that_was_never_made_has_no_duration_and_the_summary_says_so():
    plan = [
        Planned("critic_weights", ["never made"], True),
        Planned("report", ["after critic_weights"], False),
    ]
    assert (
        Forecast(plan, {}, {}).summary
        == "critic_weights never made → up to 2 assets, time not known yet"
    )
    assert Forecast(plan, {}, {}).seconds is None
    assert Forecast(plan, {}, {"report": 120.0}).summary.endswith(
        "about 2 minutes by last time's durations and 1 never timed"
    )
    assert Forecast([], {}, {}).seconds == 0


def test_a_refresh_leaves_its_plan_its_states_and_what_it_changed(root_copy):
    before = read_figures(root_copy, "input_model_mouth")
    relabel(root_copy, "mouth")

    outcome = refresh_root(root_copy, select=["input_values_mouth"])

    record, *older = read_records(root_copy)
    assert older == [] or older[0]["started"] < record["started"]
    assert record["refresh_id"] == outcome.refresh_id
    assert record["state"] == "finished"
    assert record["finished"] >= record["started"]
    assert record["label_changes"] == {"mouth": 12}
    assert [p["name"] for p in record["plan"]] == MOUTH
    assert record["dagster_run_ids"] == outcome.run_ids
    assert {n: a["state"] for n, a in record["assets"].items()} == dict.fromkeys(MOUTH, "made")
    assert all(a["seconds"] > 0 for a in record["assets"].values())
    assert record["progress"] is None

    results = {r["name"]: r for r in record["results"]}
    assert list(results) == MOUTH
    model = results["input_model_mouth"]
    after = read_figures(root_copy, "input_model_mouth")
    figures = {f["figure"]: f for f in model["figures"]}
    assert figures["r2"] == {"figure": "r2", "before": before["r2"], "after": after["r2"]}
    assert before["r2"] != after["r2"]
    assert model["run_before"].startswith("http")
    assert model["run_after"].startswith("http")
    assert model["run_before"] != model["run_after"]
    picture, *_ = model["pictures"]
    old, new = (root_copy.refreshes / picture[when] for when in ("before", "after"))
    assert old.read_bytes() != new.read_bytes()
    assert new.read_bytes() == root_copy.picture("input_model_mouth").read_bytes()
    assert any(
        line.split()[0] == "input_model_mouth" and " → " in line
        for line in headlines(record["results"])
    )


def test_two_trainings_of_a_model_compare_in_mlflow_name_by_name_with_the_labels_that_changed(
    root_copy,
):
    relabel(root_copy, "mouth", 12)
    path = root_copy.hand_labels("mouth")
    path.write_text(
        "\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8"
    )
    gone = pd.read_csv(root_copy.checked_labels("mouth"), dtype=str)
    refresh_root(root_copy, select=["input_model_mouth"])

    client = tracking_of(root_copy, load(root_copy)).client()
    experiment = client.get_experiment_by_name("gaip3").experiment_id
    after, before = client.search_runs(
        [experiment],
        "tags.`gaip3.asset` = 'input_model_mouth'",
        order_by=["attributes.start_time DESC"],
    )
    assert set(after.data.params) == set(before.data.params)
    # None of the 20 held-out labels may have a certain level; all other names are equal.
    named_in_both = [
        {name for name in run.data.metrics if "_at_" not in name} for run in (after, before)
    ]
    assert named_in_both[0] == named_in_both[1]
    assert (
        after.data.tags["gaip3.input.labels_mouth"] != before.data.tags["gaip3.input.labels_mouth"]
    )
    assert after.data.tags["gaip3.data_version"] != before.data.tags["gaip3.data_version"]
    assert {d.dataset.name for d in after.inputs.dataset_inputs} == {
        d.dataset.name for d in before.inputs.dataset_inputs
    }

    changes = pd.read_csv(
        client.download_artifacts(after.info.run_id, "label_changes.csv"),
        dtype=str,
        keep_default_na=False,
    )
    assert list(changes.columns) == ["attribute", "gender", "stem", "from", "to"]
    assert len(changes) == after.data.metrics["meta/labels_changed"] == 13
    assert len(changes[changes.to == ""]) == 1
    labelled = dict(
        zip(zip(gone.gender, gone.path.map(stem), strict=True), gone.value, strict=True)
    )
    assert all(
        labelled[g, s] == old
        for g, s, old in zip(changes.gender, changes.stem, changes["from"], strict=True)
    )
    assert read_labels(root_copy.labels_seen(root_copy.input_model("mouth"), "mouth")).table.equals(
        read_labels(root_copy.checked_labels("mouth")).table
    )


def test_assets_that_turn_out_fresh_are_marked_and_a_refresh_of_nothing_has_no_record(root_copy):
    with root_copy.hand_labels("eyes").open("a", encoding="utf-8") as file:
        file.write("female,0,resized/female/of another data set.jpg,1\n")  # the check leaves it out
    refresh_root(root_copy)
    states = {n: a["state"] for n, a in read_records(root_copy)[0]["assets"].items()}
    assert states.pop("labels_eyes") == "made"
    assert set(states.values()) == {"fresh"}
    kept = sorted(root_copy.refreshes.iterdir())
    refresh_root(root_copy)
    assert sorted(root_copy.refreshes.iterdir()) == kept


def test_a_failed_refresh_records_the_reason(root_copy):
    path = root_copy.hand_labels("mouth")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",1.5"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(RefreshError):
        refresh_root(root_copy)
    record = read_records(root_copy)[0]
    assert record["state"] == "failed"
    assert "line 4: column value is '1.5'" in record["message"]
    assert record["assets"]["labels_mouth"]["state"] == "failed"
    assert record["assets"]["report"]["state"] == "waiting"


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, "Dagster"])
def test_an_interrupted_refresh_is_stopped_however_it_ended(root_copy, way):
    set_tiny(root_copy, "[evaluator]\nepochs = 4000")  # the training that begins soonest
    command = refresh_command(root_copy, "--select", "evaluator_mouth")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    record = wait_for_progress(root_copy, process)
    assert record["state"] == "running"
    assert record["assets"] == {"evaluator_mouth": {"state": "running", "seconds": None}}
    assert record["progress"]["label"] == "evaluator_mouth"
    assert 0 < record["progress"]["done"] < record["progress"]["total"]
    assert record["progress"]["left_s"] > 0
    with instance_of(root_copy) as instance:
        run_id = instance.get_runs(limit=1)[0].run_id
        if way == "Dagster":
            assert instance.run_launcher.terminate(run_id)  # as the button of its pages does
        else:
            os.kill(process.pid, way)
    output = process.communicate(timeout=120)[0].decode()
    record = read_records(root_copy)[0]
    assert record["state"] == "stopped"
    assert "the same refresh continues from the last checkpoints" in record["message"]
    assert record["progress"] is None
    if way != signal.SIGKILL:
        assert record["finished"]
        assert record["assets"]["evaluator_mouth"]["state"] == "waiting"
        assert "interrupted; run the same command again to continue" in output
        assert ended_in(root_copy, run_id) == (dg.DagsterRunStatus.CANCELED, "KILLED")
    else:  # "Terminate" on Dagster's page ends the run that nobody works on
        with instance_of(root_copy) as instance:
            assert instance.run_launcher.terminate(run_id)
            assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED


def ended_in(root: DataRoot, run_id: str) -> tuple[dg.DagsterRunStatus, str]:
    """How the run, a training, ended in Dagster and in MLflow."""
    with instance_of(root) as instance:
        run = instance.get_run_by_id(run_id)
    tracking = tracking_of(root, load(root))
    client = tracking.client()
    found = f"tags.`gaip3.dagster_run_id` = '{run_id}'"
    [training] = client.search_runs([tracking.experiment(client)], found)
    parent = client.get_run(training.data.tags["mlflow.parentRunId"])
    assert parent.info.status == training.info.status
    return run.status, training.info.status


def wait_for_progress(root: DataRoot, process: subprocess.Popen) -> dict:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        records = read_records(root)
        if records and records[0]["progress"] and (records[0]["progress"]["left_s"] or 0) > 0:
            return records[0]
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.2)
    pytest.fail("no progress in 240 s")


def test_the_newest_records_are_kept_with_their_pictures_and_damaged_ones_are_left_out(tmp_path):
    root = DataRoot(tmp_path)
    root.refreshes.mkdir(parents=True)
    (root.refreshes / "torn.json").write_text('{"refresh_id": "to', encoding="utf-8")
    for i in range(KEPT + 3):
        record = Record(root, f"id{i:02d}", Forecast([], {}, {}))
        (root.refreshes / f"id{i:02d}" / "before").mkdir(parents=True)
        record.ends("finished")
        time.sleep(0.002)
    names = [r["refresh_id"] for r in read_records(root)]
    assert names == [f"id{i:02d}" for i in reversed(range(3, KEPT + 3))]
    assert sorted(p.name for p in root.refreshes.iterdir() if p.is_dir()) == sorted(names)


def test_a_record_of_another_host_runs_while_its_heart_beats(tmp_path):
    root = DataRoot(tmp_path)
    planned = Forecast([Planned("report", ["never made"], True)], {}, {})
    Record(root, "abc", planned)
    path = root.refreshes / "abc.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process": "elsewhere:1:1"}))
    assert read_records(root)[0]["state"] == "stopped"
    root.heartbeats.mkdir()
    (root.heartbeats / "elsewhere:1:1").touch()
    assert read_records(root)[0]["state"] == "running"


def test_the_command_prints_the_plan_as_one_line_of_json(root_copy):
    relabel(root_copy, "head", 3)
    command = refresh_command(root_copy, "--dry-run", "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = done.stdout.splitlines()
    said = json.loads(line)
    assert set(said) == {"summary", "plan", "label_changes", "seconds"}
    assert said["label_changes"] == {"head": 3}
    assert said["summary"].startswith("3 labels of head changed → up to ")
    assert said["seconds"] > 0
    assert not root_copy.refreshes.exists() or not list(root_copy.refreshes.glob("*.json"))[1:]
