"""The time of a refresh at full size: without changes, and after labels of one attribute changed.

    python bench/refresh.py [--root FOLDER] [--d1 10000 --female 3860 --male 3013] [--repeats 5]

Paints 16,873 originals of 256² (33,746 images of 128 × 104 with the brightness copies),
materialises every asset once, and measures the wall time of ``gaip3 refresh``. The input models
have the default settings, so that the time after relabelling is realistic; the networks are as
small and trained as briefly as those of the tests, since they only have to exist. ``unchanged_s``
is the median of the repeats. ``relabel_one_s`` is the time after 12 labels of mouth changed by a
quarter, until its model, the values of all images and their checks are fresh again.
``predictions_over_products`` is the time of its values over that of their matrix products alone, at
the rate of all cores. Prints the time of each part; the last line is one JSON object. A second call
uses the same root with its settings.
"""

import argparse
import statistics
import time

import numpy as np
from common import command_line, print_result
from full_size import own_seconds, settle, sized, timed

from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.imaging.mapping import cores, in_order
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.threads import one_blas_thread
from gaip3_pipeline.training.attribute_model import load_input_model

CHANGED, RELABELLED = 12, "mouth"
ONCE = "epochs = 1\nbatch_size = 64\nheight = 32\nwidth = 26\nwidth_multiplier = 0.5\n"


def settings_of(a: argparse.Namespace) -> str:
    """The root's settings: everything tiny but the input models."""
    labelled, every = a.female + a.male, a.d1 + a.female + a.male
    tables = {
        "faces": f"d1 = {a.d1}\nfemale = {a.female}\nmale = {a.male}\nsize = 256\n",
        # as many updates as in the tests
        "gender_model": f"epochs = {max(1, 6000 // labelled)}\n",
        # the tiny gender model is never certain; with 0 every image gets its values
        "final_dataset": "threshold = 0.0\n",
        "evaluator": ONCE,
        "control_regressor": ONCE,
        "nvae": f"epochs = {max(1, 1560 // every)}\n",
        "critic": "epochs = 1\n",
    }
    return 'preset = "tiny"\n' + "".join(f"[{name}]\n{text}" for name, text in tables.items())


def refresh(root: DataRoot, *words: str) -> tuple[float, str]:
    """Run ``gaip3 refresh``: its seconds and its output. Exits if it fails."""
    return timed("refresh", "--root", str(root.path), *words)


def listed(seconds: dict[str, float]) -> list[str]:
    """A line for each asset."""
    return [f"  {s:8.1f} s  {name}" for name, s in seconds.items()]


def relabel(root: DataRoot, attribute: str) -> None:
    """Move the first ``CHANGED`` labels by a quarter, towards the middle of the range."""
    store = LabelStore(root)
    first = list(store.values(attribute).items())[:CHANGED]
    edits = [
        Edit(attribute, *key, value + 0.25 if value < 0.5 else value - 0.25) for key, value in first
    ]
    store.apply(edits, who="bench")


@one_blas_thread
def product_rate(kind: type[np.floating], side: int = 2048) -> float:
    """Multiplications and additions per second of products of square matrices of ``kind``, one
    product on each core at a time, the best of three."""
    a = np.ones((side, side), kind)
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        for _ in in_order(lambda _: a @ a, range(4 * cores()), cores()):
            pass
        seconds.append(time.monotonic() - start)
    return 4 * cores() * 2 * side**3 / min(seconds)


def product_seconds(root: DataRoot, attribute: str) -> float:
    """The time of the matrix products in the predictions of ``attribute`` for all final images: the
    covariance with the labelled pictures and their mirror images, that matrix times the inverse,
    and the inverse itself, which is computed in double precision."""
    _, known, features = load_input_model(root.input_model(attribute)).features.shape
    images = np.load(root.features_final, mmap_mode="r").shape[1]
    single = 8 * (images + known) * known * features + 2 * images * known**2
    double = (1 / 3 + 2) * known**3
    return single / product_rate(np.float32) + double / product_rate(np.float64)


def main() -> None:
    """Paint, materialise everything once, measure."""
    parser = sized(command_line(__doc__), "refresh")
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    settle(a.root, settings_of(a))
    faces = load(a.root).faces
    write_dataset(a.root, faces)
    seconds, output = refresh(a.root)
    print(f"everything once: {seconds:.0f} s", *listed(own_seconds(output)), sep="\n", flush=True)

    unchanged = []
    for _ in range(a.repeats):
        seconds, output = refresh(a.root)
        if "Nothing is stale" not in output:
            raise SystemExit(f"something is stale that should not be:\n{output}")
        unchanged.append(seconds)
    print("unchanged:", *(f"{s:.2f}" for s in unchanged), "s", flush=True)

    relabel(a.root, RELABELLED)
    relabelled, output = refresh(a.root, "--select", f"input_values_{RELABELLED}")
    parts = own_seconds(output)
    limit = product_seconds(a.root, RELABELLED)
    print(f"relabel one: {relabelled:.1f} s", *listed(parts), sep="\n")
    print_result(
        {
            "unchanged_s": round(statistics.median(unchanged), 2),
            "relabel_one_s": round(relabelled, 1),
            "images": 2 * (faces.d1 + faces.female + faces.male),
            "relabel_parts_s": parts,
            "predictions_over_products": round(parts[f"input_values_{RELABELLED}"] / limit, 2),
        }
    )


if __name__ == "__main__":
    main()
