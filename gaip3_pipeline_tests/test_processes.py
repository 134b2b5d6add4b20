"""Processes are told alive from dead, also those of other hosts."""

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
from gaip3_pipeline.refresh.run import end_dead_runs
from gaip3_pipeline.settings import load
from gaip3_pipeline_tests.refreshing import definitions_of, instance_of

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
