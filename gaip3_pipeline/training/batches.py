"""Batches of arrays in an order that depends on the seed and the epoch only, so that a resumed training sees the same ones."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

Arrays = Mapping[str, np.ndarray]
Transform = Callable[[dict[str, np.ndarray], np.random.Generator], Any]


class ArrayBatches(keras.utils.PyDataset):
    """Shuffled batches of equally long arrays, which may be memory maps.

    ``transform(batch, generator)`` turns the picked rows into what the model takes (augmentation, scaling); the generator
    is seeded by (seed, epoch, batch). An incomplete last batch is dropped while shuffling and kept otherwise.
    """

    def __init__(self, arrays: Arrays, batch_size: int, seed: int, transform: Transform, shuffle: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        lengths = {len(a) for a in arrays.values()}
        if len(lengths) != 1:
            raise ValueError(f"arrays of different lengths: { {k: len(a) for k, a in arrays.items()} }")
        self._arrays = arrays
        self._n = lengths.pop()
        if self._n == 0:
            raise ValueError("no examples to train on")
        self.batch_size = min(batch_size, self._n)
        self._seed = seed
        self._transform = transform
        self._shuffle = shuffle
        self.start_at(0)

    def start_at(self, epoch: int) -> None:
        """Go to the order of ``epoch``, counted from 0."""
        self._epoch = epoch
        self._order = np.random.default_rng((self._seed, epoch)).permutation(self._n) if self._shuffle else np.arange(self._n)

    def on_epoch_end(self) -> None:
        self.start_at(self._epoch + 1)

    def __len__(self) -> int:
        return self._n // self.batch_size if self._shuffle else -(-self._n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        generator = np.random.default_rng((self._seed, self._epoch, index))
        return self._transform({k: np.asarray(a[rows]) for k, a in self._arrays.items()}, generator)
