"""A Ray cluster for the tests of this folder; they skip without the extra ``cluster``."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaip3_pipeline_tests.cluster.nodes import Nodes, cluster_of


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """A head and one worker, of one CPU each."""
    pytest.importorskip("ray", reason="needs the extra cluster")
    # a short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        cluster_of(Path(folder) / "r") as started,
    ):
        yield started
