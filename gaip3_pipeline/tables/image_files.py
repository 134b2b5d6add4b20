"""Which picture files a folder holds."""

import os
from collections.abc import Iterable
from pathlib import Path

from gaip3_pipeline.layout import IMAGE_SUFFIXES


class DuplicateStems(ValueError):
    """Two originals of one set would give files of one name; the message names both."""


def list_images(folder: Path) -> list[Path]:
    """The picture files below ``folder`` in plain string order of their names; hidden files and
    folders and other suffixes are left out.

    A folder that is missing has none. Raises OSError for one that cannot be read.
    """
    return [Path(path) for path in image_paths(folder)]


def image_paths(folder: Path) -> list[str]:
    """What :func:`list_images` lists, as strings that begin with ``folder``: a ``Path`` for each
    of many thousands takes its time."""
    found: list[tuple[str, str]] = []
    folders = [str(folder)] if folder.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif (
                    os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.is_dir()
                ):
                    found.append((entry.name, entry.path))
    return [path for _, path in sorted(found)]


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Each path under its stem, order kept. Raises :class:`DuplicateStems`."""
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(path.stem, path)
        if other is not path:
            raise DuplicateStems(
                f"two originals are called {path.stem!r}: {other} and {path}; rename or remove one"
                " of them"
            )
    return named
