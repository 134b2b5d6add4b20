"""What all assets that train a model share: the MLflow run, what is logged to it, and a copy of the
labels that the model was trained with."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.layout import DataRoot, filmstrip_file
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.served import USUAL, kind_of
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.versions import (
    RESUME,
    AssetContext,
    AssetResult,
    log_outcome,
    versioned_asset,
)

if TYPE_CHECKING:
    import numpy as np

    from gaip3_pipeline.training.run import Run


@dataclass(frozen=True)
class Trained:
    """What the body of a trained asset returns after it has saved its model in the asset's
    folder."""

    figures: Mapping[str, Any]
    pictures: Mapping[str, bytes]  # JPEGs by name; the first one represents the asset
    history: Sequence[Mapping[str, float]] = ()  # the figures of each epoch
    version: str = ""  # the content hash of the model, if that covers more than its weights
    content: str = ""  # the content hash of the asset, if that covers more than the model


class Shown:
    """What a training shows of its faces: in MLflow a grid for each epoch that is shown, and the
    filmstrip, which a training that was interrupted continues."""

    def __init__(self, step: AssetContext, run: TrainingRun, training: "Run") -> None:
        from gaip3_pipeline.imaging.filmstrip import Filmstrip

        self._run = run
        self._strip = Filmstrip(
            filmstrip_file(training.checkpoints), training.fingerprint, step.start == RESUME
        )

    def __call__(self, epoch: int, faces: "np.ndarray") -> None:
        """Show ``faces (N, H, W, 3) uint8`` of the same latents after ``epoch``."""
        from gaip3_pipeline.sampling.draw import grid

        self._run.image("samples", epoch, grid(faces))
        self._strip.add(epoch, faces)
        for name, jpeg in self.pictures.items():
            self._run.picture(f"{name}.jpg", jpeg)

    @property
    def pictures(self) -> dict[str, bytes]:
        """The filmstrip as ``progress``; empty if no epoch was shown."""
        jpeg = self._strip.jpeg()
        return {"progress": jpeg} if jpeg else {}


def trained_asset(
    settings: Settings,
    *,
    folder: Callable[[DataRoot], Path],
    parameters: Callable[[Settings], Mapping[str, Any]],
    logbook: tuple[str, str] | None = None,
    labels: Sequence[str] = (),
    **asset: Any,
) -> Callable[[Callable[[AssetContext, TrainingRun], Trained]], dg.AssetsDefinition]:
    """A :func:`versioned_asset` whose body trains the model of ``folder`` inside an MLflow run with
    ``parameters``.

    The run logs the figures, the pictures, the section of the ``logbook`` (the name and title of a
    training log) and the registered model. The checked labels of the attributes ``labels`` are
    copied into the model's folder, and their changes since the last training are logged."""

    def decorate(body: Callable[[AssetContext, TrainingRun], Trained]) -> dg.AssetsDefinition:
        @versioned_asset(settings, training=True, **asset)
        def train(step: AssetContext) -> AssetResult:
            from gaip3_pipeline.tables.label_changes import changes_csv
            from gaip3_pipeline.training.logbook import write_section
            from gaip3_pipeline.training_data import keep_labels_seen, label_changes_since

            where, given = folder(step.root), parameters(step.settings)
            changes = label_changes_since(step.root, where, labels) if labels else None
            with step.training_run(given) as run:
                if changes is not None:
                    run.text("label_changes.csv", changes_csv(changes))
                trained = body(step, run)
                figures = dict(trained.figures) | (
                    {} if changes is None else {"labels_changed": len(changes)}
                )
                version = trained.version or weights_version(where)
                log_outcome(run, figures, trained.pictures)
                if logbook:
                    name, title = logbook
                    path = step.root.training_log(name)
                    run.artifact(
                        write_section(
                            path,
                            title,
                            step.name,
                            inputs=step.inputs,
                            parameters=given,
                            history=trained.history,
                            result=figures,
                        )
                    )
                kind = kind_of(step.name)
                usual = {name: getattr(step.settings.samples, name) for name in USUAL}
                run.register(
                    where,
                    version,
                    {name: getattr(step.root, name) for name in (kind.beside if kind else ())},
                    dataclasses.asdict(step.settings.images) | usual,
                )
            if labels:
                keep_labels_seen(step.root, where, labels)
            pictures = dict(trained.pictures)
            first = pictures.pop(next(iter(pictures))) if pictures else None
            return AssetResult(trained.content or version, figures, first, run.url, pictures)

        return train

    return decorate


def reads_section(of: Callable[[Settings], Any]) -> dict[str, Any]:
    """Arguments for :func:`trained_asset`: the settings section that ``of`` returns is read by the
    training, and logged as the parameters of its MLflow run."""
    return {"reads": lambda s: (of(s),), "parameters": lambda s: flatten(of(s))}
