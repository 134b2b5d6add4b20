"""The tables of curation: groups of originals that show the same photograph, and the originals that
the user dropped."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.tables.contracts import relative_path
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.hand_tables import read_table
from gaip3_pipeline.tables.problems import ContractError, at_most
from gaip3_pipeline.tables.splits import groups

COLUMNS = ["group", "set", "stem", "path", "twin", "correlation", "bits", "mirrored"]
DROPPED_COLUMNS = ("path", "reason")  # of the list of dropped originals
DROPPED = "dropped: "  # prefix of the reason in a manifest


def group_table(
    originals: pd.DataFrame, pairs: Iterable[tuple[int, int, float, int, bool]]
) -> pd.DataFrame:
    """A row for every original that shows the same photograph as another, sorted by group and key.

    ``originals`` has ``key, set, stem, path``. ``pairs`` are two row numbers of ``originals``, the
    correlation of the two, the number of bits in which their hashes differ, and whether one is
    mirrored. A group is named by its smallest ``set/stem``. ``twin`` is the most similar other
    original of the group; ``correlation``, ``bits`` and ``mirrored`` describe the pair of the
    two."""
    best: dict[int, tuple[float, int, int, bool]] = {}
    linked = []
    for first, second, correlation, bits, mirrored in pairs:
        linked.append((originals.key[first], originals.key[second]))
        for one, other in ((first, second), (second, first)):
            if one not in best or correlation > best[one][0]:
                best[one] = (correlation, other, bits, mirrored)
    rows = sorted(best)
    of = groups([originals.key[i] for i in rows], linked)
    table = originals.loc[rows, ["key", "set", "stem", "path"]].assign(
        group=[of[originals.key[i]] for i in rows],
        twin=[originals.key[best[i][1]] for i in rows],
        correlation=[round(best[i][0], 4) for i in rows],
        bits=[best[i][2] for i in rows],
        mirrored=[int(best[i][3]) for i in rows],
    )
    return table.sort_values(["group", "key"], ignore_index=True)[COLUMNS]


def write_group_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of :func:`group_table`."""
    write_text_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def read_group_table(path: Path) -> pd.DataFrame:
    """The table that :func:`write_group_table` wrote; empty if there is no file."""
    text = dict.fromkeys(("group", "set", "stem", "path", "twin"), str)
    return (
        pd.read_csv(path, dtype=text, keep_default_na=False)
        if path.exists()
        else pd.DataFrame(columns=COLUMNS)
    )


def twins(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of keys ``set/stem`` that connect the originals of each group."""
    return list(zip(table.group, table.set + "/" + table.stem, strict=True))


def best_of_group(table: pd.DataFrame, sizes: Sequence[int]) -> pd.Series:
    """``(N,) bool``, True for the original of each group to keep: one of a labelled set rather than
    of D1, then the larger file, then the smaller name."""
    order = table.assign(
        d1=table.set == IMAGE_SETS[0].id, size=list(sizes), key=table.set + "/" + table.stem
    )
    first = (
        order.sort_values(["group", "d1", "size", "key"], ascending=[True, True, False, True])
        .drop_duplicates("group")
        .index
    )
    return pd.Series(table.index.isin(first), index=table.index)


def set_and_stem(path: str) -> tuple[str, str] | None:
    """(set, stem) of an original, a resized picture or a brightness copy, given its path below the
    root; None for any other path."""
    place = PurePosixPath(relative_path(path))
    parts, folder = place.parts, "/".join(place.parts[1:-1])
    for image_set in IMAGE_SETS:
        original = parts[:1] == ("original",) and (folder + "/").startswith(
            image_set.original + "/"
        )
        if original or (parts[:1] in (("resized",), ("augmented",)) and folder == image_set.folder):
            return image_set.id, place.stem
    return None


def read_dropped(path: Path) -> dict[tuple[str, str], str]:
    """(set, stem) to reason of the originals that the user dropped; none without a file. Raises
    :class:`ContractError`."""
    if not path.exists():
        return {}
    dropped, problems = {}, []
    for line, row in read_table(path, DROPPED_COLUMNS).records(DROPPED_COLUMNS):
        key = set_and_stem(row["path"])
        if key is None:
            named = (
                f"{path}, line {line}, column path: {row['path']!r} lies in none of the image sets"
            )
            problems.append(
                f"{named}: write it as original/…, resized/… or augmented/…, or remove the line"
            )
        else:
            dropped[key] = row["reason"].strip() or "by hand"
    if problems:
        raise ContractError("\n".join(at_most(problems)))
    return dropped
