"""Samples retouched by the gradient of a critic, or by a correction of the prior."""

from dataclasses import replace

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, Settings, flatten
from gaip3_pipeline.tables.hashing import files_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

GROUP = "retouch"
MEASURED = 4096  # most samples that are measured, since all their pictures are in memory


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``retouched_samples``, and ``prior_critic_weights`` if the settings' method needs it."""
    contrastive = settings.retouch.method == NOISE_CONTRASTIVE
    correction = "prior_critic_weights" if contrastive else "aggregate_posterior"
    return [*([_prior_critic(settings)] if contrastive else []), _retouched(settings, correction)]


def _prior_critic(settings: Settings) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name="prior_critic_weights",
        deps=["nvae_weights", "final_dataset", *INPUT_VALUES],
        version=1,
        **reads_section(lambda s: s.critic),
        folder=lambda root: root.prior_critic,
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "A classifier for each latent group that separates the encoder's latents of pictures"
            " from samples of the prior."
        ),
    )
    def prior_critic(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.models.nvae.model import load_nvae
        from gaip3_pipeline.retouching.prior_critic import prior_critic_figures, train_prior_critic
        from gaip3_pipeline.training_data import final_images

        data, model = final_images(step.root, step.settings), load_nvae(step.root.nvae)
        result = train_prior_critic(
            model, data.examples, step.settings.critic, step.training(step.root.prior_critic, run)
        )
        return Trained(prior_critic_figures(result), {})

    return prior_critic


def _retouched(settings: Settings, correction: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="retouched_samples",
        deps=[
            "nvae_samples",
            "nvae_weights",
            "detail_weights",
            correction,
            "critic_weights",
            "judge_weights",
            "reconstruction_judge_weights",
            "final_dataset",
            *INPUT_VALUES,
            "control_regressor",
        ],
        version=8,
        reads=lambda s: (s.retouch, s.samples),
        group=GROUP,
        kinds={"keras", "jpeg", "mlflow"},
        description=(
            "The samples after retouching: latents are moved along the guide's gradient, or by a"
            " correction of the prior, while the five values stay."
        ),
    )
    def retouched_samples(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.retouching.figures import (
            Judge,
            evaluate_retouching,
            retouch_samples,
        )
        from gaip3_pipeline.retouching.retoucher import load_tools
        from gaip3_pipeline.sampling.draw import read_jpegs, remove_others
        from gaip3_pipeline.tables.contracts import read_samples, write_samples
        from gaip3_pipeline.tables.files import foreign_entries
        from gaip3_pipeline.training.critic import load_critic, pictures_of_role
        from gaip3_pipeline.training_data import final_images

        root, section = step.root, step.settings.retouch
        root.retouched_table.unlink(missing_ok=True)  # incomplete from here on
        tools = load_tools(root, section)
        table = retouch_samples(
            tools,
            read_samples(root.samples_table),
            section,
            root.retouched,
            root.retouched_part,
            step.fingerprint,
            progress=step.progress(),
        )
        for outcome, n in table.outcome[table.outcome != ""].value_counts().items():
            step.context.log.warning(f"{n} of {len(table)} samples are unchanged: {outcome}")
        names = [p.rpartition("/")[2] for p in table.image_path]
        remove_others(root.retouched, names)
        write_samples(root.retouched_table, table)
        root.retouched_part.unlink()

        data, detail = final_images(root, step.settings), step.settings.samples.detail
        # The guide's pictures were used to train neither the generator nor the judges.
        unseen = pictures_of_role(data.table.bucket.to_numpy(), "guide")
        real = data.images[unseen]
        rebuilt = tools.generator.reconstructions(real, data.values[unseen], detail)
        judges = [
            Judge("judge", load_critic(root.judge), real),
            Judge("reconstruction_judge", load_critic(root.reconstruction_judge), rebuilt),
        ]
        before, after = (
            read_jpegs(folder, names[:MEASURED]) for folder in (root.samples, root.retouched)
        )
        figures, sheets = evaluate_retouching(
            table[:MEASURED], before, after, tools, judges, data.images
        )
        own = [*(root.retouched / name for name in names), root.retouched_table]
        made = step.evaluated(
            files_version(own), figures, sheets, flatten(section), tables=[root.retouched_table]
        )
        foreign = foreign_entries(root.retouched, [p.name for p in own])[:20]
        return replace(made, figures={**figures, "foreign": foreign, **flatten(section)})

    return retouched_samples
