"""Processes are told alive from dead, also those of other hosts."""

import json
import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from gaip3_pipeline import processes
from gaip3_pipeline.dagster_storage import PROCESS_TAG
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import beating, process_lives, this_process
from gaip3_pipeline.refresh.plan import Forecast
from gaip3_pipeline.refresh.record import Record, killed, read_records
from gaip3_pipeline.refresh.run import end_dead_runs
from gaip3_pipeline.settings import load
from gaip3_pipeline_tests.refreshing import definitions_of, instance_of, refresh_root

ELSEWHERE = "elsewhere:17:4711"


@pytest.fixture
def root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path / "그림 root")
    root.path.mkdir()
    root.settings_file.write_text('preset = "tiny"\n')
    return root


def touch(root: DataRoot, name: str, seconds_ago: float = 0) -> None:
    root.heartbeats.mkdir(parents=True, exist_ok=True)
    file = root.heartbeats / name
    file.touch()
    then = time.time() - seconds_ago
    os.utime(file, (then, then))


def test_a_process_of_this_host_is_looked_up(root):
    assert process_lives(this_process(), root.heartbeats)
    host, pid, started = this_process().rsplit(":", 2)
    assert not process_lives(f"{host}:{pid}:{int(started) + 1}", root.heartbeats)
    assert not process_lives("", root.heartbeats)
    ended = "from gaip3_pipeline.processes import this_process; print(this_process())"
    name = subprocess.check_output([sys.executable, "-c", ended], text=True).strip()
    assert not process_lives(name, root.heartbeats)


def test_a_process_of_another_host_lives_while_its_heart_beats(root):
    assert not process_lives(ELSEWHERE, root.heartbeats)
    touch(root, ELSEWHERE, 50)
    assert process_lives(ELSEWHERE, root.heartbeats)
    touch(root, ELSEWHERE, 70)
    assert not process_lives(ELSEWHERE, root.heartbeats)


def test_beats_go_on_until_the_outermost_block_ends_and_dead_files_are_removed(root, monkeypatch):
    monkeypatch.setattr(processes, "BEAT_SECONDS", 0.01)
    touch(root, ELSEWHERE, 70)
    touch(root, "elsewhere:18:4712")
    with beating(root.heartbeats):
        assert not (root.heartbeats / ELSEWHERE).exists()
        with beating(root.heartbeats):
            pass
        touch(root, this_process(), 70)
        own, deadline = root.heartbeats / this_process(), time.monotonic() + 10
        while own.stat().st_mtime < time.time() - 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert own.stat().st_mtime > time.time() - 60
    assert [p.name for p in root.heartbeats.iterdir()] == ["elsewhere:18:4712"]


def test_runs_of_dead_processes_of_another_host_end(root):
    job = definitions_of(root).resolve_implicit_global_asset_job_def()
    status = dg.DagsterRunStatus
    ends = {status.STARTED: status.FAILURE, status.CANCELING: status.CANCELED}
    with instance_of(root) as instance:
        runs = {
            begun: instance.create_run_for_job(job, tags={PROCESS_TAG: ELSEWHERE}, status=begun)
            for begun in ends
        }
        touch(root, ELSEWHERE)
        assert end_dead_runs(instance, root) == 0
        touch(root, ELSEWHERE, 70)
        assert end_dead_runs(instance, root) == 2
        for begun, run in runs.items():
            assert instance.get_run_by_id(run.run_id).status == ends[begun]


def test_a_training_of_a_dead_process_of_another_host_ends_in_mlflow(root):
    tracking = tracking_of(root, load(root))
    client = tracking.client()
    run = client.create_run(tracking.experiment(client), tags={"gaip3.process": ELSEWHERE})
    touch(root, ELSEWHERE)
    assert tracking.end_dead_runs() == 0
    touch(root, ELSEWHERE, 70)
    assert tracking.end_dead_runs() == 1
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_place_in_the_training_pool_of_a_run_that_ended_is_free_again(root):
    job = definitions_of(root).resolve_implicit_global_asset_job_def()
    with instance_of(root) as instance:
        store = instance.event_log_storage
        store.initialize_concurrency_limit_to_default("training")
        # killed, then terminated on Dagster's pages
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        store.claim_concurrency_slot("training", run.run_id, "nvae_weights")
        end_dead_runs(instance, root)
        assert store.get_concurrency_info("training").active_slot_count == 1
        instance.report_run_canceled(run)
        end_dead_runs(instance, root)
        assert store.get_concurrency_info("training").active_slot_count == 0


def test_a_refresh_that_was_killed_between_two_runs_ends_in_mlflow(root):
    tracking = tracking_of(root, load(root))
    Record(root, "abc", Forecast([], {}, {}))
    parent = tracking.start_refresh("abc", "a refresh", "content")
    file = root.refreshes / "abc.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"process": ELSEWHERE}))
    client = tracking.client()
    client.set_tag(parent, "gaip3.process", ELSEWHERE)
    assert [r["refresh_id"] for r in killed(root)] == ["abc"]
    refresh_root(root, select=[])
    assert client.get_run(parent).info.status == "KILLED"
    assert killed(root) == []
    assert read_records(root)[0]["state"] == "stopped"


def test_who_holds_the_lock_ends_runs_of_a_refresh_of_this_host_that_has_not_quite_ended(root):
    job = definitions_of(root).resolve_implicit_global_asset_job_def()
    tags = {PROCESS_TAG: this_process()}
    with instance_of(root) as instance:
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert end_dead_runs(instance, root) == 1
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
