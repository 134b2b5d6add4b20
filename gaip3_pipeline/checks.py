"""Asset checks: a blocking check must pass before anything downstream is materialised; the others
warn people."""

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

MIN_FINAL = 50  # with fewer, neither the generator nor its held-out figures are meaningful
MIN_LABELS = 30
MAX_LOOK_WRONG = 0.05  # of the labels of an attribute
MAX_SUSPECTED = 0.02  # of the pictures of D2
MAX_MOVED = 0.02  # mean change of a value that brightness should not change
# Normal errors have 68 % and 95 %. Where most labels have the same level, errors are more peaked,
# and more of them lie within one standard deviation.
WITHIN_ONE, WITHIN_TWO = (0.55, 0.85), 0.9
NOTHING_HELD_OUT = "there are no held-out pictures to compare with"
BETTER_THAN_MEAN = (
    "R² above 0 on labels that were not trained on, that is, better than predicting their mean."
    " If it fails, label more images or review the labels (gaip3 label)."
)
CRITIC_LEARNED = (
    "Held-out ROC AUC above 0.5 and below 1. At 0.5 or below the critic has learned nothing: more"
    " final images or more epochs under [critic] help."
)
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
            CRITIC_LEARNED,
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
                "There are images, and the share of unusable ones is at most max_unusable_share of"
                " [images]. If it fails, convert, replace, drop or move away the files that the"
                " asset lists as noted.",
                blocking=True,
            )
            for n in PROCESSED
        ),
        _check(
            "near_duplicates",
            "no_leakage",
            _no_leakage,
            "No photograph is in two buckets of the split. All pictures are compared with each"
            " other. If it fails, drop one of the two pictures (gaip3 drop).",
            blocking=True,
        ),
        _check(
            "image_quality",
            "few_defects",
            _few_defects,
            "At most 5 % of the originals have a defect. If it fails, look at them and drop the bad"
            " ones (gaip3 drop).",
        ),
        *(
            _check(
                f"labels_{a}",
                "enough_labels",
                _enough_labels,
                f"At least {MIN_LABELS} labels, of at least two different values. If it fails,"
                " label more images (gaip3 label).",
                blocking=True,
            )
            for a in ATTRIBUTES
        ),
        _check(
            "label_review",
            "few_look_wrong",
            _few_look_wrong,
            "For every attribute, at most 5 % of the labels are probably wrong. If it fails, review"
            " the most suspicious ones (gaip3 label).",
        ),
        _check(
            "gender_model",
            "tells_apart",
            _gender_learned,
            "Out-of-fold ROC AUC above 0.8. If it fails, check that the folders of D2 are sorted by"
            " sex, and add originals to them.",
            blocking=True,
            promotes=True,
        ),
        _check(
            "gender_probabilities",
            "probabilities",
            _probabilities,
            "One row for each processed image; probabilities lie in 0..1 and are not all alike"
            " (standard deviation above 0.01). If it fails, materialise gender_model again.",
            blocking=True,
        ),
        _check(
            "final_dataset",
            "enough_images",
            _enough_final,
            f"The rule keeps at least {MIN_FINAL} images. If it fails, add originals or lower the"
            " threshold of [final_dataset].",
            blocking=True,
        ),
        _check(
            "final_dataset",
            "no_leakage",
            _no_final_leakage,
            "No two final images of one photograph, such as an original and its brightness copy,"
            " are in different splits. If it fails, drop one of them (gaip3 drop).",
            blocking=True,
        ),
        _check(
            "feature_extractor",
            "keeps_variance",
            _extractor,
            "The principal axes keep more than a third of the features' variance.",
        ),
        _check(
            "final_features",
            "covers_final",
            _final_features,
            "There are features for every final image. If it fails, materialise final_features"
            " again.",
            blocking=True,
        ),
        _check(
            "curation_report",
            "few_suspected",
            _few_suspected,
            "At most 2 % of the originals of D2 are probably in the wrong folder. If it fails, move"
            " or drop them.",
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
                "There is a value for every final image, and their mean lies in 0..1. If it fails,"
                " materialise final_features and input_values_* again.",
                blocking=True,
            )
            for a in ATTRIBUTES
        ),
        _check(
            "inputs_report",
            "steady_under_brightness",
            _steady,
            f"Brightness changes no value but the background's: the others change by less than"
            f" {MAX_MOVED:g} on average. If it fails, see Brightness copies in the report.",
        ),
        _check(
            "inputs_report",
            "honest_uncertainty",
            _honest,
            "The predicted standard deviations match the errors on labels that were not trained on."
            " If it fails, see Uncertainty in the report.",
        ),
        _check(
            "control_regressor",
            "learned",
            _control,
            "R² above 0 against the values of the input models on held-out images, for every value."
            " If it fails, raise epochs under [control_regressor] or label more images.",
            promotes=True,
        ),
        _check(
            "nvae_weights",
            "finite_likelihood",
            _generator,
            "Held-out bits/dim are above 0 and below 8, those of uniform noise. If it fails, raise"
            " epochs or lower learning_rate under [nvae].",
            blocking=True,
            promotes=True,
        ),
        _check(
            "nvae_samples",
            "not_flat",
            _samples,
            "As many samples as the settings request, and no flat ones (standard deviation of the"
            " pixels below 4 grey levels). If it fails, train the generator longer.",
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
            "In every octave, samples with detail have 0.7 to 1.4 times the power of photographs."
            " If it fails, raise epochs under [detail].",
            promotes=True,
        ),
        _check(
            "generator_evaluation",
            "sliders_move",
            _sliders,
            "Every value can be predicted on held-out pictures, and every slider moves its value"
            " (slope above 0.1). If it fails, label more images with rare values.",
        ),
        _check(
            "generator_evaluation",
            "sliders_stay_real",
            _stay_real,
            "At no slider position does the judge find pictures significantly less real than at the"
            " middle (at most 2 standard errors). If it fails, add images with such values.",
        ),
        _check(
            "generator_evaluation",
            "sharp_as_photographs",
            _sharp,
            "Power, kurtosis and share of noise of the samples' octaves are those of photographs,"
            " without a periodic pattern. If it fails, raise epochs under [detail].",
        ),
        _check(
            "generator_evaluation",
            "judges_count",
            _judges_count,
            "The fresh judges are valid: they detect blur and missing detail, and find no"
            " difference between two halves of photographs. If it fails, do not use their figures.",
        ),
        _check(
            "critic_weights",
            "tells_apart",
            _critic,
            CRITIC_LEARNED,
            promotes=True,
        ),
        _check(
            "judge_weights",
            "tells_apart",
            _critic,
            CRITIC_LEARNED,
            promotes=True,
        ),
        _check(
            "reconstruction_judge_weights",
            "tells_apart",
            _critic,
            CRITIC_LEARNED,
            promotes=True,
        ),
        _check(
            "aggregate_posterior",
            "better_than_prior",
            _aggregate,
            "Latents of held-out pictures have a higher density under the fitted Gaussians than"
            " under the prior.",
        ),
        _check(
            "retouched_samples",
            "judge_prefers",
            _retouched,
            "The mean logit of the judge, which does not steer retouching, is higher after it than"
            " before. If it fails, change [retouch] or train the generator longer.",
        ),
        _check("report", "complete", _report, "The page has an entry for every asset."),
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
        passed, summary = rule(root.data_root, read_figures(root.data_root, asset))
        version = current_version(context.instance, dg.AssetKey(asset))
        if promotes and passed and version:
            tracking.promote(asset, version)
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=passed, severity=severity, description=summary)

    return check


def _usable(most: float) -> Rule:
    def rule(root: DataRoot, f: dict[str, Any]) -> Verdict:
        total = f["images"] + f["unusable"]
        share = f["unusable"] / max(total, 1)
        dropped = f", {f['dropped']} dropped" if f.get("dropped") else ""
        others = f", {f['left_out']:,} other files left out" if f.get("left_out") else ""
        summary = (
            f"{f['images']:,} images, {f['unusable']} unusable ({share:.1%}, at most"
            f" {most:.0%}){dropped}{others}"
        )
        if not f["images"]:
            summary = (
                f"no usable image{dropped}: fill the original folder (gaip3"
                f" doctor){' or gaip3 drop --undo' if dropped else ''}"
            )
        return f["images"] > 0 and share <= most, summary

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
    summary = "; ".join(
        f"{names[i]} in {sides[i]}, {names[j]} in {sides[j]} (correlation {match:.3f})"
        for i, j, match in found
    )
    return (
        not found,
        (
            f"the same photograph in two splits: {summary}; drop one of each pair (gaip3 drop)"
            if found
            else f"{len(names):,} pictures compared, none in two splits"
        ),
    )


def _few_defects(root: DataRoot, f: dict[str, Any]) -> Verdict:
    from gaip3_pipeline.imaging.quality import ISSUES

    counts = ", ".join(f"{name} {f[name]}" for name in ISSUES if f[name])
    summary = (
        f"{f['with_issues']} of {f['originals']:,} originals"
        f" flagged{f' ({counts})' if counts else ''}; gaip3 drop leaves out bad ones"
    )
    return f["with_issues"] <= 0.05 * f["originals"], summary


def _enough_labels(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = f"{f['rows']} labels of {len(f['values'])} values, {f['left_out']} rows left out"
    return (
        f["rows"] >= MIN_LABELS and len(f["values"]) > 1,
        f"{summary}; at least {MIN_LABELS} labels of two different values are needed",
    )


def _few_look_wrong(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = ", ".join(f"{a} {f[f'look_wrong_{a}']} of {f[f'n_{a}']:,}" for a in ATTRIBUTES)
    few = all(f[f"look_wrong_{a}"] <= MAX_LOOK_WRONG * f[f"n_{a}"] for a in ATTRIBUTES)
    return few, f"probably wrong labels: {summary}; gaip3 label can sort by suspicion"


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
    summary = (
        f"{f['suspected']:,} of {f['n']:,} are probably in the wrong folder"
        f" ({f['suspected_share']:.1%}, at most {MAX_SUSPECTED:.0%})"
    )
    return (
        f["suspected_share"] <= MAX_SUSPECTED,
        f"{summary}; they are listed in {root.relative(root.folder_review)}",
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
    summary = ", ".join(f"{a} {change:.3f}" for a, change in moved.items())
    summary = (
        f"mean change from an unlabelled original to its brightness copy: {summary} (required:"
        f" below {MAX_MOVED:g}; nan: the final dataset has no such pair)"
    )
    return all(change < MAX_MOVED for change in moved.values()), summary


def _honest(root: DataRoot, f: dict[str, Any]) -> Verdict:
    within = {a: (f[f"within_one_{a}"], f[f"within_two_{a}"]) for a in ATTRIBUTES}
    summary = ", ".join(f"{a} {one:.0%} and {two:.0%}" for a, (one, two) in within.items())
    honest = all(
        WITHIN_ONE[0] <= one <= WITHIN_ONE[1] and two >= WITHIN_TWO for one, two in within.values()
    )
    return (
        honest,
        (
            f"labels within one and two standard deviations: {summary} (required:"
            f" {WITHIN_ONE[0]:.0%} to {WITHIN_ONE[1]:.0%}, at least {WITHIN_TWO:.0%})"
        ),
    )


def _values(root: DataRoot, f: dict[str, Any]) -> Verdict:
    files = read_figures(root, "final_dataset")["files"]
    return f["rows"] == files and 0 <= f["mean"] <= 1, f"{f['rows']:,} values for {files:,} images"


def _extractor(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = (
        f"{f['features']} features keep {f['variance_kept']:.0%} of the variance, learned from"
        f" {f['learned_from']:,} pictures"
    )
    return f["variance_kept"] > 1 / 3, summary


def _final_features(root: DataRoot, f: dict[str, Any]) -> Verdict:
    files = read_figures(root, "final_dataset")["files"]
    return f["images"] == files, f"features of {f['images']:,} of {files:,} images"


def _control(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = ", ".join(f"{a} {f[f'r2_{a}']:.2f}" for a in ATTRIBUTES)
    return (
        all(f[f"r2_{a}"] > 0 for a in ATTRIBUTES),
        f"R² against the input models: {summary}, n = {f['n']}",
    )


def _generator(root: DataRoot, f: dict[str, Any]) -> Verdict:
    return 0 < f["bits_per_dim"] < 8, f"{f['bits_per_dim']:.3f} bits/dim, n = {f['n_held_out']}"


def _sliders(root: DataRoot, f: dict[str, Any]) -> Verdict:
    own = {a: f[f"slope_{a}"] for a in ATTRIBUTES}
    summary = ", ".join(f"{a} {slope:.2f}" for a, slope in own.items())
    unknown = [a for a in ATTRIBUTES if not f[f"known_{a}"]]
    why = (
        f"; cannot be predicted on held-out pictures, so not controlled: {', '.join(unknown)};"
        " label more images with rare values"
        if unknown
        else ""
    )
    passed = not unknown and all(slope > 0.1 for slope in own.values())
    return passed, f"slopes {summary}; largest slope of another value {f['leakage']:.2f}{why}"


def _stay_real(root: DataRoot, f: dict[str, Any]) -> Verdict:
    worst = {a: f[f"least_real_{a}"] for a in ATTRIBUTES}
    summary = ", ".join(f"{a} {z:+.1f} at {f[f'least_real_{a}_at']:.2f}" for a, z in worst.items())
    return (
        all(z >= -2 for z in worst.values()),
        "least difference of the judge's logit from the middle's, in standard errors:"
        f" {summary} (required: at least -2)",
    )


def _detailed(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = ", ".join(f"{f[f'power_{k}']:.2f}" for k in (1, 2, 3))
    return (
        all(0.7 <= f[f"power_{k}"] <= 1.4 for k in (1, 2, 3)),
        f"power of the octaves relative to photographs {summary}",
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
        return False, "too few originals are held out to train fresh judges; add originals"
    doubts = unbelievable(f)
    by_make = {
        make: ", ".join(f"{size} {f[f'judge_{make}_{size}']:.3f}" for size in SIZES)
        for make in MAKES
    }
    summary = "; ".join(f"{make} {aucs}" for make, aucs in by_make.items())
    return not doubts, f"AUC of photographs against samples: {summary}" + (
        f". Not valid: {'; '.join(doubts)}" if doubts else ""
    )


def _samples(root: DataRoot, f: dict[str, Any]) -> Verdict:
    import numpy as np
    from PIL import Image

    from gaip3_pipeline.tables.contracts import read_samples

    paths = [root.path / p for p in read_samples(root.samples_table).image_path]
    deviations = [float(np.asarray(Image.open(p)).std()) for p in paths]
    flat = sum(d < 4 for d in deviations)
    return len(deviations) == f["images"] and flat == 0, f"{len(deviations)} samples, {flat} flat"


def _critic(root: DataRoot, f: dict[str, Any]) -> Verdict:
    summary = f"AUC {f['auc']:.3f}, n = {f['n']}"
    if f["auc"] >= 1:
        return (
            False,
            (
                f"{summary}: real and generated pictures are perfectly separated, so the gradient"
                " gives little information; train the generator longer"
            ),
        )
    return f["auc"] > 0.5, summary


def _aggregate(root: DataRoot, f: dict[str, Any]) -> Verdict:
    spread = f"variances {f['least_variance']:.2f} to {f['largest_variance']:.1f}"
    return f["nats"] > 0, f"{f['nats']:+.1f} nats per held-out picture (n = {f['n']}), {spread}"


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
