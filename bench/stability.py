"""Stability of the generator's training, by short trainings at small size.

    python bench/stability.py [--seeds 5] [--rates 1e-3 5e-3 2e-2] [--batches 8 16 32 64]
                              [--steps 60]

Trains the ``tiny`` preset on painted faces of 32 × 26, over seeds, learning rates and batch sizes.
Counts losses and weights that are not finite, and updates that were skipped because of their
gradient. Prints a table; the last line is one JSON object.
"""

import dataclasses
import math
import time

import numpy as np
from common import command_line, print_result
from keras import ops

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.faces.dataset import portraits
from gaip3_pipeline.faces.painter import paint
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.models.backend import compile_options, keep_freed_memory, seed_everything
from gaip3_pipeline.models.nvae.objective import NvaeTraining
from gaip3_pipeline.settings import Faces, Nvae, of_preset
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.generator import mirrored_at_random, optimizer


def trained(images: np.ndarray, values: np.ndarray, settings: Nvae, steps: int) -> dict[str, float]:
    """Train for ``steps`` steps; the first and last bits/dim, and counts of values that are not
    finite and of skipped updates."""
    seed_everything(settings.seed)
    training = NvaeTraining(settings, steps)
    training.compile(optimizer=optimizer(settings, steps, steps), **compile_options())
    training.optimizer.build(training.trainable_variables)
    data = {"image": images, "condition": values}
    batches = ArrayBatches(data, settings.batch_size, settings.seed, mirrored_at_random)
    keep_freed_memory()
    bits = []
    for i in range(steps):
        if i and i % len(batches) == 0:
            batches.on_epoch_end()
        training.reset_metrics()
        figures = training.train_on_batch(*batches[i % len(batches)], return_dict=True)
        bits.append(float(figures["bits_per_dim"]))
    broken = sum(not np.isfinite(ops.convert_to_numpy(w)).all() for w in training.weights)
    return {
        "first": bits[0],
        "last": float(np.mean(bits[-5:])),
        "no_numbers": sum(not math.isfinite(b) for b in bits) + broken,
        "skipped": float(ops.convert_to_numpy(training.optimizer.skipped)),
    }


def main() -> None:
    """Train all, report."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 5e-3, 2e-2])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=60)
    a = parser.parse_args()
    start = time.monotonic()
    base = of_preset("tiny").nvae
    faces = portraits(Faces(d1=0, female=128, male=0, size=128, seed=3))
    painted = np.stack([paint(p.face, 128) for p in faces])[:, :, 12:116]
    images = shrink(painted, base.height, base.width)
    values = np.array([[getattr(p.face, x) for x in ATTRIBUTES] for p in faces], np.float32)
    rows = []
    for batch in a.batches:
        for rate in a.rates:
            some = []
            for seed in range(1, a.seeds + 1):
                settings = dataclasses.replace(
                    base, batch_size=batch, learning_rate=rate, seed=seed
                )
                some.append(trained(images, values, settings, a.steps))
            first, last = ([r[k] for r in some] for k in ("first", "last"))
            no_numbers, skipped = (sum(r[k] for r in some) for k in ("no_numbers", "skipped"))
            print(
                f"batch {batch:3}  rate {rate:g}  bits/dim {np.mean(first):.2f} to "
                f"{min(last):.2f}-{max(last):.2f}  not finite {no_numbers}  skipped {skipped:.0f}",
                flush=True,
            )
            rows += some
    total = {k: sum(r[k] for r in rows) for k in ("no_numbers", "skipped")}
    seconds = round(time.monotonic() - start)
    print_result({"trainings": len(rows), "steps": a.steps, **total, "seconds": seconds})


if __name__ == "__main__":
    main()
