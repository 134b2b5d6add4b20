"""HTML reports: single files with their pictures embedded, in English and in Korean.

A page holds both languages; a button shows one of them. It needs no network and, but for that
button, no script."""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.wording import Words, figure_words, picture_words, text_words
from gaip3_pipeline.imaging.contact_sheet import data_url
from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.tables.files import write_text_atomically

STYLE = """
:root { color-scheme: light dark; --paper: light-dark(#fafafa, #17181a);
  --ink: light-dark(#222, #e6e6e6); --soft: light-dark(#5f5f5f, #a6a6a6);
  --line: light-dark(#ddd, #3a3b3e); --card: light-dark(#fff, #222326);
  --mark: light-dark(#1f5fcf, #8ab4f8); --bad: light-dark(#b3261e, #ff8a80);
  --warn: light-dark(#8a5300, #ffb74d); --good: light-dark(#1e7a45, #6fcf97); }
html[lang=ko] .en, html[lang=en] .ko { display: none; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: .8rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Noto Sans KR", NanumGothic, sans-serif;
  overflow-wrap: break-word; }
html[lang=ko] body { word-break: keep-all; }
a { color: var(--mark); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .2rem .6rem; cursor: pointer; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1rem;
  border-bottom: 1px solid var(--line); padding-bottom: .5rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0; }
.rest { margin: 1.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
h3 code { font-weight: normal; font-size: .85rem; color: var(--soft); margin-left: .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; flex: 1 1 18rem; }
nav a[aria-current] { color: inherit; text-decoration: none; font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .5rem 0; padding: 0;
  list-style: none; color: var(--soft); font-size: .9rem; }
.facts b { color: var(--ink); font-weight: 600; }
.facts a b { color: inherit; }
.first > section, .lead { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .7rem .9rem; margin: 0 0 .8rem; break-inside: avoid; }
.lead { margin-top: .8rem; }
.first h2 { margin-bottom: .4rem; }
.first p, .lead p { margin: .4rem 0; }
.first ul, .lead ul { margin: .4rem 0; padding-left: 1.2rem; }
.first li { margin: .15rem 0; }
.note { color: var(--soft); font-size: .875rem; }
.samples { display: flex; flex-wrap: wrap; gap: 3px; }
.samples img { display: block; }
.sliders { width: 100%; }
.sliders th { width: 11rem; }
.sliders small { display: block; }
.sliders small { font-weight: normal; color: var(--soft); }
.sliders td:last-child { width: 62px; padding: .15rem 0; }
svg { display: block; width: 60px; height: 43px; }
small, code { overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 600; }
.warn { color: var(--warn); font-weight: 600; }
.good { color: var(--good); font-weight: 600; }
.checks { list-style: none; }
.checks ul, .first ul.checks { padding: 0; }
.checks > li { margin: .5rem 0; }
.checks small { display: block; color: var(--soft); }
details { border-top: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; }
summary h2 { display: inline; }
details > summary { padding: .2rem 0; }
article { margin: 1rem 0 1.6rem; }
figure { margin: .5rem 0; overflow-x: auto; }
figcaption { color: var(--soft); font-size: .875rem; position: sticky; left: 0; }
figure img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .3rem 0 .8rem; }
td, th { padding: .15rem 1rem .15rem 0; vertical-align: top; text-align: left;
  border-bottom: 1px solid var(--line); }
th { font-weight: normal; color: var(--soft); }
.sliders th { color: inherit; font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
.wide td { white-space: nowrap; }
.wide th[scope=row] { min-width: 6.5em; }
.lead .wide td { white-space: normal; }
@media (min-width: 70rem) { .first { columns: 2; column-gap: .8rem; } }
@media (max-width: 45rem) {
  body { padding: .5rem; }
  nav { flex-basis: 100%; order: 1; }
  figure img { max-width: none; width: min(40rem, var(--width)); }
  .sliders th { width: 7rem; } }
@media print {
  :root { color-scheme: light; font-size: 11px; }
  body { max-width: none; padding: 0; background: none; font-size: 1rem; }
  button, nav, .first > section:last-child, main > h2:not(:has(~ details[open])) { display: none; }
  .first { columns: 2; column-gap: .6rem; }
  .first > section:first-child { column-span: all; }
  .first > section, .lead { padding: .4rem .6rem; margin-bottom: .5rem; }
  article, figure, tr { break-inside: avoid; }
  details:not([open]) { display: none; }
  figure, .wide { overflow: visible; } }
"""
SCRIPT = """
const page = document.documentElement, speak = document.getElementById("speak");
function show(language) {
  page.lang = language;
  document.title = page.dataset[language];
  speak.lang = language === "ko" ? "en" : "ko";
  speak.textContent = language === "ko" ? "English" : "한국어";
}
let chosen;
try { chosen = localStorage.language; } catch { /* a browser may forbid files to store anything */ }
show(chosen || (navigator.language.startsWith("ko") ? "ko" : "en"));
speak.onclick = () => {
  show(page.lang === "ko" ? "en" : "ko");
  try { localStorage.language = page.lang; } catch { /* the choice holds for this visit */ }
};
document.getElementById("open").onclick = () => {
  const folded = [...document.querySelectorAll("details")], open = folded.some((d) => !d.open);
  for (const d of folded) d.open = open;
};
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  for (let e = target; e; e = e.parentElement) if (e.localName === "details") e.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
"""
ICON = (  # a face, 16 × 16 pixels
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQBAMAAADt3eJSAAAAMFBMVEUsbuDg6fqTtO52oOkAAAC90fRGf+Iqa9z8/f"
    "4xcN4ycuIsbdzH2PZSh+OxyfJolufmcZnsAAAAEHRSTlPc////AP///v///kn/////hm82LAAAAJtJREFUeNoBkABv"
    "/wFLv20iAP4JFAG67fLeAAIBMQOtIe6+bPoP/wOiByUY444f7gMkEEfQAC8aDwIC3KAAAAeQAAIAjwYJBbCgAAQAeg"
    "AAAADD7wQAAPoAAFAAAAIAAgAAAACP/gIA9fmgBkDOIAQABwfO5zvfAAGn8GGUzCr3AQO3KceTUKInKAO1DgQmeOcD"
    "HgPukSn8vyAYD+dKLjagl30wAAAAAElFTkSuQmCC"
)
PAGES = {"report.html": "Report", "curation.html": "Curation", "inputs.html": "The five values"}

Entry = tuple[str, Mapping[str, Any], Mapping[str, bytes]]  # a name, figures by name, JPEGs by name

_ATTRIBUTE = "|".join(ATTRIBUTES)
# Figures whose keys differ only in one of these endings are the columns of one row.
_FAMILIES = [
    re.compile(rf"(.+)_({ending})")
    for ending in (
        _ATTRIBUTE,
        "|".join(s.folder for s in IMAGE_SETS),
        r"[0-9.]+|\d+x\d+",
        "before|after|samples|generated|real",
        "full|half|quarter",
    )
]
_REORDERED = [  # so that the ending comes last
    (re.compile(r"(power|kurtosis|agreement)_(\d)_(plain|real)"), r"\1_\3_\2"),
    (re.compile(rf"least_real_({_ATTRIBUTE})_at"), r"least_real_at_\1"),
    (re.compile(r"(.+?)_(low|high)_(.+)"), r"\1_\3_\2"),
]


@dataclass(frozen=True)
class Report:
    """The content of a report: ``lead``, the HTML that comes first, ``sections`` of its page,
    plain ``figures`` for checks and MLflow, and a ``table`` with the details."""

    lead: str
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


def both(template: str, **values: object) -> str:
    """HTML of a text in both languages; ``values`` fill its template."""
    english, korean = text_words(template)
    shown = {k: html.escape(str(v)) for k, v in values.items()}
    return _spans(html.escape(english).format(**shown), html.escape(korean).format(**shown))


def words(pair: Words) -> str:
    """HTML of ``pair``."""
    return _spans(*map(html.escape, pair))


def _spans(english: str, korean: str) -> str:
    if english == korean:
        return english
    return f'<span class="en">{english}</span><span class="ko">{korean}</span>'


def write_page(path: Path, title: str, root: str, lead: str, folded: str) -> None:
    """Write a report: the template of its ``title``, filled with the name of the ``root``; the HTML
    of its first screen; that of all else (see :func:`fold`)."""
    english, korean = (html.escape(t.format(root=root)) for t in text_words(title))
    links = "".join(
        f'<a href="{page}"{" aria-current=page" if page == path.name else ""}>{both(name)}</a>'
        for page, name in PAGES.items()
    )
    page = f"""<!doctype html>
<html lang="en" data-en="{english}" data-ko="{korean}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{english}</title>
<link rel="icon" href="data:image/png;base64,{ICON}"><style>{STYLE}</style></head><body>
<header><h1>{_spans(english, korean)}</h1><nav>{links}</nav>
<button id="open">{both("Open everything")}</button><button id="speak" lang="ko">한국어</button>
</header><main>{lead}{folded}</main><script>{SCRIPT}</script></body></html>
"""
    write_text_atomically(path, page)


def fold(
    sections: Mapping[str, Sequence[Entry]],
    heading: Callable[[str], Words] = figure_words,
    unfolded: int = 0,
) -> str:
    """HTML of ``sections``, each folded but the first ``unfolded`` ones, with the figures and JPEGs
    of its entries; ``heading`` is the heading of an entry of a given name."""
    return "".join(
        f"<details{' open' if i < unfolded else ''}><summary><h2>{both(name)}</h2></summary>"
        f"{''.join(_article(entry, heading) for entry in entries)}</details>"
        for i, (name, entries) in enumerate(sections.items())
    )


def _article(entry: Entry, heading: Callable[[str], Words]) -> str:
    name, figures, pictures = entry
    shown = heading(name)
    key = f"<code>{name}</code>" if "_" in name and name not in ATTRIBUTES else ""
    return (
        f'<article id="{html.escape(name)}"><h3>{words(shown)}{key}</h3>'
        f"{''.join(picture(*named, below=shown) for named in pictures.items())}"
        f"{_figures(figures)}</article>"
    )


def picture(name: str, jpeg: bytes, below: Words | None = None) -> str:
    """HTML of the JPEG ``name`` with a caption, unless the heading that it is ``below`` says the
    same."""
    width, height = Image.open(io.BytesIO(jpeg)).size
    shown = picture_words(name)
    caption = f"<figcaption>{words(shown)}</figcaption>" if shown != below else ""
    return (
        f'<figure tabindex="0">{caption}'
        f'<img data-name="{html.escape(name)}" alt="{html.escape(shown[0])}" width="{width}"'
        f' height="{height}" style="--width: {width}px" src="{data_url(jpeg)}">'
        "</figure>"
    )


def _figures(figures: Mapping[str, Any]) -> str:
    """HTML of tables of ``figures``: one of the single ones, one for each family of endings, and
    one for each list of rows."""
    single = {k: v for k, v in figures.items() if v not in ([], {}) and not _is_rows(v)}
    cells = _with_intervals({_reordered(k): _shown(v, k) for k, v in single.items()})
    families: dict[str, dict[str, str]] = {}
    for key in cells:
        found = next((m for f in _FAMILIES if (m := f.fullmatch(key))), None)
        if found:
            families.setdefault(found[1], {})[found[2]] = cells[key]
    families = {base: of for base, of in families.items() if len(of) > 1}
    rest = {
        k: v
        for k, v in cells.items()
        if not any(k == f"{b}_{e}" for b in families for e in families[b])
    }
    by_columns: dict[tuple[str, ...], list[list[str]]] = {}
    for base, of in families.items():
        by_columns.setdefault(tuple(of), []).append([words(figure_words(base)), *of.values()])
    plain = "".join(
        f'<tr><th scope="row">{words(figure_words(k))}</th><td>{v}</td></tr>'
        for k, v in rest.items()
    )
    return (
        (f"<table>{plain}</table>" if plain else "")
        + "".join(table(["", *columns], rows) for columns, rows in by_columns.items())
        + "".join(_of_rows(v) for v in figures.values() if _is_rows(v))
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a table whose ``rows`` of HTML begin with their names."""
    head = "".join(
        f'<th scope="col">{words(figure_words(c.replace(" ", "_")))}</th>' if c else "<td></td>"
        for c in columns
    )
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in others)}</tr>'
        for first, *others in rows
    )
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{body}</table></div>'


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(list(rows[0]), [[_shown(v) for v in row.values()] for row in rows])


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _reordered(key: str) -> str:
    for pattern, order in _REORDERED:
        if pattern.fullmatch(key):
            return pattern.sub(order, key)
    return key


def _with_intervals(cells: Mapping[str, str]) -> dict[str, str]:
    """``cells`` with the bounds and the error of a figure in the cell of the figure itself."""
    merged = dict(cells)
    for key in cells:
        low, high = f"{key}_low", f"{key}_high"
        if low in merged and high in merged:
            merged[key] += f" [{merged.pop(low)}, {merged.pop(high)}]"
        for error in (f"{key}_standard_error", f"{key}_deviation"):
            if error in merged:
                merged[key] += f" ± {merged.pop(error)}"
    return merged


def _shown(value: Any, key: str = "") -> str:
    if key == "bytes":
        return f"{value / 1e6:.1f} MB"
    if isinstance(value, bool):
        return words(("yes", "예") if value else ("no", "아니요"))
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(k))}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, list) and all(isinstance(v, float | int) for v in value):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, list):
        return "<br>".join(_shown(v) for v in value)
    known = figure_words(str(value))
    return words(known) if known[0] != known[1] else html.escape(str(value))
