"""Trainings on the nodes of the cluster that a step runs on: independent ones, each a task, and one
model trained by several processes together."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gaip3_pipeline.cluster.connection import ClusterError
from gaip3_pipeline.cluster.mapping import connect, keep_to_asked_cpus
from gaip3_pipeline.progress import Progress, watched_by
from gaip3_pipeline.settings import Cluster
from gaip3_pipeline.training.run import Run, keep_no_figures

_Result = TypeVar("_Result")
_LOST = 5  # times that a training is repeated whose node was lost
_EVERY_SECONDS = 0.5
LOG, PROGRESS, SHOW = "log", "progress", "show"  # what a training reports


class RayTrainings:
    """:class:`gaip3_pipeline.training.run.Trainings` as Ray tasks, which ask for the CPUs and GPUs
    that the settings give to a training.

    A task whose node is lost is repeated on another one and resumes from its last checkpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __call__(
        self, train: Callable[[int, Run], _Result], runs: Iterable[Run]
    ) -> Iterator[_Result]:
        import ray

        connect()
        given = list(runs)
        task: Any = ray.remote(
            num_cpus=self._cluster.cpus, num_gpus=self._cluster.gpus, max_retries=_LOST
        )(_train)
        shared = ray.put(train)
        with _heard(given) as (reports, hear):
            tasks = [
                task.remote(shared, number, _silent(run), reports)
                for number, run in enumerate(given)
            ]
            try:
                _wait(tasks, hear)
                yield from ray.get(tasks)
            except ray.exceptions.RayTaskError as e:
                raise e.cause from e  # the error of the training, as if it had run here
            finally:
                for left in tasks:
                    ray.cancel(left, force=True)


@dataclass(frozen=True)
class Together:
    """One model trained by ``[cluster] workers`` processes, one of them on this node with the CPUs
    and GPUs of this step, the others wherever they get as much. A group that lost a node starts
    again and resumes from the last checkpoint."""

    cluster: Cluster

    def __call__(
        self,
        train: Callable[[Run, Callable[[int, Any], None]], None],
        run: Run,
        show: Callable[[int, Any], None],
    ) -> None:
        """Call ``train(run, show)`` in every process with its rank; here, log and progress of
        ``run`` and ``show`` are called with what process 0 reports.

        What the training leaves are its checkpoints. Raises :class:`ClusterError` if the cluster is
        too small, and the errors of ``train``."""
        import ray

        connect()
        self._check_size(ray.cluster_resources())
        for attempt in range(_LOST + 1):
            try:
                return self._once(train, run, show)
            except ray.exceptions.RayTaskError as e:
                raise e.cause from e
            except ray.exceptions.RayActorError as e:
                if attempt == _LOST:
                    raise ClusterError(
                        f"the training lost one of its processes {_LOST + 1} times: see the nodes'"
                        " memory, and run the same command again"
                    ) from e
        raise AssertionError

    def _check_size(self, found: dict[str, float]) -> None:
        cluster = self.cluster
        for name, each in (("CPU", cluster.cpus), ("GPU", cluster.gpus)):
            if found.get(name, 0.0) < cluster.workers * each:
                raise ClusterError(
                    f"{cluster.workers} processes of {each:g} {name}s each do not fit: the cluster"
                    f" has {found.get(name, 0.0):g} {name}s; lower workers under [cluster] in"
                    " gaip3.toml, or start more nodes"
                )

    def _once(
        self,
        train: Callable[[Run, Callable[[int, Any], None]], None],
        run: Run,
        show: Callable[[int, Any], None],
    ) -> None:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        cluster, world = self.cluster, self.cluster.workers
        asked = {k: v for k, v in (("CPU", cluster.cpus), ("GPU", cluster.gpus)) if v}
        # all or none of the others start: two halves of groups would wait for each other for ever
        others = placement_group([asked] * (world - 1), strategy="SPREAD")
        actor: Any = ray.remote(num_cpus=0, max_restarts=0)(_Process)
        workers = [actor.options(scheduling_strategy=_here()).remote()]
        workers += [
            actor.options(
                num_cpus=cluster.cpus,
                num_gpus=cluster.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(others, bundle),
            ).remote()
            for bundle in range(world - 1)
        ]
        try:
            ray.get([worker.ready.remote() for worker in workers])
            coordinator = ray.get(workers[0].address.remote())
            shared, devices = ray.put(train), os.environ.get("CUDA_VISIBLE_DEVICES")
            with _heard([run], show) as (reports, hear):
                _wait(
                    [
                        worker.train.remote(
                            shared,
                            replace(_silent(run), rank=rank, world=world),
                            coordinator,
                            reports,
                            devices if rank == 0 else None,
                        )
                        for rank, worker in enumerate(workers)
                    ],
                    hear,
                )
        finally:
            for worker in workers:
                ray.kill(worker)
            remove_placement_group(others)


class _Process:
    """One of the processes that train a model together."""

    def ready(self) -> None:
        """Returns when the process runs."""

    def address(self) -> str:
        """``HOST:PORT`` of this node, with a free port."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as s:
            s.bind((host, 0))
            return f"{host}:{s.getsockname()[1]}"

    def train(
        self,
        train: Callable[[Run, Callable[[int, Any], None]], None],
        run: Run,
        coordinator: str,
        reports: Any,
        devices: str | None,
    ) -> None:
        if devices is not None:
            # those of the step, for which this process works; Ray shows an actor its own GPUs
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
        from gaip3_pipeline.models.backend import join

        join(coordinator, run.rank, run.world)
        with _reporting(0, run, reports) as (told, tell):
            train(told, lambda epoch, picture: tell(SHOW, epoch, picture))


def _here() -> Any:
    """The scheduling strategy of an actor on the node of this process."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _train(train: Callable[[int, Run], _Result], number: int, run: Run, reports: Any) -> _Result:
    keep_to_asked_cpus()
    with _reporting(number, run, reports) as (told, _):
        return train(number, told)


def _silent(run: Run) -> Run:
    return replace(run, log=keep_no_figures, progress=None)


@contextmanager
def _reporting(
    number: int, run: Run, reports: Any
) -> Iterator[tuple[Run, Callable[[str, Any, Any], None]]]:
    """``run`` with a log and a progress that send what they are told to the actor ``reports``, and
    a function that does so. Only process 0 reports.

    Reports are sent without waiting, in their order: Ray gives the CPU of a task that waits to
    another task. Those that are under way are waited for at the end."""
    import ray

    sent: list[Any] = []

    def tell(kind: str, first: Any, second: Any) -> None:
        if run.rank == 0:
            sent[:] = [reports.put.remote((number, kind, first, second))]

    def watch(label: str, done: int, total: int, left: float | None) -> None:
        tell(PROGRESS, done, total)

    with Path(os.devnull).open("w") as nowhere, watched_by(watch):
        yield (
            replace(
                run,
                log=lambda epoch, figures: tell(LOG, epoch, figures),
                progress=Progress("", 1, nowhere),
            ),
            tell,
        )
    ray.get(sent)


@contextmanager
def _heard(
    runs: Sequence[Run], show: Callable[[int, Any], None] | None = None
) -> Iterator[tuple[Any, Callable[[], None]]]:
    """The actor that takes reports, and a function that passes those that arrived to ``runs``; also
    called at the end."""
    import ray

    # on the node of this process: lost with another node, it would end trainings of all nodes
    actor: Any = ray.remote(num_cpus=0, max_restarts=0)(_Reports)
    reports = actor.options(scheduling_strategy=_here()).remote()

    def hear() -> None:
        for number, kind, first, second in ray.get(reports.take.remote()):
            progress = runs[number].progress
            if kind == LOG:
                runs[number].log(first, second)
            elif kind == PROGRESS and progress:
                progress(first, second)
            elif kind == SHOW and show:
                show(first, second)

    try:
        yield reports, hear
    finally:
        ray.kill(reports)


class _Reports:
    """Reports of trainings on their way. Ray's own queue is an asynchronous actor, whose calls may
    overtake each other."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, str, Any, Any]] = []

    def put(self, report: tuple[int, str, Any, Any]) -> None:
        self._kept.append(report)

    def take(self) -> list[tuple[int, str, Any, Any]]:
        kept, self._kept = self._kept, []
        return kept


def _wait(tasks: Sequence[Any], hear: Callable[[], None]) -> None:
    """Return when all ``tasks`` have ended. Raises the first error."""
    import ray

    left = list(tasks)
    while left:
        done, left = ray.wait(left, timeout=_EVERY_SECONDS)
        hear()
        ray.get(done)
    hear()
