"""The studio's side of the models: faces of recipes drawn, retouched, and found for a photograph,
always by the same few functions.

All pictures are decoded in batches of one size, so that a recipe gives equal bytes wherever it
is followed: in the page, in a download, in ``gaip3 generate --from``. (On another kind of
processor a colour may round to the next of 256 levels.)"""

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.features.extractor import Extractor, extract, load_extractor
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.transform import resize
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
from gaip3_pipeline.training.attribute_model import AttributeGP, load_input_model

# of every decoding, filled up by repetition: one shape to compile, and a face is the same to the
# bit alone and among others
BATCH = 8
RETOUCHERS = 3
# pixels of height, about: of one face alone, and of each of several in one picture
LARGE, SMALL = 512, 128


class Studio:
    """The generator ``pair``, with what ``root`` has to go with it."""

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
        """``faces`` with a number for each value. Raises ``ContractError`` where values are missing
        and ``root`` knows none yet.

        A generator that has no detail network draws them without detail, from its prior.
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

    def pictures(self, faces: Sequence[Face]) -> np.ndarray:
        """``(N, H, W, 3) uint8`` of resolved ``faces``. Raises :class:`RecipeError` for latents
        of another generator."""
        latents = self._placed(
            faces, [face.latents for face in faces], [face.temperature for face in faces]
        )
        values = np.array([face.values for face in faces], np.float32)
        # As arrays, so that one compiled function serves all of them.
        guidance, detail = (
            np.array([getattr(face, name) for face in faces], np.float32)
            for name in ("guidance", "detail")
        )
        return self.generator.pictures(
            latents, values, guidance, [noise_seed(face) for face in faces], detail
        )

    def png(self, faces: Sequence[Face]) -> bytes:
        """The picture of ``faces`` with its recipe inside, one face large or several side by
        side."""
        faces = self.resolved(faces)
        sheet = grid(self.pictures(faces), LARGE if len(faces) == 1 else SMALL)
        used = any(face.detail or face.prior == AGGREGATE for face in faces)
        detail = self.pair.detail_version if used else None
        return write_png(
            sheet, Recipe(model=self.pair.version, detail_model=detail, faces=list(faces))
        )

    def retouched(self, faces: Sequence[Face], fidelity: float) -> tuple[list[Face], list[str]]:
        """``faces`` with their latents moved from those they were drawn with, and why some were
        kept; "" otherwise.

        Raises ``FileNotFoundError`` where ``root`` lacks what retouching works with.
        """
        faces = self.resolved(faces)
        drawn = [face.drawn or face.latents for face in faces]
        table = pd.DataFrame([face.values for face in faces], columns=list(ATTRIBUTES))
        columns = {
            name: [getattr(f, name) for f in faces] for name in ("guidance", "detail", "prior")
        }
        # Latents of the prior are scaled when they are drawn again; moved ones are kept as they
        # come.
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

    def photograph(self, data: bytes) -> tuple[np.ndarray, Face]:
        """A photograph's bytes as the pipeline cuts it, ``(H, W, 3) uint8``, and the face that the
        generator makes of it.

        Its values are those that the input models read, its latents the posterior's mean. Raises
        ``UnusableImage`` for what every other picture is refused for, and ``FileNotFoundError``
        without input models."""
        images, size = self.settings.images, self.nvae.settings
        target = Target(max(images.height, size.height), max(images.width, size.width), images.crop)
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
        return cut, Face(latents=latents, values=[round(v, 4) for v in values], **ways)

    def _placed(
        self, faces: Sequence[Face], latents: Sequence[Latents], temperature: Sequence[float]
    ) -> list[np.ndarray]:
        """What the generator decodes for ``faces`` with these ``latents``, a list of ``(N, h, w, c)
        float32``, top-down.

        Numbers lie where the encoder puts pictures already: the aggregate posterior has no part
        in them, and no temperature."""
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
        """``(h, w, c) float32`` a level, what seeds draw at ``temperature``. With ``values``
        numbers as the noise that :meth:`placed` would bring there, so that they mix with what
        seeds draw."""
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
                f"this generator has {len(self.nvae.latent_shapes)} latent groups, but the recipe"
                f" mixes {len(shares)}"
            )
        ends = (self._latents(end, temperature, values) for end in (part.first, part.second))
        pairs = zip(*ends, shares, strict=True)
        # Divided by what two independent normals' mixture spreads less than they do, so that it
        # lies where the prior has its mass.
        return [
            (((1 - s) * a + s * b) / np.hypot(1 - s, s)).astype(np.float32) for a, b, s in pairs
        ]

    def _by_method(self, latents: Sequence[Latents]) -> dict[str, list[int]]:
        """Which rows are retouched by which method: those that a photograph has part in by the
        ascent.

        A correction of the prior starts where the prior draws and would lead latents of
        photographs away from photographs."""
        rows: dict[str, list[int]] = {}
        for i, row in enumerate(latents):
            of_photograph = any(isinstance(part, Encoded) for part in parts(row))
            rows.setdefault(ASCENT if of_photograph else self.settings.retouch.method, []).append(i)
        return rows

    def _retoucher(
        self, method: str, fidelity: float, ways: frozenset[tuple[float, float]]
    ) -> Retoucher:
        """One that has compiled what these temperatures and guidances need, which takes seconds;
        the last few are kept."""
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
    def _input_models(self) -> list[AttributeGP]:
        return [load_input_model(self.root.input_model(a)) for a in ATTRIBUTES]
