"""Draws faces from a trained generator: samples with given values, grids with the sliders set,
samples matched to rows of the data.

A face is drawn in three steps: latents from the aggregate posterior
(models/aggregate_posterior.py), the decoder's mean picture, and the change by the detail network
(models/detail.py). Face ``i`` of a draw with seed ``s`` has the latents and the noise map of seed
``s + i``, so every face can be drawn again alone."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from keras import ops
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.transform import encode_jpeg
from gaip3_pipeline.layout import DataRoot, samples_table
from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
from gaip3_pipeline.models.backend import compiled
from gaip3_pipeline.models.detail import DetailNetwork, load_detail
from gaip3_pipeline.models.nvae.model import NVAE, load_nvae
from gaip3_pipeline.models.storage import detail_version
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.settings import Samples
from gaip3_pipeline.tables.contracts import read_all_input_values
from gaip3_pipeline.tables.files import sync_folder, write_one_of_many
from gaip3_pipeline.tables.hashing import weights_version

BATCH = 64
JPEG_QUALITY = 95
# Offsets that separate the seeds of samples shown, of samples that the guide, the judges and the
# detail network are trained on, of sweeps, of measured samples and of reconstructions.
SEED_OFFSET = {
    "guide": 1_000_000,
    "judge": 2_000_000,
    "sweeps": 3_000_000,
    "measured": 3_500_000,
    "reconstructions": 4_000_000,
    "detail": 6_000_000,
}
NOISE_MAP = 1  # makes the random stream of a seed's noise map differ from that of its latents
# the distribution of latents: the prior, or the aggregate posterior
STANDARD, AGGREGATE = "standard", "aggregate"


Seeds = Sequence[int] | np.ndarray


class FaceGenerator:
    """A generator with its aggregate posterior and its detail network.

    Without ``posterior`` latents are drawn from the prior; without ``detail`` pictures are the
    decoder's means. Everything is computed in batches of one size, padded by repetition: only one
    shape is compiled, and a face is bit-identical alone and among others."""

    def __init__(
        self,
        nvae: NVAE,
        posterior: AggregatePosterior | None = None,
        detail: DetailNetwork | None = None,
        batch: int = BATCH,
    ) -> None:
        self.nvae, self.posterior, self.detail = nvae, posterior, detail
        self._batch, self._levels = batch, len(nvae.latent_shapes)

    @cached_property
    def without_detail(self) -> "FaceGenerator":
        """The same generator without its detail network."""
        if self.detail is None:
            return self
        return FaceGenerator(self.nvae, self.posterior, batch=self._batch)

    @property
    def supported(self) -> np.ndarray:
        """``(2, 5)``: the smallest and the largest of each value that the training pictures
        support; values are clipped to them."""
        return ops.convert_to_numpy(self.nvae.condition_embedding.range)

    def latents(
        self, seeds: Seeds, values: np.ndarray, temperature: float = 1.0
    ) -> list[np.ndarray]:
        """Latents of ``seeds (N,)`` for ``values (N, 5)``, as standardised noise: a list of
        ``(N, h, w, c) float32``, top-down."""
        n = len(seeds)
        noise = noise_of_seeds(self.nvae, seeds)
        return self.placed(
            noise,
            values,
            np.full(n, temperature, np.float32),
            np.full(n, self.posterior is not None),
        )

    def placed(
        self,
        noise: Sequence[np.ndarray],
        values: np.ndarray,
        temperature: np.ndarray,
        aggregate: np.ndarray,
    ) -> list[np.ndarray]:
        """Standard normal ``noise``, a list of ``(N, h, w, c)``, multiplied by ``temperature (N,)``
        and, where ``aggregate (N,) bool``, mapped to the aggregate posterior of ``values (N, 5)``.

        Raises ``ValueError`` if that is needed and the generator has no posterior."""
        scaled = [by_row(temperature, e) * e for e in noise]
        if not aggregate.any():
            return scaled
        moved = self._posterior.move(scaled, self._taken(values), 1.0)
        return [np.where(by_row(aggregate, e), m, e) for m, e in zip(moved, scaled, strict=True)]

    def displaced(self, latents: Sequence[np.ndarray], values: np.ndarray) -> list[np.ndarray]:
        """The inverse of :meth:`placed` for the aggregate posterior at temperature 1: the standard
        normal noise of ``latents``. Raises ``ValueError`` without a posterior."""
        return self._posterior.moved_back(latents, self._taken(values))

    @property
    def _posterior(self) -> AggregatePosterior:
        if self.posterior is None:
            raise ValueError("this generator has no aggregate posterior")
        return self.posterior

    def _taken(self, values: np.ndarray) -> np.ndarray:
        """``values`` clipped to the supported range: the means of the Gaussians are linear in the
        values and must not be extrapolated."""
        return np.clip(values, *self.supported)

    def means(
        self, latents: Sequence[np.ndarray], values: np.ndarray, guidance: Any = 1.0
    ) -> np.ndarray:
        """The decoder's mean pictures ``(N, H, W, 3) float32`` in 0..1; ``guidance`` is a number or
        ``(N,)``."""
        n = len(values)
        columns = [*latents, np.asarray(values, np.float32)]
        if np.ndim(guidance) == 0 and guidance == 1.0:
            return self._in_batches(self._decode, columns, n)
        each = np.broadcast_to(np.asarray(guidance, np.float32), (n,)).reshape(-1, 1, 1, 1)
        return self._in_batches(self._decode_guided, [*columns, each], n)

    def detailed(self, means: np.ndarray, seeds: Seeds, amount: Any) -> np.ndarray:
        """``means (N, H, W, 3)`` plus the detail network's change under the noise maps of
        ``seeds``, multiplied by ``amount``, a number in 0..1 or ``(N,)``; clipped to 0..1."""
        each = np.broadcast_to(np.asarray(amount, np.float32), (len(means),)).reshape(-1, 1, 1, 1)
        if self.detail is None or not each.any():
            return means
        with_noise = np.concatenate([means, noise_maps(seeds, *means.shape[1:3])], axis=-1)
        changed = np.clip(
            means + each * self._in_batches(self._change, [with_noise], len(means)), 0.0, 1.0
        )
        return np.where(each > 0, changed, means)

    def pictures(
        self,
        latents: Sequence[np.ndarray],
        values: np.ndarray,
        guidance: Any,
        seeds: Seeds,
        amount: Any,
    ) -> np.ndarray:
        """``(N, H, W, 3) uint8``: :meth:`means` with their detail."""
        return as_bytes(self.detailed(self.means(latents, values, guidance), seeds, amount))

    def draw(
        self, seeds: Seeds, values: np.ndarray, settings: Samples, progress: Progress | None = None
    ) -> Iterator[np.ndarray]:
        """Yield batches of ``(B, H, W, 3) uint8`` for ``seeds`` and ``values (N, 5)``, with
        temperature, guidance and detail of ``settings``. Memory does not grow with N."""
        for images, _ in self.draw_both(seeds, values, settings, progress):
            yield images

    def draw_both(
        self, seeds: Seeds, values: np.ndarray, settings: Samples, progress: Progress | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`draw`, with the same faces without detail beside each batch."""
        for start in range(0, len(seeds), self._batch):
            part = slice(start, start + self._batch)
            latents = self.latents(seeds[part], values[part], settings.temperature)
            means = self.means(latents, values[part], settings.guidance)
            yield as_bytes(self.detailed(means, seeds[part], settings.detail)), as_bytes(means)
            if progress:
                progress(min(start + self._batch, len(seeds)), len(seeds))

    def encoded(self, images: np.ndarray, values: np.ndarray, draw: int = 0) -> list[np.ndarray]:
        """Latents of pictures ``(N, …, 3) uint8`` with ``values (N, 5)``: one draw from the
        posterior each, ``(N, h, w, c) float32`` per level. ``draw`` selects the random numbers."""
        height, width = self.nvae.settings.height, self.nvae.settings.width
        sizes, shapes = (
            np.cumsum([np.prod(shape) for shape in self.nvae.latent_shapes])[:-1],
            self.nvae.latent_shapes,
        )
        rows = [np.zeros((0, int(sum(np.prod(shape) for shape in shapes))), np.float32)]
        seeds = SEED_OFFSET["reconstructions"] + draw * len(images) + np.arange(len(images))
        for start in range(0, len(images), self._batch):
            part = slice(start, start + self._batch)
            small = shrink(np.asarray(images[part]), height, width).astype(np.float32) / 255.0
            columns = [
                small,
                np.asarray(values[part], np.float32),
                *noise_of_seeds(self.nvae, seeds[part]),
            ]
            rows.append(self._in_batches(self._encode, columns, len(small)))
        flat = np.split(np.concatenate(rows), sizes, axis=1)
        return [
            level.reshape(len(images), *shape) for level, shape in zip(flat, shapes, strict=True)
        ]

    def reconstructions(
        self, images: np.ndarray, values: np.ndarray, amount: float, draw: int = 0
    ) -> np.ndarray:
        """``(N, H, W, 3) uint8``: pictures ``(N, …, 3) uint8`` of any size, encoded with their
        ``values (N, 5)`` and decoded, with ``amount`` of detail.

        They are what the generator would draw if its latents had exactly the distribution of
        encoded pictures."""
        means, seeds = self.rebuilt(images, values, draw)
        return as_bytes(self.detailed(means, seeds, amount))

    def rebuilt(
        self, images: np.ndarray, values: np.ndarray, draw: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The decoder's mean pictures ``(N, H, W, 3) float32`` of :meth:`reconstructions`, and the
        seeds ``(N,)`` of their noise maps."""
        seeds = SEED_OFFSET["reconstructions"] + draw * len(images) + np.arange(len(images))
        return self.means(self.encoded(images, values, draw), values), seeds

    def _in_batches(self, function: Any, columns: Sequence[np.ndarray], n: int) -> np.ndarray:
        outputs = []
        for start in range(0, n, self._batch):
            rows = np.minimum(np.arange(start, start + self._batch), n - 1)
            outputs.append(function([c[rows] for c in columns])[: n - start])
        return (
            np.concatenate(outputs)
            if outputs
            else np.zeros((0, self.nvae.settings.height, self.nvae.settings.width, 3), np.float32)
        )

    @cached_property
    def _decode(self) -> Any:
        return compiled(
            lambda arrays: self.nvae.decode(arrays[: self._levels], arrays[self._levels]),
            self.nvae,
        )

    @cached_property
    def _decode_guided(self) -> Any:
        return compiled(
            lambda arrays: self.nvae.decode(
                arrays[: self._levels], arrays[self._levels], 1.0, arrays[self._levels + 1]
            ),
            self.nvae,
        )

    @cached_property
    def _change(self) -> Any:
        network = self.detail
        return compiled(lambda arrays: network(arrays[0]), network)  # type: ignore[misc]

    @cached_property
    def _encode(self) -> Any:
        def flat(arrays: list[Any]) -> Any:
            levels = self.nvae.encode(arrays[0], arrays[1], arrays[2:])
            return ops.concatenate([ops.reshape(e, (self._batch, -1)) for e in levels], axis=1)

        return compiled(flat, self.nvae)


def load_face_generator(root: DataRoot, batch: int = BATCH) -> FaceGenerator:
    """The generator of ``root`` with its detail network. Raises ``FileNotFoundError`` if one is
    missing, ``PairError`` if they do not belong together.

    The last one of this process is kept with what it compiled, and returned while the files have
    the same content."""
    content = (weights_version(root.nvae), detail_version(root.detail))
    return _loaded(root.nvae, root.detail, content, batch)


@lru_cache(maxsize=1)
def _loaded(nvae: Path, detail: Path, content: tuple[str, str], batch: int) -> FaceGenerator:
    finish = load_detail(detail, nvae)
    return FaceGenerator(load_nvae(nvae), finish.posterior, finish.network, batch)


def noise_of_seeds(model: NVAE, seeds: Seeds) -> list[np.ndarray]:
    """Standard normal noise of latents, a list of ``(B, h, w, c) float32``; row i depends on
    ``seeds[i]`` only."""
    rows = [model.sample_noise(1, int(s)) for s in seeds]
    return [np.concatenate(level) for level in zip(*rows, strict=True)]


def noise_maps(seeds: Seeds, height: int, width: int) -> np.ndarray:
    """``(B, height, width, 1) float32`` standard normal: the detail network's noise; row i depends
    on ``seeds[i]`` only."""
    return np.stack(
        [
            np.random.default_rng((int(s), NOISE_MAP)).standard_normal(
                (height, width, 1), np.float32
            )
            for s in seeds
        ]
    )


def draw_samples(
    generator: FaceGenerator,
    values: np.ndarray,
    settings: Samples,
    progress: Progress | None = None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Draw ``settings.n`` faces whose values are those of random rows of ``values (N, 5)``:
    ``(n, H, W, 3) uint8`` and the table of samples."""
    rows = np.random.default_rng(settings.seed).integers(0, len(values), settings.n)
    asked = np.round(np.asarray(values[rows], np.float64), 4)
    seeds = settings.seed + np.arange(settings.n)
    images = np.concatenate(
        list(generator.draw(seeds, asked.astype(np.float32), settings, progress))
    )
    table = pd.DataFrame(asked, columns=list(ATTRIBUTES))
    table["image_path"] = [f"samples/{i:06d}.jpg" for i in range(settings.n)]
    table = table.assign(seed=seeds, temperature=settings.temperature, guidance=settings.guidance)
    return images, table.assign(
        prior=AGGREGATE if generator.posterior else STANDARD, detail=settings.detail
    )


def matched_samples(
    generator: FaceGenerator, values: np.ndarray, settings: Samples, role: str, draw: int = 0
) -> np.ndarray:
    """``(N, H, W, 3) uint8``: one face for each row of ``values (N, 5)``, with ``settings`` and
    with seeds of ``role`` and ``draw``."""
    seeds = settings.seed + SEED_OFFSET[role] + draw * len(values) + np.arange(len(values))
    return np.concatenate(list(generator.draw(seeds, values, settings)))


def write_pictures(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    """Write JPEGs (quality 95) into ``folder`` and remove other samples. Its table is removed
    first; the caller writes it last."""
    samples_table(folder).unlink(missing_ok=True)
    write_jpegs(folder, names, images)
    remove_others(folder, names)


def write_jpegs(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    """Write pictures ``(N, H, W, 3) uint8`` as JPEGs of quality 95, each completely or not at
    all."""
    for name, image in zip(names, images, strict=True):
        write_one_of_many(folder / name, encode_jpeg(image, JPEG_QUALITY))
    if names:
        sync_folder(folder)


def read_jpegs(folder: Path, names: Sequence[str]) -> np.ndarray:
    """``(N, H, W, 3) uint8``: the JPEGs ``names`` of ``folder``, which must have equal sizes."""
    return np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in names])


def remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove the samples of ``folder``, such as ``000000.jpg``, that are not among ``names``. Files
    of other names were not made by the pipeline and stay."""
    wanted = set(names)
    for other in folder.glob("*.jpg"):
        if other.stem.isdecimal() and other.name not in wanted and other.is_file():
            other.unlink()


def out_of_range(generator: FaceGenerator, sliders: Mapping[str, float]) -> list[str]:
    """A line for each of ``sliders`` whose value lies outside the supported range."""
    ranges = dict(zip(ATTRIBUTES, generator.supported.T.tolist(), strict=True))
    return [
        f"{a} {asked:g}: the data supports {ranges[a][0]:.2f} to {ranges[a][1]:.2f}, so it is drawn"
        f" as {np.clip(asked, *ranges[a]):.2f}"
        for a, asked in sliders.items()
        if not ranges[a][0] - 0.005 <= asked <= ranges[a][1] + 0.005
    ]


def values_of_seeds(root: DataRoot, seeds: Seeds) -> np.ndarray:
    """``(B, 5) float32``: for each seed the values of a picture of the data, which the seed
    selects."""
    known = read_all_input_values(root).dropna().to_numpy(np.float32)
    return known[[np.random.default_rng(s).integers(len(known)) for s in seeds]]


def grid(faces: np.ndarray, height: int = 128) -> np.ndarray:
    """``(N, H, W, 3) uint8`` as one nearly square picture ``(…, …, 3) uint8``, each face enlarged
    to a height of about ``height`` pixels."""
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


def by_row(rows: np.ndarray, level: np.ndarray) -> np.ndarray:
    """``rows (N,)`` reshaped to broadcast against ``level (N, h, w, c)``."""
    return rows.reshape(-1, *[1] * (level.ndim - 1))


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Pictures in 0..1 as ``uint8`` in 0..255, rounded."""
    return np.round(pictures * 255).astype(np.uint8)
