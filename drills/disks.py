"""Disks that are full, read-only, slow, or know no hard links."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from drills.commands import (
    command,
    last_line,
    printed,
    refused,
    running,
    selecting,
    succeed,
)
from drills.drill import Exercise, Lost, Skipped, drill
from drills.roots import check_equal, check_settled, contents, painted
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.label_store import LabelStore
from gaip3_pipeline_tests.web.processes import free_port

SMALL = "[faces]\nd1 = 60\nfemale = 60\nmale = 30"
STEPS = selecting("resized_d1", "resized_d2_female", "augmented_d2_female")


class Disk:
    """A file system in memory with a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, kilobytes: int) -> None:
        """Give it this size. What it holds may not be more."""
        self._mount(f"remount,size={kilobytes}k")

    def leave(self, kilobytes: int) -> None:
        """Make it so large that ``kilobytes`` are free."""
        self.resize(self.used() + kilobytes)

    def used(self) -> int:
        """The kilobytes that are in use."""
        disk = shutil.disk_usage(self.folder)
        return -(-disk.used // 1024)

    def read_only(self, yes: bool) -> None:
        """Refuse all writes, or take them again."""
        self._mount(f"remount,{'ro' if yes else 'rw'}")

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-o", options, self.folder], check=True, capture_output=True)


@contextmanager
def disk(exercise: Exercise, megabytes: int = 2000) -> Iterator[Disk]:
    """A disk of its own. Raises :class:`Skipped` where this user may not mount one."""
    folder = exercise.folder / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@drill(
    "full-refresh",
    "a whole `gaip3 refresh` on a disk that fills at twenty sizes: one line with the path, and the"
    " same command goes on with room; the files are those of a run with room",
    times=20,
)
def full_refresh(exercise: Exercise) -> None:
    whole = exercise.finished(exercise.folder / "whole")
    wanted, need = contents(whole), _kilobytes(whole.path)
    with disk(exercise) as here:
        root = painted(here.folder / "root")
        step = (need - here.used()) // (exercise.times + 1)
        for number in range(exercise.times):
            here.leave(int(step * exercise.moments.uniform(0.2, 1.0)) if number else 100)
            if not refused(exercise, command(root, "refresh"), str(here.folder)):
                raise Lost(f"{number} sizes: it had room enough")
            exercise.count(f"full at {here.used():,} KB")
        here.resize(2_000_000)
        succeed(command(root, "refresh"))
        check_equal(exercise, root, wanted)
        check_settled(exercise, root)


@drill(
    "full-images",
    "`gaip3 refresh` of the image steps on a disk that fills at twenty sizes",
    times=20,
)
def full_images(exercise: Exercise) -> None:
    whole = painted(exercise.folder / "whole", SMALL)
    words = ("refresh", *STEPS)
    succeed(command(whole, *words))
    wanted, need = contents(whole), _kilobytes(whole.path)
    with disk(exercise) as here:
        root = painted(here.folder / "root", SMALL)
        step = (need - here.used()) / (exercise.times + 1)
        for number in range(exercise.times):
            # what was made before stays, so the room of all rounds together is not enough
            here.leave(int(step * exercise.moments.uniform(0.2, 1.0)))
            if refused(exercise, command(root, *words), str(here.folder)):
                exercise.count(f"full at {here.used():,} KB")
            else:
                raise Lost(f"it had room enough at {here.used():,} KB")
            here.resize(2_000_000)
            if number % 5 == 4 or number == exercise.times - 1:
                succeed(command(root, *words))
                check_equal(exercise, root, wanted)
                shutil.rmtree(root.path)
                root = painted(here.folder / "root", SMALL)


@drill(
    "full-labels",
    "labels through the label server on a disk that fills at twenty sizes: the page gets one line"
    " with the path, what was acknowledged stays, and writing goes on with room",
    times=20,
    sample=3,
)
def full_labels(exercise: Exercise) -> None:
    import httpx

    with disk(exercise) as here:
        root = painted(here.folder / "root", "[faces]\nd1 = 1\nfemale = 60\nmale = 60")
        port = free_port()
        with running(command(root, "label", "--port", str(port))) as (_, log):
            until = time.monotonic() + 120
            while "Ctrl-C stops it." not in printed(log):
                if time.monotonic() > until:
                    raise Lost(f"no label server: {printed(log)}")
                time.sleep(0.1)
            told: dict[tuple[str, str], float] = {}
            stems = list(LabelStore(root).images["female"])
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False
            ) as page:
                written = 0
                while exercise.done < exercise.times:
                    here.leave(4 * exercise.moments.randrange(1, 12))
                    while True:
                        written += 1
                        stem, value = stems[written % 60], (written % 101) / 100
                        new = {
                            "attribute": "mouth",
                            "gender": "female",
                            "stem": stem,
                            "value": value,
                        }
                        body = {"labels": [new], "who": "drill"}
                        answer = page.post("/api/labels", json=body)
                        if answer.is_error:
                            break
                        told["female", stem] = value
                    clear = "\n" not in answer.text and str(here.folder) in answer.text
                    exercise.check(clear, f"{answer.status_code}: {answer.text[:300]}")
                    exercise.count(f"full after {written:,} labels: {answer.text[:120]}")
                    _check_told(exercise, root, told)
                    here.resize(100_000)
                    page.post("/api/labels", json=body).raise_for_status()
                    told["female", stem] = value
        _check_told(exercise, root, told)
        exercise.details["acknowledged"] = written - exercise.done


@drill(
    "full-snapshot",
    "`gaip3 snapshot` on a disk that fills at twenty sizes: nothing is there, or a whole snapshot",
    times=20,
    sample=1,
)
def full_snapshot(exercise: Exercise) -> None:
    with disk(exercise) as here:
        root = painted(here.folder / "root", SMALL)
        used = here.used()
        succeed(command(root, "snapshot", "whole"))
        need = here.used() - used
        _forget(root)
        for number in range(exercise.times):
            here.leave(int(need * (number + 0.5) / (exercise.times + 2)))
            name = f"s{number}"
            if not refused(exercise, command(root, "snapshot", name), str(here.folder)):
                raise Lost(f"it had room enough: {need} KB")
            exercise.count(f"full at {here.used():,} KB")
            exercise.check(not root.snapshot(name).exists(), f"{name} is there in part")
            here.resize(2_000_000)
            succeed(command(root, "snapshot", name))
            _forget(root)


@drill(
    "full-push",
    "`gaip3 push` into a folder on a disk that fills at twenty sizes: nothing of it is visible, and"
    " the same push goes on with room",
    times=20,
)
def full_push(exercise: Exercise) -> None:
    root = painted(exercise.folder / "root", SMALL)
    succeed(command(root, "snapshot", "s"))
    wanted = contents(root)
    with disk(exercise) as here:
        url = f"file://{here.folder}/there"
        words = command(root, "push", url, "s", "--with-pictures")
        succeed(words)
        need = here.used()
        there = DataRoot(exercise.folder / "pulled")
        for number in range(exercise.times):
            shutil.rmtree(here.folder / "there")
            here.leave(int(need * (number + 0.5) / (exercise.times + 1)))
            if not refused(exercise, words, str(here.folder)):
                raise Lost(f"it had room enough: {need} KB")
            exercise.count(f"full at {here.used():,} KB")
            there.path.mkdir()
            seen = not refused(exercise, command(there, "pull", url))
            exercise.check(not seen, "a part of a push is visible")
            here.resize(2_000_000)
            succeed(words)
            succeed(command(there, "pull", url))
            check_equal(exercise, there, wanted)
            shutil.rmtree(there.path)


@drill(
    "read-only",
    "a disk that turns read-only under refresh, label server, snapshot and push: one line with the"
    " path, and the same command goes on once it takes writes",
    times=8,
    sample=1,
)
def read_only(exercise: Exercise) -> None:
    with disk(exercise) as here:
        root = painted(here.folder / "root", SMALL)
        url = f"file://{here.folder}/there"
        every: list[Sequence[str]] = [
            ("snapshot", "s"),
            ("refresh", *STEPS),
            ("push", url, "s", "--with-pictures"),
            ("import-labels", str(exercise.folder / "labels.csv"), "--attribute", "mouth"),
        ]
        for words in [*every, *every][: exercise.times]:
            stem = next(iter(LabelStore(root).images["female"]))
            labels = f"file,value\nfemale/{stem}.jpg,{exercise.moments.random():.3f}\n"
            (exercise.folder / "labels.csv").write_text(labels, encoding="utf-8")
            here.read_only(True)
            if not refused(exercise, command(root, *words), str(here.folder)):
                raise Lost(f"{words[0]}: it wrote on a read-only disk")
            exercise.count(words[0])
            here.read_only(False)
            succeed(command(root, *words))
            if words[0] == "push":
                shutil.rmtree(root.path)
                root = painted(here.folder / "root", SMALL)
                shutil.rmtree(here.folder / "there")
                succeed(command(root, "snapshot", "s"))
                if exercise.done < exercise.times:
                    _forget(root)


@drill(
    "no-links",
    "a file system that refuses hard links (every link fails) under refresh, snapshot and restore:"
    " copies take their place",
    times=2,
    sample=1,
)
def no_links(exercise: Exercise) -> None:
    refuse = strace("-e", "inject=link,linkat:error=EPERM", "-e", "trace=link,linkat")
    root = painted(exercise.folder / "root", SMALL)
    for number in range(exercise.times):
        words = command(root, "snapshot", f"s{number}")
        succeed([*refuse, *words])
        kept = [p for p in root.snapshot_files.rglob("*") if p.is_file()]
        exercise.check(all(p.stat().st_nlink == 1 for p in kept), "there are hard links")
        wanted = contents(root)
        picture = next(root.originals.rglob("*.jpg"))
        picture.unlink()
        succeed([*refuse, *command(root, "restore", f"s{number}")])
        check_equal(exercise, root, wanted)
        exercise.count("snapshot and restore by copies")


@drill(
    "slow-disk",
    "a disk that takes 0.2 s for each fsync, under five clients of the label server and a refresh:"
    " slower, and nothing else",
    times=2,
)
def slow_disk(exercise: Exercise) -> None:
    from drills.kills import CLIENTS, _check_labels, _write_labels

    slow = strace("-e", "inject=fsync,fdatasync:delay_enter=200000", "-e", "trace=fsync,fdatasync")
    root = painted(exercise.folder / "root", "[faces]\nd1 = 10\nfemale = 30\nmale = 30")
    port = free_port()
    told: list[list[tuple[str, str, str, float]]] = [[] for _ in range(CLIENTS)]
    with running([*slow, *command(root, "label", "--port", str(port))]) as (_, log):
        until = time.monotonic() + 240
        while "Ctrl-C stops it." not in printed(log):
            if time.monotonic() > until:
                raise Lost(f"no label server: {printed(log)}")
            time.sleep(0.1)
        ended = threading.Event()
        clients = [
            threading.Thread(target=_write_labels, args=(root, port, k, told[k], ended))
            for k in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(20)
        ended.set()
        for client in clients:
            client.join()
    written = sum(map(len, told))
    exercise.check(written >= 10, f"only {written} labels in 20 s")
    _check_labels(exercise, root, told)
    exercise.count(f"{written} labels in 20 s")
    steps = ("refresh", "--select", "resized_d2_female")
    whole = DataRoot(Path(shutil.copytree(root.path, exercise.folder / "whole")))
    succeed(command(whole, *steps))
    succeed([*slow, *command(root, *steps)])
    check_equal(exercise, root, contents(whole))
    exercise.count("a refresh of the image steps")


def strace(*words: str, output: Path = Path(os.devnull)) -> list[str]:
    """strace with ``words``, which follows a command and all that it starts, and lists its calls in
    ``output``. Raises :class:`Skipped` without it."""
    if not shutil.which("strace"):
        raise Skipped("needs strace: apt-get install strace")
    works = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True)
    if works.returncode:
        raise Skipped(f"strace may not trace here: {last_line(works.stderr.decode())}")
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(output), *words, "--"]


def _check_told(exercise: Exercise, root: DataRoot, told: dict[tuple[str, str], float]) -> None:
    table = read_labels(root.hand_labels("mouth")).table
    here = dict(zip(zip(table.gender, table.stem, strict=True), table.value, strict=True))
    lost = [key for key, value in told.items() if here.get(key) != value]
    exercise.check(not lost, f"{len(lost)} acknowledged labels are lost: {lost[:3]}")


def _forget(root: DataRoot) -> None:
    shutil.rmtree(root.snapshots, ignore_errors=True)
    root.hash_cache.unlink(missing_ok=True)


def _kilobytes(folder: Path) -> int:
    """The size of a root on a disk in memory, whose blocks have 4 KB."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return sum(-(-p.stat().st_size // 4096) * 4 for p in files)
