"""The built-in data set: painted originals in the three source folders, simulated hand labels, and
the exact values."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.faces.painter import Face, random_face
from gaip3_pipeline.faces.writing import paint_files
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, ImageSet
from gaip3_pipeline.settings import Faces
from gaip3_pipeline.tables.files import write_text_atomically

LABELLED = 1000  # the first this many of each sex, in plain string order of file names
MISSING = 0.02  # share of rows left out, as if a labeller had skipped them
SLIP = 0.008  # share of rows with a clearly wrong value

_WORTH_PROCESSES = 200  # fewer pictures are painted faster in this process
TRUTH_COLUMNS = ("set", "file", "sex", *ATTRIBUTES)

Progress = Callable[[int, int], None]


class DatasetError(ValueError):
    """A folder that holds pictures painted with other settings."""


@dataclass(frozen=True)
class Portrait:
    """One picture of the data set: its set, file name and face."""

    image_set: ImageSet
    file: str
    face: Face


def write_dataset(root: DataRoot, settings: Faces, progress: Progress | None = None) -> None:
    """Fill ``root`` with originals, the five hand-label CSVs and ``truth.csv``
    (docs/data-contracts.md).

    Equal settings give equal bytes, on any number of processes. Existing files are kept: pictures
    are not painted again, and label CSVs, which a person may have edited, are never overwritten.
    ``progress`` is called with the number of finished pictures and their total. Raises
    :class:`DatasetError` if ``root`` was painted with another seed or size."""
    wanted = portraits(settings)
    _check_size(root, wanted, settings.size)
    _write_truth(root, wanted)
    for attribute in ATTRIBUTES:
        path = root.hand_labels(attribute)
        if not path.exists():
            write_text_atomically(path, _csv(hand_labels(wanted, attribute, settings.seed)))
    for image_set in IMAGE_SETS:
        for half_written in root.original(image_set).glob(".writing-*"):
            half_written.unlink()
    missing = [(root.original(p.image_set) / p.file, p.face) for p in wanted]
    missing = [(path, face) for path, face in missing if not path.exists()]
    done, total = len(wanted) - len(missing), len(wanted)
    if progress:
        progress(done, total)
    processes = len(os.sched_getaffinity(0)) if len(missing) >= _WORTH_PROCESSES else 1
    for count in paint_files(missing, settings.size, processes):
        done += count
        if progress:
            progress(done, total)


def portraits(settings: Faces) -> list[Portrait]:
    """Every picture of the data set. A picture depends on the seed, its set and its number only,
    not on the number of pictures."""
    out = []
    for k, (image_set, n) in enumerate(
        zip(IMAGE_SETS, (settings.d1, settings.female, settings.male), strict=True)
    ):
        for i in range(n):
            rng = np.random.default_rng([settings.seed, k, i])
            sex = image_set.sex or ("female" if rng.random() < 0.5 else "male")
            file = f"seed_{i + 1:04d}.jpg" if image_set.sex else f"{i:06d}.jpg"
            out.append(Portrait(image_set, file, random_face(rng, sex)))
    return out


def hand_labels(wanted: list[Portrait], attribute: str, seed: int) -> pd.DataFrame:
    """Simulated hand labels: columns ``gender, img_id, path, value``; values are rounded and a
    little noisy, some rows are missing."""
    rows = []
    for sex in ("female", "male"):
        ours = sorted((p for p in wanted if p.image_set.sex == sex), key=lambda p: p.file)[
            :LABELLED
        ]
        for i, p in enumerate(ours):
            number = int(Path(p.file).stem.removeprefix("seed_"))
            rng = np.random.default_rng(
                [seed, 100 + ATTRIBUTES.index(attribute), sex == "male", number]
            )
            if rng.random() >= MISSING:
                value = _as_labelled(attribute, getattr(p.face, attribute), rng)
                rows.append((sex, i, f"resized/{p.image_set.folder}/{p.file}", value))
    return pd.DataFrame(rows, columns=["gender", "img_id", "path", "value"])


def _as_labelled(attribute: str, exact: float, rng: np.random.Generator) -> float:
    noisy = exact + rng.normal(0, 0.06)
    fine, slip = rng.random() < 0.15, rng.random() < SLIP
    if attribute == "head":
        value = 0.0 if noisy < 0.32 else 1.0 if noisy > 0.68 else 0.5
        step = 0.5
    elif attribute in ("eyes", "mouth"):
        step = 0.25 if fine else 0.5
        value = round(noisy / step) * step
    else:
        step = 0.25
        value = round(noisy / step) * step
    if slip:
        value += step if value < 0.5 else -step
    return float(np.clip(value, 0, 1))


def _check_size(root: DataRoot, wanted: list[Portrait], size: int) -> None:
    there = next(
        (path for p in wanted if (path := root.original(p.image_set) / p.file).exists()), None
    )
    if there and (found := Image.open(there).size) != (size, size):
        raise DatasetError(
            f"{there}: painted {found[0]} pixels wide, not {size}; use an empty folder, or remove"
            f" {root.originals}"
        )


def _write_truth(root: DataRoot, wanted: list[Portrait]) -> None:
    rows = [
        (p.image_set.id, p.file, p.face.sex, *(getattr(p.face, a) for a in ATTRIBUTES))
        for p in wanted
    ]
    text = _csv(pd.DataFrame(rows, columns=list(TRUTH_COLUMNS)))
    if root.truth.exists():
        before = root.truth.read_text(encoding="utf-8")
        if before == text:
            return
        old = {tuple(line.split(",")[:2]): line for line in before.splitlines()[1:]}
        for line in text.splitlines()[1:]:
            if old.get(tuple(line.split(",")[:2]), line) != line:
                raise DatasetError(
                    f"{root.truth}: painted with another seed; use an empty folder, or remove"
                    f" {root.originals}"
                )
    write_text_atomically(root.truth, text)


def _csv(table: pd.DataFrame) -> str:
    out = io.StringIO()
    table.to_csv(out, index=False, lineterminator="\n")
    return out.getvalue()
