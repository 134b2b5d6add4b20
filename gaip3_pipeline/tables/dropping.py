"""The originals that the user drops: changes to the list that ``gaip3 drop`` writes."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.duplicates import (
    DROPPED_COLUMNS,
    best_of_group,
    read_dropped,
    read_group_table,
    set_and_stem,
)
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.hand_tables import HandTable, read_table
from gaip3_pipeline.tables.image_files import name_problem, usable_images
from gaip3_pipeline.tables.names import printable, spelling_problem, stem_of


class DropError(ValueError):
    """A picture that cannot be dropped or brought back; the message names it and the remedy."""


def worse_duplicates(root: DataRoot) -> list[str]:
    """The originals that are not the best of their group of near-duplicates; originals already
    dropped do not count.

    Raises :class:`DropError` without a table of groups."""
    if not root.near_duplicates.exists():
        raise DropError(
            f"there is no {root.near_duplicates}: make near_duplicates first (gaip3 refresh"
            " --select near_duplicates)"
        )
    table, dropped = read_group_table(root.near_duplicates), read_dropped(root.dropped)
    # the table may be older than the list: if the best of a group was dropped, its next best stays
    table = table[
        np.array([key not in dropped for key in zip(table.set, table.stem, strict=True)], bool)
    ]
    sizes = [p.stat().st_size if (p := root.path / path).exists() else 0 for path in table.path]
    return table.path[~best_of_group(table, sizes)].tolist()


def change_dropped(
    root: DataRoot, paths: Sequence[str], reason: str, undo: bool = False
) -> list[str]:
    """Add ``paths`` to the list of dropped originals, or remove them with ``undo``; returns the
    originals whose entry changed, as paths below the root.

    Nothing is written if one of the paths is unknown. Raises :class:`DropError` for it, and
    ContractError if the list cannot be read."""
    dropped = read_dropped(root.dropped)
    originals = {
        (s.id, stem_of(p)): root.relative(p) for s in IMAGE_SETS for p in usable_images(root, s)
    }
    keys = [
        _key(root, path, originals.keys() | dropped.keys() if undo else originals) for path in paths
    ]
    changed = [key for key in dict.fromkeys(keys) if (key in dropped) == undo]
    if changed:
        table = (
            read_table(root.dropped, DROPPED_COLUMNS)
            if root.dropped.exists()
            else HandTable(root.dropped, list(DROPPED_COLUMNS))
        )
        if undo:
            place = table.columns.index("path")
            table.rows = [r for r in table.rows if set_and_stem(r.fields[place]) not in changed]
        else:
            for key in changed:
                table.insert(len(table.rows), {"path": originals[key], "reason": reason})
        write_text_atomically(root.dropped, table.text())
    return [originals.get(key) or _lost(key) for key in changed]


def _key(root: DataRoot, path: str, known: Collection[tuple[str, str]]) -> tuple[str, str]:
    for candidate in (path, *_below(root, Path(path))):
        key = set_and_stem(candidate)
        if key and key in known:
            return key
    refused = spelling_problem(path) or _refused(root, path)
    raise DropError(
        f"{printable(path)}: {refused}"
        if refused
        else f"{path}: no original of that name; write it as original/… or resized/…, relative to"
        f" {root.path} or to the current folder"
    )


def _refused(root: DataRoot, path: str) -> str:
    for candidate in (path, *_below(root, Path(path))):
        for image_set in IMAGE_SETS:
            original = root.path / candidate
            if root.original(image_set) in original.parents:
                return name_problem(root, image_set, original)
    return ""


def _below(root: DataRoot, path: Path) -> Iterator[str]:
    """``path`` relative to the root, as written and with links resolved: ``original/`` or the root
    may be a symbolic link to another disk."""
    for place, top in (
        (path.absolute(), root.path.absolute()),
        (path.resolve(), root.path.resolve()),
    ):
        if place.is_relative_to(top):
            yield place.relative_to(top).as_posix()


def _lost(key: tuple[str, str]) -> str:
    """A path for an original that no longer exists: that of its resized picture, since only the
    stem is known."""
    folder = next(s.folder for s in IMAGE_SETS if s.id == key[0])
    return f"resized/{folder}/{key[1]}.jpg"
