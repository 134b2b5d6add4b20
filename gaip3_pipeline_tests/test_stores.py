"""Stores in Postgres: what the settings may say, what is wrong with a database, who holds the lock,
and where no secret may be."""

import os
import shutil
import time

import pytest

from gaip3_pipeline import stores
from gaip3_pipeline.dagster_home import dagster_store, ensure_dagster_home, mlflow_store
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.plan import RefreshError
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.refresh.run import observe_only, plan, refresh
from gaip3_pipeline.settings import SettingsError, load
from gaip3_pipeline.stores import Lock, Occupied, StoreError
from gaip3_pipeline_tests.refreshing import definitions_of, instance_of
from gaip3_pipeline_tests.registering import training

IN_POSTGRES = "[storage]\ndagster = 'env:FACES_DAGSTER'"
URL = "postgresql+psycopg2://gaip3@db/faces"


@pytest.fixture
def root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path / "그림 root")
    root.path.mkdir()
    configure(root)
    return root


def configure(root: DataRoot, text: str = "") -> None:
    root.settings_file.write_text(f'preset = "tiny"\n{text}\n', encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("[storage]\ndagster = 'postgresql://db/faces'", r"dagster: postgresql:// does not work"),
        ("[storage]\ndagster = 'sqlite:///faces.db'", r"dagster: sqlite:// does not work here"),
        ("[storage]\ndagster = 'faces'", "dagster: a URL without a scheme does not work here"),
        ("[storage]\ndagster = 'postgresql+psycopg2://db'", "dagster: the URL names no database"),
        ("[storage]\ndagster = 'postgresql+psycopg2://a:b@db/faces'", "contains a password"),
        ("[storage]\ndagster = 'postgresql+psycopg2://db/f?password=b'", "contains a password"),
        ("[storage]\ndagster = 'env:'", "'' is not the name of an environment variable"),
        ("[tracking]\nuri = 'postgresql://db/faces'", r"uri: postgresql:// does not work here"),
        ("[tracking]\nuri = 'https://a:b@db'", "uri: the URL contains a password"),
    ],
)
def test_settings_name_a_store_without_a_secret_and_by_a_scheme_that_works(root, line, remedy):
    configure(root, line)
    with pytest.raises(SettingsError, match=remedy) as refused:
        load(root)
    assert str(refused.value).startswith(f"{root.settings_file}: [{line[1:].split(']')[0]}] ")
    assert "\n" not in str(refused.value)


def test_dagsters_file_names_the_store_and_leaves_the_environment_to_dagster(root):
    configure(root, f"[storage]\ndagster = '{URL}'")
    written = (ensure_dagster_home(root) / "dagster.yaml").read_text()
    assert f'storage:\n  postgres:\n    postgres_url: "{URL}"\n' in written
    assert "sqlite" not in written
    assert written.count("base_dir") == 2  # files and logs of steps

    configure(root, "[storage]\ndagster = 'env:FACES_DB'")
    written = (ensure_dagster_home(root) / "dagster.yaml").read_text()
    assert '    postgres_url: {"env": "FACES_DB"}\n' in written

    configure(root)
    assert "postgres" not in (ensure_dagster_home(root) / "dagster.yaml").read_text()


def test_a_server_of_mlflows_keeps_the_files_of_runs_and_shows_them(root):
    configure(root, "[tracking]\nuri = 'https://mlflow.example/'")
    assert not mlflow_store(root).in_database
    link = tracking_of(root, load(root)).url("1", "a")
    assert link == ("https://mlflow.example/#/experiments/1/runs/a?workflowType=machine_learning")


def complaint(gaip3, root: DataRoot, setting: str, *words: str) -> str:
    """The message with which ``gaip3`` ends in seconds: one line."""
    configure(root, setting)
    start = time.monotonic()
    done = gaip3(*(words or ("refresh", "--dry-run")), "--root", root.path)
    assert time.monotonic() - start < 30
    assert done.exit_code == 1, done.output
    [line] = done.output.splitlines()
    return line


def test_a_store_that_cannot_be_reached_is_one_line(gaip3, root, monkeypatch):
    dagster = "[storage]\ndagster = 'env:FACES_DB'"
    monkeypatch.delenv("FACES_DB", raising=False)
    assert "variable FACES_DB is not set" in complaint(gaip3, root, dagster)
    monkeypatch.setenv("FACES_DB", "postgresql://u:geheim@db/faces")
    line = complaint(gaip3, root, dagster)
    assert "FACES_DB: postgresql:// does not work here" in line
    assert "geheim" not in line
    monkeypatch.setenv("FACES_DB", "postgresql+psycopg2://u:ge#heim@db/faces")
    line = complaint(gaip3, root, dagster)
    assert "FACES_DB: the URL cannot be read: write # / ? @ : in a password as %23" in line
    assert "heim" not in line
    monkeypatch.setattr(stores, "find_spec", lambda name: None)
    monkeypatch.setenv("FACES_DB", "postgresql+psycopg2://u:geheim@db/faces")
    assert "needs the extra cluster: uv sync --extra cluster" in complaint(gaip3, root, dagster)
    monkeypatch.setenv("FACES_DB", "https://u:geheim@db")
    configure(root, "[tracking]\nuri = 'env:FACES_DB'")
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        tracking_of(root, load(root)).client()
    assert "geheim" not in str(refused.value)
    configure(root, "[tracking]\nuri = 'http://127.0.0.1:1'")
    with pytest.raises(StoreError, match=r"127.0.0.1:1 does not answer .* start the MLflow server"):
        tracking_of(root, load(root)).client()


@pytest.mark.cluster
def test_a_database_that_cannot_be_used_is_one_line(gaip3, root, postgres, monkeypatch):
    def said(database: str, password: str | None = None) -> str:
        monkeypatch.setenv("FACES_DB", postgres.url(database, password))
        line = complaint(gaip3, root, "[storage]\ndagster = 'env:FACES_DB'")
        assert postgres.password not in line
        return line

    revision = "CREATE TABLE alembic_version (version_num varchar(32));"
    revision += "INSERT INTO alembic_version VALUES ('{}')"
    for name, number in (("old", "16e3655b4d9b"), ("new", "f" * 12), ("mlflows", "dc11669786a5")):
        postgres.create(name)
        postgres.execute(revision.format(number), name)
    here = f"[storage] dagster: 127.0.0.1:{postgres.port} "
    assert f"{here}refuses the password of gaip3: correct it in FACES_DB" in said("old", "wrong")
    assert f"{here}has no database none: createdb -O gaip3 none" in said("none")
    migrate = f"DAGSTER_HOME='{root.state}' dagster instance migrate"
    assert f"has the schema of an older dagster: make a backup, then run {migrate}" in said("old")
    assert "has the schema of a newer dagster: update this installation" in said("new")
    assert "is that of mlflow: the two need one database each" in said("mlflows")
    postgres.control("stop")
    try:
        assert f"{here}does not answer: start Postgres or wait" in said("old")
    finally:
        postgres.control("start")


@pytest.mark.cluster
def test_the_second_refresh_is_told_who_works_on_the_root(root, postgres, monkeypatch):
    monkeypatch.setenv("FACES_DB", postgres.create("locked"))
    configure(root, "[storage]\ndagster = 'env:FACES_DB'")
    store = dagster_store(root)
    me = rf"process {os.getpid()} on \S+"
    with Lock(store) as lock:
        with instance_of(root) as instance, pytest.raises(RefreshError, match=me):
            refresh(definitions_of(root), instance, root, tracking_of(root, load(root)))
        end_sessions(postgres)
        lock.check()  # takes it again
        with pytest.raises(Occupied, match=me), Lock(store):
            pass
        end_sessions(postgres)
        with Lock(store), pytest.raises(Occupied, match=me):
            lock.check()
    with Lock(store):
        pass


def end_sessions(postgres) -> None:
    """End all sessions but this one, as a restart of the server does."""
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE '%process %'",
        "postgres",
    )


@pytest.mark.cluster
def test_a_database_that_another_root_left_is_refused(painted, tmp_path, gaip3):
    assert refreshed(painted) == []
    other = DataRoot(tmp_path / "other")
    shutil.copytree(painted.path, other.path, ignore=shutil.ignore_patterns(".gaip3"))
    with pytest.raises(StoreError, match=f"another root .{painted.path}.: drop and create it"):
        refreshed(other)
    said = gaip3("doctor", "--root", other.path).output
    assert f"the history of another root ({painted.path})" in said
    new = DataRoot(tmp_path / "new")
    new.path.mkdir()
    shutil.copy(painted.settings_file, new.settings_file)
    with instance_of(painted) as instance:  # as a version of before left it
        owner = instance.run_storage.get_cursor_values({"gaip3/root"})
        instance.run_storage.set_cursor_values({"gaip3/root": "null"})
        with pytest.raises(StoreError, match="the history of another root: drop and create it"):
            refreshed(new)
        instance.run_storage.set_cursor_values(owner)
    moved = DataRoot(tmp_path / "moved")
    painted.path.rename(moved.path)  # a root that moved keeps its history
    assert refreshed(moved) == []


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("faces"))
    configure(root)
    write_dataset(root, load(root).faces)
    return root


@pytest.fixture
def painted(root: DataRoot, faces, postgres, monkeypatch, request) -> DataRoot:
    """A root with pictures and its history in Postgres, the password in the environment."""
    monkeypatch.setenv("FACES_DAGSTER", postgres.create(request.node.name[:63]))
    shutil.copytree(faces.path, root.path, dirs_exist_ok=True)
    configure(root, IN_POSTGRES)
    return root


def refreshed(root: DataRoot, say=lambda line: None) -> list[str]:
    """Make two layers of assets; returns what is stale afterwards."""
    chosen = ["labels_mouth"]
    with instance_of(root) as instance:
        definitions = definitions_of(root)
        tracking = tracking_of(root, load(root))
        refresh(definitions, instance, root, tracking, select=chosen, say=say)
        return [p.name for p in plan(definitions, instance, observe_only(instance, root), chosen)]


@pytest.mark.cluster
def test_a_refresh_goes_on_after_a_restart_of_postgres(painted, postgres):
    restarted = []

    def restart(line: str) -> None:
        if ": making " in line:
            postgres.control("restart")
            restarted.append(line)

    assert refreshed(painted, restart) == []
    assert len(restarted) == 2


@pytest.mark.cluster
def test_a_refresh_ends_with_one_line_without_postgres_and_is_continued(
    painted, postgres, monkeypatch
):
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda *_, **__: 0)

    def stop(line: str) -> None:
        if ": making labels_" in line:
            postgres.control("stop")

    with pytest.raises(StoreError, match="does not answer: start Postgres") as ended:
        refreshed(painted, stop)
    assert "\n" not in str(ended.value)
    assert str(ended.value).endswith("then run the same command again to continue")
    [record] = read_records(painted)
    assert (record["state"], record["message"]) == ("failed", str(ended.value))
    postgres.control("start")
    made: list[str] = []
    assert refreshed(painted, made.append) == []
    [stage] = [line for line in made if "making " in line]
    assert stage.startswith("stage 1 of 1")
    assert stage.endswith(": making labels_mouth")


@pytest.mark.cluster
def test_a_training_outlives_a_stop_of_postgres(root, postgres, monkeypatch, capfd):
    monkeypatch.setenv("FACES_MLFLOW", postgres.create("outlived"))
    configure(root, "[tracking]\nuri = 'env:FACES_MLFLOW'")
    tracking = tracking_of(root, load(root))
    with training(tracking) as run:
        run.log(1, {"loss": 3.0})
        postgres.control("stop")
        run.log(2, {"loss": 2.0})
        assert not tracking.promote("gender_model", "of these weights")
        postgres.control("start")
    curve = tracking.client().get_metric_history(run.run_id, "epoch/loss")
    assert [(m.step, m.value) for m in curve] == [(1, 3.0), (2, 2.0)]
    assert "the training goes on and delivers its figures later" in capfd.readouterr().err


@pytest.mark.cluster
def test_no_secret_is_in_settings_stores_metadata_or_logs(painted, postgres, capfd, monkeypatch):
    databases = [os.environ["FACES_DAGSTER"].rpartition("/")[2], "runs"]
    monkeypatch.setenv("FACES_MLFLOW", postgres.create("runs"))
    configure(painted, f"{IN_POSTGRES}\n[tracking]\nuri = 'env:FACES_MLFLOW'")
    refreshed(painted, print)
    tracking = tracking_of(painted, load(painted))
    with training(tracking) as run:
        run.text("notes.csv", "a,b\n")
    [notes] = painted.mlflow_artifacts.rglob("notes.csv")
    assert notes.read_text() == "a,b\n"
    where = [p for p in painted.path.rglob("*") if p.is_file()]
    assert painted.settings_file in where
    assert [p for p in where if postgres.password.encode() in p.read_bytes()] == []
    for name in databases:
        dumped = postgres.dump(name)
        assert postgres.password not in dumped
        assert "gender_model" in dumped or "labels_mouth" in dumped
    said = capfd.readouterr()
    assert "making resized_" in said.out
    assert postgres.password not in said.out + said.err
