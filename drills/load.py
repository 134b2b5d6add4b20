"""Load: many labellers, many tabs of the studio, and a long loop of relabelling and refreshing.

    python -m drills.load labels [--labellers 20] [--writes 10000]
    python -m drills.load studio ROOT [--tabs 50] [--minutes 10]
    python -m drills.load soak ROOT [--minutes 120] [--select ASSET ...]

``labels`` writes single labels as fast as the page takes them, and measures the disk's own fsync in
the same run. ``studio`` moves a slider in each of the tabs. ``soak`` relabels through the page of
``gaip3 ui``, refreshes, and measures the processes after each round. ROOT is a finished root, of
which a copy is used."""

import argparse
import asyncio
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from drills.doors import started
from drills.outcomes import Outcome, begun, report, small_root
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.tables.label_store import LabelStore
from gaip3_pipeline_tests.web.processes import free_port

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
SETTLED = 0.25  # share of the samples of a run, at its beginning, that are left out
# a process that grows by less is flat: allocators and caches move by so much
MIB_PER_HOUR, FILES_PER_HOUR = 60.0, 20.0


class Client:
    """A connection to a page of this machine that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def send(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """The status and the body of the answer to a GET, or to a POST of ``body``."""
        data = json.dumps(body).encode() if body is not None else None
        method = "GET" if body is None else "POST"
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]
) -> tuple[int, bytes]:
    """The status and the body of the answer to a POST over a connection that stays open."""
    data, (host, port) = json.dumps(body).encode(), writer.get_extra_info("peername")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    said = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", said)
    return int(said.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


@contextmanager
def syncing(folder: Path, pause: float) -> Iterator[list[float]]:
    """While the block runs, a small file in ``folder`` is appended to and synced again and again;
    the list has the seconds that each fsync took."""
    times, stop = list[float](), threading.Event()

    def work() -> None:
        with (folder / "synced").open("ab", buffering=0) as file:
            while not stop.wait(pause):
                file.write(b"x" * 200)
                began = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


def percentiles(times: list[float]) -> dict[str, float]:
    """The median, the 95th percentile and the maximum, in milliseconds."""
    found = (*np.percentile(times, [50, 95]).tolist(), max(times))
    return {k: round(1e3 * v, 1) for k, v in zip(("p50", "p95", "max"), found, strict=True)}


def labels(labellers: int, writes: int) -> tuple[list[Outcome], list[str]]:
    """Each of ``labellers`` writes its share of ``writes`` labels, of pictures of its own."""
    each, wrong = writes // labellers, list[str]()
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name).resolve()
        root, port = small_root(folder / "root", pictures=10 * labellers), free_port()
        times: list[list[float]] = [[] for _ in range(labellers)]
        told: list[dict[tuple[str, str, str], float]] = [{} for _ in range(labellers)]

        def work(k: int) -> None:
            client, generator = Client(port), np.random.default_rng(k)
            for _ in range(each):
                stem, sex = f"{10 * k + int(generator.integers(10)):04d}", "female"
                attribute = ATTRIBUTES[int(generator.integers(len(ATTRIBUTES)))]
                value = LEVELS[int(generator.integers(len(LEVELS)))]
                new = {"attribute": attribute, "gender": sex, "stem": f"f_{stem}", "value": value}
                began = time.perf_counter()
                asked = {"labels": [new], "who": f"labeller {k}", "session": f"tab {k}"}
                status, body = client.send("/api/labels", asked)
                times[k].append(time.perf_counter() - began)
                if status == 200:
                    told[k][attribute, sex, f"f_{stem}"] = value
                else:
                    wrong.append(f"{status}: {body[:200]!r}")

        with syncing(folder, 0.01) as alone:
            time.sleep(3)
        words = ["label", "--root", str(root.path), "--port", str(port)]
        with started(words, folder / "printed", "Ctrl-C stops") as (_, pid):
            Client(port).send("/api/about")
            began = time.monotonic()
            with syncing(folder, 0.05) as beside:
                threads = [threading.Thread(target=work, args=(k,)) for k in range(labellers)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            seconds = time.monotonic() - began
            memory = psutil.Process(pid).memory_info().rss >> 20
        store = LabelStore(root)
        kept = {(a, *key): v for a in ATTRIBUTES for key, v in store.read(a).items()}
        lost = sum(kept.get(k) != v for mine in told for k, v in mine.items())
        changes = sum(c.who.startswith("labeller") for c in store.history())
        if lost or changes != labellers * each - len(wrong):
            wrong.append(f"{lost} labels lost; {changes} changes in the history")
    flat = [t for of in times for t in of]
    figures = {
        "labellers": labellers,
        "ms": percentiles(flat),
        "fsync_ms_alone": percentiles(alone),
        "fsync_ms_beside": percentiles(beside),
        "writes_per_s": round(len(flat) / seconds, 1),
        "slowest_labeller_p95_ms": max(percentiles(of)["p95"] for of in times),
        "server_mib": memory,
    }
    made = Outcome("load", "labels", len(flat), len(wrong), round(seconds, 1), figures)
    return [made], wrong


def most_turns_of_another(asked_and_answered: list[list[tuple[float, float]]]) -> int:
    """The most answers that one tab got while another waited for its next one.

    ``asked_and_answered[k]`` are the times of tab ``k``'s requests. A fair queue gives one, and one
    more if two requests reach it in another order than they were sent. The numbers of faces say
    less: a tab that asks later than the others loses that time.
    """
    answers = [np.array([end for _, end in of]) for of in asked_and_answered]
    return max(
        (
            int((np.searchsorted(other, ends) - np.searchsorted(other, begins)).max())
            for k, of in enumerate(asked_and_answered)
            if of
            for begins, ends in [np.array(of).T]
            for j, other in enumerate(answers)
            if j != k
        ),
        default=0,
    )


def studio(finished: Path, tabs: int, minutes: float) -> tuple[list[Outcome], list[str]]:
    """A slider moves in each of ``tabs``: how many faces each gets, and what the processes take."""
    wrong, port = list[str](), free_port()
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name).resolve()
        root = _copy(finished, folder / "root")
        until = time.monotonic() + 60 * minutes
        asked_and_answered: list[list[tuple[float, float]]] = [[] for _ in range(tabs)]
        busy = [0]

        async def move(k: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            step = 0
            while time.monotonic() < until:
                step += 1
                values = [(step % 11) / 10, None, None, None, None]
                face = {"latents": {"seed": k}, "values": values}
                asked = {"tab": f"tab{k}", "pane": "face", "faces": [face]}
                began = time.monotonic()
                status, body = await post(reader, writer, "/api/studio/faces", asked)
                if status == 200:
                    asked_and_answered[k].append((began, time.monotonic()))
                elif status == 503:
                    busy[0] += 1
                    await asyncio.sleep(1)
                else:
                    wrong.append(f"{status}: {body[:200]!r}")
                    await asyncio.sleep(1)
            writer.close()

        async def move_all() -> None:
            await asyncio.gather(*map(move, range(tabs)))

        words = ["label", "--root", str(root.path), "--port", str(port)]
        with (
            started(words, folder / "printed", "Ctrl-C stops") as (_, pid),
            ThreadPoolExecutor(1) as pool,
        ):
            warm = {
                "tab": "t",
                "pane": "p",
                "faces": [{"latents": {"seed": 1}, "values": [None] * 5}],
            }
            status, body = Client(port).send("/api/studio/faces", warm)
            if status != 200:
                raise RuntimeError(f"the studio does not draw: {body!r}")
            until = time.monotonic() + 60 * minutes
            # in one thread: many would wait for each other, and their times say when they ran
            moving = pool.submit(asyncio.run, move_all())
            samples = list[dict[str, dict[str, float]]]()
            labelling = Client(port)
            answered = list[float]()
            while time.monotonic() < until:
                samples.append(measured(pid))
                began = time.perf_counter()
                labelling.send("/api/labels/mouth")
                answered.append(time.perf_counter() - began)
                time.sleep(2)
            moving.result()
    drawn = [len(of) for of in asked_and_answered]
    others = most_turns_of_another(asked_and_answered)
    if others > 2:
        wrong.append(f"turns are not fair: while a tab waited, another got {others} faces")
    grown, of_processes = growth(samples, minutes / 60)
    wrong += grown
    figures = {
        "tabs": tabs,
        "faces_of_a_tab": [min(drawn), max(drawn)],
        "most_turns_of_another": others,
        "ms": percentiles([end - began for of in asked_and_answered for began, end in of]),
        "label_page_ms": percentiles(answered),
        "told_busy": busy[0],
        "processes": of_processes,
    }
    return [Outcome("load", "studio", sum(drawn), len(wrong), 60 * minutes, figures)], wrong


def soak(finished: Path, minutes: float, select: list[str]) -> tuple[list[Outcome], list[str]]:
    """Relabel through the page and refresh, again and again, while ``gaip3 ui`` runs."""
    wrong, rounds, port = list[str](), 0, free_port()
    samples = list[dict[str, dict[str, float]]]()
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name).resolve()
        root = _copy(finished, folder / "root")
        words = ["ui", "--root", str(root.path), "--label-port", str(port)]
        words += ["--port", str(free_port()), "--mlflow-port", str(free_port())]
        began = time.monotonic()
        with started(words, folder / "printed", "Ctrl-C stops") as (_, pid):
            client, generator = Client(port), np.random.default_rng(0)
            sizes = list[float]()
            while time.monotonic() - began < 60 * minutes:
                rounds += 1
                client = Client(port)
                _, body = client.send("/api/labels/mouth")
                columns = json.loads(body)["columns"]
                for i in generator.integers(0, len(columns["stem"]), 10).tolist():
                    of = {k: columns[k][i] for k in ("gender", "stem")}
                    new = {"attribute": "mouth", "value": LEVELS[rounds % len(LEVELS)], **of}
                    asked = {"labels": [new], "who": "the drill", "session": "soak"}
                    status, body = client.send("/api/labels", asked)
                    if status != 200:
                        wrong.append(f"a label: {status} {body[:200]!r}")
                for path in ("/api/changes?since=0", "/api/refreshes", "/api/studio"):
                    client.send(path)
                choice = [w for asset in select for w in ("--select", asset)]
                done = subprocess.run(
                    gaip3("refresh", "--root", str(root.path), *choice),
                    capture_output=True,
                    text=True,
                    timeout=1800,
                )
                if done.returncode:
                    wrong.append(f"round {rounds}: {done.stderr.strip()[-300:]}")
                samples.append(measured(pid))
                sizes.append(_size(root.path) / 2**20)
                print(f"  round {rounds}: {_shown(samples[-1])}, {sizes[-1]:.1f} MiB", flush=True)
        seconds = time.monotonic() - began
    grown, of_processes = growth(samples, seconds / 3600)
    wrong += grown
    figures = {
        "rounds": rounds,
        "select": select,
        "processes": of_processes,
        "root_mib": [round(sizes[0], 1), round(sizes[-1], 1)],
        "root_mib_per_round": round((sizes[-1] - sizes[0]) / max(1, rounds - 1), 2),
    }
    return [Outcome("load", "soak", rounds, len(wrong), round(seconds, 1), figures)], wrong


def measured(pid: int) -> dict[str, dict[str, float]]:
    """Memory (MiB), open files and threads of a process and of those that it started, by name."""
    found: dict[str, dict[str, float]] = {}
    above = psutil.Process(pid)
    for process in [above, *above.children(recursive=True)]:
        try:
            line = " ".join(process.cmdline())
            name = _name_of(line)
            of = {
                "mib": process.memory_info().rss / 2**20,
                "files": process.num_fds(),
                "threads": process.num_threads(),
            }
        except psutil.Error:
            continue
        before = found.get(name, dict.fromkeys(of, 0.0))
        found[name] = {k: before[k] + v for k, v in of.items()}
    return found


def _name_of(line: str) -> str:
    for mark, name in (
        ("studio_process", "studio"),
        ("dagster_pages", "dagster"),
        ("code-server", "code server"),
        ("api grpc", "code server"),
        ("_daemon", "daemon"),
        ("mlflow", "mlflow"),
        ("gaip3_pipeline.cli label", "label page"),
        ("gaip3_pipeline.cli ui", "gaip3 ui"),
        ("refresh --root", "planner"),
    ):
        if mark in line:
            return name
    return "others"


def growth(
    samples: list[dict[str, dict[str, float]]], hours: float
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """What grows, in words, and for each process the first and the last figures after it has
    settled, and the growth of its memory per hour by a line through all of them."""
    settled = samples[int(SETTLED * len(samples)) :]
    wrong, figures = list[str](), dict[str, dict[str, Any]]()
    for name in sorted(set.intersection(*map(set, settled))):
        if name == "planner":  # ends and begins anew
            continue
        rows = {k: [s[name][k] for s in settled] for k in ("mib", "files", "threads")}
        figures[name] = {k: [round(v[0]), round(v[-1])] for k, v in rows.items()}
        if len(settled) < 4:
            continue
        at = np.linspace(0, hours * (1 - SETTLED), len(settled))
        slopes = {k: float(np.polyfit(at, v, 1)[0]) for k, v in rows.items()}
        figures[name]["mib_per_hour"] = round(slopes["mib"], 1)
        rising = statistics.median(rows["mib"][-3:]) - statistics.median(rows["mib"][:3])
        if slopes["mib"] > MIB_PER_HOUR and rising > 0.1 * rows["mib"][0]:
            wrong.append(f"{name} grows by {slopes['mib']:.0f} MiB an hour")
        if max(slopes["files"], slopes["threads"]) > FILES_PER_HOUR and rows["files"][-1] > 8:
            wrong.append(f"{name}: files {rows['files']}, threads {rows['threads']}")
    return wrong, figures


def _shown(sample: dict[str, dict[str, float]]) -> str:
    return ", ".join(
        f"{name} {of['mib']:.0f} MiB {of['files']:.0f} files {of['threads']:.0f} threads"
        for name, of in sample.items()
    )


def _size(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_blocks * 512
        except FileNotFoundError:  # passing files of databases
            continue
    return found


def _copy(finished: Path, folder: Path) -> DataRoot:
    return DataRoot(Path(shutil.copytree(finished, folder, copy_function=shutil.copy2)))


def main() -> None:
    """Run one kind of load, print what went wrong, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_labels, of_studio, of_soak = map(kinds.add_parser, ("labels", "studio", "soak"))
    of_labels.add_argument("--labellers", type=int, default=20)
    of_labels.add_argument("--writes", type=int, default=10_000)
    of_studio.add_argument("root", type=Path)
    of_studio.add_argument("--tabs", type=int, default=50)
    of_studio.add_argument("--minutes", type=float, default=10)
    of_soak.add_argument("root", type=Path)
    of_soak.add_argument("--minutes", type=float, default=120)
    of_soak.add_argument("--select", nargs="+", default=[])
    a, this_run = parser.parse_args(), begun("drills.load")
    os.environ.pop("GAIP3_ROOT", None)
    if a.kind == "labels":
        outcomes, wrong = labels(a.labellers, a.writes)
    elif a.kind == "studio":
        outcomes, wrong = studio(a.root, a.tabs, a.minutes)
    else:
        outcomes, wrong = soak(a.root, a.minutes, a.select)
    for line in wrong[:50]:
        print(f"  {line}", flush=True)
    sys.exit(1 if report(outcomes, this_run) else 0)


if __name__ == "__main__":
    main()
