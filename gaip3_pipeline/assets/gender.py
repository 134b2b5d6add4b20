"""The classifier of sex, which decides which images train the generator, and its probabilities for
every processed image."""

import dagster as dg

from gaip3_pipeline.assets.labels import LABELLED_SETS
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.layout import IMAGE_SETS, KINDS, out_of_fold, platt_file
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import digest, file_version, weights_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

GROUP = "gender"
PROCESSED = [f"{kind}_{s.id}" for kind in KINDS for s in IMAGE_SETS]


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``gender_model`` and ``gender_probabilities``."""

    @trained_asset(
        settings,
        name="gender_model",
        deps=["feature_extractor", *(f"resized_{s.id}" for s in IMAGE_SETS), "near_duplicates"],
        version=5,
        **reads_section(lambda s: s.gender_model),
        folder=lambda root: root.gender_model,
        logbook=("train_data_decide_model", "Gender model"),
        spreads=True,
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "Classifiers of sex: a network and a Gaussian process for each fold of D2. No labelled"
            " image is scored by a classifier that was trained on it."
        ),
    )
    def gender_model(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.features.groups import trunk_groups
        from gaip3_pipeline.metrics.classification import gender_figures
        from gaip3_pipeline.tables.files import write_text_atomically
        from gaip3_pipeline.training.gender import FEMALE, LabelledFaces, train_gender
        from gaip3_pipeline.training_data import labelled_features, originals_table, resized_images

        folder = step.root.gender_model
        table = originals_table(step.root)
        table = table[table.set.isin([s.id for s in LABELLED_SETS])].reset_index(drop=True)
        is_female = (table.set == "d2_female").to_numpy()
        images, bucket = resized_images(step.root, table), table.bucket.to_numpy()
        features, _ = labelled_features(step.root, table.key)
        groups = trunk_groups()
        # without the brightness copies, and without the features of the parts of the face
        features = features[:, : len(table), : groups[-1]]
        faces = LabelledFaces(images, is_female, bucket, features, groups)
        result = train_gender(
            faces, step.settings.gender_model, step.training(folder, run), step.trainings
        )
        scored = table.assign(prob_female=result.probabilities[:, FEMALE])
        write_text_atomically(out_of_fold(folder), scored.to_csv(index=False, lineterminator="\n"))
        figures = gender_figures(result.logits, is_female)
        version = digest([weights_version(folder), file_version(platt_file(folder))])
        return Trained(
            figures,
            {"curves": training_curves(result.history, "gender model")},
            result.history,
            version,
        )

    @versioned_asset(
        settings,
        name="gender_probabilities",
        deps=["gender_model", "feature_extractor", "near_duplicates", *PROCESSED],
        version=4,
        spreads=True,
        group=GROUP,
        kinds={"keras", "csv"},
        description=(
            "P(male) and P(female) of every processed image, out of fold where the image is"
            " labelled."
        ),
    )
    def gender_probabilities(step: AssetContext) -> AssetResult:
        import numpy as np

        from gaip3_pipeline.evaluation.charts import histogram
        from gaip3_pipeline.models.scoring import SCORING_BATCH
        from gaip3_pipeline.tables.contracts import write_gender_probabilities
        from gaip3_pipeline.training.gender import (
            FEMALE,
            GenderScoring,
            combine,
            probabilities_of,
        )
        from gaip3_pipeline.training_data import (
            folds_of_keys,
            keeping_regions,
            originals_table,
            processed_table,
        )

        table = processed_table(step.root)
        scoring = GenderScoring(
            step.root.gender_model,
            step.root.feature_extractor,
            digest([step.inputs["gender_model"], step.inputs["feature_extractor"]]),
        )
        files = [step.root.path / p for p in table.path]
        parts: list[np.ndarray] = []
        with keeping_regions(step.root, step.inputs["feature_extractor"], table) as regions:
            at = 0
            for some, features in step.spread(scoring, files, SCORING_BATCH):
                parts.append(some)
                regions[:, at : at + len(some)] = features
                at += len(some)
        logits = np.concatenate(parts)
        fold = folds_of_keys(originals_table(step.root), logits.shape[1])
        probabilities = probabilities_of(combine(logits, table.key.map(fold).to_numpy()))
        path = step.root.gender_probabilities
        write_gender_probabilities(path, table.path, probabilities)
        female = probabilities[:, FEMALE]
        figures = {
            "rows": len(table),
            "female_above_half": int((female > 0.5).sum()),
            "mean": float(female.mean()),
        }
        picture = histogram(female, "P(female)")
        return AssetResult(file_version(path), figures, picture, tables=[path])

    return [gender_model, gender_probabilities]
