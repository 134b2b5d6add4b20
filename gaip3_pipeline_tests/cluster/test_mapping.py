"""Image work and scoring on the nodes of a real Ray cluster."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gaip3_pipeline.imaging.processing import augment_set, resize_set
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.manifests import read_manifest
from gaip3_pipeline_tests.cluster.nodes import Nodes

pytestmark = pytest.mark.cluster
D1 = IMAGE_SETS[0]


@pytest.fixture
def driver(nodes: Nodes) -> Iterator[Nodes]:
    """This process as a driver of the cluster."""
    import ray

    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
    yield nodes
    ray.shutdown()


def _originals(root: DataRoot, count: int) -> None:
    """Noise of ``count`` sizes, so that every picture is another one, and a damaged file."""
    from PIL import Image

    folder = root.original(D1)
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(count):
        pixels = noise.integers(0, 256, (200 + i % 50, 220, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.jpg", quality=90)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")


def _content(root: DataRoot, kind: str) -> dict[str, str]:
    folder = root.processed(kind, D1)
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def _rows(root: DataRoot, kind: str) -> list[tuple[object, ...]]:
    """The manifest without times and inodes, which differ between two roots."""
    table = read_manifest(root.manifest(f"{kind}_{D1.id}"))
    columns = ["path", "size", "sha256", "status", "reason", "source", "source_sha256"]
    return list(table[columns].itertuples(index=False, name=None))


def test_pictures_made_on_two_nodes_equal_those_made_here(driver: Nodes, tmp_path: Path) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper

    here, there = DataRoot(tmp_path / "here"), DataRoot(tmp_path / "there")
    for root in (here, there):
        _originals(root, 150)
    for root, mapper in ((here, None), (there, RayMapper(32))):
        resize_set(root, D1, Images(), mapper=mapper)
        augment_set(root, D1, Images(), mapper=mapper)
    for kind in ("resized", "augmented"):
        assert _content(here, kind) == _content(there, kind)
        assert _rows(here, kind) == _rows(there, kind)
    assert len(_rows(there, "resized")) == 151


def test_a_node_killed_in_mid_work_costs_no_picture_and_makes_none_twice(
    driver: Nodes, tmp_path: Path
) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper

    here, there = DataRoot(tmp_path / "here"), DataRoot(tmp_path / "there")
    for root in (here, there):
        _originals(root, 400)
    resize_set(here, D1, Images())
    driver.start("127.0.0.9")
    killed = threading.Event()

    def kill(done: int, total: int) -> None:
        if done >= 64 and not killed.is_set():
            killed.set()
            driver.kill("127.0.0.9")

    made = resize_set(there, D1, Images(), kill, mapper=RayMapper(32))
    assert killed.is_set()
    assert made.done == 400
    assert _rows(here, "resized") == _rows(there, "resized")
    again = resize_set(there, D1, Images(), mapper=RayMapper(32))
    assert (again.done, again.reused) == (0, 400)
    assert _content(here, "resized") == _content(there, "resized")


def test_an_error_of_the_work_is_raised_as_it_is_here(driver: Nodes) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper

    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(RayMapper(32).pictures(_fails, ["a", "b"]))


def _fails(name: str) -> None:
    raise FileNotFoundError(2, "No such file", f"nowhere/{name}")
