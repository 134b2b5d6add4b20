"""An update that is not finite or a spike does not change the weights, is counted, and the training
continues."""

from functools import partial

import keras
import numpy as np
import pytest

from gaip3_pipeline.training.optimizer import Adam, SpikeSkippingAdamax


def optimizer_and_weight():
    weight = keras.Variable(np.ones(3, np.float32))
    optimizer = SpikeSkippingAdamax(0.1, spike=10.0)
    optimizer.build([weight])
    return optimizer, weight


def value(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def apply(optimizer, weight, gradient):
    optimizer.apply([keras.ops.convert_to_tensor(np.full(3, gradient, np.float32))], [weight])


def test_without_spikes_it_is_adamax():
    optimizer, weight = optimizer_and_weight()
    plain, other = keras.optimizers.Adamax(0.1), keras.Variable(np.ones(3, np.float32))
    plain.build([other])
    for gradient in np.random.default_rng(0).normal(0, 1, 40):
        apply(optimizer, weight, gradient)
        apply(plain, other, gradient)
    np.testing.assert_array_equal(value(weight), value(other))
    assert float(value(optimizer.skipped)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1000.0])
def test_a_spike_is_skipped_and_counted_and_the_next_update_is_applied(bad):
    optimizer, weight = optimizer_and_weight()
    for _ in range(30):
        apply(optimizer, weight, 1.0)
    before = value(weight)
    apply(optimizer, weight, bad)
    np.testing.assert_array_equal(value(weight), before)
    assert float(value(optimizer.skipped)) == 1
    apply(optimizer, weight, 1.0)
    assert (value(weight) < before).all()
    assert np.isfinite(value(weight)).all()


def test_early_updates_may_differ_widely_but_must_be_finite():
    optimizer, weight = optimizer_and_weight()
    for gradient in (1e-3, 1.0, np.nan, 50.0):
        apply(optimizer, weight, gradient)
    assert float(value(optimizer.skipped)) == 1
    assert np.isfinite(value(weight)).all()


def test_a_lasting_change_of_scale_is_followed():
    optimizer, weight = optimizer_and_weight()
    for gradient in [1.0] * 30 + [100.0] * 40:
        apply(optimizer, weight, gradient)
    skipped = float(value(optimizer.skipped))
    assert 0 < skipped < 40
    apply(optimizer, weight, 100.0)
    assert float(value(optimizer.skipped)) == skipped


@pytest.mark.parametrize("given", [{}, {"beta_1": 0.0, "beta_2": 0.99}], ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs", "more"),
    [
        (Adam, keras.optimizers.Adam, 0),
        (partial(Adam, clip_norm=1.0), partial(keras.optimizers.Adam, clipnorm=1.0), 0),
        (partial(SpikeSkippingAdamax, spike=10.0), keras.optimizers.Adamax, 2),
    ],
    ids=["Adam", "Adam that clips", "Adamax"],
)
def test_results_and_state_are_those_of_keras_and_the_state_is_set_again(ours, theirs, more, given):
    shapes, generator = [(2, 3), (4,), ()], np.random.default_rng(0)

    def built(make):
        weights = [keras.Variable(np.ones(shape, np.float32)) for shape in shapes]
        optimizer = make(0.1, **given)
        optimizer.build(weights)
        return optimizer, weights

    def update(pair, gradients):
        pair[0].apply([keras.ops.convert_to_tensor(g) for g in gradients], pair[1])

    def same(a, b):
        for mine, other in zip(a, b, strict=True):
            assert mine.shape == other.shape
            np.testing.assert_array_equal(value(mine), value(other))

    mine, plain = built(ours), built(theirs)
    gradients = [[generator.normal(0, 1, s).astype(np.float32) for s in shapes] for _ in range(9)]
    for some in gradients[:8]:
        update(mine, some)
        update(plain, some)
    same(mine[1], plain[1])
    state = mine[0].state
    same(state[: len(state) - more], plain[0].variables)
    again = built(ours)
    again[0].state = state
    for variable, other in zip(again[1], mine[1], strict=True):
        variable.assign(other)
    update(mine, gradients[8])
    update(again, gradients[8])
    same(again[1], mine[1])
