"""Splits that do not change when data is added: twins (originals of the same photograph) form a
group, and a hash of the group's smallest ``set/stem`` gives its bucket."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from gaip3_pipeline.tables.manifests import UNUSABLE

TEST_BUCKETS = 10
VALIDATION_BUCKETS = 20


def groups(keys: Sequence[str], twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map each key (``set/stem`` of an original) to the smallest key of its group; ``twins`` are
    pairs of connected keys."""
    parent = {k: k for k in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for a, b in twins:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {k: root(k) for k in keys}


def bucket(group: str) -> int:
    """The bucket 0..99 of a group, named by its smallest ``set/stem``."""
    return int(hashlib.sha256(f"split-v1{group}".encode()).hexdigest(), 16) % 100


def split(buckets: np.ndarray) -> np.ndarray:
    """``test`` (buckets 0..9), ``validation`` (10..19) or ``train`` for each of
    ``buckets (N,) int``."""
    b = np.asarray(buckets)
    return np.where(
        b < TEST_BUCKETS, "test", np.where(b < VALIDATION_BUCKETS, "validation", "train")
    )


def folds_of(buckets: np.ndarray, folds: int) -> np.ndarray:
    """The fold ``(N,)`` of each picture from its bucket 0..99, which twins share."""
    return np.asarray(buckets) % folds


def evaluators_half(buckets: np.ndarray) -> np.ndarray:
    """The split ``(N,)`` of an evaluator's pictures: ``test`` as everywhere, ``train`` for the odd
    buckets of the rest, else ``unused``.

    The half does not change when data is added."""
    b = np.asarray(buckets)
    return np.where(b < TEST_BUCKETS, "test", np.where(b % 2 == 1, "train", "unused"))


def originals(
    manifests: Mapping[str, pd.DataFrame], twins: Iterable[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Every usable original with its split: ``key`` (``set/stem``), ``set``, ``stem``, ``path``,
    ``group``, ``bucket``, ``split``.

    ``manifests`` maps a set's id to the manifest of its resized images; ``path`` is that of the
    original. Originals of equal bytes are twins, and so are the pairs of keys in ``twins``; pairs
    with a key that is no longer an original are ignored."""
    parts = []
    for set_id, manifest in manifests.items():
        usable = manifest[manifest.status != UNUSABLE]
        stems = [PurePosixPath(p).stem for p in usable.path]
        parts.append(
            pd.DataFrame(
                {
                    "set": set_id,
                    "stem": stems,
                    "path": list(usable.source),
                    "source": list(usable.source_sha256),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["key"] = table["set"] + "/" + table["stem"]
    known = set(table.key)
    pairs = [
        (same[0], other) for same in table.groupby("source").key.apply(list) for other in same[1:]
    ]
    of = groups(list(table.key), [*pairs, *((a, b) for a, b in twins if a in known and b in known)])
    table["group"] = table.key.map(of)
    table["bucket"] = table.group.map(bucket).astype(int)
    table["split"] = split(table.bucket.to_numpy())
    return table[["key", "set", "stem", "path", "group", "bucket", "split"]].sort_values(
        "key", ignore_index=True
    )


def moved(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """``key: bucket → bucket`` of each original whose bucket differs between two tables of
    :func:`originals`, which happens when groups are merged."""
    both = before[["key", "bucket"]].merge(
        after[["key", "bucket"]], on="key", suffixes=("", "_after")
    )
    return [
        f"{r.key}: {r.bucket} → {r.bucket_after}"
        for r in both[both.bucket != both.bucket_after].itertuples()
    ]
