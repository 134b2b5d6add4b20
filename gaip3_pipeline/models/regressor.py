"""The regressor of one value in 0..1: the classifier's trunk with a sigmoid."""

import keras
from keras import layers

from gaip3_pipeline.models.classifier import trunk


def build_regressor(height: int, width: int, width_multiplier: float, dropout: float) -> keras.Model:
    """``(B, height, width, 3) float32 in 0..1 -> (B, 1) float32 in 0..1``."""
    pictures = keras.Input((height, width, 3))
    h = layers.Dropout(dropout)(trunk(pictures, width_multiplier, dropout))
    return keras.Model(pictures, layers.Dense(1, activation="sigmoid", name="value", dtype="float32")(h))
