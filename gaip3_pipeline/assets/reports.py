"""Reports for people on what the generator learns from: which pictures the rule takes, how far the five values can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.layout import ATTRIBUTES
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.versions import Made, Step, numbers, versioned_asset

if TYPE_CHECKING:
    from gaip3_pipeline.evaluation.page import Report

GROUP = "report"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``curation_report`` and ``inputs_report``."""
    return [_curation(settings), _inputs(settings)]


def _curation(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="curation_report",
        deps=["gender_probabilities", "final_dataset", *PROCESSED],
        version=2,
        reads=lambda s: (s.final_dataset,),
        group=GROUP,
        kinds={"html", "csv", "mlflow"},
        description="What the rule takes and leaves, with pictures of the nearest misses, and whether the score behind it can be trusted.",
    )
    def curation(step: Step) -> Made:
        import pandas as pd

        from gaip3_pipeline.evaluation.curation import curation_report
        from gaip3_pipeline.tables.contracts import read_gender_probabilities

        section = step.settings.final_dataset
        manifest = pd.read_parquet(step.root.manifest("final_dataset"))
        probabilities = read_gender_probabilities(step.root.gender_probabilities)
        report = curation_report(probabilities, manifest, section.threshold, lambda path: _pixels(step.root.path / path))
        return _made(step, report, step.root.curation_page, step.root.folder_review, flatten(section))

    return curation


def _inputs(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="inputs_report",
        # near_duplicates: groups that merge move folds, and so what is predicted out of fold, where no model changes.
        deps=[*(f"{n}_{a}" for a in ATTRIBUTES for n in ("labels", "input_model", "input_values")), "final_dataset", "near_duplicates"],
        version=2,
        group=GROUP,
        kinds={"html", "csv", "mlflow"},
        description="How far the five values can be trusted: errors out of fold, the worst with pictures, drift of sets and copies.",
    )
    def inputs(step: Step) -> Made:
        from gaip3_pipeline.assets.training_data import final_values
        from gaip3_pipeline.evaluation.inputs import inputs_report
        from gaip3_pipeline.tables.contracts import read_out_of_fold

        root = step.root
        out_of_fold = {a: read_out_of_fold(root.out_of_fold(root.input_model(a))) for a in ATTRIBUTES}
        report = inputs_report(out_of_fold, final_values(root), lambda sex, stem: _pixels(root.resized_picture(sex, stem)))
        return _made(step, report, root.inputs_page, root.inputs_table, {"labels": sum(map(len, out_of_fold.values()))})

    return inputs


def _pixels(path: Path) -> Any:
    """``(H, W, 3) uint8`` of a picture."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def _made(step: Step, report: "Report", page: Path, table: Path, parameters: dict[str, Any]) -> Made:
    """Write the page and table of ``report`` and keep both, its figures and its pictures with an MLflow run."""
    from gaip3_pipeline.evaluation.page import write_page
    from gaip3_pipeline.tables.files import write_text_atomically

    write_text_atomically(table, report.table.to_csv(index=False, lineterminator="\n"))
    write_page(page, f"{step.name}: {step.root.path.name}", report.sections)
    with step.training_run(parameters) as run:
        run.result(numbers(report.figures))
        for name, picture in report.pictures.items():
            run.picture(f"{name}.jpg", picture)
        run.artifact(page)
        run.artifact(table)
    (_, first), *more = report.pictures.items()
    return Made(digest([file_version(page), file_version(table)]), report.figures, first, run.url, dict(more))
