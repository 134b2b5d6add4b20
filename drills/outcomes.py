"""What mutations, doors and load share: a line of ``results.jsonl`` for each thing that was done,
and small roots."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drills.record import RESULTS, commit, write_page
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.tables.label_store import Edit, LabelStore


@dataclass(frozen=True)
class Outcome:
    """``times`` that ``what`` was done; ``lost`` of them went wrong. ``figures`` are further
    numbers."""

    drill: str
    what: str
    times: int
    lost: int
    seconds: float
    figures: dict[str, Any]
    seed: int = 0


def report(outcomes: Iterable[Outcome], run: Mapping[str, str]) -> int:
    """Print ``outcomes``, append them to ``results.jsonl``, and return how much went wrong; ``run``
    is that of :func:`begun`."""
    wrong = 0
    with RESULTS.open("a", encoding="utf-8") as file:
        for outcome in outcomes:
            wrong += outcome.lost
            more = "".join(f"  {k} {v}" for k, v in outcome.figures.items())
            print(
                f"{outcome.what:60} {outcome.times:6,} times {outcome.lost:4} wrong"
                f" {outcome.seconds:8.1f} s{more}",
                flush=True,
            )
            file.write(json.dumps({**asdict(outcome), **run}, ensure_ascii=False) + "\n")
    write_page()
    return wrong


def begun(module: str) -> dict[str, str]:
    """The command of this process, the commit that it runs, date and hardware. Ask at the
    beginning: the commit may be another one at the end."""
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
    }


def small_root(path: Path, pictures: int = 6, height: int = 64, labels: int = 3) -> DataRoot:
    """A root with ``pictures`` originals of each sex, ``labels`` of each sex labelled in all
    attributes, and tiny settings."""
    root, generator = DataRoot(path), np.random.default_rng(0)
    for sex, image_set in SET_OF_SEX.items():
        folder = root.original(image_set)
        folder.mkdir(parents=True)
        for i in range(pictures):
            pixels = generator.integers(0, 255, (height, height, 3), np.uint8)
            cv2.imwrite(str(folder / f"{sex[0]}_{i:04d}.jpg"), pixels)
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    edits = [
        Edit(attribute, sex, f"{sex[0]}_{i:04d}", i / max(1, labels - 1))
        for attribute in ATTRIBUTES
        for sex in SET_OF_SEX
        for i in range(labels)
    ]
    LabelStore(root).apply(edits, "the drill")
    return root


def start(words: Sequence[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start ``gaip3`` with ``words`` in a group of its own; its output goes to ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            gaip3(*words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **variables},
            start_new_session=True,
        )
