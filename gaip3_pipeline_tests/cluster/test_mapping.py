"""Image work and scoring on the nodes of a real Ray cluster."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gaip3_pipeline.imaging.mapping import LocalMapper, cores
from gaip3_pipeline.imaging.processing import augment_set, resize_set
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.manifests import read_manifest
from gaip3_pipeline_tests.cluster.nodes import Nodes, ip

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
    driver.start(ip(9))
    killed = threading.Event()

    def kill(done: int, total: int) -> None:
        if done >= 64 and not killed.is_set():
            killed.set()
            driver.kill(ip(9))

    made = resize_set(there, D1, Images(), kill, mapper=RayMapper(32))
    assert killed.is_set()
    assert made.done == 400
    assert _rows(here, "resized") == _rows(there, "resized")
    again = resize_set(there, D1, Images(), mapper=RayMapper(32))
    assert (again.done, again.reused) == (0, 400)
    assert _content(here, "resized") == _content(there, "resized")


def test_scores_and_features_of_two_nodes_equal_those_made_here(
    driver: Nodes, finished_root: DataRoot
) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper
    from gaip3_pipeline.features.extractor import PackedFeatures
    from gaip3_pipeline.training.gender import GenderScoring

    models, extractor = finished_root.gender_model, finished_root.feature_extractor
    files = sorted((finished_root.path / "resized").rglob("*.jpg"))[:160]
    rows = range(len(np.load(finished_root.packed_final, mmap_mode="r")))[:96]
    for work, items in (
        (GenderScoring(models, extractor, "test"), files),
        (PackedFeatures(extractor, "test", finished_root.packed_final), rows),
    ):
        batches = [items[i : i + 32] for i in range(0, len(items), 32)]
        here = list(LocalMapper().batches(work, batches))
        there = list(RayMapper(32).batches(work, batches))
        assert len(here) == len(there) == len(batches)
        for ours, theirs in zip(here, there, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


def test_an_error_of_the_work_is_raised_as_it_is_here(driver: Nodes) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper

    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(RayMapper(32).pictures(_fails, ["a", "b"]))


def test_a_task_uses_as_many_threads_as_it_asked_for_cpus(driver: Nodes) -> None:
    from gaip3_pipeline.cluster.mapping import RayMapper

    assert list(RayMapper(32).batches(_threads, [0])) == [(1, "1", "1")]


def _threads(_: int) -> tuple[int, str, str]:
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return cores(), *(os.environ[name] for name in names)  # type: ignore[return-value]


def _fails(name: str) -> None:
    raise FileNotFoundError(2, "No such file", f"nowhere/{name}")
