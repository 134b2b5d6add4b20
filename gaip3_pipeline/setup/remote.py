"""``gaip3 push`` and ``gaip3 pull``: snapshots in an object store, or in a folder that others see.

At a URL lie ``shards/SHA256.tar`` (tar archives of up to :data:`SHARD_FILES` files, each named by
its hash, as WebDataset has them), ``manifests/SHA256.parquet`` (for each snapshot its files with
their shard and offset) and ``snapshots/NAME.json``, which is written last and never overwritten:
until then nothing of a push is visible. Whatever is there already is not sent again."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd

from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.setup.snapshots import Done, contents, restore
from gaip3_pipeline.tables.content import SOURCE
from gaip3_pipeline.tables.files import (
    TEMPORARY,
    create_atomically,
    remove_abandoned,
    temporary_folder,
    write_bytes_atomically,
    write_one_of_many,
    write_text_atomically,
    writing,
)
from gaip3_pipeline.tables.hashing import file_sha256
from gaip3_pipeline.tables.snapshots import (
    MADE,
    Files,
    Snapshot,
    SnapshotError,
    changed_snapshot,
    files_of,
    find,
    pointer_of,
    read_files,
    read_pointer,
    rows_of,
    write_pointer,
)

SHARD_FILES, SHARD_BYTES = 10_000, 256 * 2**20
WRITERS = 16  # each waits for the disk most of the time: every file is synced
# what goes without the pictures: no original, no picture made, no history, which has contact sheets
_WITHOUT_PICTURES = ("models/", "manifests/", "predictions/", "labels/checked/", "logs/")
_SCHEMES = ("file", "s3", "s3a", "gs", "az", "abfs", "abfss", "memory")


class RemoteError(SnapshotError):
    """A store cannot be used, or holds something else; the message is one line with the remedy."""


@dataclass(frozen=True)
class Moved:
    """The files of a snapshot that were sent or fetched, their bytes, and how many shards; the
    other ``known`` files were there already."""

    files: int
    bytes: int
    shards: int
    known: int


class Remote:
    """The snapshots at a URL: ``file:///FOLDER``, ``s3://BUCKET/PREFIX``, or what else obstore
    knows. Keys come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_ENDPOINT_URL``, ``AWS_REGION``).

    Methods raise :class:`RemoteError`."""

    def __init__(self, url: str) -> None:
        from obstore.store import from_url

        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise RemoteError(
                f"{url!r} is not the address of a store: write file:///FOLDER or s3://BUCKET/PREFIX"
            )
        if parts.username or parts.password or parts.query:
            raise RemoteError(
                "the URL contains a key, which does not belong on a command line: set"
                " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self.url = url
        options: dict[str, Any] = {}
        if parts.scheme == "file":
            options["mkdir"] = True
        self._folder = Path(url2pathname(parts.path)) if parts.scheme == "file" else None
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["client_options"] = {"allow_http": True}
        with self._errors():
            self._store = from_url(url, **options)

    def snapshots(self) -> list[Snapshot]:
        """The snapshots there, the oldest first."""
        places = [Path(meta["path"]) for meta in self._listed("snapshots")]
        found = [
            self.snapshot(place.stem)
            for place in places
            # a push may be writing beside them
            if place.suffix == ".json" and not any(p.startswith(TEMPORARY) for p in place.parts)
        ]
        return sorted(found, key=lambda s: (s.created, s.name))

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot ``name``."""
        try:
            text = bytes(self._get(f"snapshots/{name}.json"))
        except FileNotFoundError:
            raise RemoteError(f"{self.url} has no snapshot {name}") from None
        return read_pointer(name, text)

    def table(self, snapshot: Snapshot, root: DataRoot) -> pd.DataFrame:
        """The files of ``snapshot`` with ``shard`` and ``offset``; a copy stays in ``root``."""
        place = Files(root).path(snapshot.manifest)
        if not place.exists():
            data = bytes(self._get(f"manifests/{snapshot.manifest}.parquet"))
            if hashlib.sha256(data).hexdigest() != snapshot.manifest:
                raise RemoteError(f"{self.url}: the table of snapshot {snapshot.name} is damaged")
            write_bytes_atomically(place, data)
        return read_files(root, place, ("shard", "offset"))

    def has(self, name: str) -> bool:
        """Whether there is an object ``name``."""
        with self._errors():
            try:
                self._store.head(name)
            except FileNotFoundError:
                return False
        return True

    def put(self, name: str, file: Path) -> None:
        """Write a file that is named by its content, unless it is there."""
        if not self.has(name):
            with self._errors():
                if self._folder:  # obstore would not flush it to disk
                    with writing(self._folder / name) as temporary:
                        shutil.copyfile(file, temporary)
                else:
                    self._store.put(name, file)

    def create(self, name: str, data: bytes) -> None:
        """Write an object that may not be there yet. Raises ``FileExistsError``."""
        from obstore.exceptions import AlreadyExistsError

        if self.has(name):  # some stores ignore the condition
            raise FileExistsError(name)
        with self._errors():
            try:
                if self._folder:
                    create_atomically(self._folder / name, data)
                else:
                    self._store.put(name, data, mode="create")
            except AlreadyExistsError as e:
                raise FileExistsError(name) from e

    def replace(self, name: str, data: bytes) -> None:
        """Write an object in the place of the one of that name."""
        with self._errors():
            if self._folder:
                write_bytes_atomically(self._folder / name, data)
            else:
                self._store.put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is passed over."""
        with self._errors():
            for name in names:
                if self.has(name):
                    self._store.delete(name)

    def shards(self) -> set[str]:
        """The names of all shards, also of those that no snapshot has."""
        return {Path(meta["path"]).stem for meta in self._listed("shards")}

    def tidy(self) -> None:
        """Remove what killed pushes have left in a folder; other stores show no part of a file."""
        if self._folder:
            with self._errors():
                remove_abandoned([self._folder])

    def parts(self, shard: str, places: list[tuple[int, int]]) -> Iterator[bytes]:
        """The bytes of each ``(offset, size)`` of a shard: the whole shard is fetched if half of it
        is wanted, else the ranges."""
        name = f"shards/{shard}.tar"
        with self._errors():
            size = self._store.head(name)["size"]
            if 2 * sum(n for _, n in places) >= size:
                whole = memoryview(self._store.get(name).bytes())
                yield from (bytes(whole[at : at + n]) for at, n in places)
                return
            starts, lengths = zip(*places, strict=True)
            found = self._store.get_ranges(name, starts=list(starts), lengths=list(lengths))
            yield from map(bytes, found)

    def _get(self, name: str) -> Any:
        with self._errors():
            return self._store.get(name).bytes()

    def _listed(self, folder: str) -> Iterable[Any]:
        with self._errors():
            return [meta for part in self._store.list(folder) for meta in part]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except (BaseError, OSError, ValueError) as e:
            if isinstance(e, OSError) and e.filename:
                raise
            reason = next((line.strip() for line in str(e).splitlines() if line.strip()), repr(e))
            raise RemoteError(
                f"{self.url}: {reason[:300]}; see that the address, the keys in the environment and"
                " the network are right"
            ) from e


def push(
    root: DataRoot, name: str, url: str, with_pictures: bool, done: Done | None = None
) -> Moved:
    """Send the snapshot ``name`` of ``root`` to ``url``; ``done(n, of)`` is called with the files
    sent so far. Interrupted, the same call goes on.

    ``with_pictures`` False leaves out photographs, everything that shows them, and the history;
    labels, settings, models and tables go. Raises :class:`RemoteError`, also if there is another
    snapshot of that name."""
    remote, kept = Remote(url), Files(root)
    remote.tidy()
    snapshot = find(root, name)
    table = files_of(root, snapshot)[["path", "size", "sha256", "kind"]]
    if not with_pictures:
        made = (table.kind == MADE) & table.path.str.startswith(_WITHOUT_PICTURES)
        table = table[made | (table.kind == SOURCE)]
    places: dict[str, tuple[str, int]] = {}
    for other in remote.snapshots():
        rows = remote.table(other, root)
        places.update(zip(rows.sha256, zip(rows.shard, rows.offset, strict=True), strict=True))
    new = table[~table.sha256.isin(list(places))].drop_duplicates("sha256").sort_values("path")
    paths = dict(zip(new.sha256, new.path, strict=True))
    sent, shards = 0, 0
    for part in _shards(new):
        places |= _send(root, remote, part, lambda sha256: kept.check(sha256, paths[sha256]))
        sent, shards = sent + len(part), shards + 1
        if done:
            done(sent, len(new))
    found = [places[sha256] for sha256 in table.sha256]
    table = table.assign(shard=[s for s, _ in found], offset=[o for _, o in found])
    manifest = kept.add_table(table.sort_values("path", ignore_index=True))
    remote.put(f"manifests/{manifest}.parquet", kept.path(manifest))
    there = replace(
        snapshot,
        manifest=manifest,
        files=len(table),
        bytes=int(table["size"].sum()),
        complete=snapshot.complete and with_pictures,
    )
    try:
        remote.create(f"snapshots/{name}.json", pointer_of(there).encode())
    except FileExistsError:
        if remote.snapshot(name) != there:
            raise RemoteError(
                f"{url} has another snapshot {name}: push yours under another name"
            ) from None
    return Moved(len(new), int(new["size"].sum()), shards, len(table) - len(new))


def pull(root: DataRoot, url: str, name: str, done: Done | None = None) -> tuple[Moved, bool]:
    """Fetch the snapshot ``name`` from ``url``; into an empty root it is put in place. Returns what
    was fetched, and whether it was put in place. Interrupted, the same call goes on.

    A file whose hash is wrong is fetched once more. Raises :class:`RemoteError` if it is wrong
    again, and :class:`~gaip3_pipeline.setup.snapshots.SnapshotError` if the root has another
    snapshot of that name."""
    remote, kept = Remote(url), Files(root)
    snapshot = remote.snapshot(name)
    if root.snapshot(name).exists() and find(root, name).content != snapshot.content:
        raise SnapshotError(f"there is another snapshot {name} here: rename or remove it first")
    with only_one(root):  # gaip3 erase deletes contents that no snapshot has
        table = remote.table(snapshot, root)
        lacking = table.drop_duplicates("sha256")
        lacking = lacking.loc[[not kept.path(sha256).exists() for sha256 in lacking.sha256]]
        _fetch(remote, lacking, kept.path, done)
        kept.sync()
        begun = root.unfinished_pull(name)
        if next(contents(root), None) is None:
            write_text_atomically(begun, "")
        write_pointer(root, snapshot)
    put_in_place = begun.exists()
    if put_in_place:
        restore(root, name)
        begun.unlink()
    moved = Moved(
        len(lacking), int(lacking["size"].sum()), lacking.shard.nunique(), len(table) - len(lacking)
    )
    return moved, put_in_place


def fetch(remote: Remote, kept: Files, files: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """The contents of ``files`` at a store by their hashes: those that are ``kept`` here, and the
    others, fetched into ``folder``. Raises :class:`RemoteError` for a damaged one."""
    found = {}
    lacking = files.drop_duplicates("sha256")
    for row in rows_of(lacking):
        for place in (kept.path(row.sha256), folder / row.sha256):
            if place.exists() and file_sha256(place) == row.sha256:
                found[row.sha256] = place
    lacking = lacking[~lacking.sha256.isin(list(found))]
    _fetch(remote, lacking, folder.joinpath)
    return found | {sha256: folder / sha256 for sha256 in lacking.sha256}


def _fetch(
    remote: Remote, files: pd.DataFrame, place: Callable[[str], Path], done: Done | None = None
) -> None:
    """Write the contents of ``files``, each once, to ``place`` of their hashes."""

    def parts() -> Iterator[tuple[Any, bytes]]:
        for shard, part in files.groupby("shard", sort=False):
            wanted = part.sort_values("offset")
            places = list(zip(wanted.offset, wanted["size"], strict=True))
            yield from zip(rows_of(wanted), remote.parts(str(shard), places), strict=True)

    def keep(one: tuple[Any, bytes]) -> None:
        row, data = one
        write_one_of_many(place(row.sha256), _whole(remote, row, data))

    with closing(in_order(keep, parts(), WRITERS)) as written:
        for fetched, _ in enumerate(written, 1):
            if done:
                done(fetched, len(files))


def rewrite(
    root: DataRoot,
    remote: Remote,
    change: Callable[[Snapshot, pd.DataFrame], tuple[pd.DataFrame, Mapping[str, Path]]],
    superseded: Callable[[list[str]], None],
) -> None:
    """Change snapshots at a store. ``change`` gives the files that each is to have, those of new
    contents without a ``shard``, and the new contents by their hashes.

    Contents that no snapshot has any more go with their shards, which are written again without
    them. At any moment a snapshot is the old or the new one. What is not needed afterwards is
    passed to ``superseded`` before the first snapshot changes; the caller deletes it at the end."""
    kept = Files(root)
    while True:  # until no snapshot changes, also none that was pushed meanwhile
        there = [(s, remote.table(s, root)) for s in remote.snapshots()]
        changed = [change(s, table) for s, table in there]
        if all(new is table for (new, _), (_, table) in zip(changed, there, strict=True)):
            return
        before = pd.concat([table for _, table in there])
        after = pd.concat([new for new, _ in changed])
        old = set(before.shard[~before.sha256.isin(after.sha256)])
        send = after[after.shard.isna() | after.shard.isin(old)].drop_duplicates("sha256")
        places: dict[str, tuple[str, int]] = {}
        with temporary_folder(root.snapshots) as folder:
            contents = {sha: file for _, new in changed for sha, file in new.items()}
            contents |= fetch(remote, kept, send[~send.sha256.isin(list(contents))], Path(folder))
            for part in _shards(send.sort_values("path")):
                places |= _send(root, remote, part, contents.__getitem__)
        pointers, manifests = [], []
        for (snapshot, table), (new, _) in zip(there, changed, strict=True):
            moved = new.sha256.isin(list(places))
            if new is table and not moved.any():
                continue
            found = [places.get(r.sha256, (r.shard, r.offset)) for r in rows_of(new)]
            new = new.assign(shard=[s for s, _ in found], offset=[int(o) for _, o in found])
            manifest = kept.add_table(new)
            remote.put(f"manifests/{manifest}.parquet", kept.path(manifest))
            pointers.append(changed_snapshot(snapshot, new, manifest))
            manifests.append(snapshot.manifest)
        superseded([f"shards/{s}.tar" for s in old] + [f"manifests/{m}.parquet" for m in manifests])
        for pointer in pointers:
            remote.replace(f"snapshots/{pointer.name}.json", pointer_of(pointer).encode())


def _whole(remote: Remote, row: Any, data: bytes) -> bytes:
    """``data``, or what a second attempt fetches, if it has the hash of ``row``."""
    for last in (False, True):
        if hashlib.sha256(data).hexdigest() == row.sha256:
            return data
        if not last:
            [data] = remote.parts(row.shard, [(row.offset, row.size)])
    raise RemoteError(
        f"{remote.url}: {row.path} is damaged there: delete shards/{row.shard}.tar and push again"
    )


def _shards(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Parts of ``table`` of at most ``SHARD_FILES`` rows, and of ``SHARD_BYTES`` unless a single
    file is larger."""
    start, total = 0, 0
    sizes = table["size"].to_numpy()
    for i, size in enumerate(sizes):
        if i > start and (i - start == SHARD_FILES or total + size > SHARD_BYTES):
            yield table.iloc[start:i]
            start, total = i, 0
        total += size
    if start < len(table):
        yield table.iloc[start:]


def _send(
    root: DataRoot, remote: Remote, part: pd.DataFrame, source: Callable[[str], Path]
) -> dict[str, tuple[str, int]]:
    """Send a shard of the files of ``part``, which ``source`` gives by their hashes; returns the
    shard and the offset of each by its hash. The same files make the same shard."""
    offsets: dict[str, int] = {}
    with temporary_folder(root.snapshots) as folder:
        place = Path(folder, "shard.tar")
        with tarfile.open(place, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows_of(part):
                about = tarfile.TarInfo(row.sha256 + Path(row.path).suffix.lower())
                about.size = row.size
                with source(row.sha256).open("rb") as file:
                    tar.addfile(about, file)
                offsets[row.sha256] = tar.offset - _padded(row.size)
        shard = file_sha256(place)
        remote.put(f"shards/{shard}.tar", place)
    return {sha256: (shard, offset) for sha256, offset in offsets.items()}


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
