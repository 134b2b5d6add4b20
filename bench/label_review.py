"""How well wrong labels are found on a root's own hand labels, and what the predictions behind it cost.

    python bench/label_review.py ROOT [--seeds 3] [--share 0.05] [--networks EPOCHS] [--attribute mouth ...] [--second CSV]

ROOT must hold checked labels, images and their features (``gaip3 refresh --root ROOT --select label_review`` makes them). In a share of the
labels, another level drawn with its frequency among the labels is planted; the wrong labels that were there already count against the
method. Average precision and the precision among as many as were planted, means over the seeds. ``--networks`` cross-fits the input
model too, in 3 folds of so many epochs on the first seed's labels (10 s to 1 min a fold), alone and averaged with the review's predictions.
``--second`` is an independent labelling of some images (columns ``gender``, ``name`` and the attributes): how well the suspicion tells
apart those to which it gives another value (``auc``).
Prints a table; the last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.evaluation.review import LOOKS_WRONG, review_labels
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.metrics.classification import roc_auc
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.label_regression import cross_fit
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images

NETWORK_FOLDS = 3


def planted(values, share, seed):
    """``values`` with wrong ones among them, and ``(N,) bool`` of which."""
    generator = np.random.default_rng(seed)
    wrong = np.zeros(len(values), bool)
    wrong[generator.choice(len(values), round(share * len(values)), replace=False)] = True
    out = values.copy()
    out[wrong] = [generator.choice(values[values != v]) for v in values[wrong]]
    return out, wrong


def found(score, wrong):
    """Average precision of ``score``, and the precision among as many as are wrong."""
    hits = wrong[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return {"average_precision": float(precision[hits].mean()), "precision": float(precision[wrong.sum() - 1])}


def r2(predicted, values):
    """Share of the variance of ``values`` that ``predicted`` explains."""
    return float(1 - np.square(predicted - values).sum() / np.square(values - values.mean()).sum())


def network(attribute, images, values, bucket, section):
    """Out-of-fold values of a convolutional network."""
    from gaip3_pipeline.training.regressor import train_regressor

    fold, predicted = folds_of(bucket, NETWORK_FOLDS), np.zeros(len(values))
    for k in range(NETWORK_FOLDS):
        with tempfile.TemporaryDirectory() as folder:
            split = np.where(fold == k, "test", "train")
            result = train_regressor([attribute], Examples(images, values[:, None], split), section, Run(Path(folder), "b"))
        predicted[fold == k] = result.predicted[fold == k, 0]
    return predicted


def told_apart(attribute, second, suspicion, table):
    """How well ``suspicion`` of the labels in ``table`` ranks those that the ``second`` labelling sets otherwise: AUC and counts."""
    mine = pd.DataFrame({"key": table.key, "value": table.value, "suspicion": suspicion})
    keys = [f"{SET_OF_SEX[sex.lower()].id}/{Path(name).stem}" for sex, name in zip(second.gender, second["name"], strict=True)]
    both = mine.merge(pd.DataFrame({"key": keys, "other": second[attribute].to_numpy()}), on="key").dropna()
    differ = both.value != both.other
    looks = both.suspicion > LOOKS_WRONG
    auc = roc_auc(both.suspicion.to_numpy(), differ.to_numpy())
    return {
        "n": len(both),
        "differ": int(differ.sum()),
        "auc": round(auc, 3),
        "look_wrong": int(looks.sum()),
        "of_them": int((looks & differ).sum()),
    }


def main() -> None:
    """Plant, cross-fit, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--networks", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    parser.add_argument("--second", type=Path, metavar="CSV")
    arguments = parser.parse_args()
    root, rows = DataRoot(arguments.root.resolve()), {}
    for attribute in arguments.attribute:
        table, mirrored = labelled_table(root, attribute), attribute in MIRRORED
        values, bucket = table.value.to_numpy(), table.bucket.to_numpy()
        features = labelled_features(root, table.key)[0][:, : len(table)].astype(np.float32)
        start = time.monotonic()
        clean = cross_fit(features, values, bucket, mirrored)
        row = {"n": len(values), "r2": r2(clean.predicted, values), "fit_s": time.monotonic() - start}
        right = review_labels(values, clean.predicted, clean.variance)
        row["expected_wrong"] = right.expected_wrong
        if arguments.second:
            row["second labelling"] = told_apart(attribute, pd.read_csv(arguments.second), right.suspicion, table)
        tried = {"review": [], "residual": []}
        for seed in range(arguments.seeds):
            given, wrong = planted(values, arguments.share, seed)
            fitted = cross_fit(features, given, bucket, mirrored)
            review = review_labels(given, fitted.predicted, fitted.variance)
            look = review.suspicion > LOOKS_WRONG
            counts = {"expected_wrong": review.expected_wrong, "look_wrong": int(look.sum()), "of_them": int((look & wrong).sum())}
            tried["review"].append(found(review.suspicion, wrong) | counts)
            tried["residual"].append(found(np.abs(given - fitted.predicted), wrong))
            if arguments.networks and seed == 0:
                section = Network(epochs=arguments.networks)
                start = time.monotonic()
                predicted = network(attribute, resized_images(root, table), given, bucket, section)
                row["network_s"] = time.monotonic() - start
                for name, p in {"network": predicted, "both": (predicted + fitted.predicted) / 2}.items():
                    suspicion = review_labels(given, p, np.ones(len(given))).suspicion
                    tried[name] = [found(suspicion, wrong) | {"r2_right": r2(p, values)}]
                tried["review, seed 0"] = [tried["review"][0] | {"r2_right": r2(fitted.predicted, values)}]
        for name, results in tried.items():
            row[name] = {k: round(float(np.mean([x[k] for x in results])), 3) for k in results[0]}
        rows[attribute] = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print(attribute, *(f"{k} {v}" for k, v in rows[attribute].items()), sep="\n  ", flush=True)
    print(json.dumps({"share": arguments.share, "seeds": arguments.seeds, "network_epochs": arguments.networks, **rows}))


if __name__ == "__main__":
    main()
