"""``gaip3 erase``: photographs and their traces go from a root, its snapshots and a store.

What people wrote loses only the rows of the photographs. What is made from photographs goes if it
can hold one of them, and the next refresh makes it again. Every step can be repeated: what is being
erased is noted in ``root.erasing`` first and forgotten last, so an interrupted erase goes on with
the same command."""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from gaip3_pipeline.dagster_home import dagster_store
from gaip3_pipeline.dagster_storage import reading_instance
from gaip3_pipeline.definitions import build_defs
from gaip3_pipeline.layout import IMAGE_SETS, OWN_FOLDERS, DataRoot
from gaip3_pipeline.refresh.plan import forecast, plan
from gaip3_pipeline.refresh.run import observe_only, only_one
from gaip3_pipeline.settings import load
from gaip3_pipeline.setup.remote import Remote, fetch, rewrite
from gaip3_pipeline.setup.snapshots import path_in_snapshot, place_of
from gaip3_pipeline.setup.traces import Photograph, Traces, clean_database, renamed_groups
from gaip3_pipeline.tables.content import PHOTOGRAPH
from gaip3_pipeline.tables.databases import SUFFIXES
from gaip3_pipeline.tables.duplicates import read_group_table
from gaip3_pipeline.tables.files import (
    TEMPORARY,
    temporary_folder,
    write_bytes_atomically,
    write_text_atomically,
)
from gaip3_pipeline.tables.hashing import file_sha256, forget
from gaip3_pipeline.tables.image_files import list_folder
from gaip3_pipeline.tables.manifests import read_manifest
from gaip3_pipeline.tables.names import existing, nfc, printable
from gaip3_pipeline.tables.snapshots import (
    COLUMNS,
    Files,
    Snapshot,
    SnapshotError,
    changed_snapshot,
    files_of,
    snapshots,
    write_pointer,
)
from gaip3_pipeline.versions import TRAINING_POOL, latest_events
from gaip3_pipeline.web import servers

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph


DELETED, CLEANED = "deleted", "cleaned"  # what was done with a file


class EraseError(SnapshotError):
    """A photograph cannot be erased; the message is one line with the remedy."""


@dataclass
class Erasure:
    """What is being erased: the ``paths`` of the photographs in the root, also those that they had
    in snapshots, the ``hashes`` of their files, lines about what ``remains``, and by URL the
    objects of a store to delete at the end. ``asked``: the paths that the user gave."""

    asked: list[str]
    paths: list[str]
    hashes: list[str]
    remains: list[str] = field(default_factory=list)
    superseded: dict[str, list[str]] = field(default_factory=dict)

    @property
    def photographs(self) -> list[Photograph]:
        return [p for path in self.paths if (p := Photograph.of(path))]


def prepare(root: DataRoot, files: Sequence[str], url: str = "") -> Erasure:
    """What ``gaip3 erase`` of ``files`` erases; they are named relative to the root or to the
    current folder. Writes nothing. Raises :class:`EraseError` for a file that is no original here,
    in a snapshot or at ``url``, and while another erase waits to go on."""
    begun = _begun(root)
    tables = [files_of(root, s) for s in snapshots(root)]
    if url:
        remote = Remote(url)
        tables += [remote.table(s, root) for s in remote.snapshots()]
    known = [t[t.kind == PHOTOGRAPH] for t in tables]
    paths_known = {nfc(p): p for t in known for p in t.path}
    for image_set in IMAGE_SETS:
        manifest = root.manifest(f"resized_{image_set.id}")
        if manifest.exists():
            paths_known |= {nfc(p): p for p in read_manifest(manifest).source if p}
    if begun:
        paths_known |= {nfc(p): p for p in begun.paths}
    asked = list(dict.fromkeys(_original(root, file, paths_known) for file in files))
    if begun and not set(begun.asked) <= set(asked):
        raise EraseError(
            f"an erase was interrupted: run gaip3 erase {' '.join(begun.asked)} first, which goes"
            " on"
        )
    places = [root.path / path for path in asked]
    hashes = {file_sha256(p) for p in places if p.is_file()} | set(begun.hashes if begun else ())
    hashes |= {sha for t in known for sha in t.sha256[t.path.isin(asked)]}
    # the same file may have had another name when a snapshot was taken
    renamed = {
        path
        for t in known
        for path in t.path[t.sha256.isin(hashes)]
        if not (root.path / path).exists() and Photograph.of(path)
    }
    paths = dict.fromkeys([*asked, *(begun.paths if begun else ()), *sorted(renamed)])
    return Erasure(
        asked,
        list(paths),
        sorted(hashes),
        begun.remains if begun else [],
        begun.superseded if begun else {},
    )


def same_photograph(root: DataRoot, erasure: Erasure) -> list[str]:
    """The paths of other originals that show the same photographs, as ``near_duplicates`` found."""
    table = read_group_table(root.near_duplicates)
    keys = {p.key for p in erasure.photographs}
    of = (table.set + "/" + table.stem).isin(keys)
    groups = table.group[of]
    return sorted(table.path[table.group.isin(groups) & ~of])


def erase(root: DataRoot, erasure: Erasure, url: str = "") -> tuple[list[str], list[str]]:
    """Erase photographs; returns lines of what was removed where, and of what may still hold
    traces. Interrupted, the same call goes on.

    Raises ``RefreshError`` and ``ServerError`` while a refresh or ``gaip3 ui`` runs; then nothing
    has changed."""
    with servers.only_one(root, {"": "gaip3 erase"}), only_one(root), _no_labelling(root):
        work = _Work(root, erasure)
        work.in_root()
        work.in_snapshots()
        orphans = work.at(url) if url else 0
        work.forget()
        root.erasing.unlink()
        return work.removed, [*erasure.remains, *work.elsewhere(url, orphans)]


def retraining(root: DataRoot) -> str:
    """What the next refresh makes again, and how long that takes by the durations of last time."""
    settings = load(root)
    with reading_instance(root) as instance:
        todo = plan(build_defs(root, settings), instance, observe_only(instance, root))
        return forecast(instance, root, todo).summary


def _begun(root: DataRoot) -> Erasure | None:
    if not root.erasing.exists():
        return None
    return Erasure(**json.loads(root.erasing.read_text(encoding="utf-8")))


def _original(root: DataRoot, file: str, known: Mapping[str, str]) -> str:
    """The path of an original below the root. Raises :class:`EraseError` if there is none."""
    given = Path(file)
    for place in (root.path / given, given.absolute(), given.resolve()):
        for top in (root.path.absolute(), root.path.resolve()):
            if place.is_relative_to(top):
                path = existing(place).relative_to(top).as_posix()
                if Photograph.of(path) and ((root.path / path).is_file() or nfc(path) in known):
                    return path if (root.path / path).exists() else known[nfc(path)]
    raise EraseError(
        f"{printable(file)}: no original of that name; write it as original/FOLDER/FILE, relative"
        f" to {root.path} or to the current folder"
    )


@contextmanager
def _no_labelling(root: DataRoot) -> Iterator[None]:
    """Labels that are written meanwhile wait."""
    root.labels_lock.parent.mkdir(parents=True, exist_ok=True)
    with root.labels_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Work:
    """The steps of an erase. Each does nothing where it was done before."""

    def __init__(self, root: DataRoot, erasure: Erasure) -> None:
        self._root, self._erasure = root, erasure
        self._files = Files(root)
        self._photographs = erasure.photographs
        self._followers = {
            name
            for image_set in {p.image_set for p in self._photographs}
            for name in self._children(f"original_{image_set.id}", True)
        }
        found = [
            nfc(os.path.relpath(path, root.path))
            for image_set in IMAGE_SETS
            for path in list_folder(root.original(image_set)).pictures
        ]
        self._originals = self._but_erased(found)
        self.removed: list[str] = []

    @cached_property
    def _definitions(self) -> dg.Definitions:
        return build_defs(self._root, load(self._root))

    @cached_property
    def _graph(self) -> "AssetGraph":
        return self._definitions.resolve_asset_graph()

    def _stale(self) -> set[str]:
        """The assets that the next refresh makes in any case."""
        with reading_instance(self._root) as instance:
            now = observe_only(instance, self._root)
            return {p.name for p in plan(self._definitions, instance, now) if p.certain}

    def _children(self, asset: str, every: bool) -> set[str]:
        """The assets that depend on ``asset``, directly or in any way."""
        found: set[dg.AssetKey] = set()
        todo = {dg.AssetKey(asset)}
        while todo:
            todo = {k for key in todo for k in self._graph.get(key).child_keys} - found
            found |= todo
            if not every:
                break
        return {key.to_user_string() for key in found}

    def _but_erased(self, paths: Iterable[str]) -> list[Photograph]:
        own = {nfc(p.path) for p in self._photographs}
        return [p for path in paths if nfc(path) not in own and (p := Photograph.of(path))]

    def _traces(
        self, file: Callable[[str], Path | None] = lambda path: None, paths: Iterable[str] = ()
    ) -> Traces:
        """The traces in a root or a snapshot whose files ``file`` gives; ``paths``: of its
        photographs."""
        near = file(self._root.relative(self._root.near_duplicates))
        groups = renamed_groups(self._photographs, near)
        others = [*self._originals, *self._but_erased(paths)]
        return Traces(self._root, self._photographs, self._followers, others, groups)

    def _note(self, remains: Iterable[str] = ()) -> None:
        """Write what is being erased, with further lines about what remains."""
        noted = dict.fromkeys([*self._erasure.remains, *remains])
        self._erasure.remains = list(noted)
        write_text_atomically(
            self._root.erasing, json.dumps(asdict(self._erasure), indent=1) + "\n"
        )

    def in_root(self) -> None:
        """Erase in the root itself."""
        root = self._root

        def file(path: str) -> Path | None:
            place = place_of(root, path)
            return place if place.exists() else None

        traces = self._traces(file)
        # what is stale may be of a time when it had the photographs
        shown = traces.shown_by(self._children, file) | (self._stale() & self._followers)
        self._note([*self._links(), *self._trained(shown)])
        counts: Counter[tuple[str, str]] = Counter()
        # the photographs first: whatever is made meanwhile is made without them
        for photograph in self._photographs:
            place = root.path / photograph.path
            if place.is_symlink() or place.exists():
                place.unlink()
                counts["original", DELETED] += 1
        for path in list(self._paths()):
            place = place_of(root, path)
            if traces.goes(path, shown):
                place.unlink(missing_ok=True)
                counts[_top(path), DELETED] += 1
        with self._folder() as folder:
            for path in list(self._paths()):
                if traces.may_be_in(path) and self._clean(traces, path, folder):
                    counts[_top(path), CLEANED] += 1
        self.removed += _lines(str(root.path), counts)

    def _clean(self, traces: Traces, path: str, folder: Path) -> bool:
        place = place_of(self._root, path)
        if place.suffix in SUFFIXES:
            if place == self._root.hash_cache or not traces.in_database(place):
                return False
            clean_database(place, traces)
            return True
        new = traces.without(path, place, folder)
        if new != place:
            write_bytes_atomically(place, new.read_bytes())
        return new != place

    def _paths(self) -> Iterator[str]:
        """The path of every file of the root and its state but snapshots and locks."""
        root = self._root
        left_out = {root.snapshots, root.compiled, root.heartbeats}
        for top in (*(root.path / name for name in OWN_FOLDERS), root.state):
            for folder, folders, names in os.walk(top):
                folders[:] = [f for f in folders if Path(folder, f) not in left_out]
                for name in names:
                    place = Path(folder, name)
                    if place != root.erasing and not name.endswith(("-wal", "-shm")):
                        yield path_in_snapshot(root, place)

    def in_snapshots(self) -> None:
        """Erase in the local snapshots, and contents that no snapshot has."""
        with self._folder() as folder:
            for snapshot in snapshots(self._root):
                table, counts = files_of(self._root, snapshot), Counter[tuple[str, str]]()
                new, contents = self._without(table, self._files.path, folder, counts)
                if new is table:
                    continue
                for sha256, file in contents.items():
                    self._files.add(file, sha256, copy=True)
                manifest = self._files.add_table(new[list(COLUMNS)])
                write_pointer(self._root, changed_snapshot(snapshot, new, manifest))
                self.removed += _lines(f"snapshot {snapshot.name}", counts)
        for left in self._root.snapshots.glob("*"):  # of snapshots and pushes that were killed
            if left.name.startswith(TEMPORARY):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._forget_contents()

    def _forget_contents(self) -> None:
        """Delete contents that no snapshot has: of photographs, of what was interrupted, and tables
        of a store."""
        kept = snapshots(self._root)
        wanted = {sha256 for s in kept for sha256 in files_of(self._root, s).sha256}
        self._files.keep_only(wanted | {s.manifest for s in kept})

    def at(self, url: str) -> int:
        """Erase at a store; returns the number of shards there that no snapshot has."""
        remote, noted = Remote(url), self._erasure.superseded.setdefault(url, [])

        def change(
            snapshot: Snapshot, table: pd.DataFrame
        ) -> tuple[pd.DataFrame, Mapping[str, Path]]:
            counts: Counter[tuple[str, str]] = Counter()
            traces = self._traces()
            needed = table[[traces.may_be_in(path) for path in table.path]]
            found = fetch(remote, self._files, needed, folder)
            new, contents = self._without(table, found.__getitem__, folder, counts)
            self.removed += _lines(f"{url}, snapshot {snapshot.name}", counts)
            return new, contents

        def superseded(names: list[str]) -> None:
            noted.extend(names)
            self._note()

        with self._folder() as folder:
            rewrite(self._root, remote, change, superseded)
        remote.delete(noted)
        tables = [remote.table(s, self._root) for s in remote.snapshots()]
        orphans = remote.shards() - {shard for t in tables for shard in t.shard}
        self._forget_contents()
        return len(orphans)

    def _without(
        self,
        table: pd.DataFrame,
        content: Callable[[str], Path],
        folder: Path,
        counts: Counter[tuple[str, str]],
    ) -> tuple[pd.DataFrame, dict[str, Path]]:
        """The files of a snapshot without the photographs, and the new contents by hash; the same
        ``table`` if there is nothing of them. ``counts`` gets what was done."""
        hashes = dict(zip(table.path, table.sha256, strict=True))

        def file(path: str) -> Path | None:
            place = content(hashes[path]) if path in hashes else None
            return place if place and place.exists() else None

        traces = self._traces(file, table.path[table.kind == PHOTOGRAPH])
        shown = traces.shown_by(self._children, file)
        contents: dict[str, Path] = {}
        changed: dict[str, tuple[int, str]] = {}
        gone = {path for path in hashes if traces.goes(path, shown)}
        for path in sorted(hashes.keys() - gone):
            place = file(path) if traces.may_be_in(path) else None
            new = traces.without(path, place, folder) if place else None
            if new and new != place:
                sha256 = file_sha256(new)
                contents[sha256] = new.replace(folder / sha256)
                changed[path] = contents[sha256].stat().st_size, sha256
                counts[_top(path), CLEANED] += 1
        if not gone and not changed:
            return table, {}
        counts.update((_top(path), DELETED) for path in gone)
        kept = table[~table.path.isin(gone)].reset_index(drop=True)
        is_new = kept.path.isin(changed.keys())
        now = [
            changed.get(path, of)
            for path, *of in zip(kept.path, kept["size"], kept.sha256, strict=True)
        ]
        kept = kept.assign(size=[size for size, _ in now], sha256=[sha256 for _, sha256 in now])
        if "shard" in kept:  # of a store, where new contents are not yet
            kept["shard"] = kept.shard.where(~is_new, None)
        return kept, contents

    def forget(self) -> None:
        """Remove the photographs from the cache of hashes."""
        paths = {p.path for p in self._photographs}.union(*(p.made for p in self._photographs))
        forget(self._root.hash_cache, (self._root.path / path for path in paths))

    def _links(self) -> list[str]:
        """Lines about originals that are links to files elsewhere."""
        places = [self._root.path / p.path for p in self._photographs]
        return [f"{p} was a link, and {p.resolve()} stays" for p in places if p.is_symlink()]

    def _trained(self, shown: Iterable[str]) -> list[str]:
        """Lines about the models among ``shown``, which learned from the photographs."""
        keys = [
            key
            for name in shown
            if TRAINING_POOL in (self._graph.get(key := dg.AssetKey(name)).pools or ())
        ]
        with reading_instance(self._root) as instance:
            events = latest_events(instance, keys)
        days = {
            key.to_user_string(): f"{pd.Timestamp(event.timestamp, unit='s'):%Y-%m-%d}"
            for key, event in events.items()
        }
        if not days:
            return []
        names = ", ".join(f"{name} ({day})" for name, day in sorted(days.items()))
        return [f"weights, which learned from it: {names}, and their earlier versions in MLflow"]

    def elsewhere(self, url: str, orphans: int) -> list[str]:
        """Lines about places that were not searched."""
        lines = []
        if dagster_store(self._root):
            lines.append("Dagster's history in Postgres ([storage] dagster)")
        if load(self._root).tracking.uri:
            lines.append("the MLflow store that [tracking] uri names")
        if orphans:
            lines.append(
                f"{url}: {orphans} shards that no snapshot has, of pushes that were interrupted or"
                " run now; delete them if none runs"
            )
        if not url:
            lines.append("stores that gaip3 push wrote to (--at URL erases there)")
        return lines

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        self._root.snapshots.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self._root.snapshots) as folder:
            yield folder


def _top(path: str) -> str:
    """The folder of the root, or of its state, in which a file lies."""
    parts = Path(path).parts
    return "/".join(parts[:2]) if parts[0] == ".gaip3" else parts[0]


def _lines(where: str, counts: Mapping[tuple[str, str], int]) -> list[str]:
    """What was done in the folders of a root or a snapshot, in two lines."""
    lines = []
    for done, text in ((DELETED, "deleted"), (CLEANED, "written again without it")):
        folders = ", ".join(
            f"{top} {n:,}" for (top, what), n in sorted(counts.items()) if what == done
        )
        if folders:
            lines.append(f"{where}: {text}: {folders}")
    return lines
