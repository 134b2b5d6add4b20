"""Work on many pictures, one after another or at the same time, here or on other machines."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Mapper(Protocol):
    """Applies ``work`` to ``items`` and yields the results in the order of the items; the first
    error is raised and ends it.

    ``work`` must be picklable and may run in another process: a pure function of its item and of
    files."""

    def pictures(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """``work`` takes one picture and milliseconds."""

    def batches(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """``work`` takes a batch of pictures, and uses all cores of its machine by itself."""


class LocalMapper:
    """Pictures in threads of this process, batches one after another."""

    def pictures(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        yield from in_order(work, items)

    def batches(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        yield from map(work, items)


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None
) -> Generator[_Result, None, None]:
    """``map`` on all cores in the order of ``items`` with a bounded number of results in memory;
    the first error is raised and ends it. To close it drops what has not begun, and waits for the
    rest."""
    # one more than cores, so that no core is idle while a thread waits for the disk
    workers = workers or cores() + 1
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """How many cores this process may use: those of its affinity, or ``OMP_NUM_THREADS`` if that is
    less, which a cluster sets to the CPUs that a task asked for."""
    found = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(found, int(asked)) if asked.isdigit() and int(asked) else found
