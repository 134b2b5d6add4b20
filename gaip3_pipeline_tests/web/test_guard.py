"""The guard of the pages, and its connections: odd headers are refused, and slow clients are left,
on a real server."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from gaip3_pipeline.web import connections, guard
from gaip3_pipeline.web.guard import HEADERS, Guard

PATIENCE = 0.4


async def _length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


APP = Starlette(routes=[Route("/{path:path}", _length, methods=["GET", "POST"])])


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server whose patience is short."""
    for module in (guard, connections):
        monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(Guard(APP), **connections.server_options()))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def answer(port: int, *pieces: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """What the server sends until it closes, and after how many seconds."""
    began, got = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:  # the server has answered and closed
            pass
        try:
            while piece := connection.recv(65536):
                got += piece
        except OSError:
            pass
    return got, time.monotonic() - began


def head(port: int, length: int) -> bytes:
    lines = ["POST / HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def test_a_client_that_stops_sending_is_left(port: int) -> None:
    for begun in (b"", b"POST / HTTP/1.1\r\nHost: 127"):
        got, seconds = answer(port, begun)
        assert (got, seconds < PATIENCE + 2) == (b"", True)
    got, seconds = answer(port, head(port, 10) + b"ab")
    assert got.startswith(b"HTTP/1.1 408 ")
    assert PATIENCE <= seconds < PATIENCE + 2


def test_a_client_that_sends_steadily_is_waited_for_longer_than_the_patience(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "SLOWEST", 100)
    pieces = [b"x" * 50] * 10
    got, seconds = answer(port, head(port, 500), *pieces, pause=PATIENCE / 4)
    assert got.endswith(b"\r\n\r\n500")
    assert seconds > 2 * PATIENCE
    # a byte now and then is not enough
    got, _ = answer(port, head(port, 500), *[b"x"] * 20, pause=PATIENCE / 4)
    assert got.startswith(b"HTTP/1.1 408 ")


def test_an_endless_head_is_refused(port: int) -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * connections.MAX_HEAD)
    got, _ = answer(port, endless)
    assert got.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "["},
        {"Host": "10.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://["},
        {"Origin": "null"},
        {"Transfer-Encoding": "CHUNKED"},
        {"Content-Length": str(10**12)},
    ],
)
def test_odd_headers_are_refused_with_the_headers_of_every_answer(
    headers: dict[str, str],
) -> None:
    client = TestClient(Guard(APP), base_url="http://127.0.0.1:3100")
    refused = client.post("/", headers=headers)
    assert refused.status_code == 403
    assert {k: refused.headers[k] for k in HEADERS} == HEADERS
    assert client.post("/", content=b"abc").text == "3"


def test_the_link_with_the_token_leads_to_no_other_site() -> None:
    client = TestClient(Guard(APP, "right"), base_url="http://page.example", follow_redirects=False)
    for path in ("//evil.example/a", "/\\evil.example/a"):
        led = client.get(f"http://page.example{path}?token=right&tab=2")
        assert (led.status_code, led.headers["location"]) == (303, "/evil.example/a?tab=2")


def test_links_of_other_sites_lead_to_the_entrances_only() -> None:
    client = TestClient(Guard(APP, entrances=("/", "/first")), base_url="http://127.0.0.1:3100")
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/first", headers=cross).status_code == 200
    assert client.get("/second", headers=cross).status_code == 403
    assert client.post("/first", headers=cross).status_code == 403
