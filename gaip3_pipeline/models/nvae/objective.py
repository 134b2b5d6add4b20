"""The training objective of an NVAE: the bound with KL warm-up and balancing, spectral
regularisation, control; and an EMA of the weights."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.models.backend import follow, precision_of
from gaip3_pipeline.models.nvae.model import NVAE, build_nvae
from gaip3_pipeline.models.regressor import values_error
from gaip3_pipeline.settings import Nvae

Tensor = Any
GUIDE_NOISE = 0.03  # standard deviation of the noise on the guides' input, pixels in 0..1
CONTROL_BEGINS, CONTROL_COMPLETE = 0.5, 0.6  # shares of the training's steps
CONTROL_SHARE = 4  # one face is drawn for control per this many pictures of a batch


class SpectralRegularization(layers.Layer):
    """Sum of the largest singular values of convolution kernels: NVAE, section 3.2.

    A kernel is treated as a matrix of (inputs and positions) × outputs. Each call makes one power
    iteration, starting from the singular vector of the call before; kernels of the same shape are
    iterated together."""

    def __init__(self, model: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        groups = defaultdict(list)
        for w in model.trainable_variables:
            if len(w.shape) == 4 and w.name == "kernel":
                groups[tuple(w.shape)].append(w)
        self._kernels = list(groups.values())
        self._right = [
            self.add_weight(
                shape=(len(kernels), kernels[0].shape[-1], 1),
                initializer=keras.initializers.RandomNormal(seed=i),
                trainable=False,
                name=f"right_{i}",
            )
            for i, kernels in enumerate(self._kernels)
        ]

    def penalty(self) -> Tensor:
        """The sum, a scalar, after one more power iteration."""
        total: Tensor = 0.0
        for kernels, right in zip(self._kernels, self._right, strict=True):
            matrix = ops.stack([ops.reshape(k, (-1, k.shape[-1])) for k in kernels])
            u = _unit(ops.matmul(ops.stop_gradient(matrix), right))
            # vᵀ(Mᵀu) instead of uᵀ(Mv): two products, and none with a transposed matrix
            row = ops.matmul(ops.reshape(u, (len(kernels), 1, -1)), matrix)
            column = ops.reshape(row, right.shape)
            v = _unit(ops.stop_gradient(column))
            right.assign(v)
            total = total + ops.sum(v * column)
        return total


class NvaeTraining(keras.Model):
    """An NVAE as ``fit`` trains it: ``nvae`` learns; ``ema`` is the moving average of its weights,
    which is validated and saved.

    Takes batches ``{"image": (B, H, W, C) uint8, "condition": (B, 5) float32}``. The loss is in
    nats per dimension. The step counter, the average and the seeds are variables of the model, so
    that a checkpoint of its variables resumes everything.

    ``guides``: frozen regressors, ``(B, h, w, 3) float32`` in 0..1 to ``(B, K)`` each, which
    together predict the five values in the order of ``ATTRIBUTES``. With them and
    ``settings.control`` above 0, each step also draws a few faces from the prior with random values
    and adds the squared error of the guides' predictions for them to the loss (control). With the
    bound alone, small features depend on the latents only: a condition earns no likelihood for what
    a posterior sample determines anyway. Control starts at half of the training. ``ranges (2, 5)``
    are the smallest and largest values that the pictures support (0 and 1 if not given): conditions
    are clipped to them, and control draws values from them. ``known (5,)``: which of the values the
    guides can predict; the others are ignored by control."""

    def __init__(
        self,
        settings: Nvae,
        total_steps: int,
        guides: Sequence[keras.Model] = (),
        ranges: Any = None,
        known: Sequence[bool] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.precision = precision_of(settings.precision)
        self.nvae = build_nvae(settings, self.precision)
        self.ema = build_nvae(settings, self.precision)
        self.ema.trainable = False
        self.spectral = SpectralRegularization(self.nvae)
        self.step = self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, name="step"
        )
        self._warmup_steps = max(settings.kl_warmup * total_steps, 1.0)
        self._total_steps = max(float(total_steps), 1.0)
        self._dimensions = settings.height * settings.width * self.nvae.likelihood.picture_channels
        self._kl_weights = [float(settings.kl_weights[s]) for s in self.nvae.latent_scales]
        self._bits = keras.metrics.Mean(name="bits_per_dim")
        self.guides = list(guides)
        for guide in self.guides:
            guide.trainable = False
        if ranges is not None:
            for network in (self.nvae, self.ema):
                network.condition_embedding.range.assign(ranges)
        self._known = [float(k) for k in known] or [1.0] * len(ATTRIBUTES)
        has_control = self.guides and settings.control > 0.0 and any(self._known)
        self._control = [_Measured(name="control_mse")] if has_control else []
        self._control_seed = keras.random.SeedGenerator(settings.seed + 1)
        self._kl = [
            keras.metrics.Mean(name=f"kl_{i}_{h}x{w}")
            for i, (h, w, _) in enumerate(self.nvae.latent_shapes)
        ]
        self.built = True

    def start_from(self, nvae: NVAE, step: int) -> None:
        """Start with the weights of ``nvae``, of the same architecture, as if ``step`` updates were
        done; ``ranges`` are not changed."""
        for network in (self.nvae, self.ema):
            ranges = ops.convert_to_numpy(network.condition_embedding.range)
            # through NumPy: on JAX both networks would share the arrays of nvae, which a step that
            # donates its buffers refuses
            network.set_weights(nvae.get_weights())
            network.condition_embedding.range.assign(ranges)
        self.step.assign(float(step))

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> dict[str, Any]:
        """The terms of the bound: of ``nvae`` in training, of ``ema`` otherwise."""
        return self.nvae(inputs, training=True) if training else self.ema(inputs, training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        log_likelihood = ops.mean(y_pred["log_likelihood"])
        kl = ops.stack([ops.mean(k) for k in y_pred["kl"]])
        bound = log_likelihood - ops.sum(kl)
        finite = ops.isfinite(bound)
        for metric, value in zip(
            (self._bits, *self._kl),
            (-bound / (self._dimensions * math.log(2.0)), *ops.unstack(kl)),
            strict=True,
        ):
            metric.update_state(
                ops.where(finite, value, 0.0), sample_weight=ops.cast(finite, "float32")
            )
        if self._control:
            # Control starts only when samples look like faces: before that, the guides' gradients
            # are meaningless and would only distort the prior.
            rising = (self.step / self._total_steps - CONTROL_BEGINS) / (
                CONTROL_COMPLETE - CONTROL_BEGINS
            )
            needed = ops.logical_or(rising > 0.0, not training)
            control = self._control_error(
                self.nvae if training else self.ema, ops.shape(x["image"])[0], needed
            )
            self._control[0].update_state(control, sample_weight=ops.cast(needed, "float32"))
        if not training:
            return -bound / self._dimensions + (
                self.settings.control * control if self._control else 0.0
            )
        loss = (ops.sum(self._kl_factors(kl) * kl) - log_likelihood) / self._dimensions
        if self.settings.spectral > 0.0:
            loss = loss + self.settings.spectral / self._dimensions * self.spectral.penalty()
        if self._control:
            loss = loss + self.settings.control * ops.clip(rising, 0.0, 1.0) * control
        self._follow()
        # A loss that is not finite is reported as 0 and has no gradient: the optimiser skips and
        # counts the update.
        return ops.where(ops.isfinite(loss), loss, 0.0)

    def _control_error(self, nvae: NVAE, batch: Any, needed: Tensor) -> Tensor:
        """Mean squared error between five random values and the guides' predictions for samples
        drawn with these values; 0, without computing it, where it is not ``needed``."""
        n = (
            max(batch // CONTROL_SHARE, 1)
            if isinstance(batch, int)
            else ops.maximum(batch // CONTROL_SHARE, 1)
        )
        low, high = ops.unstack(ops.convert_to_tensor(self.nvae.condition_embedding.range))
        asked = low + (high - low) * keras.random.uniform(
            (n, len(ATTRIBUTES)), seed=self._control_seed
        )
        noise = [
            keras.random.normal((n, *shape), seed=self._control_seed)
            for shape in self.nvae.latent_shapes
        ]
        # Half of the pictures are mirrored and all get a little noise, so that patterns that only a
        # guide recognises are not worth learning.
        mirrored = keras.random.uniform((n, 1), seed=self._control_seed) < 0.5
        size = (n, self.settings.height, self.settings.width, nvae.likelihood.picture_channels)
        grain = GUIDE_NOISE * keras.random.normal(size, seed=self._control_seed)
        turns = ops.convert_to_tensor([[a in MIRRORED for a in ATTRIBUTES]])
        shown = ops.where(ops.logical_and(mirrored, turns), 1.0 - asked, asked)

        def error() -> Tensor:
            drawn = nvae.decode(noise, asked)
            turned = ops.where(mirrored[:, :, None, None], ops.flip(drawn, axis=2), drawn)
            return values_error(self.guides, self._known, turned + grain, shown)

        # Random numbers are drawn outside, so that they do not depend on what is needed.
        return ops.cond(needed, error, lambda: ops.zeros(()))

    def _kl_factors(self, kl: Tensor) -> Tensor:
        """The weight of each group's KL: the warm-up, the balancing during it (NVAE, appendix A),
        and the weight of the scale."""
        warmth = ops.minimum(self.step / self._warmup_steps, 1.0)
        sizes = ops.convert_to_tensor([float(h * w) for h, w, _ in self.nvae.latent_shapes])
        share = ops.stop_gradient(kl + 1e-2) * sizes
        balanced = share / ops.mean(share)
        return ops.convert_to_tensor(self._kl_weights) * ops.where(
            warmth < 1.0, balanced * warmth, ops.ones_like(balanced)
        )

    def _follow(self) -> None:
        """Update the average with the weights before this update."""
        follow(self.ema, self.nvae, self.settings.ema, self.step)


class _Measured(keras.metrics.Mean):
    """A mean that is not a number where nothing was measured."""

    def result(self) -> Tensor:
        return ops.where(self.count > 0.0, super().result(), float("nan"))


def _unit(x: Tensor) -> Tensor:
    return x / (ops.norm(x, axis=1, keepdims=True) + 1e-12)
