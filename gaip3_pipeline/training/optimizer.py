"""Adamax that skips updates whose gradient is not finite or far larger than usual."""

import math
from typing import Any

import keras
from keras import ops

Tensor = Any


class SpikeSkippingAdamax(keras.optimizers.Adamax):
    """Adamax (Kingma and Ba 2015, section 7.1) that skips spikes, which occur occasionally in deep
    hierarchical VAEs.

    The norm of the whole gradient is bounded by ``clip_norm``. An update is skipped if that norm,
    before it is bounded, is not finite, is exactly 0, or exceeds ``spike`` times its running mean
    after the first ``PATIENCE`` updates; the weights then do not change. ``skipped`` counts the
    skipped updates. A spike enters the mean as ``spike`` times the mean, so that the mean follows a
    lasting change of scale after a few updates."""

    PATIENCE = 20

    def __init__(
        self, learning_rate: Any, spike: float, clip_norm: float = math.inf, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.spike = spike
        self.clip_norm = clip_norm
        self._share: Tensor = 1.0  # factor of the learning rate in the current update

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            self.usual_norm = self.add_variable(shape=(), initializer="zeros", name="usual_norm")
            self.skipped = self.add_variable(shape=(), initializer="zeros", name="skipped")

    def apply(self, grads: list[Tensor], trainable_variables: list[Any] | None = None) -> None:
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        norm = ops.sqrt(
            sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in grads if g is not None)
        )
        finite = ops.logical_and(ops.isfinite(norm), norm > 0.0)
        step = ops.cast(self.iterations, "float32")
        usual = ops.convert_to_tensor(self.usual_norm)
        limit = ops.where(step < self.PATIENCE, float("inf"), self.spike * usual)
        steady = ops.logical_and(finite, norm <= limit)
        keep = ops.minimum(0.99, step / (step + 1.0))
        followed = keep * usual + (1.0 - keep) * ops.minimum(norm, limit)
        self.usual_norm.assign(ops.where(finite, followed, usual))
        self.skipped.assign_add(1.0 - ops.cast(steady, "float32"))
        self._share = ops.cast(steady, "float32")
        scale = ops.minimum(1.0, self.clip_norm / norm)
        # ``where``, not a product with 0, which would keep NaN.
        super().apply(
            [
                g if g is None else ops.where(steady, g * ops.cast(scale, g.dtype), 0.0)
                for g in grads
            ],
            trainable_variables,
        )
        self._share = 1.0

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        super().update_step(gradient, variable, learning_rate * self._share)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spike": self.spike, "clip_norm": self.clip_norm}


def cosine_decay(
    learning_rate: float, batches_per_epoch: int, epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls from ``learning_rate`` to 0 over the whole training; it depends on
    the optimiser's step, so a resumed training continues it."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, max(1, batches_per_epoch * epochs))
