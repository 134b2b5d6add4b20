"""Data versions and code versions of assets, which decide what is stale.

A data version is a content hash. A code version is a hand-kept integer with the hash of the
resolved settings. This module states an asset's versions and reads those of its inputs; the
functions that hash a folder, a table or weights are in ``tables``. ``versioned_asset`` defines all
assets of the pipeline in the same way."""

import errno
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.cluster.connection import (
    ADDRESS,
    DRIVER,
    is_of_the_cluster,
    node_address,
    supervisor,
)
from gaip3_pipeline.cluster.executor import on_cluster
from gaip3_pipeline.dagster_home import LOCATION
from gaip3_pipeline.imaging.mapping import LocalMapper, Mapper
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking, TrainingRun
from gaip3_pipeline.processes import BEAT_SECONDS, process_lives
from gaip3_pipeline.progress import Progress, watched_by
from gaip3_pipeline.settings import SECTIONS, Settings, load, section_hash
from gaip3_pipeline.tables.columns import OF_COLUMNS
from gaip3_pipeline.tables.content import content_hash
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.training.run import Run, Trainings, one_after_another

if TYPE_CHECKING:
    from gaip3_pipeline.cluster.training import Together

# observable_source_asset is beta in Dagster 1.13 and warns once for each of our sources.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module="dagster")

OWNERS = ["team:gaip3"]
TRAINING_POOL = "training"
DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version/"
RUN_METADATA = "mlflow_run"
FILE_METADATA = "sha256"  # of the bytes of an observed table
SETTINGS = "settings"  # in the metadata and the run configuration of an asset
PICTURE_WIDTH = 760  # pixels; the column of Dagster's page is not much wider
REFRESH_JOB = "refresh"
REFRESH_PAGE = f"/locations/{LOCATION}/jobs/{REFRESH_JOB}/playground"
# errors of disks and network folders that may not occur again
TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}

STOPPED = "stopped; the next refresh makes this asset, a training from its last checkpoint on"

AFRESH, RESUME, WARM_START = "afresh", "resume", "warm_start"  # how a training starts
STARTS = {
    RESUME: dg.Field(
        bool,
        default_value=False,
        description=(
            "Continue from the last checkpoint although settings or data changed since then (more"
            " epochs, new labels), instead of starting anew."
        ),
    ),
    WARM_START: dg.Field(
        bool,
        default_value=False,
        description=(
            "Start from the last weights and train for a third of the epochs. Without weights of"
            " the same architecture, the training starts anew."
        ),
    ),
}

Reads = Callable[[Settings], tuple[Any, ...]]
Item = TypeVar("Item")
Result = TypeVar("Result")


class RootResource(dg.ConfigurableResource):
    """The data root that the assets work on."""

    path: str

    @property
    def data_root(self) -> DataRoot:
        return DataRoot(Path(self.path))


@dataclass(frozen=True)
class AssetResult:
    """What an asset's body returns: the content hash of the artefact, and figures and pictures for
    the UI, the checks and the report."""

    version: str
    # numbers, strings, and lists or mappings of them
    figures: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes | None = None  # JPEG
    run_url: str = ""  # the page of the training in MLflow
    # further JPEGs by name, for the report alone
    more: Mapping[str, bytes] = field(default_factory=dict)
    tables: Sequence[Path] = ()  # CSV or Parquet, of the same columns

    def metadata(self) -> dict[str, Any]:
        """The metadata that the Dagster UI shows.

        It is stored in the event log, so the picture must be small (see imaging.contact_sheet)."""
        from gaip3_pipeline.imaging.contact_sheet import to_markdown

        # The UI's JSON has no NaN.
        shown: dict[str, Any] = {
            k: str(v) if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in self.figures.items()
        }
        if self.picture:
            shown["picture"] = dg.MetadataValue.md(to_markdown(self.picture, "contact sheet"))
        if self.run_url:
            shown[RUN_METADATA] = dg.MetadataValue.url(self.run_url)
        return shown | table_metadata(self.tables)


def table_metadata(paths: Sequence[Path]) -> dict[str, Any]:
    """The number of rows, the columns and the places of tables, in Dagster's standard metadata."""
    if not paths:
        return {}
    import pandas as pd

    def read(path: Path) -> "pd.DataFrame":
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        try:
            return pd.read_csv(path, dtype={"key": str, "stem": str})  # also names like 0012
        except pd.errors.EmptyDataError:
            return pd.DataFrame()

    tables = [read(path) for path in paths]
    columns = [
        dg.TableColumn(str(name), str(kind), OF_COLUMNS.get(str(name)))
        for name, kind in tables[0].dtypes.items()
    ]
    return {
        "dagster/row_count": sum(map(len, tables)),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        **{f"table {path.name}": dg.MetadataValue.path(path) for path in paths},
    }


@dataclass(frozen=True)
class Seen:
    """The last observation of a source: its data version and, of a table, the sha256 of the file's
    bytes."""

    version: str
    file: str


def fingerprint_of(
    name: str, code_version: str, inputs: Mapping[str, str], start: str = AFRESH
) -> str:
    """A hash of an asset's name, its code version (which includes its settings), the data versions
    of its inputs and, if so, that this is a warm start.

    A checkpoint is resumed only under the same fingerprint."""
    warm = [start] if start == WARM_START else []
    return digest([name, code_version, *(f"{k}={v}" for k, v in sorted(inputs.items())), *warm])


@dataclass(frozen=True)
class AssetContext:
    """What an asset's body receives."""

    name: str
    root: DataRoot
    settings: Settings
    inputs: Mapping[str, str]  # asset name to data version
    code_version: str
    context: dg.AssetExecutionContext
    tracking: MlflowTracking
    start: str = AFRESH  # or RESUME, WARM_START (see STARTS)
    description: str = ""  # of the asset

    @property
    def fingerprint(self) -> str:
        """See :func:`fingerprint_of`."""
        return fingerprint_of(self.name, self.code_version, self.inputs, self.start)

    def progress(self, label: str = "", total: int = 1) -> Progress:
        """A progress reporter for this step, on the terminal or in the step's log."""
        return Progress(f"  {label or self.name}", total)

    @property
    def mapper(self) -> Mapper:
        """Where work on pictures runs: on this machine, or on all nodes of the cluster that runs
        this step."""
        if not os.environ.get(ADDRESS):
            return LocalMapper()
        from gaip3_pipeline.cluster.mapping import RayMapper

        return RayMapper(self.settings.cluster.chunk)

    def spread(
        self, work: Callable[[Sequence[Item]], Result], items: Sequence[Item], size: int
    ) -> Iterator[Result]:
        """``work`` of batches of ``size`` of ``items``, in their order (see ``Mapper.batches``),
        with progress."""
        batches = (items[i : i + size] for i in range(0, len(items), size))
        progress = self.progress(total=len(items))
        for number, result in enumerate(self.mapper.batches(work, batches), 1):
            progress.update(min(number * size, len(items)))
            yield result

    @property
    def trainings(self) -> Trainings:
        """Where independent trainings of this step run: here one after another, or as tasks of the
        cluster that runs this step."""
        if not os.environ.get(ADDRESS):
            return one_after_another
        from gaip3_pipeline.cluster.training import RayTrainings

        return RayTrainings(self.settings.cluster)

    @property
    def together(self) -> "Together | None":
        """Several processes that train one model, if this step runs on a cluster and its settings
        ask for more than one."""
        if not os.environ.get(ADDRESS) or self.settings.cluster.workers < 2:
            return None
        from gaip3_pipeline.cluster.training import Together

        return Together(self.settings.cluster)

    def training(self, folder: Path, run: TrainingRun) -> Run:
        """The :class:`Run` of a training into ``folder``: this step's fingerprint and progress, and
        the log function of the MLflow ``run``."""
        return Run(folder, self.fingerprint, run.log, self.progress())

    def training_run(self, parameters: Mapping[str, Any]) -> TrainingRun:
        """The MLflow run of this step's training: a context manager (see mlflow_tracking)."""
        # Read again: an earlier step may have tagged the Dagster run with the parent MLflow run
        # after this step's copy of the Dagster run was taken.
        run = self.context.instance.get_run_by_id(self.context.run.run_id) or self.context.run
        content = run.tags.get(self.tracking.CONTENT_TAG, "")
        if not content and self.tracking.enabled:  # a run that no refresh started
            content = content_hash(self.root)
            tags = {self.tracking.CONTENT_TAG: content}
            self.context.instance.add_run_tags(run.run_id, tags)
        return TrainingRun(
            self.tracking,
            content=content,
            asset=self.name,
            description=self.description,
            dagster_run_id=run.run_id,
            parent_id=run.tags.get(self.tracking.PARENT_TAG),
            on_parent=lambda run_id: self.context.instance.add_run_tags(
                run.run_id, {self.tracking.PARENT_TAG: run_id}
            ),
            code_version=self.code_version,
            inputs=self.inputs,
            fingerprint=self.fingerprint,
            parameters=parameters,
        )

    def evaluated(
        self,
        version: str,
        figures: Mapping[str, Any],
        pictures: Mapping[str, bytes],
        parameters: Mapping[str, Any],
        artifacts: Sequence[Path] = (),
        tables: Sequence[Path] = (),
    ) -> AssetResult:
        """The result of a step that only measures.

        Its figures, ``pictures`` (JPEGs by name; the first one represents the asset) and
        ``artifacts`` are logged to an MLflow run."""
        with self.training_run(parameters) as run:
            log_outcome(run, figures, pictures)
            for path in artifacts:
                run.artifact(path)
        (_, first), *more = pictures.items()
        return AssetResult(version, figures, first, run.url, dict(more), tables)


def code_version(number: int, settings: Settings, reads: Reads, files: Sequence[Path] = ()) -> str:
    """The code version: a hand-kept integer, the hash of the resolved settings that the asset
    reads, and the hashes of the package's ``files`` that it uses."""
    hashes = [section_hash(*reads(settings))] if reads(settings) else []
    return "-".join([str(number), *hashes, *(file_version(file)[:8] for file in files)])


def versioned_asset(
    settings: Settings,
    *,
    name: str,
    deps: Sequence[str],
    version: int,
    group: str,
    kinds: set[str],
    description: str,
    reads: Reads = lambda s: (),
    files: Sequence[Path] = (),
    training: bool = False,
    spreads: bool = False,
    resumable: bool = False,
) -> Callable[[Callable[[AssetContext], AssetResult]], dg.AssetsDefinition]:
    """An asset whose data version is a content hash and whose code version includes the settings
    and ``files`` that it reads.

    The step fails if these settings changed in gaip3.toml after the definitions were loaded. A
    ``resumable`` asset accepts the run configuration ``STARTS``. An asset ``spreads`` if its work
    goes through :attr:`AssetContext.mapper` or :attr:`AssetContext.trainings`."""
    planned = code_version(version, settings, reads, files)
    shown = _shown(settings, reads(settings))
    config = (STARTS if resumable else {}) | _read_only(shown)

    def decorate(body: Callable[[AssetContext], AssetResult]) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=list(deps),
            code_version=planned,
            group_name=group,
            kinds=kinds,
            tags=_tags(name),
            owners=OWNERS,
            description=described(name, description),
            metadata={SETTINGS: dg.MetadataValue.json(shown)} if shown else None,
            pool=TRAINING_POOL if training else None,
            automation_condition=automation(),
            config_schema=config or None,
            **on_cluster(settings, training, spreads),
        )
        def asset_body(
            context: dg.AssetExecutionContext,
            root: RootResource,
            tracking: MlflowTracking,
        ) -> dg.MaterializeResult:
            now = load(root.data_root)
            if code_version(version, now, reads, files) != planned:
                raise dg.Failure(
                    f"{root.data_root.settings_file} changed since this code location was loaded,"
                    f" so {name} would be made with other settings than planned: reload the"
                    " definitions (Deployment → Reload, or start gaip3 refresh again)",
                    allow_retries=False,
                )
            given = context.op_execution_context.op_config if config else {}
            if given.get(SETTINGS, shown) != shown:
                raise dg.Failure(
                    f"settings are read from {root.data_root.settings_file} and cannot be set in"
                    " the launchpad: change them there and reload the definitions",
                    allow_retries=False,
                )
            inputs = {d: current_version(context.instance, dg.AssetKey(d)) or "" for d in deps}
            start = _start(given) if resumable else AFRESH
            step = AssetContext(
                name, root.data_root, now, inputs, planned, context, tracking, start, description
            )
            try:
                with _for_refresh(step):
                    made = body(step)
                    keep(root.data_root, name, made)
            except (KeyboardInterrupt, DagsterExecutionInterruptedError) as e:
                raise type(e)(STOPPED) from None
            except Exception as e:
                if isinstance(e, OSError) and e.errno in TRANSIENT:
                    raise dg.RetryRequested(max_retries=2, seconds_to_wait=5) from e
                of_the_step = not (isinstance(e, dg.Failure) or is_of_the_cluster(e))
                if os.environ.get(ADDRESS) and of_the_step:
                    # Dagster repeats steps of a cluster whose node was lost, but not this error.
                    raise dg.Failure(f"{e}", allow_retries=False) from e
                raise
            place = {"node": node_address()} if os.environ.get(ADDRESS) else {}
            return dg.MaterializeResult(
                data_version=dg.DataVersion(made.version), metadata=made.metadata() | place
            )

        return asset_body

    return decorate


@contextmanager
def _for_refresh(step: AssetContext) -> Iterator[None]:
    """On a cluster, write the step's progress to a file, which the refresh reads on its machine,
    and end this process if the process of the refresh is gone, or the node that runs this step."""
    if not os.environ.get(ADDRESS):
        yield
        return
    needed = (os.environ.get(DRIVER), supervisor(), step.root.heartbeats)
    Thread(target=_end_without, args=needed, daemon=True).start()
    file, place = step.root.step_progress(step.name), node_address()

    def write(label: str, done: int, total: int, left: float | None) -> None:
        now = {"label": f"{label} on {place}", "done": done, "total": total, "left": left}
        write_text_atomically(file, json.dumps(now) + "\n")

    with watched_by(write):
        yield


def _end_without(driver: str | None, supervisor: int | None, heartbeats: Path) -> None:
    while (driver is None or process_lives(driver, heartbeats)) and (
        supervisor is None or Path(f"/proc/{supervisor}").exists()
    ):
        time.sleep(BEAT_SECONDS)
    # Nobody waits for this step, or it is repeated elsewhere. Files appear whole or not at all.
    os._exit(1)


def described(name: str, description: str) -> str:
    """The description of an asset for Dagster's pages, in Markdown: with a link to the job that
    makes what is stale, and with the asset's picture if ``gaip3 ui`` serves the pages."""
    parts = [description, f"[Refresh]({REFRESH_PAGE}) makes everything that is stale."]
    pictures = os.environ.get("GAIP3_LABEL_URL")
    if pictures:
        page = f"{pictures}/picture/asset/{name}"
        parts.append(f"[![{name}]({page}?width={PICTURE_WIDTH})]({page})")
    return "\n\n".join(parts)


def _tags(name: str) -> dict[str, str]:
    """Tags by which Dagster's pages find all assets of an attribute or a set of images."""
    of = {"attribute": ATTRIBUTES, "set": [s.id for s in IMAGE_SETS]}
    return {tag: v for tag, values in of.items() for v in values if name.endswith(f"_{v}")}


def _shown(settings: Settings, sections: Iterable[Any]) -> dict[str, Any]:
    """The sections of ``settings`` that an asset reads, as JSON, by name."""
    kinds = {n: k.__name__ for n, k in SECTIONS.items() if not n.startswith("input_model_")}
    names = {kind: name for name, kind in kinds.items()}
    read = {names[type(section).__name__]: section for section in sections}
    # whole, also where the asset ignores some of its values
    whole = {name: getattr(settings, name) for name in read.keys() - {"input_model"}}
    return json.loads(json.dumps({name: asdict(s) for name, s in (read | whole).items()}))


def _read_only(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a part of the run configuration, so that the launchpad shows them."""
    if not shown:
        return {}
    what = "The settings of gaip3.toml. They are shown here and can be changed only there."
    return {SETTINGS: dg.Field(dict, default_value=dict(shown), description=what)}


def _start(config: Mapping[str, bool]) -> str:
    chosen = [name for name in STARTS if config[name]]
    if len(chosen) > 1:
        raise dg.Failure(f"choose one of {', '.join(chosen)}", allow_retries=False)
    return chosen[0] if chosen else AFRESH


def observed_source(
    name: str,
    group: str,
    kind: str,
    description: str,
    observe: Callable[[DataRoot, Seen | None], AssetResult],
) -> Any:
    """A source asset that people edit and Dagster observes; ``observe`` returns its present content
    hash, given the last observation."""

    @dg.observable_source_asset(
        name=name,
        group_name=group,
        description=described(name, description),
        tags={f"dagster/kind/{kind}": "", **_tags(name)},
    )
    def source(context: dg.AssetExecutionContext, root: RootResource) -> dg.ObserveResult:
        made = observe(root.data_root, last_seen(context.instance, name))
        return dg.ObserveResult(data_version=dg.DataVersion(made.version), metadata=made.metadata())

    return source


def observe_table(
    root: DataRoot, path: Path, content: Callable[[Path], str], seen: Seen | None
) -> AssetResult:
    """The observation of a table that people edit. Its data version is the hash of its ``content``,
    whatever the form of the file; of the file's bytes while its rows cannot be read.

    If the bytes are those ``seen`` last, the version stays: nothing is read, and roots whose
    tables were hashed by their bytes before stay fresh."""
    file = file_version(path)
    if seen and seen.file == file:
        version = seen.version
    else:
        try:
            version = content(path)
        except ContractError:
            version = file
    return AssetResult(
        version,
        {
            "file": root.relative(path),
            "bytes": path.stat().st_size if path.exists() else 0,
            FILE_METADATA: file,
        },
    )


def automation() -> dg.AutomationCondition:
    """Request one run for each change of an input's content or of the code version, and for each
    loss of the asset. The sensor that evaluates this condition is off by default.

    ``eager()`` fires even when a dependency was materialised with an equal data version, so
    ``data_version_changed`` replaces ``newly_updated``. ``since(newly_requested)`` prevents a
    second request for the same change while its run is in progress. Assets downstream of a
    requested one are requested in the same run, so that none is materialised twice. Within that run
    an unchanged data version does not stop the assets downstream; in ``gaip3 refresh`` it does."""
    changed = dg.AutomationCondition.any_deps_updated().replace(
        "newly_updated", dg.AutomationCondition.data_version_changed()
    )
    cause = (  # the labels are shown on the page of an asset's automation
        changed
        | dg.AutomationCondition.code_version_changed()
        | dg.AutomationCondition.newly_missing()
    ).with_label("an input's content, the settings or the code changed, or the asset was lost")
    waits = (
        dg.AutomationCondition.any_deps_missing()
        | dg.AutomationCondition.any_deps_in_progress()
        | dg.AutomationCondition.in_progress()
    ).with_label("an input is missing, or a run makes it or the asset")
    return cause.since(dg.AutomationCondition.newly_requested()) & ~waits


def keep(root: DataRoot, name: str, made: AssetResult) -> None:
    """Write an asset's figures and pictures to files, for its checks and the report.

    Pictures of an earlier materialisation that this one does not have are deleted."""
    write_text_atomically(
        root.figures(name), json.dumps(made.figures, indent=1, ensure_ascii=False) + "\n"
    )
    if made.picture:
        write_bytes_atomically(root.picture(name), made.picture)
    for which, jpeg in made.more.items():
        write_bytes_atomically(root.picture(name, which), jpeg)
    made_now = {root.picture(name), *(root.picture(name, which) for which in made.more)}
    for left_over in set(root.pictures(name)) - made_now:
        left_over.unlink()


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are plain numbers; MLflow accepts no others."""
    return {
        k: float(v)
        for k, v in figures.items()
        if isinstance(v, int | float) and not isinstance(v, bool)
    }


def log_outcome(
    run: TrainingRun, figures: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> None:
    """Log the final figures that are numbers, and ``pictures`` (JPEGs by name), to an MLflow
    run."""
    run.result(numbers(figures))
    for name, jpeg in pictures.items():
        run.picture(f"{name}.jpg", jpeg)


def read_figures(root: DataRoot, name: str) -> dict[str, Any]:
    """The figures that :func:`keep` wrote for an asset; empty if it was never materialised."""
    try:
        return json.loads(root.figures(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def current_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version of an asset's last materialisation, or of a source's last observation."""
    materialized = latest_materialization(instance, key)
    if materialized:
        return (materialized.tags or {}).get(DATA_VERSION_TAG)
    seen = last_seen(instance, key.to_user_string())
    return seen.version if seen else None


def last_seen(instance: dg.DagsterInstance, name: str) -> Seen | None:
    """The last observation of a source."""
    for record in instance.fetch_observations(dg.AssetKey(name), limit=1).records:
        observed = record.asset_observation
        version = (observed.tags or {}).get(DATA_VERSION_TAG) if observed else None
        if observed and version:
            # Before, the version of a table was the hash of its bytes.
            file = observed.metadata.get(FILE_METADATA)
            return Seen(version, str(file.value) if file else version)
    return None


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> dg.AssetMaterialization | None:
    """The last materialisation of an asset."""
    return latest_materializations(instance, [key]).get(key)


def latest_materializations(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]
) -> dict[dg.AssetKey, dg.AssetMaterialization]:
    """The last materialisation of each of ``keys`` that has one, by one query."""
    return {
        key: event.asset_materialization
        for key, event in latest_events(instance, keys).items()
        if event.asset_materialization
    }


def latest_events(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]
) -> dict[dg.AssetKey, dg.EventLogEntry]:
    """The event of the last materialisation of each of ``keys`` that has one, by one query."""
    events = instance.event_log_storage.get_latest_materialization_events(list(keys))
    return {key: event for key, event in events.items() if event}


def observation_if_changed(
    instance: dg.DagsterInstance, name: str, made: AssetResult
) -> dg.AssetObservation | None:
    """The observation to record of a source; None if its content is the one recorded last."""
    key = dg.AssetKey(name)
    if current_version(instance, key) == made.version:
        return None
    return dg.AssetObservation(key, metadata=made.metadata(), tags={DATA_VERSION_TAG: made.version})
