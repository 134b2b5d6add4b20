"""The training time that each kind of network needs to reach a held-out likelihood.

    python bench/cells.py ROOT [--kinds dense paper paper_stem] [--minutes 4 12 12] [--out FOLDER]

The data are a root's final images. All kinds have the same layout of latents. ``dense``: this
project's cells after the strided stem;
``paper``: the paper's cells after the same stem; ``paper_stem``: the paper's cells after the
paper's stem, a convolution at full size, with a decoder cell of half the width at that size. Each
kind is trained with the root's ``[nvae]`` settings for the given minutes, at a constant learning
rate and without control. After each epoch the bits/dim of the validation split (averaged weights)
are measured; this does not count as training time. At the end, samples at the root's temperature
are compared with the held-out pictures. ``seconds`` is the time to the lowest bits/dim that all
kinds reached. Writes curves.jpg and a contact sheet of each kind to ``--out``. The last line is one
JSON object.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from common import command_line, data_root, folder, print_result
from matplotlib.figure import Figure

from gaip3_pipeline.evaluation.charts import jpeg
from gaip3_pipeline.evaluation.samples import evaluate_samples
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.models.backend import compile_options, keep_freed_memory, seed_everything
from gaip3_pipeline.models.nvae.bound import bits_per_dim
from gaip3_pipeline.models.nvae.model import NVAE, readjust_normalization
from gaip3_pipeline.models.nvae.objective import NvaeTraining
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.settings import Nvae, Samples, load
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.generator import mirrored_at_random, optimizer
from gaip3_pipeline.training_data import FinalImages, final_images

Curve = list[tuple[float, float]]
KINDS = ("dense", "paper", "paper_stem")
CONSTANT = 10**6  # steps: a cosine of this length is flat for the steps of a training here


def of_kind(kind: str, base: Nvae) -> Nvae:
    """The settings of a kind of network with the latents of ``base``."""
    cell = "dense" if kind == "dense" else "paper"
    settings = dataclasses.replace(base, cell=cell, control=0.0)
    if kind != "paper_stem":
        return settings
    return dataclasses.replace(
        settings,
        stem=1,
        channels=(*base.channels, base.channels[-1] // 2),
        latents=(*base.latents, 0),
        cells=(*base.cells, 1),
        kl_weights=(*base.kl_weights, 1.0),
    )


def curve(kind: str, data: FinalImages, settings: Nvae, minutes: float) -> tuple[Curve, NVAE]:
    """(Seconds of training, bits/dim of the validation split) after each epoch, and the averaged
    model."""
    split = data.table.split.to_numpy()
    images = shrink(data.images, settings.height, settings.width)
    seen, held = split == "train", split == "validation"
    seed_everything(settings.seed)
    learned = {"image": images[seen], "condition": data.values[seen]}
    batches = ArrayBatches(learned, settings.batch_size, settings.seed, mirrored_at_random)
    training = NvaeTraining(settings, 60 * len(batches))
    # Constant after a warm-up of two epochs: a decaying schedule would favour the kind that
    # completes more of it in its time.
    warmed = dataclasses.replace(settings, warmup=2 * len(batches) / CONSTANT)
    training.compile(optimizer=optimizer(warmed, CONSTANT, CONSTANT), **compile_options())
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
        bound = bits_per_dim(training.ema, images[held], data.values[held])
        points.append((round(spent, 1), round(bound.bits_per_dim, 4)))
        print(f"  {kind}  {spent:8.1f} s  {bound.bits_per_dim:.3f} bits/dim", flush=True)
    first = data.values[seen][: settings.batch_size]
    readjust_normalization(training.ema, first, Samples.temperature)
    return points, training.ema


def seconds_to(points: Curve, bits: float) -> float:
    """The seconds at which the curve first reaches ``bits``, interpolated linearly between
    epochs."""
    best = np.minimum.accumulate([b for _, b in points])
    i = int(np.argmax(best <= bits))
    if i == 0:
        return points[0][0]
    (t0, _), (t1, _) = points[i - 1], points[i]
    return float(t0 + (t1 - t0) * (best[i - 1] - bits) / (best[i - 1] - best[i]))


def chart(curves: dict[str, Curve]) -> bytes:
    """A JPEG of all curves."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for kind, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=kind)
    axes.set(
        xscale="log", xlabel="seconds of training on this machine", ylabel="bits/dim, held out"
    )
    axes.legend()
    return jpeg(figure)


def main() -> None:
    """Train each kind, compare, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, nargs="+", default=[4.0, 12.0, 12.0])
    parser.add_argument("--out", type=folder)
    a = parser.parse_args()
    if len(a.kinds) != len(a.minutes):
        parser.error("give as many --minutes as --kinds")
    settings = load(a.root)
    temperature = settings.samples.temperature
    data = final_images(a.root, settings)
    learned = (data.table.split == "train").to_numpy()
    curves: dict[str, Curve] = {}
    figures: dict[str, Any] = {}
    for kind, minutes in zip(a.kinds, a.minutes, strict=True):
        curves[kind], model = curve(kind, data, of_kind(kind, settings.nvae), minutes)
        generator = FaceGenerator(model)
        fresh = evaluate_samples(generator, data.images, data.values, learned, settings.samples)
        figures[kind] = {"parameters": model.count_params(), **(fresh.figures if fresh else {})}
        print(f"  {kind}  {figures[kind]}", flush=True)
        if a.out and fresh:
            after = curves[kind][-1][0]
            title = f"{kind}: samples after {after:.0f} s at temperature {temperature:g}"
            sheet = contact_sheet(list(fresh.images[:40]), 10, title=title)
            (a.out / f"{kind}.jpg").write_bytes(sheet)
    reached = max(min(b for _, b in points) for points in curves.values())
    if a.out:
        (a.out / "curves.jpg").write_bytes(chart(curves))
    times = {kind: round(seconds_to(points, reached), 1) for kind, points in curves.items()}
    print_result({"bits_per_dim": reached, "seconds": times, "samples": figures, "curves": curves})


if __name__ == "__main__":
    main()
