"""``gaip3 export-dataset``: the final images with their values, as data-set hubs read them: a
folder of images with ``metadata.csv``, Parquet files, and a data card."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import (
    IMAGE_SETS,
    SET_OF_SEX,
    DataRoot,
    data_card_file,
    exported_images,
    exported_parquet,
    exported_table,
)
from gaip3_pipeline.setup.fetch import DATASETS
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.hashing import file_sha256
from gaip3_pipeline.training_data import final_values

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "validation", "test")
ROWS = 10_000  # pictures in a Parquet file
_GROUP = 100  # pictures in a row group, which a reader loads at once
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
Done = Callable[[int, int], None]


class ExportError(ValueError):
    """Nothing was exported; the message is one line with the remedy."""


@dataclass(frozen=True)
class Exported:
    """What was written: the pictures of each split, and the bytes of all files."""

    pictures: dict[str, int]
    bytes: int


def export(root: DataRoot, folder: Path, license_id: str, done: Done | None = None) -> Exported:
    """Write the final images of ``root`` into the new ``folder``, completely or not at all.

    ``license_id`` is a hub's name of the licence, such as ``cc0-1.0``. ``done(n, of)`` is called
    with the number of pictures written so far. Raises :class:`ExportError` if the folder exists,
    if that is no name of a licence, or if a final image differs from its manifest."""
    if not _LICENSE.fullmatch(license_id):
        raise ExportError(
            f"--license {license_id!r} is not the name of a licence on a hub: write it in lower"
            " case without blanks, such as cc0-1.0, cc-by-4.0 or other"
        )
    if folder.exists():
        raise ExportError(f"{folder} exists already: name a new folder, or remove this one")
    table = rows_of(root)
    with _whole(folder) as temporary:
        written = 0
        for split, part in table.groupby("split", sort=False):
            images = exported_images(temporary, str(split))
            images.mkdir(parents=True)
            for path, file_name, sha256 in zip(part.path, part.file_name, part.sha256, strict=True):
                target = images / file_name
                shutil.copyfile(root.path / path, target)
                if file_sha256(target) != sha256:
                    raise ExportError(
                        f"{root.path / path} differs from its manifest: run gaip3 refresh --verify"
                    )
                written += 1
                if done:
                    done(written, len(table))
            shown = part.drop(columns=["path", "sha256", "split"])
            shown.to_csv(exported_table(images), index=False, lineterminator="\n")
            _write_parquet(exported_parquet(temporary), str(split), images, shown)
        counts = {s: int((table.split == s).sum()) for s in SPLITS}
        card = data_card(root, table, counts, license_id)
        data_card_file(temporary).write_text(card, encoding="utf-8")
        size = sum(f.stat().st_size for f in temporary.rglob("*") if f.is_file())
    return Exported(counts, size)


def rows_of(root: DataRoot) -> pd.DataFrame:
    """A row for every final image: ``path`` and ``sha256`` of its file, ``file_name``, ``split``,
    ``set``, ``original`` (the stem of the photograph), ``brightness_copy``, ``group`` (photographs
    of one ``group`` show the same picture), ``prob_female``, and of each attribute its predicted
    value ``{attribute}``, ``{attribute}_deviation``, and ``{attribute}_label``, the hand label of
    the photograph, if there is one.

    Raises ``ValueError`` if the values do not cover the final images."""
    manifest = pd.read_parquet(root.manifest("final_dataset"))
    values = final_values(root)
    names = [PurePosixPath(path).name for path in manifest.path]
    originals = manifest.original.str.split("/", n=1, expand=True)
    table = pd.DataFrame(
        {
            "path": manifest.path,
            "sha256": manifest.sha256,
            "file_name": names,
            "split": pd.Categorical(manifest.split, SPLITS, ordered=True),
            "set": originals[0],
            "original": originals[1],
            "brightness_copy": manifest.source.str.startswith("augmented/"),
            "group": manifest.group,
            "prob_female": manifest.prob_female,
        }
    )
    for attribute in ATTRIBUTES:
        table[attribute] = values[attribute]
        table[f"{attribute}_deviation"] = values[f"uncertainty_{attribute}"]
        labels = read_labels(root.checked_labels(attribute)).table
        keys = labels.gender.map(lambda sex: SET_OF_SEX[sex].id) + "/" + labels.stem
        by_key = dict(zip(keys, labels.value, strict=True))
        table[f"{attribute}_label"] = manifest.original.map(by_key).astype(float)
    return table.sort_values(["split", "file_name"], ignore_index=True).astype({"split": str})


def data_card(root: DataRoot, table: pd.DataFrame, counts: dict[str, int], license_id: str) -> str:
    """The card of the data set in Markdown, with the front matter that hubs read."""
    configs = "\n".join(
        f"  - split: {split}\n    path: data/{split}-*.parquet" for split, n in counts.items() if n
    )
    size = next((f"n<{most:,}" for most in _SIZES if len(table) < most), "n>10M").replace(",", "")
    columns = "\n".join(
        f"| `{a}` | {MEANINGS[a]}; predicted | `{a}_deviation` | `{a}_label` |" for a in ATTRIBUTES
    )
    photographs = table.groupby("set").original.nunique().sum()
    return f"""---
license: {license_id}
pretty_name: Faces of {root.path.name}
size_categories:
- {size}
configs:
- config_name: default
  data_files:
{configs}
---

# Faces of {root.path.name}

{len(table):,} portraits of {photographs:,} photographs with five values each, written by
`gaip3 export-dataset`. `images/` holds them as files with a `metadata.csv` for each split, `data/`
the same as Parquet. The licence, {license_id}, was named by whoever exported them; see the sources.

| split | images |
|---|---|
{chr(10).join(f"| {split} | {n:,} |" for split, n in counts.items())}

Photographs of one `group` show the same picture; a group is in one split. `brightness_copy` images
are copies of an image with another brightness. `prob_female` is the score by which the images were
chosen.

| value, 0 to 1 | meaning | standard deviation | label by hand, of some photographs |
|---|---|---|---|
{columns}

## Sources

{_sources(root, table)}
"""


def _sources(root: DataRoot, table: pd.DataFrame) -> str:
    pages = {s.id: d.page for d in DATASETS for s in d.image_sets}
    painted = root.truth.exists()
    lines = []
    for image_set in IMAGE_SETS:
        used = table[table.set == image_set.id].original.nunique()
        if used:
            where = (
                "painted by gaip3 demo"
                if painted
                else f"the folder of {pages[image_set.id]}, unless other pictures were put there"
            )
            lines.append(f"- `{image_set.id}`: {used:,} photographs, {where}")
    return "\n".join(lines)


def _write_parquet(folder: Path, split: str, images: Path, table: pd.DataFrame) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    columns = table.drop(columns="file_name")
    schema = _schema(columns)
    parts = range(0, len(table), ROWS)
    for number, start in enumerate(parts):
        path = folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for first in range(start, min(start + ROWS, len(table)), _GROUP):
                rows = slice(first, min(first + _GROUP, start + ROWS))
                names = table.file_name.iloc[rows]
                pictures = [{"bytes": (images / n).read_bytes(), "path": n} for n in names]
                arrays = [
                    pa.array(pictures, schema.field("image").type),
                    *(pa.array(columns[c].iloc[rows], from_pandas=True) for c in columns),
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _schema(columns: pd.DataFrame) -> "pa.Schema":
    """The columns with what the library ``datasets`` reads: that ``image`` is a picture."""
    import pyarrow as pa

    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    kinds = {
        "O": (pa.string(), "string"),
        "b": (pa.bool_(), "bool"),
        "f": (pa.float64(), "float64"),
    }
    for name, kind in columns.dtypes.items():
        arrow, dtype = kinds["O" if isinstance(kind, pd.StringDtype) else np.dtype(kind).kind]
        fields.append(pa.field(str(name), arrow))
        features[str(name)] = {"dtype": dtype, "_type": "Value"}
    about = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": about})


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that gets its name at the end, and is removed after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
