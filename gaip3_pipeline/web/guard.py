"""Access control of the pages: on loopback only this machine, on other addresses only clients with
the token; never scripts of other web sites.

It is an ASGI middleware in front of all handlers, so that no handler can omit it. On loopback the
Host header must name loopback (a foreign name that resolves to 127.0.0.1 is a DNS rebinding
attack). On other addresses the first request must contain the token, which is then kept in a
cookie. In both cases requests from pages of another origin are refused, and a client that sends its
request too slowly is left."""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 4_000_000  # bytes of a request; a batch of labels of the page has some thousands
PATIENCE = 10.0  # seconds without a byte of a request after which its client is left
SLOWEST = 100_000  # bytes per second; a slower client uses up its patience
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none';"
        " form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A random token of 24 bytes, URL-safe."""
    return secrets.token_urlsafe(24)


class Guard:
    """Passes on only requests from the application's own pages. An empty ``token`` means loopback:
    only loopback host names are served.

    ``larger`` maps paths that accept more than :data:`MAX_BODY` to their limits in bytes;
    ``headers`` are added to the answers that lack them. Links on other sites lead to
    ``entrances``."""

    def __init__(
        self,
        app: ASGIApp,
        token: str = "",
        larger: Mapping[str, int] | None = None,
        headers: Mapping[str, str] = HEADERS,
        entrances: Collection[str] = ("/",),
    ) -> None:
        self._app, self._token, self._larger = app, token, larger or {}
        self._headers, self._entrances = headers, entrances
        # Cookies are shared by all ports of a host. The name depends on the token, so that servers
        # of two roots on one machine do not overwrite each other's cookie.
        self._cookie = f"gaip3_{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            else:
                await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        if refusal:
            await PlainTextResponse(refusal + "\n", 403)(scope, receive, answer)
        elif self._brought_in_query(scope):
            await self._keep_in_cookie(scope, receive, answer)
        else:
            await self._app(scope, _in_time(receive), answer)

    def _refusal(self, scope: Scope) -> str:
        """The reason why a request is refused; empty if it is accepted."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._token and not is_loopback(_name_of(host)):
            return f"The host {host!r} is not this machine: open the page at 127.0.0.1"
        origin = headers.get("origin")
        if origin and origin.partition("://")[2] != host:
            return "This request comes from another web site"
        if headers.get("sec-fetch-site") == "cross-site" and not (
            scope.get("method") == "GET" and scope["path"] in self._entrances
        ):
            return "This request comes from another web site"
        most = self._larger.get(scope["path"], MAX_BODY)
        # a request in chunks does not say how long it is; browsers send none
        if int(headers.get("content-length") or 0) > most or "transfer-encoding" in headers:
            return f"Requests of more than {most:,} bytes are not accepted"
        if self._token and not (self._brought_in_query(scope) or self._brought_in_cookie(scope)):
            return "The token is missing or wrong: open the link that gaip3 printed"
        return ""

    def _brought_in_query(self, scope: Scope) -> bool:
        given = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"))).get("token", "")
        return bool(self._token) and hmac.compare_digest(given.encode(), self._token.encode())

    def _brought_in_cookie(self, scope: Scope) -> bool:
        given = HTTPConnection(scope).cookies.get(self._cookie, "")
        return hmac.compare_digest(given.encode(), self._token.encode())

    async def _keep_in_cookie(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect the link with the token to the same link without it, so that the token appears
        in no history or screenshot."""
        rest = [
            (k, v) for k, v in parse_qsl(scope["query_string"].decode("latin-1")) if k != "token"
        ]
        # two slashes at the beginning would lead to another site
        path = "/" + scope["path"].lstrip("/\\")
        response = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        # Lax, since a strict cookie would not be sent for a link clicked in a mail. Requests from
        # pages of other sites are refused anyway.
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        await response(scope, receive, send)


def _name_of(host: str) -> str:
    """The name or address in a Host header; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _in_time(receive: Receive) -> Receive:
    """``receive`` that raises HTTPException if a request arrives too slowly: only the time spent
    in it counts. After the request it waits without limit for the client's end."""
    left, arriving = PATIENCE, True

    async def receive_in_time() -> Message:
        nonlocal left, arriving
        if not arriving:
            return await receive()
        began = time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            raise HTTPException(
                408, "the request arrives too slowly", {"Connection": "close"}
            ) from None
        waited = time.monotonic() - began
        left = min(PATIENCE, left - waited + len(message.get("body", b"")) / SLOWEST)
        arriving = bool(message.get("more_body"))
        return message

    return receive_in_time
