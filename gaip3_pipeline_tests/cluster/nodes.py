"""A real Ray cluster on this machine: every node is a process group of its own with an address of
its own, so that it can be killed as a machine can."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from gaip3_pipeline_tests.web.processes import free_port


def ip(number: int) -> str:
    """An address of this machine for a node, none of those in docs/cluster.md. Each worker of
    pytest-xdist has addresses of its own, and so has a process with the variable
    GAIP3_TEST_NETWORK."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return f"127.0.{100 + int(os.environ.get('GAIP3_TEST_NETWORK', worker))}.{number}"


_STORE = 80_000_000  # bytes, the least that Ray accepts is 75 MB
_ENVIRONMENT = {
    "RAY_DISABLE_USAGE_STATS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    # a lost node is noticed after 5 s instead of 30
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


class Nodes:
    """The nodes of one cluster: the head with the job server, and workers."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.head = ip(2)  # not 127.0.0.1, which Ray replaces by the address of the node that asks
        self.variables = variables  # in the environment of every node, as its unit sets them
        self.port, self.dashboard = free_port(self.head), free_port(self.head)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Where drivers connect."""
        return f"{self.head}:{self.port}"

    @property
    def jobs(self) -> str:
        """The address of the job server."""
        return f"http://{self.head}:{self.dashboard}"

    def start_head(self, cpus: int = 1) -> None:
        self._start(
            self.head,
            cpus,
            "--head",
            f"--port={self.port}",
            f"--dashboard-host={self.head}",
            f"--dashboard-port={self.dashboard}",
            f"--temp-dir={self.folder}",
        )

    def start(self, at: str, cpus: int = 1) -> None:
        """Start a worker at the address ``at`` and wait until it is in the cluster."""
        self._start(at, cpus, f"--address={self.address}")

    def __contains__(self, at: str) -> bool:
        return at in self._running

    def kill(self, at: str, sparing: str = "\n") -> list[int]:
        """``kill -9`` of all processes of a node at once, but those with ``sparing`` in their
        command line, whose pids are returned."""
        node = self._running.pop(at)
        spared = []
        for pid in _descendants(node.pid):
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if sparing in " ".join(psutil.Process(pid).cmdline()):
                    spared.append(pid)
                else:
                    os.kill(pid, signal.SIGKILL)
        node.wait()
        return spared

    def stop(self) -> None:
        for at in reversed(list(self._running)):
            self.kill(at)

    def cpu_seconds(self) -> float:
        """CPU time so far of all processes of the nodes."""
        total = 0.0
        for node in self._running.values():
            for pid in _descendants(node.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = psutil.Process(pid).cpu_times()
                    total += times.user + times.system
        return total

    def _start(self, at: str, cpus: int, *words: str) -> None:
        log = (self.folder.parent / f"{at}.log").open("wb")
        self._running[at] = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ray")),
                "start",
                "--block",
                f"--num-cpus={cpus}",
                f"--object-store-memory={_STORE}",
                "--disable-usage-stats",
                f"--node-ip-address={at}",
                # Ray's own choice, 52365, is taken by other nodes on this machine
                f"--dashboard-agent-listen-port={free_port(at)}",
                *words,
            ],
            env=os.environ | _ENVIRONMENT | dict(self.variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._wait_for(at)

    def _wait_for(self, at: str) -> None:
        from ray.util.state import list_nodes

        until = time.monotonic() + 90
        while time.monotonic() < until:
            with contextlib.suppress(Exception):  # the head's servers start one after another
                if at in {n.node_ip for n in list_nodes(self.jobs) if n.state == "ALIVE"}:
                    return
            time.sleep(0.3)
        text = (self.folder.parent / f"{at}.log").read_text(errors="replace")
        raise TimeoutError(f"the Ray node {at} did not start:\n{text[-2000:]}")


@contextmanager
def cluster_of(
    folder: Path,
    workers: int = 1,
    head_cpus: int = 1,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Nodes]:
    """A head and ``workers`` further nodes, each with one CPU."""
    nodes = Nodes(folder, variables or {})
    try:
        nodes.start_head(head_cpus)
        for number in range(workers):
            nodes.start(ip(3 + number))
        yield nodes
    finally:
        nodes.stop()


def _descendants(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [*(p.pid for p in process.children(recursive=True)), pid]
