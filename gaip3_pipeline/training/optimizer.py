"""Adam and Adamax that update all weights at once; the latter skips updates whose gradient is not
finite or far larger than usual."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


class AllAtOnce(keras.optimizers.Optimizer):
    """An optimiser whose state is a vector over all weights for each of ``MOMENTS``, and which
    computes the change of all weights together.

    Networks have hundreds of small weights. An operation for each costs more than the arithmetic:
    half of the time that TensorFlow takes to compile a step, and a kernel each on a GPU. The
    results are those of the optimiser of the same name in Keras, bit for bit. Keras's other options
    (weight decay, averages) are left out."""

    MOMENTS: tuple[str, str]

    def __init__(
        self,
        learning_rate: Any,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def change(self, gradient: Tensor, step: Tensor, rate: Tensor) -> Tensor:
        """What is subtracted from all weights ``(W,) float32``, for their ``gradient (W,)`` at
        ``step``, 1 at first, with the learning ``rate``. Effects: updates the state."""
        raise NotImplementedError

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        sizes = [math.prod(v.shape) for v in variables]
        self._ends = np.cumsum(sizes)
        self.moments = [
            self.add_variable(shape=(sum(sizes),), initializer="zeros", name=name)
            for name in self.MOMENTS
        ]

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
        step = ops.cast(self.iterations + 1, "float32")
        change = self.change(gradient, step, ops.cast(self.learning_rate, "float32"))
        # TensorFlow does not split into one part
        parts = ops.split(change, self._ends[:-1]) if len(weights) > 1 else [change]
        for weight, part in zip(weights, parts, strict=True):
            weight.assign_sub(ops.cast(ops.reshape(part, weight.shape), weight.dtype))
        self.iterations.assign_add(1)

    @property
    def state(self) -> list[np.ndarray]:
        """All variables as those of Keras's optimiser, with the moments of each weight in turn: the
        form that checkpoints have, whatever the layout in memory is."""
        arrays = []
        for variable in self.variables:
            if variable is self.moments[0]:
                parts = [
                    np.split(ops.convert_to_numpy(moment), self._ends[:-1])
                    for moment in self.moments
                ]
                for weight, *both in zip(self._trainable_variables, *parts, strict=True):
                    arrays += [part.reshape(weight.shape) for part in both]
            elif variable is not self.moments[1]:
                arrays.append(np.asarray(ops.convert_to_numpy(variable)))
        return arrays

    @state.setter
    def state(self, arrays: Sequence[np.ndarray]) -> None:
        given = iter(arrays)
        for variable in self.variables:
            if variable is self.moments[0]:
                both = [next(given).ravel() for _ in range(2 * len(self._trainable_variables))]
                for i, moment in enumerate(self.moments):
                    moment.assign(np.concatenate(both[i::2]))
            elif variable is not self.moments[1]:
                variable.assign(next(given))


class Adam(AllAtOnce):
    """Adam (Kingma and Ba 2015, algorithm 1). The norm of each weight's gradient is bounded by
    ``clip_norm``, as by ``clipnorm`` of Keras."""

    MOMENTS = ("momentum", "velocity")

    def __init__(self, learning_rate: Any, *, clip_norm: float = math.inf, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.clip_norm = clip_norm

    def apply(self, grads: list[Tensor], trainable_variables: list[Any] | None = None) -> None:
        if self.clip_norm < math.inf:
            grads = [g if g is None else self._bounded(g) for g in grads]
        super().apply(grads, trainable_variables)

    def _bounded(self, gradient: Tensor) -> Tensor:
        norm = ops.sqrt(ops.sum(ops.square(gradient)))
        return gradient * self.clip_norm / ops.maximum(norm, self.clip_norm)

    def change(self, gradient: Tensor, step: Tensor, rate: Tensor) -> Tensor:
        momentum, velocity = self.moments
        momentum.assign_add((gradient - momentum) * (1 - self.beta_1))
        velocity.assign_add((ops.square(gradient) - velocity) * (1 - self.beta_2))
        unbiased = rate * ops.sqrt(1 - ops.power(self.beta_2, step))
        unbiased = unbiased / (1 - ops.power(self.beta_1, step))
        return momentum * unbiased / (ops.sqrt(velocity) + self.epsilon)


class SpikeSkippingAdamax(AllAtOnce):
    """Adamax (Kingma and Ba 2015, section 7.1) that skips spikes, which occur occasionally in deep
    hierarchical VAEs.

    The norm of the whole gradient is bounded by ``clip_norm``. An update is skipped if that norm,
    before it is bounded, is not finite, is exactly 0, or exceeds ``spike`` times its running mean
    after the first ``PATIENCE`` updates; the weights then do not change. ``skipped`` counts the
    skipped updates. A spike enters the mean as ``spike`` times the mean, so that the mean follows a
    lasting change of scale after a few updates."""

    MOMENTS = ("momentum", "norm")
    PATIENCE = 20

    def __init__(
        self, learning_rate: Any, spike: float, clip_norm: float = math.inf, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.spike = spike
        self.clip_norm = clip_norm

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            self.usual_norm = self.add_variable(shape=(), initializer="zeros", name="usual_norm")
            self.skipped = self.add_variable(shape=(), initializer="zeros", name="skipped")

    def change(self, gradient: Tensor, step: Tensor, rate: Tensor) -> Tensor:
        steady, scale = self._steadiness(ops.sqrt(ops.sum(ops.square(gradient))), step - 1.0)
        # ``where``, not a product with 0, which would keep NaN.
        gradient = ops.where(steady, gradient * scale, 0.0)
        momentum, norm = self.moments
        momentum.assign_add((gradient - momentum) * (1 - self.beta_1))
        norm.assign(ops.maximum(self.beta_2 * norm, ops.abs(gradient)))
        rate = rate * ops.cast(steady, "float32")
        unbiased = 1 - ops.power(self.beta_1, step)
        return rate * momentum / (unbiased * (norm + self.epsilon))

    def _steadiness(self, norm: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the gradient with this ``norm`` is no spike, and the factor that bounds it, after
        ``before`` updates."""
        finite = ops.logical_and(ops.isfinite(norm), norm > 0.0)
        usual = ops.convert_to_tensor(self.usual_norm)
        limit = ops.where(before < self.PATIENCE, float("inf"), self.spike * usual)
        steady = ops.logical_and(finite, norm <= limit)
        keep = ops.minimum(0.99, before / (before + 1.0))
        followed = keep * usual + (1.0 - keep) * ops.minimum(norm, limit)
        self.usual_norm.assign(ops.where(finite, followed, usual))
        self.skipped.assign_add(1.0 - ops.cast(steady, "float32"))
        return steady, ops.minimum(1.0, self.clip_norm / norm)


def cosine_decay(
    learning_rate: float, batches_per_epoch: int, epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls from ``learning_rate`` to 0 over the whole training; it depends on
    the optimiser's step, so a resumed training continues it."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, batches_per_epoch * epochs))
