"""The evaluation of the generator: five evaluators that do not train it, and figures of its samples
and sliders."""

import dagster as dg

from gaip3_pipeline.assets import inputs
from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import file_version
from gaip3_pipeline.versions import AssetContext, AssetResult, read_figures, versioned_asset

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
        # the generator's training reads them
        group=inputs.GROUP,
        kinds={"keras", "mlflow"},
        description=(
            f"A regressor of {attribute} ({MEANINGS[attribute]}) that only measures the generator."
            " It is trained on half of the hand labels, with weights of its own."
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
            "Samples compared with held-out pictures, by distances and fresh judges, and sweeps of"
            " each slider, measured by the evaluators and a judge."
        ),
    )
    def generator_evaluation(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.evaluation.control import control_table, evaluate_control, sweep_all
        from gaip3_pipeline.evaluation.samples import compare_samples
        from gaip3_pipeline.sampling.draw import load_face_generator
        from gaip3_pipeline.tables.files import write_text_atomically
        from gaip3_pipeline.training.critic import load_critic
        from gaip3_pipeline.training.regressor import load_regressor
        from gaip3_pipeline.training_data import final_images, frozen_features, known_values

        root, section = step.root, step.settings.samples
        data, generator = final_images(root, step.settings), load_face_generator(root)
        evaluators = {a: load_regressor(root.evaluator(a)) for a in ATTRIBUTES}
        limits = {a: read_figures(root, f"evaluator_{a}")["r2"] for a in ATTRIBUTES}
        watched = step.progress("generator_evaluation, sliders")
        sweeps = sweep_all(generator, evaluators, data.values, section, progress=watched)
        table = control_table(sweeps).to_csv(index=False, lineterminator="\n")
        write_text_atomically(root.control_table, table)
        figures, pictures = evaluate_control(sweeps, load_critic(root.judge), limits)
        figures |= {f"known_{a}": known for a, known in known_values(root).items()}
        of_samples, sheets = compare_samples(
            generator,
            data.examples,
            data.table.original.to_numpy(),
            section,
            frozen_features(root),
            step.progress("generator_evaluation, fresh judges"),
        )
        return step.evaluated(
            file_version(root.control_table),
            figures | of_samples,
            pictures | sheets,
            flatten(section),
            [root.control_table],
            [root.control_table],
        )

    return generator_evaluation
