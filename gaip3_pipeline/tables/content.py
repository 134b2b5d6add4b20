"""The content of a root: its photographs, labels, curation and settings, of which everything else
is made, and their hash."""

import os
from collections.abc import Iterator
from pathlib import Path

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.files import TEMPORARY
from gaip3_pipeline.tables.hashing import Hashes, content_version

PHOTOGRAPH, SOURCE = "photograph", "source"
SETTINGS = "gaip3.toml"  # the name of the root's settings, wherever the file is


def sources(root: DataRoot) -> Iterator[tuple[str, str, Path]]:
    """The path, the kind (photograph, or a source that people write) and the place of every file
    of the content of ``root``."""
    if root.settings_file.exists():
        yield SETTINGS, SOURCE, root.settings_file
    for path, place in files_below(root.originals, root.path):
        yield path, PHOTOGRAPH, place
    checked = f"{root.relative(root.labels_checked)}/"
    for written in (root.labels, root.dropped):
        for path, place in files_below(written, root.path):
            if not path.startswith(checked):
                yield path, SOURCE, place


def content_hash(root: DataRoot) -> str:
    """The content hash of ``root``, as a snapshot taken now has it. Files that did not change are
    not read again. Raises ``OSError``."""
    with Hashes(root.hash_cache) as hashes:
        return content_version(
            (path, os.stat(place).st_size, hashes.of(place)) for path, _, place in sources(root)
        )


def files_below(place: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """The path below ``root`` and the place of the file ``place``, or of each file in this folder,
    without unfinished ones and SQLite's logs."""
    if place.is_file():
        yield place.relative_to(root).as_posix(), place
    for folder, _, names in os.walk(place):
        below = Path(folder).relative_to(root).as_posix()
        for name in names:
            if not name.startswith(TEMPORARY) and not name.endswith(("-wal", "-shm", "-journal")):
                yield f"{below}/{name}", Path(folder, name)
