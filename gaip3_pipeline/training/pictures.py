"""Pictures on their way into a network: shrinking and augmentation of uint8 batches, scoring in batches. Pure functions of arrays."""

from collections.abc import Callable, Iterable

import cv2
import keras
import numpy as np

from gaip3_pipeline.imaging.transform import area_resize

SCORING_BATCH = 256


def shrink(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(N, H, W, 3) uint8 -> (N, height, width, 3) uint8`` by area means."""
    if images.shape[1:3] == (height, width):
        return np.asarray(images)
    out = np.empty((len(images), height, width, 3), np.uint8)
    for i, image in enumerate(images):
        out[i] = area_resize(image, height, width)
    return out


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 to float32 in 0..1."""
    return images.astype(np.float32) / 255.0


def flip_some(images: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each picture mirrored or not with equal chance, and ``(B,) bool`` of which."""
    flipped = generator.random(len(images)) < 0.5
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images), flipped


def shift(images: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Each picture moved by up to ``most`` pixels both ways; the border is repeated."""
    if most == 0:
        return images
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    tops, lefts = generator.integers(0, 2 * most + 1, (2, len(images)))
    return np.stack([p[t : t + height, x : x + width] for p, t, x in zip(padded, tops, lefts, strict=True)])


def blur(images: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """``(B, H, W, 3) uint8``: half of the pictures blurred by a Gaussian of up to ``most`` pixels."""
    if most == 0:
        return images
    out = images.copy()
    for i, sigma in enumerate(generator.uniform(-most, most, len(images))):
        if sigma > 0.1:
            out[i] = cv2.GaussianBlur(images[i], (0, 0), sigma)
    return out


def jitter(images: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """``(B, H, W, 3) float32 in 0..1``: contrast scaled by 1 ± ``strength`` and brightness moved by ± half of it."""
    if strength == 0:
        return images
    contrast = generator.uniform(1 - strength, 1 + strength, (len(images), 1, 1, 1)).astype(np.float32)
    brightness = generator.uniform(-strength / 2, strength / 2, (len(images), 1, 1, 1)).astype(np.float32)
    return np.clip((images - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0)


def score(model: keras.Model, batches: Iterable[np.ndarray], height: int, width: int) -> np.ndarray:
    """The outputs of ``model``, ``(N, K) float32``, for batches of ``(B, H, W, 3) uint8`` of any size, in their order.

    Memory is bounded by the larger of a batch given and 256 pictures.
    """
    return score_all([model], batches, height, width)[0]


def score_all(
    models: list[keras.Model], batches: Iterable[np.ndarray], height: int, width: int, done: Callable[[int], None] | None = None
) -> list[np.ndarray]:
    """:func:`score` for several models in one pass over the batches. ``done(n)`` is told how many pictures are scored."""
    outputs: list[list[np.ndarray]] = [[] for _ in models]
    n = 0
    for batch in batches:
        for start in range(0, len(batch), SCORING_BATCH):
            pictures = as_float(shrink(batch[start : start + SCORING_BATCH], height, width))
            for model, parts in zip(models, outputs, strict=True):
                # predict_on_batch rather than a plain call: compiled, and called once per batch without fit's set-up
                parts.append(np.asarray(model.predict_on_batch(pictures), np.float32))
            n += len(pictures)
            if done:
                done(n)
    return [
        np.concatenate(parts) if parts else np.zeros((0, *m.output_shape[1:]), np.float32) for m, parts in zip(models, outputs, strict=True)
    ]


def cosine_decay(learning_rate: float, batches_per_epoch: int, epochs: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """From ``learning_rate`` to 0 over the whole training; a function of the optimiser's step, so a resumed training goes on."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, batches_per_epoch * epochs))
