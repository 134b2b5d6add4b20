"""A trained model in its folder: ``NAME.weights.h5``, and ``model.json`` with the configuration to
build it again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaip3_pipeline.layout import config_file, posterior_file, weights_file
from gaip3_pipeline.tables.files import hdf5_size, write_text_atomically, writing
from gaip3_pipeline.tables.hashing import arrays_version, digest, weights_version

if TYPE_CHECKING:  # the label page reads configurations without Keras
    import keras


def save_weights(model: "keras.Model", folder: Path, name: str = "model") -> None:
    """Write ``NAME.weights.h5``, completely or not at all."""
    size = hdf5_size(model.get_weights())
    with writing(weights_file(folder, name), size) as temporary:
        target = temporary.with_name(f"{temporary.stem}.weights.h5")  # Keras requires this suffix
        try:
            model.save_weights(target)
            target.replace(temporary)
        finally:
            target.unlink(missing_ok=True)


def load_weights(model: "keras.Model", folder: Path, name: str = "model") -> "keras.Model":
    """``model`` with the weights of ``folder``, and with the same random state in every process,
    since checkpoints of trainings that it guides hold it. Raises ``FileNotFoundError`` if there are
    no weights."""
    path = weights_file(folder, name)
    if not path.exists():
        raise FileNotFoundError(f"no trained model at {path}")
    model.load_weights(path)
    for variable in model.non_trainable_variables:
        if variable.name == "seed_generator_state":  # of dropout; weights do not hold it
            variable.assign([0, 0])
    return model


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``model.json``, completely or not at all."""
    write_text_atomically(config_file(folder), json.dumps(config, indent=2) + "\n")


def load_config(folder: Path) -> dict[str, Any]:
    """The configuration that :func:`save_config` wrote. Raises ``FileNotFoundError`` if there is no
    model."""
    return json.loads((config_file(folder)).read_text(encoding="utf-8"))


def detail_version(folder: Path) -> str:
    """The content hash of a detail network and its aggregate posterior."""
    return digest([weights_version(folder), arrays_version(posterior_file(folder))])
