"""A stand-in for Kaggle on loopback, with the part of its interface that a download needs.

It listens as an HTTP proxy: kagglehub can be pointed at ``http://localhost`` but not at a port,
and a proxy also sees every other host that somebody tries to reach."""

import base64
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

USER, KEY = "portrait", "0123456789abcdef"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
LICENCE = "CC0: Public Domain"


@dataclass
class Kaggle:
    """The data sets of the stand-in, its behaviour, and the requests that it received."""

    archives: dict[str, bytes] = field(default_factory=dict)  # handle -> archive
    # bytes after which the first answer with a file, and each answer with a range, is cut off
    cut_after: list[int] = field(default_factory=list)
    # status and body of every answer in place of its own
    answer: tuple[int, bytes] | None = None
    public: bool = False  # asks for no credentials
    hosts: set[str] = field(default_factory=set)
    # the Range header of each request for a file
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


def archive(files: dict[str, bytes]) -> bytes:
    """A zip archive of ``files``, stored as JPEGs are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        for name, content in files.items():
            z.writestr(name, content)
    return packed.getvalue()


@contextmanager
def serving(kaggle: Kaggle) -> Iterator[Kaggle]:
    """``kaggle`` on a free port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:  # the first thing that a request to an https:// address does
            kaggle.hosts.add(self.path)
            self.send_error(405)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kaggle.hosts.add(urlsplit(self.path).netloc)
            handle = f"{request['ownerSlug']}/{request['datasetSlug']}"
            if kaggle.answer:
                self._send(*kaggle.answer, "text/html")
            elif not kaggle.public and self.headers.get("Authorization") != AUTHORIZATION:
                self._answer(401, {"code": 401, "message": "Unauthenticated"})
            elif handle not in kaggle.archives:
                self._answer(404, {"code": 404, "message": "Not found"})
            elif self.path.endswith("/GetDataset"):
                about = {
                    "currentVersionNumber": 3,
                    "licenseName": LICENCE,
                    "totalBytes": len(kaggle.archives[handle]),
                }
                self._answer(200, about)
            else:
                self.send_response(302)
                self.send_header("Location", f"http://localhost/storage/{handle}.zip")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            kaggle.hosts.add(urlsplit(self.path).netloc)
            content = kaggle.archives[
                urlsplit(self.path).path.removeprefix("/storage/").removesuffix(".zip")
            ]
            asked = self.headers.get("Range")
            kaggle.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            # kagglehub requests the file again to learn its size, and then the rest by range.
            cut = kaggle.cut_after and (asked or len(kaggle.ranges) == 1)
            until = start + kaggle.cut_after.pop(0) if cut else len(content)
            self.wfile.write(content[start:until])
            self.close_connection = True

        def _answer(self, status: int, body: dict[str, object]) -> None:
            self._send(status, json.dumps(body).encode(), "application/json")

        def _send(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that goes away is part of the tests
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    kaggle.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kaggle
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
