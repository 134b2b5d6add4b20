"""``gaip3 storage move``: the history of a root goes from its sqlite files into Postgres.

Dagster and MLflow create the tables; this module copies the rows. Dagster keeps the events of each
run in a file of its own, and a second copy of those about assets, checks and the status of runs in
an index. In Postgres there is one table. The events of the index keep their numbers, since tags,
cursors and other events refer to them; the other events are numbered after them."""

import json
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaip3_pipeline import mlflow_tracking
from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.layout import DAGSTER_TEMPLATE, DataRoot
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.settings import load
from gaip3_pipeline.stores import Store, StoreError, check_setting, variable
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.web import servers

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

Row = dict[str, Any]

PART = 1000  # rows in one statement
# the state of a schema or of an installation; the target has its own
NOT_HISTORY = {"alembic_version", "secondary_indexes", "instance_info"}
# tables with rows in a database that is in use, and the rows that they have in a new one
IN_USE = {
    "dagster": {"runs": 0, "event_logs": 0, "asset_keys": 0, "instigators": 0, "job_ticks": 0},
    "mlflow": {"runs": 0, "registered_models": 0, "trace_info": 0, "experiments": 1},
}


@dataclass(frozen=True)
class Moved:
    """The number of rows of one table before and after; ``after`` is None where nothing was
    copied."""

    package: str
    table: str
    before: int
    after: int | None


def move(root: DataRoot, dagster: str, mlflow: str, dry_run: bool = False) -> list[Moved]:
    """Copy the history of ``root`` into the empty databases ``dagster`` and ``mlflow`` (a URL or
    ``env:NAME``; empty: this history stays), compare the counts of each table, then name the
    databases in the root's settings.

    With ``dry_run`` the rows are counted and the databases are looked at, and nothing is written.
    The sqlite files stay as they are. Raises :class:`StoreError`,
    :class:`~gaip3_pipeline.refresh.plan.RefreshError` if a refresh runs, and
    :class:`~gaip3_pipeline.web.servers.ServerError` if ``gaip3 ui`` runs."""
    targets = _targets(root, dagster, mlflow)
    with ExitStack() as stack:
        stack.enter_context(servers.only_one(root, {"": "gaip3 storage move"}))
        stack.enter_context(only_one(root))
        connections: list[Connection] = []
        moved: list[Moved] = []
        for target in targets:
            target.check()
            connection = stack.enter_context(target.connected("gaip3 storage move"))
            connection.execution_options(isolation_level="READ COMMITTED")
            _refuse_history(target, connection)
            connection.commit()
            if dry_run:
                moved += [Moved(target.package, t.name, n, None) for t, n in _sizes(target, root)]
                continue
            _create_tables(target)
            moved += _copied(target, root, connection)
            connections.append(connection)
        wrong = [m for m in moved if m.after not in (None, m.before)]
        if wrong:
            raise StoreError(
                f"nothing was moved: {wrong[0].package}'s table {wrong[0].table} has"
                f" {wrong[0].before:,} rows, and {wrong[0].after:,} arrived"
            )
        for connection in connections:
            connection.commit()
    if not dry_run:
        _name_in_settings(root, targets)
        ensure_dagster_home(root)
    return [m for m in moved if m.before]


def kept(root: DataRoot, dagster: bool, mlflow: bool) -> list[Path]:
    """The sqlite files that stay as a backup: a folder of Dagster's, the file of MLflow's."""
    folder = root.dagster_events.parent.parent
    return [*([folder, root.dagster_schedules] if dagster else []), *[root.mlflow_db] * mlflow]


def _targets(root: DataRoot, dagster: str, mlflow: str) -> list[Store]:
    settings = load(root)
    wanted = (
        (Store.of_dagster(dagster, root.dagster_home.absolute()), settings.storage.dagster),
        (Store.of_mlflow(mlflow), settings.tracking.uri),
    )
    targets = []
    for target, present in wanted:
        if not target.value:
            continue
        try:
            check_setting(target.package, target.value)
        except ValueError as e:
            raise StoreError(f"--{target.package}: {e}") from None
        if present:
            raise StoreError(
                f"{root.settings_file}: {target.setting} is set already, so the root's own history"
                f" is no longer in use: leave out --{target.package}"
            )
        if not target.in_postgres:
            raise StoreError(
                f"--{target.package}: rows are copied into a database in Postgres: give the URL of"
                " the database, not of a server"
            )
        targets.append(target)
    if len({target.url for target in targets}) < len(targets):
        raise StoreError(
            "--dagster and --mlflow name the same database: give each a database of its own"
        )
    for path in _sources(root, [t.package for t in targets]):
        if not path.exists():
            raise StoreError(
                f"{path} does not exist, so there is no history to move: name the database in"
                f" {root.settings_file} instead"
            )
    return targets


def _sources(root: DataRoot, packages: Iterable[str]) -> list[Path]:
    files = {
        "dagster": [root.dagster_runs, root.dagster_events, root.dagster_schedules],
        "mlflow": [root.mlflow_db],
    }
    return [path for package in packages for path in files[package]]


def _refuse_history(target: Store, connection: "Connection") -> None:
    from sqlalchemy import inspect, text

    present = inspect(connection).get_table_names()
    for table, new in IN_USE[target.package].items():
        if table not in present:
            continue
        count = connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar() or 0
        if count > new:
            raise StoreError(
                f"--{target.package}: the database has a history already ({count:,} rows in"
                f" {table}): give an empty one"
            )


def _create_tables(target: Store) -> None:
    if target.package == "mlflow":
        mlflow_tracking.create_tables(target.url)
        return
    import dagster as dg

    named = variable(target.value)
    url = {"env": named} if named else target.value
    with tempfile.TemporaryDirectory() as home:
        # JSON is YAML
        (Path(home) / DAGSTER_TEMPLATE.name).write_text(
            json.dumps({"storage": {"postgres": {"postgres_url": url}}}), encoding="utf-8"
        )
        with dg.DagsterInstance.from_config(home):
            pass


def _definitions(package: str) -> "list[MetaData]":
    """The tables of ``package``: for Dagster those of runs, events and schedules, as its three
    kinds of sqlite files."""
    if package == "mlflow":
        return [mlflow_tracking.definitions()]
    from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
    from dagster._core.storage.runs.schema import RunStorageSqlMetadata
    from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata

    return [RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata]


def _rows(target: Store, root: DataRoot) -> "Iterator[tuple[Table, Iterator[Row]]]":
    """Each table of the history, after those that it refers to, with its rows."""
    for path, metadata in zip(
        _sources(root, [target.package]), _definitions(target.package), strict=True
    ):
        with _opened(path) as source:
            target.check_schema(source, str(path))
            for table in metadata.sorted_tables:
                if table.name == "event_logs":
                    yield table, _events(root, table, source)
                elif table.name not in NOT_HISTORY:
                    yield table, _plain(table, source)


def _plain(table: "Table", source: "Connection") -> Iterator[Row]:
    from sqlalchemy import select

    # the database computes the others
    columns = [c for c in table.columns if c.computed is None]
    ordered = select(*columns).order_by(*table.primary_key.columns)
    for row in source.execution_options(yield_per=PART).execute(ordered):
        yield dict(zip((c.key for c in columns), row, strict=True))


def _events(root: DataRoot, table: "Table", index: "Connection") -> Iterator[Row]:
    """All events once: those of the index with their numbers, then those that only the files of
    runs have, run by run."""
    second: defaultdict[str, Counter[bytes]] = defaultdict(Counter)
    number = 0
    for row in _plain(table, index):
        second[row["run_id"]][_digest(row)] += 1
        number = max(number, row["id"])
        yield row
    # the file of events outside runs is named ".db"
    files = [p for p in root.dagster_events.parent.iterdir() if p.name.endswith(".db")]
    for path in sorted(files, key=lambda p: (p.stat().st_mtime, p.name)):
        if path == root.dagster_events:
            continue
        with _opened(path) as source:
            for row in _plain(table, source):
                known = second[row["run_id"]]
                if known[_digest(row)]:
                    known[_digest(row)] -= 1
                else:
                    number += 1
                    yield row | {"id": number}


def _digest(row: Row) -> bytes:
    return sha256(row["event"].encode()).digest()


@contextmanager
def _opened(path: Path) -> "Iterator[Connection]":
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    address = f"{path.absolute().as_uri()}?mode=rw"  # does not create a file
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as e:
        raise StoreError(f"{path} cannot be read: {getattr(e, 'orig', e)}") from None


def _sizes(target: Store, root: DataRoot) -> "Iterator[tuple[Table, int]]":
    for table, rows in _rows(target, root):
        yield table, sum(1 for _ in rows)


def _copied(target: Store, root: DataRoot, connection: "Connection") -> list[Moved]:
    from sqlalchemy import delete, func, insert, select

    for metadata in reversed(_definitions(target.package)):
        for table in reversed(metadata.sorted_tables):
            if table.name not in NOT_HISTORY:  # such as the first experiment of a new database
                connection.execute(delete(table))
    moved = []
    for table, rows in _rows(target, root):
        before = 0
        while part := list(islice(rows, PART)):
            connection.execute(insert(table), part)
            before += len(part)
        after = connection.execute(select(func.count()).select_from(table)).scalar()
        _count_on(table, connection)
        moved.append(Moved(target.package, table.name, before, after))
    return moved


def _count_on(table: "Table", connection: "Connection") -> None:
    """Let the numbers that Postgres gives to new rows follow those of the copied rows."""
    from sqlalchemy import func, select

    for column in table.primary_key.columns:
        sequence = connection.execute(
            select(func.pg_get_serial_sequence(f'"{table.name}"', column.name))
        ).scalar()
        if sequence:
            last = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
            connection.execute(select(func.setval(sequence, last, False)))


def _name_in_settings(root: DataRoot, targets: Iterable[Store]) -> None:
    import tomlkit

    path = root.settings_file
    content = tomlkit.parse(path.read_text(encoding="utf-8-sig") if path.exists() else "")
    for target in targets:
        section, key = (
            ("storage", "dagster") if target.package == "dagster" else ("tracking", "uri")
        )
        content.setdefault(section, tomlkit.table())[key] = target.value
    write_text_atomically(path, tomlkit.dumps(content))
