"""An update that is not finite or a spike does not change the weights, is counted, and the training
continues."""

import keras
import numpy as np
import pytest

from gaip3_pipeline.training.optimizer import SpikeSkippingAdamax


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


def test_its_state_is_that_of_adamax_by_weight_and_is_set_again():
    shapes, generator = [(2, 3), (4,), ()], np.random.default_rng(0)

    def built(optimizer):
        weights = [keras.Variable(np.ones(shape, np.float32)) for shape in shapes]
        optimizer.build(weights)
        return optimizer, weights

    def update(pair, gradients):
        pair[0].apply([keras.ops.convert_to_tensor(g) for g in gradients], pair[1])

    ours, plain = built(SpikeSkippingAdamax(0.1, spike=10.0)), built(keras.optimizers.Adamax(0.1))
    gradients = [[generator.normal(0, 1, s).astype(np.float32) for s in shapes] for _ in range(4)]
    for some in gradients[:3]:
        update(ours, some)
        update(plain, some)
    state = ours[0].state
    expected = [value(v) for v in plain[0].variables]
    assert len(state) == len(expected) + 2
    for mine, theirs in zip(state[:-2], expected, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_array_equal(mine, theirs)
    again = built(SpikeSkippingAdamax(0.1, spike=10.0))
    again[0].state = state
    for mine, theirs in zip(again[1], ours[1], strict=True):
        mine.assign(theirs)
    update(ours, gradients[3])
    update(again, gradients[3])
    for mine, theirs in zip(again[1], ours[1], strict=True):
        np.testing.assert_array_equal(value(mine), value(theirs))
