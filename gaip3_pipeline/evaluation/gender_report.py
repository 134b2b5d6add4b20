"""The curation report: which images the rule keeps and leaves out, and how reliable the gender
score is. Pure functions of tables and pictures."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit

from gaip3_pipeline.evaluation.charts import BLUE, GREEN, GREY, RED, default_style, jpeg
from gaip3_pipeline.evaluation.page import Entry, Report, both
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import RATIOS, brightness_ratio
from gaip3_pipeline.layout import IMAGE_SETS
from gaip3_pipeline.metrics.classification import (
    calibration_curve,
    expected_calibration_error,
    fit_temperature,
)
from gaip3_pipeline.metrics.intervals import wilson_interval

THRESHOLDS = (0.5, 0.9, 0.99, 0.999, 0.9999)
SUSPECTED = 0.5  # probability of the other folder above which a picture is listed
SHOWN, COLUMNS = 24, 8  # pictures on a sheet
LEAST = 1e-30  # stands for a probability that underflowed to 0 in float32
D1, FEMALE, MALE = FOLDERS = tuple(s.folder for s in IMAGE_SETS)
COLOURS = {D1: GREEN, FEMALE: RED, MALE: BLUE}
TICKS = (0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999)  # probabilities marked on an axis of logits
FOLDER_REVIEW_COLUMNS = ("path", "folder", "prob_female", "suspicion")
Load = Callable[[str], np.ndarray]  # an image_path to (H, W, 3) uint8
Rows = list[dict[str, Any]]


def curation_report(
    probabilities: pd.DataFrame, manifest: pd.DataFrame, threshold: float, load: Load
) -> Report:
    """The report of the rule P(female) ≥ ``threshold``; its table lists originals that are probably
    in the wrong folder.

    ``probabilities``: ``image_path``, ``prob_male``, ``prob_female`` of every processed image,
    out of fold for the folders of a sex; ``manifest``: the final dataset's, with ``source``;
    ``load`` reads the picture of an ``image_path``."""
    scored = scored_images(probabilities)
    labelled = scored[scored.is_original & (scored.folder != D1)]
    logit, is_female = labelled.logit.to_numpy(), (labelled.folder == FEMALE).to_numpy()
    temperature = fit_temperature(logit, is_female)
    rates = acceptance(scored, sorted({*THRESHOLDS, threshold}))
    folders = suspected_folders(labelled, temperature)
    pairs = brightness_pairs(scored, threshold)
    kept, moved = kept_by_folder(scored, manifest), brightness_figures(pairs)
    calibration = {
        "n": len(labelled),
        "temperature": temperature,
        "calibrated_at_rule": float(expit(np.array(_logit(threshold) / temperature))),
        "ece_plain": expected_calibration_error(expit(logit), is_female),
        "ece": expected_calibration_error(expit(logit / temperature), is_female),
    }
    suspected = {
        "suspected": len(folders),
        "suspected_share": len(folders) / max(len(labelled), 1),
        **{f"suspected_in_{f}": int((folders.folder == f).sum()) for f in (FEMALE, MALE)},
    }
    shown_rates, shown_moved = _acceptance_shown(rates), _moved_shown(moved)
    sections: dict[str, list[Entry]] = {
        "The rule": [
            ("accepted images", {"": shown_rates}, {"rule": rule_chart(rates, kept, threshold)}),
            (
                "images kept",
                {"": [{k.replace("_", " "): v for k, v in row.items()} for row in kept]},
                {},
            ),
        ],
        "Nearest misses": [
            (name.replace("_", " "), {}, {name: s})
            for name, s in rule_sheets(scored, manifest, threshold, load).items()
        ],
        "Wrong folders": [("suspected wrong folders", suspected, _suspected_sheet(folders, load))],
        "Calibration": [
            (
                "reliability",
                calibration,
                {"reliability": reliability_chart(logit, is_female, temperature)},
            ),
            ("scores", {}, {"scores": score_chart(scored, threshold)}),
        ],
        "Brightness copies": [
            (
                "originals and their copies",
                {"": shown_moved},
                {"brightness": brightness_chart(pairs)},
            )
        ],
    }
    rule = next(row for row in rates if row["threshold"] == threshold)
    figures = rule | suspected | calibration
    figures |= {
        f"{k}_{row['folder']}": v
        for row in [*kept, *moved]
        for k, v in row.items()
        if k != "folder"
    }
    return Report(
        _lead(rule, len(folders)), figures | {"thresholds": shown_rates}, sections, folders
    )


def _lead(rule: dict[str, Any], suspected: int) -> str:
    """What the page says first: what the ``rule`` takes, and how many originals it suspects."""
    shown = {
        name: f"{rule[rate]:.1%}"
        for name, rate in (
            ("women", "female_recall"),
            ("men", "male_accept_rate"),
            ("d1", "d1_share"),
        )
    }
    counts = {
        f"{name}_{part}": f"{rule[f'{key}_{column}']:,}"
        for name, key in (("women", "female"), ("men", "male"), ("d1", "d1"))
        for part, column in (("taken", "accepted"), ("n", "n"))
    }
    taken = both(
        "The rule P(female) ≥ {threshold} takes {women} of the women's photographs ({women_taken}"
        " of {women_n}), {men_taken} of {men_n} men's, and {d1} of D1 ({d1_taken} of {d1_n}).",
        threshold=f"{rule['threshold']:g}",
        **shown,
        **counts,
    )
    doubted = (
        both("1 photograph is probably in the wrong folder.")
        if suspected == 1
        else both("{suspected} photographs are probably in the wrong folder.", suspected=suspected)
    )
    return f'<div class="lead"><p>{taken}</p><p>{doubted}</p></div>'


def scored_images(probabilities: pd.DataFrame) -> pd.DataFrame:
    """``path``, ``is_original``, ``folder``, ``stem``, ``prob_female`` and ``logit`` of every row
    of the gender probabilities.

    The logit is computed from both columns: near 1, float32 represents the complement more
    precisely.
    """
    paths = probabilities.image_path.map(PurePosixPath)
    female, male = (
        np.log(probabilities[c].to_numpy(np.float64).clip(LEAST))
        for c in ("prob_female", "prob_male")
    )
    return pd.DataFrame(
        {
            "path": probabilities.image_path,
            "is_original": [p.parts[0] == "resized" for p in paths],
            "folder": [p.parts[1] for p in paths],
            "stem": [p.stem for p in paths],
            "prob_female": probabilities.prob_female,
            "logit": female - male,
        }
    )


def acceptance(scored: pd.DataFrame, thresholds: Sequence[float]) -> Rows:
    """For each threshold the originals of each folder that it accepts: counts, shares, 95 % Wilson
    bounds."""
    of = {
        f: scored.prob_female[scored.is_original & (scored.folder == f)].to_numpy() for f in FOLDERS
    }
    rows: Rows = []
    for threshold in thresholds:
        row: dict[str, Any] = {"threshold": threshold}
        for name, rate, folder in (
            ("female", "female_recall", FEMALE),
            ("male", "male_accept_rate", MALE),
            ("d1", "d1_share", D1),
        ):
            taken, n = int((of[folder] >= threshold).sum()), len(of[folder])
            low, high = wilson_interval(taken, n)
            row |= {
                rate: taken / max(n, 1),
                f"{rate}_low": low,
                f"{rate}_high": high,
                f"{name}_accepted": taken,
                f"{name}_n": n,
            }
        rows.append(row)
    return rows


def kept_by_folder(scored: pd.DataFrame, manifest: pd.DataFrame) -> Rows:
    """How many originals and copies of each folder are in the final dataset, and how many there
    are of each (``images``)."""
    parts = manifest.source.str.split("/", n=2, expand=True).reindex(columns=[0, 1])
    rows: Rows = []
    for folder in FOLDERS:
        kinds = parts[0][parts[1] == folder]
        images = int((scored.is_original & (scored.folder == folder)).sum())
        kept = {
            "originals_kept": int((kinds == "resized").sum()),
            "copies_kept": int((kinds == "augmented").sum()),
        }
        rows.append({"folder": folder, "images": images, **kept})
    return rows


def suspected_folders(labelled: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Originals that more probably belong in the other folder, most suspicious first:
    ``FOLDER_REVIEW_COLUMNS``.

    ``labelled``: rows of :func:`scored_images` in a folder of a sex. ``suspicion`` is the
    probability of the other folder, by the out-of-fold score calibrated with ``temperature``."""
    female = expit(labelled.logit.to_numpy() / temperature)
    suspicion = np.where(labelled.folder == FEMALE, 1.0 - female, female).round(4)
    table = labelled.assign(suspicion=suspicion)
    table = table[table.suspicion > SUSPECTED].sort_values(
        ["suspicion", "path"], ascending=[False, True], ignore_index=True
    )
    return table[list(FOLDER_REVIEW_COLUMNS)]


def brightness_pairs(scored: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """``folder``, ``ratio``, ``change`` of the logit and ``one_passes`` (only one of the two passes
    the rule) for every original and its brightness copy."""
    columns = ["folder", "stem", "prob_female", "logit"]
    original, copy = (
        scored.loc[chosen, columns] for chosen in (scored.is_original, ~scored.is_original)
    )
    pairs = original.merge(
        copy, on=["folder", "stem"], suffixes=("", "_copy"), validate="one_to_one"
    )
    return pd.DataFrame(
        {
            "folder": pairs.folder,
            "ratio": pairs.stem.map(brightness_ratio).astype(float),
            "change": pairs.logit_copy - pairs.logit,
            "one_passes": (pairs.prob_female >= threshold) != (pairs.prob_female_copy >= threshold),
        }
    )


def brightness_figures(pairs: pd.DataFrame) -> Rows:
    """For each folder's pairs: n, the mean change of the logit from original to darker and to
    brighter copies, and the share of pairs of which only one passes the rule."""
    rows: Rows = []
    for folder in FOLDERS:
        of = pairs[pairs.folder == folder]
        one = int(of.one_passes.sum())
        low, high = wilson_interval(one, len(of))
        change = {
            "logit_change_darker": of.change[of.ratio < 1].mean(),
            "logit_change_brighter": of.change[of.ratio > 1].mean(),
        }
        share = {
            "one_passes": one / max(len(of), 1),
            "one_passes_low": low,
            "one_passes_high": high,
        }
        rows.append(
            {
                "folder": folder,
                "pairs": len(of),
                **{k: float(v) for k, v in change.items()},
                **share,
            }
        )
    return rows


def rule_sheets(
    scored: pd.DataFrame, manifest: pd.DataFrame, threshold: float, load: Load
) -> dict[str, bytes]:
    """Sheets of originals by name: females just below the threshold, images just above it, all
    accepted males, and males just below it.

    All accepted males are shown, on as many sheets as they need: ``males_accepted``,
    ``males_accepted_2``, … A sheet without pictures is left out."""
    originals = scored[scored.is_original].sort_values(["logit", "path"], kind="stable")
    passes = originals.prob_female >= threshold
    females, males = (originals[(originals.folder == f) & ~passes][::-1] for f in (FEMALE, MALE))
    chosen = {
        "females_below": (females[:SHOWN], "in the female folder, just below the threshold"),
        "kept_above": (
            originals[originals.path.isin(manifest.source)][:SHOWN],
            "kept, just above the threshold",
        ),
        **_accepted_males(originals[(originals.folder == MALE) & passes][::-1]),
        "males_below": (males[:SHOWN], "in the male folder, just below the threshold"),
    }
    return {
        name: _sheet(rows, _percents(rows), f"{title}; P(female) in %", load)
        for name, (rows, title) in chosen.items()
        if len(rows)
    }


@default_style
def rule_chart(rates: Rows, kept: Rows, threshold: float) -> bytes:
    """A JPEG: female recall and false accepts of males against the threshold, and the images kept
    of each folder."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    recall, accepts, images = figure.subplots(1, 3)
    at = np.arange(len(rates))
    for axes, name, rate, colour in (
        (recall, "female", "female_recall", RED),
        (accepts, "male", "male_accept_rate", BLUE),
    ):
        shares = np.array([row[rate] for row in rates])
        bounds = np.array([[row[f"{rate}_low"], row[f"{rate}_high"]] for row in rates])
        axes.errorbar(
            at, 100 * shares, 100 * np.abs(bounds.T - shares), color=colour, marker="o", capsize=3
        )
        for x, row in zip(at, rates, strict=True):
            axes.annotate(
                str(row[f"{name}_accepted"]),
                (x, 100 * row[rate]),
                xytext=(7, 4),
                textcoords="offset points",
                fontsize=8,
            )
        axes.axvline(
            [row["threshold"] for row in rates].index(threshold),
            color=GREY,
            linewidth=6,
            alpha=0.4,
            zorder=0,
        )
        axes.set_xticks(at, [f"{row['threshold']:g}" for row in rates])
        axes.set_xlim(-0.4, len(rates) - 0.3)
        axes.set_xlabel("P(female) at least")
        axes.set_ylim(0, max(1.15 * 100 * bounds.max(), 1.0) if name == "male" else 105)
        axes.set_title(f"{rate.replace('_', ' ')}, %  (of {rates[0][f'{name}_n']:,})", fontsize=9)
    across = np.arange(len(kept))
    for shift, which, colour in (
        (-0.27, "images", GREY),
        (0.0, "originals_kept", BLUE),
        (0.27, "copies_kept", GREEN),
    ):
        bars = images.bar(
            across + shift,
            [row[which] for row in kept],
            0.27,
            color=colour,
            label=which.replace("_", " "),
        )
        images.bar_label(bars, fontsize=7, fmt="{:,.0f}")
    images.set_xticks(across, [row["folder"] for row in kept])
    images.set_ylim(0, 1.3 * max(row["images"] for row in kept) + 1)
    images.set_title("images kept by folder", fontsize=9)
    images.legend(fontsize=7, loc="upper right", ncols=3, columnspacing=0.8, handlelength=1)
    return jpeg(figure)


@default_style
def reliability_chart(logit: np.ndarray, is_female: np.ndarray, temperature: float) -> bytes:
    """A JPEG: score against the share of females, plain and calibrated, with counts; and the same
    on an axis of logits, which resolves scores near the threshold."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplot_mosaic([["curve", "logit"], ["count", "logit"]], height_ratios=[3, 1])
    curve, count, far = panels["curve"], panels["count"], panels["logit"]
    curve.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for shift, name, score, colour in (
        (-0.02, "plain", expit(logit), RED),
        (0.02, f"calibrated (T = {temperature:.2f})", expit(logit / temperature), BLUE),
    ):
        bins = calibration_curve(score, is_female)
        ece = expected_calibration_error(score, is_female)
        _shares(
            curve,
            [b[0] for b in bins],
            [round(b[1] * b[2]) for b in bins],
            [b[2] for b in bins],
            colour,
            f"{name}, ECE {ece:.3f}",
        )
        middles = [(min(int(b[0] * 10), 9) + 0.5) / 10 + shift for b in bins]
        count.bar(middles, [b[2] for b in bins], 0.04, color=colour)
    curve.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="share in the female folder")
    curve.set_title(f"score against share, out of fold  (n = {len(logit):,})", fontsize=9, pad=20)
    curve.legend(
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        borderaxespad=0.2,
    )
    count.set(xlim=(-0.03, 1.03), yscale="log", xlabel="P(female)", ylabel="images")
    edges = np.unique(np.quantile(logit, np.linspace(0, 1, 21)))
    which = np.clip(np.searchsorted(edges, logit, side="right") - 1, 0, max(len(edges) - 2, 0))
    held = np.unique(which)
    x = [float(logit[which == b].mean()) for b in held]
    _shares(
        far,
        x,
        [int(is_female[which == b].sum()) for b in held],
        [int((which == b).sum()) for b in held],
        "black",
        "observed",
    )
    line = np.linspace(min(x) - 1, max(x) + 1, 200)
    far.plot(line, expit(line), color=RED, label="plain", linewidth=1)
    far.plot(line, expit(line / temperature), color=BLUE, label="calibrated", linewidth=1)
    _logit_axis(far, line[0], line[-1])
    far.set(
        ylim=(-0.03, 1.03),
        xlabel="P(female), on an axis of logits",
        ylabel="share in the female folder",
    )
    far.set_title("20 bins of equal counts by score", fontsize=9)
    far.legend(fontsize=8, loc="upper left")
    return jpeg(figure)


@default_style
def score_chart(scored: pd.DataFrame, threshold: float) -> bytes:
    """A JPEG: histograms of the score for each folder on an axis of logits, for originals and
    copies, with the threshold."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    low, high = float(scored.logit.min()) - 0.5, float(scored.logit.max()) + 0.5
    rule = _logit(threshold)
    bins = np.linspace(min(low, rule - 0.5), max(high, rule + 0.5), 60).tolist()
    for axes, folder in zip(figure.subplots(len(FOLDERS), 1, sharex=True), FOLDERS, strict=True):
        of = scored[scored.folder == folder]
        taken = of.prob_female[of.is_original] >= threshold
        axes.hist(
            of.logit[of.is_original], bins, color=COLOURS[folder], alpha=0.55, label="originals"
        )
        axes.hist(
            of.logit[~of.is_original],
            bins,
            color="black",
            histtype="step",
            linewidth=0.8,
            label="brightness copies",
        )
        axes.axvline(rule, color="black", linestyle="--", linewidth=1)
        _logit_axis(axes, bins[0], bins[-1])
        axes.set_ylabel("images", fontsize=8)
        axes.set_title(
            f"{folder}: {int(taken.sum()):,} of {len(taken):,} originals at or above {threshold:g}"
            " (dashed)",
            fontsize=9,
        )
        axes.legend(fontsize=7)
    axes.set_xlabel("P(female), on an axis of logits")
    return jpeg(figure)


@default_style
def brightness_chart(pairs: pd.DataFrame) -> bytes:
    """A JPEG: the change of the logit from original to copy by brightness ratio, and the share of
    pairs of which only one passes the rule."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    change, passes = figure.subplots(1, 2)
    at = np.arange(len(RATIOS))
    for shift, folder in zip((-0.2, 0.0, 0.2), FOLDERS, strict=True):
        of = pairs[pairs.folder == folder]
        by = of.groupby("ratio").change
        mean, low, high = (
            s.reindex(RATIOS).to_numpy() for s in (by.mean(), by.quantile(0.25), by.quantile(0.75))
        )
        change.plot(
            at + shift,
            mean,
            color=COLOURS[folder],
            marker="o",
            markersize=4,
            linewidth=1,
            label=folder,
        )
        change.vlines(at + shift, low, high, color=COLOURS[folder], alpha=0.4, linewidth=3)
        share = 100 * of.groupby("ratio").one_passes.mean().reindex(RATIOS).to_numpy()
        label = (
            f"{folder}: {100 * of.one_passes.mean():.1f} % of {len(of):,}" if len(of) else folder
        )
        passes.plot(
            at + shift,
            share,
            color=COLOURS[folder],
            marker="o",
            markersize=4,
            linewidth=1,
            label=label,
        )
    change.axhline(0, color=GREY, linewidth=1)
    for axes in (change, passes):
        axes.axvline(len(RATIOS) / 2 - 0.5, color=GREY, linewidth=1, linestyle=":")
        axes.set_xticks(at, [f"{r:g}".removeprefix("0") for r in RATIOS], fontsize=7)
        axes.set_xlabel("brightness ratio of the copy")
        axes.legend(fontsize=7)
    change.set_title(
        "change of the logit from original to copy\n(mean; bars: quartiles)",
        fontsize=9,
    )
    passes.set_title("pairs of which only one passes the rule, %", fontsize=9)
    passes.set_ylim(bottom=-0.5)
    return jpeg(figure)


def _suspected_sheet(folders: pd.DataFrame, load: Load) -> dict[str, bytes]:
    rows = folders[:SHOWN]
    other = np.where(rows.folder == FEMALE, MALE, FEMALE)
    captions = [
        f"{s:.1%} {o} {PurePosixPath(p).stem}"
        for s, o, p in zip(rows.suspicion, other, rows.path, strict=True)
    ]
    title = f"suspected wrong folders: P(other folder) ({len(rows)} of {len(folders)})"
    return {"suspected_folders": _sheet(rows, captions, title, load)} if len(rows) else {}


def _accepted_males(rows: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """All accepted males on several sheets, each no larger than the other sheets."""
    sheets = {}
    for start in range(0, len(rows), SHOWN):
        some = rows[start : start + SHOWN]
        which = f"{start + 1} to {start + len(some)} of {len(rows)}"
        name = "males_accepted" if start == 0 else f"males_accepted_{start // SHOWN + 1}"
        sheets[name] = some, f"males accepted, {which}"
    return sheets


def _sheet(rows: pd.DataFrame, captions: Sequence[str], title: str, load: Load) -> bytes:
    return contact_sheet([load(p) for p in rows.path], COLUMNS, captions=captions, title=title)


def _percents(rows: pd.DataFrame) -> list[str]:
    return [f"{100 * p:.4f} {stem}" for p, stem in zip(rows.prob_female, rows.stem, strict=True)]


def _acceptance_shown(rates: Rows) -> Rows:
    def share_text(row: dict[str, Any], name: str, rate: str) -> str:
        return (
            f"{row[rate]:.1%} [{row[f'{rate}_low']:.1%}, {row[f'{rate}_high']:.1%}]:"
            f" {row[f'{name}_accepted']:,} of {row[f'{name}_n']:,}"
        )

    return [
        {
            "P(female) at least": f"{row['threshold']:g}",
            "female recall": share_text(row, "female", "female_recall"),
            "males accepted": share_text(row, "male", "male_accept_rate"),
            "D1 kept": share_text(row, "d1", "d1_share"),
        }
        for row in rates
    ]


def _moved_shown(rows: Rows) -> Rows:
    return [
        {
            "folder": row["folder"],
            "pairs": row["pairs"],
            "logit, darker copy": f"{row['logit_change_darker']:+.2f}",
            "logit, brighter copy": f"{row['logit_change_brighter']:+.2f}",
            "only one passes": (
                f"{row['one_passes']:.1%} [{row['one_passes_low']:.1%},"
                f" {row['one_passes_high']:.1%}]"
            ),
        }
        for row in rows
    ]


def _shares(
    axes: Axes,
    x: Sequence[float],
    successes: Sequence[int],
    n: Sequence[int],
    colour: str,
    label: str,
) -> None:
    """Observed shares with their Wilson intervals."""
    shares = np.array(successes) / np.maximum(n, 1)
    bounds = np.array([wilson_interval(s, m) for s, m in zip(successes, n, strict=True)])
    axes.errorbar(
        x,
        shares,
        np.abs(bounds.T - shares),
        color=colour,
        marker="o",
        markersize=4,
        capsize=2,
        linewidth=1,
        label=label,
    )


def _logit_axis(axes: Axes, low: float, high: float) -> None:
    shown = [p for p in TICKS if low <= _logit(p) <= high]
    axes.set_xticks(
        [_logit(p) for p in shown], [f"{p:g}".removeprefix("0") for p in shown], fontsize=8
    )
    axes.set_xlim(low, high)


def _logit(share: float) -> float:
    """The logit of a probability, clipped so that it is finite for a threshold of 0 or 1."""
    inside = np.clip(share, LEAST, 1.0 - np.finfo(float).epsneg)
    return float(np.log(inside) - np.log1p(-inside))
