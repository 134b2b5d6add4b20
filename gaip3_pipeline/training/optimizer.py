"""Adamax that skips updates whose gradient is not finite or far larger than usual, and that updates
all weights at once."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


class SpikeSkippingAdamax(keras.optimizers.Optimizer):
    """Adamax (Kingma and Ba 2015, section 7.1) that skips spikes, which occur occasionally in deep
    hierarchical VAEs.

    The norm of the whole gradient is bounded by ``clip_norm``. An update is skipped if that norm,
    before it is bounded, is not finite, is exactly 0, or exceeds ``spike`` times its running mean
    after the first ``PATIENCE`` updates; the weights then do not change. ``skipped`` counts the
    skipped updates. A spike enters the mean as ``spike`` times the mean, so that the mean follows a
    lasting change of scale after a few updates.

    The state of all weights is one vector each for momentum and norm, and an update is computed for
    all weights together: a deep network has hundreds of small ones, and an operation each costs
    more than the arithmetic, in time to compile and on a GPU."""

    PATIENCE = 20

    def __init__(
        self,
        learning_rate: Any,
        spike: float,
        clip_norm: float = math.inf,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.spike = spike
        self.clip_norm = clip_norm
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        sizes = [math.prod(v.shape) for v in variables]
        self._ends = np.cumsum(sizes)
        self._momentum, self._norm = (
            self.add_variable(shape=(sum(sizes),), initializer="zeros", name=name)
            for name in ("momentum", "norm")
        )
        self.usual_norm = self.add_variable(shape=(), initializer="zeros", name="usual_norm")
        self.skipped = self.add_variable(shape=(), initializer="zeros", name="skipped")

    def apply(self, grads: list[Tensor], trainable_variables: list[Any] | None = None) -> None:
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        weights = trainable_variables or self._trainable_variables
        # a weight without a gradient, on which the loss does not depend, keeps its value with zeros
        gradient = ops.concatenate(
            [
                ops.zeros(math.prod(w.shape))
                if g is None
                else ops.cast(ops.reshape(g, (-1,)), "float32")
                for g, w in zip(grads, weights, strict=True)
            ]
        )
        steady, scale = self._steadiness(ops.sqrt(ops.sum(ops.square(gradient))))
        # ``where``, not a product with 0, which would keep NaN.
        gradient = ops.where(steady, gradient * scale, 0.0)
        step = ops.cast(self.iterations + 1, "float32")
        rate = ops.cast(self.learning_rate, "float32") * ops.cast(steady, "float32")
        momentum = self._momentum + (gradient - self._momentum) * (1.0 - self.beta_1)
        norm = ops.maximum(self.beta_2 * self._norm, ops.abs(gradient))
        unbiased = 1.0 - ops.power(self.beta_1, step)
        change = rate * momentum / (unbiased * (norm + self.epsilon))
        self._momentum.assign(momentum)
        self._norm.assign(norm)
        # TensorFlow does not split into one part
        parts = ops.split(change, self._ends[:-1]) if len(weights) > 1 else [change]
        for weight, part in zip(weights, parts, strict=True):
            weight.assign_sub(ops.cast(ops.reshape(part, weight.shape), weight.dtype))
        self.iterations.assign_add(1)

    def _steadiness(self, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the gradient with this ``norm`` is no spike, and the factor that bounds it."""
        finite = ops.logical_and(ops.isfinite(norm), norm > 0.0)
        step = ops.cast(self.iterations, "float32")
        usual = ops.convert_to_tensor(self.usual_norm)
        limit = ops.where(step < self.PATIENCE, float("inf"), self.spike * usual)
        steady = ops.logical_and(finite, norm <= limit)
        keep = ops.minimum(0.99, step / (step + 1.0))
        followed = keep * usual + (1.0 - keep) * ops.minimum(norm, limit)
        self.usual_norm.assign(ops.where(finite, followed, usual))
        self.skipped.assign_add(1.0 - ops.cast(steady, "float32"))
        return steady, ops.minimum(1.0, self.clip_norm / norm)

    @property
    def state(self) -> list[np.ndarray]:
        """All variables as those of ``keras.optimizers.Adamax``, with momentum and norm of each
        weight in turn: the form that checkpoints have, whatever the layout in memory is."""
        arrays = []
        for variable in self.variables:
            array = np.asarray(ops.convert_to_numpy(variable))
            if variable is self._momentum:
                norm = np.asarray(ops.convert_to_numpy(self._norm))
                parts = [np.split(x, self._ends[:-1]) for x in (array, norm)]
                for weight, *both in zip(self._trainable_variables, *parts, strict=True):
                    arrays += [part.reshape(weight.shape) for part in both]
            elif variable is not self._norm:
                arrays.append(array)
        return arrays

    @state.setter
    def state(self, arrays: Sequence[np.ndarray]) -> None:
        given = iter(arrays)
        for variable in self.variables:
            if variable is self._momentum:
                both = [next(given).ravel() for _ in range(2 * len(self._trainable_variables))]
                self._momentum.assign(np.concatenate(both[::2]))
                self._norm.assign(np.concatenate(both[1::2]))
            elif variable is not self._norm:
                variable.assign(next(given))

    def get_config(self) -> dict[str, Any]:
        own = ("spike", "clip_norm", "beta_1", "beta_2", "epsilon")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def cosine_decay(
    learning_rate: float, batches_per_epoch: int, epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls from ``learning_rate`` to 0 over the whole training; it depends on
    the optimiser's step, so a resumed training continues it."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, batches_per_epoch * epochs))
