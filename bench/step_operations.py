"""Operations of the generator's compiled training step on JAX, and of its parts compiled alone.

    python bench/step_operations.py [--preset seed | --root ROOT] [--batch 32]

The network is that of a preset or of a root's settings. A proxy for what a GPU starts one by one;
needs none. The parts are those whose number of operations grows with the number of weights:
``update`` (the optimiser with the gradient's norm), ``average`` (the moving average) and ``power``
(the spectral penalty with its gradient). The rest of the step is forward and backward pass, without
control. Of each: ``stablehlo``, the operations
before compilation; ``instructions`` of the compiled program, those inside fusions included;
``fusions``; ``started``, the instructions of its main computation that compute or copy, each of
which is started on its own; ``compile_cpu_s``, the processor time of the compilation. Prints a
table; the last line is one JSON object.
"""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import command_line, data_root, print_result

TOTAL = 1000  # nominal steps of the training, of which none is run
# instructions of compiled programs that only name memory
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(", re.MULTILINE)


def figures(function: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """The counts of ``function``, which maps arrays to arrays, compiled for ``given``, whose first
    it may overwrite."""
    import jax

    lowered = jax.jit(function, donate_argnums=0).lower(*given)
    before = time.process_time()
    program = str(lowered.compile().as_text())
    seconds = time.process_time() - before
    instructions = INSTRUCTION.findall(program)
    main = INSTRUCTION.findall(program[program.index("\nENTRY ") :])
    return {
        "stablehlo": len(re.findall(r'= "?stablehlo\.', lowered.as_text())),
        "instructions": len(instructions),
        "fusions": instructions.count("fusion"),
        "started": sum(name not in FREE for name in main),
        "compile_cpu_s": round(seconds, 1),
    }


def values_in(scope: Any, variables: list[Any]) -> list[Any]:
    """What ``variables`` are worth at the end of a ``StatelessScope``."""
    return [scope.get_current_value(v) for v in variables]


def rows(training: Any, batch: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The counts of the step of ``training`` for ``batch``, and of its parts."""
    import jax
    import keras

    def values(variables: list[Any]) -> list[Any]:
        return [v.value for v in variables]

    optimizer, spectral = training.optimizer, training.spectral
    state, weights = values(optimizer.variables), values(training.trainable_variables)
    kernels = [v for v in training.trainable_variables if len(v.shape) == 4]

    def update(state: list[Any], gradients: list[Any], weights: list[Any]) -> Any:
        return optimizer.stateless_apply(state, gradients, weights)

    def power(right: list[Any], matrices: list[Any]) -> Any:
        def penalty(matrices: list[Any]) -> Any:
            mapping = zip([*spectral.variables, *kernels], [*right, *matrices], strict=True)
            with keras.StatelessScope(list(mapping)) as scope:
                return spectral.penalty(), values_in(scope, spectral.variables)

        return jax.value_and_grad(penalty, has_aux=True)(matrices)

    def average(before: list[Any]) -> list[Any]:
        with keras.StatelessScope(list(zip(training.variables, before, strict=True))) as scope:
            training._follow()
            return values_in(scope, training.variables)

    other, metrics = values(training.non_trainable_variables), values(training.metrics_variables)
    return {
        "step": figures(training.train_step, (weights, other, state, metrics), (batch,)),
        "update": figures(update, state, weights, weights),
        "average": figures(average, values(training.variables)),
        "power": figures(power, values(spectral.variables), values(kernels)),
    }


def main() -> None:
    """Build the training, count, report."""
    parser = command_line(__doc__)
    of = parser.add_mutually_exclusive_group()
    of.add_argument("--preset", default="seed")
    of.add_argument("--root", type=data_root)
    parser.add_argument("--batch", type=int, default=32)
    a = parser.parse_args()
    if os.environ.get("KERAS_BACKEND") != "jax":  # Keras reads it when it is imported
        done = subprocess.run(
            [sys.executable, *sys.argv],
            env=os.environ | {"KERAS_BACKEND": "jax"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(done.stdout, end="", flush=True)
        return

    from gaip3_pipeline.models.backend import compile_options, seed_everything
    from gaip3_pipeline.models.nvae.objective import NvaeTraining
    from gaip3_pipeline.settings import load, of_preset
    from gaip3_pipeline.training.generator import optimizer

    given = load(a.root) if a.root else of_preset(a.preset)
    settings = dataclasses.replace(given.nvae, batch_size=a.batch)
    seed_everything(1)
    training = NvaeTraining(settings, TOTAL)
    training.compile(optimizer=optimizer(settings, TOTAL, TOTAL), **compile_options())
    training.optimizer.build(training.trainable_variables)
    size = (a.batch, settings.height, settings.width, 3)
    batch = {"image": np.zeros(size, np.uint8), "condition": np.zeros((a.batch, 5), np.float32)}
    found = rows(training, batch)
    for name, counts in found.items():
        print(f"{name:8}", "  ".join(f"{k} {v}" for k, v in counts.items()))
    print_result({"preset": given.preset, "weights": len(training.nvae.weights), "rows": found})


if __name__ == "__main__":
    main()
