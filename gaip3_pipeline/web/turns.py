"""A fair queue for the generator of a root: round robin over browser tabs, and only the newest
request of each pane of a tab.

A moving slider sends more requests than can be answered. At most one request of each pane waits: a
newer one replaces it, and the older one is answered at once. So no tab waits for outdated requests,
and between two turns of a tab every other tab has at most one."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST = 64  # waiting requests; bounds the memory for any number of tabs

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Replaced(Exception):
    """A newer request of the same pane took this one's place."""


class Busy(Exception):
    """Too many requests wait already."""


@dataclass
class _Waiting(Generic[Request, Answer]):
    request: Request
    answer: "asyncio.Future[Answer]"


class Turns(Generic[Request, Answer]):
    """A queue of requests for ``work``, which handles one at a time. Use it in one event loop
    only."""

    def __init__(self, work: Callable[[Request], Awaitable[Answer]]) -> None:
        self._work = work
        self._tabs: OrderedDict[str, OrderedDict[str, _Waiting[Request, Answer]]] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, tab: str, pane: str, request: Request) -> Answer:
        """The answer of ``work`` to ``request``. Raises :class:`Replaced`, :class:`Busy` and what
        ``work`` raises."""
        if pane not in self._tabs.get(tab, ()) and sum(map(len, self._tabs.values())) >= MOST:
            raise Busy
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        panes = self._tabs.setdefault(tab, OrderedDict())
        older = panes.get(pane)
        # it keeps the place of the older one, so that frequent requests do not lengthen the wait
        panes[pane] = waiting
        if older and not older.answer.done():
            older.answer.set_exception(Replaced())
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._serve())
        return await waiting.answer

    async def _serve(self) -> None:
        while self._tabs:
            tab, panes = next(iter(self._tabs.items()))
            _, waiting = panes.popitem(last=False)
            if panes:
                self._tabs.move_to_end(tab)
            else:
                del self._tabs[tab]
            if waiting.answer.done():  # the client has gone
                continue
            try:
                answer = await self._work(waiting.request)
            except Exception as e:  # goes to the client that asked; the queue continues
                if not waiting.answer.done():
                    waiting.answer.set_exception(e)
            else:
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
