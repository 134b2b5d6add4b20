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


def main() -> None:
    """Print the lines."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("figures", nargs="*", default=DEFAULT)
    parser.add_argument("--command", required=True, help="the command that made the root")
    parser.add_argument("--name", help="the name of the root in the lines [default: its folder]")
    a = parser.parse_args()
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
        interval = None
        if f"{name}_low" in figures:
            interval = [figures[f"{name}_low"], figures[f"{name}_high"]]
        others = figures.get("fd_n", figures.get("n_held_out"))
        n = figures.get(COUNTS.get(name.partition("_")[0], "n"), others)
        print_result({"figure": wanted, "value": value, "interval": interval, "n": n, **same})


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
