"""Moves the files of the first run to their places in a data root.

======================================= =====================================
first run                               data root
======================================= =====================================
``dataset/original/…`` and its siblings ``original/…``, ``resized/…``, …
``models/data/train_output_*``          ``labels/``
``models/data/all_output*``             ``predictions/``
``models/…``, ``logs/…``                unchanged
======================================= =====================================

All other files stay."""

import errno
import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.files import writing
from gaip3_pipeline.tables.names import existing, printable
from gaip3_pipeline.tables.problems import ContractError

FOLDERS = ("dataset", "models", "logs")
IMAGE_FOLDERS = ("original", "resized", "augmented", "final")
_NO_HARD_LINKS = {
    errno.EPERM,
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EACCES,
}


class FirstRunError(ContractError):
    """A folder that cannot be imported; the message names it and what was expected."""


@dataclass
class ImportReport:
    """The outcome for each file of the first run, as paths relative to its folder."""

    moved: list[PurePosixPath] = field(default_factory=list)
    # to another file system; the source stays
    copied: list[PurePosixPath] = field(default_factory=list)
    # the root already has the same bytes; the source stays
    present: list[PurePosixPath] = field(default_factory=list)
    # the root has a file with other bytes there; both stay
    different: list[PurePosixPath] = field(default_factory=list)
    links: list[PurePosixPath] = field(default_factory=list)  # symbolic links, which stay

    @property
    def complete(self) -> bool:
        return not self.different and not self.links

    def __str__(self) -> str:
        """Where files go, folder by folder; the files that stay behind, one by one."""
        lines = []
        for verb, names in (
            ("moved", self.moved),
            ("copied", self.copied),
            ("there already", self.present),
        ):
            places = Counter((name.parent, (new_place(name) or name).parent) for name in names)
            lines += [
                f"{verb:13} {count:7,}  {old}/ -> {new}/"
                for (old, new), count in sorted(places.items())
            ]
        lines += [
            f"kept apart    {name}: the root has another {new_place(name)}; remove one of the two"
            for name in self.different
        ]
        lines += [
            f"left          {name}: a symbolic link; move what it points to yourself"
            for name in self.links
        ]
        return "\n".join(map(printable, lines)) or "nothing to move"


def import_first_run(source: Path, root: DataRoot, dry_run: bool = False) -> ImportReport:
    """Move the files of the first run at ``source`` into ``root``; copy them if it is on another
    file system.

    Each file appears complete or not at all; existing files are never overwritten. An interrupted
    import continues when it is called again. ``dry_run`` returns the same report and changes
    nothing. Raises :class:`FirstRunError`."""
    source = source.resolve()
    if not source.is_dir():
        raise FirstRunError(f"{source} is not a folder")
    target = root.path.resolve()
    if target == source or any(target.is_relative_to(source / name) for name in FOLDERS):
        raise FirstRunError(
            f"{root.path} lies inside the tree to import: choose another root with --root"
        )
    if not any((source / name).is_dir() for name in FOLDERS):
        raise FirstRunError(
            f"{source} has none of dataset/, models/ and logs/: name the folder that holds them"
        )
    same_file_system = _device(target) == source.stat().st_dev
    report = ImportReport()
    for file in _files(source):
        name = PurePosixPath(file.relative_to(source).as_posix())
        place = new_place(name)
        if place is not None:
            there = existing(root.path / place)
            _import(file, there, name, report, same_file_system, dry_run)
    if not dry_run:
        _remove_empty_folders(source)
    return report


def new_place(name: PurePosixPath) -> PurePosixPath | None:
    """Where a file of the first run belongs, both paths relative to their folders; None for files
    that are not data."""
    match name.parts:
        case ("dataset", folder, _, *_) if folder in IMAGE_FOLDERS:
            return PurePosixPath(*name.parts[1:])
        case ("models", "data", file) if file.startswith("train_output_"):
            return PurePosixPath("labels", file)
        case ("models", "data", file) if file.startswith("all_output"):
            return PurePosixPath("predictions", file)
        case ("models" | "logs", _, *_):
            return name
    return None


def _import(
    file: Path,
    place: Path,
    name: PurePosixPath,
    report: ImportReport,
    same_file_system: bool,
    dry_run: bool,
) -> None:
    if file.is_symlink():
        report.links.append(name)
    elif place.exists() and place.samefile(file):
        # An earlier import linked the file and stopped before it removed the old name.
        if not dry_run:
            file.unlink()
        report.moved.append(name)
    elif place.exists() or place.is_symlink():
        same = place.is_file() and filecmp.cmp(file, place, shallow=False)
        (report.present if same else report.different).append(name)
    elif same_file_system:
        if not dry_run:
            _move(file, place)
        report.moved.append(name)
    else:
        if not dry_run:
            _copy(file, place)
        report.copied.append(name)


def _move(file: Path, place: Path) -> None:
    """Move by linking: a link fails if the target exists, while a rename would replace it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, place)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.rename(file, place)
    else:
        file.unlink()


def _copy(file: Path, place: Path) -> None:
    with writing(place) as temporary:
        shutil.copyfile(file, temporary)
        if not filecmp.cmp(file, temporary, shallow=False):
            raise OSError(errno.EIO, "the copy differs from its source", str(place))


def _files(source: Path) -> Iterator[Path]:
    """Every file, and every link to a folder, in the order of names."""
    for folder, folders, files in os.walk(source):
        folders.sort()
        here = Path(folder)
        yield from sorted(
            [here / name for name in files]
            + [here / name for name in folders if (here / name).is_symlink()]
        )


def _remove_empty_folders(source: Path) -> None:
    for top in FOLDERS:
        for folder, _, _ in os.walk(source / top, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)


def _device(path: Path) -> int:
    """The device number of the file system on which ``path`` is or would be."""
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
