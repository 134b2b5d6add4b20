"""The report: one HTML file that stands alone, pictures inside."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gaip3_pipeline.tables.files import write_text_atomically

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
nav a { margin-right: 1rem; }
section { margin: 2.5rem 0; }
article { margin: 1.5rem 0; }
h3 { font-family: ui-monospace, monospace; margin-bottom: .4rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
td { padding: .1rem .8rem .1rem 0; vertical-align: top; }
td + td { font-variant-numeric: tabular-nums; }
"""

Entry = tuple[str, Mapping[str, Any], Sequence[Path]]


def write_page(path: Path, title: str, sections: Mapping[str, Sequence[Entry]]) -> None:
    """Write the page: per section its assets, each with its JPEGs and figures."""
    links = "".join(f'<a href="#{_anchor(s)}">{html.escape(s)}</a>' for s in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{html.escape(name)}</h2>{"".join(map(_article, entries))}</section>'
        for name, entries in sections.items()
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    page = f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head>"
    write_text_atomically(path, f"{page}<body><h1>{html.escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n")


def _article(entry: Entry) -> str:
    name, figures, pictures = entry
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{_shown(v)}</td></tr>" for k, v in figures.items() if v not in ([], {}))
    shown = "".join(map(_picture, pictures))
    return f"<article><h3>{html.escape(name)}</h3>{shown}<table>{rows}</table></article>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<p><img alt="{html.escape(path.stem)}" src="data:image/jpeg;base64,{data}"></p>'


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(k))}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "<br>".join(_shown(v) for v in value)
    return html.escape(str(value))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
