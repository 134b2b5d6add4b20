"""Names of pictures: how they are compared, and which do not fit the pipeline's files and tables.

A file system may hold the same name in two Unicode spellings: macOS writes the letter é as e and an
accent (NFD), other systems as one character (NFC). Names are compared in NFC, and everything that
the pipeline makes is named in NFC. Originals keep their own names."""

import os
import re
import unicodedata
from pathlib import Path

from gaip3_pipeline.layout import KINDS, MALE_FOLDERS, ImageSet

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNPRINTABLE = re.compile(f"{_CONTROL.pattern}|[\ud800-\udfff]")
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


def longest_final_name(image_set: ImageSet, stem: str) -> str:
    """The longest name of a file that is made of the original ``stem``."""
    if image_set.folder in MALE_FOLDERS:
        return f"{stem}.jpg"
    return max((f"{kind}_{image_set.folder}_{stem}.jpg" for kind in KINDS), key=len)


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


def spelling_problem(path: str) -> str:
    """Why a photograph cannot be used under its ``path`` relative to the root; empty if it can.

    Every table, page, export and import takes the names that this accepts. Tables hold UTF-8; a
    control character breaks lines and terminals; and tables read a backslash as a folder."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "the file name is not valid UTF-8: rename the file or its folder"
    if _CONTROL.search(path):
        return "the name has a line break or another control character: rename the file or folder"
    if "\\" in path:
        return "the name has a backslash, which tables read as a folder: rename the file or folder"
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
