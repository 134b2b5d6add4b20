"""Names of pictures: how they are compared, and which do not fit the pipeline's files and tables.

A file system may hold the same name in two Unicode spellings: macOS writes the letter é as e and an
accent (NFD), other systems as one character (NFC). Names are compared in NFC, and everything that
the pipeline makes is named in NFC. Originals keep their own names."""

import os
import unicodedata
from pathlib import Path

_MOST = 255  # bytes of a name on common file systems; some report more than they take


def nfc(text: str) -> str:
    """``text`` in Unicode NFC."""
    return unicodedata.normalize("NFC", text)


def stem_of(path: Path) -> str:
    """The stem by which an original is known: that of its file name, in NFC."""
    return nfc(path.stem)


def existing(path: Path) -> Path:
    """``path``, or the file of its folder whose name differs from it in the Unicode spelling
    only."""
    if path.name.isascii() or os.path.lexists(path):
        return path
    spellings = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((p for p in spellings if os.path.lexists(p)), path)


def most_bytes(folder: Path) -> int:
    """The most bytes that a file name may have on the file system of ``folder``."""
    return min(os.pathconf(folder, "PC_NAME_MAX"), _MOST)


def too_long(name: str, longest: str, most: int) -> str:
    """Why the file ``name`` cannot be used if ``longest`` is the longest name made from it and
    ``most`` the limit in bytes; empty if it can."""
    over = len(os.fsencode(longest)) - most
    if over <= 0:
        return ""
    return (
        f"the file name is too long: {len(os.fsencode(name))} bytes, and names made from it may"
        f" have {most}; shorten it by {over} bytes"
    )
