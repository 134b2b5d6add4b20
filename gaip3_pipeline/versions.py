"""What makes an asset stale: content hashes as data versions, resolved settings as code versions.

Here belongs how an asset states its version and learns its inputs' versions; what a version is
taken of (a folder, a table, weights) belongs to the module that knows the thing.
``versioned_asset`` gives every asset of the pipeline the same manners."""

import errno
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking, TrainingRun
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.settings import Settings, load, section_hash
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.training.run import Run

# observable_source_asset is beta in 1.13 and says so once for each of our sources.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module="dagster")

OWNERS = ["team:gaip3"]
TRAINING_POOL = "training"
DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version/"
RUN_METADATA = "mlflow_run"
# of disks and network folders
TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}

AFRESH, RESUME, WARM_START = "afresh", "resume", "warm_start"  # how a training starts
STARTS = {
    RESUME: dg.Field(
        bool,
        default_value=False,
        description=(
            "Go on from the last checkpoint though settings or data changed since (more epochs, new"
            " labels), instead of afresh."
        ),
    ),
    WARM_START: dg.Field(
        bool,
        default_value=False,
        description=(
            "Start from the last weights, in a third of the epochs. Afresh where there are none of"
            " the same architecture."
        ),
    ),
}

Reads = Callable[[Settings], tuple[Any, ...]]


class RootResource(dg.ConfigurableResource):
    """The data root that the assets work on."""

    path: str

    @property
    def data_root(self) -> DataRoot:
        return DataRoot(Path(self.path))


@dataclass(frozen=True)
class AssetResult:
    """What an asset's body returns: the content hash of what it made, its figures and pictures
    for people."""

    version: str
    # numbers, strings, and lists or mappings of them
    figures: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes | None = None  # JPEG
    run_url: str = ""  # the page of the training in MLflow
    # further JPEGs by name, for the report alone
    more: Mapping[str, bytes] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """As the UI shows it; metadata lives in the event log, so a picture is small (see
        imaging.contact_sheet)."""
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
        return shown


@dataclass(frozen=True)
class AssetContext:
    """What an asset's body works with."""

    name: str
    root: DataRoot
    settings: Settings
    inputs: Mapping[str, str]  # asset name to data version
    code_version: str
    context: dg.AssetExecutionContext
    tracking: MlflowTracking
    start: str = AFRESH  # or RESUME, WARM_START (see STARTS)

    @property
    def fingerprint(self) -> str:
        """Names code, settings, data and whether it is a warm start: a checkpoint is resumed
        only under the same one."""
        start = [self.start] if self.start == WARM_START else []
        return digest(
            [
                self.name,
                self.code_version,
                *(f"{k}={v}" for k, v in sorted(self.inputs.items())),
                *start,
            ]
        )

    def progress(self, label: str = "", total: int = 1) -> Progress:
        """Progress of this step's long work, on the terminal or in the step's log."""
        return Progress(f"  {label or self.name}", total)

    def training(self, folder: Path, run: TrainingRun) -> Run:
        """What a training into ``folder`` is given: this step's fingerprint and progress, and
        the log of the MLflow ``run``."""
        return Run(folder, self.fingerprint, run.log, self.progress())

    def training_run(self, parameters: Mapping[str, Any]) -> TrainingRun:
        """The MLflow run of this step's training: a context manager (see mlflow_tracking)."""
        # Read anew: an earlier step of this run may have made the parent since this step's own view
        # of the run was taken.
        run = self.context.instance.get_run_by_id(self.context.run.run_id) or self.context.run
        return TrainingRun(
            self.tracking,
            asset=self.name,
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
    ) -> AssetResult:
        """The result of a step that measures: its figures, ``pictures`` (JPEGs by name, the first
        one stands for the asset) and files are kept with an MLflow run."""
        with self.training_run(parameters) as run:
            log_outcome(run, figures, pictures)
            for path in artifacts:
                run.artifact(path)
        (_, first), *more = pictures.items()
        return AssetResult(version, figures, first, run.url, dict(more))


def code_version(number: int, settings: Settings, reads: Reads, files: Sequence[Path] = ()) -> str:
    """A hand-kept integer, the hash of the resolved settings that the asset reads, and those of
    ``files`` of the package that it uses."""
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
    resumable: bool = False,
) -> Callable[[Callable[[AssetContext], AssetResult]], dg.AssetsDefinition]:
    """An asset whose data version is a content hash and whose code version holds the settings and
    ``files`` that it reads.

    The step stops when gaip3.toml no longer says what the definitions were loaded with. One that
    is ``resumable`` takes the configuration ``STARTS``."""
    planned = code_version(version, settings, reads, files)

    def decorate(body: Callable[[AssetContext], AssetResult]) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=list(deps),
            code_version=planned,
            group_name=group,
            kinds=kinds,
            owners=OWNERS,
            description=description,
            pool=TRAINING_POOL if training else None,
            automation_condition=automation(),
            config_schema=STARTS if resumable else None,
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
            inputs = {d: current_version(context.instance, dg.AssetKey(d)) or "" for d in deps}
            try:
                start = _start(context.op_execution_context.op_config) if resumable else AFRESH
                made = body(
                    AssetContext(
                        name,
                        root.data_root,
                        now,
                        inputs,
                        planned,
                        context,
                        tracking,
                        start,
                    )
                )
                keep(root.data_root, name, made)
            except OSError as e:
                if e.errno in TRANSIENT:
                    raise dg.RetryRequested(max_retries=2, seconds_to_wait=5) from e
                raise
            return dg.MaterializeResult(
                data_version=dg.DataVersion(made.version), metadata=made.metadata()
            )

        return asset_body

    return decorate


def _start(config: Mapping[str, bool]) -> str:
    chosen = [name for name in STARTS if config[name]]
    if len(chosen) > 1:
        raise dg.Failure(f"choose one of {', '.join(chosen)}", allow_retries=False)
    return chosen[0] if chosen else AFRESH


def observed_source(
    name: str, group: str, kind: str, description: str, observe: Callable[[DataRoot], AssetResult]
) -> Any:
    """A source that people write and Dagster observes: ``observe`` gives its present content
    hash."""

    @dg.observable_source_asset(
        name=name, group_name=group, description=description, tags={f"dagster/kind/{kind}": ""}
    )
    def source(root: RootResource) -> dg.ObserveResult:
        made = observe(root.data_root)
        return dg.ObserveResult(data_version=dg.DataVersion(made.version), metadata=made.metadata())

    return source


def automation() -> dg.AutomationCondition:
    """Ask for a run once per change of content, code or loss of the asset; the sensor that
    evaluates it is off by default.

    ``eager()`` fires even when a dependency was materialised with an equal data version, so the
    change of content stands in for "newly updated"; ``since(newly_requested)`` keeps one change
    from asking again while its run is under way. What follows from an asset that is asked for is
    asked for with it, in one run, so that nothing is made twice; inside that run an equal
    content stops nothing, as it does in ``gaip3 refresh``."""
    changed = dg.AutomationCondition.any_deps_updated().replace(
        "newly_updated", dg.AutomationCondition.data_version_changed()
    )
    cause = (
        changed
        | dg.AutomationCondition.code_version_changed()
        | dg.AutomationCondition.newly_missing()
    )
    waits = (
        dg.AutomationCondition.any_deps_missing()
        | dg.AutomationCondition.any_deps_in_progress()
        | dg.AutomationCondition.in_progress()
    )
    return cause.since(dg.AutomationCondition.newly_requested()) & ~waits


def keep(root: DataRoot, name: str, made: AssetResult) -> None:
    """Keep an asset's figures and pictures as files, for its checks and the report; further
    pictures it made before go."""
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
    """The figures that are plain numbers, as MLflow takes them."""
    return {
        k: float(v)
        for k, v in figures.items()
        if isinstance(v, int | float) and not isinstance(v, bool)
    }


def log_outcome(
    run: TrainingRun, figures: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> None:
    """Give an MLflow run its final figures, those that are numbers, and ``pictures``, JPEGs by
    name."""
    run.result(numbers(figures))
    for name, jpeg in pictures.items():
        run.picture(f"{name}.jpg", jpeg)


def read_figures(root: DataRoot, name: str) -> dict[str, Any]:
    """The figures that an asset kept; empty if it has not been made."""
    try:
        return json.loads(root.figures(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def current_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version of an asset's last materialisation, or of a source's last observation."""
    materialized = latest_materialization(instance, key)
    if materialized:
        return (materialized.tags or {}).get(DATA_VERSION_TAG)
    observed = instance.fetch_observations(key, limit=1).records
    if observed and observed[0].asset_observation:
        return (observed[0].asset_observation.tags or {}).get(DATA_VERSION_TAG)
    return None


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> dg.AssetMaterialization | None:
    """The last materialisation of an asset."""
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].asset_materialization if records else None


def observation_if_changed(
    instance: dg.DagsterInstance, name: str, made: AssetResult
) -> dg.AssetObservation | None:
    """The observation to record of a source, if its content is not the one recorded last."""
    key = dg.AssetKey(name)
    if current_version(instance, key) == made.version:
        return None
    return dg.AssetObservation(key, metadata=made.metadata(), tags={DATA_VERSION_TAG: made.version})
