"""``gaip3 storage move``: a root's history goes from sqlite into Postgres and nothing is lost."""

import fcntl

import dagster as dg
import pytest

from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import CHAMPION
from gaip3_pipeline.settings import load
from gaip3_pipeline.versions import AssetResult, observation_if_changed
from gaip3_pipeline_tests.refresh.test_run import names, relabel
from gaip3_pipeline_tests.refreshing import instance_of, plan_of, refresh_root

pytestmark = pytest.mark.cluster
OWN = '# the preset of this root\npreset = "tiny"  # small\n'


@pytest.fixture
def root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path / "그림 root")
    root.path.mkdir()
    root.settings_file.write_text(OWN, encoding="utf-8")
    return root


def history(instance: dg.DagsterInstance) -> dict[str, object]:
    """What Dagster tells of each asset and each run."""
    told: dict[str, object] = {}
    for key in instance.all_asset_keys():
        record = instance.get_latest_data_version_record(key)
        told[key.to_user_string()] = (record.storage_id, record.event_log_entry) if record else None
    for run in instance.get_run_records():
        run_id = run.dagster_run.run_id
        steps = instance.get_run_step_stats(run_id)
        told[run_id] = (
            run,
            instance.get_run_stats(run_id),
            {s.step_key: (s.status, s.start_time, s.end_time) for s in steps},
            sorted(str(e) for e in instance.all_logs(run_id)),
        )
    return told


def aliases(root: DataRoot) -> dict[str, dict[str, str]]:
    models = tracking_of(root, load(root)).client().search_registered_models()
    return {m.name: {alias: str(n) for alias, n in m.aliases.items()} for m in models}


def test_a_finished_root_is_as_fresh_in_postgres_as_before(gaip3, root_copy, postgres, monkeypatch):
    monkeypatch.setenv("FACES_DAGSTER", postgres.create("finished_dagster"))
    monkeypatch.setenv("FACES_MLFLOW", postgres.create("finished_mlflow"))
    with instance_of(root_copy) as instance:
        before = history(instance)
    registered = aliases(root_copy)
    assert registered["nvae_weights"][CHAMPION] == "1"
    words = ("--dagster", "env:FACES_DAGSTER", "--mlflow", "env:FACES_MLFLOW")

    done = gaip3("storage", "move", "--root", root_copy.path, *words)

    assert done.exit_code == 0, done.output
    counts = [line.split() for line in done.output.splitlines()[1:-1]]
    assert {(package, table) for package, table, *_ in counts} >= {
        ("dagster", "event_logs"),
        ("dagster", "asset_check_executions"),
        ("mlflow", "metrics"),
        ("mlflow", "registered_model_aliases"),
    }
    assert all(was == now for _, _, was, now in counts)
    assert load(root_copy).storage.dagster == "env:FACES_DAGSTER"
    with instance_of(root_copy) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert history(instance) == before
    assert aliases(root_copy) == registered
    assert plan_of(root_copy) == []
    relabel(root_copy, "mouth")
    assert refresh_root(root_copy, ["labels_mouth"]).materialized == ["labels_mouth"]
    assert "labels_mouth" not in names(plan_of(root_copy))


def observe(root: DataRoot, version: str) -> int:
    """Record an event outside of runs; returns its number in the store."""
    with instance_of(root) as instance:
        event = observation_if_changed(instance, "dropped_images", AssetResult(version))
        instance.report_runless_asset_event(event)
        return instance.get_latest_data_version_record(dg.AssetKey("dropped_images")).storage_id


def refused(gaip3, root: DataRoot, *words: str) -> str:
    """The one line of a move that is refused; the settings stay as they are."""
    before = root.settings_file.read_bytes()
    done = gaip3("storage", "move", "--root", root.path, *words)
    assert done.exit_code == 1, done.output
    assert root.settings_file.read_bytes() == before
    [line] = done.output.splitlines()
    return line


def test_a_move_keeps_numbers_and_comments_and_needs_an_empty_database(
    gaip3, root, postgres, monkeypatch
):
    monkeypatch.setenv("FACES_DB", postgres.create("moved"))
    words = ("--dagster", "env:FACES_DB")
    assert "there is no history to move" in refused(gaip3, root, *words)
    first = observe(root, "a" * 64)
    both = (*words, "--mlflow", "env:FACES_DB")
    assert "give each a database of its own" in refused(gaip3, root, *both)
    assert "contains a password" in refused(gaip3, root, "--dagster", postgres.url("moved"))
    with root.refresh_lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another refresh of" in refused(gaip3, root, *words)

    counted = gaip3("storage", "move", "--root", root.path, *words, "--dry-run")
    assert counted.exit_code == 0, counted.output
    assert ["dagster", "event_logs", "1"] in [li.split() for li in counted.output.splitlines()]
    assert "CREATE TABLE" not in postgres.dump("moved")

    done = gaip3("storage", "move", "--root", root.path, *words)
    assert done.exit_code == 0, done.output
    assert ["dagster", "event_logs", "1", "1"] in [li.split() for li in done.output.splitlines()]
    assert root.settings_file.read_text() == OWN + '\n[storage]\ndagster = "env:FACES_DB"\n'
    assert observe(root, "b" * 64) == first + 1
    assert "is set already" in refused(gaip3, root, *words)
    root.settings_file.write_text(OWN)
    assert "has a history already (2 rows in event_logs)" in refused(gaip3, root, *words)
