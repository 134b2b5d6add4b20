"""One HTML page with every figure and picture of the pipeline, and the lines that a finished demo prints."""

from collections.abc import Mapping

import dagster as dg

from gaip3_pipeline.assets.evaluation import EVALUATORS
from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.layout import ATTRIBUTES, DataRoot
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import file_version
from gaip3_pipeline.versions import Made, Step, read_figures, versioned_asset

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
    "Generator": ["nvae_weights", "aggregate_posterior", "detail_weights", "nvae_samples", "generator_evaluation"],
    "Evaluators": EVALUATORS,
    "Critic": ["critic_weights", "judge_weights", "reconstruction_judge_weights"],
    "Retouching": ["retouched_samples"],
}


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``report``."""

    @versioned_asset(
        settings,
        name="report",
        deps=[name for names in SECTIONS.values() for name in names],
        version=5,
        group="report",
        kinds={"html"},
        description="One HTML page with every figure and picture.",
    )
    def report(step: Step) -> Made:
        from gaip3_pipeline.evaluation.page import write_page

        sections = {
            title: [(name, read_figures(step.root, name), {p.stem: p.read_bytes() for p in step.root.pictures(name)}) for name in names]
            for title, names in SECTIONS.items()
        }
        write_page(step.root.report, f"gaip3: {step.root.path.name}", sections)
        page = step.root.report
        return Made(file_version(page), {"page": step.root.relative(page), "bytes": page.stat().st_size})

    return [report]


def summary(root: DataRoot) -> str:
    """What a finished run made, its figures, and where to look."""
    gender, final, retouch = (read_figures(root, n) for n in ("gender_model", "final_dataset", "retouched_samples"))
    nvae, judge = read_figures(root, "nvae_weights"), read_figures(root, "judge_weights")
    control = read_figures(root, "generator_evaluation")
    sliders = ", ".join(f"{a} {control[f'r2_{a}']:.2f}" for a in ATTRIBUTES)
    images = sum(read_figures(root, n).get("images", 0) for n in SECTIONS["Images"])
    inputs = ", ".join(f"{a} {read_figures(root, f'input_model_{a}').get('r2', float('nan')):.2f}" for a in ATTRIBUTES)
    lines = [
        "",
        f"Processed images   {images:,}",
        f"Final dataset      {final['files']:,} images of {final['different_originals']:,} originals",
        f"Gender model       accuracy {gender['accuracy']:.3f} out of fold (n = {gender['n']:,})",
        f"Input models, R²   {inputs} (out of fold)",
        f"Generator          {nvae['bits_per_dim']:.2f} bits/dim on {nvae['n_held_out']} held-out images",
        f"Sliders, R²        {sliders} (asked against measured), leakage {control['leakage']:.2f}",
        *(_realism(control) if "judge_network_full" in control else []),
        f"Judge              AUC {judge['auc']:.3f} real against generated",
        f"Retouching         judge's mean logit {retouch['judge_logit_before']:+.2f} → {retouch['judge_logit_after']:+.2f}",
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
    power = ", ".join(f"{figures[f'power_{k}']:.2f} (mean {figures[f'power_{k}_plain']:.2f})" for k in (1, 2, 3))
    by_size = {size: [figures[f"judge_{make}_{size}"] for make in ("network", "regression")] for size in ("full", "half", "quarter")}
    auc = ", ".join(f"{size} {of[0]:.3f} and {of[1]:.3f}" for size, of in by_size.items())
    return [f"Detail             power of octaves over photographs' {power}", f"Fresh judges       AUC {auc} size (.5: not told apart)"]
