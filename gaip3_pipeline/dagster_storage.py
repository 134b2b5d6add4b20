"""Dagster's SQLite storage of a data root, for every legal folder name, an instance that only reads
it, and the launcher whose "Terminate" also stops a refresh.

Dagster pastes the path of a database into a URL without escaping it, so that ``%``, ``?`` and ``;``
in the name of a folder change their meaning."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
from dagster._core.instance import DagsterInstance, InstanceType
from dagster._core.instance import types as instance_types
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage import sqlite_storage
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import TemporaryLocalArtifactStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Engine

from gaip3_pipeline.dagster_home import dagster_yaml, is_local, root_of_environment
from gaip3_pipeline.layout import DAGSTER_TEMPLATE, DataRoot
from gaip3_pipeline.processes import process_lives
from gaip3_pipeline.stores import database_error
from gaip3_pipeline.tables.databases import check_history, sqlite_url

PROCESS_TAG = "gaip3/process"  # of the runs of a refresh: the process that executes them


def _database(base_dir: str, name: str) -> Path:
    return Path(os.path.abspath(base_dir), f"{name}.db")


def _url(base_dir: str, db_name: str) -> str:
    return sqlite_url(_database(base_dir, db_name))


# Each of these modules has imported Dagster's function by name.
for _module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
    vars(_module)["create_db_conn_string"] = _url


class _StandardError:
    """Where Dagster writes an error of its event log before it raises it or notes it in the log.
    That of a database or a disk is told in one line once it is raised."""

    def write(self, text: str) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) or database_error(error)):
            sys.stderr.write(text)


vars(instance_types)["sys"] = SimpleNamespace(stderr=_StandardError(), exc_info=sys.exc_info)


class RootStorage(sqlite_storage.DagsterSqliteStorage):
    """Dagster's SQLite storage with escaped URLs; ``dagster.yaml`` names it."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "RootStorage":
        return cls.from_local(inst_data=inst_data, **config_value)


class RootRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, which ``dagster.yaml`` names. It can also terminate the runs of ``gaip3
    refresh``, which no launcher started: the process of the refresh sees within a second that its
    run is to be canceled. A run whose process is gone is canceled at once."""

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PROCESS_TAG not in run.tags:
            return super().terminate(run_id)
        if process_lives(run.tags[PROCESS_TAG], root_of_environment().heartbeats):
            self._instance.report_run_canceling(run)
        else:
            self._instance.report_run_canceled(run, "The process of this run was killed.")
        return True


class _ReadOnlyEventLog(sqlite_event_log.SqliteEventLogStorage):
    def conn_string_for_shard(self, shard_name: str) -> str:
        return sqlite_url(_database(self._base_dir, shard_name), read_only=True)

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        """Nothing: what is only read has its tables. The comparison of Alembic's revisions takes
        a tenth of a second for each run."""


@contextmanager
def reading_instance(root: DataRoot) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with the history of ``root`` that writes nothing; without a store its
    history is empty. A storage that the user named in ``dagster.yaml`` is opened as it is."""
    if not is_local(root):
        with tempfile.TemporaryDirectory(prefix="gaip3-") as home:
            (Path(home) / DAGSTER_TEMPLATE.name).write_text(dagster_yaml(root), encoding="utf-8")
            with DagsterInstance.from_config(home) as instance:
                yield instance
        return
    check_history(root.dagster_runs, root.dagster_events)
    if not (root.dagster_runs.exists() and root.dagster_events.exists()):
        with DagsterInstance.ephemeral() as instance:
            yield instance
        return
    parts: dict[str, Any] = {
        "run_storage": sqlite_run_storage.SqliteRunStorage(
            sqlite_url(root.dagster_runs, read_only=True)
        ),
        "event_storage": _ReadOnlyEventLog(str(root.dagster_events.parent)),
    }
    with DagsterInstance(
        instance_type=InstanceType.EPHEMERAL,
        local_artifact_storage=TemporaryLocalArtifactStorage(),
        compute_log_manager=NoOpComputeLogManager(),
        run_coordinator=DefaultRunCoordinator(),
        run_launcher=SyncInMemoryRunLauncher(),
        **parts,
    ) as instance:
        yield instance
