"""Features of faces, learned without labels: those of a trunk (trunk.py) and those of the parts of
the face (parts.py)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
from scipy.sparse.linalg import eigsh

from gaip3_pipeline.features.groups import REGIONS, groups, trunk_groups
from gaip3_pipeline.features.parts import (
    PartAxes,
    learn_part_axes,
    load_part_axes,
    save_part_axes,
)
from gaip3_pipeline.features.patches import HEIGHT, PATCH, PATCHES, SAMPLED, WIDTH, patch_dictionary
from gaip3_pipeline.features.trunk import COLOURS, build_trunk
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.mapping import cores, in_order
from gaip3_pipeline.imaging.transform import opponent
from gaip3_pipeline.models.backend import compile_options
from gaip3_pipeline.models.storage import load_weights, save_config, save_weights
from gaip3_pipeline.threads import one_blas_thread

ROUNDS = 10  # iterations of k-means
_BATCH = 64


@dataclass(frozen=True)
class Extractor:
    """``trunk``: patches and colours by region of the picture; ``parts``: measurements of the parts
    of the face."""

    trunk: keras.Model
    parts: PartAxes


@one_blas_thread
def learn_extractor(images: np.ndarray, seed: int = 0) -> tuple[Extractor, float]:
    """The extractor of ``images (N, H, W, 3) uint8``, and the share of variance that the principal
    axes of the trunk keep.

    ``LEARNED_FROM`` pictures are enough; memory grows with their number, by about 400 kB each."""
    generator = np.random.default_rng(seed)
    pictures = shrink(images, HEIGHT, WIDTH)
    pictures = np.concatenate([pictures, pictures[:, :, ::-1]])
    trunk, before = build_trunk()
    patches, colours = trunk.get_layer("patch_words"), trunk.get_layer("colour_words")
    directions, offset = _patch_dictionary(pictures, generator)
    patches.directions.assign(directions)
    patches.offset.assign(offset)
    centres, width = _colour_dictionary(pictures, generator)
    colours.centres.assign(centres)
    colours.width.assign(width)
    before.compile(**compile_options())
    parts: list[list[np.ndarray]] = [[] for _ in before.outputs]
    for start in range(0, len(pictures), _BATCH):
        for part, found in zip(
            parts,
            before.predict_on_batch(pictures[start : start + _BATCH].astype(np.float32)),
            strict=True,
        ):
            part.append(np.asarray(found))
    kept = []
    for name, part in zip(REGIONS, parts, strict=True):
        layer = trunk.get_layer(name)
        mean, axes, share = _principal_axes(np.concatenate(part), layer.axes.shape[1], generator)
        layer.mean.assign(mean)
        layer.axes.assign(axes)
        kept.append(share)
    return Extractor(_compiled(trunk), learn_part_axes(pictures, centres, width)), float(
        np.mean(kept)
    )


@one_blas_thread
def extract(
    extractor: Extractor,
    batches: Iterable[np.ndarray],
    done: Callable[[int], None] | None = None,
    with_trunk: bool = True,
    with_parts: bool = True,
) -> np.ndarray:
    """Features of pictures and of their mirror images, ``(2, N, D) float16``, for batches of
    ``(B, H, W, 3) uint8``.

    ``done(n)`` is called with the number of pictures done so far. Without one of trunk and parts
    the features are those of the other; the trunk alone takes a third of the time."""

    def after_trunk() -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        for batch in batches:
            for start in range(0, len(batch), _BATCH):
                some = shrink(batch[start : start + _BATCH], HEIGHT, WIDTH)
                both = np.concatenate([some, some[:, :, ::-1]])
                pictures = both.astype(np.float32)
                yield both, [extractor.trunk.predict_on_batch(pictures)] if with_trunk else []

    def complete(seen: tuple[np.ndarray, list[np.ndarray]]) -> np.ndarray:
        both, found = seen
        if with_parts:
            found = [*found, extractor.parts.features(both)]
        features = np.concatenate([np.asarray(x) for x in found], axis=1)
        return features.astype(np.float16).reshape(2, len(both) // 2, -1)

    out, n = [], 0
    # the trunk's thread goes on while others find and measure the parts of batches before
    for features in in_order(complete, after_trunk(), cores()):
        out.append(features)
        n += features.shape[1]
        if done:
            done(n)
    trunk, everything = int(trunk_groups()[-1]), int(groups()[-1])
    none = (everything if with_parts else trunk) - (0 if with_trunk else trunk)
    return np.concatenate(out, axis=1) if out else np.zeros((2, 0, none), np.float16)


@dataclass(frozen=True)
class PackedFeatures:
    """:func:`extract` of rows of a packed ``.npy`` file, by the extractor in ``folder``, as work
    for a :class:`gaip3_pipeline.imaging.mapping.Mapper`.

    ``version`` is the extractor's content hash; a process loads it once for each version. Without
    the trunk the features are those of the parts."""

    folder: Path
    version: str
    packed: Path
    with_trunk: bool = True

    def __call__(self, rows: Sequence[int]) -> np.ndarray:
        """``(2, N, D) float16`` of N consecutive rows."""
        pictures = np.load(self.packed, mmap_mode="r")
        return extract(
            _loaded(self.folder, self.version),
            [pictures[rows[0] : rows[-1] + 1]],
            with_trunk=self.with_trunk,
        )


@lru_cache(maxsize=1)
def _loaded(folder: Path, version: str) -> Extractor:
    return load_extractor(folder)


def save_extractor(extractor: Extractor, folder: Path) -> None:
    """Write ``model.weights.h5``, ``parts.weights.h5`` and ``model.json``, each completely or not
    at all."""
    save_weights(extractor.trunk, folder)
    save_part_axes(extractor.parts, folder)
    save_config(folder, {"height": HEIGHT, "width": WIDTH, "features": int(groups()[-1])})


def load_extractor(folder: Path) -> Extractor:
    """The extractor of ``folder``. Raises ``FileNotFoundError`` if there is none."""
    return Extractor(_compiled(load_weights(build_trunk()[0], folder)), load_part_axes(folder))


def _compiled(trunk: keras.Model) -> keras.Model:
    """Compile once, not in each call of :func:`extract`: Keras traces a newly compiled model
    again."""
    trunk.compile(**compile_options())
    return trunk


def _patch_dictionary(
    pictures: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The dictionary of patches at random positions: directions ``(8, 8, 3, PATCHES)``, offset
    ``(PATCHES,)``."""
    which = generator.integers(0, len(pictures), SAMPLED)
    tops, lefts = (
        generator.integers(0, HEIGHT - PATCH + 1, SAMPLED),
        generator.integers(0, WIDTH - PATCH + 1, SAMPLED),
    )
    corners = zip(which, tops, lefts, strict=True)
    taken = np.stack(
        [pictures[i, t : t + PATCH, x : x + PATCH].ravel() for i, t, x in corners]
    ).astype(np.float32)
    directions, offset = patch_dictionary(taken, ROUNDS, generator)
    return directions.reshape(PATCH, PATCH, 3, PATCHES), offset


def _colour_dictionary(
    pictures: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """k-means of pixels: ``(COLOURS, 3)`` centres, and the median squared distance from a centre to
    the nearest other one."""
    flat = pictures.reshape(-1, 3)
    pixels = opponent(flat[generator.integers(0, len(flat), SAMPLED)])
    centres = pixels[generator.choice(SAMPLED, COLOURS, replace=False)]
    for _ in range(ROUNDS):
        nearest = np.square(pixels[:, None] - centres[None]).sum(axis=-1).argmin(axis=1)
        for k in range(COLOURS):
            if (nearest == k).any():
                centres[k] = pixels[nearest == k].mean(axis=0)
    apart = np.sort(np.square(centres[:, None] - centres[None]).sum(axis=-1), axis=1)
    return centres, float(np.median(apart[:, 1]) + 1e-6)


def _principal_axes(
    x: np.ndarray, axes: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean ``(d,)``, axes ``(d, K)`` scaled so that the mean square norm of all of ``x (n, d)``
    would be 1, and the share of variance kept."""
    mean = x.mean(axis=0)
    centred = x - mean
    total = float(np.square(centred).sum()) + 1e-12
    product = centred.T @ centred if x.shape[1] < len(x) else centred @ centred.T
    kept = min(axes, len(product) - 1)
    values, vectors = eigsh(product.astype(np.float64), kept, v0=generator.random(len(product)))
    if x.shape[1] >= len(x):
        vectors = centred.T @ (vectors / np.sqrt(np.maximum(values, 1e-9 * values[-1] + 1e-12)))
    out = np.zeros((x.shape[1], axes))
    out[:, :kept] = vectors[:, ::-1] / np.sqrt(total / len(x))
    return mean, out, float(values.sum() / total)
