"""Pictures per second on a Ray cluster, and what it costs.

    python bench/cluster.py [--pictures N] [--size S] [--chunk C] [--root ROOT] [--nodes 8,16,32]

The nodes are processes of this machine with one CPU each. Three measurements:

1. Resize and brightness copy of N JPEGs of S x S pixels by the functions of the pipeline, in this
   process, on one node and on two, in turn and each three times: medians of pictures per second,
   CPU milliseconds per picture, the overhead (CPU time beyond the work, of all processes), how
   much of it Ray's own processes take while nothing runs, and the share of
   2 / (work + overhead) that two nodes reach. With fewer than three idle cores the driver and the
   head take part of the time of the two nodes.
2. With --root, a finished root: features of its final pictures on one node and on two.
3. Where one driver ends: tasks that sleep as long as the work would take, on a node that pretends
   to have as many CPUs as --nodes says. Their results are either rows, as now, or the name of a
   Parquet part that the task wrote.

The last line is JSON."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import command_line, print_result

from gaip3_pipeline.cluster.mapping import RayMapper
from gaip3_pipeline.features.extractor import PackedFeatures
from gaip3_pipeline.imaging.mapping import LocalMapper, Mapper
from gaip3_pipeline.imaging.processing import augment_set, resize_set
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.models.scoring import SCORING_BATCH
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.manifests import Row, table_of, write_manifest
from gaip3_pipeline_tests.cluster.nodes import Nodes, cluster_of, ip

D1 = IMAGE_SETS[0]
ROW = Row(
    "resized/10k-images/000000.jpg", 9000, "0" * 64, "ok", "", "original/x.jpg", 1, 2, 3, "", 4
)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--pictures", type=int, default=960)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--nodes", default="8,16,32", help="pretended numbers of CPUs")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        out = measure(words, Path(folder))
    print_result(out)


def measure(words: Any, folder: Path) -> dict[str, Any]:
    originals = folder / "originals"
    paint(originals, words.pictures, words.size)
    out: dict[str, Any] = {"pictures": words.pictures, "chunk": words.chunk}
    with cluster_of(folder / "r", workers=0, head_cpus=0) as nodes, driver(nodes):
        for count in (1, 2):
            nodes.start(ip(2 + count))
            mapper = RayMapper(words.chunk)
            warm(mapper)
            idle = idle_share(nodes)
            # in turn, since the speed of a machine changes with what else it does
            turns = [
                (
                    processed(originals, folder, _OneThread(), None),
                    processed(originals, folder, mapper, nodes),
                )
                for _ in range(3)
            ]
            own = median(here["cpu_ms"] for here, _ in turns)
            overhead = median(there["cpu_ms"] - here["cpu_ms"] for here, there in turns)
            rate = median(there["per_s"] for _, there in turns)
            share = rate * (own + overhead) / (1000 * count)
            daemons = 1000 * idle / rate
            print(
                f"{count} nodes: {rate:.0f} pictures/s, work {own:.2f} CPU ms, overhead"
                f" {overhead:.2f} CPU ms, {daemons:.2f} of it by idle processes, share {share:.2f}"
            )
            out |= {
                f"per_s_{count}": rate,
                f"work_ms_{count}": own,
                f"overhead_ms_{count}": overhead,
                f"idle_ms_{count}": daemons,
                f"share_{count}": share,
            }
            if words.root:
                rate = features(DataRoot(words.root.resolve()), mapper, count)
                out[f"features_per_s_{count}"] = rate
                print(f"{count} nodes: features of {rate:.0f} pictures/s")
        for count in (1, 2):
            nodes.kill(ip(2 + count))
        for pretended in map(int, words.nodes.split(",")):
            nodes.start(ip(8), cpus=pretended)
            for kind, work in (("rows", _Sleeps), ("parts", _SleepsAndWrites)):
                rate = simulated(work(out["work_ms_1"] / 1000, str(folder)), pretended, words.chunk)
                out[f"driver_{kind}_{pretended}"] = rate
                print(f"{pretended} pretended nodes, {kind}: {rate:.0f} pictures/s")
            nodes.kill(ip(8))
    return out


def paint(folder: Path, count: int, size: int) -> None:
    """``count`` JPEGs of smooth noise, which compress like photographs."""
    import cv2

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    kinds = [
        encode_jpeg(
            cv2.resize(noise.integers(0, 256, (size // 8, size // 8, 3), np.uint8), (size, size)),
            90,
        )
        for _ in range(8)
    ]
    for i in range(count):
        (folder / f"{i:06d}.jpg").write_bytes(kinds[i % len(kinds)])


def processed(
    originals: Path, folder: Path, mapper: Mapper, nodes: Nodes | None
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = DataRoot(Path(place))
        root.original(D1).parent.mkdir(parents=True)
        shutil.copytree(originals, root.original(D1))
        before, start = cpu_seconds(nodes), time.perf_counter()
        made = resize_set(root, D1, Images(), mapper=mapper)
        augment_set(root, D1, Images(), mapper=mapper)
        seconds = time.perf_counter() - start
    assert made.done == len(made.manifest)
    return {
        "per_s": made.done / seconds,
        "cpu_ms": 1000 * (cpu_seconds(nodes) - before) / made.done,
    }


def idle_share(nodes: Nodes, seconds: float = 10.0) -> float:
    """CPU seconds a second of the nodes while nothing runs."""
    before = nodes.cpu_seconds()
    time.sleep(seconds)
    return (nodes.cpu_seconds() - before) / seconds


def cpu_seconds(nodes: Nodes | None) -> float:
    """CPU time so far of this process and of all processes of the nodes."""
    return time.process_time() + (nodes.cpu_seconds() if nodes else 0.0)


def features(root: DataRoot, mapper: Mapper, nodes: int) -> float:
    """Pictures per second of four passes over the packed pictures."""
    work = PackedFeatures(root.feature_extractor, "bench", root.packed_final)
    count = len(np.load(root.packed_final, mmap_mode="r"))
    batches = [range(count)[i : i + SCORING_BATCH] for i in range(0, count, SCORING_BATCH)]
    begin_everywhere(mapper, work, batches[0], nodes)
    start = time.perf_counter()
    for _ in mapper.batches(work, 4 * batches):
        pass
    return 4 * count / (time.perf_counter() - start)


def simulated(work: Any, cpus: int, chunk: int) -> float:
    """Pictures per second of tasks that sleep, in a steady state."""
    mapper = RayMapper(chunk)
    begin_everywhere(mapper, work, 1, cpus)
    count = cpus * chunk * 8
    start = time.perf_counter()
    for _ in mapper.pictures(work, range(count)):
        pass
    return count / (time.perf_counter() - start)


def begin_everywhere(mapper: Mapper, work: Any, item: Any, workers: int) -> None:
    """Return when every worker runs and has loaded what ``work`` of ``item`` needs."""
    begun: set[int] = set()
    while len(begun) < workers:
        begun |= set(mapper.batches(_Begins(work), [item] * 4 * workers))


def warm(mapper: Mapper) -> None:
    """Start a worker on every node and import there what the work imports."""
    list(mapper.pictures(_Warm(), range(32 * 8)))


@contextmanager
def driver(nodes: Nodes) -> Iterator[None]:
    import ray

    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()


class _OneThread(LocalMapper):
    def pictures(self, work: Any, items: Any) -> Iterator[Any]:
        yield from map(work, items)


class _Warm:
    def __call__(self, item: int) -> int:
        import gaip3_pipeline.imaging.processing  # noqa: F401

        time.sleep(0.005)
        return item


class _Begins:
    """Does the work once and returns the process, after others had time to begin as well."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def __call__(self, item: Any) -> int:
        self.work(item)
        time.sleep(0.5)
        return os.getpid()


class _Sleeps:
    def __init__(self, seconds: float, folder: str) -> None:
        self.seconds, self.folder = seconds, folder

    def __call__(self, item: int) -> Any:
        time.sleep(self.seconds)
        return replace(ROW, path=f"resized/{item}.jpg")


class _SleepsAndWrites(_Sleeps):
    """One part of the manifest for each picture number divisible by the chunk; the other rows
    are in it."""

    def __call__(self, item: int) -> Any:
        time.sleep(self.seconds)
        if item % 64:
            return None
        part = Path(self.folder) / f"part-{item}.parquet"
        rows = [replace(ROW, path=f"resized/{item + k}.jpg") for k in range(64)]
        write_manifest(part, table_of(rows))
        return str(part)


if __name__ == "__main__":
    main()
