"""MLflow's and Dagster's stores fail: a server that is down, a locked database, a full disk."""

import logging
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import dagster as dg
import pytest

from gaip3_pipeline.assets.trained import Trained, trained_asset
from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot, weights_file
from gaip3_pipeline.mlflow_tracking import MlflowTracking, TrackingError
from gaip3_pipeline.settings import load
from gaip3_pipeline.stores import errors_told_once
from gaip3_pipeline.tables.databases import DatabaseError, check_writable, sqlite_url
from gaip3_pipeline.tables.image_files import list_images
from gaip3_pipeline.versions import RootResource
from gaip3_pipeline_tests.registering import training
from gaip3_pipeline_tests.web.browser import WITHOUT_PROXY
from gaip3_pipeline_tests.web.processes import free_port

LOCK = """import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(600)
"""


@contextmanager
def locked(path):
    """Another process holds the lock of ``path``; yields its id."""
    process = subprocess.Popen([sys.executable, "-c", LOCK, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def server(tmp_path):
    """A real MLflow server: its address and its process."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", sqlite_url(tmp_path / "server.db")]
    command += ["--artifacts-destination", str(tmp_path / "server")]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                WITHOUT_PROXY.open(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield address, process
    finally:
        stop(process)


def stop(process):
    """Kill the server and its workers."""
    import os
    import signal
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_that_is_down_is_named_at_once_before_a_training_begins():
    address = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(TrackingError, match=f"{address} does not answer") as caught:
        training(MlflowTracking(uri=address)).__enter__()
    assert time.monotonic() - started < 15
    assert "\n" not in str(caught.value)


def test_a_server_that_accepts_connections_but_never_answers_is_named_within_15_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(TrackingError, match=address):
            MlflowTracking(uri=address).check()
    assert time.monotonic() - started < 15


def test_refresh_names_a_server_that_is_down_in_one_line(tmp_path, gaip3):
    from PIL import Image

    root = DataRoot(tmp_path)
    folder = root.originals / "thispersondoesnotexist.10k"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 128)).save(folder / "a.png")
    address = f"http://127.0.0.1:{free_port()}"
    root.settings_file.write_text(f'preset = "tiny"\n[tracking]\nuri = "{address}"\n')
    result = gaip3("refresh", "--select", "resized_d1", "--root", root.path)
    assert result.exit_code == 1
    assert address in result.output.splitlines()[-1]
    assert list_images(root.path / "resized") == []


def test_a_training_outlives_its_server_and_says_what_is_missing_there(tmp_path, server, capsys):
    address, process = server
    root = DataRoot(tmp_path / "root")
    root.path.mkdir()

    @trained_asset(
        load(root),
        folder=lambda root: root.critic,
        parameters=lambda settings: {"epochs": 3},
        name="critic_weights",
        deps=[],
        version=1,
        group="critic",
        kinds={"keras"},
        description="A tiny training.",
    )
    def train(step, run):
        import h5py

        run.log(1, {"loss": 1.0})
        stop(process)
        started = time.monotonic()
        for epoch in range(2, 100):
            run.log(epoch, {"loss": 1 / epoch})
        assert time.monotonic() - started < 20
        step.root.critic.mkdir(parents=True)
        with h5py.File(weights_file(step.root.critic), "w") as weights:
            weights["kernel"] = [1.0, 2.0]
        return Trained({"auc": 0.5}, {"curve": b"jpeg"})

    result = dg.materialize(
        [train],
        resources={
            "root": RootResource(path=str(root.path)),
            "tracking": MlflowTracking(uri=address),
        },
    )
    assert result.success
    assert weights_file(root.critic).exists()
    [line] = [line for line in capsys.readouterr().err.splitlines() if "lacks" in line]
    assert line.startswith(f"critic_weights: the MLflow server {address} failed and lacks")
    assert "99 × metrics" in line  # 98 epochs and the final figures
    assert "the registered model" in line


def test_what_a_locked_store_did_not_take_is_delivered_when_it_is_free(tmp_path, capsys):
    store = MlflowTracking(
        uri=sqlite_url(tmp_path / "mlflow.db"), artifacts=str(tmp_path / "artifacts")
    )
    with training(store) as run:
        run.log(1, {"loss": 1.0})
        with locked(tmp_path / "mlflow.db"):
            run.log(2, {"loss": 0.5})
        run.log(3, {"loss": 0.25})
        run.text("changes.csv", "a,b")
    history = store.client().get_metric_history(run.run_id, "epoch/loss")
    assert [m.value for m in history] == [1.0, 0.5, 0.25]
    assert store.client().get_run(run.run_id).info.status == "FINISHED"
    assert [a.path for a in store.client().list_artifacts(run.run_id)] == ["changes.csv"]
    told = capsys.readouterr().err
    assert "delivers its figures later" in told
    assert "lacks" not in told


@pytest.mark.parametrize("name", ["dagster_runs", "dagster_events", "mlflow_db"])
def test_a_locked_database_is_one_line_with_its_file_and_its_holder(tmp_path, name, monkeypatch):
    monkeypatch.setattr("gaip3_pipeline.tables.databases.PATIENCE_SECONDS", 0.2)
    database = getattr(DataRoot(tmp_path), name)
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as store:
        store.execute("CREATE TABLE runs (id)")
        if name != "mlflow_db":
            store.execute("PRAGMA journal_mode = WAL")
    with locked(database) as holder, pytest.raises(DatabaseError) as caught:
        check_writable(DataRoot(tmp_path).databases)
    assert str(caught.value).startswith(f"{database} is locked by process {holder}: ")
    assert "\n" not in str(caught.value)
    check_writable(DataRoot(tmp_path).databases)


def test_a_database_that_is_locked_during_a_refresh_is_one_line(tmp_path):
    """Dagster waits 5 s for its database of runs."""
    from PIL import Image

    root = DataRoot(tmp_path)
    folder = root.originals / "thispersondoesnotexist.10k"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 128)).save(folder / "a.png")
    root.settings_file.write_text('preset = "tiny"\n')
    command = [sys.executable, "-m", "gaip3_pipeline.cli", "refresh", "--select", "resized_d1"]
    process = subprocess.Popen(
        [*command, "--root", str(root.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list(root.refreshes.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    with locked(root.dagster_runs) as holder:
        _, errors = process.communicate(timeout=120)
    lines = errors.decode().splitlines()
    assert lines[-1].startswith(f"Error: {root.dagster_runs} is locked by process {holder}")
    assert "Traceback" not in errors.decode()
    assert process.returncode == 1


def test_a_full_disk_is_named_by_the_path_of_the_file(tmp_path):
    """RLIMIT_FSIZE stands for a disk that takes 64 KiB."""
    code = """
import resource, signal, sys
from pathlib import Path
import h5py, numpy as np
from PIL import Image
from gaip3_pipeline.imaging.packing import pack
from gaip3_pipeline.tables.files import writing
numbers = np.random.default_rng(1).random(10**5)

def weights(path):
    with h5py.File(path, "w") as file:
        file["kernel"] = numbers

writers = {
    "text": lambda path: path.write_bytes(bytes(10**6)),
    "weights": weights,
    "arrays": lambda path: np.savez(path.open("wb"), numbers=numbers),
    "picture": lambda path: Image.effect_noise((900, 900), 50).save(path, "png"),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
for name, write in writers.items():
    path = Path(sys.argv[1]) / name
    try:
        with writing(path) as temporary:
            write(temporary)
    except OSError as e:
        assert e.filename == str(path), e
        assert e.strerror == "File too large", e
        print(name)
try:
    pack([0] * 99, Path(sys.argv[1]) / "packed.npy", 64, 64, load=lambda *_: np.zeros((64, 64, 3)))
except OSError as e:
    print(Path(e.filename).name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["text", "weights", "arrays", "picture", "packed.npy"]
    assert list(tmp_path.iterdir()) == []


def test_what_mlflows_database_lacks_of_a_refresh_is_said_in_one_line(tmp_path, capsys):
    root = DataRoot(tmp_path)
    tracking = tracking_of(root, load(root))
    parent = tracking.start_refresh("abc", "a refresh", "content")
    with closing(sqlite3.connect(root.mlflow_db)) as store:
        store.executescript(
            "CREATE TRIGGER full BEFORE INSERT ON latest_metrics BEGIN"
            " SELECT RAISE(ABORT, 'database or disk is full'); END;"
        )
    capsys.readouterr()
    tracking.end_refresh(parent, {"figure": 1.0}, [], True)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"MLflow's database {root.mlflow_db} lacks the figures of the refresh: ")
    assert "disk is full: free space on it" in line


def run_that_logs(root, disturb):
    """Run a job of Dagster that calls ``disturb`` and then writes to its log."""
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:

        @dg.op
        def step(context):
            disturb(instance, context.run_id)
            context.log.warning("a line")

        @dg.job
        def job():
            step()

        job.execute_in_process(
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def test_an_error_of_dagsters_database_is_raised_and_not_printed_before(tmp_path, capsys):
    root = DataRoot(tmp_path)

    def damage(instance, run_id):
        [events] = root.dagster_events.parent.glob(f"{run_id}.db")
        events.write_bytes(b"no database" * 1000)

    with pytest.raises(Exception, match="not a database"):
        run_that_logs(root, damage)
    assert capsys.readouterr().err == ""


def test_another_error_in_dagsters_log_is_printed(tmp_path, capsys):
    def fail(event):
        raise ValueError("of a listener")

    with pytest.raises(ValueError, match="of a listener"):
        run_that_logs(
            DataRoot(tmp_path), lambda instance, id_: instance.add_event_listener(id_, fail)
        )
    assert "of a listener" in capsys.readouterr().err


@pytest.mark.cluster
def test_the_attempts_of_dagster_and_mlflow_to_reach_a_database_are_not_logged(tmp_path):
    pytest.importorskip("dagster_postgres", reason="needs the extra cluster")
    from dagster_postgres.utils import DagsterPostgresException, retry_pg_connection_fn
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _get_managed_session_maker
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import sessionmaker

    class Kept(logging.Handler):
        def emit(self, record):
            said.add(record.getMessage().splitlines()[0])

    said, kept = set(), Kept()
    missing = create_engine(sqlite_url(tmp_path / "no folder" / "a.db"))

    def attempt():
        with pytest.raises(DagsterPostgresException):
            retry_pg_connection_fn(missing.connect, retry_limit=1, retry_wait=0.01)
        session = _get_managed_session_maker(sessionmaker(missing), "sqlite")
        with pytest.raises(MlflowException), session() as opened:
            opened.execute(text("SELECT 1"))

    talkers = [logging.getLogger(name) for name in ("", "mlflow.store.db.utils")]
    for talker in talkers:
        talker.addHandler(kept)
    try:
        with errors_told_once():
            attempt()
            for talker in talkers:
                talker.error(f"another error of {talker.name}")
        assert said == {f"another error of {talker.name}" for talker in talkers}
        attempt()
        assert len(said) == 4
    finally:
        for talker in talkers:
            talker.removeHandler(kept)
