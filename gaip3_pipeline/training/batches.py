"""Batches of arrays in an order that depends on the seed and the epoch only, so that a resumed
training gets the same batches."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

Arrays = Mapping[str, np.ndarray]
Transform = Callable[[dict[str, np.ndarray], np.random.Generator], Any]


class ArrayBatches(keras.utils.PyDataset):
    """Shuffled batches of equally long arrays, which may be memory maps.

    ``transform(batch, generator)`` converts the selected rows to the model's input (augmentation,
    scaling); the generator is seeded by (seed, epoch, batch). An incomplete last batch is dropped
    if ``shuffle``, else kept. ``steps`` is the number of batches of an epoch; None: one pass over
    the rows. Rows are drawn in proportion to ``weights (N,)``."""

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        seed: int,
        transform: Transform,
        *,
        shuffle: bool = True,
        steps: int | None = None,
        weights: np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        lengths = {len(a) for a in arrays.values()}
        if len(lengths) != 1:
            raise ValueError(
                f"arrays of different lengths: { {k: len(a) for k, a in arrays.items()} }"
            )
        self._arrays = arrays
        self._n = lengths.pop()
        if self._n == 0:
            raise ValueError("no examples to train on")
        self.batch_size = min(batch_size, self._n)
        self._seed = seed
        self._transform = transform
        self._shuffle = shuffle
        self._steps = steps
        self._rank, self._world = 0, 1
        self._thread = ThreadPoolExecutor(1, "batches")
        self._ahead: dict[tuple[int, int], Future[Any]] = {}  # the next batch by epoch and index
        self._weights = None
        if weights is not None and np.ptp(weights) > 0:
            self._weights = weights * self._n / weights.sum(dtype=np.float64)
        self.start_at(0)

    def split(self, rank: int, world: int) -> None:
        """Give only part ``rank`` of ``world`` of each batch, in order. Every part is drawn and
        transformed as in the whole batch."""
        self._rank, self._world = rank, world

    def start_at(self, epoch: int) -> None:
        """Set the order of rows to that of ``epoch``, counted from 0."""
        self._epoch = epoch
        generator = np.random.default_rng((self._seed, epoch))
        passes = 1 if self._steps is None else -(-self._steps * self.batch_size // self._n)
        self._order = (
            np.concatenate([self._pass(generator) for _ in range(passes)])
            if self._shuffle
            else np.arange(self._n)
        )

    def _pass(self, generator: np.random.Generator) -> np.ndarray:
        """The rows of one pass: each once, or as often as its weight, rounded up or down at
        random."""
        if self._weights is None:
            return generator.permutation(self._n)
        often = np.floor(self._weights + generator.random(self._n)).astype(int)
        return np.resize(generator.permutation(np.repeat(np.arange(self._n), often)), self._n)

    def on_epoch_end(self) -> None:
        self.start_at(self._epoch + 1)

    def __len__(self) -> int:
        if self._steps is not None:
            return self._steps
        return self._n // self.batch_size if self._shuffle else -(-self._n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        key = (self._epoch, index)
        ahead = self._ahead.pop(key, None)
        self._ahead.clear()
        batch = ahead.result() if ahead else self._batch(*key)
        if index + 1 < len(self):
            # in a thread, while the model uses this one
            self._ahead[self._epoch, index + 1] = self._thread.submit(
                self._batch, self._epoch, index + 1
            )
        return batch

    def _batch(self, epoch: int, index: int) -> Any:
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        generator = np.random.default_rng((self._seed, epoch, index))
        batch = self._transform(
            {k: np.asarray(a[rows]) for k, a in self._arrays.items()}, generator
        )
        if self._world == 1:
            return batch
        size = len(rows) // self._world
        own = slice(self._rank * size, (self._rank + 1) * size)
        return keras.tree.map_structure(lambda a: a[own], batch)
