"""Reports for people: the curation, the five values, all figures on one page, and the summary that
a demo prints at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot, out_of_fold
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.versions import (
    AssetContext,
    AssetResult,
    read_figures,
    versioned_asset,
)

if TYPE_CHECKING:
    from gaip3_pipeline.evaluation.page import Report

GROUP = "report"
SECTIONS = {
    "Images": PROCESSED,
    "Curation": ["near_duplicates", "image_quality"],
    "Gender": ["gender_model", "gender_probabilities", "final_dataset", "curation_report"],
    "Labels": [*(f"labels_{a}" for a in ATTRIBUTES), "label_review"],
    "Input models": [
        "feature_extractor",
        "final_features",
        *(name for a in ATTRIBUTES for name in (f"input_model_{a}", f"input_values_{a}")),
        "inputs_report",
        "control_regressor",
    ],
    "Generator": [
        "nvae_weights",
        "aggregate_posterior",
        "detail_weights",
        "nvae_samples",
        "generator_evaluation",
    ],
    "Evaluators": EVALUATORS,
    "Critic": ["critic_weights", "judge_weights", "reconstruction_judge_weights"],
    "Retouching": ["retouched_samples"],
}


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``curation_report``, ``inputs_report`` and ``report``."""
    return [_curation(settings), _inputs(settings), _report(settings)]


def _report(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="report",
        deps=[name for names in SECTIONS.values() for name in names],
        version=5,
        group=GROUP,
        kinds={"html"},
        description="An HTML page with the figures and pictures of all assets.",
    )
    def report(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.evaluation.page import write_page

        sections = {
            title: [
                (
                    name,
                    read_figures(step.root, name),
                    {p.stem: p.read_bytes() for p in step.root.pictures(name)},
                )
                for name in names
            ]
            for title, names in SECTIONS.items()
        }
        write_page(step.root.report, f"gaip3: {step.root.path.name}", sections)
        page = step.root.report
        return AssetResult(
            file_version(page), {"page": step.root.relative(page), "bytes": page.stat().st_size}
        )

    return report


def summary(root: DataRoot) -> str:
    """The lines that a demo prints at its end: main figures, and the paths of pages and
    pictures."""
    gender, final, retouch = (
        read_figures(root, n) for n in ("gender_model", "final_dataset", "retouched_samples")
    )
    nvae, judge = read_figures(root, "nvae_weights"), read_figures(root, "judge_weights")
    control = read_figures(root, "generator_evaluation")
    sliders = ", ".join(f"{a} {control[f'r2_{a}']:.2f}" for a in ATTRIBUTES)
    images = sum(read_figures(root, n).get("images", 0) for n in SECTIONS["Images"])
    inputs = ", ".join(
        f"{a} {read_figures(root, f'input_model_{a}').get('r2', float('nan')):.2f}"
        for a in ATTRIBUTES
    )
    lines = [
        "",
        f"Processed images   {images:,}",
        (
            f"Final dataset      {final['files']:,} images of {final['different_originals']:,}"
            " originals"
        ),
        f"Gender model       accuracy {gender['accuracy']:.3f} out of fold (n = {gender['n']:,})",
        f"Input models, R²   {inputs} (out of fold)",
        (
            f"Generator          {nvae['bits_per_dim']:.2f} bits/dim on {nvae['n_held_out']}"
            " held-out images"
        ),
        f"Sliders, R²        {sliders} (asked against measured), leakage {control['leakage']:.2f}",
        *(_realism(control) if "judge_network_full" in control else []),
        f"Judge              AUC {judge['auc']:.3f} real against generated",
        (
            f"Retouching         judge's mean logit {retouch['judge_logit_before']:+.2f} →"
            f" {retouch['judge_logit_after']:+.2f}"
        ),
        "",
        f"Report             {root.report}",
        f"Samples            {root.picture('nvae_samples')}",
        f"Sliders            {root.picture('generator_evaluation')}",
        f"Detail             {root.picture('generator_evaluation', 'faces')}",
        f"Before and after   {root.picture('retouched_samples')}",
        f"Dagster, MLflow    make ui ROOT={root.path.name}   (or: gaip3 ui --root {root.path})",
    ]
    return "\n".join(lines)


def _realism(figures: Mapping[str, float]) -> list[str]:
    power = ", ".join(
        f"{figures[f'power_{k}']:.2f} (mean {figures[f'power_{k}_plain']:.2f})" for k in (1, 2, 3)
    )
    by_size = {
        size: [figures[f"judge_{make}_{size}"] for make in ("network", "regression")]
        for size in ("full", "half", "quarter")
    }
    auc = ", ".join(f"{size} {of[0]:.3f} and {of[1]:.3f}" for size, of in by_size.items())
    return [
        f"Detail             power of octaves relative to photographs {power}",
        f"Fresh judges       AUC of network and regression, by size: {auc} (.5: no difference)",
    ]


def _curation(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="curation_report",
        deps=["gender_probabilities", "final_dataset", *PROCESSED],
        version=2,
        reads=lambda s: (s.final_dataset,),
        group=GROUP,
        kinds={"html", "csv", "mlflow"},
        description=(
            "A report of the images that the rule keeps and leaves out, with pictures near the"
            " threshold, and of the reliability of the gender score."
        ),
    )
    def curation(step: AssetContext) -> AssetResult:
        import pandas as pd

        from gaip3_pipeline.evaluation.gender_report import curation_report
        from gaip3_pipeline.tables.contracts import read_gender_probabilities

        section = step.settings.final_dataset
        manifest = pd.read_parquet(step.root.manifest("final_dataset"))
        probabilities = read_gender_probabilities(step.root.gender_probabilities)
        report = curation_report(
            probabilities, manifest, section.threshold, lambda path: _pixels(step.root.path / path)
        )
        return _made(
            step, report, step.root.curation_page, step.root.folder_review, flatten(section)
        )

    return curation


def _inputs(settings: Settings) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name="inputs_report",
        # near_duplicates: when groups merge, pictures change folds and thereby their out-of-fold
        # predictions, although no model changes.
        deps=[
            *(f"{n}_{a}" for a in ATTRIBUTES for n in ("labels", "input_model", "input_values")),
            "final_dataset",
            "near_duplicates",
        ],
        version=2,
        group=GROUP,
        kinds={"html", "csv", "mlflow"},
        description=(
            "A report of the reliability of the five values: out-of-fold errors, the largest with"
            " pictures, and differences between sets and between brightness copies."
        ),
    )
    def inputs(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.evaluation.attribute_report import inputs_report
        from gaip3_pipeline.tables.contracts import read_out_of_fold
        from gaip3_pipeline.training_data import final_values

        root = step.root
        predicted = {a: read_out_of_fold(out_of_fold(root.input_model(a))) for a in ATTRIBUTES}
        report = inputs_report(
            predicted,
            final_values(root),
            lambda sex, stem: _pixels(root.resized_picture(sex, stem)),
        )
        return _made(
            step,
            report,
            root.inputs_page,
            root.inputs_table,
            {"labels": sum(map(len, predicted.values()))},
        )

    return inputs


def _pixels(path: Path) -> Any:
    """``(H, W, 3) uint8`` of a picture."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def _made(
    step: AssetContext, report: "Report", page: Path, table: Path, parameters: dict[str, Any]
) -> AssetResult:
    """Write the page and the table of ``report``, and log both, its figures and its pictures to an
    MLflow run."""
    from gaip3_pipeline.evaluation.page import write_page
    from gaip3_pipeline.tables.files import write_text_atomically

    write_text_atomically(table, report.table.to_csv(index=False, lineterminator="\n"))
    write_page(page, f"{step.name}: {step.root.path.name}", report.sections)
    version = digest([file_version(page), file_version(table)])
    return step.evaluated(version, report.figures, report.pictures, parameters, [page, table])
