"""The servers of Dagster, MLflow and the label page for one data root: started, watched and stopped
together, on loopback only.

There are at most five servers, each in a process group of its own: the code server with the
definitions; Dagster's web server and its daemon, which share the code server, so that "Reload" on
the page also reloads what the sensors use; MLflow, unless the settings name a server that runs
elsewhere; and the label page with the studio. A further process, a small shell loop, ends the
groups if this process is killed and cannot do it.

The content of the pages comes from ``definitions`` and ``mlflow_tracking``, not from here.
"""

import errno
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from gaip3_pipeline.dagster_home import (
    dagster_store,
    ensure_dagster_home,
    environment,
    mlflow_store,
)
from gaip3_pipeline.layout import REPOSITORY, DataRoot, servers_files
from gaip3_pipeline.mlflow_tracking import for_own_store
from gaip3_pipeline.stores import is_server

HOST = "127.0.0.1"
DEFINITIONS = "gaip3_pipeline.definitions"
LOCATION = "gaip3_pipeline"
READY_SECONDS = 240  # MLflow writes its tables on the first start: 37 s on two busy cores
STOP_SECONDS = 12  # Dagster's processes need 4 s; processes left after this are killed
PORTS_TRIED = 50

_WATCHDOG = """
groups=
while read -r line; do
  [ "$line" = stopped ] && exit 0
  groups="$groups -$line"
done
kill -s TERM -- $groups 2>/dev/null
sleep 6
kill -s KILL -- $groups 2>/dev/null
rm -rf -- "$0"
"""
_LOCATIONS = """{ workspaceOrError { __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message errorChain { error { message } } } } } } } }"""


class ServerError(RuntimeError):
    """A server did not start, or ended unexpectedly; the message is one line with the remedy."""


@dataclass
class Server:
    """One running server, the leader of its own process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class _Stopped(Exception):
    """The user asked to stop while the servers were starting."""


def serve(
    root: DataRoot,
    dagster_port: int = 3000,
    mlflow_port: int = 5000,
    label_port: int = 3100,
    module: str = DEFINITIONS,
) -> None:
    """Serve Dagster, MLflow and the label page for ``root`` until Ctrl-C, SIGTERM or SIGHUP; then
    no process is left.

    A port in use is replaced by the next free one. ``module`` is the module of the definitions. If
    it does not load, the error is printed and the pages are served nevertheless, since Dagster's
    page can reload it. Raises :class:`ServerError` if a server does not start or ends unexpectedly,
    or if ``root`` is served already."""
    ensure_dagster_home(root)
    for store in filter(None, (dagster_store(root), mlflow := mlflow_store(root))):
        store.check()
    ports = choose_ports(dagster=dagster_port, mlflow=mlflow_port, label=label_port)
    pages = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    if is_server(mlflow.url):
        pages["mlflow"] = mlflow.url.rstrip("/")
    links = {"Labels": f"{pages['label']}/", "Studio": f"{pages['label']}/#studio"}
    links |= {"Dagster": f"{pages['dagster']}/asset-groups", "MLflow": f"{pages['mlflow']}/"}
    # The URLs are for links: of runs to MLflow's page, and of the label page to both others. The
    # last variable saves 8 processes.
    own = {
        "GAIP3_MLFLOW_URL": pages["mlflow"],
        "GAIP3_DAGSTER_URL": pages["dagster"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    variables = {**os.environ, **environment(root), **own}
    # not in the command line, which all users of this machine can read
    secret = {"mlflow": {"MLFLOW_BACKEND_STORE_URI": mlflow.url}}
    with (
        only_one(root, links),
        _stop_requests() as stop,
        tempfile.TemporaryDirectory(prefix="gaip3-", ignore_cleanup_errors=True) as folder,
        _watchdog(folder) as spawn,
    ):
        started = time.monotonic()
        _say(f"Starting Dagster, MLflow and the label page for {root.path} …")
        servers: list[Server] = []
        try:
            commands = _commands(root, Path(folder), ports, module)
            if is_server(mlflow.url):
                del commands["mlflow"]
            for name, command in commands.items():
                log = root.server_log(name)
                kept = for_own_store(variables) if name == "mlflow" else variables
                given = kept | secret.get(name, {})
                with log.open("wb") as output:
                    servers.append(Server(name, spawn(command, given, output), log))
                if name == "code":
                    _wait(servers_files(Path(folder))[0].exists, servers, stop)
            _wait(lambda: _dagster_ready(ports["dagster"]), servers, stop)
            if "mlflow" in commands:
                _wait(lambda: _get(f"{pages['mlflow']}/health") is not None, servers, stop)
            _wait(lambda: _get(f"{pages['label']}/api/about") is not None, servers, stop)
            _say(f"Ready after {time.monotonic() - started:.0f} s.")
            for problem in _load_errors(ports["dagster"]):
                _say(
                    f"The definitions do not load: {problem}\nCorrect it, then press Reload on"
                    " Dagster's page (Deployment)."
                )
            for name, link in links.items():
                _say(f"  {name:8} {link}")
            _say(f"  {'Logs':8} {root.server_log('dagster').parent}\nCtrl-C stops them.")
            while not stop.wait(0.5):
                _check_alive(servers)
        except _Stopped:
            pass
        finally:
            _say("Stopping …")
            _stop(servers)
    _say("Stopped.")


def choose_ports(host: str = HOST, **wanted: int) -> dict[str, int]:
    """For each server the wanted port of ``host``, or the next free one, which is printed. Raises
    :class:`ServerError` if none of the next 50 is free."""
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        candidates = range(port, min(port + PORTS_TRIED, 65536))
        free = next(
            (p for p in candidates if p not in chosen.values() and port_is_free(p, host)), None
        )
        if free is None:
            raise ServerError(
                f"No free port from {port} to {candidates[-1] if candidates else port} for {name}:"
                " choose another one."
            )
        if free != port:
            _say(f"Port {port} is in use; {name} gets {free}.")
        chosen[name] = free
    return chosen


def port_is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on ``port`` of ``host``. Raises :class:`ServerError` if
    ``host`` is not an address of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ][0]
    except OSError as e:
        raise ServerError(f"--host {host}: {e.strerror}") from e
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            if e.errno == errno.EADDRNOTAVAIL:
                raise ServerError(
                    f"--host {host} is not an address of this machine; 0.0.0.0 means all of them"
                ) from e
            return False
        return True


def _commands(
    root: DataRoot, folder: Path, ports: dict[str, int], module: str
) -> dict[str, list[str]]:
    """The command of each server, in the order of their start. The code server listens on a socket
    that only this user can open."""
    code, workspace = servers_files(folder)
    location = {"host": "localhost", "socket": str(code), "location_name": LOCATION}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}), encoding="utf-8")
    root.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    return {
        "mlflow": [
            *(python, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports["mlflow"])),
            *("--workers", "1", "--artifacts-destination", str(root.mlflow_artifacts.absolute())),
        ],
        "code": [
            *(python, "-m", "dagster", "code-server", "start", "-m", module, "-s", str(code)),
            *("-d", str(REPOSITORY), "--location-name", LOCATION, "--log-level", "warning"),
            "--use-python-environment-entry-point",
        ],
        "dagster": [
            *(python, "-m", "dagster_webserver", "-w", str(workspace)),
            *("-h", HOST, "-p", str(ports["dagster"])),
        ],
        "daemon": [python, "-m", "dagster._daemon", "run", "-w", str(workspace)],
        "label": [
            *(python, "-m", "gaip3_pipeline.cli", "label"),
            *("--root", str(root.path), "--port", str(ports["label"])),
        ],
    }


@contextmanager
def only_one(root: DataRoot, links: dict[str, str]) -> Iterator[None]:
    """Hold the root's lock, since two daemons on one storage would run every sensor twice. Raises
    :class:`ServerError` if another process holds it."""
    root.ui_lock.parent.mkdir(parents=True, exist_ok=True)
    with root.ui_lock.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServerError(
                f"{root.path} is served already: {lock.read().strip() or 'it is starting'}. Stop"
                " that one first."
            ) from None
        lock.truncate(0)
        lock.write(", ".join(links.values()))
        lock.flush()
        yield


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set.

    Installing handlers also makes child processes start with the default actions. Without it they
    would inherit an ignored SIGINT from a shell that runs this command in the background, and
    Dagster keeps for SIGTERM the action that it inherits."""
    stop = threading.Event()

    def request(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {
        number: signal.signal(number, request)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watchdog(folder: str) -> Iterator[Any]:
    """A function that starts a process group; the group is ended even if this process is killed."""
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, folder],
        stdin=subprocess.PIPE,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    assert watchdog.stdin is not None
    pipe = watchdog.stdin

    def spawn(
        command: list[str], variables: dict[str, str], output: Any
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pipe.write(f"{process.pid}\n".encode())
        pipe.flush()
        return process

    try:
        yield spawn
    finally:
        with suppress(BrokenPipeError):
            pipe.write(b"stopped\n")
            pipe.close()
        watchdog.wait()


def _wait(ready: Any, servers: list[Server], stop: threading.Event) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        _check_alive(servers)
        if time.monotonic() > deadline:
            raise ServerError(
                f"Not ready after {READY_SECONDS} s; see the logs in {servers[0].log.parent}"
            )
        if stop.wait(0.25):
            raise _Stopped


def _check_alive(servers: list[Server]) -> None:
    for server in servers:
        if server.process.poll() is not None:
            lines = server.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it printed nothing"
            raise ServerError(
                f"The {server.name} server ended with code {server.process.returncode}: {last}"
                " (full"
                f" log: {server.log})"
            )


def _stop(servers: list[Server]) -> None:
    """End every group by SIGTERM, then the remaining processes by SIGKILL."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
        groups = _living_groups(servers)
        for group in groups:
            os.killpg(group, number)
        deadline = time.monotonic() + seconds
        while _living_groups(servers) and time.monotonic() < deadline:
            time.sleep(0.1)


def _living_groups(servers: list[Server]) -> set[int]:
    """The groups that still have a process. Zombies are not counted, since in a container no
    process may collect them."""
    for server in servers:
        server.process.poll()
    mine = {server.process.pid for server in servers}
    living = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, group = (
                stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()[:3]
            )
        except (OSError, ValueError):
            continue
        if int(group) in mine and state not in "ZX":
            living.add(int(group))
    return living


def _dagster_ready(port: int) -> bool:
    if _get(f"http://{HOST}:{port}/server_info") is None:
        return False
    return all(entry["loadStatus"] == "LOADED" for entry in _locations(port))


def _load_errors(port: int) -> list[str]:
    """The errors that keep the definitions from loading: the root cause of each location."""
    problems = [entry["locationOrLoadError"] for entry in _locations(port)]
    return [
        ((problem.get("errorChain") or [{"error": problem}])[-1]["error"]["message"]).strip()
        for problem in problems
        if problem and problem["__typename"] == "PythonError"
    ]


def _locations(port: int) -> list[dict[str, Any]]:
    answer = _get(f"http://{HOST}:{port}/graphql", {"query": _LOCATIONS})
    workspace = json.loads(answer)["data"]["workspaceOrError"] if answer else {}
    return workspace.get("locationEntries", [])


def _get(url: str, body: dict[str, str] | None = None) -> bytes | None:
    """The answer to a GET, or to a POST of ``body``; None if there is none yet. Proxies of the
    environment are not used.

    On a port without a listener, Linux may connect the caller to itself, if it selects the same
    port for its own side. The "answer" is then the request itself, which is not a valid HTTP
    response."""
    request = urllib.request.Request(
        url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=20
        ) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException):
        return None


def _say(line: str) -> None:
    print(line, flush=True)
