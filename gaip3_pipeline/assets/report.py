"""Reports for people: the curation, the five values, all figures on one page, and the summary that
a demo prints at its end."""

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import TRAININGS_PAGE, DataRoot, out_of_fold
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.settings import Settings, flatten
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.versions import (
    DATA_VERSION_TAG,
    RUN_METADATA,
    AssetContext,
    AssetResult,
    latest_events,
    read_figures,
    versioned_asset,
)

if TYPE_CHECKING:
    from gaip3_pipeline.evaluation.overview import Overview, Verdict, Version
    from gaip3_pipeline.evaluation.page import Report

GROUP = "report"
GENERATOR = ("nvae_weights", "detail_weights")
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
        from gaip3_pipeline.evaluation.overview import first_screen
        from gaip3_pipeline.evaluation.page import fold, write_page
        from gaip3_pipeline.evaluation.wording import asset_words

        figures = {n: read_figures(step.root, n) for names in SECTIONS.values() for n in names}
        sections = {
            title: [
                (
                    name,
                    figures[name],
                    {p.stem: p.read_bytes() for p in step.root.pictures(name)},
                )
                for name in names
            ]
            for title, names in SECTIONS.items()
        }
        page = step.root.report
        write_page(
            page,
            "gaip3 report: {root}",
            step.root.path.name,
            first_screen(_overview(step, figures)),
            fold(sections, asset_words),
        )
        return AssetResult(
            file_version(page), {"page": step.root.relative(page), "bytes": page.stat().st_size}
        )

    return report


def _overview(step: AssetContext, figures: Mapping[str, Mapping[str, Any]]) -> "Overview":
    """What the first screen of the report shows."""
    import pandas as pd

    from gaip3_pipeline.evaluation.overview import SHOWN, Overview
    from gaip3_pipeline.tables.contracts import read_samples

    root = step.root
    made = latest_events(step.context.instance, map(dg.AssetKey, figures))
    return Overview(
        figures=figures,
        control=pd.read_csv(root.control_table),
        strips=root.picture("generator_evaluation").read_bytes(),
        samples=[
            (root.path / p).read_bytes()
            for p in read_samples(root.samples_table).image_path[:SHOWN]
        ],
        verdicts=_verdicts(step.context.instance, made),
        versions=[_version(step.tracking, made[dg.AssetKey(name)]) for name in GENERATOR],
        made=_local(time.time()),
        mlflow=f"{step.tracking.pages}/{TRAININGS_PAGE}" if step.tracking.enabled else "",
        dagster=step.tracking.dagster,
    )


def _verdicts(
    instance: dg.DagsterInstance, made: Mapping[dg.AssetKey, dg.EventLogEntry]
) -> list["Verdict"]:
    """What the checks found about the last materialisations ``made``."""
    from gaip3_pipeline.evaluation.check_texts import CHECK_TEXTS
    from gaip3_pipeline.evaluation.overview import Verdict

    keys = [
        dg.AssetCheckKey(dg.AssetKey(asset), check)
        for asset, check in CHECK_TEXTS
        if dg.AssetKey(asset) in made
    ]
    ran = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    verdicts = []
    for key in keys:
        event = ran[key].event if key in ran else None
        found = event.asset_check_evaluation if event else None
        name = key.asset_key.to_user_string()
        if not event or not found or event.timestamp < made[key.asset_key].timestamp:
            verdicts.append(Verdict(name, key.name, None))
            continue
        blocking = found.severity == dg.AssetCheckSeverity.ERROR
        verdicts.append(Verdict(name, key.name, found.passed, found.description or "", blocking))
    return verdicts


def _version(tracking: MlflowTracking, made: dg.EventLogEntry) -> "Version":
    """The trained model of the materialisation ``made``."""
    from gaip3_pipeline.evaluation.overview import Version

    materialized = made.asset_materialization
    assert materialized
    name = materialized.asset_key.to_user_string()
    found = tracking.registered(name, (materialized.tags or {}).get(DATA_VERSION_TAG, ""))
    run = materialized.metadata.get(RUN_METADATA)
    url = str(run.value) if run else ""
    if found is None:
        return Version(name, _local(made.timestamp), url=url)
    return Version(
        name,
        _local(made.timestamp),
        found.number,
        found.aliases,
        found.commit,
        found.dirty,
        url,
    )


def _local(seconds: float) -> str:
    """A time of this machine's zone."""
    return f"{datetime.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"


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
            step,
            report,
            "gaip3 curation: {root}",
            step.root.curation_page,
            step.root.folder_review,
            flatten(section),
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
            "gaip3 five values: {root}",
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
    step: AssetContext,
    report: "Report",
    title: str,
    page: Path,
    table: Path,
    parameters: dict[str, Any],
) -> AssetResult:
    """Write the page, whose title is a template, and the table of ``report``, and log both, its
    figures and its pictures to an MLflow run."""
    from gaip3_pipeline.evaluation.page import fold, write_page
    from gaip3_pipeline.tables.files import write_text_atomically

    write_text_atomically(table, report.table.to_csv(index=False, lineterminator="\n"))
    write_page(page, title, step.root.path.name, report.lead, fold(report.sections, unfolded=1))
    version = digest([file_version(page), file_version(table)])
    return step.evaluated(
        version, report.figures, report.pictures, parameters, [page, table], [table]
    )
