"""Run drills, one or all, and record what was done.

    python -m drills [NAME …] [--times N] [--seed S] [--root FOLDER] [--record]

Without names, all are run, which takes an hour or more. ``--times`` and ``--seed`` say how often
and at which random moments. ``--root`` is a root of tiny models on which everything has run, to be
copied; without it one is made when a drill needs it. ``--record`` adds a line for each drill to
drills/results.jsonl and shows it in docs/reliability.md. Ends with status 1 if anything was
lost."""

import argparse
import random
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from drills.drill import DRILLS, Exercise, Skipped
from drills.record import record, write_page
from drills.roots import finished
from gaip3_pipeline.layout import DataRoot


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRILLS))
    parser.add_argument("--times", type=int, help="how often [default: each drill's own]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="a finished root to copy [default: make one]")
    parser.add_argument("--record", action="store_true", help="add lines to drills/results.jsonl")
    a = parser.parse_args()
    unknown = [name for name in a.names if name not in DRILLS]
    if unknown:
        parser.error(f"there is no drill {unknown[0]}; there are {', '.join(DRILLS)}")
    with tempfile.TemporaryDirectory(prefix="gaip3-drills-", ignore_cleanup_errors=True) as work:
        lost = [run(name, a, Path(work)) for name in a.names or DRILLS]
    sys.exit(1 if any(lost) else 0)


def run(name: str, a: argparse.Namespace, work: Path) -> int:
    """Run one drill; returns how many promises were not kept."""

    @cache
    def source() -> Path:
        if a.root:
            return Path(a.root)
        made = work / "finished"
        return made if made.exists() else finished(made).path

    def copy(folder: Path) -> DataRoot:
        return DataRoot(Path(shutil.copytree(source(), folder, copy_function=shutil.copy2)))

    chosen = DRILLS[name]
    folder = work / name
    folder.mkdir()
    exercise = Exercise(folder, a.times or chosen.times, random.Random(f"{a.seed}{name}"), copy)
    print(f"{name}: {chosen.what}", flush=True)
    try:
        seconds = chosen.run(exercise)
    except Skipped as e:
        print(f"  skipped: {e}", flush=True)
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"  {exercise.done} times in {seconds:.0f} s, lost: {len(exercise.lost)}", flush=True)
    if a.record:
        record(chosen, exercise, a.seed, seconds)
        write_page()
    return len(exercise.lost)


if __name__ == "__main__":
    main()
