"""The connection to a Ray cluster: its address, its job server, and the jobs of a Dagster run."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gaip3_pipeline.settings import Settings
from gaip3_pipeline.stores import is_server

ADDRESS = "GAIP3_CLUSTER"  # environment variable with the address; overrides [cluster] address
DRIVER = "GAIP3_DRIVER"  # environment variable with the process of the refresh that runs a step
RUN_LABEL = "dagster/run-id"  # metadata that dagster-ray gives to the job of a step


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message is one line with the remedy."""


def address_of(settings: Settings) -> str:
    """The address of the cluster's job server that ``GAIP3_CLUSTER`` or the settings name; "" for
    none."""
    return os.environ.get(ADDRESS) or settings.cluster.address


def job_client(address: str) -> Any:
    """Ray's ``JobSubmissionClient`` for the job server at ``address`` (``http://HOST:8265``).

    Raises :class:`ClusterError` if Ray is not installed, the address is none of a job server, the
    server cannot be reached or it refuses the token."""
    if not is_server(address):
        raise ClusterError(
            f"{address!r} is not the address of a Ray job server: write http://HEAD:8265"
        )
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as e:
        raise ClusterError(
            "Ray is not installed: run make install EXTRA=cluster on every machine"
        ) from e
    try:
        client = JobSubmissionClient(address)
        client.list_jobs()
    except ConnectionError as e:
        raise ClusterError(
            f"no Ray job server answers at {address}: start one with ray start --head, or correct"
            " [cluster] address"
        ) from e
    except AuthenticationError as e:
        raise ClusterError(
            f"{address} refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or"
            " RAY_AUTH_TOKEN_PATH) as on the head"
        ) from e
    except RuntimeError as e:
        raise ClusterError(f"{address}: {' '.join(str(e).split())[:300]}") from e
    return client


def is_of_the_cluster(error: Exception) -> bool:
    """Whether Ray itself raised ``error``, as it does for a lost node, and not the work that it
    ran."""
    if "ray" not in sys.modules:
        return False
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def supervisor() -> int | None:
    """The pid of Ray's process that supervises the job of this process; None in no job. A step
    outlives it when it is killed, since Ray starts steps in a session of their own."""
    return next(
        (pid for pid, words in _ancestors() if any(b"JobSupervisor" in w for w in words)), None
    )


def node_address() -> str:
    """The address of the node that runs the job of this process, by the command line of the node's
    own process; "" in no job."""
    option = b"--node_ip_address="
    found = (w for _, words in _ancestors() for w in words if w.startswith(option))
    return next(found, b"").removeprefix(option).decode()


def _ancestors() -> Iterator[tuple[int, list[bytes]]]:
    """The pids and the command lines of the processes from which this one descends."""
    pid = os.getppid()
    while pid > 1:
        try:
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # pid (name) state ppid …; a name may hold spaces and parentheses
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return


def usable(settings: Settings) -> None:
    """Raise :class:`ClusterError` if the cluster's job server does not answer, if the root's
    history is in SQLite files, which steps on other machines cannot write to, or if the backend of
    Keras cannot train on several workers."""
    workers, backend = settings.cluster.workers, os.environ.get("KERAS_BACKEND", "tensorflow")
    if workers > 1 and backend != "jax":
        raise ClusterError(
            f"[cluster] workers = {workers} needs JAX, and the backend of Keras is {backend}: set"
            " KERAS_BACKEND=jax, or workers = 1"
        )
    job_client(address_of(settings))
    lacking = [
        name
        for name, value in (
            ("[storage] dagster", settings.storage.dagster),
            ("[tracking] uri", settings.tracking.uri or not settings.tracking.enabled),
        )
        if not value
    ]
    if lacking:
        raise ClusterError(
            f"steps on other machines cannot write to SQLite files: set {' and '.join(lacking)} to"
            " a Postgres database; gaip3 storage move takes the root's history along"
        )


def stop_jobs_of(address: str, run_ids: Iterable[str]) -> list[str]:
    """Stop the unfinished Ray jobs of the steps of the Dagster runs ``run_ids``; returns their
    ids."""
    wanted, client = set(run_ids), job_client(address)
    stopped = []
    for job in client.list_jobs():
        if (job.metadata or {}).get(RUN_LABEL) in wanted and not job.status.is_terminal():
            client.stop_job(job.submission_id)
            stopped.append(job.submission_id)
    return stopped
