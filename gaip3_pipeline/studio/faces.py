"""Faces for the studio: drawn from recipes, retouched, and encoded from a photograph.

All pictures are decoded in batches of one size, so that a recipe gives equal bytes in the page, in
a download and in ``gaip3 generate --from``. (On another kind of processor a colour may round to the
next of 256 levels.)"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import keras
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.features.extractor import Extractor, extract, load_extractor
from gaip3_pipeline.features.groups import groups
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.transform import Box, area_resize, resize
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.models.detail import load_detail
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.retouching.retoucher import Retoucher, Tools, load_tools
from gaip3_pipeline.sampling.draw import (
    AGGREGATE,
    STANDARD,
    FaceGenerator,
    grid,
    noise_of_seeds,
    values_of_seeds,
)
from gaip3_pipeline.sampling.recipe import (
    LISTED,
    Drawn,
    Encoded,
    Face,
    Latents,
    Pair,
    Recipe,
    RecipeError,
    noise_seed,
    pack_latents,
    parts,
    seed_of,
    unpack_latents,
    write_png,
)
from gaip3_pipeline.settings import ASCENT, Settings
from gaip3_pipeline.studio.novelty import FAR, Novelty, load_novelty
from gaip3_pipeline.training.attribute_model import AttributeGP, load_input_model

# Size of every decoded batch, padded by repetition: only one shape is compiled, and a face has
# equal bytes alone and with others.
BATCH = 8
PREVIEW = 720  # pixels
TURN = 64  # faces of a large picture that are drawn at a time
RETOUCHERS = 3  # compiled ones kept in memory
# approximate height in pixels of a single face, and of each face in a picture of several
LARGE, SMALL = 512, 128


@dataclass(frozen=True)
class Photograph:
    """A photograph as the generator takes it: ``cut (H, W, 3) uint8``, what was cut out of it;
    its face; and ``farther_than``, the share of the ``held_out`` pictures of the data that are
    nearer to the training pictures (0 of 0 where the root has no features of them)."""

    cut: np.ndarray
    face: Face
    farther_than: float
    held_out: int

    @property
    def is_far(self) -> bool:
        """Whether the photograph is unlike what the generator was trained on."""
        return self.held_out > 0 and self.farther_than >= FAR


class Studio:
    """Faces of the generator ``pair``, retouched and encoded with the other models of ``root``."""

    def __init__(self, root: DataRoot, settings: Settings, pair: Pair) -> None:
        self.root, self.settings, self.pair = root, settings, pair
        finish = load_detail(pair.detail_folder, pair.folder) if pair.detail_folder else None
        self.generator = FaceGenerator(
            load_nvae(pair.folder),
            finish.posterior if finish else None,
            finish.network if finish else None,
            BATCH,
        )
        self.nvae = self.generator.nvae
        self._retouchers: OrderedDict[
            tuple[str, float, frozenset[tuple[float, float]]], Retoucher
        ] = OrderedDict()

    def resolved(self, faces: Sequence[Face]) -> list[Face]:
        """``faces`` with a number for each value; a missing value is taken from the picture of the
        data that the seed chooses.

        A generator without a detail network draws from its prior, without detail. Raises
        ``ContractError`` if values are missing and ``root`` has no input values yet.
        """
        if self.generator.detail is None:
            faces = [face.model_copy(update={"prior": STANDARD, "detail": 0.0}) for face in faces]
        unset = [i for i, face in enumerate(faces) if None in face.values]
        own = (
            iter(
                values_of_seeds(self.root, [seed_of(faces[i].latents) for i in unset])
                .astype(float)
                .round(4)
            )
            if unset
            else iter(())
        )
        chosen = {
            i: [o if v is None else v for v, o in zip(faces[i].values, next(own), strict=True)]
            for i in unset
        }
        return [
            face.model_copy(update={"values": chosen.get(i, face.values)})
            for i, face in enumerate(faces)
        ]

    def of_seeds(self, first: int, n: int, sliders: Mapping[str, float]) -> list[Face]:
        """``n`` resolved faces of the seeds from ``first`` on, drawn as the settings say; values
        that are not in ``sliders`` are those of pictures of the data."""
        values, samples = [sliders.get(a) for a in ATTRIBUTES], self.settings.samples
        ways: dict[str, Any] = {"temperature": samples.temperature, "guidance": samples.guidance}
        if self.generator.detail:
            ways |= {"prior": AGGREGATE, "detail": samples.detail}
        seeds = range(first, first + n)
        return self.resolved([Face(latents=Drawn(seed=s), values=values, **ways) for s in seeds])

    def pictures(self, faces: Sequence[Face]) -> np.ndarray:
        """``(N, H, W, 3) uint8`` of resolved ``faces``. Raises :class:`RecipeError` for latents
        of another generator."""
        latents = self._placed(
            faces, [face.latents for face in faces], [face.temperature for face in faces]
        )
        values = np.array([face.values for face in faces], np.float32)
        # Passed as arrays, so that one compiled function serves all values.
        guidance, detail = (
            np.array([getattr(face, name) for face in faces], np.float32)
            for name in ("guidance", "detail")
        )
        return self.generator.pictures(
            latents, values, guidance, [noise_seed(face) for face in faces], detail
        )

    def png(self, faces: Sequence[Face]) -> bytes:
        """A PNG of ``faces`` that contains its recipe, unless they are more than ``LISTED``: one
        face at a large size, or several as a grid."""
        faces = self.resolved(faces)
        # in turns, so that memory is bounded by the pictures
        turns = [self.pictures(faces[i : i + TURN]) for i in range(0, len(faces), TURN)]
        sheet = grid(np.concatenate(turns), LARGE if len(faces) == 1 else SMALL)
        if len(faces) > LISTED:
            return write_png(sheet)
        used = any(face.detail or face.prior == AGGREGATE for face in faces)
        detail = self.pair.detail_version if used else None
        return write_png(
            sheet, Recipe(model=self.pair.version, detail_model=detail, faces=list(faces))
        )

    def retouched(self, faces: Sequence[Face], fidelity: float) -> tuple[list[Face], list[str]]:
        """``faces`` with retouched latents, and for each face the reason why it was not retouched,
        or "".

        Retouching starts from the latents that a face was drawn with. Raises ``FileNotFoundError``
        if ``root`` lacks a model that retouching needs.
        """
        faces = self.resolved(faces)
        drawn = [face.drawn or face.latents for face in faces]
        table = pd.DataFrame([face.values for face in faces], columns=list(ATTRIBUTES))
        columns = {
            name: [getattr(f, name) for f in faces] for name in ("guidance", "detail", "prior")
        }
        # The temperature scales latents of the prior when they are decoded, and those of the
        # aggregate posterior before they are moved there.
        temperature = [1.0 if f.prior == AGGREGATE else f.temperature for f in faces]
        table = table.assign(seed=[seed_of(d) for d in drawn], temperature=temperature, **columns)
        scaled = [f.temperature if f.prior == AGGREGATE else 1.0 for f in faces]
        noise, out, reasons = self._placed(faces, drawn, scaled), list(faces), [""] * len(faces)
        for method, rows in self._by_method(drawn).items():
            ways = frozenset(zip(table.temperature[rows], table.guidance[rows], strict=True))
            done = self._retoucher(method, fidelity, ways)(
                [level[rows] for level in noise], table.iloc[rows]
            )
            for i, (row, reason) in enumerate(zip(rows, done.reasons, strict=True)):
                reasons[row] = reason
                moved = {
                    "latents": pack_latents(level[i] for level in done.noise),
                    "drawn": drawn[row],
                    "fidelity": fidelity,
                }
                out[row] = out[row].model_copy(
                    update=(
                        {"latents": drawn[row], "drawn": None, "fidelity": 0.0} if reason else moved
                    )
                )
        return out, reasons

    def photograph(self, data: bytes, box: Box | None = None) -> Photograph:
        """A photograph, given as the bytes of its file. It is cut as the pipeline cuts pictures, or
        to ``box``.

        Its face has the values that the input models predict, and the posterior's mean as latents.
        Raises ``UnusableImage`` for a file that the pipeline would refuse, and
        ``FileNotFoundError`` without input models."""
        images, size = self.settings.images, self.nvae.settings
        target = Target(max(images.height, size.height), max(images.width, size.width), images.crop)
        if box:
            # what is decoded may be reduced, as long as the box stays large enough
            across, down = box.right - box.left, box.bottom - box.top
            needed = Target(ceil(target.height / down), ceil(target.width / across))
            picture = decode(data, "photograph", needed, images.max_pixels)
            cut = area_resize(box.of(picture.pixels), target.height, target.width)
        else:
            cut = resize(decode(data, "photograph", target, images.max_pixels), target)
        features = extract(self._extractor, [cut[None]])
        values = [float(process.predict(features)[0][0]) for process in self._input_models]
        encoded = self.nvae.encode(
            shrink(cut[None], size.height, size.width), np.array([values], np.float32)
        )
        latents = pack_latents(keras.ops.convert_to_numpy(e)[0] for e in encoded)
        ways: dict[str, Any] = (
            {"prior": AGGREGATE, "detail": self.settings.samples.detail}
            if self.generator.detail
            else {}
        )
        face = Face(latents=latents, values=[round(v, 4) for v in values], **ways)
        if not self._novelty:
            return Photograph(cut, face, 0.0, 0)
        [farther] = self._novelty.farther_than(features[0])
        return Photograph(cut, face, float(farther), len(self._novelty.held_out))

    def preview(self, data: bytes) -> np.ndarray:
        """The whole photograph in the bytes of its file, upright, its longer side at most
        ``PREVIEW`` pixels, ``(h, w, 3) uint8``. Raises ``UnusableImage``."""
        picture = decode(
            data, "photograph", Target(PREVIEW, PREVIEW), self.settings.images.max_pixels
        )
        ratio = min(1.0, PREVIEW / max(picture.width, picture.height))
        height, width = (max(1, round(n * ratio)) for n in (picture.height, picture.width))
        return area_resize(picture.pixels, height, width)

    def _placed(
        self, faces: Sequence[Face], latents: Sequence[Latents], temperature: Sequence[float]
    ) -> list[np.ndarray]:
        """The latents that the generator decodes for ``faces`` with these ``latents``: a list of
        ``(N, h, w, c) float32``, top-down.

        ``Encoded`` latents are already distributed as the encoder's, so neither the aggregate
        posterior nor the temperature is applied to them."""
        values = np.array([face.values for face in faces], np.float32)
        aggregate = np.array([face.prior == AGGREGATE for face in faces])
        moved = aggregate & ~np.array([isinstance(part, Encoded) for part in latents])
        own = np.where(aggregate, np.array(temperature), 1.0).astype(np.float32)
        rows = [
            self._latents(part, t, v if m else None)
            for part, t, v, m in zip(latents, own, values, moved, strict=True)
        ]
        noise = [np.stack(level) for level in zip(*rows, strict=True)]
        scale = np.where(aggregate, 1.0, np.array(temperature)).astype(np.float32)
        return self.generator.placed(noise, values, scale, moved)

    def _latents(
        self, part: Latents, temperature: np.float32, values: np.ndarray | None
    ) -> list[np.ndarray]:
        """The latents of one face, ``(h, w, c) float32`` per level; those of seeds are multiplied
        by ``temperature``.

        With ``values``, ``Encoded`` latents are returned as the noise that ``FaceGenerator.placed``
        maps to them, so that they can be mixed with latents of seeds."""
        if isinstance(part, Drawn):
            return [temperature * level[0] for level in noise_of_seeds(self.nvae, [part.seed])]
        if isinstance(part, Encoded):
            numbers = unpack_latents(part, self.nvae.latent_shapes)
            if values is None:
                return numbers
            return [
                level[0]
                for level in self.generator.displaced(
                    [level[None] for level in numbers], values[None]
                )
            ]
        shares = part.share * len(self.nvae.latent_shapes) if len(part.share) == 1 else part.share
        if len(shares) != len(self.nvae.latent_shapes):
            raise RecipeError(
                f"this face mixes {len(shares)} levels, and this generator has"
                f" {len(self.nvae.latent_shapes)}: it is of another generator"
            )
        ends = (self._latents(end, temperature, values) for end in (part.first, part.second))
        pairs = zip(*ends, shares, strict=True)
        # A weighted mean of two independent normals has less variance than they have. The division
        # restores it, so that the mixture lies where the prior has its mass.
        return [
            (((1 - s) * a + s * b) / np.hypot(1 - s, s)).astype(np.float32) for a, b, s in pairs
        ]

    def _by_method(self, latents: Sequence[Latents]) -> dict[str, list[int]]:
        """Rows by the method that retouches them: faces with latents of a photograph by ``ascent``,
        others by the method of the settings.

        A correction of the prior expects latents of the prior; it would move latents of photographs
        away from those of photographs."""
        rows: dict[str, list[int]] = {}
        for i, row in enumerate(latents):
            of_photograph = any(isinstance(part, Encoded) for part in parts(row))
            rows.setdefault(ASCENT if of_photograph else self.settings.retouch.method, []).append(i)
        return rows

    def _retoucher(
        self, method: str, fidelity: float, ways: frozenset[tuple[float, float]]
    ) -> Retoucher:
        """A retoucher for these pairs of temperature and guidance, each of which takes seconds to
        compile; the last ``RETOUCHERS`` are kept."""
        key = method, fidelity, ways
        if key not in self._retouchers:
            settings = dataclasses.replace(
                self.settings.retouch, method=method, fidelity=fidelity, batch_size=BATCH
            )
            self._retouchers[key] = Retoucher(self._tools, settings)
        self._retouchers.move_to_end(key)
        while len(self._retouchers) > RETOUCHERS:
            self._retouchers.popitem(last=False)
        return self._retouchers[key]

    @cached_property
    def _tools(self) -> Tools:
        return load_tools(self.root, self.settings.retouch, self.generator)

    @cached_property
    def _extractor(self) -> Extractor:
        return load_extractor(self.root.feature_extractor)

    @cached_property
    def _novelty(self) -> Novelty | None:
        return load_novelty(self.root, int(groups()[-1]))

    @cached_property
    def _input_models(self) -> list[AttributeGP]:
        return [load_input_model(self.root.input_model(a)) for a in ATTRIBUTES]
