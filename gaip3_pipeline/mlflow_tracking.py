"""The only module that uses MLflow: a parent run per refresh (or per Dagster run that was started
in the UI), a child run per training, the model registry.

MLflow is imported when the first run starts, never with the definitions. Runs are addressed by id
through the client, so this module keeps no state in the process."""

import base64
import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from gaip3_pipeline.environment import PACKAGE_NAME, pinned, required_packages
from gaip3_pipeline.evaluation.headlines import is_bookkeeping, main_figures
from gaip3_pipeline.layout import REPOSITORY, TRAININGS_VIEW
from gaip3_pipeline.mlflow_paths import Followed, follow_root, place_of
from gaip3_pipeline.processes import beating, process_lives, this_process
from gaip3_pipeline.served import Kind, kind_of
from gaip3_pipeline.stores import Store, StoreError, database_error, is_server
from gaip3_pipeline.tables.databases import DatabaseError, explain, sqlite_file, sqlite_url
from gaip3_pipeline.tables.files import create_atomically, temporary_folder
from gaip3_pipeline.tables.problems import clear

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy import MetaData

EXPERIMENT = "gaip3"
DIGEST_LENGTH = 32  # MLflow takes at most 36 characters
OWN_VARIABLES = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION")
NOTE = "mlflow.note.content"  # the description on the page of a run or an experiment, in Markdown
# sections of a run's metrics
EPOCH, FINAL, BOOKKEEPING = "epoch/", "final/", "meta/"
_REFRESH = "gaip3.refresh_id"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    NOTE: (
        "The trainings and evaluations of the pipeline: a parent run for each refresh, a child run"
        " for each asset. Metrics: `epoch/…` are the curves of a training, `final/…` the figures of"
        " its result, `meta/…` what it was made with (numbers of examples, epochs, ranges)."
    ),
}
# a picture of one grey pixel, a value
_EXAMPLES = {
    "binary": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNoaGgAAAMEAYFL09IQAAAAAElFTkSuQmCC"
    ),
    "double": 0.5,
}
CANDIDATE, CHAMPION = "candidate", "champion"
ANSWER_SECONDS = 6  # for a connection and for an answer of a tracking server
RETRY_SECONDS = 60  # between two attempts to deliver what a server did not take


class TrackingError(DatabaseError):
    """MLflow cannot be used; the message is one line with its address and the remedy."""


@dataclass(frozen=True)
class Registered:
    """A registered version of a model: its number, its aliases, and the commit of its training,
    with changes that were not committed if ``dirty``."""

    number: str
    aliases: list[str]
    commit: str
    dirty: bool


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model: its number, its aliases, the content hash of its weights,
    its files and its metrics."""

    number: str
    aliases: list[str]
    data_version: str
    folder: Path
    figures: dict[str, float]


class MlflowTracking(dg.ConfigurableResource):
    """MLflow runs of trainings. ``enabled = false`` runs the same code without MLflow.

    ``uri``: of the store, or ``env:NAME``; ``artifacts``: the folder of the files of runs, unless
    the store is a server, which decides itself; ``link``: the address of MLflow's pages, unless the
    store is a server; ``dagster``: that of Dagster's pages; ``heartbeats``: see
    :mod:`gaip3_pipeline.processes`."""

    PARENT_TAG: ClassVar[str] = "gaip3/mlflow_run_id"
    CONTENT_TAG: ClassVar[str] = "gaip3/content"  # the root's content hash (tables/content.py)

    enabled: bool = True
    uri: str = ""
    artifacts: str = ""
    link: str = "http://127.0.0.1:5000"
    dagster: str = "http://127.0.0.1:3000"
    heartbeats: str = ""

    def client(self) -> "MlflowClient":
        """A client of the store, which is created on first use. Raises
        :class:`~gaip3_pipeline.stores.StoreError` if the store cannot be used."""
        self._store.check()
        if self.is_own:
            for name in os.environ.keys() - for_own_store(os.environ).keys():
                del os.environ[name]
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        # MLflow's default of 7 retries is silent for 4 minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient

        # MLflow logs each database migration
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        file = sqlite_file(self.uri)
        if file:
            create_database(file)
        return MlflowClient(tracking_uri=self._store.url, registry_uri=self._store.url)

    @property
    def _store(self) -> Store:
        return Store.of_mlflow(self.uri)

    @property
    def is_own(self) -> bool:
        """Whether the store is the root's own, and not one that the user named."""
        file = sqlite_file(self.uri)
        return file is not None and file.parent == Path(self.artifacts).parent

    def answers(self) -> bool:
        """Whether the tracking server answers within seconds; True for a store without a server."""
        if not self.enabled or not is_server(self._store.url):
            return True
        from mlflow.exceptions import MlflowException
        from mlflow.tracking._tracking_service.utils import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        try:
            answer = http_request(
                get_default_host_creds(self._store.url),
                "/health",
                "GET",
                timeout=ANSWER_SECONDS,
                max_retries=0,
                raise_on_status=False,
            )
        except MlflowException:
            return False
        return answer.status_code not in (502, 503, 504)  # of a proxy in front of the server

    def check(self) -> None:
        """Raises :class:`TrackingError` if the tracking server does not answer, and
        :class:`~gaip3_pipeline.stores.StoreError` if the database cannot be used."""
        if not self.enabled:
            return
        if not is_server(self._store.url):
            self._store.check()
        self.check_server()

    def check_server(self) -> None:
        """Raises :class:`TrackingError` if the store is a server that does not answer."""
        if not self.answers():
            raise TrackingError(
                f"the MLflow server {self.uri} does not answer: start it, or change uri or set"
                " enabled = false under [tracking] in gaip3.toml"
            )

    def follow_root(self) -> Followed | None:
        """Lead the paths in the root's own store to where the root is now, if it was moved or
        copied. A store that the user named is left alone."""
        file = sqlite_file(self.uri) if self.enabled and self.is_own else None
        return follow_root(file, EXPERIMENT, Path(self.artifacts)) if file else None

    def experiment(self, client: "MlflowClient") -> str:
        """The id of the pipeline's experiment, which is created on first use."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        try:
            return client.create_experiment(
                EXPERIMENT,
                artifact_location=Path(self.artifacts).as_uri()
                if self.artifacts and self._store.in_database
                else None,
                tags=EXPERIMENT_TAGS,
            )
        except MlflowException:
            found = client.get_experiment_by_name(EXPERIMENT)  # another process has created it
            if not found:
                raise
            return found.experiment_id

    def end_dead_runs(self) -> int:
        """Mark runs as KILLED that processes left RUNNING when they ended; returns their number.
        Raises :class:`TrackingError` if the tracking server does not answer."""
        if not self.enabled:
            return 0
        self.check()
        client = self.client()
        dead = [
            r
            for r in client.search_runs(
                [self.experiment(client)], "attributes.status = 'RUNNING'", max_results=1000
            )
            if not process_lives(r.data.tags.get("gaip3.process", ""), Path(self.heartbeats))
        ]
        for run in dead:
            client.set_terminated(run.info.run_id, status="KILLED")
        return len(dead)

    def promote(self, asset: str, version: str) -> bool:
        """Move the alias ``champion`` of a registered model to the version whose weights have
        the content hash ``version``."""
        if not self.enabled:
            return False
        from mlflow.exceptions import MlflowException

        try:
            self.check()
            client = self.client()
            found = _latest_with(client, asset, version)
            if not found:
                return False
            client.set_registered_model_alias(asset, CHAMPION, found.version)
        except (MlflowException, TrackingError, StoreError):
            print(
                f"{asset}: {self.store} fails; it does not show that this model passed its check",
                file=sys.stderr,
                flush=True,
            )
            return False
        return True

    def registered(self, asset: str, version: str) -> Registered | None:
        """The latest registered version of a model whose weights have the content hash
        ``version``; None if MLflow has none or does not answer."""
        file = sqlite_file(self.uri)
        if not self.enabled or (file and not file.exists()):
            return None
        from mlflow.exceptions import MlflowException

        try:
            self.check()
            client = self.client()
            found = _latest_with(client, asset, version)
            if not found:
                return None
            aliases = client.get_registered_model(asset).aliases
            tags = client.get_run(str(found.run_id)).data.tags
        except (MlflowException, TrackingError, StoreError):
            return None
        return Registered(
            found.version,
            sorted(a for a, n in aliases.items() if n == found.version),
            tags.get("gaip3.git_commit", ""),
            tags.get("gaip3.git_dirty") == "true",
        )

    def versions(self, asset: str, measured_by: str) -> list[ModelVersion]:
        """The registered versions of a model whose files are on this machine, newest first; empty
        if there is no store.

        Their metrics are those of their training and of the last run of the asset ``measured_by``
        that measured these weights."""
        file = sqlite_file(self.uri)
        if not self.enabled or (file and not file.exists()):
            return []
        self.check()
        client = self.client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        aliases = (
            client.get_registered_model(asset).aliases
            if client.search_registered_models(f"name = '{asset}'")
            else {}
        )
        found = []
        for entry in sorted(
            client.search_model_versions(f"name = '{asset}'"), key=lambda m: -int(m.version)
        ):
            version = entry.tags.get("gaip3.data_version", "")
            folder = place_of(
                str(entry.source),
                str(experiment.artifact_location),
                Path(self.artifacts) if self.artifacts else None,
            )
            if not folder.is_dir():
                continue
            measured = client.search_runs(
                [experiment.experiment_id],
                f"tags.`gaip3.asset` = '{measured_by}' and tags.`gaip3.input.{asset}` ="
                f" '{version}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            runs = [client.get_run(str(entry.run_id)), *measured]
            figures = {
                k.removeprefix(section): v
                for run in runs
                for k, v in run.data.metrics.items()
                for section in (FINAL, BOOKKEEPING)
                if k.startswith(section)
            }
            found.append(
                ModelVersion(
                    entry.version,
                    sorted(a for a, n in aliases.items() if n == entry.version),
                    version,
                    folder,
                    figures,
                )
            )
        return found

    @property
    def store(self) -> str:
        """The store in messages."""
        file = sqlite_file(self.uri)
        if file:
            return f"MLflow's database {file}"
        server = is_server(self._store.url)
        return f"the MLflow server {self.uri}" if server else "MLflow's database in Postgres"

    def start_refresh(self, refresh_id: str, name: str, content: str) -> str:
        """The id of a new parent run for the trainings of a refresh of a root with the hash
        ``content``; "" without MLflow."""
        if not self.enabled:
            return ""
        there = f"[Its runs in Dagster]({self.dagster}/runs?q[0]=tag:gaip3/refresh_id={refresh_id})"
        tags = {_REFRESH: refresh_id, NOTE: there, self.CONTENT_TAG: content}
        return self._start_parent(self.client(), name, tags)

    def end_refresh(
        self, run_id: str, figures: Mapping[str, float], lines: Sequence[str], complete: bool
    ) -> None:
        """Store the headline ``figures`` of a refresh with its parent run, describe it by ``lines``
        (headlines before and after), and close it: as failed if a training failed, as killed if it
        is not ``complete``, and as finished else."""
        if not run_id or not self.answers():  # the next refresh ends what is left
            return
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        metrics = [Metric(k, v, now, 0) for k, v in figures.items() if math.isfinite(v)]
        try:
            client = self.client()
            client.log_batch(run_id, metrics)
            if lines:
                there = client.get_run(run_id).data.tags.get(NOTE, "")
                client.set_tag(run_id, NOTE, "\n".join([there, "```", *lines, "```"]))
            close_parent(client, run_id, "FINISHED" if complete else "KILLED")
        except (MlflowException, StoreError) as e:
            why = self._reason(e)
            print(f"{self.store} lacks the figures of the refresh: {why}", file=sys.stderr)

    def _reason(self, error: Exception) -> str:
        """``error`` of the store in one line."""
        file, failed = sqlite_file(self.uri), database_error(error)
        known = explain(error, file) if file else failed and self._store.complaint(failed)
        return known or clear(" ".join(str(error).split()))

    def start_sweep(self, sweep: str, name: str) -> str:
        """The id of the parent run of a sweep, which is created on first use; "" without MLflow."""
        if not self.enabled:
            return ""
        client = self.client()
        experiment = self.experiment(client)
        found = client.search_runs([experiment], f"tags.`gaip3.sweep` = '{sweep}'", max_results=1)
        if found:
            return found[0].info.run_id
        return self._start_parent(client, name, {"gaip3.sweep": sweep})

    def _start_parent(self, client: "MlflowClient", name: str, tags: dict[str, str]) -> str:
        tags = {**tags, "gaip3.process": this_process(), **_git_state()}
        return client.create_run(self.experiment(client), run_name=name, tags=tags).info.run_id

    def end_sweep(self, run_id: str, table: str) -> None:
        """Store the ``table`` of a sweep, a CSV, with its parent run, and close it."""
        if not self.enabled:
            return
        client = self.client()
        client.log_text(run_id, table, "sweep.csv")
        client.set_terminated(run_id)

    def url(self, experiment_id: str, run_id: str) -> str:
        """The page of a run in the MLflow UI."""
        return f"{self.pages}/#/experiments/{experiment_id}/runs/{run_id}{TRAININGS_VIEW}"

    @property
    def pages(self) -> str:
        """The address of MLflow's pages."""
        server = self._store.url if is_server(self._store.url) else self.link
        return server.rstrip("/")


def _latest_with(client: "MlflowClient", asset: str, version: str) -> Any:
    """The latest registered version of ``asset`` whose weights have the content hash ``version``,
    or None."""
    return max(
        (
            m
            for m in client.search_model_versions(f"name = '{asset}'")
            if m.tags.get("gaip3.data_version") == version
        ),
        key=lambda m: int(m.version),
        default=None,
    )


def close_parent(client: "MlflowClient", run_id: str, otherwise: str = "FINISHED") -> None:
    """Close a parent run: it failed, or was killed, if one of its children was, and has the status
    ``otherwise`` else."""
    children = client.search_runs(
        [client.get_run(run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    ended = {child.info.status for child in children}
    status = next((s for s in ("FAILED", "KILLED") if s in ended), otherwise)
    client.set_terminated(run_id, status)


def create_database(file: Path) -> None:
    """Create MLflow's SQLite database with its tables, whole or not at all, unless it is there.
    MLflow cannot continue a database whose tables it was still creating."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(file.parent) as folder:
        made = folder / file.name
        create_tables(sqlite_url(made))
        with contextlib.suppress(FileExistsError):  # another process was faster
            create_atomically(file, made.read_bytes())


def create_tables(url: str) -> None:
    """Create MLflow's tables in the database ``url`` if it has none."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.store.db import utils

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine = utils.create_sqlalchemy_engine_with_retry(url)
    try:
        utils._safe_initialize_tables(engine)
    finally:
        engine.dispose()


def definitions() -> "MetaData":
    """The definitions of MLflow's tables."""
    # the first import registers all tables
    import mlflow.store.db.utils  # noqa: F401
    from mlflow.store.db.base_sql_model import Base

    return Base.metadata


class TrainingRun:
    """One training in MLflow. Its status is FINISHED when the block ends, FAILED after an error,
    KILLED after an interruption.

    ``name`` is shown in MLflow, by default that of the asset. ``parent_id`` is the id of the parent
    run; if it is None, a parent run is created and ``on_parent`` is called with its id. ``content``
    is the content hash of the root, by which a snapshot of the same content is found. If an
    earlier run with the same fingerprint failed or was killed, it is continued, as the training
    itself continues from its checkpoint.

    Raises :class:`TrackingError` at the beginning if MLflow cannot be used. A store that fails
    later does not stop the training: what it did not take is kept and delivered when it answers
    again, and a line at the end says what is missing from it."""

    def __init__(
        self,
        tracking: MlflowTracking,
        *,
        asset: str,
        name: str = "",
        description: str = "",
        dagster_run_id: str = "",
        parent_id: str | None,
        on_parent: Callable[[str], None] = lambda run_id: None,
        code_version: str,
        inputs: Mapping[str, str],
        fingerprint: str,
        parameters: Mapping[str, Any],
        content: str = "",
    ) -> None:
        self._tracking = tracking
        self._content = content
        self._asset = asset
        self._name = name or asset
        self._description = description
        self._dagster_run_id = dagster_run_id
        self._parent_id = parent_id
        self._closes_parent = True
        self._on_parent = on_parent
        self._code_version = code_version
        self._inputs = inputs
        self._fingerprint = fingerprint
        self._parameters = parameters
        self._client: Any = None
        self._unsent: deque[tuple[str, Callable[[], Any]]] = deque()
        self._next_try = 0.0
        self._figures: dict[str, float] = {}
        self.run_id = ""
        self.url = ""
        self._beats = ExitStack()

    def __enter__(self) -> "TrainingRun":
        if not self._tracking.enabled:
            return self
        if self._tracking.heartbeats:
            self._beats.enter_context(beating(Path(self._tracking.heartbeats)))
        with self._beats:  # closed if the run cannot be started
            self._tracking.check()
            try:
                moved = self._tracking.follow_root()
                if moved:
                    print(moved, file=sys.stderr, flush=True)
                self._start()
            except Exception as e:
                file = sqlite_file(self._tracking.uri)
                line = explain(e, file) if file else None
                if line:
                    raise TrackingError(line) from e
                raise
            self._beats = self._beats.pop_all()
        return self

    def _start(self) -> None:
        # also those whose Dagster run has ended, and which a refresh does not look for
        self._tracking.end_dead_runs()
        self._client = client = self._tracking.client()
        experiment = self._tracking.experiment(client)
        if self._parent_id is None:
            parent = client.create_run(
                experiment,
                run_name=f"dagster {self._dagster_run_id[:8]}",
                tags={
                    "gaip3.dagster_run_id": self._dagster_run_id,
                    "gaip3.process": this_process(),
                    NOTE: self._in_dagster,
                },
            )
            self._parent_id = parent.info.run_id
            self._on_parent(self._parent_id)
        else:
            parent = client.get_run(self._parent_id)
            self._closes_parent = _REFRESH not in parent.data.tags  # a refresh closes its own
            if self._closes_parent:
                client.set_tag(self._parent_id, "gaip3.process", this_process())
                client.update_run(self._parent_id, status="RUNNING")
        tags = {
            "mlflow.parentRunId": self._parent_id,
            "gaip3.asset": self._asset,
            "gaip3.dagster_run_id": self._dagster_run_id,
            "gaip3.code_version": self._code_version,
            "gaip3.fingerprint": self._fingerprint,
            "gaip3.process": this_process(),
            NOTE: self._note({}),
            **({self._tracking.CONTENT_TAG: self._content} if self._content else {}),
            **{f"gaip3.input.{k}": v for k, v in self._inputs.items()},
            **_git_state(),
        }
        previous = self._left_behind(experiment)
        if previous:
            self.run_id = previous.info.run_id
            client.update_run(self.run_id, status="RUNNING")
            for key, value in (
                tags | {"gaip3.resumed": str(int(previous.data.tags.get("gaip3.resumed", 0)) + 1)}
            ).items():
                client.set_tag(self.run_id, key, value)
        else:
            self.run_id = client.create_run(experiment, run_name=self._name, tags=tags).info.run_id
            self._log_parameters_and_inputs()
        self.url = self._tracking.url(experiment, self.run_id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._client:
            return
        with self._beats:
            self._end(kind, error)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if kind is None:
            status = "FINISHED"
        else:
            status = (
                "FAILED"
                if issubclass(kind, Exception)
                and kind.__name__ != "DagsterExecutionInterruptedError"
                else "KILLED"
            )
            self.tag("gaip3.error", f"{kind.__name__}: {error}"[:500])
        self._send("its status", self._client.set_terminated, self.run_id, status)
        if self._closes_parent:
            # with each child, and the next one opens it again: without a refresh no process runs
            # after the last child that could close it
            self._send("its parent's status", self._end_parent)
        self._deliver(last=True)
        if self._unsent:
            counts = Counter(what for what, _ in self._unsent)
            missing = ", ".join(f"{n} × {what}" if n > 1 else what for what, n in counts.items())
            print(
                f"{self._asset}: {self._tracking.store} failed and lacks {missing}; the files of"
                " the root are complete",
                file=sys.stderr,
                flush=True,
            )

    def _end_parent(self) -> None:
        assert self._parent_id
        close_parent(self._client, self._parent_id)

    @property
    def _in_dagster(self) -> str:
        """Links to the Dagster run, and to the asset."""
        if not self._dagster_run_id:
            return ""
        pages, run = self._tracking.dagster, self._dagster_run_id
        return (
            f"[{self._asset} in Dagster]({pages}/assets/{self._asset})"
            f" · [Dagster run {run[:8]}]({pages}/runs/{run})"
        )

    def _note(self, figures: Mapping[str, float]) -> str:
        """The description of the run: what is trained, the main ones of ``figures``, and the way
        to Dagster."""
        rest = " · ".join(filter(None, (self._headline(figures), self._in_dagster)))
        return "\n\n".join(filter(None, (self._description, rest)))  # MLflow folds a third line

    def _headline(self, figures: Mapping[str, float]) -> str:
        main = [name for name in main_figures(self._asset) if name in figures]
        return ", ".join(f"{name} {figures[name]:.4g}" for name in main)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the metrics of an epoch as ``epoch/…``, those of held-out examples first, since
        MLflow opens a comparison on the first metric. Values that are not finite are left out,
        since MLflow's store rejects them."""
        order = sorted(figures, key=lambda k: ("val_" not in k, k.endswith("loss")))
        self._log(step, {f"{EPOCH}{name}": figures[name] for name in order})

    def _log(self, step: int, figures: Mapping[str, float]) -> None:
        if not self._client or not figures:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(k, float(v), now, step) for k, v in figures.items() if math.isfinite(v)]
        self._send("metrics", self._client.log_batch, self.run_id, metrics)

    def result(self, figures: Mapping[str, float]) -> None:
        """Log final metrics, the main ones first: figures as ``final/…``, and as ``meta/…`` what
        says how many examples, epochs and so on they are of."""
        main = main_figures(self._asset)
        place = {name: i for i, name in enumerate(main)}
        order = sorted(figures, key=lambda k: (is_bookkeeping(k), place.get(k, len(main))))
        self._figures = dict(figures)
        named = {f"{BOOKKEEPING if is_bookkeeping(k) else FINAL}{k}": figures[k] for k in order}
        self._log(0, named)
        self.tag(NOTE, self._note(figures))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file with the run."""
        if self._client:
            self._send(path.name, self._client.log_artifact, self.run_id, str(path), folder)

    def picture(self, name: str, jpeg: bytes) -> None:
        """Store a JPEG with the run."""
        self._bytes(name, jpeg)

    def image(self, name: str, step: int, picture: Any) -> None:
        """Log ``picture (H, W, 3) uint8`` of an epoch, under ``images/`` of the run's artefacts."""
        if self._client:
            self._send(
                "pictures",
                lambda: self._client.log_image(self.run_id, picture, key=name, step=step),
            )

    def text(self, name: str, text: str) -> None:
        """Store a text with the run, such as a CSV."""
        self._bytes(name, text.encode())

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        if self._client:
            self._send("tags", self._client.set_tag, self.run_id, name, value)

    def register(
        self,
        folder: Path,
        version: str,
        beside: Mapping[str, Path] | None = None,
        ways: Mapping[str, Any] | None = None,
    ) -> None:
        """Register the model in ``folder`` under the asset's name, with the alias ``candidate``, so
        that MLflow can load it (see served.py).

        ``version`` is the content hash of its weights, stored as a tag of the run and of the model
        version. ``beside``: folders of further models that it needs, by name; ``ways``: how it cuts
        pictures, and how it draws faces by default."""
        if not self._client:
            return
        for name, place in ({"": folder} | dict(beside or {})).items():
            for pattern in ("*.weights.h5", "*.json", "*.npz"):
                for file in sorted(place.glob(pattern)):
                    self.artifact(file, f"model/{name}" if name else "model")
        kind = kind_of(self._asset)
        if kind:
            self._send(
                "the model's description",
                self._describe_model,
                kind,
                {"asset": self._asset, **(ways or {})},
            )
        self.tag("gaip3.data_version", version)
        self._send("the registered model", self._register, version)

    def _describe_model(self, kind: Kind, config: dict[str, Any]) -> None:
        """Add to the model's files what MLflow needs to load it, without pickle."""
        import tempfile

        import mlflow.pyfunc
        import pandas as pd
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        optional = kind.optional or {}
        columns: list[Any] = [ColSpec(t, name) for name, t in kind.inputs.items()]
        columns += [ColSpec(t, name, required=False) for name, t in optional.items()]
        signature = ModelSignature(
            Schema(columns), Schema([ColSpec(t, name) for name, t in kind.outputs.items()])
        )
        example = {name: [_EXAMPLES[t]] for name, t in kind.inputs.items()}
        # it warns that this environment has no pip
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / self._asset
            mlflow.pyfunc.save_model(
                place,
                loader_module=kind.__module__,
                signature=signature,
                input_example=pd.DataFrame(example),
                pip_requirements=pinned([PACKAGE_NAME, *required_packages()]),
                model_config=config,
            )
            self._client.log_artifacts(self.run_id, str(place), "model")

    def _register(self, version: str) -> None:
        from mlflow.exceptions import MlflowException

        about = self._about_model
        try:
            self._client.create_registered_model(self._asset, description=about)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if not self._client.get_registered_model(self._asset).description:
                self._client.update_registered_model(self._asset, about)  # one of before
        source = f"{self._client.get_run(self.run_id).info.artifact_uri}/model"
        parent = self._client.get_run(self._parent_id).info.run_name
        told = filter(None, (self._headline(self._figures), parent))
        registered = self._client.create_model_version(
            self._asset,
            source,
            self.run_id,
            tags={"gaip3.data_version": version},
            description="\n\n".join([" · ".join(told), self._in_dagster]),
        )
        self._client.set_registered_model_alias(self._asset, CANDIDATE, registered.version)

    @property
    def _about_model(self) -> str:
        """The description of the registered model."""
        aliases = (
            f"`{CANDIDATE}` is the version trained last, `{CHAMPION}` the last one whose check"
            " passed."
        )
        load = f'Load it by `mlflow.pyfunc.load_model("models:/{self._asset}@{CHAMPION}")`.'
        parts = (self._description, aliases, load if kind_of(self._asset) else "")
        return "\n\n".join(filter(None, parts))

    def _bytes(self, name: str, data: bytes) -> None:
        if self._client:
            self._send(name, self._log_bytes, name, data)

    def _log_bytes(self, name: str, data: bytes) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self._client.log_artifact(self.run_id, str(path))

    def _send(self, what: str, call: Callable[..., Any], *arguments: Any) -> None:
        """Call MLflow, after what is still to be delivered; ``what`` names it in messages."""
        self._unsent.append((what, lambda: call(*arguments)))
        self._deliver()

    def _deliver(self, last: bool = False) -> None:
        """Deliver what is unsent, in order. After a failure there is no further attempt for a
        minute, so that a training does not wait for a server that is down."""
        from mlflow.exceptions import MlflowException

        if time.monotonic() < self._next_try and not last:
            return
        while self._unsent:
            try:
                # MLflow itself would wait for a server; a database fails at once, and to look at it
                # first would open a connection for every figure
                self._tracking.check_server()
                self._unsent[0][1]()
            except (MlflowException, TrackingError, OSError) as e:
                if getattr(e, "error_code", "") == "INVALID_PARAMETER_VALUE":
                    raise  # an error of this program; a later attempt cannot succeed
                if not self._next_try:
                    print(
                        f"{self._asset}: {self._tracking.store} fails; the training goes on and"
                        " delivers its figures later",
                        file=sys.stderr,
                        flush=True,
                    )
                self._next_try = time.monotonic() + RETRY_SECONDS
                return
            self._unsent.popleft()
        self._next_try = 0.0

    def _left_behind(self, experiment: str) -> Any:
        found = self._client.search_runs(
            [experiment],
            f"tags.`gaip3.asset` = '{self._asset}' and tags.`gaip3.fingerprint` ="
            f" '{self._fingerprint}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        if not found:
            return None
        stopped = found[0].info.status in ("FAILED", "KILLED")
        dead = found[0].info.status == "RUNNING" and not process_lives(
            found[0].data.tags.get("gaip3.process", ""), Path(self._tracking.heartbeats)
        )
        return found[0] if stopped or dead else None

    def _log_parameters_and_inputs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        self._client.log_batch(
            self.run_id, params=[Param(k, str(v)) for k, v in self._parameters.items()]
        )
        datasets = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=version[:DIGEST_LENGTH] or "unknown",
                    source_type="dagster",
                    source=json.dumps({"asset": name}),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for name, version in self._inputs.items()
        ]
        if datasets:
            self._client.log_inputs(self.run_id, datasets)


def for_own_store(variables: Mapping[str, str]) -> dict[str, str]:
    """``variables`` without those of MLflow, except the ones that the pipeline sets: a server and
    a workspace of the user's other projects have no part in the root's own store."""
    return {k: v for k, v in variables.items() if not k.startswith("MLFLOW_") or k in OWN_VARIABLES}


def _git_state() -> dict[str, str]:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "gaip3.git_commit": git("rev-parse", "HEAD"),
            "gaip3.git_dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
