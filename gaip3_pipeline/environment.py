"""Environment variables of the user that would change what the libraries of the pipeline do.

The package calls :func:`prepare` when it is imported, before any of these libraries, so that it
holds in every process: commands, Dagster's steps, the studio, notebooks."""

import gc
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from gaip3_pipeline.layout import KERAS_SETTINGS, MATPLOTLIB_SETTINGS

PACKAGE_NAME = "gaip3-pipeline"
BACKENDS = ("tensorflow", "jax")
# Of Python's garbage collector: new objects before it looks at them, and how often it looks at
# older ones. By default it searches half a million objects again and again while TensorFlow is
# loaded, which takes a quarter of that time, and while graphs are traced.
COLLECTED_AFTER = (50_000, 5, 2)
# Keras ends trainings early or uses other layers if these are set
_OF_KERAS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
# what TensorFlow and LiteRT say about themselves, past every setting of their log
_REMARK = re.compile(
    rb"(I\d{4} [\d:.]+ +\d+ .*|WARNING: All log messages before absl::InitializeLog\(\) .*"
    rb"|To enable the following instructions: .*|INFO: Created TensorFlow Lite .*)\n"
)
_SILENCE = threading.Lock()


class EnvironmentVariableError(RuntimeError):
    """A variable, or a file of another project, with which the pipeline cannot run; the message is
    one line with the remedy."""


def prepare() -> None:
    """Set the variables that Keras, Matplotlib and others read when they are imported.

    Keras reads the package's own ``keras.json`` in place of the user's, which may name another
    backend, data format or float type for other projects. Matplotlib reads the package's
    ``matplotlibrc`` and needs no display; a notebook keeps its own, in which it shows its charts. A
    user without a home directory gets the one that containers give: with none, ``Path.home()``
    raises when libraries are imported. The garbage collector runs less often."""
    # zero is never, and a user may have set a larger one
    if 0 < gc.get_threshold()[0] < COLLECTED_AFTER[0]:
        gc.set_threshold(*COLLECTED_AFTER)
    os.environ["KERAS_HOME"] = str(KERAS_SETTINGS.parent)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors arrive as exceptions
    # JAX keeps short compilations too: initial weights are one for each shape, 27 s for a model
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    sys.meta_path.insert(0, _TensorFlow())
    for name in _OF_KERAS:
        os.environ.pop(name, None)
    if "keras" in sys.modules:  # a notebook imported it first, with the user's keras.json
        _set_keras()
    if "tensorflow" in sys.modules:
        _fix_order_of_sums(sys.modules["tensorflow"])
    if "IPython" not in sys.modules:
        # the backend that a notebook leaves to `!gaip3` need not be installed here
        os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(MATPLOTLIB_SETTINGS)}
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def required_packages() -> list[str]:
    """The names of the packages that this one needs, without those of extras. Raises
    ``importlib.metadata.PackageNotFoundError`` if this one is not installed."""
    from importlib import metadata

    return [
        re.split(r"[^A-Za-z0-9._-]", line)[0]
        for line in metadata.requires(PACKAGE_NAME) or []
        if "extra ==" not in line
    ]


def pinned(packages: Iterable[str]) -> list[str]:
    """``packages`` in the versions that are installed, as lines of a requirements file."""
    from importlib import metadata

    return [f"{name}=={metadata.version(name)}" for name in packages]


@contextmanager
def without_remarks() -> Iterator[None]:
    """A block in which TensorFlow and LiteRT do not write about themselves to the standard error;
    whatever else arrives there follows after the block."""
    with _SILENCE, tempfile.TemporaryFile() as caught:
        try:
            kept = os.dup(2)
        except OSError:  # closed
            yield
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            rest = b"".join(line for line in caught if not _REMARK.fullmatch(line))
            if rest:
                os.write(2, rest)


def _fix_order_of_sums(tensorflow: ModuleType) -> None:
    """Make TensorFlow add the terms of a sum in the order in which they were written.

    One of the optimisations of its graphs orders them by the names of the operations, which Keras
    numbers through all models of the process. A gradient then has other last digits in a process
    that continues after a kill. Without this optimisation a training step takes the same time."""
    tensorflow.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


class _TensorFlow(MetaPathFinder):
    """Imports TensorFlow without its remarks, whoever asks for it, and with sums in a fixed
    order."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with without_remarks():
                    load(module)
                _fix_order_of_sums(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


def check() -> None:
    """Raise :class:`EnvironmentVariableError` if networks cannot run with these variables."""
    _refuse(backend_problem())


def check_charts() -> None:
    """Raise :class:`EnvironmentVariableError` if charts cannot be drawn in the current folder."""
    _refuse(charts_problem())


def backend_problem() -> str | None:
    """What is wrong with ``KERAS_BACKEND``, in one line with the remedy; None if nothing is."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend and backend not in BACKENDS:
        return f"KERAS_BACKEND={backend}: set it to tensorflow or jax, or unset it"
    if backend == "jax" and find_spec(backend) is None:
        return (
            "KERAS_BACKEND=jax: JAX is not installed; run .uv/bin/uv sync --frozen --all-groups"
            " --extra jax, or unset the variable"
        )
    return None


def charts_problem() -> str | None:
    """What is wrong with the ``matplotlibrc`` of the current folder, in one line with the remedy;
    None if nothing is. Matplotlib reads it before all others and cannot be told not to."""
    path = Path(MATPLOTLIB_SETTINGS.name)
    try:
        if path.is_file():
            path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        return f"{path.absolute()}: not UTF-8 (byte {e.start}); save it as UTF-8 or move it away"
    except OSError as e:
        return f"{path.absolute()}: {e.strerror}; make it readable or move it away"
    return None


def _refuse(problem: str | None) -> None:
    if problem:
        raise EnvironmentVariableError(problem)


def _set_keras() -> None:
    import keras

    wanted = json.loads(KERAS_SETTINGS.read_text(encoding="utf-8"))
    keras.config.set_floatx(wanted["floatx"])
    keras.config.set_epsilon(wanted["epsilon"])
    keras.config.set_image_data_format(wanted["image_data_format"])
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
