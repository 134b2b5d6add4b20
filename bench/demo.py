"""Where the time of the demo goes.

    python bench/demo.py [--root FOLDER]

Runs ``gaip3 demo`` twice in a new folder, or in ``--root``: wall seconds and CPU seconds of all
processes of the first run, the seconds of each asset, and wall seconds of the second run, which
finds nothing to do. Installation is not measured. Prints a line for each asset, the slowest first;
the last line is one JSON object."""

import resource
import tempfile
from pathlib import Path
from typing import Any

from common import command_line, print_result
from full_size import timed

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.record import read_records


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--root", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        out = measure(DataRoot(words.root or Path(folder) / "demo"))
    print_result(out)


def measure(root: DataRoot) -> dict[str, Any]:
    """The figures of both runs."""
    wall, cpu = run(root)
    made = {
        name: asset["seconds"]
        for record in read_records(root)[:1]
        for name, asset in record["assets"].items()
        if asset["seconds"]
    }
    for name in sorted(made, key=made.__getitem__, reverse=True):
        print(f"{made[name]:8.1f} s  {made[name] / sum(made.values()):4.0%}  {name}")
    again, _ = run(root)
    print(f"{wall:.0f} s, {cpu:.0f} CPU seconds; a second run {again:.1f} s")
    return {"seconds": wall, "cpu_seconds": cpu, "second_seconds": again, "assets": made}


def run(root: DataRoot) -> tuple[float, float]:
    """Wall and CPU seconds of ``gaip3 demo``. Exits if it fails."""
    before = children()
    seconds, _ = timed("demo", "--root", str(root.path))
    return seconds, children() - before


def children() -> float:
    """CPU seconds of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
