"""Work of one step spread over the nodes of the cluster that the step runs on."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD = 4  # tasks for each CPU of the cluster that wait or run
_LOST = 5  # times that a task is repeated whose node was lost


class RayMapper:
    """A :class:`gaip3_pipeline.imaging.mapping.Mapper` whose work runs in Ray tasks.

    A task takes one CPU and ``chunk`` pictures: with single pictures the overhead of a task, 3 ms,
    is larger than the work. A task whose node is lost is repeated on another one; work writes
    files whole, so a repeated task changes nothing. Results come in the order of the items, and a
    bounded number of tasks waits."""

    def __init__(self, chunk: int) -> None:
        self._chunk = max(32, chunk)

    def pictures(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """``work`` of each picture of ``items``, in tasks of ``chunk`` pictures."""
        for results in self._tasks(_EachOf(work), _chunks(items, self._chunk)):
            yield from results

    def batches(
        self, work: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """``work`` of each batch of ``items``, a task each."""
        yield from self._tasks(work, items)

    def _tasks(self, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        import ray

        connect()
        ahead = _AHEAD * max(2, int(ray.cluster_resources().get("CPU", 1)))
        task: Any = ray.remote(num_cpus=1, max_retries=_LOST)(_run)
        shared = ray.put(work)
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(task.remote(shared, item))
                if len(waiting) >= ahead:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as e:
            raise e.cause from e  # the error of the work, as if it had run here
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


def connect() -> None:
    """Connect this process to the cluster of its job, which Ray's own environment variables
    name."""
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)


def keep_to_asked_cpus() -> None:
    """Let TensorFlow use as many threads as the task of this process asked for CPUs, which Ray puts
    into ``OMP_NUM_THREADS``: as many as the machine has cores, in each of its tasks, would wait for
    each other. Works before TensorFlow starts."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, threads)


class _EachOf:
    """``work`` of every element of a list."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, items: list[Any]) -> list[Any]:
        return [self._work(item) for item in items]


def _run(work: Callable[[_Item], _Result], item: _Item) -> _Result:
    keep_to_asked_cpus()
    return work(item)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
