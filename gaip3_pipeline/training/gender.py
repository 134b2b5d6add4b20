"""The classifier of sex, cross-fitted: each labelled picture is scored by the model that saw neither it nor its twins."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.classifier import build_classifier
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import GenderModel
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import Log, fit
from gaip3_pipeline.training.pictures import as_float, cosine_decay, flip_some, jitter, score, score_all, shift, shrink
from gaip3_pipeline.training.progress import Progress

MALE, FEMALE = 0, 1  # columns of logits and probabilities
NO_FOLD = -1  # of a picture without a label: all models score it


@dataclass(frozen=True)
class GenderResult:
    """``history``: figures per epoch, a column per fold. ``logits``, ``probabilities``: ``(N, 2) float32`` out of fold, male first."""

    history: list[dict[str, float]]
    logits: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class GenderModels:
    """The trained models, one per fold, and the size of their pictures."""

    models: list[keras.Model]
    height: int
    width: int


def train_gender(
    images: np.ndarray,
    is_female: np.ndarray,
    bucket: np.ndarray,
    settings: GenderModel,
    folder: Path,
    fingerprint: str,
    log: Log,
    progress: Progress | None = None,
) -> GenderResult:
    """Train ``settings.folds`` models into ``folder``, each on the other folds, and score every picture by the one that did not see it.

    ``images (N, H, W, 3) uint8``, ``is_female (N,) bool``, ``bucket (N,) int`` in 0..99, equal for twins. Cross-entropy is plain:
    label smoothing would keep every score below the 99.99 % rule. Raises ``ValueError`` when a fold lacks one of the sexes.
    """
    fold = folds_of(bucket, settings.folds)
    labels = np.asarray(is_female).astype(np.int32)
    for k in range(settings.folds):
        if len(set(labels[fold != k])) < 2 or not (fold == k).any():
            raise ValueError(f"gender model: {len(labels)} labelled pictures do not fill {settings.folds} folds with both sexes")
    pictures = shrink(images, settings.height, settings.width)
    logits = np.zeros((len(pictures), 2), np.float32)
    models, histories = [], []
    for k in range(settings.folds):
        seen = fold != k
        label = f"{progress.label}, fold {k + 1} of {settings.folds}" if progress else ""
        model, history = _train_fold(
            {"image": pictures[seen], "label": labels[seen]},
            k,
            settings,
            folder / "checkpoints" / f"fold{k}",
            f"{fingerprint} fold {k}",
            _named(log, k),
            progress.another(label) if progress else None,
        )
        logits[~seen] = score(model, [pictures[~seen]], settings.height, settings.width)
        models.append(model)
        histories.append(history)
    for k, model in enumerate(models):
        save_weights(model, folder, f"fold{k}")
    save_config(folder, dataclasses.asdict(settings))
    checkpoint.discard(folder / "checkpoints")
    history = [{f"fold{k}_{n}": v for k, h in enumerate(epoch) for n, v in h.items()} for epoch in zip(*histories, strict=True)]
    return GenderResult(history, logits, softmax(logits))


def load_gender_models(folder: Path) -> GenderModels:
    """The models of ``folder``. Raises ``FileNotFoundError`` when they are not there."""
    settings = GenderModel(**load_config(folder))
    models = []
    for k in range(settings.folds):
        model = load_weights(_build(settings), folder, f"fold{k}")
        model.compile(**compile_options())
        models.append(model)
    return GenderModels(models, settings.height, settings.width)


def score_gender(models: GenderModels, batches: Iterable[np.ndarray], done: Callable[[int], None] | None = None) -> np.ndarray:
    """``(N, folds, 2) float32`` logits of every model for batches of ``(B, H, W, 3) uint8``; ``done(n)`` is told the pictures scored."""
    return np.stack(score_all(models.models, batches, models.height, models.width, done), axis=1)


def combine(logits: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """One pair of logits per picture, ``(N, 2) float32``, from ``(N, folds, 2)``.

    A picture with a ``fold`` (a labelled one, its brightness copy or another twin) has the logits of that fold's model, which did
    not see it; one with ``NO_FOLD`` has the mean of the logits of all models. Logits rather than probabilities are averaged: a
    mean of probabilities passes the 99.99 % rule only when every model does.
    """
    fold = np.asarray(fold)
    own = logits[np.arange(len(logits)), np.maximum(fold, 0)]
    return np.where((fold == NO_FOLD)[:, None], logits.mean(axis=1), own).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """``(N, 2)`` logits to ``(N, 2) float32`` probabilities of male and female."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _train_fold(
    arrays: dict[str, np.ndarray],
    k: int,
    settings: GenderModel,
    checkpoints: Path,
    fingerprint: str,
    log: Log,
    progress: Progress | None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    def augmented(batch: dict[str, np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        flipped, _ = flip_some(batch["image"], generator)
        return jitter(as_float(shift(flipped, settings.shift, generator)), settings.jitter, generator), batch["label"]

    seed_everything(settings.seed + k)
    model = _build(settings)
    batches = ArrayBatches(arrays, settings.batch_size, settings.seed + k, augmented)
    model.compile(
        optimizer=keras.optimizers.Adam(cosine_decay(settings.learning_rate, len(batches), settings.epochs)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        **compile_options(),
    )
    history = fit(model, batches, epochs=settings.epochs, checkpoints=checkpoints, fingerprint=fingerprint, log=log, progress=progress)
    return model, history


def _build(settings: GenderModel) -> keras.Model:
    return build_classifier(settings.height, settings.width, settings.width_multiplier, settings.dropout)


def _named(log: Log, k: int) -> Log:
    return lambda step, figures: log(step, {f"fold{k}_{name}": value for name, value in figures.items()})
