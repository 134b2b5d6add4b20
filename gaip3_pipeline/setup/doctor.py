"""What is missing on a machine and in a data root, and how to get it.

Nothing is downloaded or repaired, and no slow package is imported."""

import json
import locale
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from gaip3_pipeline import settings
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.dagster_home import dagster_store, mlflow_store
from gaip3_pipeline.environment import (
    PACKAGE_NAME,
    backend_problem,
    charts_problem,
    required_packages,
)
from gaip3_pipeline.layout import (
    IMAGE_SETS,
    KERAS_SETTINGS,
    LOCK_FILE,
    DataRoot,
    ImageSet,
    users_keras_settings,
)
from gaip3_pipeline.setup import fetch
from gaip3_pipeline.stores import StoreError, is_server
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.databases import SUFFIXES, lock_holder, read_only_uri
from gaip3_pipeline.tables.duplicates import read_dropped
from gaip3_pipeline.tables.image_files import DuplicateStems, by_stem, list_folder, usable_images
from gaip3_pipeline.tables.names import stem_of
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.web.servers import port_is_free

GIB = 1024**3
MEMORY_GIB = 6  # a training at the demo preset (4) and both pages (1.2)
DISK_GIB = 10  # the originals at 256 pixels, all assets, the stores of Dagster and MLflow
STALE_SECONDS = 3600
PYTHONS = ((3, 11), (3, 14))
PRESETS = ("small", "seed", "hq")  # those for photographs, the smallest first


@dataclass(frozen=True)
class Finding:
    """The result of one test. With ``missing`` the pipeline cannot run, with ``warning`` it can."""

    state: Literal["ok", "warning", "missing"]
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:8} {self.what}" + (f"\n{'':8} -> {self.remedy}" if self.remedy else "")


def doctor(
    root: DataRoot, dagster_port: int = 3000, mlflow_port: int = 5000, label_port: int = 3100
) -> Iterator[Finding]:
    """The findings about this machine, the installed packages and ``root``, as they are made."""
    return _each(
        _python,
        _packages,
        _environment,
        _processor,
        _memory,
        partial(_disk, root),
        _gpu,
        partial(_ports, dagster=dagster_port, mlflow=mlflow_port, labels=label_port),
        _chromium,
        _git,
        partial(_there, root),
        partial(_folder, root),
        partial(_settings, root),
        *(partial(_originals, root, s) for s in IMAGE_SETS),
        partial(_dropped, root),
        partial(_labels, root),
        partial(_kaggle, root),
        partial(_leftovers, root),
        partial(_databases, root),
        partial(examine_stores, root),
    )


def _there(root: DataRoot) -> Iterator[Finding]:
    if not root.exists:
        yield Finding(
            "missing",
            f"{root.path} {'holds no data root' if root.path.exists() else 'is not there'}",
            "check --root; gaip3 demo or gaip3 fetch fills a new root",
        )


def _each(*tests: Callable[[], Finding | Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of the tests. A file that ends a test is a finding itself, since it would end a
    refresh too, and the next test follows."""
    for test in tests:
        try:
            found = test()
            yield from [found] if isinstance(found, Finding) else found
        except OSError as error:
            yield Finding(
                "missing",
                f"{error.filename or 'a file'} cannot be read: {error.strerror or error}",
                "make it readable for you, or move it away",
            )
        except ContractError as error:
            yield Finding(
                "missing",
                str(error).splitlines()[0],
                "correct the file; the message names row and column",
            )


def _python() -> Finding:
    here = f"Python {sys.version.split()[0]}"
    lowest, above = PYTHONS
    if lowest <= sys.version_info[:2] < above:
        return Finding("ok", here)
    return Finding(
        "missing",
        f"{here}: 3.11, 3.12 or 3.13 is needed",
        "install one of these and run make install PYTHON=python3.12",
    )


def _packages() -> Iterator[Finding]:
    remedy = "make install"
    try:
        names = required_packages()
    except metadata.PackageNotFoundError:
        yield Finding("missing", f"{PACKAGE_NAME} is not installed in {sys.prefix}", remedy)
        return
    locked: dict[str, list[str]] = {}  # a package may have a different version for each Python
    for package in (
        tomllib.loads(LOCK_FILE.read_text(encoding="utf-8"))["package"]
        if LOCK_FILE.exists()
        else []
    ):
        locked.setdefault(package["name"], []).append(package.get("version", ""))
    fine = True
    for name in names:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            fine = False
            yield Finding("missing", f"package {name} is not installed", remedy)
            continue
        if version not in locked.get(name, [version]):
            fine = False
            yield Finding(
                "warning",
                f"package {name} is {version}, the lock file has {' or '.join(locked[name])}",
                remedy,
            )
    if fine:
        yield Finding("ok", f"{len(names)} packages, as locked")


def _environment() -> Iterator[Finding]:
    """Variables and files of the user's other projects that change what the pipeline does, or that
    have no effect although the user may expect one."""
    problem = backend_problem()
    if problem:
        yield Finding("missing", *problem.split(": ", 1))
    else:
        yield Finding("ok", f"Keras on {os.environ.get('KERAS_BACKEND') or 'tensorflow'}")
    yield from _keras_settings()
    problem = charts_problem()
    if problem:
        yield Finding("missing", *problem.split("; ", 1))
    for name in ("XLA_FLAGS", "TF_XLA_FLAGS"):
        if os.environ.get(name):
            yield Finding(
                "warning",
                f"{name}={os.environ[name]}: TensorFlow ends at a flag that it does not know",
                f"unset {name} if trainings end without a message",
            )
    home = Path.home()
    if not os.access(home, os.W_OK):
        yield Finding(
            "warning",
            f"the home directory {home} cannot be written to: plots start slowly, and credentials"
            " of Kaggle cannot be stored",
            "set HOME to a folder of yours",
        )
    # Python's UTF-8 mode, in which gaip3 runs, hides the locale's own encoding
    encoding = locale.getencoding()
    if encoding.lower() not in ("utf-8", "ascii", "ansi_x3.4-1968"):
        yield Finding(
            "warning",
            f"the locale's encoding is {encoding}: names of files are UTF-8 in gaip3 all the same",
            "set LANG=C.UTF-8 or ko_KR.UTF-8, so that the terminal shows the same names",
        )


def _keras_settings() -> Iterator[Finding]:
    path = users_keras_settings()
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        ours = json.loads(KERAS_SETTINGS.read_text(encoding="utf-8"))
        other = {k: v for k, v in theirs.items() if k in ours and v != ours[k]}
    except (OSError, ValueError, AttributeError):
        return  # no such file, or one that Keras could not use either
    if other:
        named = ", ".join(f"{k} {v}" for k, v in other.items())
        yield Finding(
            "ok", f"{path} ({named}) is for other projects; gaip3 reads KERAS_BACKEND alone"
        )


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0))
    if cores >= 2:
        return Finding("ok", f"{cores} cores")
    return Finding(
        "warning",
        "1 core",
        "the pages and a training will slow each other down; run gaip3 refresh without gaip3 ui",
    )


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / GIB for line in lines}
    here = f"memory: {sizes['MemAvailable']:.1f} of {sizes['MemTotal']:.1f} GiB available"
    if sizes["MemAvailable"] >= MEMORY_GIB:
        return Finding("ok", here)
    return Finding(
        "warning",
        f"{here}; {MEMORY_GIB} GiB are recommended",
        "close other programs, or set a smaller batch_size in gaip3.toml",
    )


def _disk(root: DataRoot) -> Finding:
    free = shutil.disk_usage(_existing(root.path)).free / GIB
    here = f"disk of {root.path}: {free:.1f} GiB free"
    if free >= DISK_GIB:
        return Finding("ok", here)
    return Finding(
        "missing" if free < 1 else "warning",
        f"{here}; {DISK_GIB} GiB are recommended",
        "free some space, or choose a root on another disk with --root",
    )


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    try:
        listed = (
            subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20).stdout
            if program
            else ""
        )
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    gpus = [line.split(" (UUID")[0] for line in listed.splitlines() if line.startswith("GPU")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and visible is not None:
        return Finding(
            "warning",
            f"{', '.join(gpus)}, of which CUDA_VISIBLE_DEVICES={visible} allows a part or none",
            "unset CUDA_VISIBLE_DEVICES to use all",
        )
    return Finding(
        "ok", ", ".join(gpus) if gpus else "no NVIDIA GPU: trainings run on the processor"
    )


def _ports(**wanted: int) -> Iterator[Finding]:
    for name, port in wanted.items():
        if port_is_free(port):
            yield Finding("ok", f"port {port} for {name} is free")
        else:
            yield Finding(
                "warning",
                f"port {port} for {name} is in use, perhaps by a running gaip3 ui",
                "gaip3 ui takes the next free one",
            )


def find_chromium() -> str | None:
    """The path of the browser in which tests and benchmarks open the pages."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


def _chromium() -> Finding:
    found = find_chromium()
    return Finding("ok", f"browser for the tests: {found}") if found else Finding(
        "warning", "no Chromium: the browser tests skip", "apt-get install chromium"
    )  # fmt: skip


def _git() -> Finding:
    if shutil.which("git"):
        return Finding("ok", "git")
    return Finding(
        "warning",
        "no git: MLflow runs are recorded without a commit",
        "apt-get install git",
    )


def _folder(root: DataRoot) -> Iterator[Finding]:
    """Whether the root and Dagster's home can be written to, and whether hard links work, so that
    ``final/`` needs no disk space of its own."""
    for folder in dict.fromkeys((root.path, root.dagster_home)):
        here = _existing(folder)
        try:
            with tempfile.TemporaryDirectory(dir=here, prefix=".doctor-") as trial:
                first = Path(trial) / "first"
                first.touch()
                try:
                    os.link(first, Path(trial) / "second")
                    yield Finding("ok", f"{folder} can be written to; hard links work")
                except OSError:
                    yield Finding(
                        "warning",
                        f"{here} does not support hard links: final/ will hold copies",
                        "use a Linux file system",
                    )
        except OSError as error:
            yield Finding(
                "missing",
                f"{here} cannot be written to: {error.strerror}",
                f"chown or chmod {here}, or choose another root with --root",
            )


def _settings(root: DataRoot) -> Iterator[Finding]:
    try:
        found = settings.load(root)
    except settings.SettingsError as error:
        yield Finding("missing", str(error), f"correct {root.settings_file}")
        return
    generators = {name: settings.of_preset(name).nvae for name in PRESETS}
    sizes = [f"{name} {made.height} × {made.width}" for name, made in generators.items()]
    yield Finding(
        "ok",
        f"settings: preset {found.preset} (generators: {', '.join(sizes)}; two cores suit small,"
        " hq wants a GPU)",
    )
    theirs = os.environ.get("MLFLOW_TRACKING_URI")
    if theirs and theirs != found.tracking.uri:
        yield Finding(
            "warning",
            f"MLFLOW_TRACKING_URI={theirs} is not used: runs are stored in"
            f" {found.tracking.uri or root.mlflow_db}",
            f"to use that server, set uri under [tracking] in {root.settings_file}",
        )


def _originals(root: DataRoot, image_set: ImageSet) -> Iterator[Finding]:
    listing = list_folder(root.original(image_set))
    count, others = len(listing.pictures), listing.unused()
    expected = fetch.EXPECTED[image_set.id]
    here = f"original/{image_set.original}: {count:,} images"
    if not count:
        yield Finding(
            "missing",
            here,
            "run gaip3 fetch to download them, or put your own there; gaip3 demo paints some into"
            " demo/",
        )
    elif root.is_repository_data and count < expected:
        yield Finding(
            "warning",
            f"{here} of the {expected:,} in Kaggle's set",
            "run gaip3 fetch to download the rest, if these are Kaggle's",
        )
    else:
        yield Finding("ok", here)
    unread = [other for other in others if not other.left_out]
    if unread:
        yield Finding(
            "warning",
            f"original/{image_set.original}: {len(unread):,} files cannot be read as pictures,"
            f" such as {unread[0].path.name}",
            unread[0].reason,
        )
    try:
        by_stem(usable_images(root, image_set))
    except DuplicateStems as error:
        what, _, remedy = str(error).rpartition("; ")
        yield Finding("missing", what, remedy)


def _dropped(root: DataRoot) -> Iterator[Finding]:
    dropped = read_dropped(root.dropped)
    if dropped:
        yield Finding("ok", f"{root.relative(root.dropped)}: {len(dropped):,} dropped originals")


def _labels(root: DataRoot) -> Iterator[Finding]:
    known = {
        s.sex: {stem_of(p) for p in usable_images(root, s)} for s in IMAGE_SETS if s.sex is not None
    }
    return _each(*(partial(_labels_of, root, known, a) for a in ATTRIBUTES))


def _labels_of(root: DataRoot, known: dict[str, set[str]], attribute: str) -> Finding:
    path = root.hand_labels(attribute)
    here = root.relative(path)
    if not path.exists():
        how = (
            "label images on the page of gaip3 label, or add the file (columns"
            " gender,img_id,path,value); gaip3 import-labels takes those of other tools,"
            " gaip3 import-first-run those of the first version"
        )
        return Finding("missing", f"{here}: the file does not exist", how)
    labels = read_labels(path, known)
    if labels.left_out:
        left = (
            f"{here}: {len(labels.table):,} labels are used, {len(labels.left_out):,} are not:"
            f" {labels.left_out[0]}"
        )
        return Finding("warning", left, "add the missing images, or remove the rows")
    return Finding("ok", f"{here}: {len(labels.table):,} labels")


def _kaggle(root: DataRoot) -> Iterator[Finding]:
    """Whether the data sets can be fetched; nothing where every set has pictures."""
    if all(list_folder(root.original(s)).pictures for s in IMAGE_SETS):
        return
    yield _credentials()


def _credentials() -> Finding:
    try:
        found = fetch.credentials()
    except fetch.FetchError as error:
        return Finding("warning", *str(error).split(": ", 1))
    return (
        Finding("ok", f"Kaggle credentials: {found}")
        if found
        else Finding("warning", "no Kaggle credentials", fetch.CREDENTIALS)
    )


def _leftovers(root: DataRoot) -> Iterator[Finding]:
    """Temporary files of writes that were killed. Files younger than an hour are left out, since
    they may belong to a running process."""
    old = time.time() - STALE_SECONDS
    stale = [p for p in root.path.rglob(".writing-*") if p.is_file() and p.stat().st_mtime < old]
    if stale:
        size = sum(p.stat().st_size for p in stale) / 1e6
        remedy = f"find '{root.path}' -name '.writing-*' -mmin +60 -delete"
        yield Finding(
            "warning",
            f"{len(stale):,} files of interrupted writes, {size:,.1f} MB, such as"
            f" {root.relative(stale[0])}",
            remedy,
        )


def _databases(root: DataRoot) -> Iterator[Finding]:
    """Whether the databases of Dagster, MLflow and the hash cache are intact and not locked by a
    writer. Writes nothing."""
    usable, read_only = 0, []
    for path in sorted(p for p in root.state.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        name = path.relative_to(root.state.parent)
        holder = _lasting_lock(path)
        try:
            with closing(sqlite3.connect(read_only_uri(path), uri=True, timeout=2)) as store:
                store.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            yield Finding("warning", f"{name}: {error}", f"see that {path} can be read")
        except sqlite3.DatabaseError as error:
            yield Finding(
                "missing",
                f"{name}: {error}",
                f"restore it from a backup, or move it away and start a new history: {path}",
            )
        else:
            if holder is not None:
                yield Finding(
                    "warning",
                    f"{name}: the database is locked",
                    f"process {holder} is writing or is suspended: end it and try again",
                )
            elif os.access(path, os.W_OK):
                usable += 1
            else:
                read_only.append(path)
    if read_only:
        yield Finding(
            "warning",
            f"{len(read_only)} databases are read-only, such as {read_only[0]}",
            "give yourself the right to write to them",
        )
    if usable:
        yield Finding(
            "ok",
            f"{usable} databases of Dagster, MLflow and the hash cache can be opened and written",
        )


def _lasting_lock(path: Path) -> int | None:
    """The process that holds ``path`` locked for two seconds; a refresh or the UI does so for
    milliseconds only."""
    end = time.monotonic() + 2
    while (holder := lock_holder(path)) is not None and time.monotonic() < end:
        time.sleep(0.05)
    return holder


def examine_stores(root: DataRoot) -> Iterator[Finding]:
    """Whether the stores that the settings name can be reached, have the schema of the installed
    packages, and hold no history of another root."""
    try:
        stores = [s for s in (dagster_store(root), mlflow_store(root)) if s]
    except settings.SettingsError:
        return  # found by _settings
    for store in stores:
        try:
            if store.in_postgres or is_server(store.url):
                store.check()
                if store.package == "dagster":
                    _check_owner(root)
                yield Finding("ok", f"{store.setting} answers")
        except StoreError as error:
            yield Finding("missing", str(error))  # names the remedy


def _check_owner(root: DataRoot) -> None:
    from gaip3_pipeline.dagster_storage import reading_instance
    from gaip3_pipeline.refresh.run import check_owner

    with reading_instance(root) as instance:
        check_owner(instance, root)


def _existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
