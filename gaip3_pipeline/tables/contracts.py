"""The CSV contracts, column for column: hand labels, gender probabilities, input values, samples.

Files that are read may come from a spreadsheet (``tables.hand_tables``); files that are written are
UTF-8 with LF. Every error message names the file, the line (as a text editor counts) and the
remedy."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.hand_tables import HandTable, read_table, to_number
from gaip3_pipeline.tables.names import nfc, printable
from gaip3_pipeline.tables.problems import ContractError, at_most

LABEL_COLUMNS = ("gender", "img_id", "path", "value")
REVIEW_COLUMNS = ("gender", "stem", "value", "predicted", "uncertainty", "suspicion", "next")
SEXES = ("female", "male")


@dataclass(frozen=True)
class Labels:
    """Checked labels of one attribute: columns ``gender, img_id, stem, value``; and the rows that
    were left out, with the reasons."""

    table: pd.DataFrame
    left_out: list[str]


def relative_path(text: str) -> str:
    """A path of a table in Unicode NFC, with ``/`` and without a leading ``dataset/``, which tables
    of the first run have."""
    return nfc(text).strip().replace("\\", "/").removeprefix("./").removeprefix("dataset/")


def stem(text: str) -> str:
    """The stem of a path of a table in Unicode NFC, whatever its folder and extension."""
    return PurePosixPath(relative_path(text)).stem


def read_labels(path: Path, known: dict[str, set[str]] | None = None) -> Labels:
    """Read a label CSV (``gender,img_id,path,value``; further columns are ignored).

    ``known`` maps a sex to the stems of its originals: a row of another image is left out and
    listed, since the image may come back. A repeated row with an equal value is left out and
    listed. Raises :class:`ContractError` for a missing column, an unknown sex, a value that is
    empty, not a number or outside 0..1, or two values for one image."""
    try:
        return check_labels(read_table(path, LABEL_COLUMNS), known)
    except FileNotFoundError as e:
        raise ContractError(
            f"{path}: no such file; label images (see data/README.md) or put the label CSV there"
        ) from e


def check_labels(written: HandTable, known: dict[str, set[str]] | None = None) -> Labels:
    """:func:`read_labels` of a table that was read."""
    path = written.path
    rows, problems, left_out = [], [], []
    seen: dict[tuple[str, str], tuple[int, float]] = {}
    for line, row in written.records(LABEL_COLUMNS):
        sex, name, text = row["gender"].strip().lower(), stem(row["path"]), row["value"].strip()
        where = f"{path}, line {line}"
        if sex not in SEXES:
            problems.append(f"{where}: column gender is {row['gender']!r}; write female or male")
            continue
        try:
            value = to_number(text)
        except ValueError:
            value = np.nan
        if not 0 <= value <= 1:
            found = "empty" if not text else repr(text)
            problems.append(
                f"{where}: column value is {found}; write a number from 0 to 1, or remove the row"
            )
            continue
        shown = printable(name)
        if (sex, name) in seen:
            first, before = seen[sex, name]
            if before != value:
                problems.append(
                    f"{where}: column value is {value:g} for {sex} {shown}, but line {first} says"
                    f" {before:g}; keep one of the two"
                )
            else:
                left_out.append(f"line {line}: {sex} {shown} again (first in line {first})")
            continue
        seen[sex, name] = line, value
        if known is not None and name not in known.get(sex, set()):
            left_out.append(f"line {line}: there is no image {shown} in the {sex} originals")
            continue
        rows.append((sex, row["img_id"].strip(), name, value))
    if problems:
        raise ContractError("\n".join(at_most(problems)))
    return Labels(pd.DataFrame(rows, columns=["gender", "img_id", "stem", "value"]), left_out)


def write_labels(path: Path, table: pd.DataFrame) -> None:
    """Write checked labels (columns of :class:`Labels`) in the contract's columns, sorted by gender
    and stem."""
    ordered = table.sort_values(["gender", "stem"])
    paths = [f"resized/{g}/{s}.jpg" for g, s in zip(ordered.gender, ordered.stem, strict=True)]
    _write(path, ordered.assign(path=paths)[list(LABEL_COLUMNS)])


def write_gender_probabilities(
    path: Path, image_paths: Iterable[str], probabilities: np.ndarray
) -> None:
    """Write ``probabilities (N, 2) float32`` (male, female). The first column has an empty name and
    the value 0.

    Numbers are written as the shortest text that reads back as the same float32 and are never
    rounded, since the rule compares them exactly."""
    lines = [",image_path,prob_male,prob_female"]
    for name, (male, female) in zip(
        image_paths, np.asarray(probabilities, np.float32), strict=True
    ):
        lines.append(f"0,{_quoted(name)},{male!s},{female!s}")
    write_text_atomically(path, "\n".join(lines) + "\n")


def read_gender_probabilities(path: Path) -> pd.DataFrame:
    """Columns ``image_path`` (relative to the root), ``prob_male``, ``prob_female`` (float64).
    Raises :class:`ContractError`."""
    return _read_predictions(path, ("prob_male", "prob_female"))


def write_input_values(
    path: Path, attribute: str, image_paths: Iterable[str], values: np.ndarray
) -> None:
    """Write ``image_path,{attribute}`` with four decimals, so that equal models give equal
    files."""
    names = list(image_paths)
    _write(
        path,
        pd.DataFrame({"image_path": names, attribute: np.round(np.asarray(values, np.float64), 4)}),
    )


def read_input_values(path: Path, attribute: str) -> pd.DataFrame:
    """Columns ``image_path`` (relative to the root) and ``attribute`` (float64 in 0..1). Raises
    :class:`ContractError`."""
    return _read_predictions(path, (attribute,), (0, 1))


def read_all_input_values(root: DataRoot) -> pd.DataFrame:
    """A column for each of ``ATTRIBUTES``, indexed by ``image_path``; NaN where a table lacks an
    image that another table has."""
    tables = [
        read_input_values(root.input_values(a), a).set_index("image_path")[a] for a in ATTRIBUTES
    ]
    return pd.concat(tables, axis=1)


def read_input_uncertainty(path: Path) -> pd.DataFrame:
    """Columns ``image_path`` (relative to the root) and ``uncertainty`` (float64, in units of the
    value). Raises :class:`ContractError`."""
    return _read_predictions(path, ("uncertainty",))


def read_out_of_fold(path: Path) -> pd.DataFrame:
    """A model's ``out_of_fold.csv``: ``key``, ``set``, ``stem``, ``gender`` and ``split`` are text,
    all other columns numbers."""
    # a picture may be called NA
    text = dict.fromkeys(("key", "set", "stem", "gender", "split"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, float_precision="round_trip")


def samples_csv(table: pd.DataFrame) -> str:
    """The CSV of samples: ``image_path``, the five values, ``seed``, ``temperature``, ``guidance``,
    then any further columns."""
    first = ["image_path", *ATTRIBUTES, "seed", "temperature", "guidance"]
    return table[[*first, *(c for c in table.columns if c not in first)]].to_csv(
        index=False, lineterminator="\n"
    )


def write_samples(path: Path, table: pd.DataFrame) -> None:
    """Write :func:`samples_csv`."""
    write_text_atomically(path, samples_csv(table))


def read_samples(path: Path) -> pd.DataFrame:
    """The table that :func:`write_samples` wrote. Raises :class:`ContractError`."""
    return _read_predictions(path, (*ATTRIBUTES, "seed", "temperature", "guidance"))


def write_label_review(path: Path, table: pd.DataFrame) -> None:
    """Write a review of labels, ``REVIEW_COLUMNS``. Fields are empty where an image has no label,
    or no rank among the images to label next."""
    _write(path, table[list(REVIEW_COLUMNS)])


def read_label_review(path: Path) -> pd.DataFrame:
    """The table that :func:`write_label_review` wrote: ``gender`` and ``stem`` are text, all other
    columns numbers with NaN for empty fields."""
    numbers = REVIEW_COLUMNS[2:]
    text = {"gender": str, "stem": str}  # a picture may be called NA
    table = pd.read_csv(
        path,
        dtype=text | dict.fromkeys(numbers, float),
        keep_default_na=False,
        na_values={c: [""] for c in numbers},
    )
    return table.assign(stem=table.stem.map(nfc))


def _read_predictions(
    path: Path, numbers: tuple[str, ...], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> pd.DataFrame:
    """``image_path`` (relative to the root), then ``numbers`` within ``bounds``, then the other
    columns that have a name: numbers if all their fields are, else text."""
    needed = ("image_path", *numbers)
    plain = _read_plainly(path, numbers, bounds)
    if plain is not None:
        return plain
    try:
        table = read_table(path, needed)
    except FileNotFoundError as e:
        raise ContractError(
            f"{path}: no such file; materialise the asset that writes it (gaip3 refresh)"
        ) from e
    records = list(table.records(needed))
    columns: dict[str, list[Any]] = {c: [] for c in numbers}
    for line, record in records:
        if not record["image_path"].strip():
            raise ContractError(f"{path}, line {line}: column image_path is empty")
        for column in numbers:
            try:
                value = (int if column == "seed" else to_number)(record[column])
            except ValueError:
                value = np.nan
            if not np.isfinite(value):
                raise ContractError(f"{path}, line {line}: column {column} is not a number")
            if not bounds[0] <= value <= bounds[1]:
                raise ContractError(
                    f"{path}, line {line}: column {column} is {value:g}, outside"
                    f" {bounds[0]:g}..{bounds[1]:g}"
                )
            columns[column].append(value)
    for column in table.columns:
        if column and column not in needed:
            columns[column] = _typed([record.get(column, "") for _, record in records])
    paths = [relative_path(record["image_path"]) for _, record in records]
    kinds = {c: np.int64 if c == "seed" else np.float64 for c in numbers}
    return pd.DataFrame({"image_path": pd.Series(paths, dtype=str), **columns}).astype(kinds)


def _read_plainly(
    path: Path, numbers: tuple[str, ...], bounds: tuple[float, float]
) -> pd.DataFrame | None:
    """The table in ``path`` if it is as this module writes it, without further columns; None if it
    must be read row by row, to be understood or to name what is wrong.

    Row by row, two million rows would take gigabytes."""
    kinds = {"image_path": pa.string(), **dict.fromkeys(numbers, pa.float64())}
    options = pa.csv.ConvertOptions(column_types=kinds, null_values=[""])
    try:
        table = pa.csv.read_csv(path, convert_options=options)
        names = table.column_names
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if names not in ([*kinds], ["", *kinds]):
        return None
    values = {c: table[c].to_numpy() for c in numbers}
    inside = all(
        ((v >= bounds[0]) & (v <= bounds[1]) & np.isfinite(v)).all() for v in values.values()
    )
    paths = pd.Series(map(relative_path, table["image_path"].to_pylist()), dtype=str)
    if not inside or (paths == "").any() or paths.str.contains("\0", regex=False).any():
        return None
    return pd.DataFrame({"image_path": paths, **values})


def _typed(texts: list[str]) -> list[Any]:
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(text) for text in texts]
    return texts


def _write(path: Path, table: pd.DataFrame) -> None:
    write_text_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text
