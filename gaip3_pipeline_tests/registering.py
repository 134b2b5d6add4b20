"""Runs of trainings in MLflow, and models registered as a finished training does."""

from pathlib import Path

from gaip3_pipeline.mlflow_tracking import MlflowTracking, TrainingRun


def training(tracking: MlflowTracking, asset: str = "gender_model") -> TrainingRun:
    """The run of a training, which the caller enters."""
    return TrainingRun(
        tracking,
        asset=asset,
        dagster_run_id="0123456789",
        parent_id=None,
        on_parent=lambda run_id: None,
        code_version="1",
        inputs={},
        fingerprint="print",
        parameters={"epochs": 3},
    )


def register(
    tracking: MlflowTracking,
    asset: str,
    folder: Path,
    version: str,
    figures: dict[str, float],
    name: str,
) -> None:
    """Log a run with ``figures`` and register the model in ``folder``, whose content hash is
    ``version``; ``name`` is the run's own."""
    with TrainingRun(
        tracking,
        asset=asset,
        dagster_run_id=f"run{name}",
        parent_id=None,
        on_parent=lambda _: None,
        code_version="1",
        inputs={},
        fingerprint=name,
        parameters={},
    ) as run:
        run.result(figures)
        run.register(folder, version)
