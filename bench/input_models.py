"""How well the input models do out of fold on a root's hand labels, which takes one training per fold.

    python bench/input_models.py ROOT [--folds 3] [--attribute head ...] [--half]

ROOT must hold what input_model_{attr} is made from (``gaip3 refresh --root ROOT --select input_model_head`` makes it). Fold = split bucket
modulo folds, so twins stay together; each labelled picture is predicted by the model that did not see it, under ROOT's own settings.
``--half`` leaves the other half of the labels, the evaluators' odd buckets, out of training: what disjoint halves would cost. 2 minutes an
attribute for 792 pictures in 3 folds on two cores. Prints a table; the last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.assets.training_data import labelled_table, resized_images
from gaip3_pipeline.evaluation.regression import regression_figures
from gaip3_pipeline.layout import ATTRIBUTES, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.training.inputs import train_input_model


def out_of_fold(root: DataRoot, attribute: str, folds: int, half: bool) -> dict[str, float | int]:
    """The figures of ``attribute`` over all labelled pictures, and the seconds of a training."""
    table = labelled_table(root, attribute)
    bucket = table.bucket.to_numpy()
    images, values, fold = resized_images(root, table), table.value.to_numpy("float32"), bucket % folds
    usable = (bucket % 2 == 0) | (not half)
    predicted = np.zeros(len(values), np.float32)
    start = time.monotonic()
    for k in range(folds):
        split = np.where(fold == k, "test", np.where(usable, "train", "unused"))
        with tempfile.TemporaryDirectory() as folder:
            result = train_input_model(
                attribute, images, values, split, load(root).input_model[attribute], Path(folder), "bench", lambda step, figures: None
            )
        predicted[fold == k] = result.predicted[fold == k]
    figures = regression_figures(predicted, values)
    return {k: figures[k] for k in ("n", "r2", "mae", "spearman")} | {"seconds_a_fold": (time.monotonic() - start) / folds}


def main() -> None:
    """Train, predict, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--attribute", nargs="+", choices=ATTRIBUTES, default=ATTRIBUTES)
    arguments = parser.parse_args()
    root = DataRoot(arguments.root.resolve())
    rows = {}
    for attribute in arguments.attribute:
        rows[attribute] = {k: round(v, 3) for k, v in out_of_fold(root, attribute, arguments.folds, arguments.half).items()}
        print(f"{attribute:12}" + "".join(f"  {k} {v}" for k, v in rows[attribute].items()), flush=True)
    print(json.dumps({"folds": arguments.folds, "half": arguments.half, **rows}))


if __name__ == "__main__":
    main()
