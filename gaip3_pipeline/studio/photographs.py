"""Retouching of a folder of photographs: each is encoded, its latents are moved, and the change of
the generator's picture is added to the photograph."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.contact_sheet import pairs
from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.imaging.processing import read_picture
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import retouched_photographs
from gaip3_pipeline.sampling.draw import JPEG_QUALITY
from gaip3_pipeline.studio.faces import BATCH, Studio
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.image_files import LEFT_OUT, Other, is_picture_name, list_folder
from gaip3_pipeline.tables.names import most_bytes, nfc, too_long

COLUMNS = ["file", "outcome", "picture", "fidelity", *ATTRIBUTES, "folder"]
SHOWN = 24  # pairs on the sheet
_JPEGS = (".jpg", ".jpeg")


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
    names = result_names([_name(folder, p) for p in files], out)
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
    wanted = [*retouched_photographs(out), *(out / name for name in usable.values()), *inside]
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


def retouch_photographs(
    studio: Studio,
    work: Photographs,
    fidelity: float,
    done: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Retouch the photographs of ``work``: a JPEG each as the pipeline cuts it, ``retouched.csv``
    and the sheet ``changes.jpg``.

    A result is the photograph plus the enlarged difference between the generator's pictures after
    and before, so that detail which the generator cannot draw stays. Returns a row for each
    photograph and for each file that is not used: ``file``, ``outcome`` (empty if retouched, else
    the reason why not), ``picture`` (empty for files that could not be used), ``fidelity``, the
    five predicted values and ``folder``. The written table also keeps the rows of photographs that
    an earlier run retouched and that are gone. Photographs are not changed."""
    files, rows = list(work.pictures), list[dict[str, Any]]()
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    # written first, so that the next run knows the results of a run that was killed
    planned = [{"file": _name(work.folder, f), "picture": p} for f, p in work.pictures.items()]
    _write_table(work, _table(work, [{"outcome": "not done", **row} for row in planned]))
    for start in range(0, len(files), BATCH):
        read, batch = [], files[start : start + BATCH]
        for file in batch:
            try:
                data, _ = read_picture(file, studio.settings.images.max_pixels)
                read.append((file, *studio.photograph(data)))
            except UnusableImage as e:
                rows.append({"file": _name(work.folder, file), "outcome": f"not used: {e}"})
        if read:
            names, cuts, faces = zip(*read, strict=True)
            moved, reasons = studio.retouched(faces, fidelity)
            change = studio.pictures(moved).astype(np.float32) - studio.pictures(faces)
            for file, cut, face, reason, difference in zip(
                names, cuts, faces, reasons, change, strict=True
            ):
                height, width = cut.shape[:2]
                larger = cv2.resize(difference, (width, height), interpolation=cv2.INTER_CUBIC)
                after = np.clip(np.round(cut + larger), 0, 255).astype(np.uint8)
                picture = work.pictures[file]
                write_bytes_atomically(work.out / picture, encode_jpeg(after, JPEG_QUALITY))
                values = dict(zip(ATTRIBUTES, face.values, strict=True))
                rows.append(
                    {
                        "file": _name(work.folder, file),
                        "outcome": reason,
                        "picture": picture,
                        "fidelity": fidelity,
                        **values,
                    }
                )
                if len(shown) < SHOWN:
                    shown.append((cut, after))
        if done:
            done(min(start + BATCH, len(files)), len(files))
    order = {row["file"]: i for i, row in enumerate(planned)}
    table = _table(work, sorted(rows, key=lambda row: order[row["file"]]))
    _write_table(work, table)
    changes = retouched_photographs(work.out)[1]
    if shown:
        before, after = zip(*shown, strict=True)
        write_bytes_atomically(changes, pairs(list(before), list(after)))
    else:
        changes.unlink(missing_ok=True)
    return table


def _table(work: Photographs, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """``rows``, then those of the files that are not used."""
    others = [
        {
            "file": _name(work.folder, o.path),
            "outcome": o.reason if o.left_out else f"not used: {o.reason}",
        }
        for o in work.others
    ]
    table = pd.DataFrame([*rows, *others], columns=COLUMNS).assign(folder=_printable(work.folder))
    return table.fillna({"picture": ""})


def _write_table(work: Photographs, table: pd.DataFrame) -> None:
    """Write ``table`` and the rows of photographs that are gone; remove results of the earlier run
    that it replaces by none or by one of another name."""
    is_gone = (work.earlier.picture != "") & ~work.earlier.file.isin(table.file)
    whole = pd.concat([table.astype(object), work.earlier[is_gone]])
    replaced = set(work.earlier.picture[~is_gone]) - {""} - set(whole.picture)
    write_text_atomically(
        retouched_photographs(work.out)[0], whole.to_csv(index=False, lineterminator="\n")
    )
    for name in replaced:
        if (work.out / name).resolve().is_relative_to(work.out.resolve()):
            (work.out / name).unlink(missing_ok=True)


def _earlier(folder: Path, out: Path) -> pd.DataFrame:
    """The table of an earlier run in ``out``, all columns as text; without rows if there was none.
    Raises :class:`OutputError` for that of another folder."""
    path = retouched_photographs(out)[0]
    if not _is_table(path):
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
    # tables of before have no column folder
    of = set(earlier.get("folder", [])) - {_printable(folder)}
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
    """Whether the file ``path`` is a table of :func:`retouch_photographs`."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as f:
        return f.readline().startswith(",".join(COLUMNS[:4]))


def _keeps_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _JPEGS and not is_picture_name(path.stem)


def _alike(name: str) -> str:
    return nfc(name).casefold()


def _with_checksum(result: str, name: str) -> str:
    path = PurePosixPath(result)
    return str(path.with_name(f"{path.stem}-{crc32(name.encode()):08x}{path.suffix}"))


def _name(folder: Path, file: Path) -> str:
    return _printable(file.relative_to(folder))


def _printable(path: Path) -> str:
    """``path`` with bytes that are not UTF-8 written as ``\\xNN``, since tables hold UTF-8 only."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
