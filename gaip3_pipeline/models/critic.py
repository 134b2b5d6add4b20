"""The critic: a classifier of real against generated pictures whose gradient is worth following."""

import keras
from keras import layers

CHANNELS = (32, 64, 96)


def build_critic(height: int, width: int, width_multiplier: float, dropout: float) -> keras.Model:
    """``(B, height, width, 3) float32 in 0..1 -> (B, 1) float32`` logit of being real.

    Convolutions have spectral norm 1 (Miyato et al. 2018, arXiv 1802.05957), so that the logit changes smoothly with the picture
    instead of by steps that no latent can follow. The dense layer is free: it sets the scale.
    """
    pictures = keras.Input((height, width, 3))
    h = layers.Rescaling(2.0, -1.0)(pictures)
    for channels in CHANNELS:
        convolution = layers.Conv2D(max(4, round(channels * width_multiplier)), 4, strides=2, padding="same")
        h = layers.LeakyReLU(0.2)(layers.SpectralNormalization(convolution)(h))
    h = layers.Dropout(dropout)(layers.Flatten()(h))
    return keras.Model(pictures, layers.Dense(1, name="logit", dtype="float32")(h))
