"""The Dagster definitions: assets, checks, jobs, sensors, resources. No logic."""

import os
from pathlib import Path

import dagster as dg

from gaip3_pipeline import assets, checks
from gaip3_pipeline.environment import check, check_charts
from gaip3_pipeline.layout import DATA, DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.sensors import materialize_stale_sensor, observe_sources_sensor
from gaip3_pipeline.settings import Settings, load
from gaip3_pipeline.tables.databases import sqlite_url
from gaip3_pipeline.versions import RootResource


def build_defs(
    root: DataRoot, settings: Settings | None = None, in_process: bool = False
) -> dg.Definitions:
    """The definitions of one data root. With ``in_process`` all steps of a job run in one process,
    since importing Keras takes 16 s. Raises ``EnvironmentVariableError`` if no step could run."""
    check()
    check_charts()
    settings = settings or load(root)
    return dg.Definitions(
        assets=assets.build(settings),
        asset_checks=checks.build(settings),
        jobs=[
            dg.define_asset_job(
                "everything", dg.AssetSelection.all(), description="Every asset, stale or not."
            )
        ],
        sensors=[observe_sources_sensor, materialize_stale_sensor],
        resources={
            "root": RootResource(path=str(root.path.absolute())),
            "tracking": tracking_of(root, settings),
        },
        executor=dg.in_process_executor
        if in_process
        else dg.multiprocess_executor.configured({"max_concurrent": 2}),
    )


def tracking_of(root: DataRoot, settings: Settings) -> MlflowTracking:
    """MLflow with the store that the settings name, or the root's own store."""
    uri = settings.tracking.uri or sqlite_url(root.mlflow_db.absolute())
    return MlflowTracking(
        enabled=settings.tracking.enabled,
        uri=uri,
        artifacts="" if settings.tracking.uri else str(root.mlflow_artifacts.absolute()),
        # gaip3 ui may serve MLflow on another port
        link=os.environ.get("GAIP3_MLFLOW_URL", "http://127.0.0.1:5000"),
    )


def root_of_environment() -> DataRoot:
    """The root that ``GAIP3_ROOT`` names, or the repository's ``data/``."""
    return DataRoot(Path(os.environ.get("GAIP3_ROOT") or DATA))


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions that Dagster loads. Importing this module does not build them: gaip3 imports
    it and builds the definitions of the root of its command."""
    return build_defs(root_of_environment())
