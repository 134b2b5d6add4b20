"""Critics of real against generated pictures: the guide, which steers retouching, and the judge, which only measures."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np

from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.critic import build_critic
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import Log, fit
from gaip3_pipeline.training.pictures import as_float, cosine_decay, flip_some, jitter, score, shift, shrink
from gaip3_pipeline.training.progress import Progress

JPEG_QUALITY = 95
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
    """A trained critic and the size of its pictures."""

    model: keras.Model
    height: int
    width: int


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
        moved = jitter(as_float(shift(flipped, settings.shift, generator)), settings.jitter, generator)
        # Noise of a strength of each picture's own hides codec traces and part of the decoder's blur, which latents cannot mend.
        strength = generator.uniform(0, settings.noise, (len(moved), 1, 1, 1)).astype(np.float32)
        noise = generator.standard_normal(moved.shape, dtype=np.float32)
        return np.clip(moved + strength * noise, 0.0, 1.0), batch["is_real"][:, None]

    def pairs(chosen: np.ndarray) -> dict[str, np.ndarray]:
        images = np.concatenate([pictures["real"][chosen], pictures["generated"][chosen]])
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
    logits = {k: score(model, [v], height, width)[:, 0] for k, v in pictures.items()}
    save_weights(model, folder)
    save_config(folder, {"height": height, "width": width, **dataclasses.asdict(settings)})
    checkpoint.discard(folder / "checkpoints")
    return CriticResult(history, logits["real"], logits["generated"], np.asarray(split))


def load_critic(folder: Path) -> TrainedCritic:
    """The critic of ``folder``. Raises ``FileNotFoundError`` when there is none."""
    config = load_config(folder)
    model = build_critic(config["height"], config["width"], config["width_multiplier"], config["dropout"])
    load_weights(model, folder).compile(**compile_options())
    return TrainedCritic(model, config["height"], config["width"])


def critic_logits(critic: TrainedCritic, images: np.ndarray) -> np.ndarray:
    """``(N,) float32`` logits of being real, of ``(N, H, W, 3) uint8`` after the size and the JPEG that the critic was trained on."""
    return score(critic.model, [same_way(images, critic.height, critic.width)], critic.height, critic.width)[:, 0]


def same_way(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(N, H, W, 3) uint8`` at ``(height, width)`` through one JPEG of quality 95, so that no codec tells real from generated."""
    small = shrink(images, height, width)
    out = np.empty_like(small)
    for i, image in enumerate(small):
        encoded = np.frombuffer(encode_jpeg(image, JPEG_QUALITY), np.uint8)
        out[i] = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[:, :, ::-1]  # BGR to RGB
    return out
