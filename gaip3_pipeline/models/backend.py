"""What differs between Keras backends: gradients with respect to arrays, compile options, memory,
determinism.

The only module that imports TensorFlow or JAX, and only when one of them is asked for.
"""

import ctypes
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

# TensorFlow warns when several functions of one name are traced: here each is of another model, and
# traced once.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)

Value = np.ndarray
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
Gradients = list[np.ndarray]


def gradient(
    function: Callable[[list[Any]], Any],
) -> Callable[[Sequence[np.ndarray]], tuple[Value, Gradients]]:
    """A compiled function that gives the values of ``function`` and the gradients of their sum.

    ``function`` maps a list of float32 tensors to a tensor of any shape: for (B,) values of
    independent examples the gradient of the sum holds each example's own. The result maps a list
    of arrays to (values, one gradient per array); the gradient of an array that does not take
    part is 0. Raises ``NotImplementedError`` on backends other than TensorFlow and JAX."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_gradient(function)
    if backend == "jax":
        return _jax_gradient(function)
    raise NotImplementedError(
        "gradients with respect to arrays need the tensorflow or jax backend of Keras, not"
        f" {backend}"
    )


def compiled(function: Callable[[list[Any]], Any]) -> Callable[[Sequence[np.ndarray]], Value]:
    """``function``, which maps a list of float32 tensors to one tensor, compiled: from a list of
    arrays to an array."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function, reduce_retracing=True)
        return lambda arrays: traced([tf.convert_to_tensor(a, tf.float32) for a in arrays]).numpy()
    if backend == "jax":
        import jax

        traced = jax.jit(function)
        return lambda arrays: np.asarray(traced([np.asarray(a, np.float32) for a in arrays]))
    raise NotImplementedError(
        f"compiled functions of arrays need the tensorflow or jax backend of Keras, not {backend}"
    )


def compile_options() -> dict[str, Any]:
    """Options for ``Model.compile``. XLA makes convolutions 2 to 20 times slower on TensorFlow's
    CPU device, so it is off there."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return {"jit_compile": False if not tf.config.list_physical_devices("GPU") else "auto"}
    return {"jit_compile": "auto"}


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, a chain of elementwise operations on tensors, compiled to few loops over memory
    and differentiable as before.

    TensorFlow runs such a chain one operation after another unless XLA compiles it, anew for
    each shape; JAX does so anyway."""

    @functools.cache
    def compiled() -> Callable[..., Any]:
        if keras.backend.backend() != "tensorflow":
            return function
        import tensorflow as tf

        return tf.function(function, jit_compile=True)

    @functools.wraps(function)
    def call(*tensors: Any) -> Any:
        return compiled()(*tensors)

    return call


def keep_freed_memory() -> None:
    """Let the C library keep what is freed instead of handing it back to the system after every
    operation.

    TensorFlow's generator datasets, on which ``fit`` runs, set glibc's trim threshold to 128 KB;
    every step then faults its memory in anew, which took 40 % of a training step on CPU. Must
    come after such a dataset was made; does nothing elsewhere."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is what the backend raises when an array does not fit into memory."""
    # TensorFlow raises ResourceExhaustedError, JAX a runtime error that begins with the same
    # status.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or "RESOURCE_EXHAUSTED" in str(error)
    )


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and Keras, and ask TensorFlow for operations that give equal bits on
    every run."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _tensorflow_gradient(
    function: Callable[[list[Any]], Any],
) -> Callable[[Sequence[np.ndarray]], tuple[Value, Gradients]]:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def compiled(arrays: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            values = function(arrays)
        return values, tape.gradient(
            values, arrays, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def call(arrays: Sequence[np.ndarray]) -> tuple[Value, Gradients]:
        values, gradients = compiled([tf.convert_to_tensor(a, tf.float32) for a in arrays])
        return values.numpy(), [g.numpy() for g in gradients]

    return call


def _jax_gradient(
    function: Callable[[list[Any]], Any],
) -> Callable[[Sequence[np.ndarray]], tuple[Value, Gradients]]:
    import jax

    def total(arrays: list[Any]) -> tuple[Any, Any]:
        values = function(arrays)
        return values.sum(), values

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

    def call(arrays: Sequence[np.ndarray]) -> tuple[Value, Gradients]:
        (_, values), gradients = compiled([np.asarray(a, np.float32) for a in arrays])
        return np.asarray(values), [np.asarray(g) for g in gradients]

    return call
