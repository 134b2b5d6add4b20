"""Contact sheets of files: a few pictures evenly spaced over a set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.contact_sheet import contact_sheet


def evenly(n: int, most: int) -> np.ndarray:
    """At most ``most`` indices evenly spaced over ``range(n)``."""
    return (
        np.unique(np.linspace(0, max(n - 1, 0), min(n, most)).round().astype(int))
        if n
        else np.zeros(0, int)
    )


def sheet_of_files(
    paths: Sequence[Path], title: str, most: int = 40, columns: int = 10
) -> bytes | None:
    """A JPEG contact sheet of at most ``most`` of ``paths``; None if there are none."""
    chosen = [paths[i] for i in evenly(len(paths), most)]
    if not chosen:
        return None
    images = [np.asarray(Image.open(p).convert("RGB")) for p in chosen]
    return contact_sheet(images, columns, title=title)
