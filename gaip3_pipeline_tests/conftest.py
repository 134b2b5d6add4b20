"""Fixtures and environment for all tests."""

import fcntl
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.logging
import pytest
from click.testing import CliRunner, Result

from gaip3_pipeline.dagster_home import COMPILED
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline_tests.postgres import Postgres, programs, serving

# Set before TensorFlow, Dagster or MLflow are imported: few log lines, no GPU, no telemetry.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"

# Dagster closes all log handlers when it sets up its own. This handler then closes its stream
# unless it is sys.stderr, which during a test is pytest's.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# files that need the finished root and take a minute or more, the longest first
LONGEST = [
    "web/test_ui_browser.py",
    "refresh/test_run.py",
    "test_cli.py",
    "refresh/test_record.py",
    "web/test_studio_browser.py",
    "test_curation.py",
    "setup/test_snapshots.py",
    "test_served.py",
]

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that use JAX share what they compile, as those of one root do."""
    os.environ.setdefault(COMPILED, str(config.rootpath / ".pytest_cache" / "compiled"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests: of the files that need the finished root, the one with most tests comes first
    and makes it; the others come last, the longest of them first.

    One worker makes the root while the others run tests that do not need it. A long file at the end
    would leave them idle.
    """
    need = Counter(
        item.path
        for item in items
        if isinstance(item, pytest.Function) and "finished_root" in item.fixturenames
    )
    [(first, _)] = need.most_common(1) or [(None, 0)]

    def place(item: pytest.Item) -> tuple[int, int]:
        if item.path == first or item.path not in need:
            return (0 if item.path == first else 1), 0
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        return 2, LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _away_from_the_users_own_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from writing into the data root or the stores of the user who runs them."""
    for name in ("DAGSTER_HOME", "GAIP3_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gaip3(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command ``gaip3``: a function that runs it with the given words and returns click's
    result."""
    from gaip3_pipeline.cli import main

    def run(*words: object) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr("os.environ", dict(os.environ))
            return CliRunner().invoke(main, [str(w) for w in words])

    return run


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """A data root of photographs with hand labels; tests must not write to it."""
    return _beside("faces")


@pytest.fixture(scope="session")
def first_run_tables() -> Path:
    """The first run's hand labels and predictions."""
    return _beside("gaip3_original")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; the test skips without it, unless GAIP3_REQUIRE_BROWSER says that it
    may not."""
    from gaip3_pipeline.setup.doctor import find_chromium

    found = find_chromium()
    if not found and os.environ.get("GAIP3_REQUIRE_BROWSER"):
        pytest.fail(
            "GAIP3_REQUIRE_BROWSER is set, but there is no Chromium: apt-get install chromium"
        )
    return found or pytest.skip("needs Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server; the test skips without the programs or the extra ``cluster``."""
    from importlib.util import find_spec

    if not programs():
        pytest.skip("needs Postgres: apt-get install postgresql")
    if not find_spec("dagster_postgres"):
        pytest.skip("needs the extra cluster: uv sync --extra cluster")
    with serving() as server:
        yield server


def _beside(name: str) -> Path:
    folder = SHARED_DATA / name
    return (
        folder
        if folder.is_dir()
        else pytest.skip(f"needs {name} among the shared data beside the repository")
    )


@pytest.fixture(scope="session")
def finished_root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """A root of painted faces on which the whole graph has run with tiny models, once for all
    workers of pytest-xdist.

    Tests must not write to it; for that there is :func:`root_copy`.
    """
    from gaip3_pipeline.faces.dataset import write_dataset
    from gaip3_pipeline.settings import load
    from gaip3_pipeline_tests.refreshing import refresh_root

    folder = _shared_by_workers(tmp_path_factory) / "roots"
    folder.mkdir(exist_ok=True)
    root, finished = DataRoot(folder / "그림 faces"), folder / "finished"
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            root.path.mkdir()
            root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
            write_dataset(root, load(root).faces)
            refresh_root(root)
            shutil.copytree(root.path, folder / "untouched", copy_function=shutil.copy2)
            finished.touch()
    return root


def _shared_by_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def copy_finished_root(
    finished_root: DataRoot, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], DataRoot]:
    """A function that copies the finished root with its history to a new folder, which a test may
    change.

    The source is a copy that nothing opens: SQLite's files come and go in a root that other workers
    read.
    """
    source = finished_root.path.with_name("untouched")
    return lambda folder: DataRoot(
        Path(shutil.copytree(source, folder, copy_function=shutil.copy2))
    )


@pytest.fixture
def root_copy(copy_finished_root: Callable[[Path], DataRoot], tmp_path: Path) -> DataRoot:
    """A copy of the finished root, which a test may change."""
    return copy_finished_root(tmp_path / "root")
