"""The lines of drills/results.jsonl, and the table that docs/reliability.md shows of them."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drills import disks, kills, places, power  # noqa: F401  each enters its drills
from drills.drill import DRILLS, Drill, Exercise
from gaip3_pipeline.layout import REPOSITORY
from gaip3_pipeline.tables.files import write_text_atomically

_RECORDS = (":!drills/results.jsonl", ":!docs/reliability.md")  # what recording itself changes
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- the table: python -m drills --record -->\n", "<!-- end of the table -->\n"
RESULTS = Path(__file__).with_name("results.jsonl")
FURTHER = ("mutations", "doors", "load")  # modules that record several lines each
KEYS = {"drill", "times", "lost", "seed", "seconds", "command", "date", "commit", "hardware"}


def record(drill: Drill, exercise: Exercise, seed: int, seconds: float) -> None:
    """Add a line about a drill that was run."""
    line = {
        "drill": drill.name,
        "times": exercise.done,
        "lost": len(exercise.lost),
        "seed": seed,
        "seconds": round(seconds),
        "command": f"python -m drills {drill.name} --times {exercise.times} --seed {seed}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        **exercise.details,
    }
    with RESULTS.open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def lines() -> list[dict[str, Any]]:
    """Every recorded line. Raises ``ValueError`` for one that lacks a key."""
    found = [json.loads(text) for text in RESULTS.read_text(encoding="utf-8").splitlines()]
    for row, line in enumerate(found, 1):
        if not line.keys() >= KEYS:
            raise ValueError(f"{RESULTS}:{row}: a line needs {', '.join(sorted(KEYS))}")
    return found


def table() -> str:
    """What was done, how often, what was lost and on which commits: a row for each drill, and for
    each thing that the modules of ``FURTHER`` do."""
    done = {(name, drill.what): list[dict[str, Any]]() for name, drill in sorted(DRILLS.items())}
    for line in lines():
        what = line["what"] if line["drill"] in FURTHER else DRILLS[line["drill"]].what
        done.setdefault((line["drill"], what), []).append(line)
    rows = ["| drill | what is done | times | lost | commit |", "|---|---|---|---|---|"]
    for (name, what), own in done.items():
        times, lost = (sum(line[key] for line in own) for key in ("times", "lost"))
        commits = ", ".join(dict.fromkeys(f"`{line['commit']}`" for line in own))
        counted = f"{times:,} | {lost:,} | {commits}" if times else "not done yet | |"
        rows.append(f"| `{name}` | {what} | {counted} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """docs/reliability.md with its table as the lines say."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


def write_page() -> None:
    """Bring the table of docs/reliability.md up to date."""
    write_text_atomically(PAGE, page())


def commit() -> str:
    """The commit of the code, followed by "+" if there are uncommitted changes."""

    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *_RECORDS)
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
