"""The studio's side of the models: faces of recipes drawn, retouched, and found for a photograph, always by the same few functions.

All pictures are decoded in batches of one size, so that a recipe gives equal bytes wherever it is followed: in the page, in a download,
in ``gaip3 generate --from``. (On another kind of processor a colour may round to the next of 256 levels.)
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from gaip3_pipeline.evaluation.generate import grid, noise_of_seeds, values_of_seeds
from gaip3_pipeline.evaluation.recipe import (
    Drawn,
    Encoded,
    Face,
    Latents,
    Recipe,
    RecipeError,
    pack_latents,
    parts,
    seed_of,
    unpack_latents,
    write_png,
)
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.transform import resize
from gaip3_pipeline.layout import ATTRIBUTES, DataRoot
from gaip3_pipeline.models.backend import compiled
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.settings import ASCENT, Settings
from gaip3_pipeline.training.features import Extractor, extract, load_extractor
from gaip3_pipeline.training.inputs import InputProcess, load_input_model
from gaip3_pipeline.training.pictures import shrink
from gaip3_pipeline.training.retouch import Retoucher, Tools, load_tools

BATCH = 8  # of every decoding, filled up by repetition: one shape to compile, and a face is the same to the bit alone and among others
RETOUCHERS = 3
WAYS = ("temperature", "guidance")
LARGE, SMALL = 512, 128  # pixels of height, about: of one face alone, and of each of several in one picture


class Studio:
    """The generator in ``folder``, whose weights have the content hash ``version``, with what ``root`` has to go with it."""

    def __init__(self, root: DataRoot, settings: Settings, folder: Path, version: str) -> None:
        self.root, self.settings, self.version = root, settings, version
        self.nvae = load_nvae(folder)
        self._retouchers: OrderedDict[tuple[str, float, frozenset[tuple[float, float]]], Retoucher] = OrderedDict()
        levels = len(self.nvae.latent_shapes)
        # One compiled function, whatever values and guidance it is given.
        self._decode = compiled(lambda arrays: self.nvae.decode(arrays[:levels], arrays[levels], 1.0, arrays[levels + 1]))

    def resolved(self, faces: Sequence[Face]) -> list[Face]:
        """``faces`` with a number for each value. Raises ``ContractError`` where values are missing and ``root`` knows none yet."""
        unset = [i for i, face in enumerate(faces) if None in face.values]
        own = iter(values_of_seeds(self.root, [seed_of(faces[i].latents) for i in unset]).astype(float).round(4)) if unset else iter(())
        chosen = {i: [o if v is None else v for v, o in zip(faces[i].values, next(own), strict=True)] for i in unset}
        return [face.model_copy(update={"values": chosen.get(i, face.values)}) for i, face in enumerate(faces)]

    def pictures(self, faces: Sequence[Face]) -> np.ndarray:
        """``(N, H, W, 3) uint8`` of resolved ``faces``. Raises :class:`RecipeError` for latents of another generator."""
        noise = self._noise([face.latents for face in faces])
        values = np.array([face.values for face in faces], np.float32)
        temperature, guidance = (np.array([getattr(f, way) for f in faces], np.float32).reshape(-1, 1, 1, 1) for way in WAYS)
        made = []
        for start in range(0, len(faces), BATCH):
            rows = np.arange(start, min(start + BATCH, len(faces)))
            filled = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows))])
            # The temperature scales the noise, which is the same and lets one compiled function serve all temperatures.
            decoded = self._decode([*(temperature[filled] * e[filled] for e in noise), values[filled], guidance[filled]])
            made.append(np.round(decoded[: len(rows)] * 255).astype(np.uint8))
        return np.concatenate(made)

    def png(self, faces: Sequence[Face]) -> bytes:
        """The picture of ``faces`` with its recipe inside, one face large or several side by side."""
        faces = self.resolved(faces)
        sheet = grid(self.pictures(faces), LARGE if len(faces) == 1 else SMALL)
        return write_png(sheet, Recipe(model=self.version, faces=list(faces)))

    def retouched(self, faces: Sequence[Face], fidelity: float) -> tuple[list[Face], list[str]]:
        """``faces`` with their latents moved from those they were drawn with, and why some were kept; "" otherwise.

        Raises ``FileNotFoundError`` where ``root`` lacks what retouching works with.
        """
        faces = self.resolved(faces)
        drawn = [face.drawn or face.latents for face in faces]
        table = pd.DataFrame([face.values for face in faces], columns=list(ATTRIBUTES))
        table = table.assign(seed=[seed_of(d) for d in drawn], **{way: [getattr(f, way) for f in faces] for way in WAYS})
        noise, out, reasons = self._noise(drawn), list(faces), [""] * len(faces)
        for method, rows in self._by_method(drawn).items():
            ways = frozenset(zip(table.temperature[rows], table.guidance[rows], strict=True))
            done = self._retoucher(method, fidelity, ways)([level[rows] for level in noise], table.iloc[rows])
            for i, (row, reason) in enumerate(zip(rows, done.reasons, strict=True)):
                reasons[row] = reason
                moved = {"latents": pack_latents(level[i] for level in done.noise), "drawn": drawn[row], "fidelity": fidelity}
                out[row] = out[row].model_copy(update={"latents": drawn[row], "drawn": None, "fidelity": 0.0} if reason else moved)
        return out, reasons

    def photograph(self, data: bytes) -> tuple[np.ndarray, Face]:
        """A photograph's bytes as the pipeline cuts it, ``(H, W, 3) uint8``, and the face that the generator makes of it.

        Its values are those that the input models read, its latents the posterior's mean. Raises ``UnusableImage`` for what every other
        picture is refused for, and ``FileNotFoundError`` without input models.
        """
        images, size = self.settings.images, self.nvae.settings
        target = Target(max(images.height, size.height), max(images.width, size.width), images.crop)
        cut = resize(decode(data, "photograph", target, images.max_pixels), target)
        features = extract(self._extractor, [cut[None]])
        values = [float(process.predict(features)[0][0]) for process in self._input_models]
        encoded = self.nvae.encode(shrink(cut[None], size.height, size.width), np.array([values], np.float32))
        return cut, Face(latents=pack_latents(keras.ops.convert_to_numpy(e)[0] for e in encoded), values=[round(v, 4) for v in values])

    def _noise(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        """A list of ``(N, h, w, c) float32``, top-down."""
        rows = [self._latents(part) for part in latents]
        return [np.stack(level) for level in zip(*rows, strict=True)]

    def _latents(self, part: Latents) -> list[np.ndarray]:
        if isinstance(part, Drawn):
            return [level[0] for level in noise_of_seeds(self.nvae, [part.seed])]
        if isinstance(part, Encoded):
            return unpack_latents(part, self.nvae.latent_shapes)
        shares = part.share * len(self.nvae.latent_shapes) if len(part.share) == 1 else part.share
        if len(shares) != len(self.nvae.latent_shapes):
            raise RecipeError(f"this generator has {len(self.nvae.latent_shapes)} latent groups, but the recipe mixes {len(shares)}")
        pairs = zip(self._latents(part.first), self._latents(part.second), shares, strict=True)
        # Divided by what two independent normals' mixture spreads less than they do, so that it lies where the prior has its mass.
        return [(((1 - s) * a + s * b) / np.hypot(1 - s, s)).astype(np.float32) for a, b, s in pairs]

    def _by_method(self, latents: Sequence[Latents]) -> dict[str, list[int]]:
        """Which rows are retouched by which method: those that a photograph has part in by the ascent.

        A correction of the prior starts where the prior draws and would lead latents of photographs away from photographs.
        """
        rows: dict[str, list[int]] = {}
        for i, row in enumerate(latents):
            of_photograph = any(isinstance(part, Encoded) for part in parts(row))
            rows.setdefault(ASCENT if of_photograph else self.settings.retouch.method, []).append(i)
        return rows

    def _retoucher(self, method: str, fidelity: float, ways: frozenset[tuple[float, float]]) -> Retoucher:
        """One that has compiled what these temperatures and guidances need, which takes seconds; the last few are kept."""
        key = method, fidelity, ways
        if key not in self._retouchers:
            settings = dataclasses.replace(self.settings.retouch, method=method, fidelity=fidelity, batch_size=BATCH)
            self._retouchers[key] = Retoucher(self._tools, settings)
        self._retouchers.move_to_end(key)
        while len(self._retouchers) > RETOUCHERS:
            self._retouchers.popitem(last=False)
        return self._retouchers[key]

    @cached_property
    def _tools(self) -> Tools:
        return load_tools(self.root, self.settings.retouch, self.nvae)

    @cached_property
    def _extractor(self) -> Extractor:
        return load_extractor(self.root.feature_extractor)

    @cached_property
    def _input_models(self) -> list[InputProcess]:
        return [load_input_model(self.root.input_model(a)) for a in ATTRIBUTES]
