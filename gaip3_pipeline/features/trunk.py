"""The trunk of the input models: features of faces learned from pictures alone, which describe the
small patches and the colours of each region.

Patches are found by whitened k-means (Coates, Lee and Ng 2011), colours by soft k-means. Both are
pooled over a fine grid and projected on the principal axes of each region. The regions are four
rows of the face, each with its middle and with its two sides, which share their axes so that a
mirror image swaps them. A thumbnail is added. No labels are used, so nothing is learned again when
labels change."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from gaip3_pipeline.features.groups import COLOUR_AXES, PATCH_AXES, ROWS, THUMBNAIL_AXES
from gaip3_pipeline.features.patches import (
    FLAT,
    GRID,
    HEIGHT,
    PATCH,
    PATCHES,
    STRIDE,
    THRESHOLD,
    WIDTH,
    cell_means,
)
from gaip3_pipeline.imaging.transform import opponent_channels

Tensor = Any
COLOURS = 48
SIDES = (0, 3, 7)  # columns of the grid where left side, middle and right side of a row begin
THUMBNAIL = (16, 13)


def pooled(x: Tensor) -> Tensor:
    """Means of ``(B, h, w, C)`` over each cell of the grid: ``(B, *GRID, C)``."""
    height, width, channels = x.shape[1:]
    rows, columns = (
        cell_means(n, k).astype(np.float32) for n, k in zip((height, width), GRID, strict=True)
    )
    # products without a transposition, 5 times as fast as einsum and equal to it
    x = ops.matmul(rows, ops.reshape(x, (-1, height, width * channels)))
    return ops.matmul(columns, ops.reshape(x, (-1, GRID[0], width, channels)))


class PatchWords(layers.Layer):
    """The activation of each patch of the dictionary, and of its opposite, in each cell of the
    grid.

    ``(B, 128, 104, 3)`` in 0..255 to ``(B, *GRID, 2 · PATCHES)``; a patch's own mean and contrast
    are normalised."""

    def build(self, shape: Sequence[int]) -> None:
        self.directions = self.add_weight(
            shape=(PATCH, PATCH, 3, PATCHES), trainable=False, name="directions"
        )
        self.offset = self.add_weight(shape=(PATCHES,), trainable=False, name="offset")

    def call(self, pictures: Tensor) -> Tensor:
        def local(x: Tensor) -> Tensor:
            return ops.average_pool(ops.mean(x, axis=-1, keepdims=True), PATCH, STRIDE, "valid")

        mean = local(pictures)
        deviation = ops.sqrt(
            ops.maximum(local(ops.square(pictures)) - ops.square(mean), 0.0) + FLAT
        )
        found = ops.conv(pictures, self.directions, STRIDE, "valid") - mean * ops.sum(
            self.directions, axis=(0, 1, 2)
        )
        active = found / deviation - self.offset
        # pooled before they are joined, since each pass over all positions counts
        return ops.concatenate(
            [pooled(ops.relu(active - THRESHOLD)), -pooled(ops.minimum(active + THRESHOLD, 0.0))],
            axis=-1,
        )


class ColourWords(layers.Layer):
    """The similarity (softmax) of the pixels of the half-size picture to each colour of the
    dictionary, in each cell of the grid: ``(B, 128, 104, 3)`` to ``(B, *GRID, COLOURS)``."""

    def build(self, shape: Sequence[int]) -> None:
        self.centres = self.add_weight(shape=(COLOURS, 3), trainable=False, name="centres")
        self.width = self.add_weight(shape=(), trainable=False, name="width")

    def call(self, pictures: Tensor) -> Tensor:
        x = ops.stack(opponent_channels(ops.average_pool(pictures, 2, 2, "valid")), axis=-1)
        near = 2.0 * ops.matmul(x, ops.transpose(self.centres)) - ops.sum(
            ops.square(self.centres), axis=1
        )
        return pooled(ops.softmax(near / self.width, axis=-1))


class OnAxes(layers.Layer):
    """Projection on the principal axes of a region: ``(B, D)`` to ``(B, K)``."""

    def __init__(self, axes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._axes = axes

    def build(self, shape: Sequence[int]) -> None:
        self.mean = self.add_weight(shape=(shape[-1],), trainable=False, name="mean")
        self.axes = self.add_weight(shape=(shape[-1], self._axes), trainable=False, name="axes")

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x - self.mean, self.axes)


def build_trunk() -> tuple[keras.Model, keras.Model]:
    """The trunk, ``(B, 128, 104, 3) float32`` in 0..255 to ``(B, D)``, and a model of the inputs of
    its projections, a list of ``(B, d)``."""
    pictures = keras.Input((HEIGHT, WIDTH, 3))
    words: dict[str, layers.Layer] = {
        "patches": PatchWords(name="patch_words"),
        "colours": ColourWords(name="colour_words"),
    }
    before, after = [], []
    for name, axes in (("patches", PATCH_AXES), ("colours", COLOUR_AXES)):
        # the square root reduces the weight of the few words that fill a cell
        cells = ops.sqrt(words[name](pictures) + 1e-12)
        for row in range(ROWS):
            top, bottom = row * GRID[0] // ROWS, (row + 1) * GRID[0] // ROWS
            left = layers.Flatten()(cells[:, top:bottom, SIDES[0] : SIDES[1]])
            right = layers.Flatten()(ops.flip(cells[:, top:bottom, SIDES[2] :], axis=2))
            middle = layers.Flatten()(cells[:, top:bottom, SIDES[1] : SIDES[2]])
            side = OnAxes(axes, name=f"{name}_{row}_side")
            before += [ops.concatenate([left, right], axis=0), middle]
            after += [
                layers.Concatenate()([side(left), side(right)]),
                OnAxes(axes, name=f"{name}_{row}_middle")(middle),
            ]
    thumbnail = (
        layers.Flatten()(
            ops.average_pool(pictures, HEIGHT // THUMBNAIL[0], HEIGHT // THUMBNAIL[0], "valid")
        )
        / 255.0
    )
    before.append(thumbnail)
    after.append(OnAxes(THUMBNAIL_AXES, name="copy")(thumbnail))
    return keras.Model(pictures, layers.Concatenate()(after)), keras.Model(pictures, before)
