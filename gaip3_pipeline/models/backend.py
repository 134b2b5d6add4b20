"""The differences between Keras backends: gradients with respect to arrays, compile options,
memory, determinism, trainings on several processes.

This is the only module that imports TensorFlow or JAX, and it does so only when a function needs
one of them."""

import ctypes
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

# TensorFlow warns when several functions of the same name are traced. Here each belongs to another
# model and is traced once.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)

Value = np.ndarray
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
Gradients = list[np.ndarray]


def gradient(
    function: Callable[[list[Any]], Any],
) -> Callable[[Sequence[np.ndarray]], tuple[Value, Gradients]]:
    """A compiled function that returns the values of ``function`` and the gradients of their sum.

    ``function`` maps a list of float32 tensors to a tensor of any shape. For (B,) values of
    independent examples, the gradient of the sum contains the gradient of each example. The result
    maps a list of arrays to (values, one gradient per array); the gradient of an array that is not
    used is 0. Raises ``NotImplementedError`` on backends other than TensorFlow and JAX."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_gradient(function)
    if backend == "jax":
        return _jax_gradient(function)
    raise NotImplementedError(
        "gradients with respect to arrays need the tensorflow or jax backend of Keras, not"
        f" {backend}"
    )


def follow(average: keras.Model, network: keras.Model, most: float, step: Any) -> None:
    """Update the moving ``average`` of a network's weights and count ``step``, a variable. The
    average keeps the share ``most`` of itself; over the first steps it is a plain mean."""
    keep = keras.ops.minimum(most, step / (step + 10.0))
    add = 1.0 - keep
    for mean, weight in zip(average.weights, network.weights, strict=True):
        mean.assign(mean * keep + keras.ops.stop_gradient(weight) * add)
    step.assign(step + 1.0)


def compiled(
    function: Callable[[Any], Any], network: keras.Model | None = None
) -> Callable[[Any], Any]:
    """``function``, which maps a structure of tensors to another one, compiled: it maps arrays to
    arrays, floats as float32. The first axis of each array is that of the batch.

    Each call uses the weights that ``network`` has then, and updates its variables as ``function``
    does, such as the seeds of its noise. Without ``network`` the weights that ``function`` uses
    must not change. Raises ``NotImplementedError`` on backends other than TensorFlow and JAX."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        traced = _traced(function)
        return lambda given: keras.tree.map_structure(
            lambda tensor: tensor.numpy(), traced(_in_single_precision(given))
        )
    if backend == "jax":
        return _compiled_by_jax(function, network)
    raise NotImplementedError(
        f"compiled functions of arrays need the tensorflow or jax backend of Keras, not {backend}"
    )


def compile_options() -> dict[str, Any]:
    """Options for ``Model.compile``. XLA is off on TensorFlow's CPU device, where it makes
    convolutions 2 to 20 times slower."""
    if keras.backend.backend() == "tensorflow":
        return {"jit_compile": "auto" if has_gpu() else False}
    return {"jit_compile": "auto"}


def has_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    return False


def precision_of(setting: str) -> str:
    """``float32`` or ``bfloat16`` for the setting ``precision``: for ``auto``, what this machine
    computes faster."""
    return ("bfloat16" if has_gpu() else "float32") if setting == "auto" else setting


@contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Layers that are made in the block compute in ``precision``, with weights of float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, a chain of elementwise operations on tensors, compiled to few loops over
    memory; it remains differentiable.

    TensorFlow runs such a chain operation by operation unless XLA compiles it, once per shape; JAX
    compiles it anyway."""

    @functools.cache
    def compiled() -> Callable[..., Any]:
        if keras.backend.backend() != "tensorflow":
            return function
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*tensors: Any) -> Any:
        return compiled()(*tensors)

    return call


def keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of returning it to the system after every
    operation.

    TensorFlow's generator datasets, which ``fit`` uses, set glibc's trim threshold to 128 KB. Then
    every step allocates its memory again by page faults, which took 40 % of a training step on CPU.
    Must be called after such a dataset was created; does nothing on other systems than Linux with
    glibc."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is the backend's error for an array that does not fit into memory."""
    # TensorFlow raises ResourceExhaustedError, JAX a runtime error that begins with the same
    # status.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or "RESOURCE_EXHAUSTED" in str(error)
    )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and Keras, and make TensorFlow's operations deterministic, with equal bits
    in every run."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


class WorldError(RuntimeError):
    """A training runs on another number of processes than it was asked to."""


class Replicas(keras.distribution.DataParallel):
    """Copies of the model on all devices of all processes that train it together."""

    def __init__(self) -> None:
        super().__init__(auto_shard_dataset=False)  # ArrayBatches splits its batches
        self.splits = True

    def get_data_layout(self, data_shape: Any) -> Any:
        """The parts of a batch on one device each, or with ``splits`` off the whole on every
        device."""
        if self.splits:
            return super().get_data_layout(data_shape)
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def join(coordinator: str, rank: int, world: int) -> None:
    """Make this process number ``rank`` of the ``world`` processes that train one model together.

    Every process holds all weights and computes its part of each batch; means, noise and norms are
    those of the whole batch. To be called in every process before the first array is made, with the
    address ``HOST:PORT`` at which process 0 listens. Raises :class:`WorldError` on backends other
    than JAX, and if the group has another size."""
    if keras.backend.backend() != "jax":
        raise WorldError(
            f"{world} processes train one model only with JAX, not with {keras.backend.backend()}:"
            " set KERAS_BACKEND=jax, or workers = 1 under [cluster] in gaip3.toml"
        )
    import jax

    # between CPU devices; GPUs have NCCL
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, world, rank)
    check_world(world)
    # Models that are loaded before a training sets its seed begin with random weights, and JAX
    # refuses variables that differ between processes.
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(Replicas())


def check_world(world: int) -> None:
    """Raise :class:`WorldError` unless ``world`` processes train together. With fewer, each would
    train alone on a part of the pictures."""
    found = 1
    if world > 1 and keras.backend.backend() == "jax":
        import jax

        found = jax.process_count()
    if found != world:
        raise WorldError(
            f"{world} processes were to train one model together, but this one found {found}: run"
            " the same command again; the last checkpoint is kept"
        )


def devices() -> int:
    """The number of devices that share a batch."""
    replicas = keras.distribution.distribution()
    return replicas.num_model_replicas if replicas else 1


def split_batches(splits: bool) -> None:
    """Whether the batches that this process passes to the model are its parts of batches, as in
    training, or whole batches. The last batch of a validation need not be divisible."""
    replicas = keras.distribution.distribution()
    if replicas:
        replicas.splits = splits


def _in_single_precision(arrays: Any) -> Any:
    def single(array: Any) -> np.ndarray:
        given = np.asarray(array)
        return given.astype(np.float32) if given.dtype == np.float64 else given

    return keras.tree.map_structure(single, arrays)


def _compiled_by_jax(
    function: Callable[[Any], Any], network: keras.Model | None
) -> Callable[[Any], Any]:
    import jax

    # weights as arguments: as constants they would be those of the first call
    variables = list(network.variables) if network else []
    updated: list[Any] = []  # those that the function assigns, known once it is traced

    @jax.jit
    def traced(weights: list[Any], arrays: Any) -> Any:
        with keras.StatelessScope(zip(variables, weights, strict=True)) as scope:
            before = [scope.get_current_value(v) for v in variables]
            found = function(arrays)
            now = [scope.get_current_value(v) for v in variables]
        assigned = [i for i, value in enumerate(now) if value is not before[i]]
        updated[:] = [variables[i] for i in assigned]
        return found, [now[i] for i in assigned]

    def call(given: Any) -> Any:
        found, values = traced([v.value for v in variables], _in_single_precision(given))
        for variable, value in zip(updated, values, strict=True):
            variable.assign(value)
        return keras.tree.map_structure(np.asarray, found)

    return call


def _tensorflow_gradient(
    function: Callable[[list[Any]], Any],
) -> Callable[[Sequence[np.ndarray]], tuple[Value, Gradients]]:
    import tensorflow as tf

    def with_gradients(arrays: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            values = function(arrays)
        return values, tape.gradient(
            values, arrays, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    traced = _traced(with_gradients)

    def call(arrays: Sequence[np.ndarray]) -> tuple[Value, Gradients]:
        values, gradients = traced([np.asarray(a, np.float32) for a in arrays])
        return values.numpy(), [g.numpy() for g in gradients]

    return call


def _traced(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``function`` of a structure of tensors as a graph for batches of any size; it maps arrays to
    tensors.

    A graph for one size adds in another order than one for all sizes, so results would depend on
    the sizes of the batches before."""
    import tensorflow as tf

    def of_any_size(array: np.ndarray) -> Any:
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    traced = tf.function(function, autograph=False)

    def call(given: Any) -> Any:
        graph = traced.get_concrete_function(keras.tree.map_structure(of_any_size, given))
        return graph(keras.tree.map_structure(tf.convert_to_tensor, given))

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
