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


def sweep(
    model: NVAE,
    noise: Sequence[np.ndarray],
    conditions: np.ndarray,
    attribute_index: int,
    values: Sequence[float],
    *,
    temperature: float = 1.0,
    guidance: float = 1.0,
) -> np.ndarray:
    """Pictures with one value swept and all else fixed: ``(N, len(values), H, W, 3)`` float32 in
    0..1.

    ``noise``: arrays of N rows; ``conditions`` (N, 5): the values, of which the swept one is
    replaced.
    """
    n, steps = len(conditions), len(values)
    swept = np.repeat(np.asarray(conditions, np.float32), steps, axis=0)
    swept[:, attribute_index] = np.tile(values, n)
    repeated = [np.repeat(level, steps, axis=0) for level in noise]
    pictures = to_numpy(model.decode(repeated, swept, temperature, guidance))
    return pictures.reshape(n, steps, *pictures.shape[1:])


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
    rows.append(
        to_numpy(
            model.decode(
                model.sample_noise(2 * columns, seed),
                values[drawn],
                SHEET_TEMPERATURE,
                SHEET_GUIDANCE,
            )
        )
    )
    one = model.sample_noise(1, seed)
    middle = np.median(values, axis=0, keepdims=True)
    for attribute in range(len(ATTRIBUTES)):
        values_swept = np.linspace(0.0, 1.0, columns).tolist()
        rows.append(
            sweep(
                model,
                one,
                middle,
                attribute,
                values_swept,
                temperature=SHEET_TEMPERATURE,
                guidance=SHEET_GUIDANCE,
            )[0]
        )
    pictures = as_bytes(np.concatenate(rows))
    title = f"held out | rebuilt | samples (2 rows) | one face, 0 to 1: {', '.join(ATTRIBUTES)}"
    return contact_sheet(
        list(pictures), columns, cell=(size[1] * 3 // 2, size[0] * 3 // 2), title=title
    )
