"""The critic: a classifier of real against generated pictures whose gradient is worth following."""

import keras
from keras import layers, ops

CHANNELS = (32, 64, 96)
MARGIN = 2  # pixels on each side that a critic does not see: frames, seams and codecs' edges are no part of a face


def build_critic(height: int, width: int, width_multiplier: float, dropout: float) -> keras.Model:
    """``(B, height, width, 3) float32 in 0..1 -> (B, 1) float32`` logit of being real.

    Convolutions have spectral norm 1 (Miyato et al. 2018, arXiv 1802.05957), so that the logit changes smoothly with the picture
    instead of by steps that no latent can follow. The dense layer is free: it sets the scale.
    """
    pictures = keras.Input((height, width, 3))
    h = layers.Rescaling(2.0, -1.0)(layers.Cropping2D(MARGIN)(pictures))
    for channels in CHANNELS:
        convolution = layers.Conv2D(max(4, round(channels * width_multiplier)), 4, strides=2, padding="same")
        h = layers.LeakyReLU(0.2)(layers.SpectralNormalization(convolution)(h))
    h = layers.Flatten(name="parts")(h)
    return keras.Model(pictures, layers.Dense(1, name="logit", dtype="float32")(layers.Dropout(dropout)(h)))


def evidence(critic: keras.Model) -> keras.Model:
    """``(B, H, W, 3) float32 in 0..1 -> (B, h, w) float32``: the addends of a critic's logit, less its bias, by place.

    Exact, since the logit is linear in the last maps: class activation mapping (Zhou et al. 2016, arXiv 1512.04150).
    """
    parts, logit = critic.get_layer("parts"), critic.get_layer("logit")
    _, height, width, channels = parts.input.shape
    weights = ops.reshape(logit.kernel, (1, height, width, channels))
    return keras.Model(critic.input, layers.Lambda(lambda h: ops.sum(ops.cast(h, "float32") * weights, axis=-1))(parts.input))
