"""Time and peak memory of every step that handles tables of all pictures, by their number.

    python bench/million.py [--n 10000 100000 1000000] [--folder FOLDER] [--steps NAME …]

Makes a root of N originals: files with a few bytes, their manifests, and hashes, coarse pictures
and values as N pictures would have them. A hundredth of the pictures are moved copies of others.
Each step is a function of the project on files of the root, in a process of its own; most need the
files of steps before. Without the step ``files``, the steps that read only tables can be measured.
The peak is the largest resident memory of the process, imports included. FOLDER needs 8 GB for a
million. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from common import command_line, data_root, print_result
from PIL import Image
from scipy.fft import dctn

from gaip3_pipeline.assets import labels as label_assets
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation import gender_report, leakage
from gaip3_pipeline.evaluation.selection import selection_figures
from gaip3_pipeline.faces.painter import paint, random_face
from gaip3_pipeline.imaging import duplicates, processing
from gaip3_pipeline.imaging.bands import block_sums
from gaip3_pipeline.layout import IMAGE_SETS, KINDS, DataRoot, ImageSet
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.settings import Images, load
from gaip3_pipeline.setup import export, remote, snapshots
from gaip3_pipeline.tables import contracts, final, hashing, label_changes, manifests
from gaip3_pipeline.tables.duplicates import group_table, twins, write_group_table
from gaip3_pipeline.tables.snapshots import compare
from gaip3_pipeline.tables.splits import moved
from gaip3_pipeline.training_data import (
    final_images,
    folds_of_keys,
    labelled_table,
    originals_table,
    originals_with,
    processed_table,
)

SIZE = (64, 52)  # of the packed pictures
BATCH, BATCHES = 64, 200  # of the training
FACES, DIRECTIONS = 120, 60  # painted faces, and the directions of their mixtures
CROP = 24  # of 256 pixels, at each side
TWINS = 0.01
THRESHOLD = 0.5
Step = Callable[[DataRoot, int], None]


@dataclass(frozen=True)
class Mixtures:
    """N grey pictures: random mixtures of painted faces, the last ones moved copies of others."""

    mean: np.ndarray  # (128 * 104,)
    directions: np.ndarray  # (D, 128 * 104)
    shares: np.ndarray  # (N, D)
    twin_of: np.ndarray  # (N,), -1 for none
    by: np.ndarray  # (N, 2) pixels

    @classmethod
    def read(cls, root: DataRoot) -> "Mixtures":
        """Those that :func:`pictures` wrote."""
        with np.load(scratch(root, "mixtures.npz")) as kept:
            return cls(**kept)

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, number: int, /) -> np.ndarray:
        of = int(self.twin_of[number])
        if of < 0:
            flat = self.mean + self.shares[number] @ self.directions
            return np.clip(flat.round(), 0, 255).astype(np.uint8).reshape(duplicates.GREY_SIZE)
        matrix = np.array([[1, 0, self.by[number, 0]], [0, 1, self.by[number, 1]]], np.float64)
        height, width = duplicates.GREY_SIZE
        return cv2.warpAffine(self[of], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def scratch(root: DataRoot, name: str) -> Path:
    """A file of the bench beside the root."""
    return root.path.with_name(f"{root.path.name}-{name}")


def counts(n: int) -> tuple[int, int, int]:
    """How many of ``n`` originals are in each set."""
    return n - 2 * (n // 5), n // 5, n // 5


def files(root: DataRoot, n: int) -> None:
    """Originals of a few bytes each, and their resized pictures and brightness copies, which are
    further names of the same files."""
    for image_set, count in zip(IMAGE_SETS, counts(n), strict=True):
        folders = [root.original(image_set), *(root.processed(k, image_set) for k in KINDS)]
        for folder in folders:
            folder.mkdir(parents=True)
        for name in names_of(image_set, count):
            path = folders[0] / name
            path.write_text(name)
            for folder in folders[1:]:
                os.link(path, folder / name)


def names_of(image_set: ImageSet, count: int) -> list[str]:
    """The names of the originals of a set."""
    return [f"{image_set.id}_{i:07}.jpg" for i in range(count)]


def tables(root: DataRoot, n: int) -> None:
    """The manifests of resized pictures and brightness copies; with times and inodes, if the files
    were made."""
    prints = fingerprints(root.path.parent)
    for image_set, count in zip(IMAGE_SETS, counts(n), strict=True):
        names, before = names_of(image_set, count), root.original(image_set)
        shas = [sha256(name.encode()).hexdigest() for name in names]
        stats = [hashing.stat_key((before / name).stat()) for name in names if before.exists()]
        size, mtime, inode = zip(*stats, strict=True) if stats else (len(names[0]), 0, 0)
        for kind in KINDS:
            folder = root.processed(kind, image_set)
            columns = {
                "path": [root.relative(folder / name) for name in names],
                "size": size,
                "sha256": shas,
                "status": manifests.OK,
                "reason": "",
                "source": [root.relative(before / name) for name in names],
                "source_size": size,
                "source_mtime_ns": mtime,
                "source_inode": inode,
                "source_sha256": shas,
                "mtime_ns": mtime,
            }
            path = root.manifest(f"{kind}_{image_set.id}")
            manifests.write_manifest(path, pd.DataFrame(columns), prints[kind])
            before = folder


def fingerprints(folder: Path) -> dict[str, str]:
    """Those of the manifests of resized pictures and of brightness copies, from one picture."""
    root, image_set = DataRoot(folder / "one"), IMAGE_SETS[0]
    root.original(image_set).mkdir(parents=True)
    Image.new("RGB", (256, 256)).save(root.original(image_set) / "a.jpg")
    processing.resize_set(root, image_set, Images())
    processing.augment_set(root, image_set, Images())
    made = [root.manifest(f"{kind}_{image_set.id}") for kind in KINDS]
    found = [pq.read_schema(path).metadata[b"fingerprint"].decode() for path in made]
    shutil.rmtree(root.path)
    return dict(zip(KINDS, found, strict=True))


def pictures(root: DataRoot, n: int) -> None:
    """Grey pictures as mixtures of painted faces, their coarse pictures and hashes."""
    random = np.random.default_rng(0)
    faces = [
        duplicates.to_grey(paint(random_face(random, sex), 256)[:, CROP:-CROP])
        for sex in ("female", "male")
        for _ in range(min(FACES, n) // 2)
    ]
    flat = np.stack(faces).reshape(len(faces), -1).astype(np.float32)
    _, sizes, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    directions = (sizes / len(faces) ** 0.5)[:DIRECTIONS, None] * axes[:DIRECTIONS]
    shares = random.standard_normal((n, len(directions)), np.float32)
    twin_of, few = np.full(n, -1), max(1, int(n * TWINS))
    twin_of[n - few :] = random.choice(n - few, few, replace=False)
    by = random.integers(-1, 2, (n, 2))
    mixtures = {"mean": flat.mean(axis=0), "directions": directions, "shares": shares}
    np.savez(scratch(root, "mixtures.npz"), **mixtures, twin_of=twin_of, by=by)
    greys = Mixtures.read(root)
    size = duplicates.COARSE
    coarse = [
        flat.reshape(-1, size[0], 4, size[1], 4).sum(axis=(2, 4)).reshape(-1, size[0] * size[1])
        for flat in (greys.mean[None], directions)
    ]
    for start in range(0, n, 4096):
        block = coarse[0] + shares[start : start + 4096] @ coarse[1]
        sums = np.clip(block.round(), 0, 16 * 255).astype(np.uint16).reshape(-1, *size)
        for at in np.flatnonzero(twin_of[start : start + 4096] >= 0).tolist():
            sums[at] = duplicates.coarse_sums(greys[start + at][None])[0]
        for name, part in (("sums", sums), ("hashes", hashes_of(sums))):
            with scratch(root, name).open("ab") as file:
                part.tofile(file)


def hashes_of(sums: np.ndarray) -> np.ndarray:
    """``(N, 2, 32) uint8``: hashes of the coarse pictures and of their mirror images, made as
    perceptual hashes are, in one call for all."""
    found = []
    for small in (sums, sums[:, :, ::-1]):
        low = dctn(small.astype(np.float32), axes=(1, 2))[:, :16, :16].reshape(len(sums), -1)
        found.append(np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1))
    return np.stack(found, axis=1)


def observe(root: DataRoot, n: int) -> None:
    """The versions of the folders of originals."""
    for image_set in IMAGE_SETS:
        hashing.folder_version(root.original(image_set), root.hash_cache)


def plan(root: DataRoot, n: int) -> None:
    """``gaip3 refresh --dry-run``."""
    subprocess.run(gaip3("refresh", "--dry-run", "--root", str(root.path)), check=True)


def resized_again(root: DataRoot, n: int) -> None:
    """The resized sets, of which nothing changed."""
    for image_set in IMAGE_SETS:
        made = processing.resize_set(root, image_set, Images())
        assert made.done == 0
        assert made.version


def one_changed(root: DataRoot, n: int) -> None:
    """A resized set, one original of which changed, and so its manifest."""
    image_set = IMAGE_SETS[0]
    path = root.original(image_set) / f"{image_set.id}_{0:07}.jpg"
    path.unlink()
    Image.new("RGB", (256, 256)).save(path)
    assert processing.resize_set(root, image_set, Images()).done == 1


def augmented_again(root: DataRoot, n: int) -> None:
    """The brightness copies, of which nothing changed but that of one changed original."""
    for image_set in IMAGE_SETS:
        assert processing.augment_set(root, image_set, Images()).done <= 1


def near_duplicates(root: DataRoot, n: int) -> None:
    """Near-duplicates and their table."""
    sums = np.fromfile(scratch(root, "sums"), np.uint16).reshape(-1, *duplicates.COARSE)
    hashes = np.fromfile(scratch(root, "hashes"), np.uint8).reshape(-1, 2, 32)
    greys = Mixtures.read(root)
    pairs = duplicates.near_duplicates(hashes, sums, greys)
    found = {(p.first, p.second) for p in pairs}
    planted = [(int(of), i) for i, of in enumerate(greys.twin_of) if of >= 0]
    originals = originals_with(root, [])
    table = group_table(
        originals, [(p.first, p.second, p.correlation, p.bits, p.mirrored) for p in pairs]
    )
    moved(originals, originals_with(root, twins(table)))
    write_group_table(root.near_duplicates, table)
    print(f"{sum(p in found for p in planted):,} of {len(planted):,} planted, {len(found):,} pairs")


def no_leakage(root: DataRoot, n: int) -> None:
    """The check that no photograph is on two sides."""
    greys, sums = Mixtures.read(root), np.empty((n, *leakage.BLURRED), np.uint16)
    with scratch(root, "sums").open("rb") as file:
        for start in range(0, n, 4096):
            some = sums[start : start + 4096]
            fine = np.fromfile(file, np.uint16, len(some) * math.prod(duplicates.COARSE))
            some[:] = block_sums(fine.reshape(-1, *duplicates.COARSE), leakage.BLURRED)
    sides = originals_table(root).bucket.to_numpy()
    print(len(leakage.leaks(sums, greys, sides)), "leaks")


def splits(root: DataRoot, n: int) -> None:
    """The originals with their splits, all processed images, and their folds."""
    originals = originals_table(root)
    fold = folds_of_keys(originals, 5)
    assert processed_table(root).key.map(fold).notna().all()


def probabilities(root: DataRoot, n: int) -> None:
    """The gender probabilities, written."""
    paths = processed_table(root).path
    female = np.random.default_rng(1).random(len(paths), np.float32)
    scores = np.stack([1 - female, female], axis=1)
    contracts.write_gender_probabilities(root.gender_probabilities, paths, scores)


def selection(root: DataRoot, n: int) -> None:
    """The final dataset without its files: the rule, its figures, the manifest."""
    scores = contracts.read_gender_probabilities(root.gender_probabilities)
    chosen = final.select_final(scores, originals_table(root), THRESHOLD)
    manifest = chosen.assign(size=1, sha256=chosen.path, status=manifests.OK, reason="")
    manifest.to_parquet(root.manifest("final_dataset"), index=False)
    assert manifests.manifest_version(manifest)
    assert selection_figures(scores, manifest, THRESHOLD)


def final_links(root: DataRoot, n: int) -> None:
    """The files of the final dataset: hard links, and their hashes."""
    chosen = pd.read_parquet(root.manifest("final_dataset"))
    columns = ["size", "sha256", "status", "reason"]
    manifest = final.link_final(root, chosen.drop(columns=columns))
    manifest.to_parquet(root.manifest("final_dataset"), index=False)


def input_values(root: DataRoot, n: int) -> None:
    """The five values of every final image and their uncertainty, written."""
    paths = pd.read_parquet(root.manifest("final_dataset")).path
    for number, attribute in enumerate(ATTRIBUTES):
        values = np.random.default_rng(number).random(len(paths))
        contracts.write_input_values(root.input_values(attribute), attribute, paths, values)
        path = root.input_uncertainty(attribute)
        contracts.write_input_values(path, "uncertainty", paths, values / 10)


def hand_labels(root: DataRoot, n: int) -> None:
    """A hand label of every original of D2: read, checked, hashed, compared, joined."""
    for attribute in ATTRIBUTES:
        path = root.hand_labels(attribute)
        if not path.exists():
            sexes = [s for s in IMAGE_SETS if s.sex]
            stems = [(s.sex, f"{s.id}_{i:07}") for s in sexes for i in range(counts(n)[1])]
            table = pd.DataFrame(stems, columns=["gender", "stem"]).assign(img_id="", value=0.5)
            contracts.write_labels(path, table)
            contracts.write_labels(root.checked_labels(attribute), table)
    attribute = ATTRIBUTES[0]
    label_assets.observe(root, attribute)
    found = label_assets.read(root, attribute)
    changes = label_changes.changes_since(root.checked_labels(attribute), found.table)
    assert changes.empty
    assert len(labelled_table(root, attribute)) == len(found.table)


def exported(root: DataRoot, n: int) -> None:
    """The table of ``gaip3 export-dataset``."""
    assert len(export.rows_of(root)) == len(pd.read_parquet(root.manifest("final_dataset")))


def curation(root: DataRoot, n: int) -> None:
    """The curation report, with black pictures."""
    scores = contracts.read_gender_probabilities(root.gender_probabilities)
    manifest = pd.read_parquet(root.manifest("final_dataset"))
    black = np.zeros((*duplicates.GREY_SIZE, 3), np.uint8)
    gender_report.curation_report(scores, manifest, THRESHOLD, lambda path: black)


def training(root: DataRoot, n: int) -> None:
    """Batches of a training from the packed pictures, which are all black."""
    from gaip3_pipeline.training.batches import ArrayBatches  # Keras, which no other step needs

    count = len(pd.read_parquet(root.manifest("final_dataset")))
    root.packed_final.parent.mkdir(exist_ok=True)
    packed = np.lib.format.open_memmap(
        root.packed_final, mode="w+", dtype=np.uint8, shape=(count, *SIZE, 3)
    )
    del packed
    data = final_images(root, load(root))
    arrays = {"images": data.images, "values": data.values}
    batches = ArrayBatches(arrays, BATCH, 0, lambda batch, _: batch["images"].sum())
    for index in range(min(BATCHES, len(batches))):
        assert batches[index] == 0


def snapshot(root: DataRoot, n: int) -> None:
    """``gaip3 snapshot``."""
    snapshots.take(root, f"s{len(snapshots.snapshots(root))}")


def pushed(root: DataRoot, n: int) -> None:
    """``gaip3 push`` of the first snapshot into a folder."""
    remote.push(root, "s0", scratch(root, "there").as_uri(), with_pictures=True)


def compared(root: DataRoot, n: int) -> None:
    """``gaip3 diff`` of two snapshots, and all files of the second."""
    compare(root, "s0", "s1")


# the first three are no functions of the project
STEPS: dict[str, Step] = {
    "files": files,
    "tables": tables,
    "pictures": pictures,
    "observing, files never seen": observe,
    "observing": observe,
    "plan": plan,
    "resized sets, nothing changed": resized_again,
    "resized set, one original changed": one_changed,
    "brightness copies, nothing changed": augmented_again,
    "near-duplicates": near_duplicates,
    "check against leakage": no_leakage,
    "splits": splits,
    "gender probabilities": probabilities,
    "final selection": selection,
    "final links": final_links,
    "input values": input_values,
    "hand labels": hand_labels,
    "export table": exported,
    "curation report": curation,
    "batches": training,
    "snapshot": snapshot,
    "second snapshot": snapshot,
    "difference": compared,
    "push": pushed,
}


def measured(name: str, root: DataRoot, n: int) -> dict[str, float]:
    """Seconds, CPU seconds and peak MiB of a step in a process of its own. Exits if it fails."""
    command = [sys.executable, __file__, "--n", str(n), "--steps", name, "--root", str(root.path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name} failed with {n:,} originals")
    *said, last = done.stdout.splitlines()
    print(*said, sep="\n", end="\n" if said else "")
    figures: dict[str, float] = json.loads(last)
    return figures


def measure(step: Step, root: DataRoot, n: int) -> dict[str, float]:
    """:func:`measured` in this process."""
    start, before = time.monotonic(), used()[0]
    step(root, n)
    (cpu, peak), seconds = used(), time.monotonic() - start
    figures = {"seconds": seconds, "cpu_seconds": cpu - before, "peak_mib": peak / 1024}
    return {name: round(value, 2) for name, value in figures.items()}


def used() -> tuple[float, int]:
    """CPU seconds and peak memory in KiB of this process and its children."""
    both = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in both), max(of.ru_maxrss for of in both)


def main() -> None:
    """Measure every step at every size, print."""
    parser = command_line(__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="[default: a temporary one]")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--root", type=data_root, help=argparse.SUPPRESS)  # of one step, here
    a = parser.parse_args()
    if a.root:
        print_result(measure(STEPS[a.steps[0]], a.root, a.n[0]))
        return
    said: dict[str, dict[str, dict[str, float]]] = {}
    for n in a.n:
        with tempfile.TemporaryDirectory(dir=a.folder) as folder:
            root = DataRoot(Path(folder, "root"))
            root.path.mkdir()
            root.settings_file.write_text("[tracking]\nenabled = false\n", encoding="utf-8")
            for name in STEPS:
                if name not in a.steps:
                    continue
                figures = measured(name, root, n)
                said.setdefault(name, {})[str(n)] = figures
                print(
                    f"{n:>9,} {name:36}", *(f"{k} {v:,.1f}" for k, v in figures.items()), flush=True
                )
    print_result({"steps": said})


if __name__ == "__main__":
    main()
