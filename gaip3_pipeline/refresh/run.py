"""A refresh: observe the sources, then materialise the stale assets, layer by layer, until none is
stale.

Dagster's staleness is not transitive, and Dagster skips nothing inside a run, so a refresh consists
of several Dagster runs in the same instance, which share the tag ``gaip3/refresh_id``. The plan is
an upper bound: if a rebuilt asset's content hash is unchanged, nothing downstream of it is
rebuilt."""

import fcntl
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.assets import observe_sources
from gaip3_pipeline.cluster.connection import ClusterError, stop_jobs_of
from gaip3_pipeline.dagster_home import dagster_store
from gaip3_pipeline.dagster_storage import PROCESS_TAG
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.processes import beating, of_this_host, process_lives, this_process
from gaip3_pipeline.progress import Progress, Watch, watched_by
from gaip3_pipeline.refresh.execution import (
    CLUSTER_TAG,
    Finished,
    Layer,
    Note,
    OnCluster,
    end_as_canceled,
    run_here,
    stoppable,
)
from gaip3_pipeline.refresh.plan import (
    Forecast,
    Planned,
    RefreshError,
    check_selection,
    describe,
    forecast,
    plan,
    spoken,
    stages,
)
from gaip3_pipeline.refresh.record import (
    Record,
    begun,
    headline_figures,
    headlines,
    killed,
    note_deaths,
    recording,
)
from gaip3_pipeline.stores import Lock, Occupied, StoreError, in_one_line
from gaip3_pipeline.tables.content import content_hash
from gaip3_pipeline.tables.databases import explain
from gaip3_pipeline.tables.files import remove_abandoned, write_text_atomically
from gaip3_pipeline.versions import RUN_METADATA, latest_materialization, observation_if_changed

LONGEST_NAME = 120  # characters of the name of a run in MLflow, and of a tag in Dagster
REFRESH_TAG = "gaip3/refresh_id"
# for people: what a run makes, what changed, and which stage of the refresh it is
ASSETS_TAG, CHANGED_TAG, STAGE_TAG = "assets", "changed", "stage"
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

_OWNER = "gaip3/root"  # in Dagster's table of values: the root whose history the database holds

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
        claim_history(instance, root)
        moved = tracking.follow_root()
        if moved:
            say(str(moved))
        dead = killed(root)
        if end_dead_runs(instance, root) or dead:  # it may have been killed between two runs
            tracking.end_dead_runs()
            note_deaths(root, dead)
        observed = observe(instance, root, verify)
        outcome = Outcome(uuid.uuid4().hex[:12])
        todo = plan(definitions, instance, observed, chosen, set(again))
        planned = forecast(instance, root, todo, begun(root))
        say(describe(planned))
        if not todo:
            return outcome
        tracking.check()
        with (
            recording(root, outcome.refresh_id, planned) as record,
            watched_by(record.progress),
            in_one_line(dagster_store(root)),
            _parent_run(definitions, tracking, root, planned, record) as of_trainings,
        ):
            execute = OnCluster(root, cluster, _shown_and(record)) if cluster else run_here
            done: set[str] = set()
            number = stages(definitions, todo)
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
                now = number - stages(definitions, todo) + 1
                made = ", ".join(layer)
                say(f"{_stage(now, number, todo, planned)}: making {made}")
                tags = {
                    ASSETS_TAG: made[:LONGEST_NAME],
                    CHANGED_TAG: planned.causes[:LONGEST_NAME],
                    STAGE_TAG: f"{now} of {number}",
                }
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
                    tags=tags | of_trainings,
                )
                done |= set(layer)
                todo = plan(
                    definitions, instance, observed, chosen, set(again) - done, settled=done
                )
            outcome.results = record.results
        return outcome


def claim_history(instance: dg.DagsterInstance, root: DataRoot) -> None:
    """Note in Dagster's database in Postgres that it holds the history of ``root``. Raises
    :class:`~gaip3_pipeline.stores.StoreError` like :func:`check_owner`."""
    if dagster_store(root) is None:
        return
    check_owner(instance, root)
    if not root.identity.exists():
        write_text_atomically(root.identity, uuid.uuid4().hex + "\n")
    owner = {"root": _identity(root), "path": str(root.path.absolute())}
    instance.run_storage.set_cursor_values({_OWNER: json.dumps(owner)})


def check_owner(instance: dg.DagsterInstance, root: DataRoot) -> None:
    """Make sure that Dagster's database holds the history of ``root``, or of no root yet. Raises
    :class:`~gaip3_pipeline.stores.StoreError` if it holds that of another root, as a database does
    that was left from a root that is gone."""
    noted = instance.run_storage.get_cursor_values({_OWNER}).get(_OWNER)
    owner = json.loads(noted) if noted else None
    # a version of before wrote no owner, and a root that was refreshed has manifests
    unknown = not owner and not root.manifests.exists() and instance.get_runs_count() > 0
    if unknown or (owner and owner["root"] != _identity(root)):
        whose = f" ({owner['path']})" if owner else ""
        raise StoreError(
            f"[storage] dagster: the database holds the history of another root{whose}: drop and"
            " create it and that of MLflow if that root is gone, or name others in"
            f" {root.settings_file}"
        )


def _identity(root: DataRoot) -> str:
    return root.identity.read_text(encoding="utf-8").strip() if root.identity.exists() else ""


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
    """End the runs of killed processes, also of other hosts, in Dagster, and free their slots
    in the training pool. Returns their number. The caller holds the lock of the root."""
    dead = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        process = run.tags.get(PROCESS_TAG)
        # a refresh of this host has given back the lock, though its process may still be ending
        if process and (of_this_host(process) or not process_lives(process, root.heartbeats)):
            if CLUSTER_TAG in run.tags:
                # a cluster that is gone has no jobs left
                with suppress(ClusterError):
                    stop_jobs_of(run.tags[CLUSTER_TAG], [run.run_id])
            ends = (
                instance.report_run_canceled
                if run.status == dg.DagsterRunStatus.CANCELING
                else instance.report_run_failed
            )
            ends(
                run,
                "The process of this run was killed; gaip3 refresh continues from its checkpoints.",
            )
            dead += 1
    _free_slots(instance)
    return dead


def _free_slots(instance: dg.DagsterInstance) -> None:
    """Free the places in the training pool of runs that have ended. A killed run that was
    terminated on Dagster's pages keeps its own until Dagster's daemon runs, and every training
    would wait for it."""
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def _shown_and(record: Record) -> Watch:
    """Shows the progress of the steps of a cluster on this terminal, and notes it in ``record``."""
    shown: dict[str, Progress] = {}

    def watch(label: str, done: int, total: int, left: float | None) -> None:
        record.progress(label, done, total, left)
        shown.setdefault(label, Progress(f"  {label}", total))(done, total)

    return watch


@contextmanager
def _parent_run(
    definitions: dg.Definitions,
    tracking: MlflowTracking,
    root: DataRoot,
    planned: Forecast,
    record: Record,
) -> Iterator[dict[str, str]]:
    """Tags for Dagster's runs: the id of the run in MLflow that holds the trainings of this refresh
    and its headline figures, and the content hash of the root; none if nothing is trained."""
    graph = definitions.resolve_asset_graph()
    nodes = [graph.get(dg.AssetKey(p.name)) for p in planned.plan]
    if not any("dagster/kind/mlflow" in node.tags for node in nodes):
        yield {}
        return
    name = f"{datetime.now():%Y-%m-%d %H:%M} · {planned.causes}"
    content = content_hash(root) if tracking.enabled else ""
    parent = tracking.start_refresh(record.refresh_id, name[:LONGEST_NAME], content)
    complete = False
    try:
        yield {tracking.PARENT_TAG: parent, tracking.CONTENT_TAG: content} if parent else {}
        complete = True
    finally:
        tracking.end_refresh(
            parent, headline_figures(record.results), headlines(record.results), complete
        )


def _stage(number: int, of: int, todo: list[Planned], planned: Forecast) -> str:
    """Where a refresh stands, with the time left if every asset takes its expected time."""
    line = f"stage {number} of {of}"
    seconds = [planned.expected.get(p.name) for p in todo]
    known = [s for s in seconds if s is not None]
    return f"{line}, about {spoken(sum(known))} left" if len(known) == len(seconds) else line


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
    tags: Mapping[str, str],
) -> None:
    names = list(config)
    start = time.monotonic()
    outcome.run_ids.append(run_id)
    tags = {**tags, REFRESH_TAG: outcome.refresh_id, PROCESS_TAG: this_process()}
    with stoppable(instance, run_id) as cancel:
        result = execute(
            definitions,
            instance,
            Layer(names, run_id, tags, config),
            lambda entry: _note(entry, instance, names, outcome, record, say=say, cancel=cancel),
        )
    failed = [e for e in result.events if e.is_step_failure]
    between = [e.job_failure_data.error for e in result.events if e.is_job_failure]
    if {*map(_cause, failed), *(error.cls_name for error in between if error)} & INTERRUPTIONS:
        end_as_canceled(instance, run_id)
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
            meaning = _meaning(definitions, evaluation)
            if meaning:
                line += f" ({meaning})"
            outcome.failed_checks.append(line)
            record.check_failed(line)
            say(f"  {line}")
            if stopped and evaluation.blocking:
                problems.append(f"{line}\nThe assets downstream were not materialised.")
    ended = "made in" if result.success else "failed after"
    say(f"  {ended} {time.monotonic() - start:.1f} s")
    if not result.success:
        raise RefreshError("\n".join(problems) or f"Dagster run {run_id} failed; see the UI")


def _meaning(definitions: dg.Definitions, evaluation: dg.AssetCheckEvaluation) -> str:
    """What a check tests, in the words of its definition."""
    key = dg.AssetCheckKey(evaluation.asset_key, evaluation.check_name)
    node = definitions.resolve_asset_graph().get(key)
    return (node.description or "").strip().rstrip(".")


def _note(
    entry: dg.EventLogEntry,
    instance: dg.DagsterInstance,
    names: list[str],
    outcome: Outcome,
    record: Record,
    *,
    say: Say,
    cancel: Callable[[], None],
) -> None:
    """Note Dagster's event in ``outcome`` and ``record`` if it is about an asset of ``names``;
    ``cancel`` is called if the asset was interrupted."""
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
        why = "its machine was lost, or a disk failed for a moment"
        say(f"\n  {name}: {why}; it waits to run again")
    elif event.is_step_failure and _cause(event) in INTERRUPTIONS:
        cancel()
        record.interrupted(name)
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
    The block gets a function that makes sure that the lock is still held. Temporary files of
    killed processes are removed first.

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
            remove_abandoned(root.places)
            yield lambda: None
            return
        try:
            with Lock(store) as lock:
                remove_abandoned(root.places)
                yield lock.check
        except Occupied as e:
            raise occupied(str(e)) from e
