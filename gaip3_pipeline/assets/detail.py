"""What is fitted to a trained generator: the aggregate posterior of its latents, and the network
that adds detail to its mean pictures."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Shown, Trained, trained_asset
from gaip3_pipeline.layout import DETAIL_START, DataRoot, checkpoints
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import arrays_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

if TYPE_CHECKING:
    import numpy as np

    from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
    from gaip3_pipeline.sampling.draw import FaceGenerator
    from gaip3_pipeline.training.detail import DetailResult
    from gaip3_pipeline.training.run import Run
    from gaip3_pipeline.training_data import FinalImages

GROUP = "generator"


@dataclass(frozen=True)
class Faces:
    """The final images, which of them the generator learned from ``(N,) bool``, and the generator
    without detail, with its aggregate posterior."""

    data: "FinalImages"
    learned: "np.ndarray"
    generator: "FaceGenerator"
    posterior: "AggregatePosterior"

    @classmethod
    def of(cls, root: DataRoot, settings: Settings) -> "Faces":
        """Those of ``root``."""
        from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
        from gaip3_pipeline.models.nvae.model import load_nvae
        from gaip3_pipeline.sampling.draw import FaceGenerator
        from gaip3_pipeline.training_data import final_images

        data = final_images(root, settings)
        posterior = load_aggregate_posterior(root.aggregate_posterior)
        learned = (data.table.split == "train").to_numpy()
        return cls(data, learned, FaceGenerator(load_nvae(root.nvae), posterior), posterior)

    @property
    def held_out(self) -> tuple["np.ndarray", "np.ndarray"]:
        """The pictures that the generator did not learn from, and their values; all if there are
        no others."""
        rows = self.learned if self.learned.all() else ~self.learned
        return self.data.images[rows], self.data.values[rows]


@dataclass(frozen=True)
class TrainDetailTogether:
    """The epochs of ``detail_weights`` in one of several processes that train it together. Each
    draws the same pictures for itself."""

    root: DataRoot
    settings: Settings

    def __call__(self, run: "Run", show: "Callable[[int, np.ndarray], None]") -> None:
        _train(Faces.of(self.root, self.settings), self.root, self.settings, run, show)


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
        from gaip3_pipeline.models.detail import save_detail
        from gaip3_pipeline.models.storage import detail_version
        from gaip3_pipeline.sampling.draw import FaceGenerator
        from gaip3_pipeline.training import checkpoint
        from gaip3_pipeline.training.detail import detail_sheet, trained_together
        from gaip3_pipeline.training.regressor import load_network

        root, settings, training = step.root, step.settings, step.training(step.root.detail, run)

        show = Shown(step, run, training)
        if step.together:
            # before this process makes an array, as for nvae_weights
            step.together(TrainDetailTogether(root, settings), training, show)
        faces = Faces.of(root, settings)
        nvae, posterior = faces.generator.nvae, faces.posterior
        size = (nvae.settings.height, nvae.settings.width)
        if step.together:
            guides = [load_network(root.control_regressor)]
            n_train = int(faces.learned.sum())
            result = trained_together(settings.detail, size, n_train, training, guides=guides)
        else:
            result = _train(faces, root, settings, training, show)
        save_detail(root.detail, result.network, posterior, step.inputs["nvae_weights"], size)
        shown = FaceGenerator(nvae, posterior, result.network)
        pictures = {
            "detail": detail_sheet(shown, *faces.held_out, settings.samples),
            "curves": training_curves(result.history, "detail"),
            **show.pictures,
        }
        checkpoint.discard(checkpoints(root.detail))
        return Trained(result.figures, pictures, result.history, detail_version(root.detail))

    return detail_weights


def _train(
    faces: Faces,
    root: DataRoot,
    settings: Settings,
    run: "Run",
    show: "Callable[[int, np.ndarray], None]",
) -> "DetailResult":
    from gaip3_pipeline.training.detail import (
        draw_pool,
        draw_watched,
        pictures_seen,
        train_detail,
    )
    from gaip3_pipeline.training.regressor import load_network
    from gaip3_pipeline.training_data import known_values

    generator, data, learned = faces.generator, faces.data, faces.learned
    return train_detail(
        draw_pool(
            generator,
            data.images[learned],
            data.values[learned],
            settings.samples,
            pictures_seen(settings.detail),
            Progress("  detail_weights, means", 1),
        ),
        draw_watched(generator, *faces.held_out, settings.samples),
        settings.detail,
        run,
        guides=[load_network(root.control_regressor)],
        known=list(known_values(root).values()),
        show=show,
    )
