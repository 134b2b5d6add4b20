"""A command of gaip3 that runs as a job of the cluster, followed from here."""

import asyncio
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gaip3_pipeline.cluster.connection import ClusterError, job_client
from gaip3_pipeline.cluster.executor import environment_of_steps
from gaip3_pipeline.layout import DataRoot

_WAIT_SECONDS = 60


def run_module(
    root: DataRoot,
    address: str,
    module: str,
    variables: Mapping[str, str],
    write: Callable[[str], None],
    seconds: float | None = None,
) -> bool:
    """Run ``python -m module`` with the environment of a step of ``root`` and ``variables`` as a
    job of the cluster at ``address``, and pass its output to ``write``. Returns whether it
    succeeded.

    Raises TimeoutError after ``seconds``. An error or Ctrl-C here stops the job."""
    client = job_client(address)
    # it tells with a line of its own that the job's log has ended
    logging.getLogger(type(client).__module__).setLevel(logging.WARNING)
    job = _submitted(
        client,
        entrypoint=f"{shlex.quote(sys.executable)} -m {module}",
        runtime_env={"env_vars": environment_of_steps(root, address) | dict(variables)},
    )

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            write(text)

    try:
        asyncio.run(asyncio.wait_for(follow(), seconds))
        return client.get_job_status(job).name == "SUCCEEDED"
    finally:
        if not client.get_job_status(job).is_terminal():
            client.stop_job(job)


def _submitted(client: Any, **job: Any) -> str:
    """The id of a new job. A head that has just started, or is busy, says for some seconds that it
    has no agent for jobs."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as e:
            if "No available agent" not in str(e):
                raise
            if time.monotonic() > until:
                raise ClusterError(
                    f"the head took no job for {_WAIT_SECONDS} s: see its dashboard_agent.log"
                ) from e
            time.sleep(1)
