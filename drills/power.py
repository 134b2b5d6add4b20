"""A power loss: what is acknowledged was flushed to disk before, content and name.

The machine is not switched off. strace lists the calls to the kernel, and their order is checked:
write, fsync of the file, rename, fsync of its folder, and only then the acknowledgement."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from drills.acknowledged import ACKNOWLEDGED
from drills.disks import strace
from drills.drill import Exercise, Lost, drill
from gaip3_pipeline.tables.files import TEMPORARY

CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,sendfile,copy_file_range,ftruncate,fsync,"
    "fdatasync,sync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
)
# locks and what can be computed again
NOT_KEPT = re.compile(r"lock$|\.journal$|hashes\.sqlite(-\w+)?$|/heartbeats/")
# files that say that others are complete
LAST = re.compile(r"/root/manifests/[^/]+\.parquet$|/root/.*/last\.json$|/snapshots/[^/]+\.json$")
_PATH = r"<(/[^>]*?)(?: \(deleted\))?>"
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


@dataclass
class Disk:
    """What would be lost if the power went off now: ``contents`` of files and ``names`` in folders
    that were not flushed. ``faults`` are those at an acknowledgement or a rename."""

    root: str
    contents: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)  # a file by its folder
    known: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def wrote(self, path: str) -> None:
        if self._kept(path):
            self.contents.add(path)

    def opened(self, path: str) -> None:
        """A file was opened with O_CREAT: it is new the first time."""
        if path not in self.known:
            self.created(path)

    def created(self, path: str) -> None:
        self.known.add(path)
        temporary = any(part.startswith(TEMPORARY) for part in Path(path).parts)
        if self._kept(path) and not temporary:
            self.names[os.path.dirname(path)] = path

    def synced(self, path: str) -> None:
        self.contents.discard(path)
        self.names.pop(path, None)

    def renamed(self, old: str, new: str) -> None:
        if not self._kept(new):
            return
        if Path(new).name.startswith(TEMPORARY):
            if old in self.contents:
                self.contents.remove(old)
                self.contents.add(new)
            return
        if old in self.contents:
            self.faults.append(f"{self._short(new)} got its name before its content was flushed")
            self.contents.discard(old)
        if LAST.search(new):
            others = [p for f, p in self.names.items() if f != os.path.dirname(new)]
            self._refuse([*self.contents, *others], f"when {self._short(new)} named it")
        self.created(new)

    def removed(self, path: str) -> None:
        self.contents.discard(path)
        folder = os.path.dirname(path)
        if self.names.get(folder) == path:
            del self.names[folder]

    def acknowledged(self, kind: str) -> None:
        self.kinds.append(kind)
        self._refuse(self.contents, f"when {kind} was acknowledged")
        self._refuse(self.names.values(), f"under its name when {kind} was acknowledged")
        self.contents.clear()
        self.names.clear()

    def _refuse(self, paths: object, when: str) -> None:
        assert hasattr(paths, "__iter__")
        self.faults += [f"{self._short(p)} was not on disk {when}" for p in sorted(paths)]

    def _kept(self, path: str) -> bool:
        return path.startswith(self.root) and not NOT_KEPT.search(path)

    def _short(self, path: str) -> str:
        return path.removeprefix(self.root)


def follow(trace: list[str], root: str) -> Disk:
    """Go through the lines of strace (``-f -y``) about the files below ``root``."""
    disk, begun = Disk(root), dict[tuple[str, str], str]()
    for text in trace:
        match = _LINE.match(text)
        if not match:
            continue
        pid, call, rest = match.groups()
        if rest.endswith("<unfinished ...>"):
            begun[pid, call] = rest.removesuffix("<unfinished ...>")
            continue
        rest = begun.pop((pid, call), "") + rest
        if re.search(r"= -1 E", rest):
            continue
        _call(disk, call, rest)
    return disk


def _call(disk: Disk, call: str, rest: str) -> None:
    at = re.match(r"\d+" + _PATH, rest)
    if call in ("fsync", "fdatasync") and at:
        disk.synced(at[1])
    elif call in ("write", "writev", "pwrite64", "pwritev", "sendfile", "ftruncate"):
        said = re.match(rf'1<[^>]*>, "{ACKNOWLEDGED}(.*?)\\n"', rest)
        if said:
            disk.acknowledged(said[1])
        elif at:
            disk.wrote(at[1])
    elif call == "copy_file_range":
        both = re.findall(r"\d+" + _PATH, rest)
        if len(both) == 2:
            disk.wrote(both[1])
    elif call in ("open", "openat", "creat") and ("O_CREAT" in rest or call == "creat"):
        opened = re.search(r"= \d+" + _PATH, rest)
        if opened:
            disk.opened(opened[1])
    elif call.startswith(("rename", "link", "unlink")):
        paths = [os.path.join(d or "/", p) for d, p in _paths(rest)]
        if call.startswith("unlink"):
            disk.removed(paths[0])
        else:
            disk.renamed(*paths[:2])


def _paths(rest: str) -> list[tuple[str, str]]:
    """Each path of a call, with the folder that it is relative to."""
    found = re.findall(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"', rest)
    return [(folder, path) for folder, path in found]


@drill(
    "power",
    "each kind of file that is acknowledged (labels, history, pictures, manifests, weights,"
    " checkpoints, snapshots, pushes) under strace: write, fsync, rename, fsync of the folder, in"
    " this order",
    times=1,
    sample=1,
)
def power(exercise: Exercise) -> None:
    log = exercise.folder / "calls"
    words = strace("-y", "-s", "200", "-e", f"trace={CALLS}", "-e", "signal=none", output=log)
    here = exercise.folder.resolve() / "here"
    done = subprocess.run(
        [*words, sys.executable, "-m", "drills.acknowledged", str(here)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Lost(done.stderr[-2000:])
    disk = follow(log.read_text(encoding="utf-8", errors="replace").splitlines(), f"{here}/")
    for fault in disk.faults:
        exercise.check(False, fault)
    for kind in disk.kinds[1:]:
        print(f"  {kind}", flush=True)
    exercise.details["kinds"] = len(disk.kinds) - 1
    exercise.check(len(disk.kinds) > 10, f"strace saw only {disk.kinds}")
    exercise.count("kinds of files looked at")


@drill(
    "power-databases",
    "the settings with which Dagster, MLflow and the hash cache open their SQLite files: a"
    " transaction is flushed before it is acknowledged (`synchronous` is FULL)",
    times=1,
    sample=1,
)
def power_databases(exercise: Exercise) -> None:
    import dagster as dg
    from sqlalchemy import text

    from gaip3_pipeline.dagster_home import ensure_dagster_home
    from gaip3_pipeline.definitions import tracking_of
    from gaip3_pipeline.layout import DataRoot
    from gaip3_pipeline.settings import load

    root = DataRoot(exercise.folder / "root")
    root.path.mkdir()
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    found = {}
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:
        for name, connected in (
            ("Dagster's runs", instance.run_storage.connect),  # type: ignore[attr-defined]
            ("Dagster's events", instance.event_log_storage.index_connection),  # type: ignore[attr-defined]
        ):
            with connected() as connection:
                found[name] = [
                    connection.execute(text(f"PRAGMA {p}")).scalar()
                    for p in ("synchronous", "journal_mode")
                ]
    client = tracking_of(root, load(root)).client()
    with client._tracking_client.store.engine.connect() as connection:
        found["MLflow"] = [
            connection.execute(text(f"PRAGMA {p}")).scalar()
            for p in ("synchronous", "journal_mode")
        ]
    for name, (synchronous, journal) in found.items():
        exercise.check(synchronous >= 2, f"{name}: synchronous is {synchronous}")
        print(f"  {name}: synchronous {synchronous}, journal_mode {journal}", flush=True)
    exercise.count("databases looked at")
