"""The regressor of values in 0..1: for each the classifier's trunk with a linear output."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from gaip3_pipeline.models.classifier import trunk


def build_regressor(
    height: int, width: int, width_multiplier: float, dropout: float, values: int = 1
) -> keras.Model:
    """``(B, height, width, 3) float32 in 0..1 -> (B, values) float32``, which may leave 0..1 a
    little and are to be clipped.

    Linear, from the middle of the range: a sigmoid under a squared error saturated in one of
    four trials and learnt nothing more. Values share no weights: a generator that was to please
    one network of all five found patterns that it alone took for open mouths
    (docs/experiments/0025)."""
    pictures = keras.Input((height, width, 3))
    networks = [_network(pictures, width_multiplier, dropout) for _ in range(values)]
    if len(networks) == 1:
        return networks[0]
    return keras.Model(
        pictures, layers.Concatenate(dtype="float32")([network(pictures) for network in networks])
    )


def fitted(pictures: Any, height: int, width: int) -> Any:
    """``pictures (B, h, w, 3)`` at ``height`` and ``width``, as a network of that size takes
    them."""
    if tuple(pictures.shape[1:3]) == (height, width):
        return pictures
    return ops.image.resize(pictures, (height, width), antialias=True)


def values_error(
    guides: Sequence[keras.Model], known: Sequence[float], pictures: Any, asked: Any
) -> Any:
    """The mean squared error between ``asked (B, 5)`` and what ``guides`` see in ``pictures (B, h,
    w, 3) float32`` in 0..1.

    ``guides``: regressors, together of the five values; ``known (5,)``: 1 for a value that they
    know, 0 for one that has no part."""
    seen = ops.concatenate(
        [guide(fitted(pictures, *guide.input_shape[1:3]), training=False) for guide in guides],
        axis=-1,
    )
    return ops.mean(ops.convert_to_tensor(known, "float32") * ops.square(seen - asked))


def _network(pictures: Any, width_multiplier: float, dropout: float) -> keras.Model:
    h = layers.Dropout(dropout)(trunk(pictures, width_multiplier, dropout))
    small, middle = keras.initializers.RandomNormal(0.0, 0.02), keras.initializers.Constant(0.5)
    value = layers.Dense(
        1, kernel_initializer=small, bias_initializer=middle, name="value", dtype="float32"
    )
    return keras.Model(pictures, value(h))


def with_mirror(model: keras.Model, mirrored: Sequence[bool]) -> keras.Model:
    """``model``, averaged over each picture and its mirror image; the values that are ``mirrored``
    turn into 1 - value with the picture.

    Shapes as :func:`build_regressor`, weights shared. On 792 photographs in 3 folds, R² of mouth
    .831 to .841, of head .721 to .731."""
    pictures = keras.Input(model.input_shape[1:])
    other = model(ops.flip(pictures, axis=2))
    turned = ops.where(ops.convert_to_tensor([list(mirrored)]), 1.0 - other, other)
    return keras.Model(pictures, 0.5 * (model(pictures) + turned))
