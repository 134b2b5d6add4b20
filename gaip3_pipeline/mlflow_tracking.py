"""The only module that uses MLflow: a parent run per Dagster run, a child run per training, the
model registry.

MLflow is imported when the first run starts, never with the definitions. Runs are addressed by id
through the client, so this module keeps no state in the process."""

import json
import logging
import math
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

import dagster as dg

from gaip3_pipeline.layout import REPOSITORY

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "gaip3"
DIGEST_LENGTH = 32  # MLflow takes at most 36 characters
CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model: its number, its aliases, the content hash of its weights,
    its files and its metrics."""

    number: str
    aliases: list[str]
    data_version: str
    folder: Path
    figures: dict[str, float]


class MlflowTracking(dg.ConfigurableResource):
    """MLflow runs of trainings. ``enabled = false`` runs the same code without MLflow."""

    PARENT_TAG: ClassVar[str] = "gaip3/mlflow_run_id"

    enabled: bool = True
    uri: str = ""
    artifacts: str = ""
    link: str = "http://127.0.0.1:5000"

    def client(self) -> "MlflowClient":
        """A client of the store, which is created on first use."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient

        # MLflow logs each database migration
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, client: "MlflowClient") -> str:
        """The id of the pipeline's experiment, which is created on first use."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        try:
            return client.create_experiment(
                EXPERIMENT,
                artifact_location=Path(self.artifacts).as_uri() if self.artifacts else None,
            )
        except MlflowException:
            found = client.get_experiment_by_name(EXPERIMENT)  # another process has created it
            if not found:
                raise
            return found.experiment_id

    def end_dead_runs(self) -> int:
        """Mark runs as KILLED that processes left RUNNING when they ended; returns their number."""
        if not self.enabled:
            return 0
        client = self.client()
        dead = [
            r
            for r in client.search_runs(
                [self.experiment(client)], "attributes.status = 'RUNNING'", max_results=1000
            )
            if not process_lives(r.data.tags.get("gaip3.process", ""))
        ]
        for run in dead:
            client.set_terminated(run.info.run_id, status="KILLED")
        return len(dead)

    def promote(self, asset: str, version: str) -> bool:
        """Move the alias ``champion`` of a registered model to the version whose weights have
        the content hash ``version``."""
        if not self.enabled:
            return False
        client = self.client()
        found = [
            m
            for m in client.search_model_versions(f"name = '{asset}'")
            if m.tags.get("gaip3.data_version") == version
        ]
        if not found:
            return False
        client.set_registered_model_alias(
            asset, CHAMPION, max(found, key=lambda m: int(m.version)).version
        )
        return True

    def versions(self, asset: str, measured_by: str) -> list[ModelVersion]:
        """The registered versions of a model whose files are on this machine, newest first; empty
        if there is no store.

        Their metrics are those of their training and of the last run of the asset ``measured_by``
        that measured these weights."""
        if not self.enabled or (
            self.uri.startswith("sqlite:///")
            and not Path(self.uri.removeprefix("sqlite:///")).exists()
        ):
            return []
        client = self.client()
        experiment = self.experiment(client)
        aliases = (
            client.get_registered_model(asset).aliases
            if client.search_registered_models(f"name = '{asset}'")
            else {}
        )
        found = []
        for entry in sorted(
            client.search_model_versions(f"name = '{asset}'"), key=lambda m: -int(m.version)
        ):
            source, version = urlsplit(str(entry.source)), entry.tags.get("gaip3.data_version", "")
            folder = Path(unquote(source.path) if source.scheme == "file" else str(entry.source))
            if not folder.is_dir():
                continue
            measured = client.search_runs(
                [experiment],
                f"tags.`gaip3.asset` = '{measured_by}' and tags.`gaip3.input.{asset}` ="
                f" '{version}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            runs = [client.get_run(str(entry.run_id)), *measured]
            figures = {
                k.removeprefix("final/"): v
                for run in runs
                for k, v in run.data.metrics.items()
                if k.startswith("final/")
            }
            found.append(
                ModelVersion(
                    entry.version,
                    sorted(a for a, n in aliases.items() if n == entry.version),
                    version,
                    folder,
                    figures,
                )
            )
        return found

    def start_sweep(self, sweep: str, name: str) -> str:
        """The id of the parent run of a sweep, which is created on first use; "" without MLflow."""
        if not self.enabled:
            return ""
        client = self.client()
        experiment = self.experiment(client)
        found = client.search_runs([experiment], f"tags.`gaip3.sweep` = '{sweep}'", max_results=1)
        if found:
            return found[0].info.run_id
        tags = {"gaip3.sweep": sweep, "gaip3.process": this_process(), **_git_state()}
        return client.create_run(experiment, run_name=name, tags=tags).info.run_id

    def end_sweep(self, run_id: str, table: str) -> None:
        """Store the ``table`` of a sweep, a CSV, with its parent run, and close it."""
        if not self.enabled:
            return
        client = self.client()
        client.log_text(run_id, table, "sweep.csv")
        client.set_terminated(run_id)

    def url(self, experiment_id: str, run_id: str) -> str:
        """The page of a run in the MLflow UI."""
        return f"{self.link}/#/experiments/{experiment_id}/runs/{run_id}"


class TrainingRun:
    """One training in MLflow. Its status is FINISHED when the block ends, FAILED after an error,
    KILLED after an interruption.

    ``name`` is shown in MLflow, by default that of the asset. ``parent_id`` is the id of the parent
    run; if it is None, a parent run is created and ``on_parent`` is called with its id. If an
    earlier run with the same fingerprint failed or was killed, it is continued, as the training
    itself continues from its checkpoint."""

    def __init__(
        self,
        tracking: MlflowTracking,
        *,
        asset: str,
        name: str = "",
        dagster_run_id: str = "",
        parent_id: str | None,
        on_parent: Callable[[str], None] = lambda run_id: None,
        code_version: str,
        inputs: Mapping[str, str],
        fingerprint: str,
        parameters: Mapping[str, Any],
    ) -> None:
        self._tracking = tracking
        self._asset = asset
        self._name = name or asset
        self._dagster_run_id = dagster_run_id
        self._parent_id = parent_id
        self._on_parent = on_parent
        self._code_version = code_version
        self._inputs = inputs
        self._fingerprint = fingerprint
        self._parameters = parameters
        self._client: Any = None
        self.run_id = ""
        self.url = ""

    def __enter__(self) -> "TrainingRun":
        if not self._tracking.enabled:
            return self
        self._client = client = self._tracking.client()
        experiment = self._tracking.experiment(client)
        if self._parent_id is None:
            parent = client.create_run(
                experiment,
                run_name=f"dagster {self._dagster_run_id[:8]}",
                tags={
                    "gaip3.dagster_run_id": self._dagster_run_id,
                    "gaip3.process": this_process(),
                },
            )
            self._parent_id = parent.info.run_id
            self._on_parent(self._parent_id)
        else:
            client.set_tag(self._parent_id, "gaip3.process", this_process())
            client.update_run(self._parent_id, status="RUNNING")
        tags = {
            "mlflow.parentRunId": self._parent_id,
            "gaip3.asset": self._asset,
            "gaip3.dagster_run_id": self._dagster_run_id,
            "gaip3.code_version": self._code_version,
            "gaip3.fingerprint": self._fingerprint,
            "gaip3.process": this_process(),
            **{f"gaip3.input.{k}": v for k, v in self._inputs.items()},
            **_git_state(),
        }
        previous = self._left_behind(experiment)
        if previous:
            self.run_id = previous.info.run_id
            client.update_run(self.run_id, status="RUNNING")
            for key, value in (
                tags | {"gaip3.resumed": str(int(previous.data.tags.get("gaip3.resumed", 0)) + 1)}
            ).items():
                client.set_tag(self.run_id, key, value)
        else:
            self.run_id = client.create_run(experiment, run_name=self._name, tags=tags).info.run_id
            self._log_parameters_and_inputs()
        self.url = self._tracking.url(experiment, self.run_id)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._client:
            return
        if kind is None:
            status = "FINISHED"
        else:
            status = (
                "FAILED"
                if issubclass(kind, Exception)
                and kind.__name__ != "DagsterExecutionInterruptedError"
                else "KILLED"
            )
            self._client.set_tag(self.run_id, "gaip3.error", f"{kind.__name__}: {error}"[:500])
        self._client.set_terminated(self.run_id, status=status)
        # The parent run is closed with each child and reopened by the next: no process runs after
        # the last child that could close it.
        self._client.set_terminated(self._parent_id, status=status)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the metrics of an epoch. Values that are not finite are left out, since MLflow's
        store rejects them."""
        if not self._client:
            return
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(k, float(v), now, step) for k, v in figures.items() if math.isfinite(v)]
        self._client.log_batch(self.run_id, metrics=metrics)

    def result(self, figures: Mapping[str, float]) -> None:
        """Log final metrics as ``final/…``: a section of their own on the run's page, separate from
        the curves of the same names."""
        self.log(0, {f"final/{name}": value for name, value in figures.items()})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file with the run."""
        if self._client:
            self._client.log_artifact(self.run_id, str(path), folder)

    def picture(self, name: str, jpeg: bytes) -> None:
        """Store a JPEG with the run."""
        self._bytes(name, jpeg)

    def image(self, name: str, step: int, picture: Any) -> None:
        """Log ``picture (H, W, 3) uint8`` of an epoch, under ``images/`` of the run's artefacts."""
        if self._client:
            self._client.log_image(self.run_id, picture, key=name, step=step)

    def text(self, name: str, text: str) -> None:
        """Store a text with the run, such as a CSV."""
        self._bytes(name, text.encode())

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        if self._client:
            self._client.set_tag(self.run_id, name, value)

    def register(self, folder: Path, version: str) -> None:
        """Register the model in ``folder`` under the asset's name, with the alias ``candidate``.

        ``version`` is the content hash of its weights, stored as a tag of the run and of the model
        version."""
        if not self._client:
            return
        from mlflow.exceptions import MlflowException

        files = [file for kind in ("*.weights.h5", "*.json", "*.npz") for file in folder.glob(kind)]
        for file in files:
            self._client.log_artifact(self.run_id, str(file), "model")
        self._client.set_tag(self.run_id, "gaip3.data_version", version)
        try:
            self._client.create_registered_model(self._asset)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(self.run_id).info.artifact_uri}/model"
        registered = self._client.create_model_version(
            self._asset, source, self.run_id, tags={"gaip3.data_version": version}
        )
        self._client.set_registered_model_alias(self._asset, CANDIDATE, registered.version)

    def _bytes(self, name: str, data: bytes) -> None:
        if not self._client:
            return
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self._client.log_artifact(self.run_id, str(path))

    def _left_behind(self, experiment: str) -> Any:
        found = self._client.search_runs(
            [experiment],
            f"tags.`gaip3.asset` = '{self._asset}' and tags.`gaip3.fingerprint` ="
            f" '{self._fingerprint}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        if not found:
            return None
        stopped = found[0].info.status in ("FAILED", "KILLED")
        dead = found[0].info.status == "RUNNING" and not process_lives(
            found[0].data.tags.get("gaip3.process", "")
        )
        return found[0] if stopped or dead else None

    def _log_parameters_and_inputs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        self._client.log_batch(
            self.run_id, params=[Param(k, str(v)) for k, v in self._parameters.items()]
        )
        datasets = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=version[:DIGEST_LENGTH] or "unknown",
                    source_type="dagster",
                    source=json.dumps({"asset": name}),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for name, version in self._inputs.items()
        ]
        if datasets:
            self._client.log_inputs(self.run_id, datasets)


def this_process() -> str:
    """An identifier of this process (host, pid and start time), by which another process can tell
    whether it still runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def of_this_host(name: str) -> bool:
    """Whether ``name``, an identifier from :func:`this_process`, is of a process of this host."""
    return name.rsplit(":", 2)[0] == socket.gethostname()


def process_lives(name: str) -> bool:
    """Whether the process with the identifier ``name`` (:func:`this_process`) still runs; one of
    another host is assumed to run."""
    try:
        _, pid, started = name.rsplit(":", 2)
    except ValueError:
        return False
    return not of_this_host(name) or (bool(started) and _started(int(pid)) == started)


def _started(pid: int) -> str:
    try:
        # The 22nd field is the start time in clock ticks since boot; the second field may contain
        # spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _git_state() -> dict[str, str]:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "gaip3.git_commit": git("rev-parse", "HEAD"),
            "gaip3.git_dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
