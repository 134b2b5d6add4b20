"""How many random labels are worth as much as well-chosen ones, on a root's own hand labels.

    python bench/labelling.py ROOT [--seeds 6] [--attribute mouth ...] [--networks [EPOCHS]]
                              [--out curve.jpg]

ROOT must hold checked labels, images and their features (``gaip3 refresh --root ROOT --select
label_review`` makes them). Labelling is simulated: for each fold (split bucket modulo ``--folds``,
so twins are in one fold) the labels of the other folds are the pool. Both ways start with the same
random labels, as many as the first of ``--counts``. Then labels are added up to the next count,
either at random or those that ``label_review`` would rank first with models of the labels so far.
R² is that of the review's regressions over the held-out pictures of all folds. ``equivalent`` is
the number of random labels that reach the R² of ``--chosen`` well-chosen ones, null if no number
does; its interval is over the seeds, of which there must be at least two. ``--networks`` also
trains a convolutional network (60 epochs by default) on ``--chosen`` labels of either way (first
seed; 10 to 20 s a training). Writes a chart of the held-out R² to ``--out`` and prints a table; the
last line is one JSON object.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, data_root, network_values, print_result
from matplotlib.figure import Figure

from gaip3_pipeline.attributes import MIRRORED
from gaip3_pipeline.evaluation.charts import jpeg
from gaip3_pipeline.evaluation.review import next_images
from gaip3_pipeline.metrics.regression import r_squared
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.label_regression import (
    KernelRegression,
    fit_regressions,
    predict,
)
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images

ATTRIBUTES = ("mouth", "hair_color", "background", "head", "eyes")
COUNTS = (25, 50, 75, 100, 150, 200, 250, 300, 400, 500)
WAYS = ("random", "chosen")
RARE = 0.05  # of the labels


@dataclass(frozen=True)
class Labels:
    """The labels of one attribute: ``values (N,)``, ``features (2, N, D)`` of their pictures and
    ``fold (N,)``; ``mirrored``: a mirror image has 1 - value."""

    values: np.ndarray
    features: np.ndarray
    fold: np.ndarray
    mirrored: bool

    @property
    def folds(self) -> list[int]:
        """The folds that hold labels."""
        return np.unique(self.fold).tolist()


@dataclass(frozen=True)
class Curves:
    """``r2``: R² ``(seeds, counts)`` by way; ``orders``: rows by way and fold, for the first
    seed."""

    r2: dict[str, np.ndarray]
    orders: dict[str, dict[int, np.ndarray]]


def dealt(
    way: str, labels: Labels, pool: np.ndarray, counts: Sequence[int], seed: Sequence[int]
) -> tuple[np.ndarray, list[list[KernelRegression]]]:
    """Rows of ``pool`` in the order in which they are labelled, and the models at each of
    ``counts`` up to the size of the pool."""
    values, features = labels.values, labels.features
    shuffled = np.random.default_rng(seed).permutation(pool)
    order = shuffled[: counts[0]]
    models: list[list[KernelRegression]] = []
    for i, count in enumerate(counts):
        if count > len(pool):
            break
        if i and way == "random":
            order = shuffled[:count]
        elif i:
            known = np.full(len(pool), np.nan)
            known[np.searchsorted(pool, order)] = values[order]
            predicted, variance = predict(models[-1], features[:, pool])
            most = count - len(order)
            best = next_images(known, predicted, variance, features[:, pool], models[-1], most)
            order = np.concatenate([order, pool[best]])
        models.append(fit_regressions(features[:, order], values[order], labels.mirrored))
    return order, models


def curves(labels: Labels, counts: Sequence[int], seeds: int) -> Curves:
    """The R² of each way at those of ``counts`` that every pool reaches."""
    r2: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    orders: dict[str, dict[int, np.ndarray]] = {way: {} for way in WAYS}
    truth = np.concatenate([labels.values[labels.fold == k] for k in labels.folds])
    for seed in range(seeds):
        for way in WAYS:
            predicted = []
            for k in labels.folds:
                held_out, pool = np.flatnonzero(labels.fold == k), np.flatnonzero(labels.fold != k)
                order, models = dealt(way, labels, pool, counts, [seed, k])
                predicted.append([predict(m, labels.features[:, held_out])[0] for m in models])
                if seed == 0:
                    orders[way][k] = order
            at_each = (np.concatenate(of_folds) for of_folds in zip(*predicted, strict=False))
            r2[way].append([r_squared(p, truth) for p in at_each])
    return Curves({way: np.array(found) for way, found in r2.items()}, orders)


def equivalent(random: np.ndarray, chosen: np.ndarray, counts: Sequence[int], n: int) -> float:
    """How many random labels reach the R² of ``n`` chosen ones; infinite if the curve does not
    reach it."""
    curve = np.maximum.accumulate(random.mean(axis=0))
    target = chosen.mean(axis=0)[counts.index(n)]
    return float("inf") if target > curve[-1] else float(np.interp(target, curve, counts))


def interval(
    random: np.ndarray, chosen: np.ndarray, counts: Sequence[int], n: int, draws: int = 2000
) -> list[float]:
    """The 95 % bootstrap interval of :func:`equivalent` over the seeds, which both ways share."""
    picks = np.random.default_rng(0).integers(0, len(random), (draws, len(random)))
    found = [equivalent(random[p], chosen[p], counts, n) for p in picks]
    # A value that occurred, without interpolation, which is undefined between a number and
    # infinity.
    low, high = np.percentile(found, [2.5, 97.5], method="nearest").tolist()
    return [low, high]


def of_networks(
    attribute: str, images: np.ndarray, labels: Labels, found: Curves, n: int, epochs: int
) -> dict[str, float]:
    """R² over all folds of a convolutional network trained on the first ``n`` labels of each
    way."""
    out = {}
    for way in WAYS:
        predicted = np.zeros(len(labels.values), np.float32)
        for k in labels.folds:
            split = np.full(len(labels.values), "unused", dtype=object)
            split[found.orders[way][k][:n]], split[labels.fold == k] = "train", "test"
            settings = Network(epochs=epochs)
            of_all = network_values(attribute, images, labels.values, split, settings)
            predicted[labels.fold == k] = of_all[labels.fold == k]
        out[way] = r_squared(predicted, labels.values)
    return out


def rare(attribute: str, values: np.ndarray) -> np.ndarray:
    """``(N,) bool``: values that few pictures have; for eyes, values up to half closed."""
    if attribute == "eyes":
        return values <= 0.5
    levels, counts = np.unique(values, return_counts=True)
    return np.isin(values, levels[counts < RARE * len(values)])


def picture(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Write a chart of the curves of all attributes; bands are the standard error over the
    seeds."""
    figure = Figure(figsize=(3.1 * len(rows), 2.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(rows)))
    for axes, (attribute, row) in zip(panels, rows.items(), strict=True):
        for way, colour in zip(WAYS, ("#888888", "#bb5566"), strict=True):
            mean, error = np.array(row[f"r2_{way}"]), np.array(row[f"error_{way}"])
            axes.plot(row["labels"], mean, color=colour, label=way, marker=".")
            band = (mean - error, mean + error)
            axes.fill_between(row["labels"], *band, color=colour, alpha=0.2, linewidth=0)
        least = min(0.0, *row["r2_random"])
        axes.set(title=f"{attribute} (n = {row['n']})", xlabel="labels", ylim=(least, 1))
    axes.legend(loc="lower right", fontsize=8)
    figure.supylabel("held-out R²", fontsize=9)
    path.write_bytes(jpeg(figure))


def finite(number: float) -> int | None:
    """``number`` rounded, or None if it is infinite, since JSON has no infinity."""
    return round(number) if np.isfinite(number) else None


def main() -> None:
    """Simulate, fit, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--chosen", type=int, default=200, help="one of --counts")
    parser.add_argument(
        "--networks", type=int, nargs="?", const=Network.epochs, default=0, metavar="EPOCHS"
    )
    parser.add_argument("--out", type=Path, default=Path("labelling.jpg"))
    a = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for attribute in a.attribute:
        table = labelled_table(a.root, attribute)
        features = labelled_features(a.root, table.key)[0][:, : len(table)].astype(np.float32)
        fold = folds_of(table.bucket.to_numpy(), a.folds)
        labels = Labels(table.value.to_numpy(), features, fold, attribute in MIRRORED)
        found = curves(labels, a.counts, a.seeds)
        random, chosen = (found.r2[way] for way in WAYS)
        counts = list(a.counts[: random.shape[1]])
        if a.chosen not in counts:
            sys.exit(f"{a.root.path}: labels of {attribute} are too few for --chosen {a.chosen}")
        row: dict[str, Any] = {"n": len(table), "labels": counts}
        few = rare(attribute, labels.values)
        for way, r2 in found.r2.items():
            error = r2.std(axis=0, ddof=1) / np.sqrt(a.seeds)
            row[f"r2_{way}"] = [round(v, 4) for v in r2.mean(axis=0).tolist()]
            row[f"error_{way}"] = [round(v, 4) for v in error.tolist()]
            of_folds = [few[order[: a.chosen]].sum() for order in found.orders[way].values()]
            row[f"rare_{way}"] = round(float(np.mean(of_folds)), 1)
        row["equivalent"] = finite(equivalent(random, chosen, counts, a.chosen))
        row["interval"] = [finite(v) for v in interval(random, chosen, counts, a.chosen)]
        if a.networks:
            images = resized_images(a.root, table)
            row["networks"] = of_networks(attribute, images, labels, found, a.chosen, a.networks)
        rows[attribute] = row
        heads = " ".join(f"{c:5d}" for c in counts)
        print(f"{attribute} (n = {len(table)}, {a.seeds} seeds)  labels {heads}")
        for way in WAYS:
            of_way = " ".join(f"{v:5.3f}" for v in row[f"r2_{way}"])
            print(f"  {way:8} R² {of_way}   rare among {a.chosen}: {row[f'rare_{way}']}")
        low, high = ("∞" if v is None else v for v in row["interval"])
        as_many = "none" if row["equivalent"] is None else row["equivalent"]
        print(f"  {a.chosen} chosen = {as_many} at random ({low}–{high})", row.get("networks", ""))
    picture(a.out, rows)
    print_result({"seeds": a.seeds, **rows})


if __name__ == "__main__":
    main()
