"""Fair turns at the one generator of a root: round robin over browser tabs, and the newest request
of a tab's pane only.

A slider that moves sends more requests than can be followed. Of those of one pane of a tab, one
waits at most: a newer one takes its place, and the older one is answered at once. So a tab never
waits for what nobody wants to see any more, and no tab waits for more than one request of each
other tab."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST = 64  # requests that wait, which bounds memory whatever the number of tabs

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
    """Requests that wait for ``work``, which does one at a time. To be used in one event loop."""

    def __init__(self, work: Callable[[Request], Awaitable[Answer]]) -> None:
        self._work = work
        self._tabs: OrderedDict[str, OrderedDict[str, _Waiting[Request, Answer]]] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, tab: str, pane: str, request: Request) -> Answer:
        """What ``work`` says of ``request`` when its turn has come. Raises :class:`Replaced`,
        :class:`Busy` and what ``work`` raises."""
        if pane not in self._tabs.get(tab, ()) and sum(map(len, self._tabs.values())) >= MOST:
            raise Busy
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        panes = self._tabs.setdefault(tab, OrderedDict())
        older = panes.get(pane)
        # in the older one's place: who asks often must not wait longer for it
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
            if waiting.answer.done():  # whoever asked has gone
                continue
            try:
                answer = await self._work(waiting.request)
            except Exception as e:  # the one who asked is told, the others have their turns
                if not waiting.answer.done():
                    waiting.answer.set_exception(e)
            else:
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
