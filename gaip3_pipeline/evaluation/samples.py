"""Fresh samples of a generator beside real pictures: distances, coverage, and the training pictures that lie nearest to them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.evaluation.distances import Features, distances_to_real
from gaip3_pipeline.evaluation.generate import SEED_OFFSET, decode_batches
from gaip3_pipeline.evaluation.neighbours import copying, nearest
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import area_resize
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.settings import Samples
from gaip3_pipeline.training.pictures import shrink
from gaip3_pipeline.training.progress import Progress

MOST = 400
COPY_SIZE = (16, 13)  # at which pictures are compared for copies: blur, which draws samples together, matters less there


@dataclass(frozen=True)
class Fresh:
    """Samples and what was found near them. ``figures`` as :func:`evaluate_samples` says."""

    figures: dict[str, float | int]
    images: np.ndarray  # (n, H, W, 3) uint8
    nearest: np.ndarray  # (n, H, W, 3) uint8: the training picture nearest to each, mirrored where that is nearer
    distance: np.ndarray  # (n,) to it: root of the mean square, grey levels at COPY_SIZE


def draw_fresh(model: NVAE, values: np.ndarray, n: int, settings: Samples, progress: Progress | None = None) -> np.ndarray:
    """``(n, H, W, 3) uint8`` with rows of ``values (N, 5)``, at the temperature and guidance of ``settings``."""
    rows = values[np.random.default_rng(settings.seed).integers(0, len(values), n)]
    seeds = settings.seed + SEED_OFFSET["measured"] + np.arange(n)
    return np.concatenate(list(decode_batches(model, seeds, rows, settings.temperature, settings.guidance, progress)))


def evaluate_samples(
    model: NVAE,
    images: np.ndarray,
    values: np.ndarray,
    learned: np.ndarray,
    settings: Samples,
    features: Mapping[str, Features] | None = None,
    progress: Progress | None = None,
) -> Fresh | None:
    """Draw half as many samples as there are held-out pictures, at most ``MOST``, and compare them. None where that is no picture.

    ``images (N, H, W, 3) uint8``, ``values (N, 5)``, ``learned (N,) bool``: which were trained on. Figures: those of
    :func:`distances_to_real` with ``features``, ends ``_samples`` and ``_real``; ``nearest_samples``, ``nearest_real``: the median
    distance to the nearest training picture or its mirror image, root mean square in grey levels at ``COPY_SIZE``, of samples and of
    held-out pictures; ``copying``: see neighbours.
    """
    seen, held_out = np.flatnonzero(learned), images[np.flatnonzero(~np.asarray(learned))]
    n = min(MOST, len(held_out) // 2)
    if n == 0 or not len(seen):
        return None
    drawn = draw_fresh(model, values, n, settings, progress)
    small = np.stack([area_resize(images[i], *COPY_SIZE) for i in seen])
    both_ways = _rows(np.concatenate([small, small[:, :, ::-1]]))
    distance, index = nearest(_rows(shrink(drawn, *COPY_SIZE)), both_ways)
    real_distance, _ = nearest(_rows(shrink(held_out, *COPY_SIZE)), both_ways)
    height, width = drawn.shape[1:3]
    found = shrink(images[seen[index % len(seen)]], height, width)
    found = np.where((index >= len(seen))[:, None, None, None], found[:, :, ::-1], found)
    figures = distances_to_real({"samples": drawn}, held_out, features=features) | {
        "nearest_samples": float(np.median(distance)),
        "nearest_real": float(np.median(real_distance)),
        "copying": copying(distance, real_distance),
    }
    return Fresh(figures, drawn, found, distance)


def nearest_sheet(fresh: Fresh, columns: int = 10) -> bytes:
    """A JPEG: the samples that lie nearest to a training picture, each above that picture."""
    chosen = np.argsort(fresh.distance)[:columns]
    pictures = [*fresh.images[chosen], *fresh.nearest[chosen]]
    captions = [f"sample, {d:.0f}" for d in fresh.distance[chosen]] + ["its nearest"] * len(chosen)
    title = "the samples nearest to a training picture (root mean square, grey levels at 16 by 13), above it"
    height, width = fresh.images.shape[1:3]
    return contact_sheet(pictures, len(chosen), cell=(96, 96 * height // width), captions=captions, title=title)


def _rows(small: np.ndarray) -> np.ndarray:
    """``(N, D) float32``, scaled so that a Euclidean distance is the root of the mean square in grey levels."""
    rows = small.reshape(len(small), -1).astype(np.float32)
    return rows / np.sqrt(rows.shape[1], dtype=np.float32)
