"""``gaip3 label``: the label page of one data root, served until Ctrl-C."""

import os
import socket

import uvicorn

from gaip3_pipeline.dagster_home import mlflow_store
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.databases import sqlite_file
from gaip3_pipeline.web.app import build_app
from gaip3_pipeline.web.connections import server_options
from gaip3_pipeline.web.guard import is_loopback, new_token
from gaip3_pipeline.web.servers import choose_ports, experiment_in, trainings_page


def serve_labels(root: DataRoot, host: str = "127.0.0.1", port: int = 3100) -> None:
    """Serve the label page of ``root`` on ``host``; on addresses other than loopback with a token,
    which is part of the printed link.

    A port in use is replaced by the next free one. Raises
    :class:`~gaip3_pipeline.web.servers.ServerError` when there is none."""
    port = choose_ports(host, label=port)["label"]
    token = "" if is_loopback(host) else new_token()
    dagster, mlflow = (os.environ.get(f"GAIP3_{name}_URL", "") for name in ("DAGSTER", "MLFLOW"))
    database = sqlite_file(mlflow_store(root).value)

    def links() -> dict[str, str]:
        # the experiment may be created while the page is served
        trainings = mlflow and trainings_page(mlflow, experiment_in(database))
        pages = {"Dagster": dagster, "MLflow": trainings}
        return {name: link for name, link in pages.items() if link}

    app = build_app(root, token, links)
    shown = reachable(host)
    config = uvicorn.Config(app, **server_options())
    with socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
    ) as listening:
        # The port is bound before the link is printed, so that requests wait for the server to
        # start.
        print(
            f"Label page: http://{shown}:{port}/{f'?token={token}' if token else ''}\nCtrl-C"
            " stops it.",
            flush=True,
        )
        uvicorn.Server(config).run([listening])


def reachable(host: str) -> str:
    """``host`` as it appears in a link; for all interfaces (``0.0.0.0``, ``::``) the address at
    which other machines reach this one."""
    if host in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # UDP sends nothing here; it selects the interface (a documentation address, RFC
                # 5737)
                probe.connect(("192.0.2.1", 9))
                return str(probe.getsockname()[0])
            except OSError:
                return socket.gethostname()
    return f"[{host}]" if ":" in host else host
