"""A refresh: observe the sources, then materialise the stale assets, layer by layer, until none is
stale.

Dagster's staleness is not transitive, and Dagster skips nothing inside a run, so a refresh consists
of several Dagster runs in the same instance, which share the tag ``gaip3/refresh_id``. The plan is
an upper bound: if a rebuilt asset's content hash is unchanged, nothing downstream of it is
rebuilt."""

import fcntl
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.assets import observe_sources
from gaip3_pipeline.cluster.connection import ClusterError, stop_jobs_of
from gaip3_pipeline.dagster_home import dagster_store
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.processes import beating, process_lives, this_process
from gaip3_pipeline.progress import Progress, Watch, watched_by
from gaip3_pipeline.refresh.execution import (
    CLUSTER_TAG,
    Finished,
    Layer,
    Note,
    OnCluster,
    run_here,
)
from gaip3_pipeline.refresh.plan import (
    Planned,
    RefreshError,
    check_selection,
    describe,
    forecast,
    plan,
)
from gaip3_pipeline.refresh.record import Record, recording
from gaip3_pipeline.stores import Lock, Occupied, in_one_line
from gaip3_pipeline.tables.databases import explain
from gaip3_pipeline.versions import RUN_METADATA, latest_materialization, observation_if_changed

REFRESH_TAG = "gaip3/refresh_id"
PROCESS_TAG = "gaip3/process"
INTERRUPTIONS = {"KeyboardInterrupt", "DagsterExecutionInterruptedError"}
UNFINISHED = [
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.NOT_STARTED,
]

_ERRNO = re.compile(r"^\[Errno \d+\] (.+?): (?:'.+' -> )?'(.+)'$")  # OSError's text
# the first event of a step of this process, and of a step of a cluster
STARTS_STEP = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_WORKER_STARTING}

Say = Callable[[str], None]
Execute = Callable[[dg.Definitions, dg.DagsterInstance, Layer, Note], Finished]


@dataclass
class Outcome:
    """The result of a refresh."""

    refresh_id: str
    materialized: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failed_checks: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    # figures, pictures and runs before and after (see record.py)
    results: list[dict[str, Any]] = field(default_factory=list)


def refresh(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    root: DataRoot,
    tracking: MlflowTracking,
    *,
    select: Iterable[str] | None = None,
    again: Iterable[str] = (),
    config: Mapping[str, Mapping[str, Any]] | None = None,
    verify: bool = False,
    cluster: str = "",
    say: Say = print,
) -> Outcome:
    """Observe the sources, then materialise every stale or missing asset without a stale ancestor,
    and repeat until none is left.

    The plan is passed to ``say`` first. Unless it is empty, a record is written (see record.py).
    Assets of ``again`` are materialised even if nothing changed; ``config`` maps assets to their
    run configuration. With the address of a ``cluster``, steps run there as Ray jobs. Raises
    :class:`RefreshError` if an asset or a blocking check fails, or
    another refresh of the root is running, and ``KeyboardInterrupt`` if it is interrupted."""
    chosen = list(select) if select is not None else None
    check_selection(definitions, chosen)
    with (
        only_one(root) as still_alone,
        beating(root.heartbeats),
        in_one_line(dagster_store(root)),
    ):
        moved = tracking.follow_root()
        if moved:
            say(str(moved))
        if end_dead_runs(instance, root):
            tracking.end_dead_runs()
        observed = observe(instance, root, verify)
        outcome = Outcome(uuid.uuid4().hex[:12])
        todo = plan(definitions, instance, observed, chosen, set(again))
        planned = forecast(instance, root, todo)
        say(describe(planned))
        if not todo:
            return outcome
        tracking.check()
        with (
            recording(root, outcome.refresh_id, planned) as record,
            watched_by(record.progress),
            in_one_line(dagster_store(root)),
        ):
            execute = OnCluster(root, cluster, _shown_and(record)) if cluster else run_here
            done: set[str] = set()
            while todo:
                still_alone()
                layer = _without_stale_ancestor(definitions, todo)
                stopped = _stopped_by_checks(definitions, instance, layer)
                if stopped:
                    raise RefreshError("\n".join(stopped))
                repeated = done & set(layer)
                if repeated:
                    names = ", ".join(sorted(repeated))
                    raise RefreshError(
                        f"{names}: stale again immediately after materialisation, since the inputs"
                        " changed meanwhile; run gaip3 refresh again"
                    )
                run_id = str(uuid.uuid4())
                record.run_started(run_id, [p.name for p in todo])
                given = {name: (config or {}).get(name, {}) for name in layer}
                _materialize(
                    definitions,
                    instance,
                    given,
                    run_id,
                    outcome,
                    record,
                    say=say,
                    execute=execute,
                    place=root.state,
                )
                done |= set(layer)
                todo = plan(
                    definitions, instance, observed, chosen, set(again) - done, settled=done
                )
            outcome.results = record.results
        return outcome


def observe(instance: dg.DagsterInstance, root: DataRoot, verify: bool = False) -> dict[str, str]:
    """Hash the sources and record an observation of each that changed. Returns the content hash by
    source name."""
    versions = {}
    for name, made in observe_sources(instance, root, verify).items():
        versions[name] = made.version
        event = observation_if_changed(instance, name, made)
        if event:
            instance.report_runless_asset_event(event)
    return versions


def observe_only(
    instance: dg.DagsterInstance, root: DataRoot, verify: bool = False
) -> dict[str, str]:
    """The present content hash by source name; writes nothing."""
    found = observe_sources(instance, root, verify, remember=False)
    return {name: made.version for name, made in found.items()}


def end_dead_runs(instance: dg.DagsterInstance, root: DataRoot) -> int:
    """Mark the runs of killed processes, also of other hosts, as failed in Dagster, and free their
    slots in the training pool. Returns their number."""
    dead = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if PROCESS_TAG in run.tags and not process_lives(run.tags[PROCESS_TAG], root.heartbeats):
            if CLUSTER_TAG in run.tags:
                # a cluster that is gone has no jobs left
                with suppress(ClusterError):
                    stop_jobs_of(run.tags[CLUSTER_TAG], [run.run_id])
            instance.report_run_failed(
                run,
                "The process of this run was killed; gaip3 refresh continues from its checkpoints.",
            )
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead += 1
    return dead


def _shown_and(record: Record) -> Watch:
    """Shows the progress of the steps of a cluster on this terminal, and notes it in ``record``."""
    shown: dict[str, Progress] = {}

    def watch(label: str, done: int, total: int, left: float | None) -> None:
        record.progress(label, done, total, left)
        shown.setdefault(label, Progress(f"  {label}", total))(done, total)

    return watch


def _without_stale_ancestor(definitions: dg.Definitions, todo: list[Planned]) -> list[str]:
    graph = definitions.resolve_asset_graph()
    stale = {dg.AssetKey(p.name) for p in todo}
    return [
        p.name for p in todo if not (graph.get_ancestor_asset_keys(dg.AssetKey(p.name)) & stale)
    ]


def _stopped_by_checks(
    definitions: dg.Definitions, instance: dg.DagsterInstance, layer: list[str]
) -> list[str]:
    """Lines of failed blocking checks of the assets upstream of ``layer``. Dagster enforces them
    inside a run, and this function between runs."""
    graph = definitions.resolve_asset_graph()
    origins = {k for name in layer for k in graph.get_ancestor_asset_keys(dg.AssetKey(name))}
    keys = [k for k in graph.asset_check_keys if k.asset_key in origins and graph.get(k).blocking]
    lines = []
    for key, record in sorted(
        instance.event_log_storage.get_latest_asset_check_execution_by_key(keys).items()
    ):
        evaluation = record.event.asset_check_evaluation if record.event else None
        if evaluation and not evaluation.passed:
            name = key.asset_key.to_user_string()
            lines.append(
                f"{name}: check {key.name} failed: {evaluation.description}\nUntil it passes,"
                f" {', '.join(layer)} cannot be materialised."
            )
    return lines


def _materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    config: Mapping[str, Mapping[str, Any]],
    run_id: str,
    outcome: Outcome,
    record: Record,
    *,
    say: Say,
    execute: Execute,
    place: Path,
) -> None:
    names = list(config)
    say(f"making {', '.join(names)}")
    start = time.monotonic()
    outcome.run_ids.append(run_id)
    tags = {REFRESH_TAG: outcome.refresh_id, PROCESS_TAG: this_process()}
    result = execute(
        definitions,
        instance,
        Layer(names, run_id, tags, config),
        lambda entry: _note(entry, instance, names, outcome, record, say),
    )
    failed = [e for e in result.events if e.is_step_failure]
    between = [e.job_failure_data.error for e in result.events if e.is_job_failure]
    if {*map(_cause, failed), *(error.cls_name for error in between if error)} & INTERRUPTIONS:
        raise KeyboardInterrupt
    problems = [_failure(e, place) for e in failed if _cause(e) != "DagsterAssetCheckFailedError"]
    stopped = len(problems) < len(failed)
    for evaluation in result.evaluations:
        if not evaluation.passed:
            reason = f": {evaluation.description}" if evaluation.description else ""
            line = (
                f"{evaluation.asset_key.to_user_string()}: check {evaluation.check_name}"
                f" failed{reason}"
            )
            outcome.failed_checks.append(line)
            record.check_failed(line)
            say(f"  {line}")
            if stopped and evaluation.blocking:
                problems.append(f"{line}\nThe assets downstream were not materialised.")
    ended = "made in" if result.success else "failed after"
    say(f"  {ended} {time.monotonic() - start:.1f} s")
    if not result.success:
        raise RefreshError("\n".join(problems) or f"Dagster run {run_id} failed; see the UI")


def _note(
    entry: dg.EventLogEntry,
    instance: dg.DagsterInstance,
    names: list[str],
    outcome: Outcome,
    record: Record,
    say: Say,
) -> None:
    """Note Dagster's event in ``outcome`` and ``record`` if it is about an asset of ``names``."""
    event = entry.dagster_event
    if event is None or event.step_key not in names:
        return
    name = event.step_key
    if event.event_type in STARTS_STEP:
        record.begins(name, _mlflow_run(instance, name))
    elif event.is_step_success:
        seconds = event.step_success_data.duration_ms / 1000
        outcome.materialized.append(name)
        outcome.seconds[name] = seconds
        record.made(name, seconds, _mlflow_run(instance, name))
    elif event.is_step_up_for_retry:
        # on a line of its own below the progress of the step
        say(f"\n  {name}: its machine was lost, or a disk failed for a moment; it runs again")
    elif event.is_step_failure:
        record.failed(name)


def _mlflow_run(instance: dg.DagsterInstance, name: str) -> str:
    made = latest_materialization(instance, dg.AssetKey(name))
    found = made.metadata.get(RUN_METADATA) if made else None
    return str(found.value) if found else ""


def _cause(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    return (error.cls_name or "") if error else ""


def _of_postgres(error: Any) -> bool:
    """Whether ``error``, as Dagster stores it, or one of its causes came from Postgres' driver."""
    while error:
        if "(psycopg2." in error.message:
            return True
        error = error.cause or error.context
    return False


def _failure(event: dg.DagsterEvent, place: Path) -> str:
    """The reason of a failed step; ``place`` is the folder of the databases."""
    error = event.step_failure_data.error
    while error and error.cause and error.cls_name == "DagsterExecutionStepExecutionError":
        error = error.cause
    if _of_postgres(error):
        return (
            f"{event.step_key}: a database was lost in mid-run; when it answers again, run the same"
            " command again to continue"
        )
    failure = event.step_failure_data.user_failure_data
    if failure and failure.description:
        return f"{event.step_key}: {failure.description}"
    if not error:
        return f"{event.step_key}: failed; see its log in the UI"
    # Dagster puts the class before the message; the message of an error of ours is enough.
    prefix, _, message = error.message.strip().partition(": ")
    ours = prefix.endswith(error.cls_name or "") and message
    reason = explain(error.message, place) or (message if ours else error.message.strip())
    reason = _ERRNO.sub(r"\1: \2", reason)
    return f"{event.step_key}: {reason}"


@contextmanager
def only_one(root: DataRoot) -> Iterator[Callable[[], None]]:
    """The lock of ``root``: a file, and a session in Postgres if the history of the root is there.
    The block gets a function that makes sure that the lock is still held.

    Raises :class:`RefreshError` if another process holds the lock; the message says which one."""
    root.state.mkdir(parents=True, exist_ok=True)
    store = dagster_store(root)

    def occupied(holder: str) -> RefreshError:
        return RefreshError(
            f"another refresh of {root.path} is running ({holder}); wait for it or stop it"
        )

    with root.refresh_lock.open("a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            f.seek(0)
            raise occupied(f.read().strip()) from e
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()}")
        f.flush()
        if store is None:
            yield lambda: None
            return
        try:
            with Lock(store) as lock:
                yield lock.check
        except Occupied as e:
            raise occupied(str(e)) from e
