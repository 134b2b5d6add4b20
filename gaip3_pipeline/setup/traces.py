"""What a file of a data root holds of some photographs, and the file without it.

Everything is decided by the path of a file relative to its root and by its content, so that it
holds for a root, for a snapshot and for a store alike. Nothing here changes a file in place but
:func:`clean_database`."""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, KINDS, DataRoot, ImageSet
from gaip3_pipeline.setup.snapshots import path_in_snapshot
from gaip3_pipeline.tables import contracts
from gaip3_pipeline.tables.databases import SUFFIXES
from gaip3_pipeline.tables.duplicates import set_and_stem
from gaip3_pipeline.tables.files import TEMPORARY
from gaip3_pipeline.tables.hand_tables import read_table
from gaip3_pipeline.tables.manifests import UNUSABLE, read_manifest
from gaip3_pipeline.tables.names import nfc, stem_of
from gaip3_pipeline.tables.problems import ContractError

ERASED = "(erased)"  # in the place of a name in a text
# columns and keys that say which picture a row is about
_OWN = ("path", "image_path", "key", "original", "source", "file", "file_name", "img")
_WHOSE = ("set", "gender", "sex")
_NAMES = {*_OWN, *_WHOSE, "stem", "group", "twin"}  # columns without plain text
_LONGEST = 255  # characters of a name
_TABLES, _LINES, _PAGES = (".csv", ".parquet", ".json"), (".jsonl", ".journal"), (".html",)
_TEXTS = (*_PAGES, ".md", ".txt", ".log", ".err", ".out")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# of Dagster's metadata: a contact sheet as Markdown
_EMBEDDED = re.compile(r"!\[[^\]]*\]\(data:image/[^)]*\)")
_EMBEDDED_BEGINS = "](data:image/"

Open = Callable[[str], Path | None]  # the file of a root or a snapshot with this path, if any


@dataclass(frozen=True)
class Photograph:
    """An original: its path below the root as the file system spells it, and its set."""

    path: str
    image_set: ImageSet

    @classmethod
    def of(cls, path: str) -> "Photograph | None":
        """The photograph at ``path``; None if it lies in no folder of originals."""
        for image_set in IMAGE_SETS:
            found = set_and_stem(path)
            if found and found[0] == image_set.id and nfc(path).startswith("original/"):
                return cls(path, image_set)
        return None

    @property
    def stem(self) -> str:
        return stem_of(Path(self.path))

    @property
    def key(self) -> str:
        """``set/stem``, by which tables know an original."""
        return f"{self.image_set.id}/{self.stem}"

    @property
    def made(self) -> set[str]:
        """The paths of the pictures that are made from it."""
        folder, file = self.image_set.folder, f"{self.stem}.jpg"
        return {f"{kind}/{folder}/{file}" for kind in KINDS} | {
            f"final/{kind}_{folder}_{file}" for kind in KINDS
        }


class Traces:
    """The traces of ``photographs`` in the files of ``root`` and its snapshots.

    ``followers``: the assets that may ever have shown them. ``others``: all other originals, whose
    names may contain those of the photographs.
    ``groups``: new names of the groups of near-duplicates that are named by a photograph."""

    def __init__(
        self,
        root: DataRoot,
        photographs: Collection[Photograph],
        followers: Collection[str],
        others: Iterable[Photograph],
        groups: Mapping[str, str] | None = None,
    ) -> None:
        self.photographs = photographs
        self._root = root
        self._followers = followers
        self._groups = dict(groups or {})
        self._keys = {p.key for p in photographs}
        self._paths = {nfc(p.path) for p in photographs} | {m for p in photographs for m in p.made}
        self._pairs = {
            (whose, p.stem)
            for p in photographs
            for whose in (p.image_set.id, p.image_set.sex)
            if whose
        }
        names = {form for p in photographs for form in _spellings(p.stem)}
        self._hints = tuple(names)
        self._raw = tuple(
            hint.encode(code, "surrogateescape")
            for hint in names
            for code in ("utf-8", "utf-16-le", "utf-16-be")
            if code == "utf-8" or hint.isprintable()
        )
        alike = [o for o in others if any(p.stem in o.stem for p in photographs)]
        files = {nfc(PurePosixPath(o.path).name) for o in alike}
        self._pattern = _pattern(photographs, files)
        self._longer = {
            spelled
            for o in alike
            for name in (o.stem, *(f"{kind}_{o.image_set.folder}_{o.stem}" for kind in KINDS))
            for spelled in _spellings(name)
        }
        self._asset_of = {
            root.relative(file): asset
            for file, asset in (
                (root.features_final, "final_features"),
                (root.features_labelled, "feature_extractor"),
                (root.features_regions, "gender_probabilities"),
                (root.report, "report"),
                (root.curation_page, "curation_report"),
                (root.inputs_page, "inputs_report"),
            )
        }
        self._sheets = root.relative(root.picture("").parent)
        self._packed = root.relative(root.packed_final.with_suffix(""))
        self._records, self._runs, self._downloads = (
            path_in_snapshot(root, place) + "/"
            for place in (root.refreshes, root.mlflow_artifacts, root.downloads)
        )

    def shown_by(self, children: Callable[[str, bool], set[str]], file: Open) -> set[str]:
        """The assets whose present pictures and arrays may hold the photographs, of a root or a
        snapshot whose files ``file`` gives. All of them are made again after the photographs are
        gone, since their inputs change. ``children(asset, all)``: those that depend on an asset,
        directly or at ``all``."""
        root, found = self._root, set[str]()
        for image_set in {p.image_set for p in self.photographs}:
            manifest = file(root.relative(root.manifest(f"resized_{image_set.id}")))
            if manifest:
                table = read_manifest(manifest)
                usable = table.path[table.status != UNUSABLE]
                if not self._paths.isdisjoint(usable):
                    found |= {f"{kind}_{image_set.id}" for kind in KINDS}
        for attribute in ATTRIBUTES:
            for labels in (root.hand_labels(attribute), root.checked_labels(attribute)):
                table_file = file(root.relative(labels))
                if table_file and self._hold(labels, table_file):
                    found.add(f"labels_{attribute}")
        shown = found.union(*(children(asset, False) for asset in found))
        final = file(root.relative(root.manifest("final_dataset")))
        if final and not self._keys.isdisjoint(read_manifest(final).original):
            shown |= {"final_dataset"} | children("final_dataset", True)
        return shown

    def goes(self, path: str, shown: Collection[str]) -> bool:
        """Whether the file at ``path`` goes as a whole: the photographs and their pictures, and
        what is made again, of the assets ``shown`` (:meth:`shown_by`), or shows past ones."""
        place = PurePosixPath(path)
        if nfc(path) in self._paths or place.name.startswith(TEMPORARY):
            return True
        asset = self._asset_of.get(path)
        if asset is None and str(place.parent) == self._sheets:
            asset = place.name.split(".")[0]
        if asset is None and path.startswith((f"{self._packed}.", f"{self._packed}_")):
            asset = "final_dataset"
        if asset:
            return asset in shown
        if path.startswith(self._records) and place.suffix in _PICTURES:
            return place.name.split(".")[0] in self._followers
        if path.startswith(self._runs) and place.suffix in (*_PICTURES, *_PAGES):
            # pictures of the epochs of a training are of generated faces
            return not {"model", "images"} & set(place.parts)
        return path.startswith(self._downloads)

    def may_be_in(self, path: str) -> bool:
        """Whether the content of the file at ``path`` may hold names of the photographs."""
        if path.startswith("original/") and path != self._root.relative(self._root.truth):
            return False
        return path.endswith((*_TABLES, *_LINES, *_TEXTS, *SUFFIXES))

    def without(self, path: str, file: Path, folder: Path) -> Path:
        """``file``, if it holds nothing of the photographs, or a file without it in ``folder``;
        ``path`` is that in the root. Of a database it is a copy."""
        new = folder / f"cleaned{PurePosixPath(path).suffix}"
        new.unlink(missing_ok=True)
        if new.suffix in SUFFIXES:
            if not self.in_database(file):
                return file
            with (
                closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(new)) as target,
            ):
                source.backup(target)
            clean_database(new, self)
            return new
        if new.suffix == ".parquet":
            return self._parquet(file, new)
        data = file.read_bytes()
        if not any(hint in data for hint in self._raw) and not path.startswith(self._records):
            return file
        cleaned = self._text(path, file, data)
        if cleaned == data:
            return file
        new.write_bytes(cleaned)
        return new

    def scrubbed(self, text: str) -> str:
        """``text`` without names of the photographs and without contact sheets."""
        if _EMBEDDED_BEGINS in text:
            text = _EMBEDDED.sub("", text)
        return self._pattern.sub(self._replaced, text) if self._hinted(text) else text

    def _replaced(self, found: re.Match[str]) -> str:
        """``ERASED``, or what was found if it is a part of the longer name of another original."""
        text, start, end = found.string, found.start(), found.end()
        slash = found[0].rfind("/")
        firsts = [start + slash + 1] if slash >= 0 else range(max(0, start - _LONGEST), start + 1)
        for first in firsts:
            # the suffix of the photograph may be a part of the other name
            for last in range(start + slash + 2, min(len(text), end + _LONGEST) + 1):
                name = text[first:last]
                if name in self._longer and (first < start or last > end - len(found["suffix"])):
                    return found[0]
        return ERASED

    def in_database(self, file: Path) -> bool:
        """Whether the bytes of a database hold a name or a contact sheet, also in pages that are
        free."""
        logs = [p for p in (file, Path(f"{file}-wal")) if p.exists()]
        return any(
            hint in data
            for data in (p.read_bytes() for p in logs)
            for hint in (*self._raw, _EMBEDDED_BEGINS.encode())
        )

    def _hinted(self, text: str) -> bool:
        return any(hint in text for hint in self._hints)

    def _hold(self, labels: Path, file: Path) -> bool:
        data = file.read_bytes()
        is_hinted = any(hint in data for hint in self._raw)
        return is_hinted and self._text(self._root.relative(labels), file, data) != data

    def _names(self, text: str) -> bool:
        """Whether ``text`` is the path or the key of one of the photographs."""
        path = contracts.relative_path(text)
        found = set_and_stem(path)
        return (
            path in self._keys or path in self._paths or (found in self._pairs if found else False)
        )

    def _is_of(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a table, or an object of JSON, is about one of the photographs."""
        whose = next((str(row[column]).strip() for column in _WHOSE if row.get(column)), "")
        if whose:
            stem = row.get("stem") or contracts.stem(str(row.get("path") or row.get("file") or ""))
            if (whose, nfc(str(stem)).strip()) in self._pairs:
                return True
        own = (row.get(column) for column in _OWN)
        return any(isinstance(v, str) and self._hinted(nfc(v)) and self._names(v) for v in own)

    def _field(self, text: str, column: str = "") -> str:
        """A field of a row about another picture, or a text of JSON."""
        if text in self._keys:
            return self._groups.get(text, ERASED)
        return text if column in _NAMES else self.scrubbed(text)

    def _text(self, path: str, file: Path, data: bytes) -> bytes:
        suffix = PurePosixPath(path).suffix
        try:
            if suffix == ".csv":
                return self._table(file)
            if suffix == ".json":
                return self._json(data, path.startswith(self._records))
            if suffix in _LINES:
                return self._lines(data, path == self._root.relative(self._root.label_history))
        except (ContractError, ValueError):
            pass  # a file that is not what its name says is text
        return self.scrubbed(data.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )

    def _table(self, file: Path) -> bytes:
        """The CSV ``file`` without rows of the photographs; other rows keep their text."""
        table = read_table(file, (*_OWN, *_WHOSE, "stem"))
        kept, changed = [], False
        for row in table.rows:
            if self._is_of(dict(zip(table.columns, row.fields, strict=False))):
                changed = True
                continue
            kept.append(row)
        table.rows = kept
        for place, row in enumerate(kept):
            if self._hinted(nfc(row.text)):
                for column, field in zip(table.columns, row.fields, strict=False):
                    new = self._field(field, column)
                    if new != field:
                        changed = True
                        table.set(place, column, new)
        return table.text().encode() if changed else file.read_bytes()

    def _parquet(self, file: Path, new: Path) -> Path:
        """The Parquet table ``file`` likewise; its values are compressed, so it is read in any
        case."""
        table = pq.read_table(file)
        texts = {
            name: table.column(name).to_pylist()
            for name, kind in zip(table.schema.names, table.schema.types, strict=True)
            if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        }
        hinted = [
            i
            for i, row in enumerate(zip(*texts.values(), strict=True))
            if any(v and self._hinted(nfc(v)) for v in row)
        ]
        gone = {i for i in hinted if self._is_of({name: v[i] for name, v in texts.items()})}
        changed = bool(gone)
        for at, name in enumerate(table.schema.names):
            values = texts.get(name)
            if values is None:
                continue
            now = {i: self._field(values[i], name) for i in hinted if i not in gone and values[i]}
            if any(values[i] != text for i, text in now.items()):
                changed = True
                column = [now.get(i, v) for i, v in enumerate(values)]
                field = table.schema.field(at)
                table = table.set_column(at, field, pa.array(column, field.type))
        if not changed:
            return file
        mask = pa.array([i not in gone for i in range(len(table))], pa.bool_())
        pq.write_table(table.filter(mask), new)
        return new

    def _json(self, data: bytes, is_record: bool) -> bytes:
        before = json.loads(data)
        after = self._value(before)
        if is_record:
            for result in after.get("results", []):
                if result.get("name") in self._followers:
                    result["pictures"] = []
        if after == before:
            return data
        return (json.dumps(after, indent=1, ensure_ascii=False) + "\n").encode()

    def _value(self, value: Any) -> Any:
        """JSON without what is about the photographs: their objects, elements of lists that name
        them, and keys; names in other texts are replaced."""
        if isinstance(value, dict):
            return {
                k: self._value(v)
                for k, v in value.items()
                if not (self._named_in(k) or self._is_about(v))
            }
        if isinstance(value, list):
            return [self._value(v) for v in value if not (self._named_in(v) or self._is_about(v))]
        return self._field(value) if isinstance(value, str) else value

    def _is_about(self, value: Any) -> bool:
        if isinstance(value, list):  # gender and stem of an example of the label page
            return len(value) == 2 and tuple(map(str, value)) in self._pairs
        return isinstance(value, dict) and self._is_of(value)

    def _named_in(self, value: Any) -> bool:
        return isinstance(value, str) and self._hinted(value) and self._field(value) != value

    def _lines(self, data: bytes, is_history: bool) -> bytes:
        """Lines of JSON without those about the photographs. In the history of labels the id of a
        change is its line, so the ids of the others follow."""
        kept: list[str] = []
        ids: dict[int, int] = {}
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError:
                kept.append(self.scrubbed(line))
                continue
            if isinstance(entry, dict) and self._is_of(entry):
                continue
            if is_history:
                ids[number] = len(kept) + 1
                entry["id"] = ids[number]
                if "undoes" in entry:
                    entry["undoes"] = ids.get(entry["undoes"], 0)
                line = json.dumps(entry, ensure_ascii=False)
            kept.append(self.scrubbed(line))
        return "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape")


def clean_database(file: Path, traces: Traces) -> None:
    """Remove names and contact sheets from every text in the SQLite database ``file``, and from
    the pages that it does not use any more."""
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
        connection.create_function("cleaned", 1, traces.scrubbed, deterministic=True)
        connection.execute("BEGIN IMMEDIATE")
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        for (table,) in names:
            for _, column, *_ in connection.execute(f"PRAGMA table_info({_quoted(table)})"):
                name = _quoted(column)
                connection.execute(
                    f"UPDATE {_quoted(table)} SET {name} = cleaned({name})"
                    f" WHERE typeof({name}) = 'text' AND cleaned({name}) <> {name}"
                )
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def renamed_groups(
    photographs: Iterable[Photograph], near_duplicates: Path | None
) -> dict[str, str]:
    """For each photograph that names a group of near-duplicates, the smallest key of the others in
    the table ``near_duplicates``."""
    keys = {p.key for p in photographs}
    if not near_duplicates:
        return {}
    members: dict[str, list[str]] = {}
    table = read_table(near_duplicates, ("group", "set", "stem"))
    for _, row in table.records(("group", "set", "stem")):
        if (key := f"{row['set']}/{row['stem']}") not in keys:
            members.setdefault(row["group"], []).append(key)
    return {key: min(members[key]) for key in keys if key in members}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _spellings(text: str) -> set[str]:
    """``text`` as it may stand in a file: in both spellings of Unicode, and escaped as JSON and
    URLs have it."""
    plain = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    escaped = {json.dumps(p)[1:-1] for p in plain} | {quote(p) for p in plain}
    doubled = {json.dumps(e)[1:-1] for e in escaped}
    return plain | escaped | doubled | {p.replace('"', '""') for p in plain}


def _pattern(photographs: Iterable[Photograph], files: Collection[str]) -> re.Pattern[str]:
    """Finds names of the photographs in plain text: paths and keys, and the bare name of a file
    unless it is among the ``files`` of other originals."""
    found: set[str] = set()
    for p in photographs:
        s, place = p.image_set, PurePosixPath(nfc(p.path)).with_suffix("")
        below = place.relative_to(PurePosixPath("original", nfc(s.original))).as_posix()
        folder = PurePosixPath(s.original).name
        forms = {
            f"original/{s.original}/{below}", f"{s.original}/{below}", f"{folder}/{below}",
            f"{s.id}/{p.stem}", f"{s.folder}/{p.stem}",
            *(f"{kind}/{s.folder}/{p.stem}" for kind in KINDS),
            *(f"{kind}_{s.folder}_{p.stem}" for kind in KINDS),
        }  # fmt: skip
        forms |= {
            name for name in (nfc(PurePosixPath(p.path).name), f"{p.stem}.jpg") if name not in files
        }
        found |= {spelled for form in forms for spelled in _spellings(form)}
    longest_first = sorted(found, key=len, reverse=True)
    forms_of_all = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{forms_of_all})(?P<suffix>(?:\.\w{{1,5}})?)(?![\w-]|\.\w)")
