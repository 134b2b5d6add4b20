"""The servers of ``gaip3 ui`` as real processes: start, ports, errors and end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import httpx
import psutil
import pytest

from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import REPOSITORY, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.web.servers import (
    RESTARTS,
    Server,
    ServerError,
    _get,
    _reservations,
    _revive,
    choose_ports,
    port_is_free,
    serve,
)
from gaip3_pipeline_tests.web.browser import WITHOUT_PROXY
from gaip3_pipeline_tests.web.processes import processes_of, start, wait_for, wait_until_gone

SERVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.web.servers import serve
port = int(sys.argv[3])
ports = {"dagster_port": port, "mlflow_port": port + 100, "label_port": port + 200}
serve(DataRoot(Path(sys.argv[1])), **ports, module=sys.argv[4])
"""
DEFINITIONS = """
import dagster as dg

@dg.asset(group_name="faces")
def portraits() -> None: ...

defs = dg.Definitions(assets=[portraits])
"""


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "얼굴 data")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "portrait_definitions.py").write_text(DEFINITIONS)
    (folder / "broken_definitions.py").write_text(
        "raise ValueError('learning_rate must be positive')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")
    return folder


def listening() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def status_of(url: str, headers: dict[str, str] | None = None) -> int:
    return httpx.get(url, headers=headers, trust_env=False).status_code


def opens_websocket(port: int, origin: str) -> bool:
    """Whether Dagster opens a websocket for a page of ``origin``."""
    lines = [
        *("GET /graphql HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: {origin}"),
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: graphql-ws"),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(100).startswith(b"HTTP/1.1 101 ")


def test_all_pages_are_served_until_sigterm_and_then_no_process_is_left(
    root: DataRoot, modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "ui.log"
    others = {  # of the user's other projects
        "MLFLOW_STATIC_PREFIX": "/elsewhere",
        "MLFLOW_REGISTRY_STORE_URI": "sqlite:////proc/x.db",
        "http_proxy": "http://127.0.0.1:9",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # of this test; the servers' own checks need none
    with listening() as taken:
        busy = taken.getsockname()[1]
        process = start(SERVE, log, str(root.path), str(modules), str(busy), "portrait_definitions")
        printed = wait_for("Ctrl-C stops them.", log, process)
        assert f"Port {busy} is in use; dagster gets {busy + 1}." in printed

        labels, _studio, dagster, mlflow = re.findall(r"http://127\.0\.0\.1:\d+", printed)
        query = json.dumps({"query": "{ assetNodes { groupName assetKey { path } } }"}).encode()
        request = urllib.request.Request(
            f"{dagster}/graphql", query, {"Content-Type": "application/json"}
        )
        with WITHOUT_PROXY.open(request) as answer:
            assert json.load(answer)["data"]["assetNodes"] == [
                {"groupName": "faces", "assetKey": {"path": ["portraits"]}}
            ]
        with WITHOUT_PROXY.open(f"{mlflow}/") as answer:
            assert b"<title>MLflow</title>" in answer.read()
        with WITHOUT_PROXY.open(f"{labels}/api/about") as answer:
            assert json.load(answer)["links"] == {
                "Dagster": dagster,
                "MLflow": f"{mlflow}/#/experiments/1/runs?workflowType=machine_learning",
            }
        mutation = f"{dagster}/graphql?query=mutation%7B__typename%7D"
        other_site = {"Sec-Fetch-Site": "cross-site"}
        assert status_of(mutation) == 200  # Dagster runs what comes by GET
        assert status_of(mutation, other_site) == 403
        for page, hosts in ((dagster, ("evil.example", "[")), (mlflow, ("10.evil.example",))):
            for host in hosts:
                assert status_of(f"{page}/", {"Host": host}) == 403
        port = int(dagster.rpartition(":")[2])
        for origin, opened in ((dagster, True), ("http://evil.example", False)):
            assert opens_websocket(port, origin) == opened

        found = tracking_of(root, load(root)).client().search_experiments()
        assert [e.name for e in found] == ["gaip3"]  # before the first training
        assert found[0].artifact_location == root.mlflow_artifacts.as_uri()
        assert root.mlflow_db.exists()
        assert len(processes_of(root.path)) >= 6

        with pytest.raises(ServerError, match=r"is served already: .*Stop that one first"):
            serve(root)

        # a server that ends is started again; the others stay
        before = {child.pid for child in psutil.Process(process.pid).children()}
        [label] = [
            child
            for child in psutil.Process(process.pid).children()
            if "gaip3_pipeline.cli" in child.cmdline()
        ]
        os.kill(label.pid, signal.SIGKILL)
        printed = wait_for("It is started again.", log, process)
        assert "The label server ended by SIGKILL" in printed
        assert str(root.server_log("label")) in printed
        until = time.monotonic() + 60
        while _get(f"{labels}/api/about") is None:
            assert time.monotonic() < until
            time.sleep(0.2)
        after = {child.pid for child in psutil.Process(process.pid).children()}
        assert before - after == {label.pid}

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert processes_of(root.path) == []
    assert log.read_text(encoding="utf-8").endswith("Stopped.\n")


def test_a_server_that_ends_again_and_again_is_left_and_its_last_error_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mlflow.log"

    def start_it() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            ends = ["sh", "-c", "echo OSError: no space left; echo bye; exit 3"]
            return subprocess.Popen(ends, stdout=output, start_new_session=True)

    server = Server("mlflow", start_it(), log, start_it)
    for _ in range(RESTARTS + 3):
        server.process.wait()
        _revive(server)
    *again, last = capsys.readouterr().out.splitlines()
    assert len(again) == RESTARTS
    assert {line.rpartition(". ")[2] for line in again} == {"It is started again."}
    assert again[0].startswith("The mlflow server ended with code 3: OSError: no space left")
    assert "the others go on" in last


def test_definitions_that_do_not_load_are_reported_and_a_killed_parent_leaves_no_process(
    root: DataRoot, modules: Path, tmp_path: Path
) -> None:
    log = tmp_path / "ui.log"
    process = start(SERVE, log, str(root.path), str(modules), "23400", "broken_definitions")
    printed = wait_for("Ctrl-C stops them.", log, process)
    assert "The definitions do not load:" in printed
    assert "learning_rate must be positive" in printed

    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert wait_until_gone(root.path) == []


def test_a_port_in_use_is_replaced_by_the_next_free_one_that_no_other_server_gets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening() as taken:
        busy = taken.getsockname()[1]
        assert not port_is_free(busy)
        ports = choose_ports(dagster=busy, mlflow=busy)
    assert busy < ports["dagster"] < ports["mlflow"]
    assert f"Port {busy} is in use; dagster gets {ports['dagster']}." in capsys.readouterr().out


def test_two_commands_that_start_together_choose_different_ports() -> None:
    with listening() as soon_free:
        wanted = soon_free.getsockname()[1]
    with _reservations() as first, _reservations() as second:
        chosen = [choose_ports(reserve=r, dagster=wanted, mlflow=wanted) for r in (first, second)]
    assert len({port for ports in chosen for port in ports.values()}) == 4
    with _reservations() as later:
        assert choose_ports(reserve=later, dagster=wanted) == {"dagster": chosen[0]["dagster"]}


def test_a_connection_of_a_socket_to_itself_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as soon_free:
        port = soon_free.getsockname()[1]
    connect = http.client.HTTPConnection.__init__
    monkeypatch.setattr(
        http.client.HTTPConnection,
        "__init__",
        lambda self, *a, **k: connect(self, *a, **{**k, "source_address": ("127.0.0.1", port)}),
    )
    assert _get(f"http://127.0.0.1:{port}/") is None


def test_a_port_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ServerError, match="No free port from 70000"):
        choose_ports(dagster=70000)


def test_another_root_keeps_dagsters_storage_inside_itself(root: DataRoot) -> None:
    home = ensure_dagster_home(root)
    written = (home / "dagster.yaml").read_text(encoding="utf-8")
    assert written.count(f'base_dir: "{root.path}/.gaip3/dagster') == 3
    assert "base_dir: .gaip3" not in written

    before = (home / "dagster.yaml").stat().st_mtime_ns
    assert ensure_dagster_home(root) == home
    assert (home / "dagster.yaml").stat().st_mtime_ns == before
