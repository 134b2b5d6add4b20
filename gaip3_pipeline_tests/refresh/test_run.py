"""A refresh materialises only stale assets: the real graph with tiny models and real files."""

import json
import os
import shutil
import signal
import subprocess
import time

import dagster as dg
import pandas as pd
import pytest
from PIL import Image, ImageOps

from gaip3_pipeline.dagster_home import LOCATION
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.refresh.plan import RefreshError
from gaip3_pipeline.refresh.run import end_dead_runs, observe, refresh
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import LABEL_COLUMNS, read_labels
from gaip3_pipeline.versions import latest_materialization
from gaip3_pipeline_tests.refreshing import (
    definitions_of,
    following,
    instance_of,
    plan_of,
    refresh_command,
    refresh_root,
    with_few_cells,
)


def names(plan):
    return {p.name for p in plan}


def set_tiny(root: DataRoot, text: str) -> None:
    root.settings_file.write_text(f'preset = "tiny"\n\n{text}\n', encoding="utf-8")


def relabel(root: DataRoot, attribute: str, rows: int = 12) -> None:
    path = root.hand_labels(attribute)
    table = pd.read_csv(path, dtype=str)
    table.loc[: rows - 1, "value"] = ((table.value[:rows].astype(float) + 0.25) % 1.25).astype(str)
    table.to_csv(path, index=False, lineterminator="\n")


def test_without_changes_nothing_is_materialised(finished_root):
    assert plan_of(finished_root) == []
    assert refresh_root(finished_root).materialized == []


def test_an_edited_label_file_makes_stale_exactly_its_labels_and_what_is_downstream(root_copy):
    relabel(root_copy, "mouth")
    plan = plan_of(root_copy)
    assert names(plan) == following(root_copy, ["labels_mouth"])
    assert [p.name for p in plan if p.certain] == ["labels_mouth"]
    assert plan[0].reasons == ["hand_labels_mouth changed"]

    # all of it is made in web/test_ui_browser.py
    made = refresh_root(root_copy, select=["input_values_mouth"]).materialized

    assert made == ["labels_mouth", "input_model_mouth", "input_values_mouth"]
    assert names(plan_of(root_copy)) == following(root_copy, ["labels_mouth"]) - set(made)


def test_an_edited_learning_rate_makes_stale_exactly_that_model_and_what_is_downstream(root_copy):
    set_tiny(root_copy, "[input_model_head]\nleast_noise = 0.1")
    plan = plan_of(root_copy)
    assert [p.name for p in plan if p.certain] == ["input_model_head"]
    assert names(plan) == following(root_copy, ["input_model_head"])

    outcome = refresh_root(root_copy, select=["input_model_head"])

    assert outcome.materialized == ["input_model_head"]
    assert "input_model_head" not in names(plan_of(root_copy))


def test_an_unchanged_content_hash_stops_the_refresh(root_copy):
    with root_copy.hand_labels("eyes").open("a", encoding="utf-8") as file:
        file.write("female,0,resized/female/of another data set.jpg,1\n")  # the check leaves it out

    assert names(plan_of(root_copy)) == following(root_copy, ["labels_eyes"])
    outcome = refresh_root(root_copy)
    assert outcome.materialized == ["labels_eyes"]
    assert plan_of(root_copy) == []

    rows = len(pd.read_csv(root_copy.checked_labels("eyes")))
    with instance_of(root_copy) as instance:
        run = instance.get_run_by_id(outcome.run_ids[0])
        made = latest_materialization(instance, dg.AssetKey("labels_eyes")).metadata
        [check] = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(dg.AssetKey("labels_eyes"), "enough_labels")]
        ).values()
    # for Dagster's pages: where the run belongs, what it is, its table, and a plot of the check
    assert (run.job_name, run.remote_job_origin.location_name) == ("refresh_stage", LOCATION)
    assert {k: run.tags[k] for k in ("assets", "changed", "stage")} == {
        "assets": "labels_eyes",
        "changed": "hand_labels_eyes changed",
        "stage": run.tags["stage"],
    }
    assert run.tags["stage"].startswith("1 of ")
    assert made["dagster/row_count"].value == rows
    columns = made["dagster/column_schema"].value.columns
    assert tuple(c.name for c in columns) == LABEL_COLUMNS
    assert all(c.description for c in columns)
    assert check.event.asset_check_evaluation.metadata["rows"].value == rows


def test_the_job_refresh_fails_with_the_commands_message(root_copy):
    job = definitions_of(root_copy).resolve_job_def("refresh")
    with instance_of(root_copy) as instance:
        done = job.execute_in_process(
            {"ops": {"gaip3_refresh": {"config": {"select": ["nvae"]}}}},
            instance,
            raise_on_error=False,
        )
    [failed] = [e for e in done.all_events if e.is_step_failure]
    message = failed.step_failure_data.user_failure_data.description
    assert message.startswith("--select nvae: no asset has this name; ")


def test_settings_are_shown_in_the_launchpad_and_refused_if_changed_there(root_copy):
    with instance_of(root_copy) as instance, pytest.raises(RefreshError, match="cannot be set in"):
        refresh(
            definitions_of(root_copy),
            instance,
            root_copy,
            tracking_of(root_copy, load(root_copy)),
            again=["final_dataset"],
            config={"final_dataset": {"settings": {"final_dataset": {"threshold": 0.1}}}},
            say=lambda line: None,
        )


def test_the_plan_agrees_with_what_dagster_shows_as_unsynced(root_copy):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    from gaip3_pipeline.refresh.run import observe

    relabel(root_copy, "background")
    set_tiny(root_copy, "[critic]\nlearning_rate = 0.0003")
    with instance_of(root_copy) as instance:
        observe(instance, root_copy)
        definitions = definitions_of(root_copy)
        graph = definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        shown = {
            k.to_user_string()
            for k in graph.materializable_asset_keys
            if resolver.get_status(k) != StaleStatus.FRESH
        }
    assert (
        {p.name for p in plan_of(root_copy) if p.certain}
        == shown
        == {"labels_background", "critic_weights", "judge_weights", "reconstruction_judge_weights"}
    )


def test_a_step_stops_when_the_settings_are_not_those_it_was_planned_with(root_copy):
    set_tiny(root_copy, "[samples]\nn = 9")
    definitions = definitions_of(root_copy)
    set_tiny(root_copy, "[samples]\nn = 10")
    with pytest.raises(RefreshError, match="reload the definitions"):
        refresh_root(root_copy, select=["nvae_samples"], definitions=definitions)


def test_a_broken_label_file_stops_with_file_row_and_remedy_and_keeps_the_checked_copy(root_copy):
    path = root_copy.hand_labels("mouth")
    before = root_copy.checked_labels("mouth").read_bytes()
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",1.5"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(
        RefreshError,
        match=(
            r"train_output_mouth\.csv, line 4: column value is '1\.5'; write a number from 0 to 1"
        ),
    ):
        refresh_root(root_copy)
    assert root_copy.checked_labels("mouth").read_bytes() == before


def test_a_failed_blocking_check_stops_the_assets_downstream_until_it_passes(root_copy):
    set_tiny(root_copy, "[final_dataset]\nthreshold = 1.0")
    for _ in range(2):
        with pytest.raises(
            RefreshError,
            match=(
                r"final_dataset: check enough_images failed: only \d+ images pass the rule;"
                r" threshold = "
            ),
        ):
            refresh_root(root_copy)
    stale = names(plan_of(root_copy))
    assert "final_dataset" not in stale
    assert "input_values_eyes" in stale
    set_tiny(root_copy, "[final_dataset]\nthreshold = 0.5")
    assert refresh_root(root_copy, select=["final_dataset"]).materialized == ["final_dataset"]
    assert plan_of(root_copy) == []


def test_a_training_killed_with_kill_9_continues_from_its_checkpoint(root_copy):
    shutil.rmtree(root_copy.nvae / "checkpoints")  # of the finished training
    root_copy.settings_file.write_text(with_few_cells(epochs=12), encoding="utf-8")
    command = refresh_command(root_copy, "--select", "nvae_weights")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    checkpoint = next_checkpoint(root_copy, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    epochs_done = epochs_in(checkpoint)
    assert 0 < epochs_done < 12

    outcome = refresh_root(root_copy, select=["nvae_weights"])

    assert outcome.materialized == ["nvae_weights"]
    client = tracking_of(root_copy, load(root_copy)).client()
    experiment = client.get_experiment_by_name("gaip3").experiment_id
    runs = client.search_runs(
        [experiment], "tags.`gaip3.asset` = 'nvae_weights'", order_by=["attributes.start_time DESC"]
    )
    # the first run of the root, and this one, resumed
    assert [r.info.status for r in runs] == ["FINISHED", "FINISHED"]
    assert runs[0].data.tags["gaip3.resumed"] == "1"
    steps = [m.step for m in client.get_metric_history(runs[0].info.run_id, "epoch/loss")]
    assert max(steps) == 12
    # each epoch once; the epoch during which the process died may come twice
    assert len([s for s in steps if s]) <= 13
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")


def next_checkpoint(root: DataRoot, process: subprocess.Popen):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list(root.nvae.rglob("last.json"))
        if found and epochs_in(found[0]) >= 2:
            return found[0]
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.2)
    pytest.fail("no checkpoint in 240 s")


def epochs_in(checkpoint) -> int:
    return json.loads(checkpoint.read_text())["epoch"]


def test_two_refreshes_of_one_root_do_not_run_at_once(root_copy):
    import fcntl

    with (root_copy.state / "refresh.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RefreshError, match="another refresh of"):
            refresh_root(root_copy)


def test_labels_written_while_a_refresh_runs_do_not_stop_it(root_copy):
    original = next(root_copy.original(IMAGE_SETS[1]).glob("*.jpg"))
    mirrored = ImageOps.mirror(Image.open(original))
    original.unlink()  # it may be a link to another root's file
    mirrored.save(original)

    def label_meanwhile(line):
        if ": making resized_" in line:
            relabel(root_copy, "mouth")
            observe(instance, root_copy)  # as the UI's sensor does

    with instance_of(root_copy) as instance:
        tracking = tracking_of(root_copy, load(root_copy))
        outcome = refresh(
            definitions_of(root_copy),
            instance,
            root_copy,
            tracking,
            select=["labels_mouth"],
            say=label_meanwhile,
        )
    assert outcome.materialized == ["resized_d2_female", "labels_mouth"]
    given = read_labels(root_copy.hand_labels("mouth")).table.value.sort_values()
    assert (
        pd.read_csv(root_copy.checked_labels("mouth")).value.sort_values().tolist()
        == given.tolist()
    )
    assert "labels_mouth" not in names(plan_of(root_copy))


def test_runs_of_living_processes_are_left_alone(finished_root):
    with instance_of(finished_root) as instance:
        assert end_dead_runs(instance, finished_root) == 0
