"""The critic: classifiers of real against generated pictures whose gradient can guide
retouching."""

import keras
from keras import layers, ops

CHANNELS = (32, 64, 96)
# pixels cut off each side of a critic's input: frames, seams and codec artefacts at the edges are
# no part of a face
MARGIN = 2


def build_critic(
    height: int, width: int, width_multiplier: float, dropout: float, networks: int = 1
) -> keras.Model:
    """A critic with ``(B, height, width, 3) float32`` in 0..1 as input and
    ``(B, networks) float32`` as output: the logit of being real, by networks that share no weights.

    Convolutions have spectral norm 1 (Miyato et al. 2018, arXiv 1802.05957), so the logit changes
    smoothly with the picture and its gradient is usable. The dense layer is not constrained; it
    sets the scale."""
    pictures = keras.Input((height, width, 3))
    logits = [
        _network(height, width, width_multiplier, dropout, f"network_{k}")(pictures)
        for k in range(networks)
    ]
    return keras.Model(pictures, layers.Concatenate(dtype="float32")(logits))


def _network(
    height: int, width: int, width_multiplier: float, dropout: float, name: str
) -> keras.Model:
    pictures = keras.Input((height, width, 3))
    h = layers.Rescaling(2.0, -1.0)(layers.Cropping2D(MARGIN)(pictures))
    for channels in CHANNELS:
        convolution = layers.Conv2D(
            max(4, round(channels * width_multiplier)), 4, strides=2, padding="same"
        )
        h = layers.LeakyReLU(0.2)(layers.SpectralNormalization(convolution)(h))
    h = layers.Flatten(name="parts")(h)
    return keras.Model(
        pictures,
        layers.Dense(1, name="logit", dtype="float32")(layers.Dropout(dropout)(h)),
        name=name,
    )


def networks_of(critic: keras.Model) -> list[keras.Model]:
    """The networks of a critic, in the order of its logits."""
    return [layer for layer in critic.layers if isinstance(layer, keras.Model)]


def evidence(critic: keras.Model) -> keras.Model:
    """A model of the terms whose sum is each logit without its bias, by position:
    ``(B, H, W, 3) float32`` in 0..1 to ``(B, networks, h, w) float32``.

    This is exact, since a logit is linear in its network's last maps: class activation mapping
    (Zhou et al. 2016, arXiv 1512.04150)."""
    by_place = [_evidence(network)(critic.input) for network in networks_of(critic)]
    return keras.Model(critic.input, layers.Lambda(lambda maps: ops.stack(maps, axis=1))(by_place))


def _evidence(network: keras.Model) -> keras.Model:
    parts, logit = network.get_layer("parts"), network.get_layer("logit")
    _, height, width, channels = parts.input.shape
    weights = ops.reshape(logit.kernel, (1, height, width, channels))
    return keras.Model(
        network.input,
        layers.Lambda(lambda h: ops.sum(ops.cast(h, "float32") * weights, axis=-1))(parts.input),
    )
