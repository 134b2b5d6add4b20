"""Equal inputs give equal bits, whatever the process computed before."""

import keras
import numpy as np
from keras import layers, ops

from gaip3_pipeline.models.backend import gradient
from gaip3_pipeline.models.critic import build_critic
from gaip3_pipeline.models.storage import load_weights, save_weights

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.standard_normal((4, 16, 16, 3)).astype(np.float32)
KERNELS = [RANDOM.standard_normal((3, 3, 3, 8)).astype(np.float32) for _ in range(6)]


def climb():
    """The gradient of a sum over six networks with the same weights in every call."""
    networks = [layers.Conv2D(8, 3, use_bias=False) for _ in KERNELS]
    for network, kernel in zip(networks, KERNELS, strict=True):
        network.build((None, *PICTURES.shape[1:]))
        network.set_weights([kernel])
    return gradient(
        lambda given: ops.sum(
            sum(ops.square(network(given[0])) for network in networks), axis=(1, 2, 3)
        )
    )


def test_gradients_have_equal_bits_whatever_models_the_process_made_before():
    found = []
    for models in (0, 0, 1, 4, 9, 30, 60):
        for _ in range(models):  # each takes a number in Keras' names
            layers.Conv2D(1, 1)
        _, [uphill] = climb()([PICTURES])
        found.append(uphill)
    assert np.abs(found[0]).max() > 1
    assert all((other == found[0]).all() for other in found)


def test_a_loaded_model_has_equal_variables_whatever_the_process_drew_before(tmp_path):
    def critic():
        return build_critic(32, 26, 0.1, 0.5)

    save_weights(critic(), tmp_path)
    found = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        found.append([v.numpy() for v in load_weights(critic(), tmp_path).variables])
    assert len(found[0]) > len(critic().trainable_variables)
    assert all((a == b).all() for a, b in zip(*found, strict=True))
