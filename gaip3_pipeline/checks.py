"""Asset checks: what must hold before anything that follows may be made (blocking), and what
people should look at."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.attributes import ATTRIBUTES, BRIGHTENED
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, Settings
from gaip3_pipeline.versions import RootResource, current_version, read_figures

MIN_FINAL = 50  # below this neither the generator nor its held-out figures mean anything
MIN_LABELS = 30
MAX_LOOK_WRONG = 0.05  # of the labels of an attribute
MAX_SUSPECTED = 0.02  # of the pictures of D2
MAX_MOVED = 0.02  # of a value that brightness should leave alone, on average
# A normal law has 68 % and 95 %; where most labels are of one level the errors are peaked, and more
# lie within one deviation.
WITHIN_ONE, WITHIN_TWO = (0.55, 0.85), 0.9
NOTHING_HELD_OUT = "there are no held-out pictures to compare with"
BETTER_THAN_MEAN = "Held-out error below that of always saying the mean."
Verdict = tuple[bool, str]
Rule = Callable[[DataRoot, dict[str, Any]], Verdict]


def build(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Every check of the pipeline."""
    most = settings.images.max_unusable_share
    contrastive = [
        _check(
            "prior_critic_weights",
            "tells_apart",
            _critic,
            "Held-out AUC above 0.5 and below 1.",
            promotes=True,
        )
    ]
    return [
        *(contrastive if settings.retouch.method == NOISE_CONTRASTIVE else []),
        *(
            _check(
                n,
                "usable",
                _usable(most),
                "There are images, and few that could not be used.",
                blocking=True,
            )
            for n in PROCESSED
        ),
        _check(
            "near_duplicates",
            "no_leakage",
            _no_leakage,
            "No photograph lies on both sides of a split, by comparing pictures.",
            blocking=True,
        ),
        _check(
            "image_quality",
            "few_defects",
            _few_defects,
            "At most one original in twenty is flagged.",
        ),
        *(
            _check(
                f"labels_{a}",
                "enough_labels",
                _enough_labels,
                "Enough labels, of more than one value.",
                blocking=True,
            )
            for a in ATTRIBUTES
        ),
        _check(
            "label_review",
            "few_look_wrong",
            _few_look_wrong,
            "At most one label in twenty looks wrong, of every attribute.",
        ),
        _check(
            "gender_model",
            "tells_apart",
            _gender_learned,
            "Out-of-fold AUC above 0.8.",
            blocking=True,
            promotes=True,
        ),
        _check(
            "gender_probabilities",
            "probabilities",
            _probabilities,
            "A row for each image, numbers in 0..1 that differ.",
            blocking=True,
        ),
        _check(
            "final_dataset",
            "enough_images",
            _enough_final,
            "The rule keeps enough images to train on.",
            blocking=True,
        ),
        _check(
            "final_dataset",
            "no_leakage",
            _no_final_leakage,
            "No final image or its copy lies on both sides of a split.",
            blocking=True,
        ),
        _check(
            "feature_extractor",
            "keeps_variance",
            _extractor,
            "The axes keep at least a third of the features' variance.",
        ),
        _check(
            "final_features",
            "covers_final",
            _final_features,
            "Features of each final image.",
            blocking=True,
        ),
        _check(
            "curation_report",
            "few_suspected",
            _few_suspected,
            "At most one picture in fifty looks as if in the wrong folder.",
        ),
        *(
            _check(f"input_model_{a}", "learned", _input_learned, BETTER_THAN_MEAN, promotes=True)
            for a in ATTRIBUTES
        ),
        *(
            _check(
                f"input_values_{a}",
                "covers_final",
                _values,
                "A value in 0..1 for each final image.",
                blocking=True,
            )
            for a in ATTRIBUTES
        ),
        _check(
            "inputs_report",
            "steady_under_brightness",
            _steady,
            "Brightness moves the background's value and no other.",
        ),
        _check(
            "inputs_report",
            "honest_uncertainty",
            _honest,
            "Labels lie as far from the values as the uncertainty says.",
        ),
        _check(
            "control_regressor",
            "learned",
            _control,
            "Agrees with the input models better than their mean.",
            promotes=True,
        ),
        _check(
            "nvae_weights",
            "finite_likelihood",
            _generator,
            "Held-out bits/dim are finite and below 8.",
            blocking=True,
            promotes=True,
        ),
        _check(
            "nvae_samples",
            "not_flat",
            _samples,
            "As many samples as asked for, none flat.",
            blocking=True,
        ),
        *(
            _check(f"evaluator_{a}", "learned", _input_learned, BETTER_THAN_MEAN, promotes=True)
            for a in ATTRIBUTES
        ),
        _check(
            "detail_weights",
            "sharp",
            _detailed,
            "The power of every octave is .7 to 1.4 of the photographs'.",
            promotes=True,
        ),
        _check(
            "generator_evaluation",
            "sliders_move",
            _sliders,
            "Every value is known, and rises when asked to (slope above 0.1).",
        ),
        _check(
            "generator_evaluation",
            "sliders_stay_real",
            _stay_real,
            "No slider position is judged less real than its middle.",
        ),
        _check(
            "generator_evaluation",
            "sharp_as_photographs",
            _sharp,
            "Power, kurtosis and constancy of detail as photographs have.",
        ),
        _check(
            "generator_evaluation",
            "judges_count",
            _judges_count,
            "The fresh judges tell what must be told, and nothing else.",
        ),
        _check(
            "critic_weights",
            "tells_apart",
            _critic,
            "Held-out AUC above 0.5 and below 1.",
            promotes=True,
        ),
        _check(
            "judge_weights",
            "tells_apart",
            _critic,
            "Held-out AUC above 0.5 and below 1.",
            promotes=True,
        ),
        _check(
            "reconstruction_judge_weights",
            "tells_apart",
            _critic,
            "Held-out AUC above 0.5 and below 1.",
            promotes=True,
        ),
        _check(
            "aggregate_posterior",
            "better_than_prior",
            _aggregate,
            "Held-out pictures' latents are likelier than by the prior.",
        ),
        _check(
            "retouched_samples",
            "judge_prefers",
            _retouched,
            "The judge, which never steers, rates them higher than before.",
        ),
        _check("report", "complete", _report, "The page holds a figure of every asset."),
    ]


def _check(
    asset: str,
    name: str,
    rule: Rule,
    description: str,
    *,
    blocking: bool = False,
    promotes: bool = False,
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name, blocking=blocking, description=description)
    def check(
        context: dg.AssetCheckExecutionContext, root: RootResource, tracking: MlflowTracking
    ) -> dg.AssetCheckResult:
        passed, said = rule(root.data_root, read_figures(root.data_root, asset))
        version = current_version(context.instance, dg.AssetKey(asset))
        if promotes and passed and version:
            tracking.promote(asset, version)
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=passed, severity=severity, description=said)

    return check


def _usable(most: float) -> Rule:
    def rule(root: DataRoot, f: dict[str, Any]) -> Verdict:
        total = f["images"] + f["unusable"]
        share = f["unusable"] / max(total, 1)
        dropped = f", {f['dropped']} dropped" if f.get("dropped") else ""
        said = (
            f"{f['images']:,} images, {f['unusable']} unusable ({share:.1%}, at most"
            f" {most:.0%}){dropped}"
        )
        if not f["images"]:
            said = (
                f"no usable image{dropped}: fill the original folder (gaip3"
                f" doctor){' or gaip3 drop --undo' if dropped else ''}"
            )
        return f["images"] > 0 and share <= most, said

    return rule


def _no_leakage(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.training_data import originals_table, resized_batches

    table = originals_table(root)
    return _leaks(resized_batches(root, table), table.key, [f"bucket {b}" for b in table.bucket])


def _no_final_leakage(root: DataRoot, f: dict[str, Any]) -> Verdict:
    import numpy as np
    import pandas as pd

    table, packed = (
        pd.read_parquet(root.manifest("final_dataset")),
        np.load(root.packed_final, mmap_mode="r"),
    )
    return _leaks(
        (packed[i : i + 256] for i in range(0, len(packed), 256)), table.path, table.split
    )


def _leaks(batches: Iterable[Any], names: Any, sides: Any) -> Verdict:
    import numpy as np

    from gaip3_pipeline.evaluation.leakage import leaks
    from gaip3_pipeline.imaging.duplicates import GREY_SIZE, to_grey

    greys = [to_grey(image) for batch in batches for image in batch]
    names, sides = list(names), list(sides)
    found = leaks(np.array(greys).reshape(-1, *GREY_SIZE), sides)
    said = "; ".join(
        f"{names[i]} in {sides[i]}, {names[j]} in {sides[j]} (alike to {alike:.3f})"
        for i, j, alike in found
    )
    return (
        not found,
        (
            f"one photograph on two sides: {said}"
            if found
            else f"{len(names):,} pictures compared, none on two sides"
        ),
    )


def _few_defects(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.imaging.quality import ISSUES

    counts = ", ".join(f"{name} {f[name]}" for name in ISSUES if f[name])
    said = (
        f"{f['with_issues']} of {f['originals']:,} originals"
        f" flagged{f' ({counts})' if counts else ''}; drop some with gaip3 drop"
    )
    return f["with_issues"] <= 0.05 * f["originals"], said


def _enough_labels(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = f"{f['rows']} labels of {len(f['values'])} values, {f['left_out']} rows left out"
    return (
        f["rows"] >= MIN_LABELS and len(f["values"]) > 1,
        f"{said}; at least {MIN_LABELS} of two values are needed",
    )


def _few_look_wrong(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = ", ".join(f"{a} {f[f'look_wrong_{a}']} of {f[f'n_{a}']:,}" for a in ATTRIBUTES)
    few = all(f[f"look_wrong_{a}"] <= MAX_LOOK_WRONG * f[f"n_{a}"] for a in ATTRIBUTES)
    return few, f"labels that look wrong: {said}; gaip3 label shows the most suspicious first"


def _gender_learned(root: DataRoot, f: dict[str, Any]) -> Verdict:
    return (
        f["roc_auc"] > 0.8,
        f"accuracy {f['accuracy']:.3f}, AUC {f['roc_auc']:.3f} out of fold, n = {f['n']:,}",
    )


def _probabilities(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.tables.contracts import read_gender_probabilities

    table = read_gender_probabilities(root.gender_probabilities)
    spread = float(table.prob_female.std())
    inside = bool(table.prob_female.between(0, 1).all())
    return (
        len(table) == f["rows"] and inside and spread > 0.01,
        f"{len(table):,} rows, standard deviation {spread:.3f}",
    )


def _enough_final(root: DataRoot, f: dict[str, Any]) -> Verdict:
    if f["files"] >= MIN_FINAL:
        return True, f"{f['files']:,} images of {f['different_originals']:,} originals"
    return False, f"only {f['files']} images pass the rule; {f['advice']}"


def _few_suspected(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = (
        f"{f['suspected']:,} of {f['n']:,} look as if in the wrong folder"
        f" ({f['suspected_share']:.1%}, at most {MAX_SUSPECTED:.0%})"
    )
    return (
        f["suspected_share"] <= MAX_SUSPECTED,
        f"{said}; {root.relative(root.folder_review)} lists them",
    )


def _input_learned(root: DataRoot, f: dict[str, Any]) -> Verdict:
    return f["r2"] > 0, f"R² {f['r2']:.2f}, MAE {f['mae']:.3f}, n = {f['n']}"


def _steady(root: DataRoot, f: dict[str, Any]) -> Verdict:
    changes = {
        a: [f[f"{part}_mean_change_{a}"] for part in ("darker", "brighter")]
        for a in ATTRIBUTES
        if a not in BRIGHTENED
    }
    moved = {
        a: max((abs(c) for c in of if not math.isnan(c)), default=math.nan)
        for a, of in changes.items()
    }
    said = ", ".join(f"{a} {change:.3f}" for a, change in moved.items())
    said = (
        f"mean change from an original without a label to its copy: {said} (below {MAX_MOVED:g};"
        " nan where no such pair is final)"
    )
    return all(change < MAX_MOVED for change in moved.values()), said


def _honest(root: DataRoot, f: dict[str, Any]) -> Verdict:
    within = {a: (f[f"within_one_{a}"], f[f"within_two_{a}"]) for a in ATTRIBUTES}
    said = ", ".join(f"{a} {one:.0%} and {two:.0%}" for a, (one, two) in within.items())
    honest = all(
        WITHIN_ONE[0] <= one <= WITHIN_ONE[1] and two >= WITHIN_TWO for one, two in within.values()
    )
    return (
        honest,
        (
            f"labels within one and two deviations: {said} ({WITHIN_ONE[0]:.0%} to"
            f" {WITHIN_ONE[1]:.0%}, at least {WITHIN_TWO:.0%})"
        ),
    )


def _values(root: DataRoot, f: dict[str, Any]) -> Verdict:
    files = read_figures(root, "final_dataset")["files"]
    return f["rows"] == files and 0 <= f["mean"] <= 1, f"{f['rows']:,} values for {files:,} images"


def _extractor(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = (
        f"{f['features']} features keep {f['variance_kept']:.0%} of the variance, learned from"
        f" {f['learned_from']:,} pictures"
    )
    return f["variance_kept"] > 1 / 3, said


def _final_features(root: DataRoot, f: dict[str, Any]) -> Verdict:
    files = read_figures(root, "final_dataset")["files"]
    return f["images"] == files, f"features of {f['images']:,} of {files:,} images"


def _control(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = ", ".join(f"{a} {f[f'r2_{a}']:.2f}" for a in ATTRIBUTES)
    return (
        all(f[f"r2_{a}"] > 0 for a in ATTRIBUTES),
        f"R² against the input models: {said}, n = {f['n']}",
    )


def _generator(root: DataRoot, f: dict[str, Any]) -> Verdict:
    return 0 < f["bits_per_dim"] < 8, f"{f['bits_per_dim']:.3f} bits/dim, n = {f['n_held_out']}"


def _sliders(root: DataRoot, f: dict[str, Any]) -> Verdict:
    own = {a: f[f"slope_{a}"] for a in ATTRIBUTES}
    said = ", ".join(f"{a} {slope:.2f}" for a, slope in own.items())
    unknown = [a for a in ATTRIBUTES if not f[f"known_{a}"]]
    why = (
        f"; not known on held-out pictures, so not controlled: {', '.join(unknown)}; label more of"
        " its rare values"
        if unknown
        else ""
    )
    passed = not unknown and all(slope > 0.1 for slope in own.values())
    return passed, f"slopes {said}; largest on another value {f['leakage']:.2f}{why}"


def _stay_real(root: DataRoot, f: dict[str, Any]) -> Verdict:
    worst = {a: f[f"least_real_{a}"] for a in ATTRIBUTES}
    said = ", ".join(f"{a} {z:+.1f} at {f[f'least_real_{a}_at']:.2f}" for a, z in worst.items())
    return (
        all(z >= -2 for z in worst.values()),
        f"the judge's logit beside the middle's, in standard errors: {said} (at least -2)",
    )


def _detailed(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = ", ".join(f"{f[f'power_{k}']:.2f}" for k in (1, 2, 3))
    return (
        all(0.7 <= f[f"power_{k}"] <= 1.4 for k in (1, 2, 3)),
        f"power of the octaves over the photographs' {said}",
    )


def _sharp(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.metrics.sharpness import shortcomings

    if "power_1" not in f:
        return False, NOTHING_HELD_OUT
    short = shortcomings(f)
    return (
        not short,
        "; ".join(short) or "power, kurtosis and share of noise are those of photographs",
    )


def _judges_count(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.evaluation.fresh_judges import MAKES, SIZES, unbelievable

    if "judge_network_full" not in f:
        return False, "too few originals are held out to judge by"
    doubts = unbelievable(f)
    by_make = {
        make: ", ".join(f"{size} {f[f'judge_{make}_{size}']:.3f}" for size in SIZES)
        for make in MAKES
    }
    said = "; ".join(f"{make} {aucs}" for make, aucs in by_make.items())
    return not doubts, f"AUC of photographs against samples: {said}" + (
        f". Does not count: {'; '.join(doubts)}" if doubts else ""
    )


def _samples(root: DataRoot, f: dict[str, Any]) -> Verdict:
    import numpy as np
    from PIL import Image

    deviations = [float(np.asarray(Image.open(p)).std()) for p in root.samples.glob("*.jpg")]
    flat = sum(d < 4 for d in deviations)
    return len(deviations) == f["images"] and flat == 0, f"{len(deviations)} samples, {flat} flat"


def _critic(root: DataRoot, f: dict[str, Any]) -> Verdict:
    said = f"AUC {f['auc']:.3f}, n = {f['n']}"
    if f["auc"] >= 1:
        return (
            False,
            (
                f"{said}: real and generated are wholly apart, so its gradient says little; train"
                " the generator longer"
            ),
        )
    return f["auc"] > 0.5, said


def _aggregate(root: DataRoot, f: dict[str, Any]) -> Verdict:
    spread = f"variances {f['least_variance']:.2f} to {f['largest_variance']:.1f}"
    return f["nats"] > 0, f"{f['nats']:+.1f} nats for each of {f['n']} held-out pictures, {spread}"


def _retouched(root: DataRoot, f: dict[str, Any]) -> Verdict:
    before, after = f["judge_logit_before"], f["judge_logit_after"]
    return after > before, f"judge's mean logit {before:+.3f} → {after:+.3f}, n = {f['n']}"


def _report(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.assets.report import SECTIONS

    page = root.report.read_text(encoding="utf-8")
    absent = [
        name for names in SECTIONS.values() for name in names if f"<h3>{name}</h3>" not in page
    ]
    return not absent, f"{f['bytes'] // 1024} KB" if not absent else f"missing: {', '.join(absent)}"
