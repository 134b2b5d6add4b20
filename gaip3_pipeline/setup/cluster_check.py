"""Whether the machines of a Ray cluster can run the steps of a data root, and what they lack."""

import json
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gaip3_pipeline.cluster.connection import ClusterError, address_of, job_client
from gaip3_pipeline.cluster.job import run_module
from gaip3_pipeline.cluster.probe import MARK, code_hash
from gaip3_pipeline.layout import LOCK_FILE, DataRoot
from gaip3_pipeline.settings import Settings, variables_of
from gaip3_pipeline.setup.doctor import GIB, Finding, examine_stores
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.hashing import file_version

SKEW_SECONDS = 1.0  # above this, the order of events of two machines in Dagster's log misleads
_WAIT_SECONDS = 120


def check_cluster(root: DataRoot, settings: Settings) -> Iterator[Finding]:
    """The findings about the cluster that the settings name, a line for each.

    Raises :class:`~gaip3_pipeline.cluster.connection.ClusterError` if its job server does not
    answer. Effects: writes one file for each node into the folder ``.gaip3/cluster`` of the root
    and removes them."""
    address = address_of(settings)
    if not address:
        raise ClusterError(
            "no cluster is named: set [cluster] address in gaip3.toml, or give --on http://HEAD:8265"
        )
    job_client(address)
    yield Finding("ok", f"the job server at {address} answers")
    yield token_in_force(address)
    yield from examine_stores(root)
    token = uuid.uuid4().hex
    root.cluster_files.mkdir(parents=True, exist_ok=True)
    try:
        write_text_atomically(root.cluster_files / token, token)
        nodes = _probed(address, root, token, settings)
    finally:
        for file in root.cluster_files.glob(f"{token}*"):
            file.unlink(missing_ok=True)
    alive = [n for n in nodes if n["alive"] and "unreachable" not in n]
    back = {n["address"] for n in alive}  # a node that was started again has a new id
    for node in nodes:
        if node["alive"] or node["address"] not in back:
            yield from _node(node, root, {n["id"] for n in alive})
    total = {k: sum(n["resources"].get(k, 0) for n in alive) for k in ("CPU", "GPU")}
    memory: dict[str, float] = {}  # nodes of one machine share its memory, and each counts all
    for n in alive:
        memory[n["machine"]] = max(memory.get(n["machine"], 0), n["resources"].get("memory", 0))
    yield Finding(
        "ok" if len(alive) else "missing",
        f"{len(alive)} {'node' if len(alive) == 1 else 'nodes'}: {total['CPU']:g} CPUs,"
        f" {total['GPU']:g} GPUs,"
        f" {sum(memory.values()) / GIB:.1f} GiB for tasks",
        "" if alive else "start nodes with ray start --address=HEAD:6379",
    )


def token_in_force(address: str) -> Finding:
    """Whether the job server refuses a request without a token: whoever may start jobs may run any
    code."""
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10):
            return Finding(
                "warning",
                f"{address} asks for no token, so everyone who reaches it can run code there",
                "start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN_PATH; see"
                " docs/cluster.md",
            )
    except urllib.error.HTTPError as e:
        if e.code in (401, 403):
            return Finding("ok", "the job server asks for a token")
        return Finding("warning", f"{address}/api/jobs/: {e}", "look at the head's dashboard.log")
    except OSError as e:
        return Finding("warning", f"{address}/api/jobs/: {e}", "look at the head's dashboard.log")


def _probed(address: str, root: DataRoot, token: str, settings: Settings) -> list[dict[str, Any]]:
    given = {
        "shared": str(root.cluster_files.absolute()),
        "token": token,
        "variables": variables_of(settings),
        "lock_name": LOCK_FILE.name,
    }
    printed: list[str] = []
    try:
        run_module(
            root,
            address,
            "gaip3_pipeline.cluster.probe",
            {"GAIP3_PROBE": json.dumps(given)},
            printed.append,
            _WAIT_SECONDS,
        )
    except TimeoutError as e:
        raise ClusterError(
            f"the nodes did not answer within {_WAIT_SECONDS} s: see the jobs on {address}"
        ) from e
    lines = "".join(printed).splitlines()
    found = [line for line in lines if line.startswith(MARK)]
    if not found:
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        raise ClusterError(
            f"the head cannot run {sys.executable}: {last.strip()[:200]}; install the project there"
            f" at the same path, {Path(__file__).resolve().parents[2]}"
        )
    return json.loads(found[-1].removeprefix(MARK))


def _node(node: dict[str, Any], root: DataRoot, alive: set[str]) -> Iterator[Finding]:
    name = f"{node['address']}"
    if not node["alive"]:
        yield Finding("warning", f"{name}: left the cluster", "start it again with ray start")
        return
    if "unreachable" in node:
        yield Finding(
            "missing",
            f"{name}: does not run tasks: {node['unreachable']}",
            "look at the raylet's log there, and whether the head reaches all its ports",
        )
        return
    name = f"{node['address']} ({node['host']})"
    size = node["resources"]
    yield Finding(
        "ok",
        f"{name}: {size.get('CPU', 0):g} CPUs, {size.get('GPU', 0):g} GPUs,"
        f" {size.get('memory', 0) / GIB:.1f} GiB, Python {node['python']}",
    )
    here = code_hash(Path(__file__).resolve().parents[1])
    yield _same(name, "code", node["code"], here, "git pull there, the same commit on all nodes")
    lock = file_version(LOCK_FILE)[:12] if LOCK_FILE.exists() else ""
    yield _same(name, "uv.lock", node["lock"], lock, "make install EXTRA=cluster there")
    if node["error"]:
        yield Finding(
            "missing",
            f"{name}: cannot write to {root.path}: {node['error']}",
            "mount the root's file system there at the same path, for the same user",
        )
    elif not node["reads_root"] or set(node.get("sees", [])) < alive:
        yield Finding(
            "missing",
            f"{name}: {root.path} is another folder there, or its files arrive late",
            "mount one shared file system at this path on every machine",
        )
    else:
        yield Finding("ok", f"{name}: sees the same root, files of all nodes included")
    if abs(node["skew"]) > SKEW_SECONDS:
        yield Finding(
            "warning",
            f"{name}: its clock is {node['skew']:+.1f} s off",
            "run a time service there, such as chrony",
        )
    else:
        yield Finding("ok", f"{name}: clock within {max(abs(node['skew']), 0.001):.3f} s")
    if node["missing"]:
        yield Finding(
            "missing",
            f"{name}: the variables {', '.join(node['missing'])} are not set",
            "put them into the environment of ray start there (deploy/)",
        )


def _same(name: str, what: str, there: str, here: str, remedy: str) -> Finding:
    if there == here:
        return Finding("ok", f"{name}: same {what} ({here[:8] or 'none'})")
    return Finding(
        "missing",
        f"{name}: {what} is {there[:8] or 'missing'}, here {here[:8] or 'missing'}",
        remedy,
    )
