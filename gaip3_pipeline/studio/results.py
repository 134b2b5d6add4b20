"""Which photographs of a folder are retouched, and the names of their results. Imports no
networks."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zlib import crc32

import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.decode import JPEG_SUFFIXES
from gaip3_pipeline.layout import retouched_photographs
from gaip3_pipeline.tables.hand_tables import read_table
from gaip3_pipeline.tables.image_files import LEFT_OUT, Other, is_picture_name, list_folder
from gaip3_pipeline.tables.names import most_bytes, nfc, printable, too_long

COLUMNS = ["file", "outcome", "picture", "fidelity", *ATTRIBUTES, "folder", "farther_than"]
_HEADER_BYTES = 400


class OutputError(ValueError):
    """Results cannot be written into a folder without a loss; the message is one line with the
    remedy."""


@dataclass(frozen=True)
class Photographs:
    """The photographs of ``folder`` and the place of their results in ``out``.

    ``pictures`` maps each photograph to the name of its result; ``others`` are not used.
    ``earlier`` is the table of an earlier run of the same folder."""

    folder: Path
    out: Path
    pictures: dict[Path, str]
    others: list[Other]
    earlier: pd.DataFrame

    @property
    def found(self) -> int:
        """The number of photographs, also of those in a format that is not read."""
        return len(self.pictures) + sum(not other.left_out for other in self.others)


def find_photographs(folder: Path, out: Path) -> Photographs:
    """The photographs of ``folder`` and its subfolders to retouch into ``out``.

    Folders with results, of this or of another run, are left out. Raises :class:`OutputError` if
    ``out`` holds a file that a result would replace and that no earlier run made."""
    earlier, listing = _earlier(folder, out), list_folder(folder)
    pictures = [Path(path) for path in listing.pictures]
    results = _result_folders(folder, out, pictures)
    files = [p for p in pictures if results.isdisjoint(p.parents)]
    others = [o for o in listing.unused() if results.isdisjoint(o.path.parents)]
    others += [
        Other(p, f"{LEFT_OUT}a folder with results of gaip3 retouch") for p in sorted(results)
    ]
    names = result_names([name_in(folder, p) for p in files], out)
    there = next(p for p in (out, *out.parents) if p.is_dir())
    usable = {}
    for path, name in zip(files, names, strict=True):
        if reason := too_long(path.name, PurePosixPath(name).name, most_bytes(there)):
            others.append(Other(path, reason))
        else:
            usable[path] = name
    made = {out / name for name in earlier.picture} | (
        set(retouched_photographs(out)) if len(earlier) else set()
    )
    inside = [p for p in pictures if out in p.parents]
    results_and_copies = {n for path, r in usable.items() for n in (r, name_of_copy(r, path.name))}
    wanted = [*retouched_photographs(out), *(out / name for name in results_and_copies), *inside]
    if foreign := [p for p in wanted if os.path.lexists(p) and p not in made]:
        raise OutputError(
            f"{foreign[0]} was not made by gaip3 retouch: move it away, or choose another folder"
            " with --out"
        )
    return Photographs(folder, out, usable, others, earlier)


def result_names(names: Sequence[str], out: Path) -> list[str]:
    """The name of the result of each photograph, both relative to their folders, with ``/``.

    A JPEG keeps its name. Any other photograph gets ``.jpg`` in addition, and so does a JPEG whose
    name without suffix ends like a picture's (``a.png.jpg``), so that it differs from the result of
    ``a.png``. Names that differ only in case or Unicode spelling, or are that of the sheet or the
    table, get a checksum of the photograph's name, since many file systems take them for one."""
    plain = [n if _keeps_name(n) else f"{n}.jpg" for n in names]
    taken = Counter(_alike(name) for name in plain)
    taken.update(path.name for path in retouched_photographs(out))
    return [
        _with_checksum(result, name) if taken[_alike(result)] > 1 else result
        for name, result in zip(names, plain, strict=True)
    ]


def name_of_copy(result: str, photograph: str) -> str:
    """The name of a photograph that is copied as it is, instead of its ``result``: that of a JPEG
    is the same, others end as the photograph's name does, which no result does."""
    suffix, plain = PurePosixPath(photograph).suffix, result.removesuffix(".jpg")
    if suffix.lower() in JPEG_SUFFIXES:
        return result
    return plain if plain.endswith(suffix) else f"{plain}{suffix}"


def _earlier(folder: Path, out: Path) -> pd.DataFrame:
    """The table of an earlier run in ``out``, all columns as text; without rows if there was none.
    Raises :class:`OutputError` for that of another folder, and ContractError if it cannot be
    read."""
    path = retouched_photographs(out)[0]
    if not _is_table(path):
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    table = read_table(path, COLUMNS[:4])  # a spreadsheet may have saved it
    rows = [row for _, row in table.records(COLUMNS[:4])]
    earlier = pd.DataFrame(rows, columns=table.columns, dtype=str)
    # tables of before have no column folder
    of = set(earlier.get("folder", [])) - {printable(str(folder))}
    if of:
        raise OutputError(f"{out} holds the results of {min(of)}: choose another folder with --out")
    return earlier.reindex(columns=COLUMNS, fill_value="")


def _result_folders(folder: Path, out: Path, pictures: Sequence[Path]) -> set[Path]:
    """The folders below ``folder`` that are ``out`` or hold the table of another run."""
    below = {
        p for f in {p.parent for p in pictures} for p in (f, *f.parents) if folder in p.parents
    }
    return {
        p for p in below if p.resolve() == out.resolve() or _is_table(retouched_photographs(p)[0])
    }


def _is_table(path: Path) -> bool:
    """Whether the file ``path`` is a table of retouched photographs."""
    if not path.is_file():
        return False
    with path.open("rb") as f:
        header = f.read(_HEADER_BYTES)
    # as a spreadsheet may have saved it: with a byte order mark, quotes, another separator, UTF-16
    names = re.findall(r"[a-z_]+", header.replace(b"\0", b"").decode("ascii", "ignore"))
    return names[:4] == COLUMNS[:4]


def _keeps_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in JPEG_SUFFIXES and not is_picture_name(path.stem)


def _alike(name: str) -> str:
    return nfc(name).casefold()


def _with_checksum(result: str, name: str) -> str:
    path = PurePosixPath(result)
    return str(path.with_name(f"{path.stem}-{crc32(name.encode()):08x}{path.suffix}"))


def name_in(folder: Path, file: Path) -> str:
    """``file`` relative to ``folder`` as the table holds it, in one line of UTF-8."""
    return printable(file.relative_to(folder).as_posix())
