"""Shrinking and augmentation of batches of pictures before they enter a network. Pure functions of
arrays."""

import cv2
import numpy as np

from gaip3_pipeline.imaging.transform import area_resize


def shrink(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """``(N, H, W, 3) uint8`` to ``(N, height, width, 3) uint8`` by area means."""
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
    """Mirror each of ``images (B, H, W, 3)`` with probability 1/2; also returns ``(B,) bool``, True
    where mirrored."""
    flipped = generator.random(len(images)) < 0.5
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images), flipped


def shift(images: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """``(B, H, W, 3)``: each picture shifted by up to ``most`` pixels along both axes; border
    pixels are repeated."""
    if most == 0:
        return images
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    tops, lefts = generator.integers(0, 2 * most + 1, (2, len(images)))
    return np.stack(
        [p[t : t + height, x : x + width] for p, t, x in zip(padded, tops, lefts, strict=True)]
    )


def blur(images: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """``(B, H, W, 3) uint8``: half of the pictures blurred, by a Gaussian of standard deviation up
    to ``most`` pixels."""
    if most == 0:
        return images
    out = images.copy()
    for i, sigma in enumerate(generator.uniform(-most, most, len(images))):
        if sigma > 0.1:
            out[i] = cv2.GaussianBlur(images[i], (0, 0), sigma)
    return out


def jitter(images: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """``(B, H, W, 3) float32`` in 0..1: contrast scaled by 1 ± ``strength``, brightness shifted by
    ± half of it."""
    if strength == 0:
        return images
    contrast = generator.uniform(1 - strength, 1 + strength, (len(images), 1, 1, 1)).astype(
        np.float32
    )
    brightness = generator.uniform(-strength / 2, strength / 2, (len(images), 1, 1, 1)).astype(
        np.float32
    )
    return np.clip((images - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0)
