"""The critic that steers retouching and the judges that never do, on disjoint pictures.

They see pictures as they are shown, with their detail. Real against generated shows the traces of decoder and detail network, too, which no
latent can change. What moving latents can mend shows in a second pair: reconstructions of real pictures, which went through both,
against samples. The guide learns that one.
"""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.versions import AssetContext, AssetResult, numbers, versioned_asset

GROUP = "critic"
LOOKED_AT = 48  # pairs whose patches are hidden


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``critic_weights`` (the guide), ``judge_weights`` and ``reconstruction_judge_weights``."""
    guide = "The guide: tells rebuilt real faces from drawn ones and steers retouching."
    judge = "The judge: tells real from generated faces; it only measures."
    second = "The second judge: as the guide, on other pictures and samples; it only measures."
    return [
        _critic(settings, "critic_weights", lambda root: root.critic, "guide", True, guide),
        _critic(settings, "judge_weights", lambda root: root.judge, "judge", False, judge),
        _critic(settings, "reconstruction_judge_weights", lambda root: root.reconstruction_judge, "judge", True, second),
    ]


def _critic(
    settings: Settings, name: str, folder_of: Callable[[DataRoot], Path], role: str, rebuilt: bool, description: str
) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=name,
        deps=["nvae_weights", "detail_weights", "final_dataset", *INPUT_VALUES],
        version=5,
        reads=lambda s: (s.critic, s.samples),
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=description,
        training=True,
    )
    def critic_weights(step: AssetContext) -> AssetResult:
        import numpy as np

        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.evaluation.critic import critic_chart, critic_figures, occlusion_chart
        from gaip3_pipeline.imaging.augment import shrink
        from gaip3_pipeline.sampling.draw import load_face_generator, matched_samples
        from gaip3_pipeline.training.critic import draws_for, load_critic, pictures_of_role, train_critic
        from gaip3_pipeline.training.logbook import write_section
        from gaip3_pipeline.training_data import final_images

        section, samples = step.settings.critic, step.settings.samples
        folder = folder_of(step.root)
        data = final_images(step.root, step.settings)
        bucket = data.table.bucket.to_numpy()
        rows = pictures_of_role(bucket, role)
        photographs, values, draws = data.images[rows], data.values[rows], range(draws_for(len(rows)))
        generator = load_face_generator(step.root)
        real = np.stack([generator.reconstructions(photographs, values, samples.detail, d) if rebuilt else photographs for d in draws])
        generated = np.stack([matched_samples(generator, values, samples, role, d) for d in draws])
        with step.training_run(flatten(section)) as run:
            result = train_critic(real, generated, bucket[rows], section, folder, step.fingerprint, run.log, step.progress())
            figures = critic_figures(result)
            version = weights_version(folder)
            curves = training_curves(result.history, role)
            run.result(numbers(figures))
            seen, drawn = (shrink(side[0, :LOOKED_AT], *generated.shape[2:4]) for side in (real, generated))
            more = {
                "held_out": critic_chart(result, step.name),
                "looks_at": occlusion_chart(load_critic(folder), seen, drawn, step.name),
            }
            for picture, content in {"curves": curves, **more}.items():
                run.picture(f"{picture}.jpg", content)
            log = step.root.training_log("critic")
            run.artifact(write_section(log, "Critic", step.name, step.inputs, flatten(section), result.history, figures))
            run.register(folder, version)
        return AssetResult(version, figures, more.pop("held_out"), run.url, {"curves": curves, **more})

    return critic_weights
