"""Training logs as Markdown: date, data versions, settings, a table of the epochs, the result."""

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gaip3_pipeline.tables.files import write_text_atomically


def write_section(
    path: Path,
    title: str,
    section: str,
    *,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    result: Mapping[str, Any],
) -> Path:
    """Write the section of one training into the log at ``path``; the sections of other trainings
    are not changed."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n"
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [p for p in parts[1:] if p.splitlines()[0] != f"## {section}"]
    fresh = _section(section, inputs, parameters, history, result)
    body = "\n".join(p.rstrip() + "\n" for p in sorted([*kept, fresh]))
    write_text_atomically(path, f"# {title}\n\n{body}")
    return path


def _section(
    name: str,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    result: Mapping[str, Any],
) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"## {name}", "", f"Finished: {now}", "", "### Data versions", ""]
    lines += _table(["input", "version"], [[k, f"`{v[:16]}`"] for k, v in inputs.items()])
    lines += [
        "### Settings",
        "",
        *_table(["setting", "value"], [[k, str(v)] for k, v in parameters.items()]),
    ]
    columns = list(dict.fromkeys(k for epoch in history for k in epoch))
    rows = [
        [str(i), *(f"{epoch[c]:.5g}" if c in epoch else "" for c in columns)]
        for i, epoch in enumerate(history, 1)
    ]
    lines += ["### Epochs", "", *_table(["epoch", *columns], rows), "### Result", ""]
    lines += _table(
        ["figure", "value"],
        [[k, f"{v:.5g}" if isinstance(v, float) else str(v)] for k, v in result.items()],
    )
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return [
        *(
            "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in row) + " |"
            for row in cells
        ),
        "",
    ]
