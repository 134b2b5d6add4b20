"""A command of gaip3 that runs as a job of the cluster, followed from here."""

import asyncio
import logging
import shlex
import sys
from collections.abc import Callable, Mapping

from gaip3_pipeline.cluster.connection import job_client
from gaip3_pipeline.cluster.executor import environment_of_steps
from gaip3_pipeline.layout import DataRoot


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
    job = client.submit_job(
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
