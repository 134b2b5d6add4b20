"""The critic of the prior: for each latent group a small classifier of posterior draws against the
prior's, given the groups above.

Its logit estimates log r_l(ε_l | ε_<l, c), by which the prior is to be multiplied to become the
aggregate posterior: noise-contrastive priors (Aneja, Schwing, Kautz and Vahdat 2021, arXiv
2010.02917, equations 5 to 8). In standardised noise every group's prior is N(0, 1)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

WIDTH = 32
CONTEXT = 16  # channels in which a group sees each one above it
DROPOUT = 0.3
LARGEST = 8  # maps are halved until no side is longer


def build_prior_critic(shapes: Sequence[tuple[int, int, int]], conditions: int) -> keras.Model:
    """``[own ε of each group (B, h, w, c) …, ε of each group as context …, c (B, conditions)] ->
    (B, groups) float32`` logits.

    Group ``l`` sees its own ε and the context of the groups before it, top-down. Spectral norm 1
    up to the last layer, so that a gradient can be followed."""
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
    # Copied to every place by resizing: the batch's size is not known here, which broadcasting
    # would ask for.
    seen = [
        own,
        ops.image.resize(
            layers.Reshape((1, 1, -1))(condition), (height, width), interpolation="nearest"
        ),
    ]
    for above in context:
        h = _normed(layers.Conv2D(CONTEXT, 1))(above)
        seen.append(
            h
            if h.shape[1:3] == (height, width)
            else ops.image.resize(h, (height, width), interpolation="nearest")
        )
    h = layers.Concatenate()(seen)
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
