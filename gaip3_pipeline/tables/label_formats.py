"""Hand labels in the formats of other tools: the contract's CSV, a plain ``file,value`` CSV, and
Label Studio's exports.

Label Studio's formats are those of its documentation (https://labelstud.io/guide/export.html,
…/guide/tasks.html): JSON is a list of tasks with ``annotations[].result[]``; JSON_MIN, CSV and TSV
have a record for each annotation, in which a choice is plain text and any other control is JSON,
such as ``[{"number": 0.5}]`` or ``[{"rating": 4}]``. A file with an error is not used at all. The
caller passes the known images by name; this module writes no files."""

import csv
import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import IMAGE_SUFFIXES
from gaip3_pipeline.tables.contracts import (
    LABEL_COLUMNS,
    SEXES,
    check_labels,
    relative_path,
    stem,
)
from gaip3_pipeline.tables.hand_tables import HandTable, read_table, read_text, to_number
from gaip3_pipeline.tables.label_store import Edit, Key
from gaip3_pipeline.tables.names import nfc, printable
from gaip3_pipeline.tables.problems import ContractError, at_most

STARS = (1, 2, 3, 4, 5)  # of a rating: 0, ¼, ½, ¾, 1
_LABEL_STUDIO_COLUMNS = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")
# columns by which the separator of a CSV is recognised
_RECOGNISED = {*LABEL_COLUMNS, "file", "image", "id", *ATTRIBUTES, *_LABEL_STUDIO_COLUMNS}
_NO_CONTROLS = {*_LABEL_STUDIO_COLUMNS, "id", "agreement", "history", "gender"}
# Label Studio's link to a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
_LOCAL_FILE = "/data/local-files/?d="
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ImportedLabels:
    """The labels of a file: values in 0..1 by attribute and image, names that match no image, and
    remarks on choices between several values."""

    format: str
    values: dict[str, dict[Key, float]]
    no_such_image: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def edits(self, before: Mapping[str, Mapping[Key, float]]) -> list[Edit]:
        """The edits that turn the labels ``before`` into those of the file; none for equal
        labels."""
        return [
            Edit(a, *key, v)
            for a, values in self.values.items()
            for key, v in values.items()
            if before[a].get(key) != v
        ]

    def summary(self, attribute: str, before: Mapping[Key, float]) -> str:
        """A line such as ``mouth: 12 new, 3 changed, 770 equal, 2 left out (no such image: a,
        b)``."""
        values, missing = self.values.get(attribute, {}), self.no_such_image.get(attribute, [])
        new = sum(key not in before for key in values)
        equal = sum(before.get(key) == v for key, v in values.items())
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        left_out = f", {len(missing)} left out (no such image: {names})" if missing else ""
        return (
            f"{attribute}: {new} new, {len(values) - new - equal} changed, {equal} equal{left_out}"
        )


def read_label_file(
    path: Path, known: Mapping[str, Collection[str]], attribute: str | None = None
) -> ImportedLabels:
    """Read the labels of a file; its format is recognised by its content.

    ``known`` maps a sex to the stems of its originals. ``attribute`` is the attribute of the values
    if the file does not name it, and selects one if the file has several. Raises
    :class:`ContractError` with file, row and remedy; then no label of the file is used."""
    text = read_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        form, cells = _json_cells(path, text)
        return _gather(path, form, cells, known, attribute)
    table = read_table(path, _RECOGNISED)
    header = table.columns
    if set(LABEL_COLUMNS) <= set(header):
        return _read_contract(table, known, attribute)
    if "annotation_id" in header:
        form, cells = "Label Studio CSV", list(_label_studio_rows(table))
    elif "file" in header and {"value", *ATTRIBUTES} & set(header):
        form, cells = "plain CSV", list(_plain_rows(table))
    else:
        raise ContractError(
            f"{path}, line {table.header_line}: the columns are {', '.join(header) or 'none'};"
            " there must be"
            f" {','.join(LABEL_COLUMNS)}, or file,value, or file and columns named after"
            f" {', '.join(ATTRIBUTES)}, or those of an export of Label Studio"
        )
    return _gather(path, form, cells, known, attribute)


def plain_csv(labels: Mapping[str, Mapping[Key, float]], images: Mapping[Key, str]) -> str:
    """``file,value`` for one attribute, ``file,eyes,mouth,…`` for several: a row for each image
    that has a label.

    ``images`` are the paths of the originals relative to the root, in the order of rows."""
    columns = ["value"] if len(labels) == 1 else list(labels)
    rows = [
        [path, *(values.get(key, "") for values in labels.values())]
        for key, path in images.items()
        if _labelled(labels, key)
    ]
    return _csv([["file", *columns], *rows])


def label_studio_json(labels: Mapping[str, Mapping[Key, float]], images: Mapping[Key, str]) -> str:
    """Every image as a task to import into Label Studio, with its labels as an annotation, or
    without an annotation if it has no labels.

    ``images`` are paths relative to the root, which must be Label Studio's
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
    lines = []
    for key, path in images.items():
        result = [
            {
                "id": a,
                "from_name": a,
                "to_name": "image",
                "type": "number",
                "value": {"number": values[key]},
            }
            for a, values in labels.items()
            if key in values
        ]
        annotations = (
            [{"result": result, "was_cancelled": False, "ground_truth": False}] if result else []
        )
        lines.append(
            json.dumps(
                {"data": _task_data(key, path), "annotations": annotations}, ensure_ascii=False
            )
        )
    return "[\n" + ",\n".join(lines) + "\n]\n"


def label_studio_csv(labels: Mapping[str, Mapping[Key, float]], images: Mapping[Key, str]) -> str:
    """The labels in the format of Label Studio's CSV export: a row for each image that has a
    label."""
    columns = sorted([*_LABEL_STUDIO_COLUMNS, "id", "image", "gender", *labels])
    rows = list[dict[str, Any]]()
    for key, path in images.items():
        if _labelled(labels, key):
            cells = {
                a: json.dumps([{"number": values[key]}], separators=(",", ":"))
                for a, values in labels.items()
                if key in values
            }
            number = len(rows) + 1
            rows.append({"id": number, "annotation_id": number, **_task_data(key, path), **cells})
    return _csv(
        [columns, *([row.get(c, "") for c in columns] for row in rows)],
        quoting=csv.QUOTE_NONNUMERIC,
    )


def label_studio_config(attributes: Sequence[str]) -> str:
    """The labeling configuration of a Label Studio project for these files: a number for each
    attribute, with its meaning."""
    # A number field, not a slider: without a value a slider is shown at ½, and then ½ cannot be
    # chosen. The step is .25, since .3 as a double is no multiple of a step of .1 and Label Studio
    # would reject it.
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    for a in attributes:
        lines.append(f"  <Header value={quoteattr(f'{a}: {MEANINGS[a]}')}/>")
        lines.append(f'  <Number name="{a}" toName="image" min="0" max="1" step="0.25"/>')
    return "\n".join([*lines, "</View>"]) + "\n"


@dataclass(frozen=True)
class _Cell:
    """One value as read from a file. ``time`` is None in formats in which each image occurs
    once."""

    where: str
    image: str
    gender: str
    control: str
    value: Any
    time: datetime | None = None


_Readings = dict[tuple[str, Key], list[tuple[_Cell, float]]]  # by attribute and image


def _read_contract(
    written: HandTable, known: Mapping[str, Collection[str]], attribute: str | None
) -> ImportedLabels:
    path = written.path
    named = next((a for a in ATTRIBUTES if path.name == f"train_output_{a}.csv"), None)
    if named and attribute not in (None, named):
        raise ContractError(
            f"{path}: its name says {named}, not {attribute}; rename it, or leave out --attribute"
        )
    attribute = attribute or named
    if attribute is None:
        raise ContractError(
            f"{path}: its name does not say which value it holds; call it train_output_….csv or add"
            " --attribute"
        )
    table = check_labels(written).table
    values, missing = dict[Key, float](), list[str]()
    for gender, name, value in zip(table.gender, table.stem, table.value, strict=True):
        if name in known.get(gender, ()):
            values[gender, name] = value
        else:
            missing.append(printable(name))
    return ImportedLabels("contract CSV", {attribute: values}, {attribute: missing})


def _plain_rows(table: HandTable) -> Iterator[_Cell]:
    columns = [c for c in table.columns if c == "value" or c in ATTRIBUTES]
    for line, row in table.records(["file", *columns]):
        for column in columns:
            yield _Cell(
                f"line {line}", row["file"], row.get("gender", ""), column, row[column].strip()
            )


def _label_studio_rows(table: HandTable) -> Iterator[_Cell]:
    for line, row in table.records(table.columns):
        yield from _record_cells(table.path, f"line {line}", row)


def _json_cells(path: Path, text: str) -> tuple[str, list[_Cell]]:
    try:
        tasks = json.loads(text, object_pairs_hook=_object)
    except _KeyTwiceError as e:
        raise ContractError(f"{path}: {e}") from e
    except json.JSONDecodeError as e:
        raise ContractError(f"{path}, line {e.lineno}: not JSON ({e.msg}); export it again") from e
    tasks = tasks if isinstance(tasks, list) else [tasks]
    form, cells = "Label Studio JSON_MIN", list[_Cell]()
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict):
            raise ContractError(f"{path}, item {number}: not a task; export it as JSON or JSON_MIN")
        where = f"task {task['id']}" if "id" in task else f"item {number}"
        if isinstance(task.get("data"), dict):
            form = "Label Studio JSON"
            cells += _task_cells(path, where, task)
        else:
            cells += _record_cells(path, where, task)
    return form, cells


def _task_cells(path: Path, where: str, task: dict[str, Any]) -> Iterator[_Cell]:
    """The results of a task's completed annotations; drafts and predictions are ignored."""
    for annotation in _listed(task.get("annotations")):
        if not isinstance(annotation, dict):
            raise ContractError(
                f"{path}, {where}: annotation {annotation} is only a number; export it with whole"
                " annotations"
            )
        if annotation.get("was_cancelled"):
            continue
        image, time = _image(path, where, task["data"]), _time(path, where, annotation)
        for result in _listed(annotation.get("result")):
            if isinstance(result, dict) and "from_name" in result:  # a relation has none
                yield _Cell(
                    where,
                    image,
                    str(task["data"].get("gender", "")),
                    result["from_name"],
                    result.get("value"),
                    time,
                )


def _record_cells(path: Path, where: str, record: Mapping[str, Any]) -> Iterator[_Cell]:
    """The controls of a record of JSON_MIN or CSV, which is one annotation."""
    image = _image(path, where, record)
    time = _time(path, where, record)
    for name, value in record.items():
        if name not in _NO_CONTROLS and value is not image:
            try:
                unpacked = _unpacked(value)
            except _KeyTwiceError as e:
                raise ContractError(f"{path}, {where}: {e}") from e
            yield _Cell(where, image, str(record.get("gender", "")), name, unpacked, time)


class _KeyTwiceError(Exception):
    """A JSON object with two values for one key; the message shows it and has the remedy."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object for ``json.loads``, which would take the last of several values of a key."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            shown = json.dumps(dict(pairs[:1]), ensure_ascii=False)[:80].removesuffix("}")
            raise _KeyTwiceError(
                f"the object that begins with {shown} has the key {printable(key)!r} twice"
                f" ({found[key]!r:.40} and {value!r:.40}); keep one of the two"
            )
        found[key] = value
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _image(path: Path, where: str, data: Mapping[str, Any]) -> str:
    """The field that names the picture: ``image``, or the only field with the extension of a
    picture file."""
    if isinstance(data.get("image"), str):
        return data["image"]
    found = [
        v
        for v in data.values()
        if isinstance(v, str) and PurePosixPath(_location(v)).suffix.lower() in IMAGE_SUFFIXES
    ]
    if len(found) != 1:
        raise ContractError(
            f"{path}, {where}: {len(found)} of {', '.join(data)} name a picture; call the one that"
            " is meant image"
        )
    return found[0]


def _time(path: Path, where: str, annotation: Mapping[str, Any]) -> datetime:
    stamp = annotation.get("updated_at") or annotation.get("created_at")
    if not stamp:
        return _LONG_AGO
    try:
        time = datetime.fromisoformat(stamp)
    except (TypeError, ValueError) as e:
        raise ContractError(
            f"{path}, {where}: {stamp!r} is not a time; write it as 2024-05-06T07:08:09Z"
        ) from e
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _unpacked(value: Any) -> Any:
    """The value of a cell of Label Studio's CSV, which is JSON unless it is a choice."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return json.loads(value, object_pairs_hook=_object)
        except json.JSONDecodeError:
            return value
    return value


def _gather(
    path: Path,
    form: str,
    cells: Sequence[_Cell],
    known: Mapping[str, Collection[str]],
    attribute: str | None,
) -> ImportedLabels:
    meant = _meaning_of_controls(path, list(dict.fromkeys(c.control for c in cells)), attribute)
    readings, no_such_image, problems = _readings(path, cells, meant, _Images(known))
    values: dict[str, dict[Key, float]] = {a: {} for a in meant.values()}
    remarks = []
    for (a, key), of_image in readings.items():
        cell, value = of_image[-1]
        values[a][key] = value
        others = [(c, v) for c, v in of_image if v != value]
        if others and cell.time is None:
            first, before = others[0]
            problems.append(
                f"{path}, {cell.where}: {a} is {value:g} for {' '.join(key)}, but {first.where}"
                f" says {before:g}; keep one of the two"
            )
        elif others:
            given = ", ".join(f"{v:g}" for _, v in of_image)
            remarks.append(
                f"{cell.where}: {a} of {' '.join(key)} was given as {given}; the newest, {value:g},"
                " is taken"
            )
    if problems:
        raise ContractError("\n".join(at_most(problems)))
    if not readings and not no_such_image:
        raise ContractError(
            f"{path}: there is no label of {', '.join(values) or 'anything'} in it; label some"
            " images first"
        )
    return ImportedLabels(form, values, no_such_image, remarks)


def _readings(
    path: Path, cells: Sequence[_Cell], meant: Mapping[str, str], images: "_Images"
) -> tuple[_Readings, dict[str, list[str]], list[str]]:
    """The values by attribute and image, the oldest first; names that match no image; problems."""
    readings: _Readings = defaultdict(list)
    no_such_image = defaultdict[str, dict[str, None]](dict)
    problems = []
    for cell in cells:
        if cell.control not in meant:
            continue
        try:
            value = _value(cell.value)
        except ValueError:
            problems.append(
                f"{path}, {cell.where}: {cell.control} is {repr(cell.value)[:60]}; it must be 0 to"
                " 1, or a rating of 1 to 5"
            )
            continue
        if value is None:
            continue
        found = images.find(cell.image, cell.gender)
        if len(found) > 1:
            problems.append(f"{path}, {cell.where}: {_ambiguous(printable(cell.image), found)}")
        elif found:
            readings[meant[cell.control], found[0]].append((cell, value))
        else:
            name = printable(stem(unquote(_location(cell.image))))
            no_such_image[meant[cell.control]][name] = None
    for of_image in readings.values():
        of_image.sort(key=lambda r: r[0].time or _LONG_AGO)
    return readings, {a: list(names) for a, names in no_such_image.items()}, problems


def _meaning_of_controls(
    path: Path, controls: Sequence[str], attribute: str | None
) -> dict[str, str]:
    """The attribute of each control or column: the one it is named after, or ``attribute`` for the
    only other control."""
    if attribute is None:
        own = {c: c for c in controls if c in ATTRIBUTES}
        if controls and not own:
            raise ContractError(
                f"{path}: {', '.join(controls)} is none of {', '.join(ATTRIBUTES)}; rename it, or"
                " say with --attribute which it is"
            )
        return own
    others = [c for c in controls if c not in ATTRIBUTES]
    if controls and attribute not in controls and len(others) != 1:
        raise ContractError(
            f"{path}: there is no {attribute} among {', '.join(controls)}; rename the one that is"
            " meant"
        )
    return {attribute if attribute in controls or not others else others[0]: attribute}


def _value(raw: Any) -> float | None:
    """A value in 0..1 from a number, a choice that is a number, or a rating; None if nothing was
    chosen. Raises ValueError for anything else."""
    match raw:
        case None | "" | []:
            return None
        case [only]:
            return _value(only)
        case {"number": inner} | {"choices": inner}:
            return _value(inner)
        case {"rating": stars} if stars in STARS:
            return (stars - 1) / 4
        case int() | float() | str() if not isinstance(raw, bool) and 0 <= to_number(str(raw)) <= 1:
            return to_number(str(raw))
    raise ValueError(raw)


class _Images:
    """The known images, found by the names that other tools give them."""

    def __init__(self, known: Mapping[str, Collection[str]]) -> None:
        self._named, self._uploaded, self._without_accents = (
            defaultdict[str, list[Key]](list) for _ in range(3)
        )
        for sex, stems in known.items():
            for name in stems:
                self._named[name].append((sex, name))
                self._uploaded[_upload_name(name)].append((sex, name))
                # of a name in NFD, as macOS has it, Label Studio removes the accents
                bare = nfc(_upload_name(unicodedata.normalize("NFD", name)))
                self._without_accents[bare].append((sex, name))

    def find(self, text: str, gender: str = "") -> list[Key]:
        """The images that ``text`` may mean: none, one, or several if it is ambiguous."""
        location = _location(text)
        spellings = [stem(location), stem(unquote(location))]
        if "://" in text or _LOCAL_FILE in text:
            spellings.reverse()  # a link is URL-encoded, while a path may hold a name with %
        sexes = _sexes(unquote(location), gender)
        for lookup in (self._by_name, self._by_upload):
            for name in spellings:
                found = [key for key in lookup(name) if key[0] in sexes]
                if found:
                    return found
        return []

    def _by_name(self, name: str) -> list[Key]:
        return self._named.get(name, [])

    def _by_upload(self, name: str) -> list[Key]:
        """Label Studio puts eight hexadecimal digits before the name of an uploaded file."""
        prefixed = _UPLOADED.fullmatch(name)
        if not prefixed:
            return []
        original = prefixed[1]
        if original != _upload_name(original):
            return self._by_name(original)
        return self._uploaded.get(original) or self._without_accents.get(original, [])


def _upload_name(name: str) -> str:
    """A file name as Label Studio stores an upload (Django's ``get_valid_filename``)."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _location(text: str) -> str:
    """The path part of what names a picture: a path, a URL, or Label Studio's link to a local
    file."""
    if _LOCAL_FILE in text:
        return text.partition(_LOCAL_FILE)[2]
    return text.partition("?")[0] if "://" in text else text


def _sexes(path: str, gender: str) -> Sequence[str]:
    """The sex given by ``gender``, else the one that a folder of ``path`` names; both if neither
    names one."""
    if gender.strip().lower() in SEXES:
        return (gender.strip().lower(),)
    folders = {p.lower() for p in PurePosixPath(relative_path(path)).parts[:-1]}
    named = [sex for sex in SEXES if sex in folders]
    return named if len(named) == 1 else SEXES


def _ambiguous(text: str, found: Sequence[Key]) -> str:
    names = " or ".join(" ".join(key) for key in found)
    if len({name for _, name in found}) == 1:
        return (
            f"{text} may be {names}; say which by a folder female or male before the name, or by a"
            " field gender"
        )
    return (
        f"{text} may be {names}, which Label Studio stores under one name; rename one of the images"
    )


def _labelled(labels: Mapping[str, Mapping[Key, float]], key: Key) -> bool:
    return any(key in values for values in labels.values())


def _task_data(key: Key, path: str) -> dict[str, str]:
    return {"image": _LOCAL_FILE + quote(path), "gender": key[0]}


def _csv(rows: Sequence[Sequence[Any]], quoting: int = csv.QUOTE_MINIMAL) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return out.getvalue()


# by the name of an export
WRITERS = {
    "plain": plain_csv,
    "label-studio": label_studio_json,
    "label-studio-csv": label_studio_csv,
}
