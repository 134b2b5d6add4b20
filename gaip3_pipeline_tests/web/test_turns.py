"""The queue of the generator: fair between tabs, and without turns for replaced requests."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gaip3_pipeline.web.turns import MOST, Busy, Replaced, Turns


class Slow:
    """Work that finishes when the test tells it to; ``done`` lists the requests in their order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, request: str) -> str:
        await self.go.wait()
        self.done.append(request)
        if request == "wrong":
            raise ValueError(request)
        return request.upper()


async def asked(turns: Turns[str, str], *requests: str) -> list[asyncio.Task[str]]:
    """Requests ``tab pane what``, each waiting before the next is made."""
    tasks = []
    for request in requests:
        tab, pane, what = request.split()
        tasks.append(asyncio.create_task(turns.ask(tab, pane, what)))
        await asyncio.sleep(0)
    return tasks


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_tabs_take_turns_however_many_requests_one_of_them_sends() -> None:
    async def test() -> None:
        work = Slow()
        turns = Turns(work)
        greedy = await asked(turns, *(f"a pane{i} a{i}" for i in range(6)))
        modest = await asked(turns, "b pane b0", "c pane c0", "b other b1")
        work.go.set()
        assert await asyncio.gather(*greedy, *modest) == [
            "A0",
            "A1",
            "A2",
            "A3",
            "A4",
            "A5",
            "B0",
            "C0",
            "B1",
        ]
        assert work.done[:6] == ["a0", "a1", "b0", "c0", "a2", "b1"]

    run(test())


def test_a_newer_request_of_the_same_pane_replaces_the_one_that_waits() -> None:
    async def test() -> None:
        work = Slow()
        turns = Turns(work)
        first, old, other, new = await asked(turns, "a grid 1", "a grid 2", "b grid 3", "a grid 4")
        with pytest.raises(Replaced):  # at once: nothing has been worked on yet
            await old
        work.go.set()
        assert await asyncio.gather(first, other, new) == ["1", "3", "4"]
        assert work.done == ["1", "4", "3"]

    run(test())


def test_the_number_of_waiting_requests_is_bounded_for_any_number_of_tabs() -> None:
    async def test() -> None:
        work = Slow()
        turns = Turns(work)
        waiting = await asked(turns, "first pane x", *(f"tab{i} pane y" for i in range(MOST)))
        [refused] = await asked(turns, "more pane z")
        with pytest.raises(Busy):
            await refused
        [newer] = await asked(turns, "tab3 pane z")  # in place of its own older one
        work.go.set()
        assert await newer == "Z"
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not turns._tabs

    run(test())


def test_an_error_goes_to_its_own_client_and_a_client_that_left_takes_no_turn() -> None:
    async def test() -> None:
        work = Slow()
        turns = Turns(work)
        first, gone, wrong, right = await asked(
            turns, "a pane first", "b pane gone", "c pane wrong", "d pane right"
        )
        gone.cancel()
        await asyncio.sleep(0)
        work.go.set()
        with pytest.raises(ValueError, match="wrong"):
            await wrong
        assert (await first, await right) == ("FIRST", "RIGHT")
        assert work.done == ["first", "wrong", "right"]

    run(test())
