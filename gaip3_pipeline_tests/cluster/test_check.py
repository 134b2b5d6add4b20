"""``gaip3 cluster check`` on a real Ray cluster."""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import Result

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.setup.cluster_check import token_in_force
from gaip3_pipeline_tests.cluster.conftest import STORES
from gaip3_pipeline_tests.cluster.nodes import Nodes, ip
from gaip3_pipeline_tests.postgres import Postgres

pytestmark = pytest.mark.cluster


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(tmp_path / "root")
    root.originals.mkdir(parents=True)
    root.settings_file.write_text(
        f'preset = "tiny"\n[storage]\ndagster = "env:{STORES["dagster"]}"\n'
        '[tracking]\nuri = "env:GAIP3_TEST_NOT_THERE"\n'
    )
    return root


def test_every_node_is_examined_and_what_it_lacks_has_a_remedy(
    root: DataRoot,
    nodes: Nodes,
    gaip3: Callable[..., Result],
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORES["dagster"], postgres.create("checked"))
    done = gaip3("cluster", "check", "--root", root.path, "--on", nodes.jobs)
    assert done.exit_code == 1, done.output  # for the missing variable alone
    lines = done.output.splitlines()
    for at in (nodes.head, ip(3)):
        fine = [line for line in lines if line.startswith(f"ok       {at} (")]
        for said in ("1 CPUs", "same code", "same uv.lock", "sees the same root", "clock within"):
            assert any(said in line for line in fine), said
    assert done.output.count("the variables GAIP3_TEST_NOT_THERE are not set") == 2
    assert "the job server asks for a token" in done.output
    assert "2 nodes: 2 CPUs, 0 GPUs" in done.output
    missing = [line for line in lines if line.startswith("missing")]
    assert len(missing) == 3  # of the nodes, and here
    assert list(root.cluster_files.iterdir()) == []


@pytest.mark.parametrize(
    "variables",
    [{"RAY_AUTH_TOKEN": "of-somebody-else-" + "0" * 32}, {"RAY_AUTH_MODE": "disabled"}],
    ids=["wrong", "none"],
)
def test_a_wrong_token_is_one_line(root: DataRoot, nodes: Nodes, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gaip3_pipeline.cli",
            "cluster",
            "check",
            "--root",
            root.path,
            "--on",
            nodes.jobs,
        ],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).strip().splitlines()
    assert f"{nodes.jobs} refuses the token: set RAY_AUTH_MODE=token" in line


def test_a_server_that_asks_for_no_token_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "api" / "jobs").mkdir(parents=True)
    files = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = token_in_force(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found.state == "warning"
    assert "asks for no token, so everyone who reaches it can run code there" in str(found)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.2:9", "no Ray job server answers at http://127.0.0.2:9"),
        ("ray://127.0.0.2:10001", "is not the address of a Ray job server"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(
    root: DataRoot, gaip3: Callable[..., Result], address: str, said: str
) -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    done = gaip3("cluster", "check", "--root", root.path, "--on", address)
    assert done.exit_code == 1
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
