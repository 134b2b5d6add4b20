"""HTML reports: single files with their pictures embedded."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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
td, th { padding: .1rem .8rem .1rem 0; vertical-align: top; text-align: left; }
th { font-weight: 600; }
td + td { font-variant-numeric: tabular-nums; }
"""

Entry = tuple[str, Mapping[str, Any], Mapping[str, bytes]]  # a name, figures by name, JPEGs by name


@dataclass(frozen=True)
class Report:
    """The content of a report: ``sections`` of its page, plain ``figures`` for checks and MLflow,
    and a ``table`` with the details."""

    figures: Mapping[str, Any]
    sections: Mapping[str, Sequence[Entry]]
    table: pd.DataFrame

    @property
    def pictures(self) -> dict[str, bytes]:
        """Every JPEG of the sections by name, in their order."""
        return {
            name: jpeg
            for entries in self.sections.values()
            for _, _, pictures in entries
            for name, jpeg in pictures.items()
        }


def write_page(path: Path, title: str, sections: Mapping[str, Sequence[Entry]]) -> None:
    """Write the page: for each section its entries, each with its JPEGs and figures.

    A figure that is a list of mappings becomes a table whose header is their keys.
    """
    links = "".join(f'<a href="#{_anchor(s)}">{html.escape(s)}</a>' for s in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{html.escape(name)}</h2>'
        f"{''.join(map(_article, entries))}</section>"
        for name, entries in sections.items()
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width"><title>{html.escape(title)}</title>'
    )
    page = f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head>"
    write_text_atomically(
        path, f"{page}<body><h1>{html.escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )


def _article(entry: Entry) -> str:
    name, figures, pictures = entry
    rows = "".join(
        f"<tr><td>{html.escape(k)}</td><td>{_shown(v)}</td></tr>"
        for k, v in figures.items()
        if v not in ([], {})
    )
    shown = "".join(_picture(*named) for named in pictures.items())
    return f"<article><h3>{html.escape(name)}</h3>{shown}<table>{rows}</table></article>"


def _picture(name: str, jpeg: bytes) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<p><img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}"></p>'


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(k)}</th>" for k in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{_shown(v)}</td>' for v in row.values())}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(k))}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return _table(value)
    if isinstance(value, list):
        return "<br>".join(_shown(v) for v in value)
    return html.escape(str(value))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
