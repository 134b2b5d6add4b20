"""Samples retouched under the critic's guidance."""

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.versions import Made, Step, folder_content, versioned_asset


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``retouched_samples``."""

    @versioned_asset(
        settings,
        name="retouched_samples",
        deps=[
            "nvae_samples",
            "nvae_weights",
            "critic_weights",
            "judge_weights",
            "reconstruction_judge_weights",
            "final_dataset",
            *INPUT_VALUES,
            "control_regressor",
        ],
        version=4,
        reads=lambda s: (s.retouch,),
        group="retouch",
        kinds={"keras", "jpeg"},
        description="The samples after refinement of their latents along the guide's gradient, with the five values held.",
    )
    def retouched_samples(step: Step) -> Made:
        from gaip3_pipeline.assets.training_data import final_images
        from gaip3_pipeline.evaluation.generate import noise_of_seeds, reconstructions, write_pictures
        from gaip3_pipeline.evaluation.retouch import judged, retouch_figures
        from gaip3_pipeline.imaging.contact_sheet import pairs
        from gaip3_pipeline.models.nvae.model import load_nvae
        from gaip3_pipeline.tables.contracts import read_samples, write_samples
        from gaip3_pipeline.training.critic import load_critic
        from gaip3_pipeline.training.regressor import load_regressor
        from gaip3_pipeline.training.retouch import retouch

        root = step.root
        table = read_samples(root.samples_table)
        model, guide = load_nvae(root.nvae), load_critic(root.critic)
        regressors = [load_regressor(root.control_regressor)]
        noise = noise_of_seeds(model, table.seed.to_list())
        result = retouch(model, guide, regressors, noise, table, step.settings.retouch, step.progress())
        write_pictures(root.retouched, [p.rpartition("/")[2] for p in table.image_path], result.after)
        written = table.assign(image_path=table.image_path.str.replace("samples/", "retouched/"), outcome=result.reasons)
        write_samples(root.retouched_table, written.assign(guide_before=result.guide_before, guide_after=result.guide_after))
        data = final_images(root, step.settings)
        unseen = (data.table.split == "test").to_numpy()
        rebuilt = reconstructions(model, data.images[unseen], data.values[unseen])
        figures = retouch_figures(result, regressors, data.images)
        figures |= judged("judge", load_critic(root.judge), result, data.images[unseen])
        figures |= judged("reconstruction_judge", load_critic(root.reconstruction_judge), result, rebuilt)
        picture = pairs(list(result.before[:24]), list(result.after[:24]))
        return Made(folder_content(root.retouched), {**figures, **flatten(step.settings.retouch)}, picture)

    return [retouched_samples]
