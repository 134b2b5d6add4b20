"""Retouching of a folder of photographs: each is encoded, its latents are moved, and the change of
the generator's picture is added to the photograph."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.colour import srgb_profile
from gaip3_pipeline.imaging.contact_sheet import pairs
from gaip3_pipeline.imaging.decode import JPEG_SUFFIXES, UnusableImage
from gaip3_pipeline.imaging.jpeg import with_icc_profile
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import retouched_photographs
from gaip3_pipeline.sampling.draw import JPEG_QUALITY
from gaip3_pipeline.studio.faces import BATCH, Studio
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.image_files import LONGEST_NAME, printable

SHOWN = 24  # pairs on the sheet


def retouch_photographs(
    studio: Studio,
    folder: Path,
    files: Sequence[Path],
    out: Path,
    fidelity: float,
    done: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Retouch ``files`` of ``folder`` into ``out``: a JPEG each as the pipeline cuts it, in sRGB
    and with the profile of sRGB, ``retouched.csv`` and the sheet ``changes.jpg``.

    A result is the photograph plus the enlarged difference between the generator's pictures after
    and before, so that detail which the generator cannot draw stays. Returns the table, in the
    order of ``files``: ``file``, ``outcome`` (empty if retouched, else the reason why not),
    ``picture`` (empty for files that could not be used), ``fidelity`` and the five predicted
    values. The files in ``folder`` are not changed."""
    rows: list[dict[str, Any]] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(files), BATCH):
        read, batch = [], files[start : start + BATCH]
        for file in batch:
            name = _name(folder, file)
            try:
                if len(PurePosixPath(_picture(name)).name.encode()) > LONGEST_NAME:
                    raise UnusableImage("its name is too long: rename the file")
                data = file.read_bytes()
                read.append((name, *studio.photograph(data)))
            except (UnusableImage, OSError) as e:
                rows.append({"file": name, "outcome": f"not used: {e}", "picture": ""})
        if read:
            names, cuts, faces = zip(*read, strict=True)
            moved, reasons = studio.retouched(faces, fidelity)
            change = studio.pictures(moved).astype(np.float32) - studio.pictures(faces)
            for name, cut, face, reason, difference in zip(
                names, cuts, faces, reasons, change, strict=True
            ):
                height, width = cut.shape[:2]
                larger = cv2.resize(difference, (width, height), interpolation=cv2.INTER_CUBIC)
                after = np.clip(np.round(cut + larger), 0, 255).astype(np.uint8)
                picture = _picture(name)
                jpeg = with_icc_profile(encode_jpeg(after, JPEG_QUALITY), srgb_profile())
                write_bytes_atomically(out / picture, jpeg)
                values = dict(zip(ATTRIBUTES, face.values, strict=True))
                rows.append(
                    {
                        "file": name,
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
    order = {_name(folder, file): i for i, file in enumerate(files)}
    table = pd.DataFrame(rows, columns=["file", "outcome", "picture", "fidelity", *ATTRIBUTES])
    table = table.sort_values("file", key=lambda names: names.map(order), ignore_index=True)
    table_file, changes = retouched_photographs(out)
    write_text_atomically(table_file, table.to_csv(index=False, lineterminator="\n"))
    if shown:
        before, after = zip(*shown, strict=True)
        write_bytes_atomically(changes, pairs(list(before), list(after)))
    return table


def _name(folder: Path, file: Path) -> str:
    return printable(file.relative_to(folder).as_posix())


def _picture(name: str) -> str:
    """The name of the retouched picture; a.png and a.jpg may be in the same folder."""
    return name if name.lower().endswith(JPEG_SUFFIXES) else f"{name}.jpg"
