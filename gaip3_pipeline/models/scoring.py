"""Networks applied to many pictures in batches."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from gaip3_pipeline.imaging.augment import as_float, shrink

SCORING_BATCH = 256


def score(model: keras.Model, batches: Iterable[np.ndarray], height: int, width: int) -> np.ndarray:
    """The outputs of ``model``, ``(N, K) float32``, for batches of ``(B, H, W, 3) uint8`` of any
    size, in their order.

    Memory is bounded by the larger of a given batch and 256 pictures."""
    return score_all([model], batches, height, width)[0]


def score_all(
    models: list[keras.Model],
    batches: Iterable[np.ndarray],
    height: int,
    width: int,
    done: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """:func:`score` for several models in one pass over the batches. ``done(n)`` is called with the
    number of pictures scored so far."""
    outputs: list[list[np.ndarray]] = [[] for _ in models]
    n = 0
    for batch in batches:
        for start in range(0, len(batch), SCORING_BATCH):
            pictures = as_float(shrink(batch[start : start + SCORING_BATCH], height, width))
            for model, parts in zip(models, outputs, strict=True):
                # predict_on_batch rather than a plain call: compiled, and called once per batch
                # without fit's set-up
                parts.append(np.asarray(model.predict_on_batch(pictures), np.float32))
            n += len(pictures)
            if done:
                done(n)
    return [
        np.concatenate(parts) if parts else np.zeros((0, *m.output_shape[1:]), np.float32)
        for m, parts in zip(models, outputs, strict=True)
    ]
