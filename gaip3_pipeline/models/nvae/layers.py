"""The building blocks of NVAE, chosen for CPUs: few, wide, dense 3×3 cells with ELU and no normalisation.

A cell's last convolution starts small instead of being normalised, so that a deep stack starts as the identity. Depthwise
cells and normalisation layers cost several times a dense 3×3 convolution on CPUs.
"""

import math
from typing import Any

import keras
from keras import layers, ops

Tensor = Any


def convolution(filters: int, size: tuple[int, int] = (1, 1), *, gain: float = 1.0, strides: int = 1) -> layers.Conv2D:
    """A convolution that reaches 3×3 where the map ``size`` allows it, initialised to ``gain`` times He's standard deviation."""
    kernel = tuple(3 if s > 1 else 1 for s in size)
    initializer = keras.initializers.VarianceScaling(2.0 * gain**2, "fan_in", "truncated_normal")
    return layers.Conv2D(filters, kernel, strides=strides, padding="same", kernel_initializer=initializer)


class Conditioning(layers.Layer):
    """The five values as an embedding, or the learned null condition where ``keep`` is 0.

    ``(B, 5) in 0..1, (B, 1) of 0 or 1 -> (B, width)``.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.hidden = layers.Dense(width, activation="elu")
        self.out = layers.Dense(width)

    def build(self, conditions_shape: Any, keep_shape: Any = None) -> None:
        self.hidden.build(conditions_shape)
        self.out.build((None, self.width))
        self.null = self.add_weight(shape=(self.width,), initializer="zeros", name="null")

    def call(self, conditions: Tensor, keep: Tensor) -> Tensor:
        # Centred and spread to about unit variance, since the embedding is not normalised.
        embedded = self.out(self.hidden(4.0 * ops.cast(conditions, "float32") - 2.0))
        return keep * embedded + (1.0 - keep) * self.null


class Film(layers.Layer):
    """Feature-wise scale and shift by the condition (Perez et al. 2018, arXiv 1709.07871)."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.project = layers.Dense(2 * channels, kernel_initializer=keras.initializers.VarianceScaling(0.3, "fan_in"))

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.project.build(condition_shape)

    def call(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = ops.split(self.project(condition)[:, None, None, :], 2, axis=-1)
        return h * (1.0 + scale) + shift


class Cell(layers.Layer):
    """Residual cell: ELU, 3×3, FiLM, ELU, 3×3. ``(B, H, W, C), (B, E) -> (B, H, W, C)``."""

    def __init__(self, channels: int, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.first = convolution(channels, size)
        self.film = Film(channels)
        self.second = convolution(channels, size, gain=0.1)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.first.build(h_shape)
        self.film.build(h_shape, condition_shape)
        self.second.build(h_shape)

    def call(self, h: Tensor, condition: Tensor) -> Tensor:
        return h + self.second(ops.elu(self.film(self.first(ops.elu(h)), condition)))


class LearnedMap(layers.Layer):
    """A learned map of ``(H, W, C)`` with a part of rank ``rank`` that moves with the condition, added to the decoder's state.

    At the top it is the decoder's constant. Further down it says where things lie in aligned pictures: FiLM alone, which is the
    same everywhere, takes long to learn that one value moves only the eyes and another only the mouth.
    """

    def __init__(self, size: tuple[int, int], channels: int, rank: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.channels, self.rank = size, channels, rank
        self.weigh = layers.Dense(rank)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.weigh.build(condition_shape)
        shape = (*self.size, self.channels)
        self.value = self.add_weight(shape=(1, *shape), initializer=keras.initializers.RandomNormal(stddev=0.1), name="value")
        self.moved = self.add_weight(shape=(self.rank, math.prod(shape)), initializer="zeros", name="moved")

    def call(self, h: Tensor, condition: Tensor) -> Tensor:
        moved = ops.reshape(ops.matmul(self.weigh(condition), self.moved), (-1, *self.size, self.channels))
        return h + self.value + moved


class Upsample(layers.Layer):
    """Each position becomes ``factor``² of its own by a convolution, cropped to ``size``. ``reach`` (1, 1): by itself alone."""

    def __init__(
        self, channels: int, size: tuple[int, int], factor: int = 2, gain: float = 1.0, reach: tuple[int, int] = (1, 1), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels, self.size, self.factor = channels, size, factor
        self.project = convolution(channels * factor**2, reach, gain=gain)

    def build(self, h_shape: Any) -> None:
        self.project.build(h_shape)

    def call(self, h: Tensor) -> Tensor:
        height, width = h.shape[1:3]
        f = self.factor
        h = ops.reshape(self.project(h), (-1, height, width, f, f, self.channels))
        h = ops.reshape(ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, height * f, width * f, self.channels))
        return h[:, : self.size[0], : self.size[1], :]
