"""What is fitted to a trained generator: the aggregate posterior of its latents, and the network
that adds detail to its mean pictures."""

import dataclasses

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, trained_asset
from gaip3_pipeline.layout import DETAIL_START, checkpoints
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import arrays_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

GROUP = "generator"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``aggregate_posterior`` and ``detail_weights``."""
    return [_aggregate_posterior(settings), _detail_weights(settings)]


def _aggregate_posterior(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="aggregate_posterior",
        deps=["nvae_weights", "final_dataset", *INPUT_VALUES],
        version=1,
        group=GROUP,
        kinds={"numpy"},
        description=(
            "Gaussians fitted to the encoder's latents of pictures, given the five values. Faces"
            " are drawn from them instead of the prior."
        ),
    )
    def aggregate_posterior(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.models.nvae.model import load_nvae
        from gaip3_pipeline.retouching.aggregate_posterior import fit_aggregate_posterior
        from gaip3_pipeline.training_data import final_images

        data = final_images(step.root, step.settings)
        gaussians, figures = fit_aggregate_posterior(
            load_nvae(step.root.nvae), data.images, data.values, data.table.split.to_numpy()
        )
        gaussians.save(step.root.aggregate_posterior)
        return AssetResult(arrays_version(step.root.aggregate_posterior), figures)

    return aggregate_posterior


def _detail_weights(settings: Settings) -> dg.AssetsDefinition:
    @trained_asset(
        settings,
        name="detail_weights",
        deps=[
            "nvae_weights",
            "aggregate_posterior",
            "final_dataset",
            *INPUT_VALUES,
            "control_regressor",
            *EVALUATORS,
        ],
        version=1,
        # The number of samples and the amount of detail do not affect the training.
        reads=lambda s: (s.detail, dataclasses.replace(s.samples, n=0, detail=0.0)),
        parameters=lambda s: flatten(s.detail),
        folder=lambda root: root.detail,
        logbook=("nvae", "Generator"),
        files=[DETAIL_START],
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "The network that adds fine detail to the generator's mean picture, given a noise map."
            " It is trained against a discriminator."
        ),
    )
    def detail_weights(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
        from gaip3_pipeline.models.detail import save_detail
        from gaip3_pipeline.models.nvae.model import load_nvae
        from gaip3_pipeline.models.storage import detail_version
        from gaip3_pipeline.sampling.draw import FaceGenerator
        from gaip3_pipeline.training import checkpoint
        from gaip3_pipeline.training.detail import (
            detail_sheet,
            draw_pool,
            draw_watched,
            pictures_seen,
            train_detail,
        )
        from gaip3_pipeline.training.regressor import load_network
        from gaip3_pipeline.training_data import final_images, known_values

        root, section, samples = step.root, step.settings.detail, step.settings.samples
        data = final_images(root, step.settings, step.progress())
        learned = (data.table.split == "train").to_numpy()
        held_out = ~learned if (~learned).any() else learned
        posterior = load_aggregate_posterior(root.aggregate_posterior)
        generator = FaceGenerator(load_nvae(root.nvae), posterior)
        pool = draw_pool(
            generator,
            data.images[learned],
            data.values[learned],
            samples,
            pictures_seen(section),
            step.progress("detail_weights, means"),
        )
        watched = draw_watched(generator, data.images[held_out], data.values[held_out], samples)
        result = train_detail(
            pool,
            watched,
            section,
            step.training(root.detail, run),
            guides=[load_network(root.control_regressor)],
            known=list(known_values(root).values()),
            show=lambda epoch, faces: run.image("samples", epoch, faces),
        )
        size = generator.nvae.settings
        save_detail(
            root.detail,
            result.network,
            posterior,
            step.inputs["nvae_weights"],
            (size.height, size.width),
        )
        checkpoint.discard(checkpoints(root.detail))
        shown = FaceGenerator(generator.nvae, posterior, result.network)
        pictures = {
            "detail": detail_sheet(shown, data.images[held_out], data.values[held_out], samples),
            "curves": training_curves(result.history, "detail"),
        }
        return Trained(result.figures, pictures, result.history, detail_version(root.detail))

    return detail_weights
