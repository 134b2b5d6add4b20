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
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from gaip3_pipeline import mlflow_pages
from gaip3_pipeline.dagster_home import (
    LOCATION,
    dagster_store,
    ensure_dagster_home,
    environment,
    mlflow_store,
)
from gaip3_pipeline.layout import (
    REPOSITORY,
    TRAININGS_PAGE,
    TRAININGS_VIEW,
    DataRoot,
    servers_files,
)
from gaip3_pipeline.mlflow_paths import experiment_id
from gaip3_pipeline.mlflow_tracking import (
    EXPERIMENT,
    EXPERIMENT_TAGS,
    create_database,
    for_own_store,
)
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.stores import is_server
from gaip3_pipeline.tables.databases import sqlite_file

HOST = "127.0.0.1"
# what browsers may call it: MLflow's own list has patterns such as 10.*, which anyone's domain fits
NAMES = (HOST, "localhost")
FIRST_PAGE = "/asset-groups"  # of Dagster
DEFINITIONS = "gaip3_pipeline.definitions"
READY_SECONDS = 240  # MLflow writes its tables on the first start: 37 s on two busy cores
STOP_SECONDS = 12  # Dagster's processes need 4 s; processes left after this are killed
PORTS_TRIED = 50
# a server that ends is started again, but not if it ended so often within so many seconds
RESTARTS, WITHIN = 5, 300

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
_ERROR = re.compile(r"\b\w*(Error|Exception)\b|\berror:", re.IGNORECASE)
_LOCATIONS = """{ workspaceOrError { __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message errorChain { error { message } } } } } } } }"""


class ServerError(RuntimeError):
    """A server did not start, or ended unexpectedly; the message is one line with the remedy."""


@dataclass
class Server:
    """One running server, the leader of its own process group; ``start()`` starts its process
    anew, and ``ends`` are the times at which it ended."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    start: Callable[[], subprocess.Popen[bytes]]
    ends: list[float] = field(default_factory=list)


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
    page can reload it. A server that ends later is started again, with a line that gives its last
    error, and the others stay. Raises :class:`ServerError` if a server does not start, or if
    ``root`` is served already."""
    ensure_dagster_home(root)
    for store in filter(None, (dagster_store(root), mlflow_store(root))):
        store.check()
    with _reservations() as reserve:
        ports = choose_ports(
            reserve=reserve, dagster=dagster_port, mlflow=mlflow_port, label=label_port
        )
        _serve(root, ports, module)


def _serve(root: DataRoot, ports: dict[str, int], module: str) -> None:
    mlflow = mlflow_store(root)
    pages = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    if is_server(mlflow.url):
        pages["mlflow"] = mlflow.url.rstrip("/")
    links = {"Labels": f"{pages['label']}/", "Studio": f"{pages['label']}/#studio"}
    links |= {
        "Dagster": f"{pages['dagster']}{FIRST_PAGE}",
        "MLflow": trainings_page(pages["mlflow"], experiment_in(sqlite_file(mlflow.value))),
    }
    # The URLs are for links: of runs to MLflow's page, of the label page to both others, and of
    # assets to their pictures, which the label page serves. The last variable saves 8 processes.
    own = {
        "GAIP3_MLFLOW_URL": pages["mlflow"],
        "GAIP3_DAGSTER_URL": pages["dagster"],
        "GAIP3_LABEL_URL": pages["label"],
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
        if database := sqlite_file(mlflow.url):
            create_database(database)
        servers: list[Server] = []
        try:
            commands = _commands(root, Path(folder), ports, module)
            if is_server(mlflow.url):
                del commands["mlflow"]
            for name, command in commands.items():
                log = root.server_log(name)
                kept = for_own_store(variables) if name == "mlflow" else variables
                given = kept | secret.get(name, {})
                log.unlink(missing_ok=True)
                start = partial(spawn, command, given, log)
                servers.append(Server(name, start(), log, start))
                if name == "code":
                    _wait(servers_files(Path(folder))[0].exists, servers, stop)
            _wait(lambda: _dagster_ready(ports["dagster"]), servers, stop)
            if "mlflow" in commands:
                _wait(lambda: _get(f"{pages['mlflow']}/health") is not None, servers, stop)
                if mlflow.in_postgres or sqlite_file(mlflow.url) == root.mlflow_db.absolute():
                    found = _tidy_experiments(f"{pages['mlflow']}/api/2.0/mlflow", root)
                    links["MLflow"] = trainings_page(pages["mlflow"], found)
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
                for server in servers:
                    _revive(server)
        except _Stopped:
            pass
        finally:
            _say("Stopping …")
            _stop(servers)
    _say("Stopped.")


def experiment_in(database: Path | None) -> str:
    """The id of the pipeline's experiment in MLflow's ``database``; "" if it has none yet, or is no
    file."""
    return experiment_id(database, EXPERIMENT) if database else ""


def trainings_page(mlflow: str, experiment: str) -> str:
    """The page of the runs of the ``experiment`` (its id) at the address ``mlflow``; that of all
    experiments if it is not known."""
    page = f"#/experiments/{experiment}/runs{TRAININGS_VIEW}" if experiment else TRAININGS_PAGE
    return f"{mlflow}/{page}"


def _tidy_experiments(api: str, root: DataRoot) -> str:
    """Create the pipeline's experiment, to which links lead, and delete MLflow's "Default" while it
    is empty. Returns the id of the former; "" if MLflow did not create it."""
    found = json.loads(_get(f"{api}/experiments/search", {"max_results": 1000}) or b"{}")
    ids = {e["name"]: e["experiment_id"] for e in found.get("experiments", [])}
    if EXPERIMENT not in ids:
        tags = [{"key": k, "value": v} for k, v in EXPERIMENT_TAGS.items()]
        place = root.mlflow_artifacts.absolute().as_uri()
        given = {"name": EXPERIMENT, "artifact_location": place, "tags": tags}
        created = json.loads(_get(f"{api}/experiments/create", given) or b"{}")
        ids[EXPERIMENT] = created.get("experiment_id", "")
    if "Default" in ids:
        asked = {"experiment_ids": [ids["Default"]], "run_view_type": "ALL", "max_results": 1}
        runs = _get(f"{api}/runs/search", asked)
        if runs is not None and not json.loads(runs).get("runs"):
            _get(f"{api}/experiments/delete", {"experiment_id": ids["Default"]})
    return ids[EXPERIMENT]


@contextmanager
def _reservations() -> Iterator[Callable[[int], bool]]:
    """A function that reserves a port until the block ends, and says whether no other process has.

    The servers listen seconds after their ports were chosen. Two commands that start at the same
    time would else choose the same ones."""
    with ExitStack() as held:

        def reserve(port: int) -> bool:
            # a name of Linux that goes when its process ends, however it ends (man 7 unix)
            name = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            try:
                name.bind(f"\0gaip3-port-{port}")
            except OSError:
                return False
            return True

        yield reserve


def choose_ports(
    host: str = HOST, reserve: Callable[[int], bool] = lambda port: True, **wanted: int
) -> dict[str, int]:
    """For each server the wanted port of ``host``, or the next one that is free and that
    ``reserve`` gets, which is printed. Raises :class:`ServerError` if none of the next 50 is
    free."""
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        candidates = range(port, min(port + PORTS_TRIED, 65536))
        free = next(
            (
                p
                for p in candidates
                if p not in chosen.values() and port_is_free(p, host) and reserve(p)
            ),
            None,
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
            *("--allowed-hosts", ",".join(f"{name}:{ports['mlflow']}" for name in NAMES)),
            *(("--app-name", mlflow_pages.APP) if mlflow_pages.is_installed() else ()),
        ],
        "code": [
            *(python, "-m", "dagster", "code-server", "start", "-m", module, "-s", str(code)),
            *("-d", str(REPOSITORY), "--location-name", LOCATION, "--log-level", "warning"),
            "--use-python-environment-entry-point",
        ],
        "dagster": [
            *(python, "-m", "gaip3_pipeline.web.dagster_pages"),
            *(str(workspace), HOST, str(ports["dagster"])),
        ],
        "daemon": [python, "-m", "dagster._daemon", "run", "-w", str(workspace)],
        "label": [
            *gaip3("label", "--root", str(root.path), "--port", str(ports["label"])),
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

    def spawn(command: list[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
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
            raise ServerError(_end_of(server))


def _revive(server: Server) -> None:
    """Start ``server`` again if it has ended, unless it ends again and again."""
    now = time.monotonic()
    if server.process.poll() is None or len(server.ends) > RESTARTS:
        return
    server.ends = [*(end for end in server.ends if now - end < WITHIN), now]
    if len(server.ends) > RESTARTS:
        _say(f"{_end_of(server)}. It ended {RESTARTS + 1} times and stays so; the others go on.")
        return
    _say(f"{_end_of(server)}. It is started again.")
    with suppress(ProcessLookupError):  # what is left of its group may hold its port
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process = server.start()


def _end_of(server: Server) -> str:
    """How a server ended, with its last error."""
    lines = server.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line.strip() for line in lines[-50:] if _ERROR.search(line)]
    last = errors[-1] if errors else lines[-1].strip() if lines else "it printed nothing"
    code = server.process.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return f"The {server.name} server ended {how}: {last} (full log: {server.log})"


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


def _get(url: str, body: dict[str, Any] | None = None) -> bytes | None:
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
