"""The detail network, which turns the decoder's mean picture and a noise map into a picture, and
the discriminator that teaches it.

The mean of a likelihood is soft: what the latents do not say is averaged away. The network adds
one plausible version of it. Both are convolutions on maps that halve by means of four pixels and
double by linear interpolation: strides and transposed convolutions print their grid on flat
backgrounds (Odena et al. 2016, doi 10.23915/distill.00003). How they are trained stands in
training/detail.py."""

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
from gaip3_pipeline.tables.hashing import arrays_version, digest, weights_version

Tensor = Any
SLOPE = 0.2  # of the leaky rectifiers


class DetailNetwork(keras.Model):
    """A U-Net: ``(B, H, W, 4) float32``, a mean picture in 0..1 and standard normal noise, ``-> (B,
    H, W, 3)``, the change to be added.

    ``channels`` are those of each scale, the full size first. The last convolution starts at 0,
    so that training starts at the mean."""

    def __init__(self, channels: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = tuple(channels)
        first, *coarser = channels
        self.entry = _convolution(first)
        self.downs = [[_convolution(c), _convolution(c, gain=0.5)] for c in coarser]
        # Maps are narrowed before they are doubled: a convolution of the full size costs as much as
        # all smaller ones.
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
    """A convolution of the discriminator, ``gain`` times a kernel of spectral norm 1 (Miyato et al.
    2018, arXiv 1802.05957), or free.

    The norm is that of the kernel as a matrix, by one power iteration a step. Keras' own wrapper
    writes the divided kernel back into the variable, which its JAX backend undoes after the
    step. With ``frozen`` a pass gives no gradient to the weights."""

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
    """``(B, height, width, 3) float32 in 0..1 -> (B, h, w, 1), (B, 1)``: logits of how real each
    patch is, and the whole picture.

    ``channels``: of two convolutions at half of the size, where the four pixels of a place are
    channels and nothing is lost, and of one at each smaller scale. Patches are judged at a
    quarter of the size, the whole at the coarsest. Only the heads are free."""

    # Of each convolution. With 1 the whole is so smooth that it tells little: trained for as long,
    # the network's pictures were told at half size with AUC .93 instead of .89, and strokes of no
    # meaning remained (docs/experiments/0040).
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
    """A detail network and a generator that do not belong together; the message names both."""


@dataclasses.dataclass(frozen=True)
class Finish:
    """What was trained to go with the generator of the content hash ``generator``: the detail,
    and the latents that it saw in training."""

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
    """Write the network for pictures of ``size``, each file whole or not at all, with what it
    belongs to."""
    posterior.save(posterior_file(folder))
    save_weights(network, folder)
    # Last, since it says of which generator they are: a write cut off before leaves a pair that is
    # refused.
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
    """What :func:`save_detail` wrote. Raises ``FileNotFoundError`` when there is none.

    With ``generator``, the folder of an NVAE, raises :class:`PairError` where it was trained for
    another one."""
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


def detail_version(folder: Path) -> str:
    """The content hash of all that was trained to go with a generator."""
    return digest([weights_version(folder), arrays_version(posterior_file(folder))])


def build_detail(channels: Sequence[int], height: int, width: int) -> DetailNetwork:
    """A built detail network for pictures of ``(height, width)``."""
    network = DetailNetwork(channels)
    network(np.zeros((1, height, width, 4), np.float32))
    return network


def halved(h: Tensor) -> Tensor:
    """``(B, H, W, C)`` at half of the size, rounded up: means of four pixels, of those there are
    at an odd edge."""
    return ops.average_pool(h, 2, 2, padding="same")


def _gathered(h: Tensor) -> Tensor:
    """``(B, H, W, C) -> (B, H/2, W/2, 4 C)``: each 2 × 2 pixels as the channels of one place; an
    odd edge is filled up with zeros."""
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
    # a leaky rectifier of fewer operations than the ready one, forward and back
    return ops.maximum(h, SLOPE * h)


def _unit(x: Tensor) -> Tensor:
    return x / (ops.norm(x) + 1e-12)
