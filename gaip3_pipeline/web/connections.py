"""Connections of the pages' servers: a client that does not send the head of a request soon, or
sends an endless one, is left. uvicorn itself waits without limit."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gaip3_pipeline.web.guard import PATIENCE

MAX_HEAD = 100_000  # bytes of the first line and the headers


class Connection(HttpToolsProtocol):
    """A connection on which the head of each request arrives within :data:`PATIENCE` seconds."""

    _until: asyncio.TimerHandle | None = None  # while a head arrives
    _head = 0  # bytes of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Wait for the rest of the head of a request."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """The head is there; the guard waits for the body."""
        self._arrived()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        super().data_received(data)
        if self._until:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._arrived()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._arrived()
        self._until = self.loop.call_later(PATIENCE, self.transport.close)

    def _arrived(self) -> None:
        if self._until:
            self._until.cancel()
        self._until, self._head = None, 0


def server_options() -> dict[str, Any]:
    """The options of uvicorn that the pages' servers share."""
    return {
        "http": Connection,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 5,
    }
