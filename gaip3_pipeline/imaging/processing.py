"""The processed image sets: originals to resized pictures, resized pictures to brightness copies,
each set with its manifest.

A run processes only what is missing or changed. A source is changed if its size, mtime_ns or inode
*and* its content differ from those in the manifest, or in the journal of a killed run; with other
settings all are processed again. Pictures are written to a temporary file and renamed, never
changed in place, because ``final/`` contains hard links to them. Decoding, encoding and hashing
release the GIL, so threads use all cores, also in a process that has loaded TensorFlow. The number
of pictures in memory is bounded."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

import pandas as pd

from gaip3_pipeline.imaging.decode import DECODER, Target, UnusableImage, decode
from gaip3_pipeline.imaging.mapping import LocalMapper, Mapper
from gaip3_pipeline.imaging.transform import RATIOS, brighten, brightness_ratio, encode_jpeg, resize
from gaip3_pipeline.layout import DataRoot, ImageSet
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables import manifests
from gaip3_pipeline.tables.duplicates import DROPPED, read_dropped
from gaip3_pipeline.tables.files import foreign_entries, sync_folder, write_one_of_many
from gaip3_pipeline.tables.hashing import file_sha256, stat_key
from gaip3_pipeline.tables.image_files import LEFT_OUT, Listing, by_stem, list_folder, name_problem
from gaip3_pipeline.tables.manifests import Journal, Row, manifest_version
from gaip3_pipeline.tables.names import printable

Progress = Callable[[int, int], None]
_Make = Callable[[bytes, Path, Images], tuple[bytes, tuple[str, ...]]]
_LARGE = threading.Lock()  # held while a large picture is decoded
_BYTES_PER_PIXEL = 8  # of the largest file that a picture can need: uncompressed 16-bit RGBA
_MADE = (".jpg", ".png")  # suffixes of the pictures that this pipeline and the first run made


class MissingSource(FileNotFoundError):
    """There is nothing to process; the message gives the remedy."""


@dataclass(frozen=True)
class ProcessedSet:
    """The result of a run: its manifest, the numbers of pictures made (``done``), of pictures kept
    (``reused``) and of files ``removed`` because their original is gone.

    ``unusable`` counts originals without a usable picture, ``dropped`` those that the user dropped,
    ``left_out`` other files beside the originals; ``unknown`` lists dropped stems that no original
    has, ``foreign`` entries of the output folder that the pipeline did not make and leaves
    alone."""

    manifest: pd.DataFrame
    done: int
    reused: int
    removed: int
    unusable: int
    dropped: int
    left_out: int
    foreign: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The content hash of the set
        (:func:`gaip3_pipeline.tables.manifests.manifest_version`)."""
        return manifest_version(self.manifest)


def asset_name(kind: str, image_set: ImageSet) -> str:
    """The name of a processed set's asset and manifest: ``resized_d1``."""
    return f"{kind}_{image_set.id}"


def read_picture(path: Path, max_pixels: int) -> tuple[bytes, os.stat_result]:
    """A file's bytes, and its status when it was read. Raises :class:`UnusableImage`."""
    try:
        if not S_ISREG(path.stat().st_mode):  # to open a pipe would wait for ever
            raise UnusableImage("not a file but a pipe, socket or device")
        with path.open("rb", buffering=0) as f:
            stat = os.fstat(f.fileno())
            if stat.st_size > _BYTES_PER_PIXEL * max_pixels:
                raise UnusableImage(f"too large: a file of {stat.st_size:,} bytes")
            return f.read(), stat
    except FileNotFoundError as e:
        what = f"a broken link to {path.readlink()}" if path.is_symlink() else "it is gone"
        raise UnusableImage(f"cannot be read: {what}") from e
    except OSError as e:
        raise UnusableImage(f"cannot be read: {e.strerror or e}") from e


def resize_picture(
    data: bytes, name: str, settings: Images, large: AbstractContextManager[object] | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """The resized JPEG of an original file's bytes, and notes. Raises :class:`UnusableImage`."""
    target = Target(settings.height, settings.width, settings.crop)
    picture = decode(data, name, target, settings.max_pixels, large)
    return encode_jpeg(resize(picture, target), settings.jpeg_quality), picture.notes


def brightness_copy(data: bytes, stem: str, settings: Images) -> bytes:
    """The brightness copy of a resized JPEG, bytes to bytes. Raises :class:`UnusableImage`."""
    picture = decode(
        data, f"{stem}.jpg", Target(settings.height, settings.width), settings.max_pixels
    )
    return encode_jpeg(brighten(picture.pixels, brightness_ratio(stem)), settings.jpeg_quality)


def resize_set(
    root: DataRoot,
    image_set: ImageSet,
    settings: Images,
    progress: Progress | None = None,
    mapper: Mapper | None = None,
) -> ProcessedSet:
    """Crop and area-resize every original of ``image_set`` into ``resized/`` and write the
    manifest.

    Raises :class:`MissingSource` (then nothing is removed),
    :class:`~gaip3_pipeline.tables.image_files.DuplicateStems`, and OSError if a picture cannot be
    written. Pictures finished before an error are kept and not processed again."""
    folder = root.original(image_set)
    listing = list_folder(folder)
    sources = by_stem(map(Path, listing.pictures))
    if not sources:
        raise MissingSource(_nothing(folder, listing, image_set))
    reasons = {
        stem: f"{DROPPED}{reason}"
        for (of, stem), reason in read_dropped(root.dropped).items()
        if of == image_set.id
    }
    unknown = tuple(stem for stem in reasons if stem not in sources)
    refused_names = {
        stem: problem
        for stem, path in sources.items()
        if (problem := name_problem(root, image_set, path))
    }
    reasons = refused_names | reasons
    output = root.processed("resized", image_set)
    refused = [
        Row.of_unusable(_output(root, output, stem), _source(root, sources.pop(stem)), reason)
        for stem, reason in reasons.items()
        if stem in sources
    ]
    others = [
        Row.of_unusable(_source(root, other.path), _source(root, other.path), other.reason)
        for other in listing.unused()
    ]
    made_by = {"height": settings.height, "width": settings.width, "crop": settings.crop}
    made = _process(
        root,
        "resized",
        image_set,
        sources=sources,
        refused=[*refused, *others],
        made_by={
            **made_by,
            "jpeg_quality": settings.jpeg_quality,
            "max_pixels": settings.max_pixels,
            "decoder": DECODER,
        },
        settings=settings,
        make=_resized,
        progress=progress,
        mapper=mapper,
    )
    return replace(made, unknown=unknown)


def augment_set(
    root: DataRoot,
    image_set: ImageSet,
    settings: Images,
    progress: Progress | None = None,
    mapper: Mapper | None = None,
) -> ProcessedSet:
    """Make one brightness copy of every resized picture of ``image_set`` in ``augmented/`` and
    write the manifest.

    Originals without a resized picture have a row with the same reason. Raises as
    :func:`resize_set`."""
    made_from = root.manifest(asset_name("resized", image_set))
    if not made_from.exists():
        raise MissingSource(f"{made_from} is missing: make resized_{image_set.id} first")
    resized = manifests.read_manifest(made_from)
    usable = resized["status"] != manifests.UNUSABLE
    sources = by_stem(root.path / p for p in resized["path"][usable])
    output = root.processed("augmented", image_set)
    columns = (resized.loc[~usable, c] for c in ("path", "source", "reason"))
    refused = [
        # the row of another file has the path of the file itself
        Row.of_unusable(
            path if path == source else root.relative(output / Path(path).name), source, reason
        )
        for path, source, reason in zip(*columns, strict=True)
    ]
    made_by = {
        "ratios": RATIOS,
        "jpeg_quality": settings.jpeg_quality,
        "max_pixels": settings.max_pixels,
    }

    return _process(
        root,
        "augmented",
        image_set,
        sources=sources,
        refused=refused,
        made_by=made_by,
        settings=settings,
        make=_brightened,
        progress=progress,
        mapper=mapper,
    )


def _process(
    root: DataRoot,
    kind: str,
    image_set: ImageSet,
    *,
    sources: dict[str, Path],
    refused: list[Row],
    made_by: dict[str, object],
    settings: Images,
    make: _Make,
    progress: Progress | None,
    mapper: Mapper | None,
) -> ProcessedSet:
    output, asset = root.processed(kind, image_set), asset_name(kind, image_set)
    _keep_apart(root.original(image_set), sources.values(), output)
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob(".writing-*"):  # temporary files of a killed run
        if leftover.is_file():
            leftover.unlink()
    fingerprint = json.dumps({"kind": kind, **made_by}, sort_keys=True)
    journal = Journal(root.journal(asset), fingerprint)
    before = manifests.manifest_rows(root.manifest(asset), fingerprint)
    known = {row.path: row for row in [*before, *journal.rows()]}

    rows: dict[str, Row] = {}
    todo: list[_Task] = []
    for stem, path in sources.items():
        place = _output(root, output, stem)
        row = known.get(place)
        if row is not None and _is_current(root, path, row):
            rows[stem] = row
        else:
            todo.append(_Task(stem, path, place, row))
    reused, total = len(sources) - len(todo), len(sources)
    if progress:
        progress(reused, total)

    made_now = (mapper or LocalMapper()).pictures(_Work(root, settings, make), todo)
    done = 0
    try:
        for number, (stem, row, made) in enumerate(made_now, reused + 1):
            rows[stem] = row
            journal.append(row)
            done += made
            if progress:
                progress(number, total)
    finally:
        journal.close()
    # by stem, then the files that are not read as pictures, whose path is their own
    after = sorted(
        [*rows.values(), *refused],
        key=lambda row: (row.path == row.source, row.path.removesuffix(".jpg")),
    )
    own = {row.path for row in after if row.usable}
    removed = _remove_others(root, output, own)
    sync_folder(output)
    if after != before:
        table = manifests.write_manifest(
            root.manifest(asset), manifests.table_of(after), fingerprint
        )
    else:
        table = manifests.read_manifest(root.manifest(asset))
    journal.discard()
    usable = sum(row.usable for row in after)
    dropped, left_out = (
        sum(row.reason.startswith(prefix) for row in after if not row.usable)
        for prefix in (DROPPED, LEFT_OUT)
    )
    return ProcessedSet(
        table,
        done=done,
        reused=usable - done,
        removed=removed,
        unusable=len(after) - usable - dropped - left_out,
        dropped=dropped,
        left_out=left_out,
        foreign=tuple(foreign_entries(output, (Path(path).name for path in own))),
    )


@dataclass(frozen=True)
class _Task:
    """One original, the path of the picture made from it, and its row of the last run."""

    stem: str
    source: Path
    place: str
    known: Row | None


@dataclass(frozen=True)
class _Work:
    """The work on one :class:`_Task`: returns the stem, the row, and whether the file was made now.
    Effects: writes or removes the file at the task's place."""

    root: DataRoot
    settings: Images
    make: _Make

    def __call__(self, task: _Task) -> tuple[str, Row, bool]:
        return task.stem, *_one(self.root, task, self.settings, self.make)


def _resized(data: bytes, path: Path, settings: Images) -> tuple[bytes, tuple[str, ...]]:
    return resize_picture(data, path.name, settings, _LARGE)


def _brightened(data: bytes, path: Path, settings: Images) -> tuple[bytes, tuple[str, ...]]:
    return brightness_copy(data, path.stem, settings), ()


def _one(root: DataRoot, task: _Task, settings: Images, make: _Make) -> tuple[Row, bool]:
    path, place, known = task.source, task.place, task.known
    row = Row.of_unusable(place, _source(root, path), "")
    target = root.path / place
    try:
        data, stat = read_picture(path, settings.max_pixels)
        size, mtime_ns, inode = stat_key(stat)
        row = replace(
            row,
            source_size=size,
            source_mtime_ns=mtime_ns,
            source_inode=inode,
            source_sha256=hashlib.sha256(data).hexdigest(),
        )
        if (
            known
            and known.source_sha256 == row.source_sha256
            and known.usable
            and _holds(target, known)
        ):
            mtime_ns = target.stat().st_mtime_ns
            return replace(
                row,
                size=known.size,
                sha256=known.sha256,
                status=known.status,
                reason=known.reason,
                mtime_ns=mtime_ns,
            ), False
        made, notes = make(data, path, settings)
    except UnusableImage as e:
        target.unlink(missing_ok=True)
        return replace(row, reason=str(e)), False
    row = replace(
        row, size=len(made), sha256=hashlib.sha256(made).hexdigest(), reason="; ".join(notes)
    )
    if not _holds(target, row):  # a file with equal bytes stays, with its hard links
        write_one_of_many(target, made)
    return replace(
        row, status=manifests.NOTED if notes else manifests.OK, mtime_ns=target.stat().st_mtime_ns
    ), True


def _is_current(root: DataRoot, source: Path, row: Row) -> bool:
    """Whether the source and the file made from it are unchanged since ``row`` was written, judged
    by sizes and times."""
    try:
        if row.source != _source(root, source) or stat_key(source.stat()) != (
            row.source_size,
            row.source_mtime_ns,
            row.source_inode,
        ):
            return False
        if not row.usable:
            return True
        stat = (root.path / row.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (row.size, row.mtime_ns)


def _holds(path: Path, row: Row) -> bool:
    """Whether the file at ``path`` has the content recorded in ``row``."""
    try:
        return path.stat().st_size == row.size and file_sha256(path) == row.sha256
    except OSError:
        return False


def _nothing(folder: Path, listing: Listing, image_set: ImageSet) -> str:
    others = [o for o in listing.unused() if not o.left_out]
    remedy = f"put the {image_set.id} originals there, or run `gaip3 fetch`"
    if others:
        first = others[0]
        return (
            f"no picture in {folder} can be read; {len(others):,} cannot, such as"
            f" {first.path.name} ({first.reason}): {remedy}"
        )
    return f"no pictures in {folder}: {remedy}"


def _keep_apart(originals: Path, sources: Iterable[Path], output: Path) -> None:
    """Raise ValueError if originals and output overlap, links resolved, since files are removed
    from the output folder."""
    target, top = output.resolve(), originals.resolve()
    linked = {path.resolve().parent for path in sources if path.is_symlink()}
    folders = {path.parent for path in sources}
    inside = [f for f in {top, *folders, *linked} if f.resolve().is_relative_to(target)]
    if inside or target.is_relative_to(top):
        raise ValueError(
            f"{output} and {originals} are the same place or one within the other, or a link leads"
            f" from one to the other: {target}"
        )


def _remove_others(root: DataRoot, output: Path, wanted: set[str]) -> int:
    """Remove the pictures in ``output`` that have no original; returns their number. Entries that
    the pipeline cannot have made stay."""
    others = [
        p
        for p in output.iterdir()
        if p.suffix in _MADE
        and printable(root.relative(p)) not in wanted
        and p.is_file()
        and not p.is_symlink()
    ]
    for path in others:
        path.unlink()
    return len(others)


def _output(root: DataRoot, output: Path, stem: str) -> str:
    return printable(root.relative(output / f"{stem}.jpg"))


def _source(root: DataRoot, path: Path) -> str:
    return printable(root.relative(path))
