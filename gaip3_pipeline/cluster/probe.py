"""What every node of a cluster has: the job that ``gaip3 cluster check`` starts on the head.

It runs as ``__main__``, so Ray sends its functions to the nodes as code: a node answers even if it
lacks this package. The last line that it prints is JSON."""

import hashlib
import importlib.util
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

MARK = "gaip3-probe: "  # before the line with the result


def code_hash(folder: str | Path) -> str:
    """sha256 over (path, content) of the Python files of a package folder, 12 hex digits."""
    h, base = hashlib.sha256(), Path(folder)
    for file in sorted(base.rglob("*.py")):
        h.update(f"{file.relative_to(base).as_posix()}\n".encode() + file.read_bytes())
    return h.hexdigest()[:12]


def node_state(shared: str, token: str, variables: list[str], lock_name: str) -> dict[str, Any]:
    """The state of this node. Effects: writes a file named after the node into the folder
    ``shared``, for :func:`files_seen`."""
    found = importlib.util.find_spec("gaip3_pipeline")
    package = Path(found.origin).parent if found and found.origin else None
    lock = package.parent / lock_name if package else None
    folder, error = Path(shared), ""
    try:
        read = (folder / token).read_text() == token
        (folder / f"{token}.{os.environ['GAIP3_PROBED_NODE']}").write_text(token)
    except OSError as e:
        read, error = False, e.strerror or str(e)
    return {
        "host": socket.gethostname(),
        "machine": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "python": sys.version.split()[0],
        "code": code_hash(package) if package else "",
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
        if lock and lock.exists()
        else "",
        "reads_root": read,
        "error": error,
        "missing": [name for name in variables if not os.environ.get(name)],
    }


def files_seen(shared: str, token: str) -> list[str]:
    """The ids of the nodes whose file this node sees in the folder ``shared``."""
    return [f.name.partition(".")[2] for f in Path(shared).glob(f"{token}.*")]


def clock() -> float:
    """This node's clock, seconds since the epoch."""
    return time.time()


def probe(shared: str, token: str, variables: list[str], lock_name: str) -> list[dict[str, Any]]:
    """The state of every node that is or was in the cluster: its ``id``, ``address``, ``alive``,
    ``resources``, :func:`node_state`, :func:`files_seen` and its clock's ``skew`` in seconds
    against this node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(log_to_driver=False, configure_logging=False)
    nodes = [
        {
            "id": n["NodeID"],
            "address": n["NodeManagerAddress"],
            "alive": n["Alive"],
            "resources": n["Resources"],
        }
        for n in ray.nodes()
    ]

    def on(node: dict[str, Any], function: Any, *words: Any) -> Any:
        task = ray.remote(num_cpus=0, max_retries=0)(function).options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["id"], soft=False),
            runtime_env={"env_vars": {"GAIP3_PROBED_NODE": node["id"]}},
        )
        return ray.get(task.remote(*words), timeout=60)

    alive = [n for n in nodes if n["alive"]]
    for node in alive:
        try:
            node |= on(node, node_state, shared, token, variables, lock_name)
            on(node, clock)  # the first call starts a process
            before = time.time()
            there = on(node, clock)
            node["skew"] = there - (before + time.time()) / 2
        except Exception as e:  # whatever keeps a node from answering is its finding
            node["unreachable"] = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    for node in alive:
        if "unreachable" not in node:
            node["sees"] = on(node, files_seen, shared, token)
    return nodes


if __name__ == "__main__":
    print(MARK + json.dumps(probe(**json.loads(os.environ["GAIP3_PROBE"]))), flush=True)
