"""Odd requests to every route of the label page and the studio, over plain sockets.

Each request is sent to a real server; it must be answered within 10 s by a status below 500,
without the content of a file outside the root, and the server must not print a traceback."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hypothesis import strategies as st

from drills.odd import Draw, mutated, odd_json, try_all
from drills.outcomes import Outcome, small_root, start
from gaip3_pipeline.web.guard import PATIENCE
from gaip3_pipeline_tests.web.processes import free_port

SECONDS, BYTES = 10.0, 2**30
CANARY = "nobody may read this 4711"
STARTING = 120.0  # seconds
TRICKS = [
    *("..", "../..", "..%2f..%2foutside", "%2e%2e%2foutside", "..\\outside", "%00", "a%00.jpg"),
    *("....//outside", "%c0%ae%c0%ae/outside", "/etc/passwd", "f_0000", "F_0000", "é", "%ff", " "),
    *("x" * 300, "x" * 9000, "f_0000.jpg", "f_0000%0d%0aX-Evil:%201", "~", "*", ";", "%", "#"),
]
ROUTES = [
    *("/", "/label", "/api/about", "/api/labels/{a}", "/api/labels", "/api/undo", "/api/history"),
    *("/api/restore/{n}", "/api/changes", "/api/similar/{a}/{g}/{s}", "/api/examples", "/page/{s}"),
    *("/picture/region/{a}/{g}/{s}", "/picture/thumbnail/{g}/{s}", "/picture/large/{g}/{s}"),
    *("/picture/example/{a}/{n}", "/picture/asset/{s}", "/api/plan", "/api/refreshes"),
    *("/api/refreshes/stop", "/picture/refresh/{s}/{s}/{s}", "/api/studio", "/api/studio/faces"),
    *("/api/studio/retouch", "/api/studio/photograph", "/api/studio/picture.png"),
    *("/api/studio/models", "/api/studio/progress/{s}.jpg", "/api/studio/faces.zip", "/{s}"),
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "PROPFIND"]
LABEL = {"attribute": "mouth", "gender": "female", "stem": "f_0000", "value": 0.5}
FACES = {"tab": "t", "pane": "p", "faces": [{"latents": {"seed": 7}, "values": [0.5] * 5}]}
BODIES = [
    {"labels": [LABEL], "who": "kim", "session": "s"},
    {"who": "kim", "session": "s"},
    {k: v for k, v in LABEL.items() if k != "value"} | {"chosen": True},
    {"warm_start": "no"},  # never one that starts a refresh
    FACES,
    FACES | {"fidelity": 0.5},
]
HOSTS = ["evil.example", "[", "[::1", "[::1]:{port}", "127.0.0.1@evil.example", "10.evil.example"]
HOSTS += ["127.0.0.1.evil.example:{port}", "", "localhost:{port}", "127.0.0.1:99999999", "\xff"]
HEADERS = [
    *("Origin: http://evil.example", "Origin: null", "Origin: http://[", "Origin: \xff"),
    *("Sec-Fetch-Site: cross-site", "Content-Length: -1", "Content-Length: x", "Cookie: \xff=;="),
    *("Content-Length: 99999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: CHUNKED"),
    *("Content-Type: text/plain", "Content-Type: multipart/form-data", "Range: bytes=-1,0-,x"),
    *("If-Modified-Since: x", "Expect: 100-continue", "Upgrade: websocket", "X: " + "y" * 70_000),
    *("Host: evil.example", "Cookie: " + "a=b; " * 3000, "X-Forwarded-Host: evil.example", "no"),
]
QUERIES = [
    *("since=0", "since=-1", "since=" + "9" * 5000, "width=0", "width=10", "width=nan", "view=x"),
    *("attribute=mouth&gender=female&stem=f_0000", "attribute=x&gender=../..&stem=%00", "token=x"),
    *("tab=t&pane=p", "tab=t&pane=p&box=0&box=0&box=1&box=nan", "tab=..%2f&pane=%0d%0a", "%ff"),
    "tab=t&n=2&seed=1&temperature=nan&guidance=1&values=nan,,,,",
    "tab=t&n=2&seed=1&temperature=1&guidance=1&values=x,1e999",
    "tab=t&n=99999&seed=9007199254740993&temperature=1&guidance=1",
    "tab=t&n=2&seed=1&temperature=1&guidance=1&values=1,2,3",
]


@dataclass(frozen=True)
class Answer:
    """``status`` 0: the connection was closed without an answer."""

    status: int
    head: bytes
    body: bytes
    seconds: float


def ask(port: int, request: bytes, pauses: float = 0.0, limit: float = SECONDS + 5) -> Answer:
    """Send ``request``, in three pieces if there are ``pauses`` (seconds) between them, and read
    until the server closes the connection or ``limit`` seconds have passed. A client that has not
    sent all that it says ends its side after a second."""
    began, got = time.monotonic(), b""
    size = max(1, -(-len(request) // 3) if pauses else len(request))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=limit) as connection:
            try:
                for at in range(0, len(request), size):
                    connection.sendall(request[at : at + size])
                    if at + size < len(request):
                        time.sleep(pauses)
            except OSError:  # it answered before it had all, and closed
                pass
            if not is_whole(request) and limit == SECONDS + 5:
                time.sleep(1)
                connection.shutdown(socket.SHUT_WR)
            while time.monotonic() - began < limit:
                piece = connection.recv(65536)
                if not piece:
                    break
                got += piece
    except OSError:
        pass
    found = re.match(rb"HTTP/1\.1 (\d+)", got)
    head, _, body = got.partition(b"\r\n\r\n")
    return Answer(int(found[1]) if found else 0, head, body, time.monotonic() - began)


def is_whole(request: bytes) -> bool:
    """Whether ``request`` has as many bytes as it says."""
    head, end, body = request.partition(b"\r\n\r\n")
    said = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) >= (int(said[1][:9]) if said else 0)


def plain(port: int, method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """A sound request, of which the server closes the connection."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *headers]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, Path, int]]:
    """The label page of a small root below ``folder``: its port, its log and its pid.

    Its settings are damaged after the start, so that no request can start a refresh."""
    root = small_root(folder / "root")
    (folder / "outside").write_text(CANARY, encoding="utf-8")
    port, log = free_port(), folder / "label.log"
    process = start(["label", "--root", str(root.path), "--port", str(port)], log)
    try:
        until = time.monotonic() + STARTING
        while ask(port, plain(port, "GET", "/api/about")).status != 200:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no label page: {log.read_text(encoding='utf-8')}")
            time.sleep(0.3)
        root.settings_file.write_text("preset = [\n", encoding="utf-8")
        yield port, log, process.pid
    finally:
        process.terminate()
        process.wait(20)


def request(draw: Draw, port: int) -> bytes:
    """A request that is odd in some of its parts."""
    attributes, sexes = ["mouth", "eyes", "x", ".."], ["female", "male", "..", "x"]
    path = draw(st.sampled_from(ROUTES))
    for mark, values in (("{a}", attributes), ("{g}", sexes), ("{n}", ["0", "4", "-1", "9" * 400])):
        path = path.replace(mark, draw(st.sampled_from(values)))
    while "{s}" in path:
        path = path.replace("{s}", draw(st.sampled_from(["f_0000", "label.js", *TRICKS])), 1)
    path = quote(path, safe="/%\\;*~ " if not draw(st.integers(0, 9)) else "/%\\;*~")
    if draw(st.booleans()):
        path += "?" + draw(st.sampled_from(QUERIES))
    body = b""
    method = draw(st.sampled_from(["GET", "GET", "POST", "POST", *METHODS]))
    if method in ("POST", "PUT", "PATCH"):
        sound = [json.dumps(b).encode() for b in BODIES]
        body = draw(st.sampled_from(sound)) if draw(st.booleans()) else odd_json(draw, sound)
        if b'"warm_start": true' in body or b'"warm_start": false' in body:
            body = b"{}"
    headers = [draw(st.sampled_from(HEADERS)) for _ in range(draw(st.integers(0, 2)))]
    whole = plain(port, method, path, body, *headers)
    if not draw(st.integers(0, 4)):
        host = draw(st.sampled_from(HOSTS)).replace("{port}", str(port)).encode("latin-1")
        whole = whole.replace(f"Host: 127.0.0.1:{port}".encode(), b"Host: " + host, 1)
    if not draw(st.integers(0, 9)):
        whole = mutated(draw, [whole], most=2)
    return whole


def slow(port: int) -> list[str]:
    """Heads and bodies that stop arriving, all at once, and meanwhile a sound request. Returns what
    went wrong."""
    wrong: list[str] = []
    photograph = "POST /api/studio/photograph?tab=t&pane=p HTTP/1.1"
    labels, large = "POST /api/labels HTTP/1.1", "Content-Length: 30000000"
    host = f"\r\nHost: 127.0.0.1:{port}\r\n"
    picture = ("a photograph that stops", f"{photograph}{host}{large}\r\n\r\nx", 408)
    stopping = [
        ("nothing at all", "", 0),
        ("a head that stops", f"{labels}{host}X", 0),
        ("labels that stop", f'{labels}{host}Content-Length: 500\r\n\r\n{{"lab', 408),
        *[picture] * 2,
    ]

    def stop(name: str, beginning: str, status: int) -> None:
        answer = ask(port, beginning.encode(), limit=PATIENCE + 8)
        if answer.status != status or answer.seconds > PATIENCE + 3:
            wrong.append(f"{name}: {answer.status} after {answer.seconds:.1f} s")

    threads = [threading.Thread(target=stop, args=of) for of in stopping]
    for thread in threads:
        thread.start()
    time.sleep(1)
    other = ask(port, plain(port, "GET", "/api/about"))
    if other.status != 200 or other.seconds > 2:
        wrong.append(f"a sound request meanwhile: {other.status} after {other.seconds:.1f} s")
    for thread in threads:
        thread.join()
    third = ask(port, plain(port, "POST", "/api/studio/photograph?tab=t&pane=q", b"no picture"))
    if third.status != 415:
        wrong.append(f"a photograph afterwards: {third.status} after {third.seconds:.1f} s")
    endless = ask(port, f"{labels}{host}X: ".encode() + b"x" * 3_000_000)
    if endless.status not in (0, 400):
        wrong.append(f"an endless head: {endless.status}")
    return wrong


def complaint_of(answer: Answer, sent: bytes) -> str:
    """What is wrong with an answer; empty if nothing is."""
    said = f"{answer.status} after {answer.seconds:.1f} s to {sent[:200]!r}"
    if answer.seconds > SECONDS and answer.status != 408:
        return said
    if answer.status >= 500 or CANARY.encode() in answer.body or b"root:x:0" in answer.body:
        return f"{said}: {answer.body[:200]!r}"
    if b"\nx-evil" in answer.head.lower():
        return f"{said}: a header of the request's: {answer.head[:300]!r}"
    if b"Traceback" in answer.body:
        return f"{said}: {answer.body[:300]!r}"
    return ""


def drill(
    inputs: int, seed: int, folder: Path, with_slow: bool = True
) -> tuple[Outcome, list[str]]:
    """Send ``inputs`` odd requests, and some slow ones, which take ten seconds."""
    began, wrong, done, slowest = time.monotonic(), list[str](), 0, 0.0
    with serving(folder) as (port, log, pid):

        def attempt(draw: Draw) -> None:
            nonlocal done, slowest
            sent = request(draw, port)
            answer = ask(port, sent, pauses=0.05 if not draw(st.integers(0, 9)) else 0.0)
            slowest = max(slowest, answer.seconds)
            wrong.extend(filter(None, [complaint_of(answer, sent)]))
            done += 1

        try_all(attempt, inputs, seed)
        wrong += slow(port) if with_slow else []
        if ask(port, plain(port, "GET", "/api/about")).status != 200:
            wrong.append("the page does not answer any more")
        printed = log.read_text(encoding="utf-8", errors="replace")
        for part in printed.split("Traceback (most recent call last)")[1:]:
            last = [line for line in part.splitlines() if line and line[0] not in " |+"][:1]
            wrong.append(f"a traceback in the log: {last}")
        status = Path(f"/proc/{pid}/status").read_text()
        peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
        if peak > BYTES:
            wrong.append(f"the server took {peak >> 20} MiB")
        made = {p.name for p in folder.iterdir()} - {"root", "outside", "label.log"}
        if made:
            wrong.append(f"files outside the root: {made}")
    figures = {"slowest": round(slowest, 2), "peak_mib": peak >> 20}
    seconds = round(time.monotonic() - began, 1)
    return Outcome("mutations", "requests", done, len(wrong), seconds, figures, seed), wrong
