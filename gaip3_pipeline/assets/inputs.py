"""The five input models and the values that they write beside every final image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.layout import ATTRIBUTES, IMAGE_SETS, MEANINGS
from gaip3_pipeline.settings import InputModel, Settings, flatten
from gaip3_pipeline.versions import Made, Step, file_version, numbers, versioned_asset, weights_version

GROUP = "inputs"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``input_model_*`` and ``input_values_*`` of the five attributes."""
    return [make(settings, a) for a in ATTRIBUTES for make in (_model, _values)]


def _model(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"input_model_{attribute}",
        deps=[f"labels_{attribute}", *(f"resized_{s.id}" for s in IMAGE_SETS)],  # all sets: a twin in D1 moves the split
        version=2,
        reads=lambda s: (s.input_model[attribute],),
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=f"A regressor of {attribute} ({MEANINGS[attribute]}) from a picture, trained on the hand labels.",
        training=True,
    )
    def input_model(step: Step) -> Made:
        section, folder = step.settings.input_model[attribute], step.root.input_model(attribute)
        log = step.root.training_log("input_decide_model")
        return train_regressor(step, attribute, section, folder, lambda table: table.split.to_numpy(), attribute, log)

    return input_model


def _values(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"input_values_{attribute}",
        deps=[f"input_model_{attribute}", "final_dataset"],
        version=2,
        group=GROUP,
        kinds={"keras", "csv"},
        description=f"The value of {attribute} of every final image, all from the model for consistency.",
    )
    def input_values(step: Step) -> Made:
        import numpy as np
        import pandas as pd

        from gaip3_pipeline.evaluation.charts import histogram
        from gaip3_pipeline.tables.contracts import write_input_values
        from gaip3_pipeline.training.inputs import load_input_model, predict_values

        table = pd.read_parquet(step.root.manifest("final_dataset"))
        packed = np.load(step.root.packed_final, mmap_mode="r")
        batches = (packed[i : i + 256] for i in range(0, len(packed), 256))
        values = predict_values(load_input_model(step.root.input_model(attribute)), batches)
        path = step.root.input_values(attribute)
        write_input_values(path, attribute, table.path, values)
        figures = {"rows": len(values), "mean": float(values.mean()), "standard_deviation": float(values.std())}
        return Made(file_version(path), figures, histogram(values, f"{attribute}: {MEANINGS[attribute]}"))

    return input_values


def train_regressor(
    step: Step,
    attribute: str,
    section: InputModel,
    folder: Path,
    split_of: Callable[[Any], Any],
    title: str,
    log: Path | None = None,
) -> Made:
    """Train a model of ``attribute`` into ``folder`` on the labelled pictures, measure it on its split ``test``, record the run.

    ``split_of`` gives the split of each row of the table of labels; the training gets a section of ``log``, where there is one.
    """
    from gaip3_pipeline.assets.training_data import keep_labels_seen, label_changes_since, labelled_table, resized_images
    from gaip3_pipeline.evaluation.charts import scatter
    from gaip3_pipeline.evaluation.regression import regression_figures
    from gaip3_pipeline.tables.label_changes import changes_csv
    from gaip3_pipeline.training.inputs import train_input_model
    from gaip3_pipeline.training.logbook import write_section

    table = labelled_table(step.root, attribute)
    images, values, split = resized_images(step.root, table), table.value.to_numpy("float32"), split_of(table)
    changes = label_changes_since(step.root, folder, [attribute])
    with step.training_run(flatten(section)) as run:
        run.text("label_changes.csv", changes_csv(changes))
        result = train_input_model(attribute, images, values, split, section, folder, step.fingerprint, run.log, step.progress())
        test = split == "test"
        figures = regression_figures(result.predicted[test], values[test], (table.gender == "female").to_numpy()[test])
        figures |= {"n_train": int((split == "train").sum()), "labels_changed": len(changes)}
        version = weights_version(folder)
        picture = scatter(values[test], result.predicted[test], f"{title}: held out")
        run.result(numbers(figures))
        run.picture("held_out.jpg", picture)
        if log:
            run.artifact(write_section(log, "Input models", step.name, step.inputs, flatten(section), result.history, figures))
        run.register(folder, version)
    keep_labels_seen(step.root, folder, [attribute])
    return Made(version, figures, picture, run.url)
