"""The generator and its samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Shown, Trained, reads_section, trained_asset
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import TrainingRun
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import files_version
from gaip3_pipeline.versions import (
    AFRESH,
    RESUME,
    WARM_START,
    AssetContext,
    AssetResult,
    versioned_asset,
)

if TYPE_CHECKING:
    import numpy as np

    from gaip3_pipeline.training.run import Run

GROUP = "generator"


@dataclass(frozen=True)
class FitTogether:
    """The epochs of ``nvae_weights`` in one of several processes that train it together."""

    root: DataRoot
    settings: Settings
    start: str

    def __call__(self, run: "Run", show: "Callable[[int, np.ndarray], None]") -> None:
        from gaip3_pipeline.models.nvae.model import warm_start
        from gaip3_pipeline.training.generator import fit_nvae
        from gaip3_pipeline.training_data import final_images, generator_guides, known_values

        section = self.settings.nvae
        fit_nvae(
            final_images(self.root, self.settings).examples,
            section,
            run,
            guides=generator_guides(self.root, section),
            show=show,
            resume=self.start == RESUME,
            start_from=warm_start(self.root.nvae, section) if self.start == WARM_START else None,
            known=list(known_values(self.root).values()),
        )


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``nvae_weights`` and ``nvae_samples``."""

    @trained_asset(
        settings,
        name="nvae_weights",
        deps=["final_dataset", *INPUT_VALUES, "control_regressor", *EVALUATORS],
        version=5,
        **reads_section(lambda s: s.nvae),
        folder=lambda root: root.nvae,
        logbook=("nvae", "Generator"),
        labels=ATTRIBUTES,
        group=GROUP,
        kinds={"keras", "mlflow"},
        description=(
            "The generator: an NVAE with latent groups at several scales and learned priors,"
            " conditioned on the five values."
        ),
        resumable=True,
    )
    def nvae_weights(step: AssetContext, run: TrainingRun) -> Trained:
        from gaip3_pipeline.evaluation.charts import training_curves
        from gaip3_pipeline.evaluation.generator import generator_sheet
        from gaip3_pipeline.models.nvae.model import warm_start
        from gaip3_pipeline.training.generator import train_nvae
        from gaip3_pipeline.training_data import final_images, generator_guides, known_values

        data = final_images(step.root, step.settings, step.progress())
        section, training = step.settings.nvae, step.training(step.root.nvae, run)
        known = known_values(step.root)
        resume = step.start == RESUME

        show = Shown(step, run, training)
        if step.together:
            # before this process makes an array: its GPUs are those of the first of the processes
            step.together(FitTogether(step.root, step.settings, step.start), training, show)
            resume = False  # what follows continues from their last checkpoint
        last = warm_start(step.root.nvae, section) if step.start == WARM_START else None
        start = AFRESH if step.start == WARM_START and last is None else step.start
        run.tag("gaip3.start", start)
        result = train_nvae(
            data.examples,
            section,
            training,
            guides=generator_guides(step.root, section),
            show=show,
            resume=resume,
            start_from=last,
            known=list(known.values()),
        )
        run.tag("gaip3.precision", result.precision)
        unknown = ", ".join(a for a, is_known in known.items() if not is_known)
        pictures = {
            "samples_and_sweeps": generator_sheet(
                step.root.nvae, data.images, data.values, data.table.split.to_numpy()
            ),
            "curves": training_curves(result.history, "NVAE"),
            **show.pictures,
        }
        return Trained(
            result.figures | {"start": start, "without_control": unknown or "none"},
            pictures,
            result.history,
        )

    @versioned_asset(
        settings,
        name="nvae_samples",
        deps=["nvae_weights", "detail_weights", *INPUT_VALUES, "final_dataset"],
        version=2,
        reads=lambda s: (s.samples,),
        group=GROUP,
        kinds={"keras", "jpeg"},
        description=(
            "Faces drawn from the generator, and a table with the five values requested for each."
        ),
    )
    def nvae_samples(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.imaging.contact_sheet import contact_sheet
        from gaip3_pipeline.sampling.draw import draw_samples, load_face_generator, write_pictures
        from gaip3_pipeline.tables.contracts import write_samples
        from gaip3_pipeline.tables.files import foreign_entries
        from gaip3_pipeline.training_data import final_images

        data = final_images(step.root, step.settings, step.progress())
        section = step.settings.samples
        images, table = draw_samples(
            load_face_generator(step.root), data.values, section, step.progress()
        )
        folder, names = step.root.samples, [p.rpartition("/")[2] for p in table.image_path]
        write_pictures(folder, names, images)
        write_samples(step.root.samples_table, table)
        own = [*(folder / name for name in names), step.root.samples_table]
        foreign = foreign_entries(folder, [p.name for p in own])[:20]
        figures = {"images": len(images), "foreign": foreign, **flatten(section)}
        return AssetResult(
            files_version(own),
            figures,
            contact_sheet(list(images[:40]), 10, title="samples"),
            tables=[step.root.samples_table],
        )

    return [nvae_weights, nvae_samples]
