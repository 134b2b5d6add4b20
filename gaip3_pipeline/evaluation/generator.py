"""Pictures of a generator: reconstructions and sweeps of its sliders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from keras import ops

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import area_resize
from gaip3_pipeline.models.nvae.model import NVAE, load_nvae
from gaip3_pipeline.sampling.draw import as_bytes
from gaip3_pipeline.settings import Samples

to_numpy = ops.convert_to_numpy
# The defaults: the sheet is part of a training, whose settings do not contain [samples].
SHEET_TEMPERATURE, SHEET_GUIDANCE = Samples.temperature, Samples.guidance


def swept(conditions: np.ndarray, attribute: int, values: Sequence[float]) -> np.ndarray:
    """``(N · V, 5) float32``: each row of ``conditions (N, 5)`` once for each of the V ``values``,
    which replace its value of number ``attribute``."""
    rows = np.repeat(np.asarray(conditions, np.float32), len(values), axis=0)
    rows[:, attribute] = np.tile(values, len(conditions))
    return rows


def rebuild(model: NVAE, images: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Reconstructions ``(N, H, W, 3)`` float32 in 0..1 of ``images`` from their posterior means."""
    return to_numpy(model.decode(model.encode(images, conditions), conditions))


def generator_sheet(
    folder: Path,
    images: np.ndarray,
    values: np.ndarray,
    split: np.ndarray,
    columns: int = 8,
    seed: int = 7,
) -> bytes:
    """A JPEG of the generator in ``folder``: held-out images above their reconstructions, samples,
    and a sweep of each slider.

    ``images`` (N, H, W, 3) uint8 of any size, ``values`` (N, 5), ``split`` (N,). If nothing is held
    out, training images are shown."""
    model = load_nvae(folder)
    size = (model.settings.height, model.settings.width)
    held_out = np.flatnonzero(np.asarray(split) != "train")
    chosen = np.resize(held_out if len(held_out) else np.arange(len(images)), columns)
    real = np.stack([area_resize(np.asarray(images[i]), *size) for i in chosen])
    drawn = np.random.default_rng(seed).integers(0, len(values), 2 * columns)
    rows = [real / 255.0, rebuild(model, real, values[chosen])]
    middle = np.median(values, axis=0, keepdims=True)
    positions = np.linspace(0.0, 1.0, columns).tolist()
    sweeps = [swept(middle, i, positions) for i in range(len(ATTRIBUTES))]
    one = [np.repeat(e, len(sweeps) * columns, axis=0) for e in model.sample_noise(1, seed)]
    noise = zip(model.sample_noise(len(drawn), seed), one, strict=True)
    rows.append(
        to_numpy(
            model.decode(
                [np.concatenate(level) for level in noise],
                np.concatenate([values[drawn], *sweeps]),
                SHEET_TEMPERATURE,
                SHEET_GUIDANCE,
            )
        )
    )
    pictures = as_bytes(np.concatenate(rows))
    title = f"held out | rebuilt | samples (2 rows) | one face, 0 to 1: {', '.join(ATTRIBUTES)}"
    return contact_sheet(
        list(pictures), columns, cell=(size[1] * 3 // 2, size[0] * 3 // 2), title=title
    )
