"""Speed and memory of a training step of the generator, compared with its convolutions alone.

    python bench/train_step.py [--presets demo seed] [--backends tensorflow jax]
                               [--cells dense paper] [--batch 32] [--steps 12]

Each row is measured in a process of its own. ``images_per_s``: by the median time of ``steps``
whole steps (forward, backward, update, moving average) on a batch in memory. ``over_convolutions``:
that time over the sum of the times of all its convolutions alone, forward and both gradients, at
the same shapes, each the median of ten. ``gflop_per_image``: the operations of these convolutions,
two for each multiply-add. ``share_of_matmul``: their rate over the rate of a product of two 2048²
float32 matrices. ``peak_mb``: the process's peak resident memory, of which Keras and its backend
take about 800 at import. ``input_images_per_s``: the input pipeline alone, with shuffling and
mirroring. Prints a table; the last line is one JSON object.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from common import command_line, of_own_process, print_result

TOTAL = 1000  # nominal steps of the training, of which only a few are run
REPEATS = 10  # of each convolution and of the matrix product
SIDE = 2048  # of the matrix product


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """The median time of ``work`` after one untimed call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def forward_and_backward(layer: Any, x: np.ndarray, with_input: bool) -> Callable[[], Any]:
    """A function that runs ``layer`` forward and computes the gradients of its weights and, if
    ``with_input``, of its input, and waits for the result."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        weights = [w.value for w in layer.trainable_variables]
        given = jax.numpy.asarray(x)

        def apply(weights: Any, given: Any) -> Any:
            return layer.stateless_call(weights, [], given)[0]

        @jax.jit
        def both(weights: Any, given: Any) -> Any:
            if with_input:
                y, pull = jax.vjp(apply, weights, given)
            else:
                y, pull = jax.vjp(lambda w: apply(w, given), weights)
            return pull(y)

        return lambda: jax.block_until_ready(both(weights, given))
    import tensorflow as tf

    constant = tf.constant(x)

    @tf.function
    def compiled() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(constant)
            y = layer(constant)
        sources = [w.value for w in layer.trainable_variables] + [constant] * with_input
        return tape.gradient(y, sources, output_gradients=y)

    return lambda: [g.numpy().ravel()[:1] for g in compiled()]


def convolutions(
    model: Any, batch: dict[str, np.ndarray]
) -> list[tuple[Any, tuple[int, ...], bool]]:
    """Every convolution of one forward pass: the layer, its input's shape, and whether its input
    needs a gradient."""
    from keras import layers

    found: list[tuple[Any, tuple[int, ...], bool]] = []
    kinds = (layers.Conv2D, layers.DepthwiseConv2D)
    originals = {kind: kind.call for kind in kinds}

    def recording(kind: type) -> Callable[..., Any]:
        def call(self: Any, inputs: Any) -> Any:
            found.append((self, tuple(inputs.shape), self is not model.encoder.stem))
            return originals[kind](self, inputs)

        return call

    for kind in kinds:
        kind.call = recording(kind)
    try:
        model(batch)
    finally:
        for kind in kinds:
            kind.call = originals[kind]
    return found


def flop(layer: Any, shape: tuple[int, ...], with_input: bool) -> float:
    """Operations per image of a convolution: forward, gradient of the kernel and, if
    ``with_input``, gradient of the input."""
    _, height, width, _ = layer.compute_output_shape(shape)
    return 2.0 * float(np.prod(layer.kernel.shape)) * height * width * (3 if with_input else 2)


def alone_seconds(found: list[tuple[Any, tuple[int, ...], bool]], repeats: int) -> float:
    """Total seconds of all convolutions ``found``, each timed alone; equal ones are timed once."""
    kinds = Counter(
        (type(layer), json.dumps(layer.get_config() | {"name": "alone"}), shape, with_input)
        for layer, shape, with_input in found
    )
    total, rng = 0.0, np.random.default_rng(0)
    for (kind, config, shape, with_input), count in kinds.items():
        layer = kind.from_config(json.loads(config))
        layer.build(shape)
        x = rng.standard_normal(shape, dtype=np.float32)
        total += count * median_seconds(forward_and_backward(layer, x, with_input), repeats)
    return total


def row(preset: str, cell: str, batch_size: int, steps: int) -> dict[str, Any]:
    """One measurement in this process, on the backend that KERAS_BACKEND names."""
    import keras

    from gaip3_pipeline.models.backend import compile_options, keep_freed_memory, seed_everything
    from gaip3_pipeline.models.nvae.objective import NvaeTraining
    from gaip3_pipeline.settings import of_preset
    from gaip3_pipeline.training.batches import ArrayBatches
    from gaip3_pipeline.training.generator import mirrored_at_random, optimizer

    settings = dataclasses.replace(of_preset(preset).nvae, cell=cell, batch_size=batch_size)
    seed_everything(1)
    rng = np.random.default_rng(0)
    size = (batch_size, settings.height, settings.width, 3)
    batch: dict[str, np.ndarray] = {
        "image": rng.integers(0, 256, size, dtype=np.uint8),
        "condition": rng.random((batch_size, 5)).astype(np.float32),
    }
    training = NvaeTraining(settings, TOTAL)
    training.compile(optimizer=optimizer(settings, TOTAL, TOTAL), **compile_options())
    training.optimizer.build(training.trainable_variables)
    keep_freed_memory()
    step = median_seconds(lambda: training.train_on_batch(batch), steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = convolutions(training.nvae, batch)
    alone = alone_seconds(found, REPEATS)
    square = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    a = keras.ops.convert_to_tensor(square)
    product = median_seconds(lambda: np.asarray(keras.ops.matmul(a, a))[0, 0], REPEATS)
    matmul = 2 * SIDE**3 / product
    operations = sum(flop(*each) for each in found)
    eight = {k: np.concatenate([v] * 8) for k, v in batch.items()}
    many = ArrayBatches(eight, batch_size, 1, mirrored_at_random)
    fed = median_seconds(lambda: [many[i] for i in range(8)], 5)
    return {
        "preset": preset,
        "backend": keras.backend.backend(),
        "cell": cell,
        "batch": batch_size,
        "images_per_s": round(batch_size / step, 1),
        "over_convolutions": round(step / alone, 3),
        "peak_mb": round(peak),
        "gflop_per_image": round(operations / 1e9, 3),
        "share_of_matmul": round(operations * batch_size / step / matmul, 3),
        "matmul_gflop_per_s": round(matmul / 1e9),
        "input_images_per_s": round(8 * batch_size / fed),
        "parameters": int(training.nvae.count_params()),
    }


def main() -> None:
    """Run every row in a process of its own, report."""
    parser = command_line(__doc__)
    parser.add_argument("--presets", nargs="+", default=["demo", "seed"])
    parser.add_argument("--backends", nargs="+", default=["tensorflow"])
    parser.add_argument("--cells", nargs="+", default=["dense", "paper"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", nargs=2, metavar=("PRESET", "CELL"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        preset, cell = a.one
        print_result(row(preset, cell, a.batch, a.steps))
        return
    same = ("--batch", a.batch, "--steps", a.steps)
    rows = [
        of_own_process(__file__, "--one", preset, cell, *same, KERAS_BACKEND=backend)
        for preset in a.presets
        for backend in a.backends
        for cell in a.cells
    ]
    print_result({"rows": rows})


if __name__ == "__main__":
    main()
