"""The critic that steers retouching (the guide) and the judges that only measure, trained on
disjoint pictures.

All are trained on pictures with their detail. Generated pictures differ from photographs also by
traces of the decoder and the detail network, which no change of latents can remove. Differences
that latents can remove are those between samples and reconstructions of photographs, which passed
through the same networks. The guide is trained on that pair."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, trained_asset
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.versions import AssetContext

GROUP = "critic"
LOOKED_AT = 48  # pairs for the occlusion chart


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``critic_weights`` (the guide), ``judge_weights`` and ``reconstruction_judge_weights``."""
    guide = "The guide: a critic of reconstructions against samples, which steers retouching."
    judge = "The judge: a critic of photographs against samples, which only measures."
    second = "The second judge: a critic like the guide on other pictures, which only measures."
    return [
        _critic(settings, "critic_weights", lambda root: root.critic, "guide", True, guide),
        _critic(settings, "judge_weights", lambda root: root.judge, "judge", False, judge),
        _critic(
            settings,
            "reconstruction_judge_weights",
            lambda root: root.reconstruction_judge,
            "judge",
            True,
            second,
        ),
    ]


def _critic(
    settings: Settings,
    name: str,
    folder_of: Callable[[DataRoot], Path],
    role: str,
    rebuilt: bool,
    description: str,
) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name=name,
        deps=["nvae_weights", "detail_weights", "final_dataset", *INPUT_VALUES],
        version=5,
        reads=lambda s: (s.critic, s.samples),
        parameters=lambda s: flatten(s.critic),
        folder=folder_of,
        logbook=("critic", "Critic"),
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=description,
    )
    def critic_weights(step: AssetContext, run: TrainingRun) -> Trained:
        import numpy as np

        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.evaluation.critic import critic_chart, critic_figures, occlusion_chart
        from gaip3_pipeline.imaging.augment import shrink
        from gaip3_pipeline.sampling.draw import load_face_generator, matched_samples
        from gaip3_pipeline.training.critic import (
            draws_for,
            load_critic,
            pictures_of_role,
            train_critic,
        )
        from gaip3_pipeline.training_data import final_images

        section, samples = step.settings.critic, step.settings.samples
        folder = folder_of(step.root)
        data = final_images(step.root, step.settings)
        bucket = data.table.bucket.to_numpy()
        rows = pictures_of_role(bucket, role)
        photographs, values, draws = (
            data.images[rows],
            data.values[rows],
            range(draws_for(len(rows))),
        )
        generator = load_face_generator(step.root)
        real = np.stack(
            [
                generator.reconstructions(photographs, values, samples.detail, d)
                if rebuilt
                else photographs
                for d in draws
            ]
        )
        generated = np.stack([matched_samples(generator, values, samples, role, d) for d in draws])
        result = train_critic(real, generated, bucket[rows], section, step.training(folder, run))
        seen, drawn = (
            shrink(side[0, :LOOKED_AT], *generated.shape[2:4]) for side in (real, generated)
        )
        pictures = {
            "held_out": critic_chart(result, step.name),
            "curves": training_curves(result.history, role),
            "looks_at": occlusion_chart(load_critic(folder), seen, drawn, step.name),
        }
        return Trained(critic_figures(result), pictures, result.history)

    return critic_weights
