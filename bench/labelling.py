"""How many labels at random do the work of well-chosen ones: held-out R² against the number of labels, on a root's own hand labels.

    python bench/labelling.py ROOT [--seeds 6] [--attribute mouth ...] [--networks] [--out curve.jpg]

ROOT must hold checked labels, images and their features (``gaip3 refresh --root ROOT --select label_review`` makes them). The labels are
dealt out anew: in each of four folds (split bucket modulo 4, so twins stay together) the other three are the pool. Both ways start from the
same 25 labels at random; then either as many again at random, or those that ``label_review`` would put first, in rounds, each round with
models of the labels so far. R² is that of the review's own regressions over the held-out pictures of all folds; the interval is over
the seeds. ``--networks`` also trains a convolutional network on 200 labels of either kind (first seed; 10 to 20 s a training).
Writes a picture of the curves; prints a table; the last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import MIRRORED
from gaip3_pipeline.evaluation.charts import jpeg
from gaip3_pipeline.evaluation.review import next_images
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.label_regression import fit_regressions, predict
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images

ATTRIBUTES = ("mouth", "hair_color", "background", "head", "eyes")
COUNTS = (25, 50, 75, 100, 150, 200, 250, 300, 400, 500)
FOLDS, WELL_CHOSEN = 4, 200
WAYS = ("random", "chosen")


def dealt(way, values, features, pool, mirrored, seed):
    """Rows of ``pool`` in the order in which they get their label, and the models at each of ``COUNTS`` that the pool fills."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(pool)
    order, models = shuffled[: COUNTS[0]], []
    for i, count in enumerate(COUNTS):
        if count > len(pool):
            break
        if i and way == "random":
            order = shuffled[:count]
        elif i:
            known = np.full(len(pool), np.nan)
            rows = np.searchsorted(pool, order)
            known[rows] = values[order]
            predicted, variance = predict(models[-1], features[:, pool])
            order = np.concatenate(
                [order, pool[next_images(known, predicted, variance, features[:, pool], models[-1], count - len(order))]]
            )
        models.append(fit_regressions(features[:, order], values[order], mirrored))
    return order, models


def r2(predicted, values):
    """Share of the variance of ``values`` that ``predicted`` explains."""
    return float(1 - np.square(predicted - values).sum() / np.square(values - values.mean()).sum())


def curves(values, features, fold, mirrored, seeds):
    """``(seeds, counts)`` R² of each way, and the orders of the first seed: way -> fold -> rows."""
    found, orders = {w: [] for w in WAYS}, {w: {} for w in WAYS}
    for seed in range(seeds):
        for way in WAYS:
            predicted = []
            for k in range(FOLDS):
                held_out, pool = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
                order, models = dealt(way, values, features, pool, mirrored, [seed, k])
                predicted.append([predict(m, features[:, held_out])[0] for m in models])
                if seed == 0:
                    orders[way][k] = order
            counts = min(len(p) for p in predicted)
            truth = np.concatenate([values[fold == k] for k in range(FOLDS)])
            found[way].append([r2(np.concatenate([p[i] for p in predicted]), truth) for i in range(counts)])
    return {w: np.array(f) for w, f in found.items()}, orders


def equivalent(random, chosen):
    """How many labels at random reach the R² of ``WELL_CHOSEN`` chosen ones; infinite where the curve does not reach it."""
    curve = np.maximum.accumulate(random.mean(axis=0))
    target = chosen.mean(axis=0)[COUNTS.index(WELL_CHOSEN)]
    counts = COUNTS[: len(curve)]
    return float("inf") if target > curve[-1] else float(np.interp(target, curve, counts))


def interval(random, chosen, rng, draws=2000):
    """95 % bootstrap interval of :func:`equivalent` over the seeds, which both ways share."""
    picks = rng.integers(0, len(random), (draws, len(random)))
    return [float(x) for x in np.percentile([equivalent(random[p], chosen[p]) for p in picks], [2.5, 97.5])]


def networks(attribute, images, values, fold, orders, section):
    """R² over all folds of a convolutional network trained on the first ``WELL_CHOSEN`` labels of either order."""
    from gaip3_pipeline.training.regressor import train_regressor

    out = {}
    for way in WAYS:
        predicted = np.zeros(len(values), np.float32)
        for k in range(FOLDS):
            split = np.full(len(values), "unused", dtype=object)
            split[orders[way][k][:WELL_CHOSEN]], split[fold == k] = "train", "test"
            with tempfile.TemporaryDirectory() as folder:
                result = train_regressor([attribute], Examples(images, values[:, None], split), section, Run(Path(folder), "b"))
            predicted[fold == k] = result.predicted[fold == k, 0]
        out[way] = r2(predicted, values)
    return out


def picture(path, rows):
    """The curves of all attributes, a panel each; bands are the standard error over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(rows), 2.9), layout="constrained")
    for axes, (attribute, row) in zip(np.atleast_1d(figure.subplots(1, len(rows))), rows.items(), strict=True):
        for way, colour in zip(WAYS, ("#888888", "#bb5566"), strict=True):
            mean, error = np.array(row[f"r2_{way}"]), np.array(row[f"error_{way}"])
            axes.plot(row["labels"], mean, color=colour, label=way, marker=".")
            axes.fill_between(row["labels"], mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axes.set(title=f"{attribute} (n = {row['n']})", xlabel="labels", ylim=(min(0.0, *row["r2_random"]), 1))
    axes.legend(loc="lower right", fontsize=8)
    figure.supylabel("held-out R²", fontsize=9)
    path.write_bytes(jpeg(figure))


def main() -> None:
    """Deal, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("labelling.jpg"))
    arguments = parser.parse_args()
    root, rows = DataRoot(arguments.root.resolve()), {}
    for attribute in arguments.attribute:
        table = labelled_table(root, attribute)
        values = table.value.to_numpy()
        fold, mirrored = folds_of(table.bucket.to_numpy(), FOLDS), attribute in MIRRORED
        features = labelled_features(root, table.key)[0][:, : len(table)].astype(np.float32)
        found, orders = curves(values, features, fold, mirrored, arguments.seeds)
        rare = values <= 0.5 if attribute == "eyes" else np.isin(values, [v for v in np.unique(values) if np.mean(values == v) < 0.05])
        row = {"n": len(values), "labels": COUNTS[: found["random"].shape[1]]}
        for way in WAYS:
            row[f"r2_{way}"] = [round(v, 4) for v in found[way].mean(axis=0)]
            row[f"error_{way}"] = [round(v, 4) for v in found[way].std(axis=0, ddof=1) / np.sqrt(arguments.seeds)]
            row[f"rare_{way}"] = round(float(np.mean([rare[o[:WELL_CHOSEN]].sum() for o in orders[way].values()])), 1)
        row["equivalent"] = round(equivalent(found["random"], found["chosen"]), 0)
        row["interval"] = [round(v) if np.isfinite(v) else v for v in interval(found["random"], found["chosen"], np.random.default_rng(0))]
        if arguments.networks:
            section = Network()
            row["networks"] = networks(attribute, resized_images(root, table), values.astype("float32"), fold, orders, section)
        rows[attribute] = row
        print(f"{attribute} (n = {row['n']}, {arguments.seeds} seeds)  labels " + " ".join(f"{c:5d}" for c in row["labels"]))
        for way in WAYS:
            print(f"  {way:8} R² " + " ".join(f"{v:5.3f}" for v in row[f"r2_{way}"]) + f"   rare among 200: {row[f'rare_{way}']}")
        print(
            f"  200 chosen = {row['equivalent']:g} at random ({row['interval'][0]:g}–{row['interval'][1]:g})",
            row.get("networks", ""),
            flush=True,
        )
    picture(arguments.out, rows)
    print(json.dumps({"seeds": arguments.seeds, **rows}))


if __name__ == "__main__":
    main()
