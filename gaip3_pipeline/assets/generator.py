"""The generator and its samples."""

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.inputs import INPUT_VALUES
from gaip3_pipeline.assets.trained import Trained, reads_section, trained_asset
from gaip3_pipeline.attributes import ATTRIBUTES
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

GROUP = "generator"


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
        from gaip3_pipeline.training.regressor import load_network
        from gaip3_pipeline.training_data import final_images, known_values

        data = final_images(step.root, step.settings, step.progress())
        section, known = step.settings.nvae, known_values(step.root)
        last = warm_start(step.root.nvae, section) if step.start == WARM_START else None
        start = AFRESH if step.start == WARM_START and last is None else step.start
        run.tag("gaip3.start", start)
        result = train_nvae(
            data.examples,
            section,
            step.training(step.root.nvae, run),
            guides=[load_network(step.root.control_regressor)] if section.control else [],
            show=lambda epoch, faces: run.image("samples", epoch, faces),
            resume=step.start == RESUME,
            start_from=last,
            known=list(known.values()),
        )
        unknown = ", ".join(a for a, is_known in known.items() if not is_known)
        pictures = {
            "samples_and_sweeps": generator_sheet(
                step.root.nvae, data.images, data.values, data.table.split.to_numpy()
            ),
            "curves": training_curves(result.history, "NVAE"),
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
        )

    return [nvae_weights, nvae_samples]
