"""The Dagster home of a data root, and the environment variables of every process that works on the
root.

This module contains what must be in place *before* Dagster or MLflow is imported, so it imports
neither."""

import json
import os
import re
from pathlib import Path

from gaip3_pipeline.layout import DAGSTER_TEMPLATE, DATA, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.stores import Store, variable
from gaip3_pipeline.tables.databases import sqlite_url
from gaip3_pipeline.tables.files import write_text_atomically

LOCATION = "gaip3_pipeline"  # the name of the code location on Dagster's pages
COMPILED = "JAX_COMPILATION_CACHE_DIR"  # JAX's own variable
_STORAGE = re.compile(r"^storage:\n(?:[ \t]+.*\n)+", re.MULTILINE)
_RELATIVE_STATE = re.compile(r"^(?P<key>\s*base_dir:\s*)\.gaip3/(?P<rest>\S*)[ \t]*$", re.MULTILINE)


def ensure_dagster_home(root: DataRoot) -> Path:
    """Create the folder for ``DAGSTER_HOME`` and return it. It contains the repository's
    ``dagster.yaml`` with absolute paths inside ``root``, and with the store that ``[storage]
    dagster`` names. Raises :class:`~gaip3_pipeline.settings.SettingsError`.

    The copy makes the commands independent of the current folder. For the root ``data/`` it names
    the same storage as the repository's own file, so that ``dagster dev`` and ``gaip3`` show the
    same history. The file is written only if it differs."""
    home, text = root.dagster_home.absolute(), dagster_yaml(root)
    file = home / DAGSTER_TEMPLATE.name
    if file != DAGSTER_TEMPLATE and not (
        file.exists() and file.read_text(encoding="utf-8") == text
    ):
        write_text_atomically(file, text)
    return home


def dagster_yaml(root: DataRoot) -> str:
    """The text of the ``dagster.yaml`` of ``root``. Raises
    :class:`~gaip3_pipeline.settings.SettingsError`."""
    text = _RELATIVE_STATE.sub(
        lambda found: (
            found["key"]
            + json.dumps(str(root.state.absolute() / found["rest"]), ensure_ascii=False)
        ),
        DAGSTER_TEMPLATE.read_text(encoding="utf-8"),
    )
    store = dagster_store(root)
    if store:
        name = variable(store.value)
        # JSON is YAML. Dagster itself reads the environment, so that no secret is in the file.
        url = json.dumps({"env": name} if name else store.value)
        text = _STORAGE.sub(f"storage:\n  postgres:\n    postgres_url: {url}\n", text)
    return text


def is_local(root: DataRoot) -> bool:
    """Whether the history of ``root`` is in its own SQLite files, and not in a database that the
    settings, or the user in the repository's ``dagster.yaml``, name."""
    template = DAGSTER_TEMPLATE.read_text(encoding="utf-8")
    return dagster_store(root) is None and "gaip3_pipeline.dagster_storage" in template


def dagster_store(root: DataRoot) -> Store | None:
    """The database in Postgres with the history of ``root``; None if the history is in the root's
    own sqlite files. Raises :class:`~gaip3_pipeline.settings.SettingsError`."""
    value = load(root).storage.dagster
    return Store.of_dagster(value, root.dagster_home.absolute()) if value else None


def mlflow_store(root: DataRoot) -> Store:
    """The store of MLflow: the one that ``[tracking] uri`` names, or the root's own sqlite file.
    Raises :class:`~gaip3_pipeline.settings.SettingsError`."""
    return Store.of_mlflow(load(root).tracking.uri or sqlite_url(root.mlflow_db.absolute()))


def root_of_environment() -> DataRoot:
    """The root that ``GAIP3_ROOT`` names, or the repository's ``data/``."""
    return DataRoot(Path(os.environ.get("GAIP3_ROOT") or DATA))


def environment(root: DataRoot) -> dict[str, str]:
    """The variables that a process working on ``root`` needs in addition to its own environment."""
    return {
        "DAGSTER_HOME": str(root.dagster_home.absolute()),
        "GAIP3_ROOT": str(root.path.absolute()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
        # for processes that this one starts: the locale may name another encoding
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        # what JAX compiled is used again by later processes
        COMPILED: os.environ.get(COMPILED) or str(root.compiled.absolute()),
    }
