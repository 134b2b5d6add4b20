"""Critics of real against generated pictures: the guide, which steers retouching, and the judges,
which only measure.

A generator may have memorised its training pictures, so critics are trained on other pictures only.
These are few, so a critic is cross-fitted: five networks, each trained without another fifth of the
pictures. Samples and further pictures are scored by the mean of the five; a picture of the critic's
own training data is scored by the network that was trained without it."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops

from gaip3_pipeline.imaging.augment import as_float, flip_some, jitter, shift, shrink
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.metrics.classification import fit_temperature, roc_auc
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.critic import MARGIN, build_critic, evidence, networks_of
from gaip3_pipeline.models.scoring import score
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.tables.splits import folds_of, split
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import fit
from gaip3_pipeline.training.optimizer import Adam, cosine_decay
from gaip3_pipeline.training.run import Run

JPEG_QUALITY, LEAST_QUALITY = 95, 20
ROLES = ("guide", "judge")
NETWORKS = 5
# with fewer than ENOUGH pictures, several samples and reconstructions are drawn for each, at most
# MOST_DRAWS
MOST_DRAWS, ENOUGH = 4, 1000
MASKED = -1.0  # target of a picture that the network is not trained on


@dataclass(frozen=True)
class CriticResult:
    """``history``: metrics per epoch. Logits ``(N,) float32`` of the real and generated pictures of
    the pairs, out of fold.

    ``train_auc``: the AUC of the networks that were trained on the pairs."""

    history: list[dict[str, float]]
    real_logits: np.ndarray
    generated_logits: np.ndarray
    train_auc: float


@dataclass(frozen=True)
class TrainedCritic:
    """A trained critic, ``(B, height, width, 3)`` to ``(B, networks)`` logits, and its out-of-fold
    results.

    ``auc`` of ``held_out`` pairs; ``typical``: the median logit of their real pictures;
    ``typical_map (h, w)``: their mean evidence by position."""

    model: keras.Model
    height: int
    width: int
    held_out: int = 0
    auc: float = math.nan
    typical: float = math.inf
    typical_map: np.ndarray | float = 0.0


def pictures_of_role(bucket: np.ndarray, role: str) -> np.ndarray:
    """Row numbers of the real pictures for ``role`` (``guide`` or ``judge``): not in the
    generator's training split, with even or odd buckets."""
    return np.flatnonzero(
        (split(bucket) != "train") & (np.asarray(bucket) % 2 == ROLES.index(role))
    )


def draws_for(n: int) -> int:
    """The number of samples, and of reconstructions, to draw for each of ``n`` pictures."""
    return int(np.clip(math.ceil(ENOUGH / max(1, n)), 1, MOST_DRAWS))


def train_critic(
    real: np.ndarray,
    generated: np.ndarray,
    bucket: np.ndarray,
    settings: Critic,
    run: Run,
) -> CriticResult:
    """Train a critic into ``run.folder`` on pairs, and score the first draw of each pair out of
    fold.

    ``generated (draws, N, h, w, 3) uint8`` of the generator's size, drawn with the conditions of
    ``real (draws, N, H, W, 3) uint8`` of any size; ``bucket (N,)`` of the pairs, equal for twins.
    Both sides are processed equally: the same size and the same JPEG. Raises ``ValueError`` if the
    pictures lie in fewer than two folds."""
    fold = folds_of(bucket, NETWORKS)
    if len(np.unique(fold)) < 2 or real.shape[:2] != generated.shape[:2]:
        n = (
            f"{real.shape[1]} pictures that the generator has not seen and {generated.shape[1]}"
            " samples"
        )
        raise ValueError(f"critic: {n} are too few to cross-fit; add photographs")
    height, width = generated.shape[2:4]
    # The margin is replaced before the shift: otherwise a frame could be shifted into the visible
    # part.
    sides = [
        np.stack([without_margin(same_way(draw, height, width)) for draw in side])
        for side in (real, generated)
    ]
    both_sides = np.stack(sides, axis=1)  # (draws, 2, N, …)
    is_real = np.repeat(np.array([1, 0], np.float32), len(fold))
    own = np.tile(fold, 2)[:, None] == np.arange(NETWORKS)

    def augmented(
        batch: dict[str, np.ndarray], generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        flipped, _ = flip_some(batch["image"], generator)
        # JPEG and noise of random strength hide codec artefacts and a part of the decoder's blur,
        # which no change of latents removes.
        coded = as_jpegs(
            shift(flipped, settings.shift, generator),
            generator.integers(LEAST_QUALITY, JPEG_QUALITY, len(flipped)),
        )
        moved = jitter(as_float(coded), settings.jitter, generator)
        strength = generator.uniform(0, settings.noise, (len(moved), 1, 1, 1)).astype(np.float32)
        noise = generator.standard_normal(moved.shape, dtype=np.float32)
        return np.clip(moved + strength * noise, 0.0, 1.0), batch["target"]

    seed_everything(settings.seed)
    model = build_critic(height, width, settings.width_multiplier, settings.dropout, NETWORKS)
    targets = np.where(own, MASKED, is_real[:, None])
    arrays = {
        "image": both_sides.reshape(-1, height, width, 3),
        "target": np.tile(targets, (len(real), 1)),
    }
    batches = ArrayBatches(arrays, settings.batch_size, settings.seed, augmented)
    model.compile(
        optimizer=Adam(
            cosine_decay(settings.learning_rate, len(batches), settings.epochs), beta_1=0.5
        ),
        loss=cross_entropy,
        metrics=[keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")],
        **compile_options(),
    )
    first = both_sides[0].reshape(-1, height, width, 3)
    history = fit(
        model,
        batches,
        run,
        epochs=settings.epochs,
        # each pair by the network that was trained without it
        validation=(as_float(first), np.where(own, is_real[:, None], MASKED)),
    )
    logits = _calibrated(model, score(model, [first], height, width), own, is_real > 0)
    unseen, seen = logits[own], np.where(own, 0.0, logits).sum(axis=1) / (NETWORKS - 1)
    maps = evidence_by_network(model, first[: len(fold)])[np.arange(len(fold)), fold]
    real_logits, generated_logits = np.split(unseen, 2)
    known = {
        "n": len(fold),
        "auc": roc_auc(unseen, is_real > 0),
        "typical": float(np.median(real_logits)),
        "map": maps.mean(axis=0).tolist(),
    }
    save_weights(model, run.folder)
    save_config(
        run.folder,
        {
            "height": height,
            "width": width,
            "networks": NETWORKS,
            "held_out": known,
            **dataclasses.asdict(settings),
        },
    )
    checkpoint.discard(run.checkpoints)
    return CriticResult(history, real_logits, generated_logits, roc_auc(seen, is_real > 0))


def load_critic(folder: Path) -> TrainedCritic:
    """The critic of ``folder``. Raises ``FileNotFoundError`` if there is none, or if it is a single
    network of an earlier version."""
    config = load_config(folder)
    if "networks" not in config:
        raise FileNotFoundError(f"the critic in {folder} is of an earlier version of this program")
    model = build_critic(
        config["height"],
        config["width"],
        config["width_multiplier"],
        config["dropout"],
        config["networks"],
    )
    load_weights(model, folder).compile(**compile_options())
    known = config["held_out"]
    return TrainedCritic(
        model,
        config["height"],
        config["width"],
        known["n"],
        known["auc"],
        known["typical"],
        np.array(known["map"], np.float32),
    )


def cross_entropy(is_real: Any, logits: Any) -> Any:
    """``(B,)``: the mean cross-entropy over the networks that take part, for ``is_real`` and
    ``logits (B, networks)``; a target of ``MASKED`` takes no part."""
    return _over_present(is_real, ops.softplus(logits) - is_real * logits)


def accuracy(is_real: Any, logits: Any) -> Any:
    """``(B,)``: the share of correct networks among those that take part."""
    return _over_present(is_real, ops.cast((logits > 0) == (is_real > 0.5), "float32"))


def _over_present(is_real: Any, values: Any) -> Any:
    present = ops.cast(is_real >= 0, "float32")
    return ops.sum(present * values, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)


def _calibrated(
    model: keras.Model, logits: np.ndarray, own: np.ndarray, is_real: np.ndarray
) -> np.ndarray:
    """Divide each network's logit by a temperature, so that it is a log density ratio (Guo et al.
    2017); returns the scaled logits ``(2 N, networks)``.

    The temperature of a network is fitted to the out-of-fold logits of the pairs of all other
    folds, so no pair affects its own calibration."""
    unseen = logits[own].astype(np.float64)
    temperatures = np.array([fit_temperature(unseen[~fold], is_real[~fold]) for fold in own.T])
    for network, temperature in zip(networks_of(model), temperatures, strict=True):
        logit = network.get_layer("logit")
        logit.set_weights([w / temperature for w in logit.get_weights()])
    return (logits / temperatures).astype(np.float32)


def evidence_by_network(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """``(N, networks, h, w) float32``: the terms of the logits of ``images (N, H, W, 3) uint8`` by
    position; ``images`` must have the model's input size."""
    parts = evidence(model)
    parts.compile(**compile_options())
    return score(parts, [images], *images.shape[1:3])


def critic_logits(critic: TrainedCritic, images: np.ndarray) -> np.ndarray:
    """``(N,) float32`` logits of being real, for ``images (N, H, W, 3) uint8`` after the resizing
    and JPEG compression of the training."""
    return score(
        critic.model, [same_way(images, critic.height, critic.width)], critic.height, critic.width
    ).mean(axis=1)


def without_margin(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, 3)`` with the outermost pixels, which a critic does not use, replaced by their
    nearest neighbours inside."""
    inner = images[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.pad(inner, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")


def same_way(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(N, H, W, 3) uint8`` at ``(height, width)`` after one JPEG compression of quality 95, so
    that codecs do not distinguish real from generated pictures."""
    return as_jpegs(shrink(images, height, width), [JPEG_QUALITY] * len(images))


def as_jpegs(images: np.ndarray, qualities: Iterable[int]) -> np.ndarray:
    """``(N, H, W, 3) uint8`` after one JPEG compression each."""
    out = np.empty_like(images)
    for i, (image, quality) in enumerate(zip(images, qualities, strict=True)):
        encoded = np.frombuffer(encode_jpeg(image, int(quality)), np.uint8)
        out[i] = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[:, :, ::-1]  # BGR to RGB
    return out
