"""Speed of a training step of the detail network, compared with its convolutions alone.

    python bench/detail_step.py [--presets seed hq] [--steps 12]

Each row is measured in a process of its own, on the backend that KERAS_BACKEND names, without
guides. ``pictures_per_s``: samples and reconstructions by the median time of ``steps`` whole steps
(both networks forward and backward, both updates, moving average) on a batch in memory.
``over_convolutions``: that time over the sum of the times of all convolutions alone, forward and
with the gradients that the step needs, each the median of ten. ``peak_mb``: the process's peak
resident memory. Prints a table; the last line is one JSON object.
"""

import argparse
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from common import command_line, of_own_process, print_result
from keras import layers
from train_step import REPEATS, forward_and_backward, median_seconds

from gaip3_pipeline.models.backend import compile_options, keep_freed_memory, seed_everything
from gaip3_pipeline.models.detail import Convolution
from gaip3_pipeline.settings import of_preset
from gaip3_pipeline.training.detail import DetailTraining, optimizer

# filters, size of the kernel, padding, input's shape, gradient of the input?, of the weights?
Kind = tuple[int, tuple[int, ...], str, tuple[int, ...], bool, bool]


def convolutions(training: DetailTraining, batch: dict[str, np.ndarray]) -> Counter[Kind]:
    """Every convolution of one training step, equal ones counted."""
    found: Counter[Kind] = Counter()
    originals: dict[Any, Callable[..., Any]] = {
        kind: kind.call for kind in (layers.Conv2D, Convolution)
    }
    # the noise and the pictures that are judged get no gradient; those that shall please do
    first = {id(training.network.entry), id(training.discriminator.entry[0])}

    def plain(self: Any, inputs: Any) -> Any:
        with_input = id(self) not in first
        shape = tuple(inputs.shape)
        found[self.filters, tuple(self.kernel_size), self.padding, shape, with_input, True] += 1
        return originals[layers.Conv2D](self, inputs)

    def of_discriminator(self: Any, h: Any, training: bool = False, frozen: bool = False) -> Any:
        with_input = frozen or id(self) not in first
        kind = (self.filters, tuple(self.size), self.padding, tuple(h.shape), with_input)
        found[*kind, not frozen] += 1
        return originals[Convolution](self, h, training=training, frozen=frozen)

    replacing: dict[Any, Callable[..., Any]] = {
        layers.Conv2D: plain,
        Convolution: of_discriminator,
    }
    for layer, call in replacing.items():
        layer.call = call
    try:
        training(batch, training=True)
    finally:
        for layer, call in originals.items():
            layer.call = call
    return found


def alone_seconds(found: Counter[Kind]) -> float:
    """Seconds of all convolutions ``found``, each kind timed alone."""
    total, random = 0.0, np.random.default_rng(0)
    for (filters, size, padding, shape, with_input, with_weights), count in found.items():
        layer = layers.Conv2D(filters, size, padding=padding)
        layer.build(shape)
        layer.trainable = with_weights
        x = random.standard_normal(shape, dtype=np.float32)
        total += count * median_seconds(forward_and_backward(layer, x, with_input), REPEATS)
    return total


def row(preset: str, steps: int) -> dict[str, Any]:
    """One measurement in this process."""
    settings = of_preset(preset)
    n, height, width = settings.detail.batch_size, settings.nvae.height, settings.nvae.width
    seed_everything(1)
    random = np.random.default_rng(0)
    batch = {
        name: random.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        for name in ("sample", "rebuilt", "photograph")
    } | {name: random.random((n, 5)).astype(np.float32) for name in ("asked", "read")}
    training = DetailTraining(settings.detail, height, width)
    training.compile(optimizer=optimizer(training), **compile_options())
    keep_freed_memory()
    step = median_seconds(lambda: training.train_on_batch(batch), steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "preset": preset,
        "backend": keras.backend.backend(),
        "size": [height, width],
        "step_s": round(step, 4),
        "pictures_per_s": round(2 * n / step, 1),
        "over_convolutions": round(step / alone_seconds(convolutions(training, batch)), 3),
        "peak_mb": round(peak),
    }


def main() -> None:
    """Run every row in a process of its own, report."""
    parser = command_line(__doc__)
    parser.add_argument("--presets", nargs="+", default=["seed", "hq"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        print_result(row(a.one, a.steps))
        return
    rows = [of_own_process(__file__, "--one", p, "--steps", a.steps) for p in a.presets]
    print_result({"rows": rows})


if __name__ == "__main__":
    main()
