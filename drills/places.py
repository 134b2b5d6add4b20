"""Time and place: clocks that jump, roots that move, two at once, files that vanish or change."""

import shutil
import subprocess
import threading
import time
from pathlib import Path

from drills.commands import (
    command,
    killed_after,
    last_line,
    outcome,
    printed,
    refused,
    running,
    selecting,
    succeed,
)
from drills.drill import Exercise, Lost, Skipped, drill
from drills.roots import check_equal, contents, painted
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline_tests.web.processes import free_port

STEPS = ["refresh", *selecting("resized_d1", "resized_d2_female", "augmented_d2_female")]
SMALL = "[faces]\nd1 = 300\nfemale = 300\nmale = 10"
SELECT = ["refresh", *selecting("labels_mouth", "evaluator_mouth")]


@drill(
    "clock",
    "a clock that is a day back (libfaketime) in every second refresh, a label changed before each:"
    " each makes what depends on the label, and the next one nothing",
    times=4,
)
def clock(exercise: Exercise) -> None:
    if not shutil.which("faketime"):
        raise Skipped("needs libfaketime: apt-get install faketime")
    root = exercise.finished(exercise.folder / "root")
    back = ["faketime", "-f", "-1d"]
    store = LabelStore(root)
    key = next(iter(store.values("mouth")))
    for number in range(exercise.times):
        old = store.values("mouth")[key]
        store.apply([Edit("mouth", *key, 0.9 - old / 2)], "drill")
        words = [*(back if number % 2 else []), *command(root, *SELECT)]
        output = succeed(words)
        for asset in ("labels_mouth", "evaluator_mouth"):
            exercise.check(f"s  {asset}" in output, f"{asset} was not made: {output[:400]}")
        for clock_of in ([], back):
            output = succeed([*clock_of, *command(root, *SELECT)])
            exercise.check("Nothing is stale" in output, f"stale again: {output[:400]}")
        exercise.count("with the clock a day back" if number % 2 else "with the right clock")


@drill(
    "moved-root",
    "a root moved to another path after a refresh was killed, then the same command there; the"
    " files are those of an unbroken run",
    times=4,
)
def moved_root(exercise: Exercise) -> None:
    untouched = exercise.finished(exercise.folder / "untouched")
    settings = "\n[evaluator]\nepochs = 12\n"
    text = untouched.settings_file.read_text(encoding="utf-8")
    untouched.settings_file.write_text(text + settings, encoding="utf-8")
    words = ["refresh", *selecting("evaluator_mouth", "evaluator_eyes")]
    whole = DataRoot(Path(shutil.copytree(untouched.path, exercise.folder / "whole")))
    start = time.monotonic()
    succeed(command(whole, *words))
    seconds = time.monotonic() - start
    wanted = contents(whole)
    for number in range(exercise.times):
        root = DataRoot(Path(shutil.copytree(untouched.path, exercise.folder / f"a{number}")))
        after = exercise.moments.uniform(0, seconds / 2)
        killed_after(command(root, *words), after, begins="stage")
        moved = DataRoot(root.path.rename(exercise.folder / f"moved to {number}"))
        succeed(command(moved, *words))
        check_equal(exercise, moved, wanted)
        exercise.check("Nothing is stale" in succeed(command(moved, *words)), "stale after a move")
        exercise.count(f"killed after {after:.1f} s and moved")
        shutil.rmtree(moved.path)


@drill(
    "two-refreshes",
    "two refreshes of one root at once: one works, the other is told in one line; the files are"
    " those of one refresh",
    times=6,
)
def two_refreshes(exercise: Exercise) -> None:
    _two(exercise, [])


@drill(
    "two-hosts",
    "two refreshes of one root at once, the second on a host of another name (a UTS namespace)",
    times=4,
)
def two_hosts(exercise: Exercise) -> None:
    namespace = ["unshare", "--uts", "sh", "-c", 'hostname another-host && exec "$@"', "sh"]
    tried = subprocess.run([*namespace, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise Skipped(f"needs the right to a namespace: {tried.stderr.strip()}")
    _two(exercise, namespace)


def _two(exercise: Exercise, second: list[str]) -> None:
    untouched = painted(exercise.folder / "painted", SMALL)
    whole = DataRoot(Path(shutil.copytree(untouched.path, exercise.folder / "whole")))
    succeed(command(whole, *STEPS))
    wanted = contents(whole)
    while exercise.done < exercise.times:
        root = DataRoot(Path(shutil.copytree(untouched.path, exercise.folder / "root")))
        words = [command(root, *STEPS), [*second, *command(root, *STEPS)]]
        exercise.moments.shuffle(words)
        with running(words[0]) as (first, log):
            time.sleep(exercise.moments.uniform(0, 2))
            code, output = outcome(words[1])
            first.wait()
            codes = sorted([first.returncode, code])
            lines = [last_line(printed(log)), last_line(output)]
        exercise.check(codes in ([0, 0], [0, 1]), f"both ended with {codes}: {lines}")
        if codes == [0, 1]:
            told = any("another refresh of" in line for line in lines)
            exercise.check(told, f"neither was told: {lines}")
        check_equal(exercise, root, wanted)
        exercise.count("one was told" if codes == [0, 1] else "one after the other")
        shutil.rmtree(root.path)


@drill(
    "two-uis",
    "`gaip3 ui` started twice on one root: the second is told in one line, the first goes on",
    times=3,
)
def two_uis(exercise: Exercise) -> None:
    root = painted(exercise.folder / "root", "[faces]\nd1 = 2\nfemale = 2\nmale = 2")

    def words() -> list[str]:
        ports = [str(free_port()) for _ in range(3)]
        return command(
            root, "ui", "--port", ports[0], "--mlflow-port", ports[1], "--label-port", ports[2]
        )

    with running(words()) as (first, log):
        until = time.monotonic() + 240
        while "Ctrl-C stops them." not in printed(log):
            if time.monotonic() > until or first.poll() is not None:
                raise Lost(f"gaip3 ui does not start: {printed(log)}")
            time.sleep(0.2)
        while exercise.done < exercise.times:
            told = refused(exercise, words(), "is served already")
            exercise.check(told and first.poll() is None, "two serve one root")
            exercise.count("the second was told")
        first.terminate()
        exercise.check(first.wait(60) == 0, "the first did not end well")


@drill(
    "vanishing-files",
    "originals that vanish, change or arrive while a refresh makes pictures: it ends well or with"
    " one line, and the next refresh gives the files of what is there",
    times=8,
)
def vanishing_files(exercise: Exercise) -> None:
    untouched = painted(exercise.folder / "painted", SMALL)
    while exercise.done < exercise.times:
        root = DataRoot(Path(shutil.copytree(untouched.path, exercise.folder / "root")))
        pictures = sorted(root.originals.rglob("*.jpg"))
        ended = threading.Event()
        disturbing = threading.Thread(target=_disturb, args=(exercise, pictures, ended))
        disturbing.start()
        failed = refused(exercise, command(root, *STEPS))
        ended.set()
        disturbing.join()
        succeed(command(root, *STEPS))
        output = succeed(command(root, *STEPS))
        exercise.check("Nothing is stale" in output, f"stale again: {output[:300]}")
        fresh = DataRoot(exercise.folder / "fresh")
        fresh.path.mkdir()
        shutil.copytree(root.originals, fresh.originals)
        for name in ("labels", root.settings_file.name):
            source = root.path / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, fresh.path / name)
        succeed(command(fresh, *STEPS))
        check_equal(exercise, root, contents(fresh))
        exercise.count("it failed with one line" if failed else "it ended well")
        shutil.rmtree(root.path)
        shutil.rmtree(fresh.path)


def _disturb(exercise: Exercise, pictures: list[Path], ended: threading.Event) -> None:
    """Remove, replace and add pictures until ``ended``."""
    left = list(pictures)
    while len(left) > len(pictures) // 2 and not ended.wait(exercise.moments.uniform(0, 0.1)):
        path = left.pop(exercise.moments.randrange(len(left)))
        what = exercise.moments.randrange(60)
        if what < 20:
            path.unlink()
        elif what < 40:
            path.write_bytes(left[0].read_bytes())
        elif what == 40:  # few: a check stops a refresh if many are damaged
            path.write_bytes(path.read_bytes()[:300])
        else:
            shutil.copy(path, path.with_name(f"new_{path.name}"))
