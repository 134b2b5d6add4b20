"""Candidates for pairs of one photograph among many pictures, without comparing all pairs.

Each of :data:`TABLES` random hashes puts pictures that look alike into one bucket
(locality-sensitive hashing by random hyperplanes, Charikar 2002); pictures that share no bucket are
never compared. The hashes see the directions in which different pictures differ most and moved
copies of one picture least (linear discriminants, Fisher 1936); the moved copies are made from a
sample of the pictures themselves. A hash has as many bits as leave :data:`MATES` pictures in a
bucket with each, so that time grows with the number of pictures and not with its square."""

from collections.abc import Callable, Iterator
from typing import Protocol

import cv2
import numpy as np

from gaip3_pipeline.imaging.mapping import in_order
from gaip3_pipeline.imaging.sheets import evenly

# The more pictures there are, the smaller is the share of them in a bucket. With buckets as small
# as those of a million pictures, 8 of 13,609 pairs of one photograph share none, with those of
# 16,873 pictures all share one (docs/experiments/0051).
TABLES, MATES = 64, 4
_DIRECTIONS = 24
_SAMPLE = 1500  # pictures from which the directions are computed
_MOVE, _STRETCH = 2.5, 0.05  # most pixels and share of the size by which their copies are moved
_RIDGE = 0.3  # of the mean variance between copies, since they differ in more ways than these
_BATCH = 4096  # pictures or pairs handled at once
_MOST_BITS = 40
_ROUND = 4  # hashes whose pairs are in memory at once

# of first, second (numbers of pictures) and mirrored: bool, and float32
Keep = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Likeness = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Greys(Protocol):
    """``(H, W) uint8`` grey pictures by number: an array, or pictures that are read when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> np.ndarray: ...


def block_sums(greys: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """``(N, h, w) uint8``, or such sums, to ``(N, *size) uint16``: sums of blocks; ``size`` must
    divide that of ``greys``, and a block may have 257 pixels."""
    n, (height, width), (rows, columns) = len(greys), greys.shape[1:], size
    blocks = greys.reshape(n, rows, height // rows, columns, width // columns)
    return blocks.sum(axis=(2, 4), dtype=np.uint16)


def standardised(sums: np.ndarray, pixels: int) -> np.ndarray:
    """:func:`block_sums` of blocks of ``pixels`` as ``float32`` means with zero mean and unit norm
    of each picture."""
    small = sums.astype(np.float32) / np.float32(pixels)
    small -= small.mean(axis=(1, 2), keepdims=True)
    return small / (np.linalg.norm(small, axis=(1, 2), keepdims=True) + 1e-6)


class Bands:
    """At least two pictures in buckets: ``sums (N, h, w) uint16`` of blocks of the ``greys``."""

    def __init__(self, sums: np.ndarray, greys: Greys, seed: int = 0) -> None:
        self.n = len(sums)
        self._random = np.random.default_rng(seed)
        pixels = greys[0].size // sums[0].size
        chosen = evenly(self.n, _SAMPLE)
        directions = self._directions(sums[chosen], [greys[i] for i in chosen.tolist()], pixels)
        # of the pictures, then of their mirror images
        self._places = np.empty((2 * self.n, _DIRECTIONS), np.float32)
        for start in range(0, self.n, _BATCH):
            small = standardised(sums[start : start + _BATCH], pixels)
            for at, turned in ((start, small), (self.n + start, small[:, :, ::-1])):
                flat = turned.reshape(len(small), -1)
                self._places[at : at + len(small)] = flat @ directions
        self._sample = np.concatenate([chosen, self.n + chosen])

    def pairs(
        self, keep: Keep, likeness: Likeness, least: float, most: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers ``first < second`` of the pictures of each candidate pair and whether one is
        mirrored; sorted.

        Kept are the pairs that ``keep`` keeps, which is called from several threads, whose
        ``likeness`` is at least ``least``, and which are among the ``most`` most alike ones of one
        of their two pictures. ``keep`` gets pairs in the order of ``first``. Both may get a pair
        more than once: to remember all pairs would take more memory than it saves time."""
        rotations = [self._rotation() for _ in range(TABLES)]
        bits = self._bits(rotations[0])
        codes, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for start in range(0, TABLES, _ROUND):
            some = rotations[start : start + _ROUND]
            kept = in_order(lambda r: self._kept(self._keys(r, bits), keep), some)
            more, alike = self._alike(_unique(np.concatenate(list(kept))), likeness, least)
            codes, at = np.unique(np.concatenate([codes, more]), return_index=True)
            values = np.concatenate([values, alike])[at]
            # what is not among the nearest of some pairs is not among those of more pairs
            near = nearest(*self._pairs_of(codes)[:2], values, most)
            codes, values = codes[near], values[near]
        return self._pairs_of(codes)

    def _alike(
        self, codes: np.ndarray, likeness: Likeness, least: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The codes of pairs with a likeness of at least ``least``, and their likeness."""
        found, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for start in range(0, len(codes), 64 * _BATCH):
            part = codes[start : start + 64 * _BATCH]
            alike = likeness(*self._pairs_of(part))
            found.append(part[alike >= least])
            values.append(alike[alike >= least])
        return np.concatenate(found), np.concatenate(values)

    def _pairs_of(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = (codes // (2 * self.n)).astype(np.int32)
        rest = codes - first * np.int64(2 * self.n)
        return first, (rest // 2).astype(np.int32), (rest % 2).astype(bool)

    def _directions(self, sums: np.ndarray, greys: list[np.ndarray], pixels: int) -> np.ndarray:
        """``(h * w, D) float32``: the directions that the hashes see."""
        plain = standardised(sums, pixels)
        copies = np.stack([_moved(grey, self._random) for grey in greys])
        change = standardised(block_sums(copies, sums.shape[1:]), pixels) - plain
        within = _second_moment(change)
        between = _second_moment(plain - (plain + plain[:, :, ::-1]).mean(axis=0) / 2)
        within += (_RIDGE * np.trace(within) / len(within) + 1e-9) * np.eye(len(within))
        inverse = np.linalg.inv(np.linalg.cholesky(within))
        ratios, vectors = np.linalg.eigh(inverse @ between @ inverse.T)
        last = slice(-1, -1 - _DIRECTIONS, -1)
        # between their full range and equal ranges, which finds most of the pairs farthest apart
        weights = np.maximum(ratios[last], 1e-9) ** -0.25
        return (inverse.T @ vectors[:, last] * weights).astype(np.float32)

    def _rotation(self) -> np.ndarray:
        """``(D, _MOST_BITS)``: the directions of a hash's bits, orthogonal in groups of D."""
        turns = [
            np.linalg.qr(self._random.standard_normal((_DIRECTIONS, _DIRECTIONS)))[0]
            for _ in range(-(-_MOST_BITS // _DIRECTIONS))
        ]
        return np.concatenate(turns, axis=1)[:, :_MOST_BITS].astype(np.float32)

    def _bits(self, rotation: np.ndarray) -> int:
        """The least number of bits with which a picture has at most ``MATES`` mates on average,
        not counting those that share all bits: they are copies, of which a set may have many."""
        keys = self._keys(rotation, _MOST_BITS)[: self.n]

        def pairs(bits: int) -> int:
            # the first bits are the low ones
            counts = np.unique(keys & ((1 << bits) - 1), return_counts=True)[1]
            return int((counts * (counts - 1)).sum())

        most = MATES * self.n + pairs(_MOST_BITS)
        return next(bits for bits in range(_MOST_BITS + 1) if pairs(bits) <= most)

    def _keys(self, rotation: np.ndarray, bits: int) -> np.ndarray:
        """``(2N,) int64``: the bucket of each picture and of each mirror image."""
        rotation = rotation[:, :bits]
        middle = np.median(self._places[self._sample] @ rotation, axis=0)
        powers = 1 << np.arange(bits, dtype=np.int64)
        keys = np.empty(len(self._places), np.int64)
        for start in range(0, len(keys), 16 * _BATCH):
            part = slice(start, start + 16 * _BATCH)
            keys[part] = (self._places[part] @ rotation > middle) @ powers
        return keys

    def _kept(self, keys: np.ndarray, keep: Keep) -> np.ndarray:
        """The codes of the pairs of one hash that ``keep`` keeps."""
        kept = [np.zeros(0, np.int64)]
        for first, second, mirrored in self._mates(keys):
            for start in range(0, len(first), 64 * _BATCH):
                part = slice(start, start + 64 * _BATCH)
                i, j, m = first[part], second[part], mirrored[part]
                good = keep(i, j, m)
                kept.append((i[good].astype(np.int64) * self.n + j[good]) * 2 + m[good])
        return _unique(np.concatenate(kept))

    def _mates(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The pairs of one bucket, many at a time; two mirror images are no pair."""
        order = np.argsort(keys, kind="stable").astype(np.int32)
        ranked = keys[order]
        at, step = np.arange(len(order)), 0
        while True:
            step += 1
            at = at[at + step < len(order)]
            at = at[ranked[at] == ranked[at + step]]
            if not len(at):
                return
            one, other = order[at], order[at + step]  # one < other, since the sort is stable
            mirrored = other >= self.n
            other = np.where(mirrored, other - self.n, other)
            good = (one < self.n) & (one != other)
            one, other = one[good], other[good]
            yield np.minimum(one, other), np.maximum(one, other), mirrored[good]


def nearest(first: np.ndarray, second: np.ndarray, likeness: np.ndarray, most: int) -> np.ndarray:
    """``(pairs,) bool``: whether a pair is among the ``most`` most alike ones of one of its two
    pictures."""
    of = np.concatenate([first, second])
    order = np.lexsort((-np.tile(likeness, 2), of))
    of, index = of[order], np.arange(len(of), dtype=np.int32)
    begins = np.maximum.accumulate(np.where(np.append(True, of[1:] != of[:-1]), index, 0))
    near = np.zeros(len(first), bool)
    near[order[index - begins < most] % max(1, len(first))] = True
    return near


def _unique(numbers: np.ndarray) -> np.ndarray:
    """``numbers`` sorted, each once; np.unique hashes them, which takes 50 times as long here."""
    numbers.sort()
    return numbers[np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]]


def _second_moment(pictures: np.ndarray) -> np.ndarray:
    """``(h * w, h * w)`` of ``pictures (N, h, w)`` and their mirror images."""
    both = np.concatenate([pictures, pictures[:, :, ::-1]]).reshape(2 * len(pictures), -1)
    both = both.astype(np.float64)
    return both.T @ both / len(both)


def _moved(grey: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy of a grey picture, moved and stretched at random."""
    height, width = grey.shape
    across, down = random.uniform(-_MOVE, _MOVE, 2)
    wider, taller = 1 + random.uniform(-_STRETCH, _STRETCH, 2)
    matrix = np.array(
        [
            [wider, 0, width / 2 * (1 - wider) + across],
            [0, taller, height / 2 * (1 - taller) + down],
        ]
    )
    return cv2.warpAffine(
        np.ascontiguousarray(grey), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
    )
