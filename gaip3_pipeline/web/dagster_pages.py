"""Dagster's web server as ``gaip3 ui`` starts it: its pages behind the guard of the label page.

Dagster's own command answers any host name, runs mutations that come by GET, and opens a websocket
for any page. A web site that the user visits could start and delete runs and read their logs."""

import sys
from pathlib import Path
from typing import Any

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
)
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver

from gaip3_pipeline.web.connections import server_options
from gaip3_pipeline.web.guard import Guard
from gaip3_pipeline.web.servers import FIRST_PAGE

POLL_SECONDS = 2  # how often a page asks for news of assets


def serve(workspace: Path, host: str, port: int) -> None:
    """Serve the pages of the code locations in ``workspace`` until SIGINT or SIGTERM."""
    target = WorkspaceFileTarget([str(workspace)])
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, target, version=__version__, code_server_log_level="warning"
        ) as context,
    ):
        instance.optimize_for_webserver(
            DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW
        )
        pages: DagsterWebserver[Any, Any] = DagsterWebserver(
            context, live_data_poll_rate=1000 * POLL_SECONDS
        )
        # the pages have a content policy of their own
        guarded = Guard(pages.create_asgi_app(), headers={}, entrances=("/", FIRST_PAGE))
        uvicorn.run(guarded, host=host, port=port, **server_options())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
