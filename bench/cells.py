"""How soon each kind of cell reaches a held-out likelihood on a root's final images, at equal latent layout.

    python bench/cells.py ROOT [--cells dense paper] [--minutes 4 12] [--picture curves.jpg]

Trains the root's own ``[nvae]`` settings with each kind of cell for so many minutes of training time, at a constant learning rate, and
takes the bits/dim of the validation split (averaged weights) after each epoch, which does not count as time. ``speedup`` is the time of
the second kind over that of the first to the lowest bits/dim that both reached. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
from matplotlib.figure import Figure

from gaip3_pipeline.assets.training_data import FinalImages, final_images
from gaip3_pipeline.evaluation.charts import jpeg
from gaip3_pipeline.evaluation.generator import bits_per_dim
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.models.backend import compile_options, keep_freed_memory, seed_everything
from gaip3_pipeline.models.nvae.objective import NvaeTraining
from gaip3_pipeline.settings import Nvae, load
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.generator import mirrored_at_random
from gaip3_pipeline.training.optimizer import SpikeSkippingAdamax
from gaip3_pipeline.training.pictures import shrink

Curve = list[tuple[float, float]]


def curve(data: FinalImages, settings: Nvae, minutes: float) -> Curve:
    """(Seconds of training, bits/dim of the validation split) after each epoch."""
    split = data.table.split.to_numpy()
    images = shrink(data.images, settings.height, settings.width)
    seen, held = split == "train", split == "validation"
    seed_everything(settings.seed)
    batches = ArrayBatches({"image": images[seen], "condition": data.values[seen]}, settings.batch_size, settings.seed, mirrored_at_random)
    training = NvaeTraining(settings, 60 * len(batches))
    # Constant after a warm-up of two epochs: a schedule that ends would favour the kind that sees more of it in its time.
    warmup = 2 * len(batches)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / warmup, 1, alpha=1.0, warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    adamax = SpikeSkippingAdamax(rate, settings.spike, beta_2=0.98, clip_norm=settings.clip_norm)
    training.compile(optimizer=adamax, **compile_options())
    training.optimizer.build(training.trainable_variables)
    training.train_on_batch(*batches[0])  # compiles
    keep_freed_memory()
    spent, points = 0.0, []
    while spent < 60 * minutes:
        start = time.perf_counter()
        for i in range(len(batches)):
            training.train_on_batch(*batches[i])
        batches.on_epoch_end()
        spent += time.perf_counter() - start
        points.append((round(spent, 1), round(bits_per_dim(training.ema, images[held], data.values[held]).bits_per_dim, 4)))
        print(f"  {settings.cell}  {points[-1][0]:8.1f} s  {points[-1][1]:.3f} bits/dim", flush=True)
    return points


def seconds_to(points: Curve, bits: float) -> float:
    """When the curve first reaches ``bits``, between epochs by straight lines."""
    best = np.minimum.accumulate([b for _, b in points])
    i = int(np.argmax(best <= bits))
    if i == 0:
        return points[0][0]
    (t0, _), (t1, _) = points[i - 1], points[i]
    return float(t0 + (t1 - t0) * (best[i - 1] - bits) / (best[i - 1] - best[i]))


def main() -> None:
    """Train each kind, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--cells", nargs=2, default=["dense", "paper"])
    parser.add_argument("--minutes", type=float, nargs=2, default=[4.0, 12.0])
    parser.add_argument("--picture", type=Path)
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    data, base = final_images(root, load(root)), load(root).nvae
    curves = {c: curve(data, dataclasses.replace(base, cell=c), m) for c, m in zip(a.cells, a.minutes, strict=True)}
    common = max(min(b for _, b in points) for points in curves.values())
    times = {c: round(seconds_to(points, common), 1) for c, points in curves.items()}
    if a.picture:
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for c, points in curves.items():
            axes.plot(*zip(*points, strict=True), label=c)
        axes.set(xscale="log", xlabel="seconds of training on this machine", ylabel="bits/dim, held out")
        axes.legend()
        a.picture.write_bytes(jpeg(figure))
    speedup = round(times[a.cells[1]] / times[a.cells[0]], 2)
    print(json.dumps({"bits_per_dim": common, "seconds": times, "speedup": speedup, "curves": curves}))


if __name__ == "__main__":
    main()
