"""The Dagster definitions: assets, checks, jobs, sensors, resources. No logic."""

import os
from typing import Any

import dagster as dg

from gaip3_pipeline import assets, checks, jobs
from gaip3_pipeline.cluster.connection import address_of
from gaip3_pipeline.cluster.executor import ray_steps
from gaip3_pipeline.dagster_home import root_of_environment
from gaip3_pipeline.environment import check, check_charts
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.sensors import materialize_stale_sensor, observe_sources_sensor
from gaip3_pipeline.settings import Settings, load
from gaip3_pipeline.tables.databases import sqlite_url
from gaip3_pipeline.versions import RootResource


def build_defs(
    root: DataRoot, settings: Settings | None = None, in_process: bool = False
) -> dg.Definitions:
    """The definitions of one data root.

    Steps run on the cluster that the settings name, else each in a process of its own. With
    ``in_process`` all steps of a job run in one process, since importing Keras takes 16 s. Raises
    ``EnvironmentVariableError`` if no step could run."""
    check()
    check_charts()
    settings = settings or load(root)
    return dg.Definitions(
        assets=assets.build(settings),
        asset_checks=checks.build(settings),
        jobs=jobs.build(),
        sensors=[observe_sources_sensor, materialize_stale_sensor],
        resources=_resources(root, settings),
        executor=dg.in_process_executor if in_process else _executor(root, settings),
    )


def _resources(root: DataRoot, settings: Settings) -> dict[str, Any]:
    return {
        "root": RootResource(path=str(root.path.absolute())),
        "tracking": tracking_of(root, settings),
    }


def _executor(root: DataRoot, settings: Settings) -> dg.ExecutorDefinition:
    if address_of(settings):
        return ray_steps(root, settings)
    return dg.multiprocess_executor.configured({"max_concurrent": 2})


def tracking_of(root: DataRoot, settings: Settings) -> MlflowTracking:
    """MLflow with the store that the settings name, or the root's own store.

    ``env:NAME`` stays as it is, since Dagster shows the configuration of resources."""
    uri = settings.tracking.uri or sqlite_url(root.mlflow_db.absolute())
    return MlflowTracking(
        enabled=settings.tracking.enabled,
        uri=uri,
        artifacts=str(root.mlflow_artifacts.absolute()),
        heartbeats=str(root.heartbeats.absolute()),
        # gaip3 ui may serve MLflow on another port
        link=os.environ.get("GAIP3_MLFLOW_URL", "http://127.0.0.1:5000"),
        dagster=os.environ.get("GAIP3_DAGSTER_URL", "http://127.0.0.1:3000"),
    )


def assets_alone() -> dg.Definitions:
    """The assets of the root that ``GAIP3_ROOT`` names, without their checks: what ``gaip3
    refresh`` runs on a cluster. There a check would be a job of its own and cost ten seconds, so
    the checks run where the refresh runs."""
    root = root_of_environment()
    settings = load(root)
    return dg.Definitions(
        assets=assets.build(settings),
        jobs=[jobs.stage()],
        resources=_resources(root, settings),
        executor=_executor(root, settings),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions that Dagster loads. Importing this module does not build them: gaip3 imports
    it and builds the definitions of the root of its command."""
    return build_defs(root_of_environment())
