"""How one layer of a refresh runs: in this process, or as jobs of a Ray cluster."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from gaip3_pipeline.cluster.connection import DRIVER
from gaip3_pipeline.dagster_home import LOCATION
from gaip3_pipeline.jobs import STAGE
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import this_process
from gaip3_pipeline.progress import Watch

CLUSTER_TAG = "gaip3/cluster"  # of runs whose steps are jobs of a cluster: its address
_EVERY_SECONDS = 1.0
# Without the repository, Dagster's timeline leaves a run out. This is the name that Dagster gives
# to the only one of a code location.
_REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
_CANCELED = {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}
_STEP_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,  # its node was lost
}
_FOLLOWED = {dg.DagsterEventType.STEP_WORKER_STARTING, *_STEP_ENDS}

Note = Callable[[dg.EventLogEntry], None]


@dataclass(frozen=True)
class Layer:
    """Assets of which none depends on another, the Dagster run that materialises them, and the run
    configuration of each."""

    names: Sequence[str]
    run_id: str
    tags: Mapping[str, str]
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def run_config(self) -> dict[str, Any]:
        """Dagster's log lines for every step would hide the progress of trainings, so they are
        left out; the UI shows them."""
        return {
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "ops": {name: {"config": given} for name, given in self.config.items() if given},
        }


@dataclass(frozen=True)
class Finished:
    """The result of a layer: the events of its steps and checks, and what the checks found."""

    success: bool
    events: Sequence[dg.DagsterEvent]
    evaluations: Sequence[dg.AssetCheckEvaluation]


def run_here(
    definitions: dg.Definitions, instance: dg.DagsterInstance, layer: Layer, note: Note
) -> Finished:
    """Run a layer and its checks in this process. ``note`` is called with every event as it
    occurs."""
    instance.add_event_listener(layer.run_id, note)
    job = definitions.resolve_job_def(STAGE)
    result = execute_run(InMemoryJob(job), _create_run(instance, job, layer), instance)
    return Finished(result.success, result.all_events, result.get_asset_check_evaluations())


@contextlib.contextmanager
def stoppable(instance: dg.DagsterInstance, run_id: str) -> Iterator[Callable[[], None]]:
    """While the block runs, this process is interrupted when somebody terminates the run on
    Dagster's pages. The block gets a function that marks the run as being canceled, for an
    interruption from elsewhere: Dagster then ends it as canceled and not as failed."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY_SECONDS):
            # The store may be away for a moment.
            with contextlib.suppress(Exception):
                run = instance.get_run_by_id(run_id)
                if run and run.status in _CANCELED:
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    def cancel() -> None:
        ended.set()
        run = instance.get_run_by_id(run_id)
        if run and not run.is_finished and run.status not in _CANCELED:
            instance.report_run_canceling(run, "The refresh was stopped.")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield cancel
    finally:
        ended.set()
        watcher.join()


def end_as_canceled(instance: dg.DagsterInstance, run_id: str) -> None:
    """Mark an interrupted run as canceled that Dagster ended as failed."""
    run = instance.get_run_by_id(run_id)
    if run and run.status != dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run, "The refresh was stopped; the next one continues.")


def _create_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, layer: Layer, code: Any = None
) -> dg.DagsterRun:
    return instance.create_run_for_job(
        job,
        run_id=layer.run_id,
        run_config=layer.run_config,
        tags=dict(layer.tags),
        asset_selection={dg.AssetKey(n) for n in layer.names},
        remote_job_origin=RemoteJobOrigin(_REPOSITORY, job.name),
        job_code_origin=code,
    )


class OnCluster:
    """Runs a layer as jobs of the cluster at ``address``, one for each asset, and then its checks
    in this process.

    ``watch`` is called with the progress of the steps (see :data:`gaip3_pipeline.progress.Watch`),
    which they write to files of the root."""

    def __init__(self, root: DataRoot, address: str, watch: Watch) -> None:
        self._root = root
        self._address = address
        self._watch = watch

    def __call__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, layer: Layer, note: Note
    ) -> Finished:
        from dagster._core.definitions.reconstruct import ReconstructableRepository

        os.environ[DRIVER] = this_process()  # the steps end without it
        job = ReconstructableRepository.for_module(
            "gaip3_pipeline.definitions", "assets_alone"
        ).get_reconstructable_job(STAGE)
        here = replace(layer, tags={**layer.tags, CLUSTER_TAG: self._address})
        run = _create_run(instance, job.get_definition(), here, job.get_python_origin())
        with self._following(instance, layer, note):
            result = execute_run(job, run, instance)
        checked = self._checked(
            definitions,
            instance,
            layer,
            {e.step_key for e in result.all_events if e.is_step_success},
        )
        return Finished(
            result.success and checked.success,
            [*result.all_events, *checked.events],
            checked.evaluations,
        )

    def _checked(
        self,
        definitions: dg.Definitions,
        instance: dg.DagsterInstance,
        layer: Layer,
        made: Collection[str | None],
    ) -> Finished:
        keys = {
            key
            for key in definitions.resolve_asset_graph().asset_check_keys
            if key.asset_key.to_user_string() in made
        }
        if not keys:
            return Finished(True, [], [])
        job = definitions.resolve_job_def(STAGE)
        result = job.get_subset(asset_check_selection=keys).execute_in_process(
            instance=instance,
            tags=dict(layer.tags),
            run_config={"loggers": layer.run_config["loggers"]},
            raise_on_error=False,
        )
        return Finished(result.success, result.all_events, result.get_asset_check_evaluations())

    @contextmanager
    def _following(self, instance: dg.DagsterInstance, layer: Layer, note: Note) -> Iterator[None]:
        """Pass the events of the run to ``note`` and the progress of its steps to ``watch``: steps
        run in other processes, so this process reads the event log and the files."""
        ended, cursor = threading.Event(), None

        def read() -> None:
            nonlocal cursor
            found = instance.get_records_for_run(layer.run_id, cursor=cursor, of_type=_FOLLOWED)
            self._report_progress(layer.names)  # the last of a step before the line about its end
            for record in found.records:
                event = record.event_log_entry.dagster_event
                if event and event.event_type in _STEP_ENDS:
                    self._forget_progress([str(event.step_key)])
                note(record.event_log_entry)
            cursor = found.cursor

        def follow() -> None:
            while not ended.wait(_EVERY_SECONDS):
                # The store may be away for a moment; what was missed is read at the next turn.
                with contextlib.suppress(Exception):
                    read()

        self._forget_progress(layer.names)
        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            read()
            self._forget_progress(layer.names)

    def _report_progress(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                now = json.loads(self._root.step_progress(name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            self._watch(now["label"], now["done"], now["total"], now["left"])

    def _forget_progress(self, names: Sequence[str]) -> None:
        for name in names:
            self._root.step_progress(name).unlink(missing_ok=True)
