"""A Postgres server of the tests' own, from the system's packages."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gaip3_pipeline.stores import POSTGRES, Store
from gaip3_pipeline_tests.web.processes import free_port

USER = "gaip3"


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``, which Debian keeps out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@dataclass(frozen=True)
class Postgres:
    """A running server; ``password`` is that of its user."""

    bin: Path
    folder: Path
    port: int
    password: str

    def url(self, database: str, password: str | None = None, scheme: str = POSTGRES) -> str:
        given = self.password if password is None else password
        return f"{scheme}://{USER}:{given}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create an empty database and return its URL."""
        self.execute(f'CREATE DATABASE "{database}"', "postgres")
        return self.url(database)

    def execute(self, statement: str, database: str) -> None:
        from sqlalchemy import text

        with Store.of_mlflow(self.url(database)).connected() as connection:
            connection.execute(text(statement))

    def dump(self, database: str) -> str:
        """The whole database as SQL."""
        return self._run("pg_dump", self.url(database, scheme="postgresql"))

    def control(self, action: str) -> None:
        """``start``, ``stop`` or ``restart``, at once; waits until it is done."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off"
        options += f" -c unix_socket_directories='{self.folder}'"
        self._run(
            *("pg_ctl", action, "-D", str(self.folder / "data"), "-l", str(self.folder / "log")),
            *("-w", *(("-o", options) if action != "stop" else ())),
            *(("-m", "immediate") if action != "start" else ()),
        )

    def _run(self, program: str, *words: str) -> str:
        return run(self.bin, self.folder, program, *words)


def run(programs: Path, folder: Path, program: str, *words: str) -> str:
    # Postgres refuses to run as root
    own = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryFile() as output:  # not a pipe, which the server would keep open
        done = subprocess.run(
            [programs / program, *words], cwd=folder, stdout=output, stderr=output, **own
        )
        output.seek(0)
        said = output.read().decode()
    assert done.returncode == 0, said
    return said


@contextmanager
def serving() -> Iterator[Postgres]:
    """A new server on a free port of loopback that asks for a password; removed afterwards."""
    found = programs()
    assert found
    folder = Path(tempfile.mkdtemp(prefix="gaip3-postgres-"))
    server = Postgres(found, folder, free_port(), secrets.token_hex(12))
    secret = folder / "password"
    secret.write_text(server.password)
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
    try:
        run(
            *(found, folder, "initdb", "-D", str(folder / "data"), "-U", USER, "--no-sync"),
            *("-A", "scram-sha-256", "--pwfile", str(secret), "--locale=C.UTF-8"),
        )
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop")
    finally:
        shutil.rmtree(folder)
