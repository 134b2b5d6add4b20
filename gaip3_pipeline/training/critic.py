"""Critics of real against generated pictures: the guide, which steers retouching, and the judge, which only measures."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from gaip3_pipeline.evaluation.classification import both, fit_temperature, roc_auc
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.critic import MARGIN, build_critic, evidence
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import Log, fit
from gaip3_pipeline.training.pictures import as_float, cosine_decay, flip_some, jitter, score, shift, shrink
from gaip3_pipeline.training.progress import Progress

JPEG_QUALITY, LEAST_QUALITY = 95, 20
ROLES = ("guide", "judge")


@dataclass(frozen=True)
class CriticResult:
    """``history``: figures per epoch; logits ``(N,) float32`` of all pictures given, and their split."""

    history: list[dict[str, float]]
    real_logits: np.ndarray
    generated_logits: np.ndarray
    split: np.ndarray


@dataclass(frozen=True)
class TrainedCritic:
    """A trained critic, the size of its pictures, and what it said of pairs that it did not learn from.

    ``auc`` of ``held_out`` pairs; ``typical``: the median logit of their real pictures, ``typical_map (h, w)``: their mean evidence
    by place.
    """

    model: keras.Model
    height: int
    width: int
    held_out: int = 0
    auc: float = math.nan
    typical: float = math.inf
    typical_map: np.ndarray | float = 0.0


def share_of_role(bucket: np.ndarray, role: str) -> np.ndarray:
    """Row numbers of the real pictures that ``role`` (``guide`` or ``judge``) may see: even buckets or odd ones, never both."""
    return np.flatnonzero(np.asarray(bucket) % 2 == ROLES.index(role))


def train_critic(
    real: np.ndarray,
    generated: np.ndarray,
    split: np.ndarray,
    settings: Critic,
    folder: Path,
    fingerprint: str,
    log: Log,
    progress: Progress | None = None,
) -> CriticResult:
    """Train a critic into ``folder`` on the pairs of split ``train`` and score all pictures.

    ``real (N, H, W, 3) uint8`` of any size and ``generated (N, h, w, 3) uint8`` of the generator's, drawn with the conditions of
    ``real``; ``split (N,)`` of ``train``, ``validation``, ``test`` is that of both. Both go the same way: the same size, the same
    JPEG. Raises ``ValueError`` when there is nothing to train on.
    """
    seen = np.asarray(split) == "train"
    if not seen.any() or len(real) != len(generated):
        raise ValueError(f"critic: {len(real)} real and {len(generated)} generated pictures, {int(seen.sum())} pairs to train on")
    height, width = generated.shape[1:3]
    pictures = {"real": same_way(real, height, width), "generated": same_way(generated, height, width)}

    def augmented(batch: dict[str, np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        flipped, _ = flip_some(batch["image"], generator)
        # A JPEG and noise of each picture's own strength hide codecs' traces and part of the decoder's blur, which no latent can mend.
        coded = as_jpegs(shift(flipped, settings.shift, generator), generator.integers(LEAST_QUALITY, JPEG_QUALITY, len(flipped)))
        moved = jitter(as_float(coded), settings.jitter, generator)
        strength = generator.uniform(0, settings.noise, (len(moved), 1, 1, 1)).astype(np.float32)
        noise = generator.standard_normal(moved.shape, dtype=np.float32)
        return np.clip(moved + strength * noise, 0.0, 1.0), batch["is_real"][:, None]

    def pairs(chosen: np.ndarray) -> dict[str, np.ndarray]:
        # Without their margin before they are moved about: a frame that moves inwards could be seen.
        images = without_margin(np.concatenate([pictures["real"][chosen], pictures["generated"][chosen]]))
        return {"image": images, "is_real": np.repeat(np.array([1, 0], np.float32), int(chosen.sum()))}

    seed_everything(settings.seed)
    model = build_critic(height, width, settings.width_multiplier, settings.dropout)
    batches = ArrayBatches(pairs(seen), settings.batch_size, settings.seed, augmented)
    model.compile(
        optimizer=keras.optimizers.Adam(cosine_decay(settings.learning_rate, len(batches), settings.epochs), beta_1=0.5),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        **compile_options(),
    )
    watched = pairs(np.asarray(split) == "validation")
    history = fit(
        model,
        batches,
        epochs=settings.epochs,
        checkpoints=folder / "checkpoints",
        fingerprint=fingerprint,
        log=log,
        progress=progress,
        validation=(as_float(watched["image"]), watched["is_real"][:, None]) if len(watched["image"]) else None,
    )
    _calibrate(model, watched)
    logits = {k: score(model, [v], height, width)[:, 0] for k, v in pictures.items()}
    save_weights(model, folder)
    config = {"height": height, "width": width, "held_out": _held_out(model, pictures["real"], logits, ~seen)}
    save_config(folder, {**config, **dataclasses.asdict(settings)})
    checkpoint.discard(folder / "checkpoints")
    return CriticResult(history, logits["real"], logits["generated"], np.asarray(split))


def load_critic(folder: Path) -> TrainedCritic:
    """The critic of ``folder``. Raises ``FileNotFoundError`` when there is none."""
    config = load_config(folder)
    model = build_critic(config["height"], config["width"], config["width_multiplier"], config["dropout"])
    load_weights(model, folder).compile(**compile_options())
    known = config["held_out"]
    return TrainedCritic(
        model, config["height"], config["width"], known["n"], known["auc"], known["typical"], np.array(known["map"], np.float32)
    )


def _calibrate(model: keras.Model, watched: dict[str, np.ndarray]) -> None:
    """Divide the logit by the temperature that suits pairs of the validation split (Guo et al. 2017), so that it is a log density ratio."""
    if len(watched["image"]):
        logits = score(model, [watched["image"]], *watched["image"].shape[1:3])[:, 0]
        temperature = fit_temperature(logits.astype(np.float64), watched["is_real"] > 0)
        logit = model.get_layer("logit")
        logit.set_weights([w / temperature for w in logit.get_weights()])


def _held_out(model: keras.Model, real: np.ndarray, logits: dict[str, np.ndarray], unseen: np.ndarray) -> dict[str, Any]:
    """What retouching must know of a guide; of all pairs where none is held out, and ``n`` is 0."""
    rows = unseen if unseen.any() else np.ones_like(unseen)
    said = logits["real"][rows]
    return {
        "n": int(unseen.sum()),
        "auc": roc_auc(*both(said, logits["generated"][rows])),
        "typical": float(np.median(said)),
        "map": evidence_by_place(model, real[rows]).mean(axis=0).tolist(),
    }


def evidence_by_place(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """``(N, h, w) float32`` addends of the logits of ``(N, H, W, 3) uint8``, which are of the size that the critic ``model`` takes."""
    parts = evidence(model)
    parts.compile(**compile_options())
    return score(parts, [images], *images.shape[1:3])


def critic_logits(critic: TrainedCritic, images: np.ndarray) -> np.ndarray:
    """``(N,) float32`` logits of being real, of ``(N, H, W, 3) uint8`` after the size and the JPEG that the critic was trained on."""
    return score(critic.model, [same_way(images, critic.height, critic.width)], critic.height, critic.width)[:, 0]


def without_margin(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, 3)`` with the outermost pixels, which a critic does not see, replaced by their nearest neighbours inside."""
    inner = images[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.pad(inner, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")


def same_way(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(N, H, W, 3) uint8`` at ``(height, width)`` through one JPEG of quality 95, so that no codec tells real from generated."""
    return as_jpegs(shrink(images, height, width), [JPEG_QUALITY] * len(images))


def as_jpegs(images: np.ndarray, qualities: Iterable[int]) -> np.ndarray:
    """``(N, H, W, 3) uint8`` through one JPEG each."""
    out = np.empty_like(images)
    for i, (image, quality) in enumerate(zip(images, qualities, strict=True)):
        encoded = np.frombuffer(encode_jpeg(image, int(quality)), np.uint8)
        out[i] = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[:, :, ::-1]  # BGR to RGB
    return out
