"""The files of a folder of photographs: the pictures, and all other files with the reason why they
are not used."""

import mimetypes
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gaip3_pipeline.layout import IMAGE_SUFFIXES, DataRoot, ImageSet
from gaip3_pipeline.tables.names import (
    longest_final_name,
    most_bytes,
    printable,
    spelling_problem,
    stem_of,
    too_long,
)

LEFT_OUT = "left out: "  # prefix of the reason of a file that is no photograph of the set
# Files and folders of operating systems and network drives, in lower case. They are left out by
# name, as is every name that begins with a dot (.DS_Store, ._a.jpg, .ipynb_checkpoints).
SYSTEM_NAMES = frozenset(
    {
        "@eadir",  # thumbnails of Synology
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "__macosx",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",  # of a folder on macOS
    }
)
_REMEDY = "convert it to JPEG or PNG"
_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf"
    " .raw .rw2 .rwl .sr2 .srf .srw .x3f"
)
_UNREADABLE = {
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heics": "HEIC",
    ".heif": "HEIF",
    ".heifs": "HEIF",
    ".hif": "HEIF",
    ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
    ".jxr": "JPEG XR",
    ".psd": "Photoshop",
    ".psb": "Photoshop",
    ".xcf": "GIMP",
    **dict.fromkeys(_RAW.split(), "camera RAW"),
}
# formats of pictures that are not read, by bytes at the beginning of the file
UNREAD_FORMATS = {
    "GIF": (0, (b"GIF8",)),
    "HEIC": (4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")),
    "JPEG XL": (0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    "JPEG 2000": (0, (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")),
    "Photoshop": (0, (b"8BPS",)),
}
# by the name that Pillow gives a format
_SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
}
_FORMATS = tuple(form for form in _SUFFIX_OF if form != "MPO")  # which Pillow opens as JPEG
# A suffix of a kind that is not known here: at most four characters with a letter (.bin), or more
# after the suffix of a picture (.jpg_large). The rest of “2024.05.06” or “John H. Smith” is none.
_SUFFIX = re.compile(
    rf"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})(?![a-z]).*|\.(?=.*[a-z])[!-~]{{1,4}}",
    re.DOTALL,
)
_TYPES = mimetypes.MimeTypes()  # without those of the machine, so that all machines agree


class DuplicateStems(ValueError):
    """Two originals of one set have the same stem and would get the same file name; the message
    names both."""


@dataclass(frozen=True)
class Other:
    """A file or folder that is not used, and why. The ``reason`` begins with :data:`LEFT_OUT`
    unless it is a photograph that cannot be read."""

    path: Path
    reason: str

    @property
    def left_out(self) -> bool:
        return self.reason.startswith(LEFT_OUT)


@dataclass(frozen=True)
class Listing:
    """What a folder and its subfolders hold: the ``pictures``, by suffix, in plain string order of
    their names; and ``others``, each with the reason that the listing already knows, or ""."""

    pictures: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)

    def unused(self) -> list[Other]:
        """All ``others`` in the order of their paths, with their reasons. The first bytes of files
        are read, unless their suffix is that of a camera's RAW, a video or a sound."""
        beside = {name: p for p in self.pictures for name in (p, os.path.splitext(p)[0])}
        return [
            Other(Path(path), reason or _reason(path, beside))
            for path, reason in sorted(self.others.items())
        ]


def list_folder(folder: Path) -> Listing:
    """List ``folder``; a missing one is empty.

    Names that begin with a dot and :data:`SYSTEM_NAMES` are left out. A link to a folder is
    followed once: a folder that is reached again, by a loop or by a second link, is not listed
    again but is one of the ``others``, and so are the second link to a picture, a broken link and a
    folder that cannot be read. A link to a folder that contains ``folder`` is not followed."""
    found = Listing()
    walk = _Walk(str(folder), found.others)
    level = [str(folder)] if folder.is_dir() else []
    while level:  # the folder itself, then what its links lead to, then the links found there
        for start in sorted(level):
            walk.follow(start)
        level, walk.links = walk.links, []
    seen = dict(walk.files)
    for path in sorted(walk.linked):
        real = os.path.realpath(path)
        if real in seen:
            found.others[path] = f"{LEFT_OUT}a link to {walk.short(seen[real])}, which is listed"
        else:
            seen[real] = path
    found.pictures.extend(sorted(seen.values(), key=lambda p: (os.path.basename(p), p)))
    return found


def list_images(folder: Path) -> list[Path]:
    """The pictures of :func:`list_folder`."""
    return [Path(path) for path in list_folder(folder).pictures]


def name_problem(root: DataRoot, image_set: ImageSet, path: Path, most: int | None = None) -> str:
    """Why the original at ``path`` cannot be used under its name; empty if it can. ``most`` is
    :func:`most_bytes` of the root, which is asked for without it."""
    return spelling_problem(root.relative(path)) or too_long(
        path.name,
        longest_final_name(image_set, stem_of(path)),
        most_bytes(root.path) if most is None else most,
    )


def usable_images(root: DataRoot, image_set: ImageSet) -> list[Path]:
    """The originals of a set, in plain string order of their names, without those that
    :func:`name_problem` refuses."""
    images = list_images(root.original(image_set))
    most = most_bytes(root.path) if images else None  # one question to the file system for all
    return [path for path in images if not name_problem(root, image_set, path, most)]


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Map each stem, in NFC, to its path, in the order of ``paths``. Raises
    :class:`DuplicateStems`."""
    named: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path)
        other = named.setdefault(stem, path)
        if other is not path:
            alike = path.stem != other.stem
            shown = [
                f"{printable(str(p))} ({p.name!a})" if alike else printable(str(p))
                for p in (other, path)
            ]
            spelt = " in two Unicode spellings" if alike else ""
            raise DuplicateStems(
                f"two originals are called {printable(stem)!r}{spelt}: {' and '.join(shown)};"
                " rename or remove one of them"
            )
    return named


class _Walk:
    """Collects the files of folders. ``files`` maps the place of each picture, links resolved, to
    its path; ``linked`` are pictures that are links, ``links`` links to folders."""

    def __init__(self, folder: str, others: dict[str, str]) -> None:
        self.others = others
        self.files: dict[str, str] = {}
        self.linked: list[str] = []
        self.links: list[str] = []
        self._folder, self._top = folder, os.path.realpath(folder)
        self._seen: dict[str, str] = {}

    def short(self, path: str) -> str:
        """``path`` relative to the folder that is listed."""
        return os.path.relpath(path, self._folder)

    def follow(self, path: str) -> None:
        """Collect the files below the folder or link ``path``."""
        real = os.path.realpath(path)
        if self._top.startswith(real.rstrip("/") + "/"):
            self.others[path] = (
                f"{LEFT_OUT}a link to {os.readlink(path)}, which contains this folder"
            )
            return
        folders = [(path, real)]
        while folders:
            here, real = folders.pop()
            if real in self._seen:
                self.others[here] = f"{LEFT_OUT}the same folder as {self.short(self._seen[real])}"
                continue
            self._seen[real] = here
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        self._add(entry, real, folders)
            except OSError as e:
                why = e.strerror or str(e)
                self.others[here] = f"cannot be read ({why}): make it readable, or move it away"

    def _add(self, entry: os.DirEntry[str], parent: str, folders: list[tuple[str, str]]) -> None:
        name, path = entry.name, entry.path
        if name.startswith(".") or name.lower() in SYSTEM_NAMES:
            return
        is_link = entry.is_symlink()
        if entry.is_dir(follow_symlinks=False):
            folders.append((path, f"{parent.rstrip('/')}/{name}"))
        elif is_link and os.path.isdir(path):
            self.links.append(path)
        elif not is_picture_name(name):
            broken = is_link and not os.path.exists(path)
            self.others[path] = f"a broken link to {os.readlink(path)}" if broken else ""
        elif is_link:
            self.linked.append(path)
        else:
            self.files[f"{parent.rstrip('/')}/{name}"] = path


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is read as a picture, which its suffix decides."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _reason(path: str, beside: dict[str, str]) -> str:
    """Why the file ``path`` is not used. ``beside`` maps the path of each picture, with and without
    its suffix, to the picture."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return f"{LEFT_OUT}not a file but a pipe, socket or device"
    except OSError as e:
        return f"{LEFT_OUT}cannot be read: {e.strerror or e}"
    without, suffix = os.path.splitext(path)
    suffix = suffix.lower()
    kind = _TYPES.guess_type(f"x{suffix}")[0] or ""
    if not (kind or suffix in _UNREADABLE or _SUFFIX.fullmatch(suffix)):
        without, suffix = path, ""
    if kind.startswith("video/"):
        return f"{LEFT_OUT}a video ({suffix}), not a picture: export a frame as JPEG or PNG"
    is_known = suffix in _UNREADABLE or kind.startswith("image/")
    form = None if suffix in _RAW.split() or kind.startswith("audio/") else _format(path, kind)
    if form in _SUFFIX_OF or (form and not is_known):
        # the whole name, so that no two files get one name
        renamed = f"name it {os.path.basename(path)}{_SUFFIX_OF.get(form, '')}"
        remedy = renamed if form in _SUFFIX_OF else _REMEDY
        reason = (
            f"a {form} picture with {f'the suffix {suffix}' if suffix else 'no suffix'}: {remedy}"
        )
    elif is_known:
        reason = f"{_UNREADABLE.get(suffix, suffix)} pictures are not read: {_REMEDY}"
    else:
        return f"{LEFT_OUT}not a picture" + (f" ({suffix})" if suffix else "")
    for other in (path, without):
        if other in beside:
            return f"{LEFT_OUT}{os.path.basename(beside[other])} is used instead ({reason})"
    return reason


def _format(path: str, kind: str) -> str | None:
    """The format of the picture in the file ``path``, by its content; None if it is none. ``kind``
    is the media type of its suffix, if that is known."""
    from PIL import Image, ImageFile

    try:
        with open(path, "rb") as file:
            start = file.read(16)
            for form, (at, beginnings) in UNREAD_FORMATS.items():
                if start[at:].startswith(beginnings):
                    return form
            # of a file that says to be something else, only formats that are sure by their content
            with Image.open(file, formats=_FORMATS if kind else None) as image:
                # a stub is a file that Pillow leaves to another program, such as HDF5
                return None if isinstance(image, ImageFile.StubImageFile) else image.format
    except Exception:  # Pillow raises many kinds of errors for files that are no pictures
        return None
