"""Figures of a refreshed root as JSON lines, for the files in bench/results/.

    python bench/record.py ROOT --command "make demo" [--name demo] [ASSET:FIGURE …] \\
        >> bench/results/detail.jsonl

Each line has a figure with its value, n, interval (if the asset has one), the command that made the
root, date, commit and hardware. Without ASSET:FIGURE, the figures are those of the generator's
evaluation and of retouching. The commit of a tree with uncommitted changes ends in "+".
"""

import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

from common import command_line, data_root, print_result

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.fresh_judges import MAKES, SIZES
from gaip3_pipeline.layout import REPOSITORY
from gaip3_pipeline.metrics.sharpness import OCTAVES
from gaip3_pipeline.versions import read_figures

DISTANCES = ("swd", "fd_random", "fd_pixels", "coverage", "recall", "diversity")
RETOUCHED = ("values_mae", "judge_auc", "reconstruction_judge_auc")
OF_OCTAVES = ("power", "kurtosis", "noise", "agreement")
OF_VALUES = ("r2", "spearman", "from", "to", "least_real")
EVALUATION = [
    *(
        f"{name}_{k}{end}"
        for name in OF_OCTAVES
        for k in range(1, OCTAVES + 1)
        for end in ("", "_plain", "_real")
    ),
    *(f"judge_{m}{part}_{s}" for m in MAKES for part in ("", "_nothing") for s in SIZES),
    *(f"judge_{m}_{part}" for m in MAKES for part in ("tells_blur", "tells_plain")),
    *(f"{d}_{end}" for d in DISTANCES for end in ("samples", "real")),
    *(f"{name}_{a}" for name in OF_VALUES for a in ATTRIBUTES),
    *("grid", "copying", "nearest_samples", "nearest_real", "detail_recognised", "leakage"),
]
DEFAULT = [
    *(f"generator_evaluation:{name}" for name in EVALUATION),
    *(f"retouched_samples:{name}_{when}" for name in RETOUCHED for when in ("before", "after")),
    "nvae_weights:bits_per_dim",
    "aggregate_posterior:nats",
]
COUNTS = {name.partition("_")[0]: "fd_n" for name in DISTANCES}
# counted in faces that are swept or drawn with several noise maps, and in labels of the value
OF_FACES = ("r2", "spearman", "slope", "drift", "least", "leakage", "noise")
OF_LABELS = ("r2", "mae", "spearman", "within", "look", "expected")
UNCOUNTED = ("judge", "agreement", "from", "to")  # generator_evaluation does not report their n


def main() -> None:
    """Print the lines."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("figures", nargs="*", default=DEFAULT)
    parser.add_argument("--command", required=True, help="the command that made the root")
    parser.add_argument("--name", help="the name of the root in the lines [default: its folder]")
    a = parser.parse_intermixed_args()
    same = {
        "root": a.name or a.root.path.name,
        "command": a.command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
    }
    for wanted in a.figures:
        asset, _, name = wanted.partition(":")
        figures = read_figures(a.root, asset)
        value = figures.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            continue
        interval, n = interval_of(figures, name), count_of(figures, name)
        print_result({"figure": wanted, "value": value, "interval": interval, "n": n, **same})


def interval_of(figures: dict[str, Any], name: str) -> list[float] | None:
    """The interval that an asset keeps beside the figure ``name``: ``mae_low``, ``mae_low_eyes``
    beside ``mae_eyes``, or ``female_recall_interval``."""
    first, _, rest = name.partition("_")
    for low, high in (
        (f"{name}_low", f"{name}_high"),
        (f"{first}_low_{rest}", f"{first}_high_{rest}"),
    ):
        if low in figures:
            return [figures[low], figures[high]]
    return figures.get(f"{name}_interval")


def count_of(figures: dict[str, Any], name: str) -> int | None:
    """On how many pictures, faces or labels the figure ``name`` was measured, if the asset
    reports it."""
    first = name.partition("_")[0]
    keys = [COUNTS.get(first, ""), f"{first}_n", f"n_{first}", "n", "fd_n", "n_held_out"]
    if "faces" in figures:
        if first in UNCOUNTED:
            return None
        if first in OF_FACES:
            return figures["faces"]
    if first in OF_LABELS:
        keys = [*(f"n_{a}" for a in ATTRIBUTES if name.endswith(f"_{a}")), *keys]
    return next((figures[key] for key in keys if key in figures), None)


def commit() -> str:
    """The commit of the code, followed by "+" if there are uncommitted changes."""

    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


if __name__ == "__main__":
    main()
