"""The building blocks of NVAE: the paper's residual cells, and dense ones chosen for CPUs.

A dense cell is two 3×3 convolutions with ELU and no normalisation; its last convolution starts
small instead, so that a deep stack starts as the identity. The paper's cells (depthwise 5×5,
batch normalisation, squeeze and excitation) cost 2.5 to 2.9 times as much a step on CPUs: see
docs/experiments/0007."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

Tensor = Any


def convolution(
    filters: int, size: tuple[int, int] = (1, 1), *, gain: float = 1.0, strides: int = 1
) -> layers.Conv2D:
    """A convolution whose kernel is 3 along each axis in which the map ``size`` is larger than 1,
    else 1; its initial standard deviation is ``gain`` times that of He."""
    kernel = tuple(3 if s > 1 else 1 for s in size)
    initializer = keras.initializers.VarianceScaling(2.0 * gain**2, "fan_in", "truncated_normal")
    return layers.Conv2D(
        filters, kernel, strides=strides, padding="same", kernel_initializer=initializer
    )


class Conditioning(layers.Layer):
    """The embedding of the five values, or the learned null condition where ``keep`` is 0.

    ``(B, 5)`` in 0..1 and ``(B, 1)`` of 0 or 1 to ``(B, width)``. Values are first clipped to
    ``range (2, 5)``, the range that the training pictures support: a value that no picture shows
    (closed eyes, in most collections) would not give a face."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)  # bfloat16 would round the five values
        self.width = width
        self.hidden = layers.Dense(width, activation="elu")
        self.out = layers.Dense(width)

    def build(self, conditions_shape: Any, keep_shape: Any = None) -> None:
        self.hidden.build(conditions_shape)
        self.out.build((None, self.width))
        self.null = self.add_weight(shape=(self.width,), initializer="zeros", name="null")
        self.range = self.add_weight(
            shape=(2, conditions_shape[-1]), initializer=_zero_to_one, trainable=False, name="range"
        )

    def call(self, conditions: Tensor, keep: Tensor) -> Tensor:
        conditions = ops.clip(ops.cast(conditions, "float32"), self.range[0], self.range[1])
        # Centred and scaled to about unit variance, since the embedding has no normalisation.
        embedded = ops.cast(self.out(self.hidden(4.0 * conditions - 2.0)), "float32")
        return keep * embedded + (1.0 - keep) * self.null


def _zero_to_one(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
    return ops.convert_to_tensor(np.repeat([[0.0], [1.0]], shape[1], axis=1), dtype=dtype)


class Film(layers.Layer):
    """Feature-wise scale and shift, computed from the condition (Perez et al. 2018, arXiv
    1709.07871)."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.project = layers.Dense(
            2 * channels, kernel_initializer=keras.initializers.VarianceScaling(0.3, "fan_in")
        )

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.project.build(condition_shape)

    def call(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = ops.split(self.project(condition)[:, None, None, :], 2, axis=-1)
        return h * (1.0 + scale) + shift


class DenseCell(layers.Layer):
    """Residual cell: ELU, 3×3, FiLM, ELU, 3×3. ``(B, H, W, C)`` and ``(B, E)`` to
    ``(B, H, W, C)``."""

    def __init__(self, channels: int, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = convolution(channels, size)
        self.film = Film(channels)
        self.second = convolution(channels, size, gain=0.1)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.first.build(h_shape)
        self.film.build(h_shape, condition_shape)
        self.second.build(h_shape)

    def call(self, h: Tensor, condition: Tensor, training: bool = False) -> Tensor:
        return h + self.second(ops.elu(self.film(self.first(ops.elu(h)), condition)))


class SqueezeExcitation(layers.Layer):
    """Channel weights computed from the mean of each channel over the map (Hu et al. 2018, arXiv
    1709.01507), with a bottleneck of a sixteenth."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.squeeze = layers.Dense(max(channels // 16, 4), activation="relu")
        self.excite = layers.Dense(channels, activation="sigmoid")

    def build(self, h_shape: Any) -> None:
        self.squeeze.build((None, h_shape[-1]))
        self.excite.build((None, self.squeeze.units))

    def call(self, h: Tensor) -> Tensor:
        return h * self.excite(self.squeeze(ops.mean(h, axis=(1, 2))))[:, None, None, :]


def batch_normalization(**kwargs: Any) -> layers.BatchNormalization:
    """Batch normalisation as in the paper: momentum .05 in the convention of the paper's framework,
    .95 in that of Keras."""
    return layers.BatchNormalization(momentum=0.95, epsilon=1e-5, **kwargs)


class GenerativeCell(layers.Layer):
    """The residual cell of NVAE's generative model (figure 3a), with FiLM before its first
    activation.

    Batch normalisation, 1×1 to ``EXPANSION`` times the channels, BN, FiLM, Swish, depthwise 5×5,
    BN, Swish, 1×1 back, BN, squeeze and excitation. ``(B, H, W, C), (B, E) -> (B, H, W, C)``."""

    EXPANSION = 6

    def __init__(self, channels: int, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wide = self.EXPANSION * channels
        self.norms = [batch_normalization() for _ in range(3)] + [
            batch_normalization(gamma_initializer="zeros")
        ]
        self.expand = convolution(wide)
        self.film = Film(wide)
        self.depthwise = layers.DepthwiseConv2D(
            tuple(5 if s > 1 else 1 for s in size), padding="same"
        )
        self.project = convolution(channels)
        self.squeeze_excitation = SqueezeExcitation(channels)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        wide = (*h_shape[:-1], self.expand.filters)
        for norm, shape in zip(self.norms, (h_shape, wide, wide, h_shape), strict=True):
            norm.build(shape)
        self.expand.build(h_shape)
        self.film.build(wide, condition_shape)
        self.depthwise.build(wide)
        self.project.build(wide)
        self.squeeze_excitation.build(h_shape)

    def call(self, h: Tensor, condition: Tensor, training: bool = False) -> Tensor:
        first, second, third, last = self.norms
        inner = self.expand(first(h, training=training))
        inner = self.depthwise(ops.silu(self.film(second(inner, training=training), condition)))
        inner = self.project(ops.silu(third(inner, training=training)))
        return h + self.squeeze_excitation(last(inner, training=training))


class InferenceCell(layers.Layer):
    """The residual cell of NVAE's encoder (figure 3b), with FiLM: twice BN, Swish, 3×3, then
    squeeze and excitation."""

    def __init__(self, channels: int, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norms = [batch_normalization(), batch_normalization()]
        self.film = Film(channels)
        self.convolutions = [convolution(channels, size), convolution(channels, size, gain=0.1)]
        self.squeeze_excitation = SqueezeExcitation(channels)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        for layer in (*self.norms, *self.convolutions, self.squeeze_excitation):
            layer.build(h_shape)
        self.film.build(h_shape, condition_shape)

    def call(self, h: Tensor, condition: Tensor, training: bool = False) -> Tensor:
        inner = self.convolutions[0](ops.silu(self.norms[0](h, training=training)))
        inner = self.norms[1](self.film(inner, condition), training=training)
        return h + self.squeeze_excitation(self.convolutions[1](ops.silu(inner)))


# The setting ``cell``: cells of the encoder and of the decoder.
CELLS: dict[str, tuple[type, type]] = {
    "dense": (DenseCell, DenseCell),
    "paper": (InferenceCell, GenerativeCell),
}


class LearnedMap(layers.Layer):
    """A learned map ``(H, W, C)`` plus a part of rank ``rank`` that depends on the condition, added
    to the decoder's state.

    At the coarsest scale it is the decoder's constant. At finer scales it encodes where things are
    in aligned pictures: FiLM, which is equal at all positions, takes long to learn that one value
    changes only the eyes and another only the mouth."""

    def __init__(self, size: tuple[int, int], channels: int, rank: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.channels, self.rank = size, channels, rank
        self.weigh = layers.Dense(rank)

    def build(self, h_shape: Any, condition_shape: Any = None) -> None:
        self.weigh.build(condition_shape)
        shape = (*self.size, self.channels)
        self.value = self.add_weight(
            shape=(1, *shape), initializer=keras.initializers.RandomNormal(stddev=0.1), name="value"
        )
        self.moved = self.add_weight(
            shape=(self.rank, math.prod(shape)), initializer="zeros", name="moved"
        )

    def call(self, h: Tensor, condition: Tensor) -> Tensor:
        moved = ops.reshape(
            ops.matmul(self.weigh(condition), self.moved), (-1, *self.size, self.channels)
        )
        return h + self.value + moved


class Upsample(layers.Layer):
    """Upsampling by a convolution that computes ``factor``² positions from each position, cropped
    to ``size``. ``reach`` is the map size for :func:`convolution`; with (1, 1) each position is
    computed from itself alone."""

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        factor: int = 2,
        gain: float = 1.0,
        reach: tuple[int, int] = (1, 1),
        **kwargs: Any,
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
        h = ops.reshape(
            ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, height * f, width * f, self.channels)
        )
        return h[:, : self.size[0], : self.size[1], :]
