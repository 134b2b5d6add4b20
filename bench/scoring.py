"""Images/s of scoring: the gender models and all five input models, as the pipeline does it and one picture at a time.

    python bench/scoring.py ROOT [--images 2000] [--one-by-one 40]

ROOT must have a gender model and input models. Ours: each JPEG decoded once on all cores, batches through the gender models and through
the features, which the five processes share. One by one: for each picture and each of the same models the JPEG is read again and the
model called through ``predict``. Pictures repeat where ROOT has fewer than ``--images``. Prints where the time goes; the last line is one
JSON object.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.features.extractor import extract, load_extractor
from gaip3_pipeline.features.patches import HEIGHT, WIDTH
from gaip3_pipeline.imaging.packing import load_image, load_images
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.training.attribute_model import load_input_model
from gaip3_pipeline.training.gender import load_gender_models, score_gender
from gaip3_pipeline.training_data import processed_table


def timed(work):
    """What ``work()`` returns, and its seconds."""
    start = time.monotonic()
    found = work()
    return found, time.monotonic() - start


def features_of(extractor, path, with_parts=True):
    """Features ``(2, 1, D)`` of one picture file, through ``predict``."""
    picture = load_image(path, HEIGHT, WIDTH)[None]
    both = np.concatenate([picture, picture[:, :, ::-1]])
    features = extractor.trunk.predict(both.astype(np.float32), verbose=0)
    if with_parts:
        features = np.concatenate([features, extractor.parts.features(both)], axis=1)
    return np.asarray(features, np.float16).reshape(2, 1, -1)


def main() -> None:
    """Score, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--one-by-one", type=int, default=40)
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    paths = [root.path / p for p in np.resize(processed_table(root).path.to_numpy(), a.images)]
    gender, extractor = load_gender_models(root.gender_model), load_extractor(root.feature_extractor)
    processes = [load_input_model(root.input_model(x)) for x in ATTRIBUTES]
    warm = np.stack([load_image(p, HEIGHT, WIDTH) for p in paths[:256]])
    score_gender(gender, extractor, [warm])
    for process in processes:
        process.predict(extract(extractor, [warm[:64]]))

    images, decoding = timed(lambda: np.concatenate(list(load_images(paths, HEIGHT, WIDTH))))
    _, by_gender = timed(lambda: score_gender(gender, extractor, (images[i : i + 256] for i in range(0, len(images), 256))))
    features, extracting = timed(lambda: extract(extractor, [images]))
    _, by_processes = timed(lambda: [p.predict(features) for p in processes])
    parts = {"decoding": decoding, "gender": by_gender, "features": extracting, "values": by_processes}
    ours = len(paths) / sum(parts.values())
    for name, seconds in parts.items():
        print(f"{name:12}{seconds:8.2f} s{len(paths) / seconds:10.0f} images/s")

    def alone() -> None:
        for path in paths[: a.one_by_one]:
            for model, process in zip(gender.models, gender.processes, strict=True):
                picture = load_image(path, gender.height, gender.width)[None].astype(np.float32) / 255.0
                model.predict(picture, verbose=0)
                process.logits(features_of(extractor, path, with_parts=False))
            for process in processes:
                process.predict(features_of(extractor, path))

    _, seconds = timed(alone)
    one_by_one = a.one_by_one / seconds
    print(f"ours {ours:.0f} images/s, one by one {one_by_one:.1f}")
    result = {"ours_images_per_s": round(ours, 1), "one_by_one_images_per_s": round(one_by_one, 2), "times": round(ours / one_by_one, 1)}
    print(json.dumps(result | {"images": len(paths), "parts_s": {k: round(v, 2) for k, v in parts.items()}}))


if __name__ == "__main__":
    main()
