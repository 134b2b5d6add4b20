"""The final dataset: the images that the rule selects, and hard links to them."""

import os
from pathlib import PurePosixPath

import pandas as pd

from gaip3_pipeline.layout import IMAGE_SETS, KINDS, MALE_FOLDERS, DataRoot
from gaip3_pipeline.tables.files import TEMPORARY, link_or_copy, sync_folder
from gaip3_pipeline.tables.hashing import file_sha256

SET_OF_FOLDER = {s.folder: s.id for s in IMAGE_SETS}


def select_final(
    probabilities: pd.DataFrame, originals: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """The rows that the rule selects: P(female) >= ``threshold`` and not in the male folder.

    ``probabilities`` has ``image_path`` (``resized/female/x.jpg``) and ``prob_female`` (float64, as
    read from the CSV); ``originals`` is the table of splits. Returns ``path``
    (``final/resized_female_x.jpg``), ``source``, ``original`` (its key), ``prob_female``,
    ``group``, ``bucket``, ``split``, sorted by path."""
    parts = probabilities.image_path.str.split("/", n=2, expand=True)
    table = probabilities.assign(kind=parts[0], folder=parts[1], name=parts[2])
    table = table[(table.prob_female >= threshold) & ~table.folder.isin(MALE_FOLDERS)]
    table = table.assign(
        path="final/" + table.kind + "_" + table.folder + "_" + table.name,
        key=table.folder.map(SET_OF_FOLDER) + "/" + table.name.map(lambda n: PurePosixPath(n).stem),
    ).merge(originals[["key", "group", "bucket", "split"]], on="key", validate="many_to_one")
    table = table.rename(columns={"image_path": "source", "key": "original"}).sort_values(
        "path", ignore_index=True
    )
    return table[["path", "source", "original", "prob_female", "group", "bucket", "split"]]


def link_final(root: DataRoot, chosen: pd.DataFrame) -> pd.DataFrame:
    """Make ``final/`` contain ``chosen`` and no other picture of the rule, as hard links where the
    file system allows them, else as copies; returns the manifest. Entries that the pipeline cannot
    have made stay."""
    root.final.mkdir(parents=True, exist_ok=True)
    wanted = {PurePosixPath(p).name for p in chosen.path}
    for entry in os.scandir(root.final):
        is_own = entry.is_file(follow_symlinks=False) and _is_made_here(entry.name)
        if is_own and entry.name not in wanted:
            os.unlink(entry.path)
    rows = []
    for path, source in zip(chosen.path, chosen.source, strict=True):
        target, origin = root.path / path, root.path / source
        if not (target.exists() and os.path.samefile(target, origin)):
            link_or_copy(origin, target)
        rows.append((target.stat().st_size, file_sha256(target)))
    sync_folder(root.final)
    sizes, hashes = zip(*rows, strict=True) if rows else ((), ())
    return chosen.assign(size=list(sizes), sha256=list(hashes), status="ok", reason="")


def _is_made_here(name: str) -> bool:
    beginnings = [f"{kind}_{s.folder}_" for kind in KINDS for s in IMAGE_SETS]
    return name.startswith(TEMPORARY) or (
        name.endswith(".jpg") and name.startswith(tuple(beginnings))
    )
