"""The critic of the prior: for each latent group a small classifier of posterior draws against
prior draws, given the groups above.

Its logit estimates log r_l(ε_l | ε_<l, c), the log of the factor between the aggregate posterior
and the prior: noise-contrastive priors (Aneja, Schwing, Kautz and Vahdat 2021, arXiv 2010.02917,
equations 5 to 8). In standardised noise the prior of every group is N(0, 1)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

WIDTH = 32
CONTEXT = 16  # channels to which each group above is projected
DROPOUT = 0.3
LARGEST = 8  # maps are halved until no side is longer than this


def build_prior_critic(shapes: Sequence[tuple[int, int, int]], conditions: int) -> keras.Model:
    """A model with inputs ``[own ε of each group (B, h, w, c) …, ε of each group as context …, c
    (B, conditions)]`` and logits ``(B, groups) float32``.

    Group ``l`` uses its own ε and the context of the groups above it. Layers up to the last have
    spectral norm 1, so that the gradient is usable."""
    own = [keras.Input(shape) for shape in shapes]
    context = [keras.Input(shape) for shape in shapes]
    condition = keras.Input((conditions,))
    logits = [_group(own[level], context[:level], condition) for level in range(len(shapes))]
    return keras.Model(
        [*own, *context, condition],
        layers.Concatenate(dtype="float32")(logits) if len(logits) > 1 else logits[0],
    )


def _group(own: Any, context: list[Any], condition: Any) -> Any:
    height, width = own.shape[1:3]
    # The condition is copied to every position by resizing, since broadcasting would need the batch
    # size, which is not known here.
    inputs = [
        own,
        ops.image.resize(
            layers.Reshape((1, 1, -1))(condition), (height, width), interpolation="nearest"
        ),
    ]
    for above in context:
        h = _normed(layers.Conv2D(CONTEXT, 1))(above)
        inputs.append(
            h
            if h.shape[1:3] == (height, width)
            else ops.image.resize(h, (height, width), interpolation="nearest")
        )
    h = layers.Concatenate()(inputs)
    if (height, width) != (1, 1):
        h = layers.LeakyReLU(0.2)(_normed(layers.Conv2D(WIDTH, 3, padding="same"))(h))
        while max(h.shape[1:3]) > LARGEST:
            h = layers.LeakyReLU(0.2)(
                _normed(layers.Conv2D(WIDTH, 4, strides=2, padding="same"))(h)
            )
    h = layers.Dropout(DROPOUT)(layers.Flatten()(h))
    h = layers.LeakyReLU(0.2)(_normed(layers.Dense(4 * WIDTH))(h))
    return layers.Dense(1)(layers.LeakyReLU(0.2)(_normed(layers.Dense(2 * WIDTH))(h)))


def _normed(layer: Any) -> Any:
    return layers.SpectralNormalization(layer)
