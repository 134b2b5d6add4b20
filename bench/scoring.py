"""Images per second of scoring by the gender and input models, in batches and one by one.

    python bench/scoring.py ROOT [--images 2000] [--one-by-one 40]

ROOT must have a gender model and input models. ``ours`` is the pipeline's way: each JPEG is decoded
once on all cores, the gender models compute the features of the regions, and the five processes use
these and the features of the parts of the face. One by one means: for each picture and each model
the JPEG is read again and the model is called through ``predict``. Pictures are repeated if ROOT
has fewer than ``--images``.
Prints the time of each part, its CPU time, and the share of the cores that it keeps busy: what is
computed limits the rate where the share is 1. The last line is one JSON object.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from common import command_line, data_root, print_result

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.features.extractor import Extractor, extract, load_extractor
from gaip3_pipeline.features.patches import HEIGHT, WIDTH
from gaip3_pipeline.imaging.packing import load_image, load_images
from gaip3_pipeline.training.attribute_model import load_input_model
from gaip3_pipeline.training.gender import load_gender_models, score_gender
from gaip3_pipeline.training_data import processed_table

BATCH = 256
Found = TypeVar("Found")


def timed(work: Callable[[], Found]) -> tuple[Found, tuple[float, float]]:
    """What ``work()`` returns, its seconds, and the CPU seconds of all threads."""
    start, used = time.monotonic(), time.process_time()
    found = work()
    return found, (time.monotonic() - start, time.process_time() - used)


def features_of(extractor: Extractor, path: Path, with_parts: bool = True) -> np.ndarray:
    """Features ``(2, 1, D)`` of one picture file, through ``predict``."""
    picture = load_image(path, HEIGHT, WIDTH)[None]
    both = np.concatenate([picture, picture[:, :, ::-1]])
    features = extractor.trunk.predict(both.astype(np.float32), verbose=0)
    if with_parts:
        features = np.concatenate([features, extractor.parts.features(both)], axis=1)
    return np.asarray(features, np.float16).reshape(2, 1, -1)


def main() -> None:
    """Score, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--one-by-one", type=int, default=40)
    a = parser.parse_args()
    known = processed_table(a.root).path.to_numpy()
    paths = [a.root.path / p for p in np.resize(known, a.images)]
    gender = load_gender_models(a.root.gender_model)
    extractor = load_extractor(a.root.feature_extractor)
    input_models = [load_input_model(a.root.input_model(x)) for x in ATTRIBUTES]
    warm = np.stack([load_image(p, HEIGHT, WIDTH) for p in paths[:BATCH]])
    score_gender(gender, extractor, [warm])
    for model in input_models:
        model.predict(extract(extractor, [warm[:64]]))

    def genders() -> np.ndarray:
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
        return score_gender(gender, extractor, batches)[1]

    def features_of_all() -> np.ndarray:
        found = [regions, extract(extractor, [images], with_trunk=False)]
        return np.concatenate(found, axis=2)

    images, decoding = timed(lambda: np.concatenate(list(load_images(paths, HEIGHT, WIDTH))))
    regions, by_gender = timed(genders)
    features, extracting = timed(features_of_all)
    _, by_values = timed(lambda: [model.predict(features) for model in input_models])
    parts = {
        "decoding": decoding,
        "gender": by_gender,
        "features": extracting,
        "values": by_values,
    }
    n, cores = len(paths), len(os.sched_getaffinity(0))
    wall, used = (sum(of) for of in zip(*parts.values(), strict=True))
    for name, (seconds, cpu) in parts.items():
        print(
            f"{name:12}{seconds:8.2f} s{n / seconds:10.0f} images/s{1000 * cpu / n:8.2f} CPU ms"
            f" an image, cores {cpu / seconds / cores:4.0%} busy"
        )

    def alone() -> None:
        for path in paths[: a.one_by_one]:
            for model, process in zip(gender.models, gender.processes, strict=True):
                picture = load_image(path, gender.height, gender.width)[None]
                model.predict(picture.astype(np.float32) / 255.0, verbose=0)
                process.logits(features_of(extractor, path, with_parts=False))
            for input_model in input_models:
                input_model.predict(features_of(extractor, path))

    _, (seconds, _) = timed(alone)
    ours, one_by_one = n / wall, a.one_by_one / seconds
    print(f"ours {ours:.0f} images/s, one by one {one_by_one:.1f}")
    print_result(
        {
            "ours_images_per_s": round(ours, 1),
            "one_by_one_images_per_s": round(one_by_one, 2),
            "times": round(ours / one_by_one, 1),
            "images": n,
            "cpu_ms": round(1000 * used / n, 2),
            "cores_busy": round(used / wall / cores, 2),
            "parts_s": {k: round(s, 2) for k, (s, _) in parts.items()},
            "parts_cpu_ms": {k: round(1000 * c / n, 2) for k, (_, c) in parts.items()},
        }
    )


if __name__ == "__main__":
    main()
