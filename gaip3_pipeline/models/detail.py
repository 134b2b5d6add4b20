"""The detail network, which computes a detailed picture from the decoder's mean picture and a noise
map, and the discriminator for its training.

The mean of a likelihood is soft: detail that the latents do not determine is averaged away. The
network adds one plausible version of it. Both networks are convolutional; they downsample by means
of four pixels and upsample by linear interpolation, since strides and transposed convolutions leave
a visible grid on flat backgrounds (Odena et al. 2016, doi 10.23915/distill.00003). Their training
is in training/detail.py."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from gaip3_pipeline.layout import posterior_file
from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior, load_aggregate_posterior
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.tables.hashing import weights_version

Tensor = Any
SLOPE = 0.2  # negative slope of the leaky ReLUs


class DetailNetwork(keras.Model):
    """A U-Net: ``(B, H, W, 4) float32``, a mean picture in 0..1 and a standard normal noise map, to
    ``(B, H, W, 3)``, the change to be added.

    ``channels`` are those of each scale, the full size first. The last convolution is initialised
    to 0, so training starts at the mean picture."""

    def __init__(self, channels: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = tuple(channels)
        first, *coarser = channels
        self.entry = _convolution(first)
        self.downs = [[_convolution(c), _convolution(c, gain=0.5)] for c in coarser]
        # Channels are reduced before upsampling: a convolution at full size costs as much as all
        # smaller ones.
        self.ups = [[_convolution(c), _convolution(c)] for c in channels[:-1]]
        self.exit = layers.Conv2D(3, 3, padding="same", kernel_initializer="zeros")

    def call(self, mean_and_noise: Tensor) -> Tensor:
        h = self.entry(mean_and_noise)
        skips = []
        for first, second in self.downs:
            skips.append(h)
            h = first(halved(_rectified(h)))
            h = h + second(_rectified(h))
        for (narrow, merge), skip in zip(reversed(self.ups), reversed(skips), strict=True):
            larger = doubled(narrow(_rectified(h)), skip.shape[1], skip.shape[2])
            h = merge(_rectified(larger + skip))
        return self.exit(_rectified(h))


class Convolution(layers.Layer):
    """A convolution of the discriminator. Its kernel has spectral norm ``gain`` (Miyato et al.
    2018, arXiv 1802.05957); with ``gain`` None it is not constrained.

    The norm is that of the kernel as a matrix, by one power iteration per step. Keras' own wrapper
    assigns the normalised kernel to the variable, which its JAX backend undoes after the step. With
    ``frozen`` the weights get no gradient."""

    def __init__(
        self,
        filters: int,
        size: tuple[int, int] = (3, 3),
        padding: str = "same",
        gain: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.size, self.padding, self.gain = filters, size, padding, gain

    def build(self, shape: Any) -> None:
        he = keras.initializers.HeNormal()
        self.kernel = self.add_weight(
            shape=(*self.size, shape[-1], self.filters), initializer=he, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        if self.gain:
            normal = keras.initializers.RandomNormal()
            self.right = self.add_weight(
                shape=(self.filters, 1), initializer=normal, trainable=False, name="right"
            )

    def call(self, h: Tensor, training: bool = False, frozen: bool = False) -> Tensor:
        kernel, bias = (ops.convert_to_tensor(w) for w in (self.kernel, self.bias))
        if frozen:
            kernel, bias = ops.stop_gradient(kernel), ops.stop_gradient(bias)
        if self.gain:
            kernel = self.gain * kernel / self._largest(kernel, training and not frozen)
        return ops.conv(h, kernel, padding=self.padding) + bias

    def _largest(self, kernel: Tensor, learning: bool) -> Tensor:
        """The largest singular value of ``kernel`` as a matrix of (positions and inputs) ×
        outputs."""
        matrix = ops.reshape(kernel, (-1, self.filters))
        fixed = ops.stop_gradient(matrix)
        left = _unit(ops.matmul(fixed, ops.convert_to_tensor(self.right)))
        right = _unit(ops.matmul(ops.transpose(fixed), left))
        if learning:
            self.right.assign(right)
        return ops.sum(left * ops.matmul(matrix, right))


class Discriminator(keras.Model):
    """``pictures (B, height, width, 3) float32`` in 0..1 to logits of being real, ``(B, h, w, 1)``
    for patches and ``(B, 1)`` for the whole picture.

    ``channels`` are those of two convolutions at half of the size, whose input has four pixels of
    the picture as channels of one position so that nothing is lost, and of one convolution at each
    smaller scale. The head for patches is at a quarter of the size, the head for the whole picture
    at the coarsest scale. Only the heads are not constrained."""

    # Spectral norm of each convolution. With 1 the discriminator is too smooth: after equally long
    # training fresh judges recognised its pictures more often, and strokes of no meaning remained
    # (docs/experiments/0040).
    GAIN = 2.0

    def __init__(self, channels: Sequence[int], height: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        first, second, *coarser = channels
        self.entry = [Convolution(first, gain=self.GAIN), Convolution(second, gain=self.GAIN)]
        self.coarser = [Convolution(c, gain=self.GAIN) for c in coarser]
        self.patches = Convolution(1)
        shrinks = 2 ** (1 + len(coarser))
        self.whole = Convolution(
            1, (math.ceil(height / shrinks), math.ceil(width / shrinks)), "valid"
        )

    def call(
        self, pictures: Tensor, training: bool = False, frozen: bool = False
    ) -> tuple[Tensor, Tensor]:
        ways = {"training": training, "frozen": frozen}
        h = _gathered(2.0 * pictures - 1.0)
        for convolution in self.entry:
            h = _rectified(convolution(h, **ways))
        patches: Tensor = None
        for convolution in self.coarser:
            h = _rectified(convolution(halved(h), **ways))
            patches = self.patches(h, **ways) if patches is None else patches
        return patches, self.whole(h, **ways)[:, 0, 0, :]


class PairError(ValueError):
    """A detail network and a generator do not belong together; the message names both."""


@dataclasses.dataclass(frozen=True)
class Finish:
    """The detail network and the aggregate posterior that were trained for the generator with
    content hash ``generator``."""

    network: DetailNetwork
    posterior: AggregatePosterior
    generator: str


def save_detail(
    folder: Path,
    network: DetailNetwork,
    posterior: AggregatePosterior,
    generator: str,
    size: tuple[int, int],
) -> None:
    """Write the detail network for pictures of ``size`` (height, width), its aggregate posterior
    and the content hash of its generator, each file completely or not at all."""
    posterior.save(posterior_file(folder))
    save_weights(network, folder)
    # Written last, since it names the generator: after an interrupted write the pair is refused.
    save_config(
        folder,
        {
            "channels": list(network.channels),
            "height": size[0],
            "width": size[1],
            "generator": generator,
        },
    )


def load_detail(folder: Path, generator: Path | None = None) -> Finish:
    """The network and posterior that :func:`save_detail` wrote. Raises ``FileNotFoundError`` if
    there is none.

    With ``generator``, the folder of an NVAE, raises :class:`PairError` if they were trained for
    another generator."""
    config = load_config(folder)
    if generator and (found := weights_version(generator)) != config["generator"]:
        theirs = config["generator"][:12]
        raise PairError(
            f"the detail network in {folder} belongs to generator {theirs}, and {generator} holds"
            f" {found[:12]}"
        )
    network = build_detail(config["channels"], config["height"], config["width"])
    load_weights(network, folder)
    return Finish(network, load_aggregate_posterior(posterior_file(folder)), config["generator"])


def build_detail(channels: Sequence[int], height: int, width: int) -> DetailNetwork:
    """A built detail network for pictures of ``(height, width)``."""
    network = DetailNetwork(channels)
    network(np.zeros((1, height, width, 4), np.float32))
    return network


def halved(h: Tensor) -> Tensor:
    """``(B, H, W, C)`` at half of the size, rounded up: means of 2×2 pixels, at an odd edge of
    those that exist."""
    return ops.average_pool(h, 2, 2, padding="same")


def _gathered(h: Tensor) -> Tensor:
    """``(B, H, W, C)`` to ``(B, H/2, W/2, 4 C)``: each 2×2 pixels as the channels of one position;
    an odd edge is padded with zeros."""
    height, width, channels = h.shape[1:]
    h = ops.pad(h, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows, columns = math.ceil(height / 2), math.ceil(width / 2)
    h = ops.transpose(ops.reshape(h, (-1, rows, 2, columns, 2, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(h, (-1, rows, columns, 4 * channels))


def doubled(h: Tensor, height: int, width: int) -> Tensor:
    """``(B, H, W, C)`` at twice the size by linear interpolation, cropped to ``height`` and
    ``width``."""
    return ops.image.resize(h, (2 * h.shape[1], 2 * h.shape[2]))[:, :height, :width]


def _convolution(filters: int, gain: float = 1.0) -> layers.Conv2D:
    initializer = keras.initializers.VarianceScaling(2.0 * gain**2, "fan_in", "truncated_normal")
    return layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer)


def _rectified(h: Tensor) -> Tensor:
    # a leaky ReLU with fewer operations than the built-in one, forward and backward
    return ops.maximum(h, SLOPE * h)


def _unit(x: Tensor) -> Tensor:
    return x / (ops.norm(x) + 1e-12)
