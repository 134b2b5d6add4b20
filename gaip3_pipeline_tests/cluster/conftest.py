"""A Ray cluster for the tests of this folder; they skip without the extra ``cluster``."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaip3_pipeline_tests.cluster.nodes import Nodes, cluster_of
from gaip3_pipeline_tests.postgres import Postgres

# Every node and every client of these tests uses a token, as deploy/ sets it up.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "of-the-tests-" + "0" * 32

STORES = {"dagster": "GAIP3_TEST_DAGSTER_DB", "mlflow": "GAIP3_TEST_MLFLOW_DB"}


@pytest.fixture(scope="package")  # idle, Ray takes a tenth of a core
def nodes(postgres: Postgres) -> Iterator[Nodes]:
    """A head and one worker, of one CPU each, with the URLs of two empty databases in their
    environment."""
    pytest.importorskip("ray", reason="needs the extra cluster")
    own = secrets.token_hex(4)  # this fixture may be made again beside the same server
    variables = {name: postgres.create(f"cluster_{kind}_{own}") for kind, name in STORES.items()}
    # a short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        cluster_of(Path(folder) / "r", variables=variables) as started,
    ):
        yield started
