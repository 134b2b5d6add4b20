"""The models of the five values: one regressor per value, held out by original picture."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from gaip3_pipeline.layout import MIRRORED
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.regressor import build_regressor, with_mirror
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import InputModel
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import Log, fit
from gaip3_pipeline.training.pictures import as_float, blur, cosine_decay, flip_some, jitter, score_all, shift, shrink
from gaip3_pipeline.training.progress import Progress

DECIMALS = 4  # of the values, so that equal models give equal files


@dataclass(frozen=True)
class InputResult:
    """``history``: figures per epoch; ``predicted``: ``(N,) float32`` values of all pictures given, in 0..1."""

    history: list[dict[str, float]]
    predicted: np.ndarray


@dataclass(frozen=True)
class InputRegressor:
    """A trained model of one value, averaged over a picture and its mirror image, and the size of its pictures."""

    model: keras.Model
    attribute: str
    height: int
    width: int


def train_input_model(
    attribute: str,
    images: np.ndarray,
    values: np.ndarray,
    split: np.ndarray,
    settings: InputModel,
    folder: Path,
    fingerprint: str,
    log: Log,
    progress: Progress | None = None,
) -> InputResult:
    """Train the regressor of ``attribute`` into ``folder`` on the pictures of split ``train`` and predict all of them.

    ``images (N, H, W, 3) uint8``, ``values (N,)`` in 0..1, ``split (N,)`` of ``train``, ``validation``, ``test``. The length of
    the training is fixed and its last weights are kept: validation figures are only watched, and ``test`` is not looked at.
    Raises ``ValueError`` when there is nothing to train on.
    """
    seen = np.asarray(split) == "train"
    if not seen.any():
        raise ValueError(f"input model {attribute}: none of the {len(seen)} labelled pictures is in the training split")
    pictures = shrink(images, settings.height, settings.width)
    targets = np.asarray(values, np.float32)

    def augmented(batch: dict[str, np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        moved, flipped = flip_some(batch["image"], generator)
        value = np.where(flipped, 1.0 - batch["value"], batch["value"]) if attribute in MIRRORED else batch["value"]
        moved = blur(shift(moved, settings.shift, generator), settings.blur, generator)
        return jitter(as_float(moved), settings.jitter, generator), value[:, None]

    seed_everything(settings.seed)
    model = _build(settings)
    batches = ArrayBatches({"image": pictures[seen], "value": targets[seen]}, settings.batch_size, settings.seed, augmented)
    model.compile(
        optimizer=keras.optimizers.Adam(cosine_decay(settings.learning_rate, len(batches), settings.epochs), clipnorm=1.0),
        loss="mse",
        metrics=["mae"],
        **compile_options(),
    )
    watched = np.asarray(split) == "validation"
    validation = (as_float(pictures[watched]), targets[watched, None]) if watched.any() else None
    history = fit(
        model,
        batches,
        epochs=settings.epochs,
        checkpoints=folder / "checkpoints",
        fingerprint=fingerprint,
        log=log,
        progress=progress,
        validation=validation,
    )
    predicted = predict_values(_regressor(model, attribute, settings), [pictures])
    save_weights(model, folder)
    save_config(folder, {"attribute": attribute, **dataclasses.asdict(settings)})
    checkpoint.discard(folder / "checkpoints")
    return InputResult(history, predicted)


def load_input_model(folder: Path) -> InputRegressor:
    """The regressor of ``folder``. Raises ``FileNotFoundError`` when there is none."""
    return _regressor(*_load(folder))


def load_guide(folder: Path) -> keras.Model:
    """The regressor of ``folder`` without its mirror average, which would double a gradient's cost: ``(B, h, w, 3) -> (B, 1)``."""
    return _load(folder)[0]


def predict_values(regressor: InputRegressor, batches: Iterable[np.ndarray], done: Callable[[int], None] | None = None) -> np.ndarray:
    """``(N,) float32`` values in 0..1, rounded to 4 decimals, for batches of ``(B, H, W, 3) uint8``."""
    return as_values(score_all([regressor.model], batches, regressor.height, regressor.width, done)[0])


def as_values(outputs: np.ndarray) -> np.ndarray:
    """``(N, 1)`` outputs as ``(N,) float32`` in 0..1, rounded to 4 decimals."""
    return np.round(np.clip(outputs[:, 0].astype(np.float64), 0.0, 1.0), DECIMALS).astype(np.float32)


def _load(folder: Path) -> tuple[keras.Model, str, InputModel]:
    config = load_config(folder)
    attribute = config.pop("attribute")
    settings = InputModel(**config)
    return load_weights(_build(settings), folder), attribute, settings


def _regressor(model: keras.Model, attribute: str, settings: InputModel) -> InputRegressor:
    averaged = with_mirror(model, attribute in MIRRORED)
    averaged.compile(**compile_options())
    return InputRegressor(averaged, attribute, settings.height, settings.width)


def _build(settings: InputModel) -> keras.Model:
    return build_regressor(settings.height, settings.width, settings.width_multiplier, settings.dropout)
