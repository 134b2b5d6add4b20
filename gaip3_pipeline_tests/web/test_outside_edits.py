"""While the pages are served, an edit made outside shows in Dagster within a minute."""

import json
import re
import signal
import time
import urllib.request
from pathlib import Path

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline_tests.refresh.test_run import relabel
from gaip3_pipeline_tests.web.browser import WITHOUT_PROXY
from gaip3_pipeline_tests.web.processes import start, wait_for, wait_until_gone

UI = (
    "import sys\nfrom gaip3_pipeline.cli import main\nmain(['ui', '--root', sys.argv[1], '--port',"
    " '24100', '--mlflow-port', '24200', '--label-port', '24300'])"
)


def unsynced(dagster: str) -> set[str]:
    """What Dagster's page shows as unsynced."""
    body = json.dumps({"query": "{ assetNodes { assetKey { path } staleStatus } }"}).encode()
    with WITHOUT_PROXY.open(
        urllib.request.Request(f"{dagster}/graphql", body, {"Content-Type": "application/json"})
    ) as answer:
        nodes = json.load(answer)["data"]["assetNodes"]
    return {node["assetKey"]["path"][0] for node in nodes if node["staleStatus"] == "STALE"}


def test_an_edit_made_while_the_pages_are_served_shows_as_unsynced_within_a_minute(
    root_copy: DataRoot, tmp_path: Path
) -> None:
    log = tmp_path / "ui.log"
    process = start(UI, log, str(root_copy.path))
    try:
        [dagster] = re.findall(
            r"Dagster\s+(http://127\.0\.0\.1:\d+)", wait_for("Ctrl-C stops", log, process)
        )
        assert unsynced(dagster) == set()
        relabel(root_copy, "mouth", 1)
        edited = time.monotonic()
        while "labels_mouth" not in unsynced(dagster):
            assert time.monotonic() - edited < 60
            time.sleep(1)
        assert unsynced(dagster) == {"labels_mouth"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert wait_until_gone(root_copy.path) == []
