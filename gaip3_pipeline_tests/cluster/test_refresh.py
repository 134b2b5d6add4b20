"""``gaip3 refresh`` whose steps run on the nodes of a real Ray cluster, with its stores in
Postgres. The tests of this file continue one root."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterEventType

from gaip3_pipeline.cluster.connection import RUN_LABEL, job_client
from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.refresh.run import UNFINISHED
from gaip3_pipeline.settings import load
from gaip3_pipeline_tests.cluster.conftest import STORES
from gaip3_pipeline_tests.cluster.nodes import Nodes, ip
from gaip3_pipeline_tests.refreshing import instance_of, refresh_command, refresh_root

pytestmark = pytest.mark.cluster
TRAININGS = ("evaluator_mouth", "evaluator_head")


@pytest.fixture(scope="module")
def root(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataRoot]:
    """Painted faces with labels. Settings name the cluster, and the variables with the URLs of the
    databases."""
    root = DataRoot(tmp_path_factory.mktemp("cluster") / "root")
    root.path.mkdir()
    root.settings_file.write_text(
        f'preset = "tiny"\n[cluster]\naddress = "{nodes.jobs}"\n'
        f'[storage]\ndagster = "env:{STORES["dagster"]}"\n'
        f'[tracking]\nuri = "env:{STORES["mlflow"]}"\n',
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, url in nodes.variables.items():
            patch.setenv(name, url)
        write_dataset(root, load(root).faces)
        yield root


def test_two_trainings_take_turns_and_pictures_equal_those_made_here(
    root: DataRoot, tmp_path: Path
) -> None:
    done = refresh(root, *TRAININGS)
    assert done.returncode == 0, done.stdout + done.stderr
    here = DataRoot(tmp_path / "here")
    here.path.mkdir()
    here.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    write_dataset(here, load(here).faces)
    refresh_root(here, ["resized_d1", "resized_d2_female", "resized_d2_male"])
    assert contents(root) == contents(here)
    assert len(contents(root)) == 260

    [record] = read_records(root)
    assert record["state"] == "finished"
    made = {r["name"] for r in record["results"]}
    assert {*TRAININGS, "resized_d1", "labels_mouth", "near_duplicates"} <= made
    assert all(a["state"] == "made" for a in record["assets"].values())
    assert "assets made in" in done.stdout
    with instance_of(root) as instance:
        first, second = sorted(span(instance, name) for name in TRAININGS)
        assert first[1] <= second[0]  # the pool "training" has one place
        checks = instance.event_log_storage.get_asset_check_summary_records(
            [dg.AssetCheckKey(dg.AssetKey("resized_d1"), "usable")]
        )
        assert all(c.last_check_execution_record for c in checks.values())
    plan = subprocess.run(
        [*refresh_command(root, "--dry-run"), "--select", TRAININGS[0]],
        capture_output=True,
        text=True,
    )
    assert "Nothing is stale" in plan.stdout, plan.stdout + plan.stderr


def test_a_killed_refresh_leaves_no_job_and_no_slot_and_is_continued(
    root: DataRoot, nodes: Nodes
) -> None:
    with root.settings_file.open("a", encoding="utf-8") as f:
        f.write("[evaluator]\nepochs = 400\n")
    refreshing = subprocess.Popen(
        refresh_command(root, "--select", TRAININGS[0]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    progress = root.step_progress(TRAININGS[0])
    until(progress.exists, "the training reports no progress")
    os.killpg(refreshing.pid, signal.SIGKILL)
    refreshing.wait()
    client = job_client(nodes.jobs)
    until(
        lambda: all(j.status.is_terminal() for j in client.list_jobs() if RUN_LABEL in j.metadata),
        "a job goes on without its refresh",
    )
    text = root.settings_file.read_text(encoding="utf-8")
    root.settings_file.write_text(text.replace("epochs = 400", "epochs = 2"), encoding="utf-8")
    again = refresh(root, TRAININGS[0])
    assert again.returncode == 0, again.stdout + again.stderr
    with instance_of(root) as instance:
        assert instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)) == []
        pool = instance.event_log_storage.get_concurrency_info("training")
        assert (pool.active_slot_count, pool.pending_step_count) == (0, 0)
    assert [r["state"] for r in read_records(root)] == ["finished", "stopped", "finished"]


def test_a_step_whose_node_is_lost_is_repeated_on_another_node(
    root: DataRoot, nodes: Nodes
) -> None:
    text = root.settings_file.read_text(encoding="utf-8")
    # no node but the two of this test has room for it
    text = text.replace("address = ", "cpus = 2\naddress = ").replace("epochs = 2", "epochs = 60")
    root.settings_file.write_text(text, encoding="utf-8")
    lost, other = ip(4), ip(5)
    nodes.start(lost, cpus=2)
    refreshing = subprocess.Popen(
        refresh_command(root, "--select", TRAININGS[1]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    progress = root.step_progress(TRAININGS[1])
    until(progress.exists, "the training reports no progress")
    assert f"{TRAININGS[1]} on {lost}" in progress.read_text(encoding="utf-8")
    # as after a crash of Ray there: the step itself lives on, in a session of its own
    left = nodes.kill(lost, sparing="execute_step")
    assert left
    until(lambda: not any(map(psutil.pid_exists, left)), "a step goes on without its node", 20)
    nodes.start(other, cpus=2)
    output, _ = refreshing.communicate(timeout=300)
    nodes.kill(other)
    assert refreshing.returncode == 0, output
    assert "its machine was lost" in output
    assert f"{TRAININGS[1]} on {other}" in output
    with instance_of(root) as instance:
        [made] = instance.fetch_materializations(dg.AssetKey(TRAININGS[1]), limit=1).records
        assert made.asset_materialization
        assert made.asset_materialization.metadata["node"].value == other
        events = {
            kind: instance.get_records_for_run(made.run_id, of_type=kind).records
            for kind in (DagsterEventType.STEP_UP_FOR_RETRY, DagsterEventType.STEP_SUCCESS)
        }
    assert {kind.value: len(found) for kind, found in events.items()} == {
        "STEP_UP_FOR_RETRY": 1,
        "STEP_SUCCESS": 1,
    }
    assert read_records(root)[-1]["state"] == "finished"


def refresh(root: DataRoot, *assets: str) -> subprocess.CompletedProcess[str]:
    selected = [word for name in assets for word in ("--select", name)]
    return subprocess.run(
        refresh_command(root, *selected), capture_output=True, text=True, timeout=600
    )


def contents(root: DataRoot) -> dict[str, str]:
    """The hash of every resized picture by its path."""
    files = sorted((root.path / "resized").rglob("*.jpg"))
    return {root.relative(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def span(instance: dg.DagsterInstance, name: str) -> tuple[float, float]:
    """When the last step of an asset began and ended."""
    [made] = instance.fetch_materializations(dg.AssetKey(name), limit=1).records
    [stats] = instance.get_run_step_stats(made.run_id, [name])
    assert stats.start_time
    assert stats.end_time
    return stats.start_time, stats.end_time


def until(happens: object, otherwise: str, seconds: float = 180) -> None:
    assert callable(happens)
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, otherwise
        time.sleep(0.3)
