"""Pictures per second of `gaip3 push` and `gaip3 pull` on an S3 server, beside single objects.

    python bench/remote.py [--pictures 600] [--root ROOT]

The server is Swift on this machine, which asks for a key; it and the client share the cores.
``push`` and ``pull`` are the project's own, hashing, hard links and files on disk included. Single
objects are written and read one after another by the same client. With ``--root`` the photographs
are copies of its originals, else noise in JPEGs of about 17 kB. ``range_ms`` is the median time in
which one picture is read out of its shard. The last line is one JSON object.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import command_line, data_root, print_result
from PIL import Image

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.setup.remote import Remote, pull, push
from gaip3_pipeline.setup.snapshots import take
from gaip3_pipeline.tables.snapshots import find, rows_of
from gaip3_pipeline_tests import swift

RANGES = 30


def seconds(work: Callable[[], object]) -> float:
    """How long ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def photographs(folder: Path, count: int, source: DataRoot | None) -> None:
    """Write ``count`` JPEGs into ``folder``."""
    folder.mkdir(parents=True)
    if source:
        originals = sorted(source.originals.rglob("*.jpg"))
        for i in range(count):
            shutil.copy(originals[i % len(originals)], folder / f"{i}.jpg")
        return
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = rng.integers(0, 256, (104, 104, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.jpg", quality=90)


def main() -> None:
    """Push, pull, compare with single objects, report."""
    import boto3

    parser = command_line(__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--root", type=data_root)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, swift.serving() as server:
        os.environ |= {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.key,
            "AWS_SECRET_ACCESS_KEY": server.secret,
            "AWS_REGION": "us-east-1",
        }
        boto3.client("s3", endpoint_url=server.endpoint).create_bucket(Bucket="faces")
        here, there = DataRoot(Path(name, "here")), DataRoot(Path(name, "there"))
        photographs(here.original(IMAGE_SETS[0]), a.pictures, a.root)
        pictures = sorted(here.original(IMAGE_SETS[0]).iterdir())
        taking = seconds(lambda: take(here, "all"))
        pushing = seconds(lambda: push(here, "all", "s3://faces/shards", True))
        again = seconds(lambda: push(here, "all", "s3://faces/shards", True))
        pulling = seconds(lambda: pull(there, "s3://faces/shards", "all"))
        remote, single = Remote("s3://faces/shards"), Remote("s3://faces/single")
        rows = remote.table(remote.snapshot("all"), there)
        some = rows[rows.path.str.startswith("original/")].head(RANGES)
        ranges = []
        for row in rows_of(some):
            start = time.perf_counter()
            list(remote.parts(row.shard, [(row.offset, row.size)]))
            ranges.append(time.perf_counter() - start)

        def one_by_one() -> None:
            for picture in pictures:
                single.put(picture.name, picture)

        writing = seconds(one_by_one)
        reading = seconds(lambda: [single._get(p.name) for p in pictures])
        size = find(here, "all").bytes
    rate = {
        "snapshot": a.pictures / taking,
        "push": a.pictures / pushing,
        "pull": a.pictures / pulling,
        "single_put": a.pictures / writing,
        "single_get": a.pictures / reading,
    }
    for what, value in rate.items():
        print(f"{what:12}{value:10.0f} pictures/s")
    print_result(
        {
            "pictures": a.pictures,
            "bytes": size,
            "pictures_per_s": {k: round(v, 1) for k, v in rate.items()},
            "second_push_s": round(again, 2),
            "range_ms": round(1000 * statistics.median(ranges), 1),
        }
    )


if __name__ == "__main__":
    main()
