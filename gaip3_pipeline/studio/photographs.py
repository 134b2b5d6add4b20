"""Retouching of a folder of photographs: each is encoded, its latents are moved, and the change of
the generator's picture is added to the photograph."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.colour import srgb_profile
from gaip3_pipeline.imaging.contact_sheet import pairs
from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode
from gaip3_pipeline.imaging.jpeg import with_icc_profile
from gaip3_pipeline.imaging.processing import read_picture
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import retouched_photographs
from gaip3_pipeline.sampling.draw import JPEG_QUALITY
from gaip3_pipeline.settings import Images
from gaip3_pipeline.studio.faces import BATCH, Studio
from gaip3_pipeline.studio.results import COLUMNS, Photographs, name_in, name_of_copy
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.names import printable

SHOWN = 24  # pairs on the sheet
FADES = 0.06  # share of the cut's width over which the change fades out at its left and right edge


def retouch_photographs(
    studio: Studio,
    work: Photographs,
    fidelity: float,
    done: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Retouch the photographs of ``work``: a JPEG each of the photograph's own size, in sRGB and
    with the profile of sRGB, ``retouched.csv`` and the sheet ``changes.jpg``.

    A result is the photograph plus the enlarged difference between the generator's pictures after
    and before, so that detail which the generator cannot draw stays. A photograph that is not
    retouched is copied byte for byte. Returns a row for each
    photograph and for each file that is not used: ``file``, ``outcome`` (empty if retouched, else
    the reason why not), ``picture`` (empty for files that could not be used), ``fidelity``, the
    five predicted values, ``folder`` and ``farther_than``, the share of the held-out pictures
    that are nearer to the training pictures. The written table also keeps the rows of photographs
    that an earlier run retouched and that are gone. Photographs are not changed."""
    files, rows = list(work.pictures), list[dict[str, Any]]()
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    # written first, so that the next run knows the results of a run that was killed
    planned = [{"file": name_in(work.folder, f), "picture": p} for f, p in work.pictures.items()]
    _write_table(work, _table(work, [{"outcome": "not done", **row} for row in planned]))
    for start in range(0, len(files), BATCH):
        read, batch = [], files[start : start + BATCH]
        for file in batch:
            try:
                data, _ = read_picture(file, studio.settings.images.max_pixels)
                read.append((file, data, studio.photograph(data)))
            except UnusableImage as e:
                rows.append({"file": name_in(work.folder, file), "outcome": f"not used: {e}"})
        if read:
            faces = [photograph.face for _, _, photograph in read]
            moved, reasons = studio.retouched(faces, fidelity)
            change = studio.pictures(moved).astype(np.float32) - studio.pictures(faces)
            for (file, data, photograph), reason, difference in zip(
                read, reasons, change, strict=True
            ):
                cut, face = photograph.cut, photograph.face
                picture = work.pictures[file]
                if reason:
                    picture, content = name_of_copy(picture, file.name), data
                else:
                    whole = _added(data, difference, studio.settings.images)
                    content = with_icc_profile(encode_jpeg(whole, JPEG_QUALITY), srgb_profile())
                write_bytes_atomically(work.out / picture, content)
                values = dict(zip(ATTRIBUTES, face.values, strict=True))
                rows.append(
                    {
                        "file": name_in(work.folder, file),
                        "outcome": reason,
                        "picture": picture,
                        "fidelity": fidelity,
                        **values,
                        "farther_than": photograph.farther_than
                        if photograph.held_out
                        else math.nan,
                    }
                )
                if len(shown) < SHOWN:
                    shown.append((cut, cut if reason else _sum(cut, difference)))
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


def _added(data: bytes, difference: np.ndarray, images: Images) -> np.ndarray:
    """The photograph in the bytes ``data``, upright and in its own size, ``(H, W, 3) uint8``, with
    ``difference (h, w, 3) float32`` added to the part that the pipeline cuts out."""
    largest = Target(images.max_pixels, images.max_pixels)  # so that it is not reduced
    whole = decode(data, "photograph", largest, images.max_pixels).pixels.copy()
    left, right = Target(1, 1, images.crop).columns(whole.shape[1])
    # without fading, the edges of the cut would show
    ends = np.minimum(np.arange(right - left) + 1, np.arange(right - left, 0, -1))
    fading = np.clip(ends / max(1.0, FADES * (right - left)), 0, 1).astype(np.float32)
    part = whole[:, left:right]
    whole[:, left:right] = _sum(part, difference, fading[:, None] if images.crop else 1.0)
    return whole


def _sum(
    picture: np.ndarray, difference: np.ndarray, share: np.ndarray | float = 1.0
) -> np.ndarray:
    """``picture (H, W, 3) uint8`` plus the enlarged ``difference``, of which ``share`` is added."""
    height, width = picture.shape[:2]
    larger = cv2.resize(difference, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.round(picture + larger * share), 0, 255).astype(np.uint8)


def _table(work: Photographs, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """``rows``, then those of the files that are not used."""
    others = [
        {
            "file": name_in(work.folder, o.path),
            "outcome": o.reason if o.left_out else f"not used: {o.reason}",
        }
        for o in work.others
    ]
    table = pd.DataFrame([*rows, *others], columns=COLUMNS).assign(
        folder=printable(str(work.folder))
    )
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
