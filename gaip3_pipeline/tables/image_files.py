"""The picture files of a folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from gaip3_pipeline.layout import IMAGE_SUFFIXES


class DuplicateStems(ValueError):
    """Two originals of one set have the same stem and would get the same file name; the message
    names both."""


def list_images(folder: Path) -> list[Path]:
    """The picture files below ``folder`` in plain string order of their names; hidden files and
    folders and other suffixes are left out.

    Empty if the folder is missing. Raises OSError if a folder cannot be read."""
    return [Path(path) for path in image_paths(folder)]


def image_paths(folder: Path) -> list[str]:
    """The files of :func:`list_images` as strings that begin with ``folder``: faster, since no
    ``Path`` is created per file."""
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
    """Map each stem to its path, in the order of ``paths``. Raises :class:`DuplicateStems`."""
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(path.stem, path)
        if other is not path:
            raise DuplicateStems(
                f"two originals are called {path.stem!r}: {other} and {path}; rename or remove one"
                " of them"
            )
    return named
