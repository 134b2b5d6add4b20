"""``gaip3 cluster check`` on a real Ray cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline_tests.cluster.conftest import STORES
from gaip3_pipeline_tests.cluster.nodes import Nodes, ip

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
    root: DataRoot, nodes: Nodes, gaip3: Callable[..., Result]
) -> None:
    done = gaip3("cluster", "check", "--root", root.path, "--on", nodes.jobs)
    assert done.exit_code == 1, done.output  # for the missing variable alone
    lines = done.output.splitlines()
    for at in (nodes.head, ip(3)):
        fine = [line for line in lines if line.startswith(f"ok       {at} (")]
        for said in ("1 CPUs", "same code", "same uv.lock", "sees the same root", "clock within"):
            assert any(said in line for line in fine), said
    assert done.output.count("the variables GAIP3_TEST_NOT_THERE are not set") == 2
    assert "asks for no token" in done.output
    assert "2 nodes: 2 CPUs, 0 GPUs" in done.output
    missing = [line for line in lines if line.startswith("missing")]
    assert len(missing) == 2
    assert list(root.cluster_files.iterdir()) == []


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
