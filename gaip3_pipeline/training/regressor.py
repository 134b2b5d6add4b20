"""Convolutional regressors of the five values: the evaluators, one for each value, and the control
regressor for all."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from gaip3_pipeline.attributes import MIRRORED
from gaip3_pipeline.imaging.augment import as_float, blur, flip_some, jitter, shift, shrink
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.regressor import build_regressor, with_mirror
from gaip3_pipeline.models.scoring import score_all
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import Network
from gaip3_pipeline.tables.values import as_values
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import fit
from gaip3_pipeline.training.optimizer import Adam, cosine_decay
from gaip3_pipeline.training.run import Examples, Run


@dataclass(frozen=True)
class RegressorResult:
    """``history``: metrics per epoch; ``predicted``: ``(N, K) float32`` values of all given
    pictures, in 0..1."""

    history: list[dict[str, float]]
    predicted: np.ndarray


@dataclass(frozen=True)
class Regressor:
    """A trained model of the values ``attributes``, averaged over a picture and its mirror image,
    and its input size."""

    model: keras.Model
    attributes: tuple[str, ...]
    height: int
    width: int


def train_regressor(
    attributes: Sequence[str],
    examples: Examples,
    settings: Network,
    run: Run,
) -> RegressorResult:
    """Train the regressor of ``attributes`` into ``run.folder`` on the pictures of split ``train``
    and predict all pictures.

    The length of the training is fixed and its last weights are kept: metrics on ``validation`` are
    only reported, and ``test`` is not used. Raises ``ValueError`` if there is nothing to train
    on."""
    split = np.asarray(examples.split)
    seen = split == "train"
    if not seen.any():
        raise ValueError(
            f"regressor of {', '.join(attributes)}: none of the {len(seen)} pictures is in the"
            " training split"
        )
    pictures = shrink(examples.images, settings.height, settings.width)
    targets = np.asarray(examples.values, np.float32)
    turns = np.array([a in MIRRORED for a in attributes])

    def augmented(
        batch: dict[str, np.ndarray], generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        moved, flipped = flip_some(batch["image"], generator)
        value = np.where(flipped[:, None] & turns, 1.0 - batch["value"], batch["value"])
        moved = blur(shift(moved, settings.shift, generator), settings.blur, generator)
        return jitter(as_float(moved), settings.jitter, generator), value

    seed_everything(settings.seed)
    model = _build(settings, len(attributes))
    batches = ArrayBatches(
        {"image": pictures[seen], "value": targets[seen]},
        settings.batch_size,
        settings.seed,
        augmented,
    )
    model.compile(
        optimizer=Adam(
            cosine_decay(settings.learning_rate, len(batches), settings.epochs), clip_norm=1.0
        ),
        loss="mse",
        metrics=[keras.metrics.MeanAbsoluteError(name="mae")],
        **compile_options(),
    )
    watched = split == "validation"
    validation = (as_float(pictures[watched]), targets[watched]) if watched.any() else None
    history = fit(
        model,
        batches,
        run,
        epochs=settings.epochs,
        validation=validation,
    )
    predicted = predict_values(_regressor(model, attributes, settings), [pictures])
    save_weights(model, run.folder)
    save_config(run.folder, {"attributes": list(attributes), **dataclasses.asdict(settings)})
    checkpoint.discard(run.checkpoints)
    return RegressorResult(history, predicted)


def load_regressor(folder: Path) -> Regressor:
    """The regressor of ``folder``. Raises ``FileNotFoundError`` if there is none."""
    return _regressor(*_load(folder))


def load_network(folder: Path) -> keras.Model:
    """The regressor of ``folder`` without the average over mirror images, which would double the
    cost of gradients: ``(B, h, w, 3)`` to ``(B, K)``."""
    return _load(folder)[0]


def predict_values(
    regressor: Regressor, batches: Iterable[np.ndarray], done: Callable[[int], None] | None = None
) -> np.ndarray:
    """``(N, K) float32`` values in 0..1, rounded to 4 decimals, for batches of ``(B, H, W, 3)
    uint8``."""
    return as_values(
        score_all([regressor.model], batches, regressor.height, regressor.width, done)[0]
    )


def _load(folder: Path) -> tuple[keras.Model, tuple[str, ...], Network]:
    config = load_config(folder)
    attributes = tuple(config.pop("attributes"))
    settings = Network(**config)
    return load_weights(_build(settings, len(attributes)), folder), attributes, settings


def _regressor(model: keras.Model, attributes: Sequence[str], settings: Network) -> Regressor:
    averaged = with_mirror(model, [a in MIRRORED for a in attributes])
    averaged.compile(**compile_options())
    return Regressor(averaged, tuple(attributes), settings.height, settings.width)


def _build(settings: Network, values: int) -> keras.Model:
    return build_regressor(
        settings.height, settings.width, settings.width_multiplier, settings.dropout, values
    )
