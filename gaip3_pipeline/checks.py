"""Asset checks: a blocking check must pass before anything downstream is materialised; the others
warn people."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.attributes import ATTRIBUTES, BRIGHTENED
from gaip3_pipeline.evaluation.check_texts import (
    CHECK_TEXTS,
    MAX_MOVED,
    MIN_FINAL,
    MIN_LABELS,
)
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, Settings
from gaip3_pipeline.versions import RootResource, current_version, numbers, read_figures

MAX_LOOK_WRONG = 0.05  # of the labels of an attribute
MAX_SUSPECTED = 0.02  # of the pictures of D2
# Normal errors have 68 % and 95 %. Where most labels have the same level, errors are more peaked,
# and more of them lie within one standard deviation.
WITHIN_ONE, WITHIN_TWO = (0.55, 0.85), 0.9
NOTHING_HELD_OUT = "there are no held-out pictures to compare with"
Verdict = tuple[bool, str]
Rule = Callable[[DataRoot, dict[str, Any]], Verdict]


def build(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Every check of the pipeline."""
    most = settings.images.max_unusable_share
    contrastive = [_check("prior_critic_weights", "tells_apart", _critic, promotes=True)]
    return [
        *(contrastive if settings.retouch.method == NOISE_CONTRASTIVE else []),
        *(_check(n, "usable", _usable(most), blocking=True) for n in PROCESSED),
        _check("near_duplicates", "no_leakage", _no_leakage, blocking=True),
        _check("image_quality", "few_defects", _few_defects),
        *(
            _check(f"labels_{a}", "enough_labels", _enough_labels, blocking=True)
            for a in ATTRIBUTES
        ),
        _check("label_review", "few_look_wrong", _few_look_wrong),
        _check("gender_model", "tells_apart", _gender_learned, blocking=True, promotes=True),
        _check("gender_probabilities", "probabilities", _probabilities, blocking=True),
        _check("final_dataset", "enough_images", _enough_final, blocking=True),
        _check("final_dataset", "no_leakage", _no_final_leakage, blocking=True),
        _check("feature_extractor", "keeps_variance", _extractor),
        _check("final_features", "covers_final", _final_features, blocking=True),
        _check("curation_report", "few_suspected", _few_suspected),
        *(_check(f"input_model_{a}", "learned", _input_learned, promotes=True) for a in ATTRIBUTES),
        *(_check(f"input_values_{a}", "covers_final", _values, blocking=True) for a in ATTRIBUTES),
        _check("inputs_report", "steady_under_brightness", _steady),
        _check("inputs_report", "honest_uncertainty", _honest),
        _check("control_regressor", "learned", _control, promotes=True),
        _check("nvae_weights", "finite_likelihood", _generator, blocking=True, promotes=True),
        _check("nvae_samples", "not_flat", _samples, blocking=True),
        *(_check(f"evaluator_{a}", "learned", _input_learned, promotes=True) for a in ATTRIBUTES),
        _check("detail_weights", "sharp", _detailed, promotes=True),
        _check("generator_evaluation", "sliders_move", _sliders),
        _check("generator_evaluation", "sliders_stay_real", _stay_real),
        _check("generator_evaluation", "sharp_as_photographs", _sharp),
        _check("generator_evaluation", "judges_count", _judges_count),
        _check("critic_weights", "tells_apart", _critic, promotes=True),
        _check("judge_weights", "tells_apart", _critic, promotes=True),
        _check("reconstruction_judge_weights", "tells_apart", _critic, promotes=True),
        _check("aggregate_posterior", "better_than_prior", _aggregate),
        _check("retouched_samples", "judge_prefers", _retouched),
        _check("report", "complete", _report),
    ]


def _check(
    asset: str,
    name: str,
    rule: Rule,
    *,
    blocking: bool = False,
    promotes: bool = False,
) -> dg.AssetChecksDefinition:
    english, _ = CHECK_TEXTS[asset, name].meaning

    @dg.asset_check(asset=asset, name=name, blocking=blocking, description=english)
    def check(
        context: dg.AssetCheckExecutionContext, root: RootResource, tracking: MlflowTracking
    ) -> dg.AssetCheckResult:
        figures = _Read(read_figures(root.data_root, asset))
        passed, summary = rule(root.data_root, figures)
        version = current_version(context.instance, dg.AssetKey(asset))
        if promotes and passed and version:
            tracking.promote(asset, version)
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            passed=passed,
            severity=severity,
            description=summary,
            metadata={k: v for k, v in numbers(figures.read).items() if math.isfinite(v)},
        )

    return check


class _Read(dict[str, Any]):
    """Figures, with those of them that were read: what a check is about, for Dagster's plots."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(figures)
        self.read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self.read[name] = value = super().__getitem__(name)
        return value


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
    from gaip3_pipeline.training_data import originals_table, resized_batches, resized_picture

    table = originals_table(root)
    sides = "bucket " + table.bucket.astype(str)
    return _leaks(
        resized_batches(root, table), resized_picture(root, table), table.key, list(sides)
    )


def _no_final_leakage(root: DataRoot, f: dict[str, Any]) -> Verdict:
    import numpy as np
    import pandas as pd

    table, packed = (
        pd.read_parquet(root.manifest("final_dataset")),
        np.load(root.packed_final, mmap_mode="r"),
    )
    batches = (packed[i : i + 256] for i in range(0, len(packed), 256))
    return _leaks(batches, packed.__getitem__, table.path, list(table.split))


def _leaks(
    batches: Iterable[Any], load: Callable[[int], Any], names: Any, sides: list[str]
) -> Verdict:
    """No leakage between ``sides (N,)`` of the pictures that ``batches`` and ``load`` give."""
    import numpy as np

    from gaip3_pipeline.evaluation.leakage import BLURRED, blurred_sums, leaks
    from gaip3_pipeline.imaging.duplicates import ReadGreys, to_grey

    names, done = names.to_numpy(), 0
    sums = np.empty((len(names), *BLURRED), np.uint16)
    for batch in batches:
        rows = slice(done, done := done + len(batch))
        sums[rows] = blurred_sums(np.stack([to_grey(image) for image in batch]))
    found = leaks(sums, ReadGreys(len(names), load), sides)
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
        name
        for names in SECTIONS.values()
        for name in names
        if f'<article id="{name}">' not in page
    ]
    return not absent, f"{f['bytes'] // 1024} KB" if not absent else f"missing: {', '.join(absent)}"
