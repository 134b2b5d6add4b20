"""docs/results.md and docs/performance.md, rendered from the JSON lines of bench/results/.

    python bench/render.py [--check]

``bench/results/pages.toml`` names the figures of each page. --check writes nothing and ends with
status 1 where a page is not what the lines say.
"""

import json
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from common import command_line, print_result

from gaip3_pipeline.layout import REPOSITORY
from gaip3_pipeline.tables.files import write_text_atomically

RESULTS = REPOSITORY / "bench" / "results"
DOCS = REPOSITORY / "docs"
KEYS = {"figure", "value", "interval", "n", "root", "command", "date", "commit", "hardware"}

Line = dict[str, Any]
Lines = dict[tuple[str, str], Line]


def read_lines(folder: Path) -> Lines:
    """Every line of ``folder/*.jsonl`` by root and figure; the last one of a figure counts.

    Raises ``ValueError``, with file and row, for a line that lacks a key."""
    found: Lines = {}
    for path in sorted(folder.glob("*.jsonl")):
        for row, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = json.loads(text)
            if not line.keys() >= KEYS:
                raise ValueError(f"{path}:{row}: a line needs {', '.join(sorted(KEYS))}")
            found[line["root"], line["figure"]] = line
    return found


def render(page: dict[str, Any], lines: Lines) -> str:
    """The Markdown of one page of ``pages.toml``.

    Raises ``ValueError`` for a figure that no line has."""
    parts, sources = [f"# {page['title']}", page["text"].strip()], list[str]()
    for section in page["section"]:
        table = _table(section, lines, sources)
        parts += [f"## {section['title']}", textwrap.fill(section.get("text", ""), 100), table]
    listed = [f"{i}. {source}" for i, source in enumerate(sources, 1)]
    note = "*Rendered by `make results` from `bench/results/*.jsonl`: edits of this page are lost.*"
    parts += ["## Sources", "\n".join(listed), note]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(section: dict[str, Any], lines: Lines, sources: list[str]) -> str:
    """The rows of a section, a column for each of its roots; new ``sources`` are added."""
    roots = section["roots"]
    head = "| | " + " | ".join(section.get("columns", roots)) + " |"
    rows = [head, "|---" * (len(roots) + 1) + "|"]
    for claim, figure, *reference in section["rows"]:
        cells = []
        for root in roots:
            line = lines.get((root, figure))
            beside = lines.get((root, reference[0])) if reference else None
            cells.append(_cell(line, beside, sources) if line else "")
        if not any(cells):
            raise ValueError(f"{section['title']}: no line has the figure {figure!r}")
        rows.append(f"| {claim} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(line: Line, beside: Line | None, sources: list[str]) -> str:
    """A value, its interval, n, the reference beside it, and the number of its source."""
    source = f"`{line['command']}`, {line['date']}, commit {line['commit']}, {line['hardware']}"
    if source not in sources:
        sources.append(source)
    text = f"**{shown(line['value'])}**"
    if line["interval"]:
        low, high = line["interval"]
        text += f" ({shown(low)} to {shown(high)})"
    if beside:
        text += f", reference {shown(beside['value'])}"
    if line["n"] is not None:
        text += f", n {line['n']:,}"
    return f"{text} [{sources.index(source) + 1}]"


def shown(value: float) -> str:
    """A number as people read it: a count whole, others with three digits or more."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{round(value, 1 if abs(value) >= 10 else 3):g}"


def main() -> None:
    """Write the pages, or compare them."""
    parser = command_line(__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    pages = tomllib.loads((RESULTS / "pages.toml").read_text(encoding="utf-8"))["page"]
    lines = read_lines(RESULTS)
    differ = []
    for page in pages:
        path, text = DOCS / page["file"], render(page, lines)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differ.append(page["file"])
        if not check:
            write_text_atomically(path, text)
    print_result({"lines": len(lines), "pages": len(pages), "differ": differ})
    if check and differ:
        sys.exit(f"{', '.join(differ)}: not what bench/results/ says; run make results")


if __name__ == "__main__":
    main()
