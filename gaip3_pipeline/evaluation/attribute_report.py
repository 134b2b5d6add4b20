"""The report of the five values: out-of-fold errors, calibration of the uncertainty, differences
between sets and between brightness copies. Pure functions of tables and pictures."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gaip3_pipeline.attributes import ATTRIBUTES, BRIGHTENED, MEANINGS
from gaip3_pipeline.evaluation.charts import BLUE, GREEN, GREY, RED, default_style, jpeg
from gaip3_pipeline.evaluation.page import Entry, Report, both, words
from gaip3_pipeline.evaluation.page import table as page_table
from gaip3_pipeline.evaluation.wording import ATTRIBUTE_NAMES, attribute_words, figure_words
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import RATIOS, brightened_value, brightness_ratio
from gaip3_pipeline.metrics.intervals import Z_95, bootstrap_interval, wilson_interval
from gaip3_pipeline.metrics.regression import (
    MOST_LEVELS,
    mean_absolute_error,
    r_squared,
    root_mean_square_error,
    spearman,
)

SEED = 0
QUARTERS = np.linspace(0.0, 1.0, 5)
BINS = 5  # bins of the predicted deviations, with equal counts
SHOWN, COLUMNS = 24, 8  # pictures on a sheet
SEXES = ("female", "male")
COPIES = ("darker", "brighter")
TABLE_COLUMNS = ("attribute", "part", "figure", "value", "low", "high", "n")
Load = Callable[[str, str], np.ndarray]  # sex and stem of an original to (H, W, 3) uint8
Measure = Callable[[np.ndarray, np.ndarray], float]
Row = tuple[str, str, str, float, float, float, int]  # of TABLE_COLUMNS


def inputs_report(
    out_of_fold: Mapping[str, pd.DataFrame], final: pd.DataFrame, load: Load
) -> Report:
    """The report of the five values. Its table has one row for each figure, with the columns
    ``TABLE_COLUMNS``; ``low`` and ``high`` are 95 % bounds, or NaN.

    ``out_of_fold``, by attribute: a row for each labelled original, with ``key``, ``gender``,
    ``stem``, ``value``, ``predicted`` (0..1) and ``uncertainty``. ``final``: a row for each final
    image, with ``source``, ``original`` and, for each attribute, ``{attribute}`` (its value) and
    ``uncertainty_{attribute}``. ``load`` reads the picture of an original."""
    pairs = {a: brightness_pairs(final, a, out_of_fold[a].key) for a in ATTRIBUTES}
    originals = unseen_originals(final, out_of_fold)
    rows: list[Row] = []
    for attribute in ATTRIBUTES:
        rows += error_rows(attribute, out_of_fold[attribute])
        rows += level_rows(attribute, out_of_fold[attribute])
        rows += uncertainty_rows(attribute, out_of_fold[attribute])
        rows += set_rows(attribute, originals)
        rows += brightness_rows(attribute, pairs[attribute])
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    sections: dict[str, list[Entry]] = {
        "Out of fold": [
            (
                "all labels",
                {"": _shown(table, ["all"], ["r2", "mae", "spearman"])},
                {"predicted": predicted_chart(out_of_fold, table)},
            ),
            ("by sex", {"": _shown(table, SEXES, ["r2", "mae", "spearman"])}, {}),
        ],
        "Levels": [
            ("by level", {"": _levels_shown(table)}, {"levels": level_chart(out_of_fold, table)})
        ],
        "Uncertainty": [
            (
                "predicted standard deviation against errors",
                {"": _shown(table, ["all"], ["within_one", "within_two", "deviation", "rmse"])},
                {"uncertainty": uncertainty_chart(table)},
            )
        ],
        "Worst errors": [
            (a, {}, {f"worst_{a}": worst_sheet(out_of_fold[a], a, load)}) for a in ATTRIBUTES
        ],
        "D1 against D2": [
            (
                "values of the final originals, out of fold if labelled",
                {"": _shown(table, ["d1", "d2", "d1 - d2"], ["mean", "mean_uncertainty"])},
                {"sets": set_chart(originals)},
            )
        ],
        "Brightness copies": [
            (
                "change of the value from an original to its copy",
                {
                    "": _shown(
                        table,
                        [*COPIES, *map(_of_labelled, COPIES)],
                        ["mean_change", "mean_absolute_change", "transform"],
                    )
                },
                {"brightness": brightness_chart(pairs)},
            )
        ],
    }
    return Report(_lead(table), _flat(table), sections, table)


def _lead(metrics: pd.DataFrame) -> str:
    """What the page says first: how far the predictions of each value are from its labels."""
    rows = [
        [words(attribute_words(row[""])), row["mae"], row["r2"], row["n"]]
        for row in _shown(metrics, ["all"], ["mae", "r2"])
    ]
    told = both(
        "The models predict the hand labels of photographs that they have not seen. An error of .1"
        " is a tenth of a slider."
    )
    shown = page_table(["", "mae", "r2", "n"], rows)
    return f'<div class="lead"><p>{told}</p>{shown}</div>'


def levels_of(values: np.ndarray) -> np.ndarray:
    """``(N,)``: the level of each label: the label itself if the labels have few distinct values,
    else the nearest quarter."""
    return values if len(np.unique(values)) <= MOST_LEVELS else _nearest(values, QUARTERS)


def error_rows(attribute: str, table: pd.DataFrame) -> Iterator[Row]:
    """Rows of R², MAE and Spearman's correlation with bootstrap intervals, for all labels and by
    sex."""
    for part in ("all", *SEXES):
        of = table if part == "all" else table[table.gender == part]
        predicted, labelled = of.predicted.to_numpy(float), of.value.to_numpy(float)
        for name, figure in (
            ("r2", r_squared),
            ("mae", mean_absolute_error),
            ("spearman", spearman),
        ):
            value = figure(predicted, labelled) if len(of) else math.nan
            yield (
                attribute,
                part,
                name,
                value,
                *bootstrap_interval(figure, predicted, labelled),
                len(of),
            )


def level_rows(attribute: str, table: pd.DataFrame) -> Iterator[Row]:
    """Rows of each level: mean prediction, MAE and recall, which is the share of its pictures whose
    prediction is nearest to this level among all levels that occur."""
    levels, predicted, labelled = (
        levels_of(table.value.to_numpy(float)),
        table.predicted.to_numpy(float),
        table.value.to_numpy(float),
    )
    nearest = _nearest(predicted, np.unique(levels))
    for level in np.unique(levels):
        of = levels == level
        part, n, recalled = f"level {level:g}", int(of.sum()), int((nearest[of] == level).sum())
        yield (
            attribute,
            part,
            "mean_prediction",
            float(predicted[of].mean()),
            *_normal(predicted[of]),
            n,
        )
        yield (
            attribute,
            part,
            "mae",
            mean_absolute_error(predicted[of], labelled[of]),
            *_normal(np.abs(predicted - labelled)[of]),
            n,
        )
        yield attribute, part, "recall", recalled / n, *wilson_interval(recalled, n), n


def uncertainty_rows(attribute: str, table: pd.DataFrame) -> Iterator[Row]:
    """Rows of the shares of labels within one and two predicted standard deviations, and of root
    mean square deviation and RMSE, for all labels and for bins of the deviation."""
    predicted, labelled, deviation = (
        table[c].to_numpy(float) for c in ("predicted", "value", "uncertainty")
    )
    off = np.abs(predicted - labelled)
    for name, times in (("within_one", 1.0), ("within_two", 2.0)):
        inside = int((off <= times * deviation).sum())
        yield (
            attribute,
            "all",
            name,
            inside / max(len(off), 1),
            *wilson_interval(inside, len(off)),
            len(off),
        )
    order = np.argsort(deviation, kind="stable")
    bins = [b for b in np.array_split(order, BINS) if len(b)]
    for part, of in [("all", order), *((f"deviation bin {i}", b) for i, b in enumerate(bins, 1))]:
        yield (
            attribute,
            part,
            "deviation",
            _root_mean_square(deviation[of]),
            math.nan,
            math.nan,
            len(of),
        )
        error = root_mean_square_error(predicted[of], labelled[of])
        yield (
            attribute,
            part,
            "rmse",
            error,
            *bootstrap_interval(root_mean_square_error, predicted[of], labelled[of]),
            len(of),
        )


def unseen_originals(final: pd.DataFrame, out_of_fold: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The final originals, without copies, with values and uncertainties of models that were not
    trained on them: labelled ones have those out of fold.

    The model of all labels reproduces its labels (R² .90 to .98 on photographs), with a much
    smaller uncertainty than for other pictures. D1 has no labels, so this would appear as a
    difference between D1 and D2. The models of the folds have a quarter fewer labels, so their
    uncertainty is slightly larger."""
    originals = final[final.source.str.startswith("resized/")].copy()
    for attribute, table in out_of_fold.items():
        labelled = table.set_index("key")
        for column, unseen in (
            (attribute, "predicted"),
            (f"uncertainty_{attribute}", "uncertainty"),
        ):
            originals[column] = originals.original.map(labelled[unseen]).fillna(originals[column])
    return originals


def set_rows(attribute: str, originals: pd.DataFrame) -> Iterator[Row]:
    """Rows of the mean value and mean uncertainty of the final originals of D1 and D2, and of their
    differences."""
    of = _by_set(originals)
    for name, column in (("mean", attribute), ("mean_uncertainty", f"uncertainty_{attribute}")):
        values = {part: rows[column].to_numpy(float) for part, rows in of.items()}
        for part, found in values.items():
            yield attribute, part, name, _mean(found), *_normal(found), len(found)
        a, b = values["d1"], values["d2"]
        difference, half = (
            _mean(a) - _mean(b),
            Z_95 * math.hypot(_standard_error(a), _standard_error(b)),
        )
        yield (
            attribute,
            "d1 - d2",
            name,
            difference,
            difference - half,
            difference + half,
            len(a) + len(b),
        )


def brightness_pairs(
    final: pd.DataFrame, attribute: str, labelled: Collection[str]
) -> pd.DataFrame:
    """``ratio``, ``value``, ``change``, ``transform`` and ``labelled`` of every final original
    whose brightness copy is final, too.

    ``transform`` is the change that the brightness transform causes in a value that is a
    brightness. ``labelled`` tells whether the original's key is among the argument ``labelled``:
    the model was trained on such an original and on its copy."""
    is_original = final.source.str.startswith("resized/")
    both = final[is_original].merge(
        final[~is_original], on="original", suffixes=("", "_copy"), validate="one_to_one"
    )
    ratio = both.original.map(lambda key: brightness_ratio(key.partition("/")[2])).to_numpy(float)
    value = both[attribute].to_numpy(float)
    moved = brightened_value(value, ratio) - value
    change = both[f"{attribute}_copy"].to_numpy(float) - value
    seen = both.original.isin(set(labelled))
    return pd.DataFrame(
        {"ratio": ratio, "value": value, "change": change, "transform": moved, "labelled": seen}
    )


def brightness_rows(attribute: str, pairs: pd.DataFrame) -> Iterator[Row]:
    """Rows of the mean and the mean absolute change from original to copy; for the background also
    the change that the transform itself causes.

    Labelled pairs are reported separately: the model was trained on them, so only the others show
    its behaviour on new pictures."""
    for name, of_ratio in zip(COPIES, (pairs.ratio < 1, pairs.ratio > 1), strict=True):
        for part, chosen in ((name, ~pairs.labelled), (_of_labelled(name), pairs.labelled)):
            of = pairs[of_ratio & chosen]
            change = of.change.to_numpy()
            figures = {"mean_change": change, "mean_absolute_change": np.abs(change)}
            if attribute in BRIGHTENED:
                figures["transform"] = of["transform"].to_numpy()
            for figure, values in figures.items():
                yield attribute, part, figure, _mean(values), *_normal(values), len(of)


@default_style
def predicted_chart(out_of_fold: Mapping[str, pd.DataFrame], table: pd.DataFrame) -> bytes:
    """A JPEG: for each attribute the predictions against the labels, by sex, and the mean
    prediction of each level."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    panels = _panels(figure)
    for axes, attribute in zip(panels, ATTRIBUTES, strict=False):
        rows = out_of_fold[attribute]
        jitter = np.random.default_rng(SEED).normal(0, 0.012, len(rows))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        for sex, colour in zip(SEXES, (RED, BLUE), strict=True):
            of = (rows.gender == sex).to_numpy()
            axes.scatter(
                rows.value[of] + jitter[of],
                rows.predicted[of],
                s=9,
                alpha=0.45,
                color=colour,
                edgecolors="none",
                label=figure_words(sex)[0],
            )
        levels = _of(table, attribute, "mean_prediction")
        axes.plot(
            [_level(p) for p in levels.part],
            levels.value,
            color="black",
            marker="D",
            markersize=4,
            linewidth=1,
            label="mean",
        )
        r2, mae = (_of(table, attribute, f, "all").iloc[0] for f in ("r2", "mae"))
        caption = (
            f"R² {r2.value:.2f} [{r2.low:.2f}, {r2.high:.2f}], MAE {mae.value:.3f}, n ="
            f" {len(rows):,}"
        )
        axes.set_title(f"{attribute_words(attribute)[0]}\n{caption}", fontsize=9)
        axes.set(
            xlabel="label", ylabel="prediction, out of fold", xlim=(-0.06, 1.06), ylim=(-0.06, 1.06)
        )
    panels[0].legend(fontsize=8, loc="lower right")
    _write_lines(panels[5], [f"{a}: {MEANINGS[a]}" for a in ATTRIBUTES])
    return jpeg(figure)


@default_style
def level_chart(out_of_fold: Mapping[str, pd.DataFrame], table: pd.DataFrame) -> bytes:
    """A JPEG: for each attribute the MAE of each level by sex, and the recall of each level with
    intervals and counts."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels = figure.subplots(2, len(ATTRIBUTES))
    for (error, recall), attribute in zip(panels.T, ATTRIBUTES, strict=True):
        rows, recalls = out_of_fold[attribute], _of(table, attribute, "recall")
        levels, at = levels_of(rows.value.to_numpy(float)), np.arange(len(recalls))
        for shift, sex, colour in ((-0.2, "female", RED), (0.2, "male", BLUE)):
            heights = []
            for level in np.unique(levels):
                of = (levels == level) & (rows.gender == sex).to_numpy()
                heights.append(
                    mean_absolute_error(rows.predicted[of].to_numpy(), rows.value[of].to_numpy())
                )
            error.bar(at + shift, heights, 0.38, color=colour, label=figure_words(sex)[0])
        error.set_title(f"{attribute_words(attribute)[0]}: MAE", fontsize=9)
        ends = np.abs(recalls[["low", "high"]].to_numpy().T - recalls.value.to_numpy())
        recall.errorbar(
            at,
            recalls.value,
            ends,
            color="black",
            marker="o",
            markersize=4,
            capsize=3,
            linestyle="none",
        )
        for x, n in zip(at, recalls.n, strict=True):
            recall.annotate(f"n {n}", (x, 1.05), ha="center", fontsize=7, color="#555555")
        recall.set_ylim(-0.04, 1.15)
        recall.set_title(f"{attribute_words(attribute)[0]}: recall", fontsize=9)
        for axes in (error, recall):
            axes.set_xticks(at, [f"{_level(p):g}" for p in recalls.part])
            axes.set_xlim(-0.6, len(at) - 0.4)
            axes.tick_params(labelsize=8)
        recall.set_xlabel("label")
    panels[0, 0].legend(fontsize=8)
    return jpeg(figure)


@default_style
def uncertainty_chart(table: pd.DataFrame) -> bytes:
    """A JPEG: the predicted standard deviation against the RMSE, in five bins of the labels, and
    the shares of labels within one and two standard deviations."""
    figure = Figure(figsize=(11, 6.8), layout="constrained")
    panels = _panels(figure)
    for axes, attribute in zip(panels, ATTRIBUTES, strict=False):
        binned = table[(table.attribute == attribute) & table.part.str.startswith("deviation bin")]
        x = binned[binned.figure == "deviation"].value.to_numpy()
        error = binned[binned.figure == "rmse"]
        ends = np.abs(error[["low", "high"]].to_numpy().T - error.value.to_numpy())
        top = 1.1 * float(np.nanmax([x.max(initial=0.0), error.high.max(), 0.01]))
        axes.plot([0, top], [0, top], color=GREY, linewidth=1)
        axes.errorbar(
            x, error.value, ends, color=BLUE, marker="o", markersize=4, capsize=3, linewidth=1
        )
        axes.set(
            xlabel="predicted deviation", ylabel="RMSE, out of fold", xlim=(0, top), ylim=(0, top)
        )
        axes.set_title(
            f"{attribute_words(attribute)[0]}: five bins by predicted deviation", fontsize=9
        )
    at, shares = np.arange(len(ATTRIBUTES)), panels[5]
    for shift, name, colour, normal in (
        (-0.2, "within_one", BLUE, 0.683),
        (0.2, "within_two", GREEN, 0.954),
    ):
        of = (
            table[(table.part == "all") & (table.figure == name)]
            .set_index("attribute")
            .loc[list(ATTRIBUTES)]
        )
        ends = 100 * np.abs(of[["low", "high"]].to_numpy().T - of.value.to_numpy())
        bars = shares.bar(
            at + shift,
            100 * of.value,
            0.38,
            yerr=ends,
            color=colour,
            ecolor="#555555",
            label=name.replace("_", " "),
        )
        shares.bar_label(bars, fontsize=7, fmt="{:.0f}", label_type="center", color="white")
        shares.axhline(100 * normal, color=colour, linestyle="--", linewidth=1)
    shares.set_xticks(at, ATTRIBUTE_NAMES, fontsize=8, rotation=15)
    shares.set_ylim(0, 125)
    shares.set_title("labels within … deviations, %\n(dashed: normal distribution)", fontsize=9)
    shares.legend(fontsize=8, ncols=2, loc="upper center")
    return jpeg(figure)


def worst_sheet(table: pd.DataFrame, attribute: str, load: Load) -> bytes:
    """A JPEG of the pictures with the largest absolute error."""
    off = (table.predicted - table.value).abs()
    rows = table.loc[off.sort_values(ascending=False, kind="stable").index[:SHOWN]]
    captions = [f"{r.value:.2f} | {r.predicted:.2f}  {r.stem}" for r in rows.itertuples()]
    pictures = [load(str(r.gender), str(r.stem)) for r in rows.itertuples()]
    return contact_sheet(
        pictures,
        COLUMNS,
        captions=captions,
        title=f"{attribute}, {MEANINGS[attribute]}: label | predicted, worst first",
    )


@default_style
def set_chart(originals: pd.DataFrame) -> bytes:
    """A JPEG: histograms of the values and uncertainties of the final originals of D1 and of D2,
    each normalised to area 1."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    panels = figure.subplots(2, len(ATTRIBUTES))
    of = _by_set(originals)
    for i, attribute in enumerate(ATTRIBUTES):
        for axes, column in ((panels[0, i], attribute), (panels[1, i], f"uncertainty_{attribute}")):
            both = pd.concat([rows[column] for rows in of.values()])
            low, high = (
                (0.0, 1.0)
                if column == attribute
                else (float(both.min()) - 0.005, float(both.max()) + 0.005)
            )
            for (name, rows), colour in zip(of.items(), (GREEN, RED), strict=True):
                if len(rows):
                    bins, label = (
                        np.linspace(low, high, 21).tolist(),
                        f"{name.upper()} {rows[column].mean():.2f}",
                    )
                    drawn = (
                        {"histtype": "step", "linewidth": 1.5} if name == "d1" else {"alpha": 0.5}
                    )
                    axes.hist(rows[column], bins, density=True, color=colour, label=label, **drawn)
            axes.legend(fontsize=7, title="mean", title_fontsize=7)
            axes.set_yticks([])
            axes.tick_params(labelsize=8)
        panels[0, i].set_title(attribute_words(attribute)[0], fontsize=9)
    panels[0, 0].set_ylabel("values", fontsize=9)
    panels[1, 0].set_ylabel("uncertainties", fontsize=9)
    figure.suptitle(
        "final originals, out of fold where labelled: "
        + ", ".join(f"{name.upper()} n = {len(rows):,}" for name, rows in of.items()),
        fontsize=10,
    )
    return jpeg(figure)


@default_style
def brightness_chart(pairs: Mapping[str, pd.DataFrame]) -> bytes:
    """A JPEG: the change of each value from original to copy by brightness ratio; for the
    background also the change that the transform itself causes."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = _panels(figure)
    at = np.arange(len(RATIOS))
    new = {a: of[~of.labelled].groupby("ratio") for a, of in pairs.items()}
    quartiles = {
        a: [by.change.quantile(q).reindex(RATIOS).to_numpy() for q in (0.25, 0.75)]
        for a, by in new.items()
    }
    known = {a: of[of.labelled].groupby("ratio") for a, of in pairs.items()}
    means = {
        a: [by.change.mean().reindex(RATIOS).to_numpy() for by in (new[a], known[a])] for a in pairs
    }
    drawn = np.concatenate([values for a in pairs for values in (*quartiles[a], *means[a])])
    reach = 1.1 * float(np.nanmax(np.abs(drawn), initial=0.05))
    for axes, attribute in zip(panels, ATTRIBUTES, strict=False):
        axes.axhline(0, color=GREY, linewidth=1)
        axes.axvline(len(RATIOS) / 2 - 0.5, color=GREY, linewidth=1, linestyle=":")
        axes.vlines(
            at,
            quartiles[attribute][0],
            quartiles[attribute][1],
            color=BLUE,
            alpha=0.35,
            linewidth=5,
        )
        axes.plot(
            at,
            means[attribute][0],
            color=BLUE,
            marker="o",
            markersize=4,
            linewidth=1,
            label="mean; bars: quartiles",
        )
        axes.plot(
            at,
            means[attribute][1],
            color=GREEN,
            marker=".",
            markersize=3,
            linewidth=1,
            label="mean, labelled pairs",
        )
        if attribute in BRIGHTENED:
            transform = new[attribute]["transform"].mean().reindex(RATIOS)
            axes.plot(at, transform, color=RED, linestyle="--", label="change by the transform")
        if attribute in (ATTRIBUTES[0], *BRIGHTENED):
            axes.legend(fontsize=7, loc="upper left")
        axes.set_ylim(-reach, reach)
        axes.set_xticks(at, [f"{r:g}".removeprefix("0") for r in RATIOS], fontsize=7, rotation=45)
        n = int((~pairs[attribute].labelled).sum())
        axes.set_title(
            f"{attribute_words(attribute)[0]}: change from original to copy  (n = {n:,})",
            fontsize=9,
        )
        axes.set_xlabel("brightness ratio of the copy", fontsize=8)
    lines = [
        "blue: unlabelled final originals and their copies,",
        "not used to train the model",
        "green: labelled ones, used to train the model",
        "background should follow the dashed line,",
        "the others should stay at 0",
    ]
    _write_lines(panels[5], lines)
    return jpeg(figure)


def _flat(table: pd.DataFrame) -> dict[str, Any]:
    """Figures by name: ``r2_eyes``, ``r2_low_eyes``, ``female_mae_eyes``, …; levels and bins
    stay in the table."""
    figures: dict[str, Any] = {}
    for row in table.itertuples():
        part = str(row.part)
        if part.startswith(("level", "deviation")):
            continue
        prefix = "" if part == "all" else f"{part.replace(' - ', '_minus_').replace(', ', '_')}_"
        figures[f"{prefix}{row.figure!s}_{row.attribute!s}"] = row.value
        if part == "all" and row.figure in ("r2", "mae", "spearman"):
            figures |= {
                f"{row.figure!s}_{bound}_{row.attribute!s}": getattr(row, bound)
                for bound in ("low", "high")
            }
            figures[f"n_{row.attribute!s}"] = row.n
    return figures


def _shown(
    table: pd.DataFrame, parts: Sequence[str], figures: Sequence[str]
) -> list[dict[str, str]]:
    """Rows of a table on the page: for each attribute and part the ``figures`` with their
    intervals."""
    shown = []
    for attribute in ATTRIBUTES:
        for part in parts:
            of = table[(table.attribute == attribute) & (table.part == part)].set_index("figure")
            cells = {
                f.replace("_", " "): _with_interval(of.loc[f]) if f in of.index else ""
                for f in figures
            }
            n = str(int(of.n.max())) if len(of) else "0"
            shown.append(
                {"": attribute, **({"of": part} if len(parts) > 1 else {}), **cells, "n": n}
            )
    return shown


def _levels_shown(table: pd.DataFrame) -> list[dict[str, str]]:
    parts = sorted(table.part[table.part.str.startswith("level")].unique(), key=_level)
    shown = _shown(table, parts, ["mean_prediction", "mae", "recall"])
    return [row for row in shown if row["n"] != "0"]


def _with_interval(row: Any) -> str:
    value = f"{row.value:.3f}"
    return value if math.isnan(row.low) else f"{value} [{row.low:.3f}, {row.high:.3f}]"


def _of(table: pd.DataFrame, attribute: str, figure: str, part: str | None = None) -> pd.DataFrame:
    """Rows of one figure: those of ``part`` or, without it, those of the levels in their order."""
    of = table[(table.attribute == attribute) & (table.figure == figure)]
    return of[of.part == part] if part else of[of.part.str.startswith("level")]


def _of_labelled(part: str) -> str:
    return f"{part}, labelled"


def _level(part: str) -> float:
    return float(part.partition(" ")[2])


def _by_set(originals: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The originals of D1 and of D2."""
    is_d1 = originals.original.str.startswith("d1/")
    return {"d1": originals[is_d1], "d2": originals[~is_d1]}


def _nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return levels[np.abs(values[:, None] - levels[None]).argmin(axis=1)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _root_mean_square(values: np.ndarray) -> float:
    return math.sqrt(float(np.square(values).mean())) if len(values) else math.nan


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _normal(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean, by the normal approximation."""
    half = Z_95 * _standard_error(values)
    return _mean(values) - half, _mean(values) + half


def _panels(figure: Figure) -> list[Axes]:
    """Six panels: one for each attribute and one more."""
    return list(figure.subplots(2, 3).ravel())


def _write_lines(axes: Axes, lines: Sequence[str]) -> None:
    """Show ``lines`` of text in place of a chart."""
    axes.set_axis_off()
    axes.text(
        0.0,
        0.95,
        "\n".join(lines),
        va="top",
        fontsize=9,
        transform=axes.transAxes,
        linespacing=1.8,
        wrap=True,
    )
