"""The Dagster home of a data root, and the environment variables of every process that works on the
root.

This module contains what must be in place *before* Dagster or MLflow is imported, so it imports
neither."""

import json
import re
from pathlib import Path

from gaip3_pipeline.layout import DAGSTER_TEMPLATE, DataRoot
from gaip3_pipeline.tables.files import write_text_atomically

_RELATIVE_STATE = re.compile(r"^(?P<key>\s*base_dir:\s*)\.gaip3/(?P<rest>\S*)[ \t]*$", re.MULTILINE)


def ensure_dagster_home(root: DataRoot) -> Path:
    """Create the folder for ``DAGSTER_HOME`` and return it. It contains the repository's
    ``dagster.yaml`` with absolute paths inside ``root``.

    The copy makes the commands independent of the current folder. For the root ``data/`` it names
    the same storage as the repository's own file, so that ``dagster dev`` and ``gaip3`` show the
    same history. The file is written only if it differs."""
    home = root.dagster_home.absolute()
    text = _RELATIVE_STATE.sub(
        lambda found: (
            found["key"]
            + json.dumps(str(root.state.absolute() / found["rest"]), ensure_ascii=False)
        ),
        DAGSTER_TEMPLATE.read_text(encoding="utf-8"),
    )
    file = home / DAGSTER_TEMPLATE.name
    if file != DAGSTER_TEMPLATE and not (
        file.exists() and file.read_text(encoding="utf-8") == text
    ):
        write_text_atomically(file, text)
    return home


def is_local() -> bool:
    """Whether the repository's ``dagster.yaml`` keeps the history in the root's own SQLite files,
    and not in a database that the user named there."""
    return "gaip3_pipeline.dagster_storage" in DAGSTER_TEMPLATE.read_text(encoding="utf-8")


def environment(root: DataRoot) -> dict[str, str]:
    """The variables that a process working on ``root`` needs in addition to its own environment."""
    return {
        "DAGSTER_HOME": str(root.dagster_home.absolute()),
        "GAIP3_ROOT": str(root.path.absolute()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
        # for processes that this one starts: the locale may name another encoding
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
    }
