"""How well the review finds wrong labels among a root's hand labels, and its cost.

    python bench/label_review.py ROOT [--seeds 3] [--share 0.05] [--networks EPOCHS]
                                 [--attribute mouth ...] [--second CSV]

ROOT must hold checked labels, images and their features (``gaip3 refresh --root ROOT --select
label_review`` makes them). The predictions are those of ``label_review``: regressions on these
features, out of fold. A share of the labels is replaced by another level, drawn with its frequency
among the labels; wrong labels that existed before count against the method. Reported are the
average precision, and the precision among as many labels as were replaced, of the suspicion
(``review``) and of the plain residual, as means over the seeds. ``--networks`` adds convolutional
networks: cross-fitted in 3 folds with the given epochs on the first seed's labels (10 s to 1 min a
fold), alone (``network``) and averaged with the regressions (``both``). ``--second`` is an
independent labelling of some images (columns ``gender``, ``name`` and the attributes); ``auc``
measures how well the suspicion ranks the labels that differ from it. Prints a table; the last line
is one JSON object.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import command_line, data_root, network_values, print_result

from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.evaluation.review import look_wrong, review_labels
from gaip3_pipeline.layout import SET_OF_SEX
from gaip3_pipeline.metrics.classification import roc_auc
from gaip3_pipeline.metrics.regression import r_squared
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.label_regression import cross_fit
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images

NETWORK_FOLDS = 3
Figures = dict[str, Any]


def planted(values: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``values`` with a ``share`` of wrong ones, and ``(N,) bool`` that marks them."""
    generator = np.random.default_rng(seed)
    wrong = np.zeros(len(values), bool)
    wrong[generator.choice(len(values), round(share * len(values)), replace=False)] = True
    out = values.copy()
    out[wrong] = [generator.choice(values[values != v]) for v in values[wrong]]
    return out, wrong


def found(score: np.ndarray, wrong: np.ndarray) -> Figures:
    """Average precision of ``score``, and its precision among as many labels as are wrong."""
    hits = wrong[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return {
        "average_precision": float(precision[hits].mean()),
        "precision": float(precision[wrong.sum() - 1]),
    }


def of_network(
    attribute: str, images: np.ndarray, values: np.ndarray, bucket: np.ndarray, epochs: int
) -> np.ndarray:
    """Out-of-fold values of a convolutional network."""
    fold, predicted = folds_of(bucket, NETWORK_FOLDS), np.zeros(len(values))
    for k in range(NETWORK_FOLDS):
        split = np.where(fold == k, "test", "train")
        of_all = network_values(attribute, images, values, split, Network(epochs=epochs))
        predicted[fold == k] = of_all[fold == k]
    return predicted


def told_apart(
    attribute: str, second: pd.DataFrame, suspicion: np.ndarray, table: pd.DataFrame
) -> Figures:
    """How well ``suspicion`` of the labels in ``table`` ranks those that differ in the ``second``
    labelling: AUC and counts."""
    mine = pd.DataFrame({"key": table.key, "value": table.value, "suspicion": suspicion})
    mine["row"] = np.arange(len(mine))
    keys = [
        f"{SET_OF_SEX[sex.lower()].id}/{Path(name).stem}"
        for sex, name in zip(second.gender, second["name"], strict=True)
    ]
    others = pd.DataFrame({"key": keys, "other": second[attribute].to_numpy()})
    both = mine.merge(others, on="key").dropna()
    differ = both.value != both.other
    suspected = look_wrong(suspicion)[both.row]
    auc = roc_auc(both.suspicion.to_numpy(), differ.to_numpy())
    return {
        "n": len(both),
        "differ": int(differ.sum()),
        "auc": round(auc, 3),
        "look_wrong": int(suspected.sum()),
        "of_them": int((suspected & differ).sum()),
    }


def main() -> None:
    """Plant, cross-fit, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--networks", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    parser.add_argument("--second", type=Path, metavar="CSV")
    a = parser.parse_args()
    rows: dict[str, Figures] = {}
    for attribute in a.attribute:
        table, mirrored = labelled_table(a.root, attribute), attribute in MIRRORED
        values, bucket = table.value.to_numpy(), table.bucket.to_numpy()
        features = labelled_features(a.root, table.key)[0][:, : len(table)].astype(np.float32)
        start = time.monotonic()
        clean = cross_fit(features, values, bucket, mirrored)
        seconds = time.monotonic() - start
        row: Figures = {
            "n": len(values),
            "r2": r_squared(clean.predicted, values),
            "fit_s": seconds,
        }
        right = review_labels(values, clean.predicted, clean.variance)
        row["expected_wrong"] = right.expected_wrong
        if a.second:
            second = pd.read_csv(a.second)
            row["second labelling"] = told_apart(attribute, second, right.suspicion, table)
        tried: dict[str, list[Figures]] = {"review": [], "residual": []}
        for seed in range(a.seeds):
            given, wrong = planted(values, a.share, seed)
            fitted = cross_fit(features, given, bucket, mirrored)
            review = review_labels(given, fitted.predicted, fitted.variance)
            suspected = look_wrong(review.suspicion)
            counts = {
                "expected_wrong": review.expected_wrong,
                "look_wrong": int(suspected.sum()),
                "of_them": int((suspected & wrong).sum()),
            }
            tried["review"].append(found(review.suspicion, wrong) | counts)
            tried["residual"].append(found(np.abs(given - fitted.predicted), wrong))
            if a.networks and seed == 0:
                start = time.monotonic()
                images = resized_images(a.root, table)
                predicted = of_network(attribute, images, given, bucket, a.networks)
                row["network_s"] = time.monotonic() - start
                both = (predicted + fitted.predicted) / 2
                for name, p in {"network": predicted, "both": both}.items():
                    suspicion = review_labels(given, p, np.ones(len(given))).suspicion
                    tried[name] = [found(suspicion, wrong) | {"r2_right": r_squared(p, values)}]
                of_review = {"r2_right": r_squared(fitted.predicted, values)}
                tried["review, seed 0"] = [tried["review"][0] | of_review]
        for name, results in tried.items():
            means = {k: float(np.mean([x[k] for x in results])) for k in results[0]}
            row[name] = {k: round(v, 3) for k, v in means.items()}
        rows[attribute] = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print(attribute, *(f"{k} {v}" for k, v in rows[attribute].items()), sep="\n  ", flush=True)
    print_result({"share": a.share, "seeds": a.seeds, "network_epochs": a.networks, **rows})


if __name__ == "__main__":
    main()
