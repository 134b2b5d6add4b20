"""Out-of-fold figures of the input models on a root's labels, compared with convolutional networks.

    python bench/input_models.py ROOT [--networks [EPOCHS]] [--folds 4] [--attribute head ...]

ROOT must hold the assets upstream of input_model_{attr} (``gaip3 refresh --root ROOT --select
input_model_head`` makes them). The fold is the split bucket modulo the number of folds, so twins
are in one fold; each labelled picture is predicted by the model that was not trained on it.
``--networks`` also trains the convolutional network of the evaluators, without blur (60 epochs by
default), in as many folds: 10 to 40 s per fold and value for 790 pictures on two cores. For painted
faces there are also the R² against the exact values (``exact``) and the R² of the labels' mean at
each exact value (``taught``), which is the prediction of a perfect learner of such labels.
``seconds`` are those of all folds. Prints a table; the last line is one JSON object.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import command_line, data_root, network_values, print_result
from sklearn.isotonic import IsotonicRegression

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.relevance import with_intervals
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.metrics.regression import r_squared
from gaip3_pipeline.settings import InputModel, Network, load
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training.attribute_model import FOLDS, fit_process, with_copies
from gaip3_pipeline.training_data import labelled_features, labelled_table, resized_images

SHOWN = ("n", "r2", "r2_low", "r2_high", "mae", "spearman")


def of_process(
    root: DataRoot, attribute: str, table: pd.DataFrame, fold: np.ndarray, settings: InputModel
) -> np.ndarray:
    """Out-of-fold values of the input model, which is trained on pictures and their brightness
    copies."""
    features, groups = labelled_features(root, table.key)
    values = with_copies(attribute, table.value.to_numpy(), table.stem)
    predicted = np.zeros(len(table), np.float32)
    for k in np.unique(fold):
        seen, held_out = np.tile(fold != k, 2), np.flatnonzero(fold == k)
        process = fit_process(attribute, features[:, seen], groups, values[seen], settings, 2)
        predicted[held_out], _ = process.predict(features[:, held_out])
    return predicted


def of_network(
    root: DataRoot, attribute: str, table: pd.DataFrame, fold: np.ndarray, epochs: int
) -> np.ndarray:
    """Out-of-fold values of a convolutional network."""
    images, values = resized_images(root, table), table.value.to_numpy()
    predicted = np.zeros(len(table), np.float32)
    for k in np.unique(fold):
        split = np.where(fold == k, "test", "train")
        of_all = network_values(attribute, images, values, split, Network(epochs=epochs))
        predicted[fold == k] = of_all[fold == k]
    return predicted


def exact_values(root: DataRoot, keys: pd.Series, attribute: str) -> np.ndarray | None:
    """The exact values of painted faces; None for photographs."""
    if not root.truth.exists():
        return None
    truth = pd.read_csv(root.truth, dtype={"file": str})
    stems = truth.file.map(lambda f: Path(f).stem)
    return keys.map(truth.set_index(truth.set + "/" + stems)[attribute]).to_numpy()


def main() -> None:
    """Cross-fit, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument(
        "--networks", type=int, nargs="?", const=Network.epochs, default=0, metavar="EPOCHS"
    )
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    a = parser.parse_args()
    settings = load(a.root)
    rows: dict[str, dict[str, Any]] = {}
    for attribute in a.attribute:
        table = labelled_table(a.root, attribute)
        values, female = table.value.to_numpy(), (table.gender == "female").to_numpy()
        fold = folds_of(table.bucket.to_numpy(), a.folds)
        exact = exact_values(a.root, table.key, attribute)
        start = time.monotonic()
        section = settings.input_model[attribute]
        process = of_process(a.root, attribute, table, fold, section)
        found = {"process": (process, time.monotonic() - start)}
        if a.networks:
            start = time.monotonic()
            network = of_network(a.root, attribute, table, fold, a.networks)
            found["network"] = network, time.monotonic() - start
            found["mean of both"] = (process + network) / 2, 0.0
        rows[attribute] = {}
        for name, (predicted, seconds) in found.items():
            figures = with_intervals(predicted, values, female)
            row = {k: round(figures[k], 3) for k in SHOWN} | {"seconds": round(seconds, 1)}
            if exact is not None:
                taught = IsotonicRegression().fit(exact, values).predict(exact)
                row["exact"] = round(r_squared(predicted, exact), 3)
                row["taught"] = round(r_squared(taught, exact), 3)
            rows[attribute][name] = row
            shown = "".join(f"  {k} {v}" for k, v in row.items())
            print(f"{attribute:12}{name:14}{shown}", flush=True)
    print_result({"folds": a.folds, **rows})


if __name__ == "__main__":
    main()
