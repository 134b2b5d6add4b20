"""The training loop of all networks: ``fit`` with checkpoints, resumption, progress and a callback
for the metrics of each epoch."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from gaip3_pipeline.models.backend import (
    check_world,
    devices,
    is_out_of_memory,
    keep_freed_memory,
    split_batches,
)
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.run import Run


class DivergedError(RuntimeError):
    """The loss of a training is not finite, or most updates were skipped."""


class OutOfMemoryError(RuntimeError):
    """A batch did not fit into memory."""


@dataclass(frozen=True)
class KeepBest:
    """Keeps the best epoch by the smallest ``figure``, a metric of each epoch, and ends the
    training ``patience`` epochs after it; with 0 the training does not end early.

    ``keep()`` is called after each epoch that is the best so far. Epochs before ``first_epoch`` (1
    is the first) do not count."""

    figure: str
    keep: Callable[[], None]
    patience: int = 0
    first_epoch: int = 1

    def best(self, history: list[dict[str, float]]) -> int:
        """The epoch with the smallest metric, 0 while none counts."""
        counted = [figures[self.figure] for figures in history[self.first_epoch - 1 :]]
        return self.first_epoch + counted.index(min(counted)) if counted else 0

    def is_over(self, history: list[dict[str, float]]) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        return 0 < self.patience <= len(history) - (self.best(history) or len(history))


def fit(
    model: keras.Model,
    batches: ArrayBatches,
    run: Run,
    *,
    epochs: int,
    validation: Any = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    keep_best: KeepBest | None = None,
    is_over: Callable[[list[dict[str, float]]], bool] | None = None,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train the compiled, built ``model`` for ``epochs`` epochs in total and return the metrics of
    each.

    A checkpoint is written after every epoch. A killed training continues from the last checkpoint
    with the same fingerprint, with the same batches as without the interruption. ``run.log`` is
    called for the epochs trained here. The training ends earlier by the patience of ``keep_best``,
    or if ``is_over`` is true for the metrics of all epochs. With ``resume`` the training must
    continue from the last checkpoint, which may be of other settings, data or code. Its epochs, and
    those of another machine's checkpoint, are logged again so that the curves are complete. If
    ``run.world`` processes train together, each calls this function, and number 0 writes the
    checkpoints, which hold nothing of the number of processes. Raises :class:`DivergedError` if the
    loss is not finite or more than half of an epoch's updates were skipped as spikes, and
    :class:`OutOfMemoryError` with the batch size to try; both keep the last checkpoint. Raises
    :class:`checkpoint.CheckpointError` if ``resume`` is not possible, and ``WorldError`` if the
    processes are not those of ``run``."""
    check_world(run.world)
    if run.world > 1 and batches.batch_size % devices():
        raise ValueError(
            f"batch_size = {batches.batch_size} cannot be split over {devices()} devices: set a"
            f" multiple of {devices()}"
        )
    batches.split(run.rank, run.world)
    # TensorFlow traces a step twice if it creates variables
    model.optimizer.build(model.trainable_variables)
    position = (
        checkpoint.resume(run.checkpoints, model)
        if resume
        else checkpoint.restore(run.checkpoints, model, run.fingerprint)
    )
    is_over = is_over or (keep_best.is_over if keep_best else _never)
    over = position.epoch >= epochs or is_over(position.history)
    if resume and over:
        limit = "epochs" if position.epoch >= epochs else "patience"
        raise checkpoint.CheckpointError(
            f"the checkpoint in {run.checkpoints} is finished, at epoch {position.epoch}: raise"
            f" {limit} to continue"
        )
    if position.fingerprint != run.fingerprint or not position.logged:
        for i, figures in enumerate(position.history if run.rank == 0 else []):
            run.log(i + 1, figures)
        position = dataclasses.replace(position, fingerprint=run.fingerprint)
    if over:
        return position.history
    batches.start_at(position.epoch)
    keeper = _Keeper(batches, epochs, run, position, keep_best, is_over)
    try:
        model.fit(
            batches,
            epochs=epochs,
            initial_epoch=position.epoch,
            validation_data=validation,
            callbacks=[*callbacks, keeper],
            verbose=0,
            shuffle=False,  # the batches shuffle themselves, by seed and epoch
        )
    except Exception as e:
        if is_out_of_memory(e):
            smaller = max(1, batches.batch_size // 2)
            raise OutOfMemoryError(
                f"out of memory with batch_size = {batches.batch_size}: try batch_size = {smaller}"
            ) from e
        raise
    return keeper.history


class _Keeper(keras.callbacks.Callback):
    """Writes the checkpoint, the log and the progress of each epoch."""

    def __init__(
        self,
        batches: ArrayBatches,
        epochs: int,
        run: Run,
        position: checkpoint.Position,
        keep_best: KeepBest | None,
        is_over: Callable[[list[dict[str, float]]], bool],
    ) -> None:
        super().__init__()
        self._steps = len(batches)
        self._first = run.rank == 0
        self._folder = run.checkpoints
        self._fingerprint = position.fingerprint
        self._log = run.log
        self._progress = run.progress if self._first else None
        self._epoch = position.epoch
        self._keep_best, self._is_over = keep_best, is_over
        self.history = list(position.history)
        if self._progress:
            self._progress.total = epochs * self._steps
            self._show()

    # Not at the end of a batch: Keras would wait there for the loss of each before the next begins.
    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if batch <= 1:
            keep_freed_memory()
        self._show(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # a metric that is not a number was not measured in this epoch
        figures = {
            k: float(v)
            for k, v in (logs or {}).items()
            if k.endswith("loss") or not math.isnan(float(v))
        }
        if not math.isfinite(figures["loss"]):
            raise DivergedError(
                f"the loss is {figures['loss']} in epoch {epoch + 1}: lower the learning rate; the"
                " last checkpoint is kept"
            )
        if hasattr(self.model.optimizer, "skipped"):
            # counted since the beginning of the training
            figures["skipped_updates"] = float(
                keras.ops.convert_to_numpy(self.model.optimizer.skipped)
            )
            now = figures["skipped_updates"] - (
                self.history[-1]["skipped_updates"] if self.history else 0.0
            )
            if now > self._steps / 2:
                skipped = f"{now:.0f} of {self._steps} updates of epoch {epoch + 1} were spikes"
                raise DivergedError(
                    f"{skipped}: lower the learning rate; the last checkpoint is kept"
                )
        self._epoch = epoch + 1
        self.history.append(figures)
        if self._first:
            self._keep(figures)
        if self._is_over(self.history):
            self.model.stop_training = True
            if self._progress:
                self._progress.total = self._epoch * self._steps
        self._show()

    def _show(self, batches: int = 0) -> None:
        """Report the progress, ``batches`` into an epoch, with the loss of the epoch before."""
        if self._progress:
            shown = {"loss": self.history[-1]["loss"]} if self.history else {}
            self._progress.update(self._epoch * self._steps + batches, **shown)

    def _keep(self, figures: dict[str, float]) -> None:
        best = self._keep_best
        if best and best.best(self.history) == self._epoch:
            # before the checkpoint: a training killed in between repeats this epoch and keeps it
            # again
            best.keep()
        checkpoint.save(
            self._folder,
            self.model,
            checkpoint.Position(self._epoch, self.history, self._fingerprint),
        )
        self._log(self._epoch, figures)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        split_batches(False)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        split_batches(True)


def _never(history: list[dict[str, float]]) -> bool:
    return False
