"""The critic that steers retouching and the judge that never does: real against generated, on disjoint pictures."""

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.versions import Made, Step, numbers, versioned_asset, weights_version

GROUP = "critic"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``critic_weights`` (the guide) and ``judge_weights``."""
    return [
        _critic(settings, "critic_weights", "guide", "The guide: tells real from generated faces and steers retouching."),
        _critic(settings, "judge_weights", "judge", "The judge: as the guide, on other pictures and samples; it only measures."),
    ]


def _critic(settings: Settings, name: str, role: str, description: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=name,
        deps=["nvae_weights", "final_dataset", *INPUT_VALUES],
        version=1,
        reads=lambda s: (s.critic, s.samples),
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=description,
        training=True,
    )
    def critic_weights(step: Step) -> Made:
        from gaip3_pipeline.assets.training_data import final_images
        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.evaluation.critic import critic_figures
        from gaip3_pipeline.evaluation.generate import matched_samples
        from gaip3_pipeline.training.critic import share_of_role, train_critic
        from gaip3_pipeline.training.logbook import write_section

        section = step.settings.critic
        folder = step.root.critic if role == "guide" else step.root.judge
        data = final_images(step.root, step.settings)
        rows = share_of_role(data.table.bucket.to_numpy(), role)
        split = data.table.split.to_numpy()[rows]
        generated = matched_samples(step.root.nvae, data.values[rows], step.settings.samples, role)
        with step.training_run(flatten(section)) as run:
            result = train_critic(data.images[rows], generated, split, section, folder, step.fingerprint, run.log, step.progress())
            figures = critic_figures(result)
            version = weights_version(folder)
            curves = training_curves(result.history, role)
            run.result(numbers(figures))
            run.picture("curves.jpg", curves)
            log = step.root.training_log("critic")
            run.artifact(write_section(log, "Critic", step.name, step.inputs, flatten(section), result.history, figures))
            run.register(folder, version)
        return Made(version, figures, curves, run.url)

    return critic_weights
