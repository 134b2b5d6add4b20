"""The picture files of a folder, and which names of photographs can be used."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gaip3_pipeline.layout import IMAGE_SETS, IMAGE_SUFFIXES, KINDS, DataRoot, ImageSet

LONGEST_NAME = 255  # bytes in UTF-8, which Linux and its file systems allow
# bytes of a stem: final/ puts kind and folder before it
LONGEST_STEM = LONGEST_NAME - max(
    len(f"{kind}_{s.folder}_.jpg") for kind in KINDS for s in IMAGE_SETS
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNPRINTABLE = re.compile(f"{_CONTROL.pattern}|[\ud800-\udfff]")


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


def name_problem(path: str) -> str:
    """Why a photograph cannot be used under its ``path`` relative to the root; empty if it can.

    Every table, page, export and import takes the names that this accepts. Tables hold UTF-8; a
    control character breaks lines and terminals; tables read a backslash as a folder; and the
    longest name that is made from a photograph's must fit the file system."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8: rename the file or its folder"
    if _CONTROL.search(path):
        return "the name has a line break or another control character: rename the file or folder"
    if "\\" in path:
        return "the name has a backslash, which tables read as a folder: rename the file or folder"
    length = len(os.path.splitext(os.path.basename(path))[0].encode())
    if length > LONGEST_STEM:
        return (
            f"the file name has {length} bytes without its ending, of at most {LONGEST_STEM}:"
            " rename the file"
        )
    return ""


def printable(path: str) -> str:
    """``path`` in one line of UTF-8: bytes that are not UTF-8, and control characters, as
    ``\\xNN``."""
    return _UNPRINTABLE.sub(_escaped, path)


def _escaped(character: re.Match[str]) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character[0].encode("unicode_escape").decode()


def usable_images(root: DataRoot, image_set: ImageSet) -> list[Path]:
    """The originals of a set, in plain string order of their names, without those that
    :func:`name_problem` refuses."""
    return [p for p in list_images(root.original(image_set)) if not name_problem(root.relative(p))]


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Map each stem to its path, in the order of ``paths``. Raises :class:`DuplicateStems`."""
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(path.stem, path)
        if other is not path:
            raise DuplicateStems(
                f"two originals are called {printable(path.stem)!r}: {printable(str(other))} and"
                f" {printable(str(path))}; rename or remove one of them"
            )
    return named
