"""The five input models, the features that they share, the values that they predict for every final
image, and the control regressor."""

from typing import Any

import dagster as dg

from gaip3_pipeline.assets import images
from gaip3_pipeline.assets.labels import LABELLED_SETS
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.features.patches import LEARNED_FROM
from gaip3_pipeline.layout import IMAGE_SETS, KINDS, out_of_fold
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import arrays_version, digest, file_version, weights_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

GROUP = "inputs"
INPUT_VALUES = [f"input_values_{a}" for a in ATTRIBUTES]


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``feature_extractor``, ``final_features``; ``input_model_*`` and ``input_values_*`` of the
    five attributes; ``control_regressor``."""
    return [
        *_features(settings),
        *(make(settings, a) for a in ATTRIBUTES for make in (_model, _values)),
        _control_regressor(settings),
    ]


def _features(settings: Settings) -> list[dg.AssetsDefinition]:
    @trained_asset(
        settings,
        name="feature_extractor",
        deps=[
            *(f"resized_{s.id}" for s in IMAGE_SETS),
            *(f"augmented_{s.id}" for s in LABELLED_SETS),
        ],
        version=2,
        parameters=lambda s: {"learned_from": LEARNED_FROM},
        folder=lambda root: root.feature_extractor,
        group=images.GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "An extractor of features, learned without labels: patches and colours by region of the"
            " picture, and measures of the parts of the face."
        ),
    )
    def feature_extractor(step: AssetContext, run: TrainingRun) -> Trained:
        import numpy as np

        from gaip3_pipeline.evaluation.relevance import parts_sheet, patch_sheet
        from gaip3_pipeline.features.extractor import (
            extract,
            learn_extractor,
            save_extractor,
        )
        from gaip3_pipeline.features.groups import groups
        from gaip3_pipeline.imaging.sheets import evenly
        from gaip3_pipeline.training_data import (
            originals_table,
            resized_batches,
            resized_images,
            save_labelled_features,
        )

        table, folder = originals_table(step.root), step.root.feature_extractor
        labelled = table[table.set.isin([s.id for s in LABELLED_SETS])]
        progress = step.progress(total=2 * len(labelled))
        seen = evenly(len(table), LEARNED_FROM)
        extractor, kept = learn_extractor(resized_images(step.root, table.iloc[seen]))
        batches = (b for kind in KINDS for b in resized_batches(step.root, labelled, kind=kind))
        features = extract(extractor, batches, progress.update)
        save_extractor(extractor, folder)
        save_labelled_features(step.root, labelled.key, features, groups())
        figures = {
            "learned_from": len(seen),
            "labelled_sets": len(labelled),
            "features": features.shape[2],
            "variance_kept": kept,
        }
        pictures = {
            "parts": parts_sheet(resized_images(step.root, table.iloc[evenly(len(table), 24)])),
            "patches": patch_sheet(np.asarray(extractor.trunk.get_layer("patch_words").directions)),
        }
        content = digest([weights_version(folder), arrays_version(step.root.features_labelled)])
        return Trained(figures, pictures, content=content)

    @versioned_asset(
        settings,
        name="final_features",
        deps=["feature_extractor", "final_dataset"],
        version=2,
        spreads=True,
        group=GROUP,
        kinds={"keras", "numpy"},
        description=(
            "The features of every final image. They are stored so that new input values after a"
            " change of labels take seconds."
        ),
    )
    def final_features(step: AssetContext) -> AssetResult:
        import numpy as np
        import pandas as pd

        from gaip3_pipeline.features.extractor import PackedFeatures
        from gaip3_pipeline.features.groups import groups
        from gaip3_pipeline.imaging.packing import mapped
        from gaip3_pipeline.models.scoring import SCORING_BATCH
        from gaip3_pipeline.training_data import regions_of_final

        extractor, path = step.inputs["feature_extractor"], step.root.features_final
        final = pd.read_parquet(step.root.manifest("final_dataset"))
        # the gender model's features of the same pictures, if they are still there
        regions = regions_of_final(step.root, extractor, final)
        extraction = PackedFeatures(
            step.root.feature_extractor,
            extractor,
            step.root.packed_final,
            with_trunk=regions is None,
        )
        rows = range(len(final))
        with mapped(path, np.float16, (2, len(rows), int(groups()[-1]))) as features:
            figures = {"images": len(rows), "features": features.shape[2]}
            at = 0
            for found in step.spread(extraction, rows, SCORING_BATCH):
                some = slice(at, at + found.shape[1])
                features[:, some] = np.concatenate([regions(some), found], 2) if regions else found
                at = some.stop
        return AssetResult(file_version(path), figures | {"bytes": path.stat().st_size})

    return [feature_extractor, final_features]


def _model(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name=f"input_model_{attribute}",
        deps=[
            f"labels_{attribute}",
            "feature_extractor",
            *(f"resized_{s.id}" for s in IMAGE_SETS),
            "near_duplicates",
        ],  # all sets: a twin in D1 changes the split
        version=4,
        **reads_section(lambda s: s.input_model[attribute]),
        folder=lambda root: root.input_model(attribute),
        logbook=("input_decide_model", "Input models"),
        labels=[attribute],
        group=GROUP,
        kinds={"scipy", "mlflow"},
        description=(
            f"A Gaussian process that predicts {attribute} ({MEANINGS[attribute]}) from a picture's"
            " features, trained on the hand labels."
        ),
    )
    def input_model(step: AssetContext, run: TrainingRun) -> Trained:
        import numpy as np

        from gaip3_pipeline.evaluation.charts import scatter
        from gaip3_pipeline.evaluation.relevance import relevance_map, with_intervals
        from gaip3_pipeline.tables.files import write_text_atomically
        from gaip3_pipeline.training.attribute_model import (
            save_input_model,
            train_input_model,
            with_copies,
        )
        from gaip3_pipeline.training_data import labelled_features, labelled_table

        folder = step.root.input_model(attribute)
        table = labelled_table(step.root, attribute)
        (features, groups), values = (
            labelled_features(step.root, table.key),
            table.value.to_numpy("float64"),
        )
        both, bucket = (
            with_copies(attribute, values, table.stem),
            np.tile(table.bucket.to_numpy(), len(KINDS)),
        )
        settings_of = step.settings.input_model[attribute]
        result = train_input_model(
            attribute,
            features,
            groups,
            both,
            bucket,
            settings_of,
            repeats=len(KINDS),
            progress=step.progress(),
        )
        predicted, uncertainty = result.predicted[: len(values)], result.deviation[: len(values)]
        save_input_model(result.process, folder)
        scored = table.assign(predicted=predicted.round(4), uncertainty=uncertainty)
        columns = [
            "key",
            "set",
            "stem",
            "gender",
            "bucket",
            "split",
            "value",
            "predicted",
            "uncertainty",
        ]
        write_text_atomically(
            out_of_fold(folder), scored[columns].to_csv(index=False, lineterminator="\n")
        )
        figures = with_intervals(predicted, values, (table.gender == "female").to_numpy())
        figures |= {"noise": result.process.noise, "scale": result.process.scale}
        pictures = {
            "out_of_fold": scatter(values, predicted, f"{attribute}: out of fold"),
            "relevance": relevance_map(result.process.relevance, attribute),
        }
        return Trained(figures, pictures)

    return input_model


def _values(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"input_values_{attribute}",
        deps=[f"input_model_{attribute}", "final_features", "final_dataset"],
        version=4,
        group=GROUP,
        kinds={"scipy", "csv"},
        description=(
            f"The predicted {attribute} of every final image, with its standard deviation. Labelled"
            " images, too, have the prediction, so that all values are consistent."
        ),
    )
    def input_values(step: AssetContext) -> AssetResult:
        import numpy as np
        import pandas as pd

        from gaip3_pipeline.evaluation.charts import histogram
        from gaip3_pipeline.tables.contracts import write_input_values
        from gaip3_pipeline.training.attribute_model import load_input_model

        table = pd.read_parquet(step.root.manifest("final_dataset"))
        features = np.load(step.root.features_final, mmap_mode="r")
        values, deviations = load_input_model(step.root.input_model(attribute)).predict(
            features, step.progress()
        )
        path = step.root.input_values(attribute)
        write_input_values(path, attribute, table.path, values)
        write_input_values(
            step.root.input_uncertainty(attribute), "uncertainty", table.path, deviations
        )
        figures = {
            "rows": len(values),
            "mean": float(values.mean()),
            "standard_deviation": float(values.std()),
            "mean_uncertainty": float(deviations.mean()),
        }
        picture = histogram(values, f"{attribute}: {MEANINGS[attribute]}")
        return AssetResult(file_version(path), figures, picture, tables=[path])

    return input_values


def _control_regressor(settings: Settings) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name="control_regressor",
        deps=["final_dataset", *INPUT_VALUES],
        version=2,
        **reads_section(lambda s: s.control_regressor),
        folder=lambda root: root.control_regressor,
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "Five networks, one for each value, trained on the values that the input models predict"
            " for the final images. Their gradient teaches the generator to follow its sliders."
        ),
    )
    def control_regressor(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.metrics.regression import r_squared
        from gaip3_pipeline.training.regressor import train_regressor
        from gaip3_pipeline.training_data import final_images

        data = final_images(step.root, step.settings)
        split = data.table.split.to_numpy()
        run_of = step.training(step.root.control_regressor, run)
        result = train_regressor(ATTRIBUTES, data.examples, step.settings.control_regressor, run_of)
        test = split == "test"
        figures: dict[str, Any] = {"n_train": int((split == "train").sum()), "n": int(test.sum())}
        figures |= {
            f"r2_{a}": r_squared(result.predicted[test, i], data.values[test, i])
            for i, a in enumerate(ATTRIBUTES)
        }
        return Trained(figures, {"curves": training_curves(result.history, "control regressor")})

    return control_regressor
