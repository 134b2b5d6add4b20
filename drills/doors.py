"""Doors: who gets an answer of the servers, what listens where, and whether a secret is written.

    python -m drills.doors [--quick]

``gaip3 ui`` and ``gaip3 label --host`` are started on small roots. Every server gets requests of
other hosts and sites, paths that lead out, headers with line ends, bodies that are too large or
unpack to much, and wrong tokens. ``--quick`` starts the label page only. The last step looks the
locked packages up among the known vulnerabilities (``uv audit``), which needs the network."""

import argparse
import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil

from drills.mutations import bombs
from drills.outcomes import Outcome, begun, report, small_root, start
from drills.requests import CANARY, STARTING, Answer, ask, plain
from gaip3_pipeline.layout import REPOSITORY, DataRoot
from gaip3_pipeline.web.guard import MAX_BODY, Guard, new_token
from gaip3_pipeline.web.studio import UPLOAD, UPLOADS
from gaip3_pipeline_tests.web.processes import free_port

BYTES = 2**30
TIMED = 4000  # refusals of each of two wrong tokens
HOSTS = [
    *("evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "10.evil.example", "[", ""),
    *("192.168.evil.example:{port}", "0x7f000001", "2130706433", "169.254.169.254", "localhost."),
    *("evil.example@127.0.0.1.evil.example", "[::ffff:10.0.0.1]", "127.0.0.1:1@evil.example"),
]
ORIGINS = ["http://evil.example", "https://127.0.0.1.evil.example", "null", "http://[", "file://"]
ORIGINS += ["http://10.evil.example", "http://evil.example:{port}", "http://localhost.evil.example"]
OUT = [
    "/../outside",
    "/..%2f..%2foutside",
    "/%2e%2e/%2e%2e/outside",
    "//etc/passwd",
    "/..\\outside",
]
BASES = {
    "label": ["/page", "/picture/large/female", "/picture/asset", "/picture/refresh/a/before", ""],
    "dagster": ["", "/logs", "/notebook", "/download_debug", "/_next", "/static"],
    "mlflow": [
        *("", "/static-files", "/get-artifact?run_id=a&path=", "/static-files/static"),
        *("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts"),
        "/model-versions/get-artifact?name=a&version=1&path=",
    ],
}
PAGES = {"label": "/api/about", "dagster": "/server_info", "mlflow": "/"}
# requests that change something, as a page of another site could send them without a preflight
CHANGES = {
    "label": [("POST", "/api/undo"), ("POST", "/api/refreshes"), ("POST", "/api/studio/faces")],
    "dagster": [("GET", "/graphql?query=mutation%7B__typename%7D"), ("POST", "/graphql")],
    "mlflow": [
        ("POST", "/api/2.0/mlflow/experiments/create"),
        ("POST", "/ajax-api/2.0/mlflow/experiments/delete"),
    ],
}
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KAGGLE_KEY", "GAIP3_TEST_PASSWORD")


class Doors:
    """The tries of one run: how often each was made, and what went wrong."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.wrong: list[str] = []

    @contextmanager
    def trying(self, what: str) -> Iterator[Callable[[str], None]]:
        """A function that counts a try; its text is what went wrong, "" if nothing did."""
        began, n, wrong = time.monotonic(), 0, list[str]()

        def tried(problem: str) -> None:
            nonlocal n
            n += 1
            if problem:
                wrong.append(f"{what}: {problem}")

        yield tried
        self.wrong += wrong
        seconds = round(time.monotonic() - began, 1)
        self.outcomes.append(Outcome("doors", what, n, len(wrong), seconds, {}))


def refused(answer: Answer, asked: str = "") -> str:
    """Empty if a request was refused, or its connection closed; else what was answered."""
    if answer.status in (0, 400, 403):
        return ""
    return f"{asked} {answer.status}: {answer.head[:80]!r} {answer.body[:80]!r}"


def with_host(request: bytes, port: int, host: str) -> bytes:
    """``request`` to the host ``host``."""
    own = f"Host: 127.0.0.1:{port}".encode()
    return request.replace(own, f"Host: {host.replace('{port}', str(port))}".encode(), 1)


def try_server(doors: Doors, name: str, port: int) -> None:
    """Requests of other hosts and sites, and paths that lead out, to one server."""
    sound = ask(port, plain(port, "GET", PAGES[name]))
    with doors.trying(f"{name}: foreign hosts (rebinding)") as tried:
        tried("" if sound.status == 200 else f"its own page: {sound.status}")
        for host in HOSTS:
            for method, path in [("GET", PAGES[name]), *CHANGES[name]]:
                answer = ask(port, with_host(plain(port, method, path), port, host))
                tried(refused(answer, asked=f"{host} {path}"))
    with doors.trying(f"{name}: foreign origins") as tried:
        for origin in ORIGINS:
            for method, path in CHANGES[name]:
                header = f"Origin: {origin.replace('{port}', str(port))}"
                for kind in ("application/json", "text/plain"):
                    headers = (header, f"Content-Type: {kind}", "Sec-Fetch-Site: cross-site")
                    answer = ask(port, plain(port, method, path, b"", *headers))
                    tried(refused(answer, asked=f"{origin} {path}"))
    with doors.trying(f"{name}: paths that lead out") as tried:
        for base in BASES[name]:
            for out in OUT:
                for path in {base + out, base + quote(out, safe="/?&=")}:
                    answer = ask(port, plain(port, "GET", path))
                    shows = any(s in answer.body for s in (CANARY.encode(), b"root:x:0"))
                    # Dagster's own pages answer 500 to a run that is not there
                    failed = name == "label" and answer.status >= 500
                    tried(f"{path}: {answer.body[:80]!r}" if shows or failed else "")
    with doors.trying(f"{name}: headers with line ends") as tried:
        for at in ("/{}", "/?a={}", PAGES[name] + "?token={}"):
            path = at.format("%0d%0aX-Evil:%201%0d%0a%0d%0abody")
            answer = ask(port, plain(port, "GET", path))
            tried(path if b"x-evil: 1" in answer.head.lower() else "")


def try_websocket(doors: Doors, port: int) -> None:
    """A websocket of Dagster from a page of another site, and of its own."""
    from websockets.sync.client import connect

    with doors.trying("dagster: websockets of other sites") as tried:
        for origin in [f"http://127.0.0.1:{port}", *ORIGINS[:3]]:
            own = origin.startswith("http://127.0.0.1:")
            try:
                with connect(
                    f"ws://127.0.0.1:{port}/graphql",
                    additional_headers={"Origin": origin},
                    subprotocols=["graphql-ws"],  # type: ignore[list-item]
                    open_timeout=10,
                ):
                    tried("" if own else f"{origin} was let in")
            except Exception as e:  # of the library, by the kind of refusal
                tried(f"{origin}: {e}" if own else "")


def try_bodies(doors: Doors, port: int, pid: int) -> None:
    """Bodies that are too large, or unpack to much, to the label page and the studio."""
    photograph = f"{UPLOADS}?tab=t&pane=p"
    with doors.trying("label: bodies that are too large") as tried:
        for path, most in (
            ("/api/labels", MAX_BODY),
            ("/api/undo", MAX_BODY),
            (photograph, UPLOAD),
        ):
            for length in (most + 1, 10**9, 10**15):
                head = plain(port, "POST", path, b"", f"Content-Length: {length}")
                tried(refused(ask(port, head + b"x" * 100_000, limit=12)))
            for coding in ("chunked", "CHUNKED", "gzip, chunked", "identity"):
                head = plain(port, "POST", path, b"", f"Transfer-Encoding: {coding}")
                tried(refused(ask(port, head + b"5\r\nhello\r\n" * 1000, limit=12)))
    with doors.trying("studio: pictures that unpack to much") as tried:
        for data in bombs():
            answer = ask(port, plain(port, "POST", photograph, data), limit=60)
            fine = answer.status in (415, 422) and answer.seconds < 10
            tried("" if fine else f"{answer.status} after {answer.seconds:.1f} s to {data[:40]!r}")
        for process in [p for p in psutil.process_iter() if _is_below(p, pid)]:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
            tried(f"process {process.pid} took {peak >> 20} MiB" if peak > BYTES else "")


def _is_below(process: psutil.Process, pid: int) -> bool:
    try:
        return process.pid == pid or any(p.pid == pid for p in process.parents())
    except psutil.Error:
        return False


def try_listening(doors: Doors, pid: int) -> None:
    """Every socket of the servers is on loopback, or a file that others cannot open."""
    with doors.trying("what listens") as tried:
        for process in [p for p in psutil.process_iter() if _is_below(p, pid)]:
            for found in process.net_connections("all"):
                if found.family == socket.AF_UNIX and found.laddr and found.laddr[0] == "/":
                    file = Path(found.laddr)
                    # who may not write to a socket cannot connect to it
                    closed = (
                        not file.stat().st_mode & 0o002 or not file.parent.stat().st_mode & 0o007
                    )
                    tried("" if closed else f"{file} is open to others")
                elif found.status == psutil.CONN_LISTEN:
                    address = found.laddr.ip
                    tried("" if address in ("127.0.0.1", "::1") else f"{process.name()}: {address}")


def try_secrets(doors: Doors, root: DataRoot, pid: int, kept: list[str]) -> None:
    """No secret is in a file of the root or in a command line."""
    with doors.trying("secrets in files and command lines") as tried:
        places = {p: p.read_bytes() for p in root.path.parent.rglob("*") if p.is_file()}
        for process in [p for p in psutil.process_iter() if _is_below(p, pid)]:
            line = Path(f"/proc/{process.pid}/cmdline")
            places[line] = line.read_bytes()
        for path, content in places.items():
            tried(f"{path}" if any(secret.encode() in content for secret in kept) else "")


def try_tokens(doors: Doors, port: int, token: str) -> None:
    """Missing, wrong and right tokens at a page that others reach."""
    with doors.trying("label --host: missing and wrong tokens") as tried:
        flipped = token[:-1] + ("a" if token[-1] != "a" else "b")
        cookie = f"gaip3_000000000000={token}"
        for wrong in (
            "",
            "x",
            token[:-1],
            flipped,
            token.swapcase(),
            token + "x",
            "%00",
            token[::-1],
        ):
            tried(refused(ask(port, plain(port, "GET", f"/?token={quote(wrong)}"))))
            tried(refused(ask(port, plain(port, "GET", f"/api/about?a=b&token={quote(wrong)}"))))
        for headers in ((), (f"Cookie: {cookie}",), (f"Authorization: Bearer {token}",)):
            for path in ("/", "/api/about", "/page/label.js", "/picture/asset/x", UPLOADS):
                tried(refused(ask(port, plain(port, "GET", path, b"", *headers))))
        first = ask(port, plain(port, "GET", f"//evil.example/?token={token}"))
        place = re.search(rb"location: (\S+)", first.head, re.IGNORECASE)
        given = re.search(rb"set-cookie: ([^;]+)([^\r]*)", first.head, re.IGNORECASE)
        tried("" if place and place[1].startswith(b"/evil") else f"leads away: {first.head!r}")
        tried("" if given and b"httponly" in given[2].lower() else f"the cookie: {first.head!r}")
        second = plain(
            port, "GET", "/api/about", b"", f"Cookie: {given[1].decode() if given else ''}"
        )
        tried("" if ask(port, second).status == 200 else "the right token is refused")


def time_tokens(doors: Doors) -> None:
    """Whether the time of a refusal depends on how much of a token is right."""

    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("a wrong token was let in")

    async def send(_message: object) -> None: ...

    token = new_token()
    guard = Guard(app, token)
    wrong = ["~" + token[1:], token[:-1] + "~"]

    async def measure() -> list[list[int]]:
        times: list[list[int]] = [[], []]
        for i in range(2 * TIMED):
            which = i % 2
            query = f"token={wrong[which]}".encode()
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            began = time.perf_counter_ns()
            await guard({**scope, "query_string": query}, None, send)  # type: ignore[arg-type]
            times[which].append(time.perf_counter_ns() - began)
        return times

    began = time.monotonic()
    first, last = asyncio.run(measure())
    middle = [statistics.median(t) for t in (first, last)]
    # of each half of the tries, so that the noise of the median is known
    noise = max(
        abs(statistics.median(t[: TIMED // 2]) - statistics.median(t[TIMED // 2 :]))
        for t in (first, last)
    )
    apart = abs(middle[0] - middle[1])
    wrong_times = apart > max(4 * noise, 0.05 * middle[0])
    figures = {"first_ns": middle[0], "last_ns": middle[1], "noise_ns": noise}
    seconds = round(time.monotonic() - began, 1)
    what = "label --host: time of a refusal, first or last letter wrong"
    doors.outcomes.append(Outcome("doors", what, 2 * TIMED, int(wrong_times), seconds, figures))
    if wrong_times:
        doors.wrong.append(f"{what}: {figures}")


def audit(doors: Doors) -> None:
    """Look the locked packages up among the known vulnerabilities."""
    began = time.monotonic()
    uv = shutil.which("uv") or str(REPOSITORY / ".uv" / "bin" / "uv")
    words = [uv, "audit", "--frozen", "--output-format", "json"]
    what, n, found, figures = "known vulnerabilities of the lock", 0, 0, {}
    try:
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
        if done.returncode > 1:
            raise OSError(done.stderr.strip().splitlines()[-1])
        said = json.loads(done.stdout)
        n = (REPOSITORY / "uv.lock").read_text(encoding="utf-8").count("[[package]]")
        found = len(said.get("vulnerabilities", []))
        doors.wrong += [f"{what}: {v}"[:300] for v in said.get("vulnerabilities", [])]
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:
        figures = {"not_checked": f"{e}"[:120]}
    seconds = round(time.monotonic() - began, 1)
    doors.outcomes.append(Outcome("doors", what, n, found, seconds, figures))


@contextmanager
def started(words: list[str], log: Path, ready: str, **variables: str) -> Iterator[tuple[str, int]]:
    """A command of ``gaip3`` that serves: what it printed when it was ready, and its pid."""
    process = start(words, log, **variables)
    try:
        until = time.monotonic() + 2 * STARTING
        while ready not in (printed := log.read_text(encoding="utf-8")):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{words[0]} did not start: {printed}")
            time.sleep(0.3)
        yield printed, process.pid
    finally:
        process.terminate()
        process.wait(60)


def run(quick: bool) -> Doors:
    """Try all doors; ``quick``: those of the label page on loopback and with a token."""
    doors = Doors()
    hidden = {name: f"hidden-{secrets.token_hex(12)}" for name in _SECRETS}
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="doors-") as name:
        folder = Path(name).resolve()
        root = small_root(folder / "root")
        (folder / "outside").write_text(CANARY, encoding="utf-8")
        words = ["label", "--root", str(root.path), "--port", str(port)]
        if not quick:
            words[0] = "ui"
            words[3:] = ["--label-port", str(port), "--port", str(port + 1)]
            words += ["--mlflow-port", str(port + 2)]
        with started(words, folder / "printed", "Ctrl-C stops", **hidden) as (printed, pid):
            found = [int(p) for p in re.findall(r"http://127\.0\.0\.1:(\d+)", printed)]
            ports = dict(zip(("label", "studio", "dagster", "mlflow"), found, strict=False))
            for server in PAGES:
                if server in ports:
                    try_server(doors, server, ports[server])
            if "dagster" in ports:
                try_websocket(doors, ports["dagster"])
            try_bodies(doors, ports["label"], pid)
            try_listening(doors, pid)
            try_secrets(doors, root, pid, list(hidden.values()))
        other = small_root(folder / "other" / "root")
        words = ["label", "--root", str(other.path), "--port", str(free_port())]
        log = Path(folder, "link")
        with started([*words, "--host", "0.0.0.0"], log, "Ctrl-C stops", **hidden) as (
            printed,
            pid,
        ):
            [link] = re.findall(r"Label page: (\S+)", printed)
            token = link.partition("token=")[2]
            try_tokens(doors, int(words[-1]), token)
            try_secrets(doors, other, pid, [token, *hidden.values()])
    time_tokens(doors)
    return doors


def main() -> None:
    """Try all doors, print what went wrong, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    a, this_run = parser.parse_args(), begun("drills.doors")
    os.environ.pop("GAIP3_ROOT", None)
    doors = run(a.quick)
    if not a.quick:
        audit(doors)
    for line in doors.wrong:
        print(f"  {line}", flush=True)
    sys.exit(1 if report(doors.outcomes, this_run) else 0)


if __name__ == "__main__":
    main()
