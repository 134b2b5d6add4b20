"""The generator measured: five evaluators that no generator learned from, and how well its
sliders work."""

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import file_version
from gaip3_pipeline.versions import (
    AssetContext,
    AssetResult,
    log_outcome,
    read_figures,
    versioned_asset,
)

GROUP = "evaluation"
EVALUATORS = [f"evaluator_{a}" for a in ATTRIBUTES]


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``evaluator_*`` of the five attributes and ``generator_evaluation``."""
    return [*(_evaluator(settings, a) for a in ATTRIBUTES), _generator_evaluation(settings)]


def _evaluator(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name=f"evaluator_{attribute}",
        deps=[f"labels_{attribute}", *(f"resized_{s.id}" for s in IMAGE_SETS), "near_duplicates"],
        version=2,
        **reads_section(lambda s: s.evaluator),
        folder=lambda root: root.evaluator(attribute),
        labels=[attribute],
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            f"A regressor of {attribute} ({MEANINGS[attribute]}) that only measures: half of the"
            " labels, weights of its own."
        ),
    )
    def evaluator(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.evaluation.charts import scatter
        from gaip3_pipeline.metrics.regression import regression_figures
        from gaip3_pipeline.tables.splits import evaluators_half
        from gaip3_pipeline.training.regressor import train_regressor
        from gaip3_pipeline.training.run import Examples
        from gaip3_pipeline.training_data import labelled_table, resized_images

        folder = step.root.evaluator(attribute)
        table = labelled_table(step.root, attribute)
        images, values = resized_images(step.root, table), table.value.to_numpy("float32")
        split = evaluators_half(table.bucket.to_numpy())
        examples = Examples(images, values[:, None], split)
        result = train_regressor(
            [attribute], examples, step.settings.evaluator, step.training(folder, run)
        )
        test, predicted = split == "test", result.predicted[:, 0]
        figures = regression_figures(
            predicted[test], values[test], (table.gender == "female").to_numpy()[test]
        )
        figures |= {"n_train": int((split == "train").sum())}
        return Trained(
            figures,
            {
                "held_out": scatter(
                    values[test], predicted[test], f"evaluator of {attribute}: held out"
                )
            },
        )

    return evaluator


def _generator_evaluation(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="generator_evaluation",
        deps=[
            "nvae_weights",
            "detail_weights",
            "final_dataset",
            *INPUT_VALUES,
            "control_regressor",
            *EVALUATORS,
            "gender_model",
            "judge_weights",
        ],
        version=5,
        reads=lambda s: (s.samples,),
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "Samples beside held-out pictures, by figures and fresh judges; one value swept, seen"
            " by evaluators and judge."
        ),
    )
    def generator_evaluation(step: AssetContext) -> AssetResult:
        import numpy as np

        from gaip3_pipeline.evaluation.control import (
            control_chart,
            control_figures,
            control_table,
            realism,
            sweep_all,
            sweep_strips,
        )
        from gaip3_pipeline.evaluation.samples import (
            evaluate_samples,
            faces_sheet,
            judge_samples,
            nearest_sheet,
        )
        from gaip3_pipeline.sampling.draw import load_face_generator
        from gaip3_pipeline.tables.files import write_text_atomically
        from gaip3_pipeline.training.critic import critic_logits, load_critic
        from gaip3_pipeline.training.regressor import load_regressor
        from gaip3_pipeline.training_data import final_images, frozen_features, known_values

        root, section = step.root, step.settings.samples
        evaluators = {a: load_regressor(root.evaluator(a)) for a in ATTRIBUTES}
        limits = {a: read_figures(root, f"evaluator_{a}")["r2"] for a in ATTRIBUTES}
        data, generator = final_images(root, step.settings), load_face_generator(root)
        sweeps = sweep_all(
            generator,
            evaluators,
            data.values,
            section,
            progress=step.progress("generator_evaluation, sliders"),
        )
        write_text_atomically(
            root.control_table, control_table(sweeps).to_csv(index=False, lineterminator="\n")
        )
        learned = (data.table.split == "train").to_numpy()
        fresh = evaluate_samples(
            generator, data.images, data.values, learned, section, features=frozen_features(root)
        )
        pictures = sweeps.images.reshape(-1, *sweeps.images.shape[3:])
        logits = critic_logits(load_critic(root.judge), pictures).reshape(sweeps.images.shape[:3])
        figures = (
            control_figures(sweeps)
            | realism(sweeps, logits)
            | {f"evaluator_r2_{a}": r2 for a, r2 in limits.items()}
        )
        figures |= {f"known_{a}": known for a, known in known_values(root).items()}
        strips, more = sweep_strips(sweeps), {"control": control_chart(sweeps, limits)}
        if fresh:
            _, groups = np.unique(data.table.original[~learned], return_inverse=True)
            judges = step.progress("generator_evaluation, fresh judges")
            figures |= fresh.figures | judge_samples(fresh, groups, section.seed, judges)
            more |= {"faces": faces_sheet(fresh), "nearest_training_pictures": nearest_sheet(fresh)}
        with step.training_run(flatten(section)) as run:
            log_outcome(run, figures, {"sweeps": strips, **more})
            run.artifact(root.control_table)
        return AssetResult(file_version(root.control_table), figures, strips, run.url, more)

    return generator_evaluation
