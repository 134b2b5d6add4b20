"""Training of the NVAE: data, optimiser, result. The objective is in models/nvae/objective.py."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.imaging.augment import flip_some, shift, shrink
from gaip3_pipeline.layout import best_epoch_folder
from gaip3_pipeline.models.backend import compile_options, compiled, seed_everything
from gaip3_pipeline.models.nvae.bound import Bound, bits_per_dim
from gaip3_pipeline.models.nvae.model import (
    NVAE,
    build_nvae,
    readjust_normalization,
    save_nvae,
)
from gaip3_pipeline.models.nvae.objective import CONTROL_COMPLETE, NvaeTraining
from gaip3_pipeline.models.storage import load_weights
from gaip3_pipeline.sampling.draw import as_bytes, noise_of_seeds
from gaip3_pipeline.settings import Nvae, Samples
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import KeepBest, fit
from gaip3_pipeline.training.optimizer import SpikeSkippingAdamax
from gaip3_pipeline.training.run import Examples, Run

IMPORTANCE_SAMPLES = 10  # of the importance-weighted bound; publications use 100 and more
# pictures that must lie at or beyond each end of a value's supported range, and the most as a share
# of all
ENOUGH, ENOUGH_SHARE = 40, 0.02
# most parts of a value's range, and pictures per part on average; how often a picture is drawn at
# most
RARITY_PARTS, RARITY_PICTURES, RAREST = 10, 50, 3.0
WARM_SHARE = 1 / 3  # of the epochs: a warm start repeats the last third of a training
SHOWN, SHOWN_FACES, SHOWN_SEED = 20, 16, 7  # how often, faces and seed of what training shows
TURNS = np.array([a in MIRRORED for a in ATTRIBUTES])


Show = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class NvaeResult:
    """The result of a training: the model that was saved, the metrics of each epoch, and the bound
    on images that were not used in training."""

    model: NVAE
    history: list[dict[str, float]]
    held_out: Bound | None  # on the split "test", else on "validation"; None where both are empty
    n_train: int
    epoch: int  # whose weights are the model's
    best_epoch: int  # on the split "validation"; 0 where that is empty
    precision: str  # of the training's matrix work

    @property
    def figures(self) -> dict[str, Any]:
        """The metrics to report: n, epochs trained, the model's epoch and the best one, the
        supported range of each value, and held-out bits/dim and nats of KL per group."""
        epochs = {"epochs": len(self.history), "epoch": self.epoch, "best_epoch": self.best_epoch}
        trained: dict[str, Any] = {"n_train": self.n_train, **epochs, **self._supported}
        if not self.held_out:
            return trained
        bound = self.held_out
        return {
            **trained,
            "n_held_out": bound.n,
            "bits_per_dim": bound.bits_per_dim,
            "bits_per_dim_standard_error": bound.standard_error,
            f"bits_per_dim_iw{bound.samples}": bound.importance_weighted,
            **{f"kl_{name}": nats for name, nats in bound.kl.items()},
        }

    @property
    def _supported(self) -> dict[str, float]:
        low, high = keras.ops.convert_to_numpy(self.model.condition_embedding.range)
        ends = {f"from_{a}": float(v) for a, v in zip(ATTRIBUTES, low, strict=True)}
        return ends | {f"to_{a}": float(v) for a, v in zip(ATTRIBUTES, high, strict=True)}


def train_nvae(
    examples: Examples,
    settings: Nvae,
    run: Run,
    *,
    guides: Sequence[keras.Model] = (),
    show: Show | None = None,
    resume: bool = False,
    start_from: NVAE | None = None,
    known: Sequence[bool] = (),
) -> NvaeResult:
    """Train on the images of split "train", save the averaged weights in ``run.folder`` and return
    the result.

    The weights are those of the last epoch, or with ``settings.patience`` those of the epoch that
    is best on the split "validation" (bound and control), counted from when control is in force.
    ``run.checkpoints`` keeps the last epoch with the optimiser's state, and in its folder ``best``
    the best epoch as a model for :func:`load_nvae`.

    Pictures have any size not below that of ``settings``; values are in the order of
    ``ATTRIBUTES``. A killed training continues from its last checkpoint if the fingerprint is the
    same; with ``resume`` it also continues from one of other settings or data. With ``start_from``,
    a model of the same architecture (see :func:`gaip3_pipeline.models.nvae.model.warm_start`), only
    the last third of a training is done, from these weights: the KL's warm-up is over, control is
    in force, and the learning rate is that of this phase.

    ``guides`` are the regressors of the five values, needed for ``settings.control``, and
    ``known (5,)`` tells which of the values they can predict (see :class:`NvaeTraining`). ``show``
    is called about 20 times, with an epoch and samples ``(N, H, W, 3) uint8`` of the same
    latents. Raises ``ValueError`` if there is nothing to train on, and the errors of ``fit``."""
    fitted = fit_nvae(
        examples,
        settings,
        run,
        guides=guides,
        show=show,
        resume=resume,
        start_from=start_from,
        known=known,
    )
    model, data = fitted.training.ema, fitted.data
    if fitted.training.precision != "float32":
        # what follows is computed as it is everywhere else
        model = build_nvae(settings)
        model.set_weights(fitted.training.ema.get_weights())
    if fitted.epoch < len(fitted.history):
        load_weights(model, best_epoch_folder(run.checkpoints))
    held_out = data["test" if len(data["test"]["image"]) else "validation"]
    bound = None
    if len(held_out["image"]):
        bound = bits_per_dim(
            model,
            held_out["image"],
            held_out["condition"],
            samples=IMPORTANCE_SAMPLES,
            seed=settings.seed,
        )
    learned = data["train"]["condition"]
    readjust_normalization(model, learned[: settings.batch_size], Samples.temperature)
    save_nvae(model, run.folder)
    return NvaeResult(
        model,
        fitted.history,
        bound,
        len(learned),
        fitted.epoch,
        fitted.best_epoch,
        fitted.training.precision,
    )


@dataclass(frozen=True)
class FittedNvae:
    """A model after its last epoch, the metrics of each epoch, the number of the epoch whose
    weights are to be kept and of the best one (0: there is none), and the ``data`` by split:
    ``image (N, h, w, 3) uint8`` of the generator's size and ``condition (N, 5) float32``."""

    training: NvaeTraining
    history: list[dict[str, float]]
    epoch: int
    best_epoch: int
    data: dict[str, dict[str, np.ndarray]]


def fit_nvae(
    examples: Examples,
    settings: Nvae,
    run: Run,
    *,
    guides: Sequence[keras.Model] = (),
    show: Show | None = None,
    resume: bool = False,
    start_from: NVAE | None = None,
    known: Sequence[bool] = (),
) -> FittedNvae:
    """The epochs of :func:`train_nvae`, with its arguments; what they leave is in
    ``run.checkpoints``. The processes that train a model together all call it."""
    split = np.asarray(examples.split)
    conditions = np.asarray(examples.values, np.float32)
    small = shrink(examples.images, settings.height, settings.width)
    data = {
        name: {"image": small[split == name], "condition": conditions[split == name]}
        for name in ("train", "validation", "test")
    }
    learned = data["train"]["condition"]
    if not len(learned):
        raise ValueError("no image is in the split 'train'")
    seed_everything(settings.seed)
    augmentation = partial(augmented, settings.shift)
    batches = ArrayBatches(
        data["train"], settings.batch_size, settings.seed, augmentation, weights=rarity(learned)
    )
    epochs = max(1, math.ceil(WARM_SHARE * settings.epochs)) if start_from else settings.epochs
    total_steps, steps = settings.epochs * len(batches), epochs * len(batches)
    training = NvaeTraining(settings, total_steps, guides, supported_range(learned), known)
    if start_from:
        training.start_from(start_from, total_steps - steps)
    training.compile(optimizer=optimizer(settings, total_steps, steps), **compile_options())
    validation = (
        ArrayBatches(data["validation"], settings.batch_size, 0, unchanged, shuffle=False)
        if len(data["validation"]["image"])
        else None
    )
    keep_best = None
    if validation:
        before = settings.epochs - epochs
        # before that, the validation loss does not measure how well values are followed
        first = max(1, math.ceil(CONTROL_COMPLETE * settings.epochs) - before)
        keep_best = KeepBest(
            "val_loss",
            lambda: save_nvae(training.ema, best_epoch_folder(run.checkpoints)),
            settings.patience,
            first,
        )
    history = fit(
        training,
        batches,
        run,
        epochs=epochs,
        validation=validation,
        callbacks=(_Samples(show, learned, epochs),) if show else (),
        keep_best=keep_best,
        resume=resume,
    )
    best_epoch = keep_best.best(history) if keep_best else 0
    epoch = best_epoch if settings.patience and best_epoch else len(history)
    return FittedNvae(training, history, epoch, best_epoch, data)


def supported_range(values: np.ndarray) -> np.ndarray:
    """``(2, N)``: the smallest and the largest of each of the values ``(n, N)`` with at least
    ``ENOUGH`` pictures at it or beyond.

    If there are few pictures, a share of ``ENOUGH_SHARE`` of all. A generator cannot learn values
    that fewer pictures show: it draws no face for them."""
    known = np.asarray(values, np.float32)
    ordered = np.sort(known[np.isfinite(known).all(axis=1)], axis=0)
    beyond = int(min(ENOUGH - 1, ENOUGH_SHARE * len(ordered)))
    return np.stack([ordered[beyond], ordered[len(ordered) - 1 - beyond]])


def rarity(values: np.ndarray) -> np.ndarray:
    """``(n,)``: how often each picture with the values ``(n, N)`` is drawn relative to others, from
    1 to ``RAREST``; rare values more often.

    It is the square root of the mean number of pictures per part of a value's range over the number
    in this picture's part, for the rarest of its values. Parts are a tenth of the range, or larger
    if there are few pictures."""
    parts = int(np.clip(len(values) // RARITY_PICTURES, 1, RARITY_PARTS))
    places = np.clip((np.nan_to_num(values) * parts).astype(int), 0, parts - 1)
    often = np.ones(len(places))
    for column in places.T:
        counts = np.bincount(column, minlength=parts)
        usual = counts[counts > 0].mean()
        often = np.maximum(often, np.sqrt(usual / counts[column]))
    return np.minimum(often, RAREST)


def optimizer(settings: Nvae, total_steps: int, steps: int) -> keras.optimizers.Optimizer:
    """Adamax with linear warm-up and cosine decay, as in NVAE; the gradient's norm is bounded and
    spikes are skipped.

    For a training of the last ``steps`` of ``total_steps``, the learning rate is warmed up to the
    value of the cosine at that point."""
    warmup = max(1, math.ceil(settings.warmup * steps))
    peak = settings.learning_rate * (1 + math.cos(math.pi * (1 - steps / total_steps))) / 2
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / warmup,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
        warmup_target=peak,
        warmup_steps=warmup,
    )
    return SpikeSkippingAdamax(schedule, settings.spike, beta_2=0.98, clip_norm=settings.clip_norm)


def augmented(
    most: int, batch: dict[str, np.ndarray], generator: np.random.Generator
) -> tuple[dict[str, np.ndarray]]:
    """Each picture shifted by up to ``most`` pixels, and half of them mirrored."""
    return mirrored_at_random(batch | {"image": shift(batch["image"], most, generator)}, generator)


def mirrored_at_random(
    batch: dict[str, np.ndarray], generator: np.random.Generator
) -> tuple[dict[str, np.ndarray]]:
    """Half of the pictures mirrored, with ``1 - value`` for mirrored attributes."""
    image, flipped = flip_some(batch["image"], generator)
    condition = np.where(flipped[:, None] & TURNS, 1.0 - batch["condition"], batch["condition"])
    return ({"image": image, "condition": condition},)


def unchanged(
    batch: dict[str, np.ndarray], generator: np.random.Generator
) -> tuple[dict[str, np.ndarray]]:
    """The batch as the model's input."""
    return (batch,)


class _Samples(keras.callbacks.Callback):
    """Shows samples of the averaged weights, with the same latents and values each time."""

    def __init__(self, show: Show, conditions: np.ndarray, epochs: int) -> None:
        super().__init__()
        self._show = show
        self._conditions = np.resize(conditions, (SHOWN_FACES, conditions.shape[1]))
        self._every = max(1, epochs // SHOWN)

    def on_train_begin(self, logs: Any = None) -> None:
        network = self.model.ema
        self._noise = noise_of_seeds(network, SHOWN_SEED + np.arange(SHOWN_FACES))
        self._decode = compiled(
            lambda given: network.decode(*given, Samples.temperature, Samples.guidance), network
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self._every == 0:
            self._show(epoch + 1, as_bytes(self._decode((self._noise, self._conditions))))
