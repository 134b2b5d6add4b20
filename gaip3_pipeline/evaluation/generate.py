"""Faces drawn from a trained generator: samples with the values asked for, grids with the sliders set, samples matched to real rows.

Face ``i`` of a draw with seed ``s`` has the latent noise of seed ``s + i``, so that every face can be drawn again alone.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
from PIL import Image

from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import ATTRIBUTES, DataRoot
from gaip3_pipeline.models.nvae.model import NVAE, load_nvae
from gaip3_pipeline.settings import Samples
from gaip3_pipeline.tables.contracts import read_all_input_values
from gaip3_pipeline.tables.files import write_bytes_atomically
from gaip3_pipeline.training.pictures import shrink
from gaip3_pipeline.training.progress import Progress

BATCH = 64
JPEG_QUALITY = 95
# The seeds of what is shown, of what the guide and the judge learn from, of sweeps and of samples that are measured never meet.
SEED_OFFSET = {"guide": 1_000_000, "judge": 2_000_000, "sweeps": 3_000_000, "measured": 3_500_000, "reconstructions": 4_000_000}


Seeds = Sequence[int] | np.ndarray


def noise_of_seeds(model: NVAE, seeds: Seeds) -> list[np.ndarray]:
    """Latent noise, a list of ``(B, h, w, c) float32``, row i from ``seeds[i]`` alone."""
    rows = [model.sample_noise(1, int(s)) for s in seeds]
    return [np.concatenate(level) for level in zip(*rows, strict=True)]


def decode_batches(
    model: NVAE, seeds: Seeds, values: np.ndarray, temperature: float, guidance: float, progress: Progress | None = None
) -> Iterator[np.ndarray]:
    """Batches of ``(B, H, W, 3) uint8`` for ``seeds`` and ``values (N, 5)``; memory does not grow with N."""
    for start in range(0, len(seeds), BATCH):
        part = slice(start, start + BATCH)
        pictures = model.decode(noise_of_seeds(model, seeds[part]), values[part], temperature, guidance)
        yield np.round(keras.ops.convert_to_numpy(pictures) * 255).astype(np.uint8)
        if progress:
            progress(min(start + BATCH, len(seeds)), len(seeds))


def draw_samples(folder: Path, values: np.ndarray, settings: Samples, progress: Progress | None = None) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw ``settings.n`` faces with values taken from rows of ``values (N, 5)``: ``(n, H, W, 3) uint8`` and the samples' table."""
    model = load_nvae(folder)
    rows = np.random.default_rng(settings.seed).integers(0, len(values), settings.n)
    asked = np.round(np.asarray(values[rows], np.float64), 4)
    seeds = settings.seed + np.arange(settings.n)
    images = np.concatenate(list(decode_batches(model, seeds, asked.astype(np.float32), settings.temperature, settings.guidance, progress)))
    table = pd.DataFrame(asked, columns=list(ATTRIBUTES))
    table["image_path"] = [f"samples/{i:06d}.jpg" for i in range(settings.n)]
    return images, table.assign(seed=seeds, temperature=settings.temperature, guidance=settings.guidance)


def matched_samples(model: NVAE, values: np.ndarray, settings: Samples, role: str, draw: int = 0) -> np.ndarray:
    """``(N, H, W, 3) uint8``: one face for each row of ``values (N, 5)``, drawn as the samples are, with seeds of ``role`` and ``draw``."""
    seeds = settings.seed + SEED_OFFSET[role] + draw * len(values) + np.arange(len(values))
    return np.concatenate(list(decode_batches(model, seeds, values, settings.temperature, settings.guidance)))


def encoded(model: NVAE, images: np.ndarray, values: np.ndarray, draw: int = 0) -> list[np.ndarray]:
    """The posterior of pictures ``(N, …, 3) uint8`` with ``values (N, 5)``: one draw each, ``(N, h, w, c) float32`` per level."""
    height, width = model.settings.height, model.settings.width
    seeds = SEED_OFFSET["reconstructions"] + draw * len(images) + np.arange(len(images))
    batches = [[np.zeros((0, *shape), np.float32) for shape in model.latent_shapes]]
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        noise = model.encode(shrink(images[part], height, width), values[part], noise_of_seeds(model, seeds[part]))
        batches.append([keras.ops.convert_to_numpy(e) for e in noise])
    return [np.concatenate(level) for level in zip(*batches, strict=True)]


def reconstructions(model: NVAE, images: np.ndarray, values: np.ndarray, draw: int = 0) -> np.ndarray:
    """``(N, H, W, 3) uint8``: pictures ``(N, …, 3) uint8`` of any size encoded with their ``values (N, 5)``, one draw each, and decoded.

    What the generator would make if its prior were what its encoder says of pictures.
    """
    latents = encoded(model, images, values, draw)
    made = [np.zeros((0, model.settings.height, model.settings.width, 3))] + [
        np.round(keras.ops.convert_to_numpy(model.decode([e[start : start + BATCH] for e in latents], values[start : start + BATCH])) * 255)
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(made).astype(np.uint8)


def write_pictures(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    """Make ``folder`` hold exactly these JPEGs (quality 95); its table is removed first and written last by the caller."""
    (folder / "samples.csv").unlink(missing_ok=True)
    write_jpegs(folder, names, images)
    remove_others(folder, names)


def write_jpegs(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    """Write pictures ``(N, H, W, 3) uint8`` as JPEGs of quality 95, each whole or not at all."""
    for name, image in zip(names, images, strict=True):
        write_bytes_atomically(folder / name, encode_jpeg(image, JPEG_QUALITY))


def read_jpegs(folder: Path, names: Sequence[str]) -> np.ndarray:
    """``(N, H, W, 3) uint8`` of pictures of equal size."""
    return np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in names])


def remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove JPEGs of ``folder`` that are not among ``names``."""
    wanted = set(names)
    for other in folder.glob("*.jpg"):
        if other.name not in wanted:
            other.unlink()


def generate_grid(root: DataRoot, sliders: Mapping[str, float], n: int, seed: int, temperature: float, guidance: float) -> bytes:
    """A PNG grid of ``n`` faces with the values of ``sliders``; those not set are a picture's of the data, another one's for each face."""
    model, seeds = load_nvae(root.nvae), seed + np.arange(n)
    values = values_of_seeds(root, seeds)
    for i, attribute in enumerate(ATTRIBUTES):
        if attribute in sliders:
            values[:, i] = sliders[attribute]
    faces = np.concatenate(list(decode_batches(model, seeds, values, temperature, guidance)))
    return png_grid(faces)


def values_of_seeds(root: DataRoot, seeds: Seeds) -> np.ndarray:
    """``(B, 5) float32``: of each seed the values of a picture of the data that it chooses, as it chooses the noise."""
    known = read_all_input_values(root).dropna().to_numpy(np.float32)
    return known[[np.random.default_rng(s).integers(len(known)) for s in seeds]]


def png_grid(faces: np.ndarray) -> bytes:
    """:func:`grid` as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(grid(faces)).save(buffer, "PNG")
    return buffer.getvalue()


def grid(faces: np.ndarray, height: int = 128) -> np.ndarray:
    """``(N, H, W, 3) uint8`` as one picture ``(…, …, 3) uint8``, enlarged to about ``height`` pixels each, near a square."""
    n, h, w, _ = faces.shape
    factor = max(1, round(height / h))
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.full((rows * h * factor, columns * w * factor, 3), 255, np.uint8)
    for i, face in enumerate(faces):
        large = cv2.resize(face, (w * factor, h * factor), interpolation=cv2.INTER_CUBIC)
        top, left = i // columns * h * factor, i % columns * w * factor
        sheet[top : top + h * factor, left : left + w * factor] = large
    return sheet
