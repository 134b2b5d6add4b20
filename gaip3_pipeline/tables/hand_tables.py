"""Tables that people write, in a spreadsheet or a text editor: one reader and one writer for all of
them.

Accepted are UTF-8 and UTF-16 with a byte order mark, any line ends, columns separated by commas,
semicolons or tabs, and numbers with a decimal point or comma, since spreadsheets save these in
different countries. A first line ``sep=;``, by which Excel knows the separator, is passed over. The
writer keeps that line, the separator, a byte order mark, the header and the text of rows that did
not change; it writes UTF-8 with LF. Errors name the file, the line (as a text
editor counts) and the remedy."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gaip3_pipeline.tables.problems import ContractError

_MARK = "\ufeff"
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# of Excel; a spreadsheet that saved it anew may have put quotes around it, or cells behind it
_SEPARATOR_LINE = re.compile(r'\s*"?sep=.?"?[,;\t ]*(\r\n|\r|\n|$)', re.IGNORECASE)
# of a version control system; a remark of several lines may hold a line of =
_CONFLICT = re.compile(r"^(?:<{7}|\|{7}|>{7})(?: .*)?\r?$|^={7}[,;\t]*\r?$", re.MULTILINE)
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass
class HandRow:
    """A row: the ``line`` of the file in which it ends, its fields, and its text in the file."""

    line: int
    fields: list[str]
    text: str


@dataclass
class HandTable:
    """A table of a person: the names of its columns, its rows without blank ones, and how it is
    written."""

    path: Path
    columns: list[str]
    header: str = ""  # the text of the first line
    header_line: int = 1
    separator: str = ","
    # the byte order mark, without which Excel does not read a file as UTF-8, and its line sep=;
    start: str = ""
    rows: list[HandRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.header = self.header or self._row(self.columns)

    def records(self, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """The line and the fields by column of each row. Raises :class:`ContractError` for a
        missing column of ``needed``, and for a row that ends before one of them."""
        missing = [c for c in needed if c not in self.columns]
        if missing:
            raise ContractError(
                f"{self.path}, line {self.header_line}: column {missing[0]} is missing; the first"
                f" line must have {','.join(needed)}"
            )
        width = max((self.columns.index(c) for c in needed), default=-1) + 1
        for row in self.rows:
            if len(row.fields) < width:
                raise ContractError(
                    f"{self.path}, line {row.line}: {len(row.fields)} fields,"
                    f" {len(self.columns)} expected"
                )
            yield row.line, self._record(row)

    def set(self, place: int, column: str, text: str) -> None:
        """Change one field of the row at ``place``."""
        row = self.rows[place]
        row.fields[self.columns.index(column)] = text
        row.text = self._row(row.fields)

    def insert(self, place: int, record: Mapping[str, str]) -> None:
        """Add a row at ``place``; a column that ``record`` lacks is empty."""
        fields = [record.get(c, "") for c in self.columns]
        self.rows.insert(place, HandRow(0, fields, self._row(fields)))

    def remove(self, place: int) -> dict[str, str]:
        """Remove the row at ``place``; returns its fields by column."""
        return self._record(self.rows.pop(place))

    def text(self) -> str:
        """The table as it is written to its file, in UTF-8."""
        lines = [self.header, *(row.text for row in self.rows)]
        return self.start + "\n".join(lines) + "\n"

    def has_decimal_commas(self, column: str) -> bool:
        """Whether the numbers of ``column`` are written with a comma. Where no number shows it, a
        semicolon as separator does: it is that of countries with decimal commas."""
        place = self.columns.index(column)
        texts = [row.fields[place] for row in self.rows]
        return any("," in t for t in texts) or (
            self.separator == ";" and not any("." in t for t in texts)
        )

    def _record(self, row: HandRow) -> dict[str, str]:
        return dict(zip(self.columns, row.fields, strict=False))

    def _row(self, fields: Sequence[str]) -> str:
        out = io.StringIO()
        # with this line end, the writer puts quotes around fields that hold \r or \n
        csv.writer(out, delimiter=self.separator, lineterminator="\r\n").writerow(fields)
        return out.getvalue().removesuffix("\r\n")


def read_table(path: Path, known: Collection[str]) -> HandTable:
    """The table in ``path``; ``known`` are the columns by which its separator is recognised.

    Blank rows and empty fields beyond the last named column are left out. Raises
    :class:`ContractError` for two columns of one name (upper and lower case and outer spaces do not
    distinguish them), for a field that belongs to no column, and for a file that is no such
    table; FileNotFoundError."""
    mark, text = _marked_text(path)
    named = _SEPARATOR_LINE.match(text)
    before, text = (named[0], text[named.end() :]) if named else ("", text)
    start = mark + (before.strip() + "\n" if named else "")
    lines = None
    try:
        separator = _separator(text, known)
        lines = _Lines(io.StringIO(text, newline=""), len(before.splitlines()))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        rows = [
            HandRow(lines.number, fields, taken)
            for fields, taken in ((fields, lines.take()) for fields in reader)
            if any(f.strip() for f in fields)
        ]
    except csv.Error as e:
        where = f", line {lines.number}" if lines else ""
        raise ContractError(
            f"{path}{where}: not a CSV row: {e}; put text that has a quote in quotes, and write"
            " each quote in it twice"
        ) from e
    if not rows:
        return HandTable(path, [])
    head, *rows = rows
    columns = [f.strip() for f in head.fields]
    while not columns[-1]:
        columns.pop()
    twice = [n for n, count in Counter(c.casefold() for c in columns).items() if count > 1]
    if twice:
        names = " and ".join(repr(f) for f in head.fields if f.strip().casefold() == twice[0])
        raise ContractError(
            f"{path}, line {head.line}: two columns have one name ({names}); rename or remove one"
            " of them"
        )
    for row in rows:
        if any(f.strip() for f in row.fields[len(columns) :]):
            decimals = ", and write decimals with a point" if separator == "," else ""
            raise ContractError(
                f"{path}, line {row.line}: more than {len(columns)} fields; put a name that has a"
                f" {_SEPARATORS[separator]} in quotes{decimals}"
            )
    return HandTable(path, columns, head.text, head.line, separator, start, rows)


def read_text(path: Path) -> str:
    """The text of a file that a person saved: UTF-8 with or without byte order mark, or UTF-16 with
    one, which Excel calls “Unicode text”. Raises :class:`ContractError`."""
    return _marked_text(path)[1]


def to_number(text: str) -> float:
    """A number with a decimal point or comma. Raises ``ValueError``."""
    if "_" in text:  # which Python takes for a separator of digits
        raise ValueError(text)
    return float(text.replace(",", "."))


class _Lines:
    """An iterator over lines for ``csv.reader`` that records the lines taken: a row may span
    several. ``number`` is that of the last one, with ``before`` lines above the first."""

    def __init__(self, lines: Iterator[str], before: int) -> None:
        self._lines, self._taken, self.number = lines, list[str](), before

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        self.number += 1
        return line

    def take(self) -> str:
        """The text of the lines taken since the last call, without the line end."""
        text = "".join(self._taken).rstrip("\r\n")
        self._taken.clear()
        return text


def _marked_text(path: Path) -> tuple[str, str]:
    """The byte order mark or "", and :func:`read_text`. Programs that do not know the mark put a
    second one before it."""
    data = path.read_bytes()
    try:
        written = data.decode(_UTF16.get(data[:2], "utf-8"))
    except UnicodeDecodeError as e:
        raise ContractError(
            f"{path}: not UTF-8 (byte {e.start}); save it as UTF-8 (in Excel: “CSV UTF-8”)"
        ) from e
    text = written.lstrip(_MARK)
    if "\0" in text:
        raise ContractError(
            f"{path}, line {_line(text, text.index(chr(0)))}: a NUL byte, so it is not text in"
            " UTF-8; save it as UTF-8 (in Excel: “CSV UTF-8”)"
        )
    for found in _CONFLICT.finditer(text):
        quoted = found[0].startswith("=") and text.count('"', 0, found.start()) % 2
        if not quoted:
            raise ContractError(
                f"{path}, line {_line(text, found.start())}: a merge conflict ({found[0][:7]});"
                " keep the rows that are right and remove the lines that begin with <<<<<<<,"
                " ======= and >>>>>>>"
            )
    return written[: len(written) > len(text)], text


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _separator(text: str, known: Collection[str]) -> str:
    """The separator with which the first row has most of the ``known`` columns."""

    def hits(separator: str) -> int:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        first: Sequence[str] = next((r for r in rows if any(f.strip() for f in r)), [])
        return len({f.strip() for f in first} & {*known})

    return max(_SEPARATORS, key=hits)
