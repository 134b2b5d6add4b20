"""How well the input models do out of fold on a root's hand labels, beside a convolutional network for each value.

    python bench/input_models.py ROOT [--networks] [--folds 4] [--attribute head ...]

ROOT must hold what input_model_{attr} is made from (``gaip3 refresh --root ROOT --select input_model_head`` makes it). Fold = split bucket
modulo folds, so twins stay together; each labelled picture is predicted by the model that did not see it. ``--networks`` trains the network
that the evaluators are (60 epochs without blur) in as many folds: 10 to 40 s a fold and value for 790 pictures on two cores. Of painted
faces the R² against the exact values is given too (``exact``), and that of the labels' mean at each exact value (``taught``), which is
what a perfect learner of such labels would say. Prints a table; the last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.relevance import with_intervals
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.metrics.regression import r_squared
from gaip3_pipeline.settings import Network, load
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training import attribute_model
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images


def network(attribute, images, values, fold):
    """Out-of-fold values of a convolutional network."""
    from gaip3_pipeline.training.regressor import train_regressor

    predicted = np.zeros(len(values), np.float32)
    for k in np.unique(fold):
        split = np.where(fold == k, "test", "train")
        with tempfile.TemporaryDirectory() as folder:
            result = train_regressor([attribute], Examples(images, values[:, None], split), Network(), Run(Path(folder), "b"))
        predicted[fold == k] = result.predicted[fold == k, 0]
    return predicted


def exact_values(root: DataRoot, keys: pd.Series, attribute: str) -> np.ndarray | None:
    """What the painter painted; None for photographs."""
    if not root.truth.exists():
        return None
    truth = pd.read_csv(root.truth, dtype={"file": str})
    return keys.map(truth.set_index(truth.set + "/" + truth.file.map(lambda f: Path(f).stem))[attribute]).to_numpy()


def main() -> None:
    """Cross-fit, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--folds", type=int, default=attribute_model.FOLDS)
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    a = parser.parse_args()
    attribute_model.FOLDS = a.folds
    root, rows = DataRoot(a.root.resolve()), {}
    for attribute in a.attribute:
        table = labelled_table(root, attribute)
        values, bucket, female = table.value.to_numpy(), table.bucket.to_numpy(), (table.gender == "female").to_numpy()
        exact = exact_values(root, table.key, attribute)
        start = time.monotonic()
        features, groups = labelled_features(root, table.key)
        both = attribute_model.with_copies(attribute, values, table.stem)
        result = attribute_model.train_input_model(
            attribute, features, groups, both, np.tile(bucket, 2), load(root).input_model[attribute], repeats=2
        )
        found = {"process": (result.predicted[: len(values)], time.monotonic() - start)}
        if a.networks:
            start = time.monotonic()
            found["network"] = network(attribute, resized_images(root, table), values, folds_of(bucket, a.folds)), time.monotonic() - start
            found["mean of both"] = (found["process"][0] + found["network"][0]) / 2, 0.0
        rows[attribute] = {}
        for name, (predicted, seconds) in found.items():
            figures = with_intervals(predicted, values, female)
            row = {k: round(figures[k], 3) for k in ("n", "r2", "r2_low", "r2_high", "mae", "spearman")} | {"seconds": round(seconds, 1)}
            if exact is not None:
                taught = IsotonicRegression().fit(exact, values).predict(exact)
                row |= {"exact": round(r_squared(predicted, exact), 3), "taught": round(r_squared(taught, exact), 3)}
            rows[attribute][name] = row
            print(f"{attribute:12}{name:14}" + "".join(f"  {k} {v}" for k, v in rows[attribute][name].items()), flush=True)
    print(json.dumps({"folds": a.folds, **rows}))


if __name__ == "__main__":
    main()
