"""NVAE on dynamically binarised MNIST, in nats, compared with the paper's 78.01.

    python bench/nvae_mnist.py FOLDER --data MNIST [--epochs 400] [--minutes 60] [--k 100]
                               [--images 1000] [--size cpu]

MNIST is a folder with ``train-images-idx3-ubyte.gz`` and ``t10k-images-idx3-ubyte.gz``. Trains on
the 60,000 training pictures, in which each pixel is white with the probability of its grey level,
drawn again for every batch, and stops after the given minutes or epochs. The same command continues
from the checkpoint in FOLDER (files of at most 16 MiB; the folder can be copied to continue on
another machine, also under another backend). Then the averaged weights are evaluated on test
pictures binarised once: the ELBO, and the importance-weighted estimate of the negative
log-likelihood with ``k`` posterior samples each (IWAE). ``--images`` is the number of test
pictures, at equal intervals; 10000 are all. Every epoch is a line of FOLDER/curve.csv. The last
line is one JSON object.
"""

import dataclasses
import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import command_line, folder, print_result

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.nvae.bound import bits_per_dim
from gaip3_pipeline.models.nvae.model import save_nvae
from gaip3_pipeline.models.nvae.objective import NvaeTraining
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.settings import Nvae
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import fit
from gaip3_pipeline.training.generator import optimizer
from gaip3_pipeline.training.run import Run

PAPER = 78.01
NATS = 28 * 28 * math.log(2.0)  # of one bit per dimension
MNIST = Nvae(
    height=28,
    width=28,
    likelihood="bernoulli",
    control=0.0,
    condition_dropout=0.0,
    batch_size=100,
    kl_warmup=0.1,
    ema=0.999,
    # All are 1, since here the likelihood is measured and not the quality of samples.
    kl_weights=(1.0,) * 5,
)
# Scales of 1, 2, 4, 7 and 14 pixels.
SIZES = {
    "cpu": dataclasses.replace(
        MNIST, channels=(64, 64, 64, 48, 32), latents=(16, 0, 8, 4, 1), cells=(1, 0, 2, 3, 1)
    ),
    "gpu": dataclasses.replace(
        MNIST,
        channels=(256, 256, 256, 192, 128),
        latents=(32, 0, 20, 20, 4),
        cells=(1, 0, 5, 10, 2),
    ),
    # for tests of the command
    "tiny": dataclasses.replace(
        MNIST, channels=(8, 8, 8, 8, 8), latents=(4, 0, 0, 0, 0), cells=(1, 0, 0, 0, 0)
    ),
}


class StopAfter(keras.callbacks.Callback):
    """Stops at the end of the epoch in which the time limit is reached."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self._end = time.monotonic() + 60.0 * minutes

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if time.monotonic() > self._end:
            self.model.stop_training = True


def read_pictures(path: Path) -> np.ndarray:
    """``(N, 28, 28, 1) uint8`` of an idx file."""
    data = gzip.decompress(path.read_bytes())
    magic, n, height, width = np.frombuffer(data, ">u4", 4)
    if magic != 2051:
        raise ValueError(f"{path} is no idx file of pictures")
    return np.frombuffer(data, np.uint8, offset=16).reshape(n, height, width, 1)


def binarised(
    batch: dict[str, np.ndarray], generator: np.random.Generator
) -> tuple[dict[str, np.ndarray]]:
    """Each pixel white with the probability of its grey level."""
    image = batch["image"]
    white = generator.random(image.shape, dtype=np.float32) * 255.0 < image
    nothing = np.zeros((len(image), len(ATTRIBUTES)), np.float32)
    return ({"image": white.astype(np.uint8) * 255, "condition": nothing},)


def seconds_of(curve: Path) -> float:
    """The seconds of all epochs so far, over all calls."""
    last = curve.read_text().splitlines()[-1].split(",")[1]
    return 0.0 if last == "seconds" else float(last)


def main() -> None:
    """Train on, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=folder)
    parser.add_argument("--data", type=Path, required=True, metavar="MNIST")
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--cell", choices=["dense", "paper"], default="dense")
    parser.add_argument(
        "--epochs",
        type=int,
        default=400,
        help="of the whole training, over all calls; the learning rate decreases until the last",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="of this call")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument(
        "--limit", type=int, help="number of training pictures, for tests of the command"
    )
    parser.add_argument("--device", default="2 CPU cores", help="hardware to name in the result")
    a = parser.parse_args()
    train = read_pictures(a.data / "train-images-idx3-ubyte.gz")[: a.limit]
    test = read_pictures(a.data / "t10k-images-idx3-ubyte.gz")
    # at equal intervals, since the first half of the file is easier than the second
    test = test[:: len(test) // a.images][: a.images]
    settings = dataclasses.replace(SIZES[a.size], cell=a.cell, epochs=a.epochs)
    seed_everything(settings.seed)
    batches = ArrayBatches({"image": train}, settings.batch_size, settings.seed, binarised)
    total = a.epochs * len(batches)
    training = NvaeTraining(settings, total)
    training.compile(optimizer=optimizer(settings, total, total), **compile_options())
    # Only settings that differ from their defaults, so that a setting added to the code later does
    # not prevent an old training from continuing.
    named = dataclasses.asdict(settings).items()
    chosen = {k: v for k, v in named if v != getattr(Nvae(), k)}
    curve = a.folder / "curve.csv"
    if not curve.exists():
        curve.write_text("epoch,seconds,train_nats\n")
    before, start = seconds_of(curve), time.monotonic()

    def log(epoch: int, figures: dict[str, float]) -> None:
        seconds, nats = before + time.monotonic() - start, figures["bits_per_dim"] * NATS
        with curve.open("a") as f:
            f.write(f"{epoch},{seconds:.0f},{nats:.3f}\n")

    run = Run(a.folder, json.dumps([chosen, len(train)]), log, Progress("  MNIST", 1))
    stop = StopAfter(a.minutes)
    history = fit(training, batches, run, epochs=a.epochs, callbacks=(stop,))
    save_nvae(training.ema, a.folder)
    (once,) = binarised({"image": test}, np.random.default_rng(0))
    bound = bits_per_dim(
        training.ema, once["image"], once["condition"], samples=a.k, batch_size=100
    )
    print_result(
        {
            "nll_nats": round(bound.importance_weighted * NATS, 3),
            "elbo_nats": round(bound.bits_per_dim * NATS, 3),
            "k": a.k,
            "n": bound.n,
            "minutes": round(seconds_of(curve) / 60, 1),
            "device": a.device,
            "parameters": int(training.nvae.count_params()),
            "epochs": len(history),
            "of_epochs": a.epochs,
            "kl": {k: round(v, 2) for k, v in bound.kl.items()},
            "paper_nats": PAPER,
            "backend": keras.backend.backend(),
        }
    )


if __name__ == "__main__":
    main()
