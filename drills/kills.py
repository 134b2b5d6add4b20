"""kill -9 at random moments, then the same command again."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drills.commands import (
    clear,
    command,
    kill,
    killed_after,
    printed,
    refused,
    running,
    selecting,
    succeed,
)
from drills.drill import Exercise, Lost, Skipped, drill
from drills.roots import check_equal, check_settled, contents, painted, repeated_epochs
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.label_store import LabelStore
from gaip3_pipeline_tests.web.processes import free_port, wait_until_gone

CHAIN = 20  # kills before an unbroken run must give the same files
CLIENTS = 5


@drill(
    "kill-refresh",
    "kill -9 of `gaip3 refresh` and its processes, in chains of twenty; at each end weights, tables"
    " and manifests are those of an unbroken run",
    times=40,
)
def kill_refresh(exercise: Exercise) -> None:
    untouched = painted(exercise.folder / "painted")
    whole = exercise.finished(exercise.folder / "whole")
    wanted = contents(whole)
    made = read_records(whole)[-1]["assets"].values()
    seconds = sum(asset["seconds"] or 0 for asset in made)
    print(f"  unbroken: {seconds:.0f} s of steps", flush=True)
    while exercise.done < exercise.times:
        root = _copy(untouched, exercise.folder / f"chain{exercise.done}")
        kills = 0
        while kills < CHAIN and exercise.done < exercise.times:
            # a chain works for one and a half times as long as a refresh before its end
            after = exercise.moments.uniform(0, seconds / CHAIN * 3)
            if not killed_after(command(root, "refresh"), after, begins="stage"):
                break
            kills += 1
            exercise.count(f"killed {after:.1f} s after its plan")
        succeed(command(root, "refresh"))
        check_equal(exercise, root, wanted)
        check_settled(exercise, root)
        again = repeated_epochs(root)
        exercise.check(again <= kills, f"{again} epochs were trained again after {kills} kills")
        exercise.details["epochs_again"] = exercise.details.get("epochs_again", 0) + again
        shutil.rmtree(root.path)


@drill(
    "kill-images",
    "kill -9 while pictures are resized and brightened; pictures and manifests are those of an"
    " unbroken run",
    times=30,
    sample=1,
)
def kill_images(exercise: Exercise) -> None:
    steps = selecting("resized_d1", "resized_d2_female", "augmented_d2_female")
    untouched = painted(exercise.folder / "painted", "[faces]\nd1 = 200\nfemale = 200\nmale = 10")
    whole = _copy(untouched, exercise.folder / "whole")
    start = time.monotonic()
    with running(command(whole, "refresh", *steps)) as (process, log):
        while "stage" not in printed(log):
            time.sleep(0.02)
        start = time.monotonic()
        process.wait()
    seconds = time.monotonic() - start
    wanted = contents(whole)
    while exercise.done < exercise.times:
        root = _copy(untouched, exercise.folder / "broken")
        _kill_and_finish(exercise, command(root, "refresh", *steps), seconds)
        check_equal(exercise, root, wanted)
        shutil.rmtree(root.path)


@drill(
    "kill-samples",
    "kill -9 while samples are drawn (`nvae_samples`); the samples are those of an unbroken run",
    times=10,
)
def kill_samples(exercise: Exercise) -> None:
    root = exercise.finished(exercise.folder / "root")
    settings = root.settings_file.read_text(encoding="utf-8")
    steps = selecting("nvae_samples")

    def drawn(seed: int) -> dict[str, str]:
        root.settings_file.write_text(f"{settings}[samples]\nn = 600\nseed = {seed}\n")
        succeed(command(root, "refresh", *steps))
        return contents(root)

    start = time.monotonic()
    wanted = drawn(1)
    seconds = time.monotonic() - start
    while exercise.done < exercise.times:
        drawn(2)
        root.settings_file.write_text(f"{settings}[samples]\nn = 600\nseed = 1\n")
        _kill_and_finish(exercise, command(root, "refresh", *steps), seconds)
        check_equal(exercise, root, wanted)


@drill(
    "kill-retouch",
    "kill -9 of `gaip3 retouch`; photographs and table are those of an unbroken run",
    times=10,
)
def kill_retouch(exercise: Exercise) -> None:
    root = exercise.finished(exercise.folder / "root")
    photographs = exercise.folder / "photographs"
    photographs.mkdir()
    for picture in sorted(root.originals.rglob("*.jpg"))[:40]:
        shutil.copy(picture, photographs / picture.name)

    def words(out: str) -> list[str]:
        return command(root, "retouch", str(photographs), "--out", str(exercise.folder / out))

    start = time.monotonic()
    succeed(words("whole"))
    seconds = time.monotonic() - start
    while exercise.done < exercise.times:
        out = exercise.folder / f"out{exercise.done}"
        for _ in range(3):
            after = exercise.moments.uniform(1, seconds)
            if exercise.done == exercise.times or not killed_after(words(out.name), after):
                break
            exercise.count(f"killed after {after:.1f} s")
        succeed(words(out.name))
        made, wanted = (_files(exercise.folder / n) for n in (out.name, "whole"))
        differ = sorted(n for n in made.keys() | wanted.keys() if made.get(n) != wanted.get(n))
        exercise.check(not differ, f"retouched files differ: {differ[:5]}")


@drill(
    "kill-labels",
    "kill -9 of the label server while five clients write, then restart; every acknowledged label"
    " is in the history, in order, and in its CSV",
    times=40,
    sample=2,
)
def kill_labels(exercise: Exercise) -> None:
    root = painted(exercise.folder / "root", "[faces]\nd1 = 1\nfemale = 30\nmale = 30")
    told: list[list[tuple[str, str, str, float]]] = [[] for _ in range(CLIENTS)]
    sent = 0
    while exercise.done < exercise.times:
        port = free_port()
        with running(command(root, "label", "--port", str(port))) as (server, log):
            _wait(lambda: "Ctrl-C stops it." in printed(log), "the label server")
            ended = threading.Event()
            clients = [
                threading.Thread(target=_write_labels, args=(root, port, k, told[k], ended))
                for k in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            after = exercise.moments.uniform(0.2, 2.0)
            time.sleep(after)
            kill(server)
            ended.set()
            for client in clients:
                client.join()
        sent = sum(map(len, told))
        exercise.count(f"killed after {after:.1f} s, {sent:,} labels acknowledged so far")
    exercise.details["acknowledged"] = sent
    _check_labels(exercise, root, told)


def _write_labels(
    root: DataRoot,
    port: int,
    client: int,
    told: list[tuple[str, str, str, float]],
    ended: threading.Event,
) -> None:
    """Write labels of the pictures of this client until its server is gone; ``told`` gets what was
    acknowledged."""
    import httpx

    stems = [(sex, stem) for sex, found in LabelStore(root).images.items() for stem in found]
    own = stems[client::CLIENTS]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as page:
        while not ended.is_set():
            number = len(told)
            sex, stem = own[number % len(own)]
            attribute, value = ATTRIBUTES[number // len(own) % 5], (number * 7 % 101) / 100
            new = {"attribute": attribute, "gender": sex, "stem": stem, "value": value}
            try:
                answer = page.post("/api/labels", json={"labels": [new], "who": f"{client}"})
                answer.raise_for_status()
            except httpx.TransportError:
                return
            told.append((attribute, sex, stem, value))


def _check_labels(
    exercise: Exercise, root: DataRoot, told: list[list[tuple[str, str, str, float]]]
) -> None:
    history: dict[tuple[str, str, str], list[float | None]] = {}
    for change in LabelStore(root).history():
        place = (change.attribute, change.gender, change.stem)
        history.setdefault(place, []).append(change.after)
    lost = 0
    for mine in told:
        values: dict[tuple[str, str, str], list[float]] = {}
        for attribute, sex, stem, value in mine:
            values.setdefault((attribute, sex, stem), []).append(value)
        for image, wanted in values.items():
            found = iter(history.get(image, []))
            # painted labels may have had the value already: such a write changes nothing
            before = None
            for value in wanted:
                lost += value != before and not any(value == f for f in found)
                before = value
    exercise.check(not lost, f"{lost} acknowledged labels are not in the history")
    for attribute in ATTRIBUTES:
        table = read_labels(root.hand_labels(attribute)).table
        here = dict(zip(zip(table.gender, table.stem, strict=True), table.value, strict=True))
        wrong = [
            key
            for (a, *key), values in history.items()
            if a == attribute and here.get((key[0], key[1])) != values[-1]
        ]
        exercise.check(not wrong, f"{attribute}: {len(wrong)} labels of the CSV are not the last")


@drill(
    "kill-snapshot",
    "kill -9 of `gaip3 snapshot`; a snapshot is whole or not there, and the next one is whole",
    times=20,
)
def kill_snapshot(exercise: Exercise) -> None:
    root = _with_files(exercise)
    start = time.monotonic()
    succeed(command(root, "snapshot", "whole"))
    seconds = time.monotonic() - start
    while exercise.done < exercise.times:
        shutil.rmtree(root.snapshots)
        name = f"s{exercise.done}"
        after = exercise.moments.uniform(seconds / 2, seconds)
        if killed_after(command(root, "snapshot", name), after):
            exercise.count(f"killed after {after:.2f} s")
        if name in succeed(command(root, "snapshots")):
            succeed(command(root, "restore", name))
        else:
            succeed(command(root, "snapshot", name))
        _check_snapshot(exercise, root, name)


@drill(
    "kill-push",
    "kill -9 of `gaip3 push`; nothing of it is visible, or all; the same push goes on",
    times=20,
    sample=1,
)
def kill_push(exercise: Exercise) -> None:
    root = _with_files(exercise)
    succeed(command(root, "snapshot", "s"))
    wanted = contents(root)
    url = f"file://{exercise.folder}/there"
    words = command(root, "push", url, "s", "--with-pictures")
    start = time.monotonic()
    succeed(words)
    seconds = time.monotonic() - start
    while exercise.done < exercise.times:
        shutil.rmtree(exercise.folder / "there")
        for _ in range(4):
            after = exercise.moments.uniform(seconds / 2, seconds)
            if exercise.done == exercise.times or not killed_after(words, after):
                break
            exercise.count(f"killed after {after:.2f} s")
            if refused(exercise, command(_new(exercise), "pull", url)):
                continue  # nothing is visible
            check_equal(exercise, _pulled(exercise), wanted)
        succeed(words)
        there = _new(exercise)
        succeed(command(there, "pull", url))
        check_equal(exercise, there, wanted)


@drill(
    "kill-pull",
    "kill -9 of `gaip3 pull` into an empty folder; the same pull goes on, and the root is that"
    " which was pushed",
    times=20,
    sample=1,
)
def kill_pull(exercise: Exercise) -> None:
    root = _with_files(exercise)
    succeed(command(root, "snapshot", "s"))
    wanted = contents(root)
    url = f"file://{exercise.folder}/there"
    succeed(command(root, "push", url, "s", "--with-pictures"))
    there = _new(exercise)
    start = time.monotonic()
    succeed(command(there, "pull", url))
    seconds = time.monotonic() - start
    while exercise.done < exercise.times:
        there = _new(exercise)
        for _ in range(4):
            after = exercise.moments.uniform(seconds / 2, seconds)
            if exercise.done == exercise.times or not killed_after(
                command(there, "pull", url), after
            ):
                break
            exercise.count(f"killed after {after:.2f} s")
        succeed(command(there, "pull", url))
        check_equal(exercise, there, wanted)


@drill(
    "kill-storage-move",
    "kill -9 of `gaip3 storage move` into Postgres; the databases stay empty or have all rows, and"
    " the same command goes on",
    times=6,
)
def kill_storage_move(exercise: Exercise) -> None:
    with _postgres() as server:
        untouched = exercise.finished(exercise.folder / "untouched")
        seconds = 0.0
        for number in range(exercise.times + 1):
            root = _copy(untouched, exercise.folder / f"root{number}")
            urls = [server.create(f"{n}{number}") for n in ("dagster", "mlflow")]
            env = {"DRILL_DAGSTER": urls[0], "DRILL_MLFLOW": urls[1]}
            os.environ.update(env)
            to = ["--dagster", "env:DRILL_DAGSTER", "--mlflow", "env:DRILL_MLFLOW"]
            words = command(root, "storage", "move", *to)
            if number:
                after = exercise.moments.uniform(seconds / 3, seconds)
                killed = killed_after(words, after)
                exercise.count(f"killed after {after:.1f} s")
                if killed and "DRILL" not in root.settings_file.read_text(encoding="utf-8"):
                    succeed(words)
            else:
                start = time.monotonic()
                succeed(words)
                seconds = time.monotonic() - start
            check_settled(exercise, root)
            shutil.rmtree(root.path)


@drill(
    "kill-postgres",
    "kill -9 of Postgres while a refresh trains; the refresh ends in one clear line, and goes on"
    " once Postgres answers",
    times=5,
)
def kill_postgres(exercise: Exercise) -> None:
    with _postgres() as server:
        root = exercise.finished(exercise.folder / "root")
        os.environ["DRILL_DAGSTER"] = server.create("dagster")
        os.environ["DRILL_MLFLOW"] = server.create("mlflow")
        to = ["--dagster", "env:DRILL_DAGSTER", "--mlflow", "env:DRILL_MLFLOW"]
        succeed(command(root, "storage", "move", *to))
        settings = root.settings_file.read_text(encoding="utf-8")
        words = command(root, "refresh", *selecting("evaluator_mouth", "evaluator_eyes"))
        while exercise.done < exercise.times:
            epochs = f"\n[evaluator]\nepochs = {20 + exercise.done}\n"
            root.settings_file.write_text(settings + epochs, encoding="utf-8")
            with running(words) as (process, log):
                _wait(lambda log=log: "stage" in printed(log), "a refresh")
                time.sleep(exercise.moments.uniform(0, 8))
                postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
                os.kill(postmaster, signal.SIGKILL)
                process.wait()
                output = printed(log)
                if process.returncode:
                    exercise.check(clear(output), f"not one clear line: {output[-1500:]}")
                exercise.count(f"the refresh ended with {process.returncode}")
            server.control("restart")
            succeed(words)
        check_settled(exercise, root, fresh=False)


@drill(
    "kill-ui",
    "kill -9 of one server of `gaip3 ui`, which starts it again, and at last of `gaip3 ui` itself,"
    " which leaves no process",
    times=8,
)
def kill_ui(exercise: Exercise) -> None:
    import psutil

    root = exercise.finished(exercise.folder / "root")
    os.environ["GAIP3_ROOT"] = str(root.path)
    ports = [str(free_port()) for _ in range(3)]
    words = ["ui", "--port", ports[0], "--mlflow-port", ports[1], "--label-port", ports[2]]
    with running(command(root, *words)) as (process, log):
        _wait(lambda: "Ctrl-C stops them." in printed(log), "gaip3 ui")
        while exercise.done < exercise.times - 1:
            again = printed(log).count("It is started again.")
            children = sorted(psutil.Process(process.pid).children(), key=lambda p: p.pid)
            victim = exercise.moments.choice(children)
            name = " ".join(victim.cmdline()[1:4])
            victim.kill()
            _wait(
                lambda again=again: printed(log).count("It is started again.") > again,
                f"{name} to be started again",
            )
            exercise.count(f"{name} was started again")
            _wait(lambda: all(_answers(port) for port in ports), "all servers")
            time.sleep(20)  # a server that ends again and again is left
        process.kill()
        process.wait()
        exercise.count("gaip3 ui itself")
        exercise.check(not wait_until_gone(root.path), "processes of gaip3 ui are left")
    del os.environ["GAIP3_ROOT"]


def _answers(port: str) -> bool:
    import httpx

    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def _postgres() -> Any:
    from gaip3_pipeline_tests.postgres import programs, serving

    if not programs():
        raise Skipped("needs Postgres: apt-get install postgresql")
    return serving()


def _wait(ready: Any, what: str, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise Lost(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.1)


def _kill_and_finish(exercise: Exercise, words: Sequence[str], seconds: float) -> None:
    """Kill a refresh that takes ``seconds`` up to five times, then let it end."""
    for _ in range(5):
        after = exercise.moments.uniform(0, seconds / 2)
        if exercise.done == exercise.times or not killed_after(words, after, begins="stage"):
            break
        exercise.count(f"killed {after:.2f} s after its plan")
    succeed(words)


def _copy(root: DataRoot, folder: Path) -> DataRoot:
    return DataRoot(Path(shutil.copytree(root.path, folder, copy_function=shutil.copy2)))


def _with_files(exercise: Exercise) -> DataRoot:
    """A root with pictures and labels on which nothing has run, so that commands start at once."""
    return painted(exercise.folder / "root", "[faces]\nd1 = 150\nfemale = 100\nmale = 50")


def _check_snapshot(exercise: Exercise, root: DataRoot, name: str) -> None:
    from gaip3_pipeline.setup.snapshots import Files, files_of, find, rows_of

    files = Files(root)
    for row in rows_of(files_of(root, find(root, name))):
        files.check(row.sha256, row.path)
    left = [p.name for p in root.path.rglob(".*-*") if p.name.startswith((".writing", ".linking"))]
    exercise.check(not left, f"temporary files are left: {left[:5]}")


def _new(exercise: Exercise) -> DataRoot:
    """An empty folder for a root, in place of the last one."""
    folder = exercise.folder / "pulled"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return DataRoot(folder)


def _pulled(exercise: Exercise) -> DataRoot:
    return DataRoot(exercise.folder / "pulled")


def _files(folder: Path) -> dict[str, bytes]:
    """The content of the files in a folder by name, without its page, which holds times."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".html"
    }
