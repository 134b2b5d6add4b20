"""Hand labels that several people change at the same time: the five CSVs of the contract, and a
history of every change.

A change is acknowledged when its line of the history and the CSV are on disk, written in this
order; if a process is killed between the two, the next process records the difference as a further
change. The CSV is written to a temporary file and renamed. Rows that did not change keep their
text, their order, their separator and any columns unknown to this project. Every process takes the
same lock, and a file that was edited by another program (a spreadsheet, ``git pull``) is read again
before the next change, so that no edit is overwritten unnoticed."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.tables.contracts import LABEL_COLUMNS, check_labels, stem
from gaip3_pipeline.tables.files import sync_folder, write_text_atomically
from gaip3_pipeline.tables.hand_tables import HandRow, HandTable, read_table, to_number
from gaip3_pipeline.tables.image_files import by_stem, usable_images
from gaip3_pipeline.tables.names import nfc, printable
from gaip3_pipeline.tables.problems import ContractError

OUTSIDE = "outside"  # ``who`` of changes made by another program
Key = tuple[str, str]  # gender and stem


class LabelConflict(ValueError):
    """A change that cannot be undone, since the label was changed again by someone else."""


@dataclass(frozen=True)
class Edit:
    """What to write: the value of an image in 0..1, or None to remove its row. ``stem`` is kept in
    Unicode NFC."""

    attribute: str
    gender: str
    stem: str
    value: float | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", nfc(self.stem))


@dataclass(frozen=True)
class Change:
    """A line of the history. ``stem`` is kept in Unicode NFC. ``before`` and ``after`` are None
    where there was or is no row.

    ``id`` counts from 1; it is 0 for an edit that changed nothing and is not in the history.
    ``undoes`` is the id of the change that this one undoes. ``row`` is a removed row with all its
    columns and ``at`` its place, so that it can be restored."""

    id: int
    time: str  # ISO 8601, UTC
    who: str
    session: str
    attribute: str
    gender: str
    stem: str
    before: float | None
    after: float | None
    undoes: int = 0
    row: Mapping[str, str] = field(default_factory=dict)
    at: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", nfc(self.stem))


class LabelStore:
    """The hand labels of one data root. Safe to use from several threads, and from several
    processes at once."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._images = labelled_images(root)
        self._files: dict[str, _LabelFile] = {}
        self._history: list[Change] = []
        self._read = 0  # bytes of the history file that were read
        self._passed_over: set[int] = set()  # changes that `undo` refused to take back

    @property
    def images(self) -> dict[str, dict[str, Path]]:
        """For each sex, the originals that can be labelled: stem to file, in plain order of file
        names."""
        return self._images

    def find_images(self) -> dict[str, dict[str, Path]]:
        """:attr:`images`, after listing the folders again."""
        self._images = labelled_images(self._root)
        return self._images

    def values(self, attribute: str) -> dict[Key, float]:
        """The current labels of an attribute. Raises :class:`ContractError` when its CSV breaks the
        contract."""
        _known(attribute)
        with self._locked():
            return self._current(attribute).values()

    def read(self, attribute: str) -> dict[Key, float]:
        """As :meth:`values`, but writes nothing: edits made outside are not recorded, and the lock
        is not needed, since CSVs appear whole."""
        _known(attribute)
        return _LabelFile.read(self._root.hand_labels(attribute)).values()

    def apply(
        self, edits: Sequence[Edit], who: str, session: str = "", confirm: bool = False
    ) -> list[Change]:
        """Write ``edits`` and return the change made by each; they are on disk when this returns.

        ``session`` names a tab or a program, for :meth:`undo`. With ``confirm`` the history also
        records an edit that does not change the value: somebody has checked the label. Raises
        :class:`ContractError` when a CSV breaks the contract, and ``ValueError`` for an unknown
        attribute, image or value; then nothing is written."""
        self._check(edits)
        with self._locked():
            files = {a: self._current(a) for a in dict.fromkeys(e.attribute for e in edits)}
            return [
                change
                for a, file in files.items()
                for change in self._write(
                    file, [e for e in edits if e.attribute == a], who, session, confirm=confirm
                )
            ]

    def undo(self, who: str, session: str) -> Change | None:
        """Undo the latest change of ``session`` that is not undone yet; None if there is none.

        Raises :class:`LabelConflict` if somebody else has changed the label since; the next call
        continues with the change before."""
        with self._locked():
            undone = {c.undoes for c in self._history}
            ours = (c for c in reversed(self._history) if c.session == session and not c.undoes)
            change = next((c for c in ours if c.id not in undone | self._passed_over), None)
            if change is None:
                return None
            now = self._current(change.attribute).values().get((change.gender, change.stem))
            if now != change.after:
                self._passed_over.add(change.id)
                last = self._changes(change.attribute, change.gender, change.stem)[-1]
                raise LabelConflict(
                    f"{change.attribute} of {change.stem} was changed since by {last.who}; it stays"
                    f" {_said(now)}"
                )
            return self._take_back(change, who, session)

    def restore(self, change_id: int, who: str, session: str) -> Change:
        """Set a label back to its value before a change. Raises ``ValueError`` if there is no such
        change."""
        with self._locked():
            if not 0 < change_id <= len(self._history):
                raise ValueError(f"there is no change {change_id}")
            return self._take_back(self._history[change_id - 1], who, session)

    def history(
        self, attribute: str | None = None, gender: str = "", stem: str = "", since: int = 0
    ) -> list[Change]:
        """The changes after the one of id ``since``, oldest first; only those of an attribute or an
        image if these are given.

        Edits made outside are recorded first."""
        if attribute is not None:
            _known(attribute)
        with self._locked():
            for a in ATTRIBUTES if attribute is None else (attribute,):
                with suppress(ContractError):  # reported when its labels are requested
                    self._current(a)
            return self._changes(attribute, gender, stem, since)

    def _changes(
        self, attribute: str | None, gender: str, stem: str, since: int = 0
    ) -> list[Change]:
        key = (gender, nfc(stem))
        of_image = (c for c in self._history[since:] if not stem or (c.gender, c.stem) == key)
        return [c for c in of_image if attribute in (None, c.attribute)]

    def _check(self, edits: Sequence[Edit]) -> None:
        if any(e.stem not in self._images.get(e.gender, {}) for e in edits):
            self.find_images()  # the image may have been added since
        for e in edits:
            _known(e.attribute)
            if e.value is not None and not 0 <= e.value <= 1:
                raise ValueError(
                    f"{e.attribute} of {e.gender} {e.stem} is {e.value:g}; a value lies in 0..1"
                )
            if e.stem not in self._images.get(e.gender, {}):
                raise ValueError(
                    f"there is no image {printable(e.stem)} in the {e.gender} originals"
                )

    def _take_back(self, old: Change, who: str, session: str) -> Change:
        edit = Edit(old.attribute, old.gender, old.stem, old.before)
        [change] = self._write(self._current(old.attribute), [edit], who, session, old)
        return change

    def _current(self, attribute: str) -> "_LabelFile":
        """The CSV of an attribute, read again if another program has changed it; such changes are
        added to the history."""
        path = self._root.hand_labels(attribute)
        held = self._files.get(attribute)
        if held and held.stat == _stat(path):
            return held
        file = _LabelFile.read(path)
        if held:
            known: dict[Key, float | None] = {
                k: held.values().get(k) for k in held.values() | file.values()
            }
            # Changes that another process of this project has written are already in the history.
            known |= {
                (c.gender, c.stem): c.after
                for c in self._history[held.seen :]
                if c.attribute == attribute
            }
        else:
            known = {(c.gender, c.stem): c.after for c in self._history if c.attribute == attribute}
        now = file.values()
        found = [
            (key, before, now.get(key)) for key, before in known.items() if before != now.get(key)
        ]
        self._append(
            [
                self._change(OUTSIDE, "", Edit(attribute, *key, after), before)
                for key, before, after in found
            ]
        )
        file.seen = len(self._history)
        self._files[attribute] = file
        return file

    def _write(
        self,
        file: "_LabelFile",
        edits: Sequence[Edit],
        who: str,
        session: str,
        taking_back: Change | None = None,
        confirm: bool = False,
    ) -> list[Change]:
        changes = []
        values: dict[Key, float | None] = {**file.values()}
        for edit in edits:
            key = (edit.gender, edit.stem)
            change = self._change(who, session, edit, values.get(key))
            if taking_back:
                change = replace(change, undoes=taking_back.id)
                if change.before is None and taking_back.row:
                    file.bring_back(taking_back.row, taking_back.at)
            if edit.value is not None:
                file.set(key, edit.value, self._place(key))
            elif change.before is not None:
                row, at = file.remove(key)
                change = replace(change, row=row, at=at)
            values[key] = edit.value
            changes.append(change)
        known, size = len(self._history), self._read
        try:
            written = self._append(changes, confirm)
            if any(c.before != c.after for c in changes):
                file.write()
        except BaseException:
            # memory and disk differ now: read the file again
            self._files.pop(edits[0].attribute, None)
            self._forget(known, size)
            raise
        return written

    def _place(self, key: Key) -> int:
        """The contract's ``img_id``: the index of an image among the originals of its sex."""
        return list(self._images[key[0]]).index(key[1])

    def _change(self, who: str, session: str, edit: Edit, before: float | None) -> Change:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Change(
            0, now, who, session, edit.attribute, edit.gender, edit.stem, before, edit.value
        )

    def _append(self, changes: Sequence[Change], confirmed: bool = False) -> list[Change]:
        """Number the changes that changed a value, were ``confirmed`` or undo another one, and
        append them to the history on disk."""
        out: list[Change] = []
        kept: list[Change] = []
        lines: list[str] = []
        for change in changes:
            numbered = change
            if change.before != change.after or confirmed or change.undoes:
                numbered = replace(change, id=len(self._history) + len(kept) + 1)
                kept.append(numbered)
                entry = {
                    k: v
                    for k, v in asdict(numbered).items()
                    if k not in _OPTIONAL or v not in ({}, 0, -1)
                }
                lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
            out.append(numbered)
        if lines:
            data = "".join(lines).encode()
            path = self._root.label_history
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            try:
                with path.open("ab") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
            except OSError as e:
                raise OSError(e.errno, e.strerror, str(path)) from e
            if new:
                sync_folder(path.parent)
            self._read += len(data)
            self._history += kept
        return out

    def _forget(self, known: int, size: int) -> None:
        """Remove from the history what follows its first ``known`` changes (``size`` bytes), since
        the CSV could not be written."""
        del self._history[known:]
        self._read = size
        with suppress(OSError):
            os.truncate(self._root.label_history, size)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the root's label lock, which excludes other threads and processes, and read what
        others have added to the history."""
        path = self._root.labels_lock
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        path = self._root.label_history
        size = path.stat().st_size if path.exists() else 0
        if size < self._read:  # replaced by an older or another file
            self._history, self._read, self._files = [], 0, {}
        if size == self._read:
            return
        with path.open("rb") as f:
            f.seek(self._read)
            data = f.read()
        whole, _, torn = data.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), len(self._history) + 1):
            try:
                self._history.append(replace(Change(**json.loads(line)), id=number))
            except (ValueError, TypeError) as e:
                raise ContractError(
                    f"{path}, line {number}: not a change of a label ({e}); remove the line"
                ) from e
        self._read = size - len(torn)
        if torn:  # a process was killed while writing; this change was never acknowledged
            with path.open("r+b") as f:
                f.truncate(self._read)


class _LabelFile:
    """One label CSV in memory, with the places of the images' rows."""

    def __init__(self, table: HandTable, stat: tuple[int, int, int]) -> None:
        self.table, self.stat = table, stat
        self.seen = 0  # number of changes in the history when the file was read
        self._decimal_commas = table.has_decimal_commas("value")
        self._places: dict[Key, list[int]] = {}
        self._index()

    @classmethod
    def read(cls, path: Path) -> "_LabelFile":
        """The checked file; an absent one has no rows. Raises :class:`ContractError`."""
        stat = _stat(path)
        try:
            table = read_table(path, LABEL_COLUMNS)
        except FileNotFoundError:
            return cls(HandTable(path, list(LABEL_COLUMNS)), _ABSENT)
        check_labels(table)
        return cls(table, stat)

    def values(self) -> dict[Key, float]:
        return {key: self._value(places[0]) for key, places in self._places.items()}

    def set(self, key: Key, value: float, img_id: int) -> None:
        """Write ``value`` into the row of an image, or into a new one at the end."""
        text = repr(float(value))
        if self._decimal_commas:
            text = text.replace(".", ",")
        if key not in self._places:
            path = f"resized/{key[0]}/{key[1]}.jpg"
            self._insert(
                len(self.table.rows),
                {"gender": key[0], "img_id": str(img_id), "path": path, "value": text},
            )
        for place in self._places[key]:  # repeated rows must have the same value
            if self._value(place) != value:
                self.table.set(place, "value", text)

    def remove(self, key: Key) -> tuple[dict[str, str], int]:
        """Remove the rows of an image; returns the first of them and its place."""
        places = self._places[key]
        for place in reversed(places):
            row = self.table.remove(place)
        self._index()
        return row, places[0]

    def bring_back(self, row: Mapping[str, str], at: int) -> None:
        """Put a removed row back in its place, or at the end of a file that is shorter now."""
        self._insert(min(at, len(self.table.rows)), row)

    def write(self) -> None:
        write_text_atomically(self.table.path, self.table.text())
        self.stat = _stat(self.table.path)

    def _insert(self, at: int, row: Mapping[str, str]) -> None:
        self.table.insert(at, row)
        if at == len(self.table.rows) - 1:
            # a new row at the end needs no new index: an import adds thousands
            self._places.setdefault(self._key(self.table.rows[at]), []).append(at)
        else:
            self._index()

    def _index(self) -> None:
        self._places = {}
        for place, row in enumerate(self.table.rows):
            self._places.setdefault(self._key(row), []).append(place)

    def _key(self, row: HandRow) -> Key:
        gender, path = (row.fields[self.table.columns.index(c)] for c in ("gender", "path"))
        return gender.strip().lower(), stem(path)

    def _value(self, place: int) -> float:
        return to_number(self.table.rows[place].fields[self.table.columns.index("value")])


def labelled_images(root: DataRoot) -> dict[str, dict[str, Path]]:
    """For each sex, the stems of its originals, in Unicode NFC, and their files, in plain order of
    file names."""
    return {sex: by_stem(usable_images(root, s)) for sex, s in SET_OF_SEX.items()}


def _known(attribute: str) -> None:
    if attribute not in ATTRIBUTES:
        raise ValueError(f"there is no attribute {attribute}; there are {', '.join(ATTRIBUTES)}")


_ABSENT = (0, 0, 0)
_OPTIONAL = ("undoes", "row", "at")


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return _ABSENT
    return found.st_mtime_ns, found.st_size, found.st_ino


def _said(value: float | None) -> str:
    return "unlabelled" if value is None else f"{value:g}"
