"""The databases that hold the stores of Dagster and MLflow: which URLs can be used, where their
secrets come from, what is wrong with a database, and the lock of a root whose history is in
Postgres.

It imports neither Dagster nor MLflow, whose migrations it only reads. SQLAlchemy and Alembic, which
both depend on, are imported on first use."""

import getpass
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

POSTGRES = "postgresql+psycopg2"
FROM_ENVIRONMENT = "env:"
CONNECT_SECONDS = 5
ANSWER_SECONDS = 30  # after which a connection without a sign of life is lost
EXAMPLE = f"{POSTGRES}://USER@HOST/DATABASE"
INSTALL = "uv sync --extra cluster"
# the folder of the migrations inside each package
MIGRATIONS = {"dagster": ("_core", "storage", "alembic"), "mlflow": ("store", "db_migrations")}
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # those that MLflow takes
LOCK = 0x6A1B3  # one root has one database of Dagster's, so one number is enough
# After this, the server ends the session of a host that is gone, and its lock with it.
SERVER_OPTIONS = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"
    " -c idle_session_timeout=0"
)
NAME_LENGTH = 63  # of a session in Postgres
# loggers of libraries that log an error of a database before they raise it: Dagster's, MLflow's
_TALKERS = ("", "mlflow.store.db.utils")
_RETRIES = "Retrying failed database"  # of Dagster's message before each further attempt


class StoreError(ValueError):
    """A store that cannot be used: one line with the setting, the database and the remedy. It never
    contains a password."""


class Occupied(StoreError):
    """Another process holds the lock; the message says which one and since when."""


@dataclass(frozen=True)
class Store:
    """A store as the settings name it. ``package``: ``dagster`` or ``mlflow``; ``setting``: its
    name in messages; ``value``: a URL or ``env:NAME``; ``upgrade``: the command that brings an old
    schema up to date."""

    package: str
    setting: str
    value: str
    upgrade: str

    @classmethod
    def of_dagster(cls, value: str, home: Path) -> "Store":
        """Dagster's store, named by ``[storage] dagster``; ``home`` is ``DAGSTER_HOME``."""
        return cls(
            "dagster",
            "[storage] dagster",
            value,
            f"DAGSTER_HOME='{home}' dagster instance migrate",
        )

    @classmethod
    def of_mlflow(cls, value: str) -> "Store":
        """MLflow's store, named by ``[tracking] uri``."""
        shown = f'"${variable(value)}"' if variable(value) else f"'{value}'"
        return cls("mlflow", "[tracking] uri", value, f"mlflow db upgrade {shown}")

    @property
    def url(self) -> str:
        """The URL, from the environment where the settings say so. Raises :class:`StoreError` if
        the variable is not set or its value cannot be used."""
        name = variable(self.value)
        if not name:
            return self.value
        url = os.environ.get(name, "")
        if not url:
            raise StoreError(
                f"{self.setting}: the environment variable {name} is not set; it holds the URL,"
                f" such as {POSTGRES}://USER:PASSWORD@HOST/DATABASE"
            )
        try:
            _check_scheme(self.package, url)
            if is_server(url) and urlsplit(url).password:
                raise ValueError(
                    "MLflow shows the URL of a server in messages: take the password out of it and"
                    " set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                )
        except ValueError as e:
            raise StoreError(f"{self.setting}: {name}: {e}") from None
        return url

    @property
    def in_database(self) -> bool:
        """Whether the store is a database and no folder or server, so that the place of artefacts
        must be named. Raises :class:`StoreError` like :attr:`url`."""
        return self.url.partition("://")[0].partition("+")[0] in DATABASES

    @property
    def in_postgres(self) -> bool:
        """Whether the store is a Postgres database. Raises :class:`StoreError` like :attr:`url`."""
        return self.url.startswith("postgresql+")

    def engine(self, name: str = "gaip3") -> "Engine":
        """An engine for the database that keeps no connection open; ``name`` is that of its
        sessions in Postgres."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        needed = ["psycopg2", *(["dagster_postgres"] if self.package == "dagster" else [])]
        if self.in_postgres and not all(find_spec(n) for n in needed):
            raise StoreError(
                f"{self.setting}: a store in Postgres needs the extra cluster: {INSTALL}"
            )
        options: dict[str, Any] = (
            {
                "connect_timeout": CONNECT_SECONDS,
                "tcp_user_timeout": ANSWER_SECONDS * 1000,
                "application_name": name[:NAME_LENGTH],
                "options": SERVER_OPTIONS,
            }
            if self.in_postgres
            else {}
        )
        return create_engine(
            self.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args=options,
            hide_parameters=True,
        )

    def check(self) -> None:
        """Make sure that a server answers, or that a database in Postgres can be opened and has the
        schema of the installed package. Raises :class:`StoreError`."""
        if is_server(self.url):
            parts = urlsplit(self.url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            try:
                # MLflow itself would try again for minutes.
                socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
            except OSError as e:
                raise StoreError(
                    f"{self.setting}: {parts.hostname}:{port} does not answer ({e.strerror or e}):"
                    " start the MLflow server, or correct the address"
                ) from None
        elif self.in_postgres:
            with self.connected() as connection:
                self.check_schema(connection, f"the database {urlsplit(self.url).path.strip('/')}")

    @contextmanager
    def connected(self, name: str = "gaip3") -> Iterator["Connection"]:
        """A connection to the database; each statement is a transaction of its own. Raises
        :class:`StoreError` if there is none, or if it is lost inside the block."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self.engine(name).connect() as connection:
                yield connection
        except (SQLAlchemyError, ImportError) as e:
            raise StoreError(self.complaint(e)) from None

    def complaint(self, error: BaseException) -> str:
        """``error`` of the database as one line with the remedy."""
        parts = urlsplit(self.url)
        database, user = parts.path.strip("/"), parts.username or "the default user"
        where = f"{self.setting}: {parts.hostname or 'local socket'}:{parts.port or 5432}"
        named = variable(self.value) or "the settings"
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        if re.search("password authentication failed|no password supplied", reason):
            return f"{where} refuses the password of {user}: correct it in {named}"
        if re.search(r'role "[^"]*" does not exist|no pg_hba.conf entry', reason):
            return f"{where} does not admit {user}: create the user, or correct {named}"
        if re.search(r'database "[^"]*" does not exist', reason):
            return f"{where} has no database {database}: createdb -O {user} {database}"
        if re.search(
            "refused|timeout|timed out|translate host name|No such file|unreachable|No route"
            "|starting up|shutting down|terminated|closed|could not receive|recovery mode",
            reason,
        ):
            return f"{where} does not answer: start Postgres or wait for it, or correct {named}"
        if "permission denied" in reason:
            return f"{where}: {user} may not write to {database}: make the user its owner"
        return f"{where}: {reason[:200]}"

    def check_schema(self, connection: "Connection", database: str) -> None:
        """Raises :class:`StoreError` if ``database``, the one of ``connection``, has the schema of
        another version of the package or of the other package. A new one has none yet."""
        from alembic.migration import MigrationContext

        found = MigrationContext.configure(connection).get_current_heads()
        known, head = _revisions(self.package)
        if not found or head in found:
            return
        [other] = set(MIGRATIONS) - {self.package}
        if set(found) & _revisions(other)[0]:
            raise StoreError(
                f"{self.setting}: {database} is that of {other}: the two need one database each"
            )
        if set(found) <= known:
            raise StoreError(
                f"{self.setting}: {database} has the schema of an older"
                f" {self.package}: make a backup, then run {self.upgrade}"
            )
        raise StoreError(
            f"{self.setting}: {database} has the schema of a newer {self.package}:"
            f" update this installation ({INSTALL})"
        )


class Lock:
    """The lock of a root whose history is in Postgres: a session of the database holds it, and its
    end, for whatever reason, gives it back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session = ExitStack()
        self._connection: Connection | None = None

    def __enter__(self) -> "Lock":
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def check(self) -> None:
        """Make sure that the lock is still held; if its session was lost, as when Postgres was
        restarted, take it again. Raises :class:`Occupied` if another process has it now, and
        :class:`StoreError` if the database does not answer."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        with suppress(SQLAlchemyError):
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                return
        self._drop()
        self._take()

    def _take(self) -> None:
        from sqlalchemy import text

        # shown to whoever finds the lock taken
        name = f"{getpass.getuser()}, process {os.getpid()} on {socket.gethostname()}"
        with ExitStack() as session:
            connection = session.enter_context(self._store.connected(name))
            if connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}
            ).scalar():
                self._connection, self._session = connection, session.pop_all()
                return
            holder = connection.execute(
                text(
                    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                    " WHERE l.locktype = 'advisory' AND l.granted AND l.objid = :key"
                    " AND l.database = (SELECT oid FROM pg_database WHERE datname ="
                    " current_database())"
                ),
                {"key": LOCK},
            ).scalar()
            raise Occupied(holder or "it has just ended")

    def _drop(self) -> None:
        self._connection = None
        with suppress(StoreError):  # of a session that is lost
            self._session.close()


def variable(value: str) -> str:
    """The name of the environment variable in ``env:NAME``; empty for another value."""
    return value.removeprefix(FROM_ENVIRONMENT) if value.startswith(FROM_ENVIRONMENT) else ""


def check_setting(package: str, value: str) -> None:
    """Raises ``ValueError`` with one line if the settings may not name the store of ``package`` by
    ``value``: a scheme that does not work, or a secret in the URL."""
    if value.startswith(FROM_ENVIRONMENT):
        if not re.fullmatch(r"[A-Za-z_]\w*", variable(value)):
            raise ValueError(
                f"{variable(value)!r} is not the name of an environment variable: write env:NAME"
            )
        return
    if not value:
        return
    parts = _parts(value)
    if parts.password or {"password", "sslpassword"} & set(parse_qs(parts.query)):
        raise ValueError(
            "the URL contains a password, which does not belong in a file: write env:NAME and put"
            " the URL into the environment variable NAME"
        )
    _check_scheme(package, value)


def is_server(url: str) -> bool:
    """Whether ``url`` is that of a server."""
    return url.startswith(("http://", "https://"))


@contextmanager
def errors_told_once() -> Iterator[None]:
    """A block in which libraries do not log the error of a database that they raise afterwards, or
    after which they try again."""
    pool = logging.getLogger("sqlalchemy.pool")  # its errors are those of giving back what is lost
    level, talkers = pool.level, [logging.getLogger(name) for name in _TALKERS]
    for talker in talkers:
        talker.addFilter(_is_news)
    pool.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        pool.setLevel(level)
        for talker in talkers:
            talker.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (str(record.msg).startswith(_RETRIES) or database_error(error))


@contextmanager
def in_one_line(store: Store | None) -> Iterator[None]:
    """Raises :class:`StoreError` for an error of the database of ``store`` inside the block, also
    one that another error hides. None: the store is no database in Postgres."""
    try:
        yield
    except StoreError:
        raise
    except Exception as e:
        found = database_error(e) if store else None
        if store is None or found is None:
            raise
        raise StoreError(
            f"{store.complaint(found)}; then run the same command again to continue"
        ) from e


def database_error(error: BaseException | None) -> BaseException | None:
    """The error of a database that ``error`` is, or that caused it; None if there is none."""
    from sqlalchemy.exc import DBAPIError

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DBAPIError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _parts(url: str) -> SplitResult:
    """The parts of ``url``. Raises ``ValueError`` with a message that has nothing of the URL: what
    cannot be read as a port may be half of a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, since it is checked only then
    except ValueError:
        raise ValueError(
            "the URL cannot be read: write # / ? @ : in a password as %23 %2F %3F %40 %3A"
        ) from None
    return parts


def _check_scheme(package: str, url: str) -> None:
    parts = _parts(url)
    scheme = url.partition("://")[0] if "://" in url else ""
    # SQLAlchemy gives postgresql:// to another driver, which Dagster's queries do not work with.
    if scheme == POSTGRES:
        if not parts.path.strip("/"):
            raise ValueError(f"the URL names no database: write {EXAMPLE}")
    elif package == "dagster" or scheme in ("postgres", "postgresql"):
        raise ValueError(
            f"{scheme + '://' if scheme else 'a URL without a scheme'} does not work here: write"
            f" {EXAMPLE}"
        )


@cache
def _revisions(package: str) -> tuple[set[str], str | None]:
    """The revisions of the schema that the installed ``package`` knows, and the latest one."""
    from alembic.script import ScriptDirectory

    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]).joinpath(*MIGRATIONS[package])
    script = ScriptDirectory(str(folder))
    return {r.revision for r in script.walk_revisions()}, script.get_current_head()
