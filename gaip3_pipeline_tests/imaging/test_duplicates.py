"""Near-duplicates and leaks are those that comparing all pairs finds, without comparing all."""

import itertools

import cv2
import numpy as np
import pytest

from gaip3_pipeline.evaluation.leakage import blurred_sums, leaks
from gaip3_pipeline.imaging import bands, duplicates
from gaip3_pipeline.imaging.bands import Bands, block_sums, nearest, standardised
from gaip3_pipeline.imaging.duplicates import (
    COARSE,
    GREY_SIZE,
    LEAST_CORRELATION,
    MOST_BITS,
    coarse_sums,
    correlation,
    near_duplicates,
    perceptual_hash,
    to_grey,
)
from gaip3_pipeline_tests.imaging.pictures import photograph

N, PLANTED = 300, 60


def moved(picture, across, down):
    matrix = np.array([[1, 0, across], [0, 1, down]], np.float64)
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)


WAYS = (
    lambda p: p,
    lambda p: moved(p, 2, 0),
    lambda p: moved(p, -1, 1),
    lambda p: (p * 0.6).astype(np.uint8),
    lambda p: p[:, ::-1],
    lambda p: moved(p[:, ::-1], 0, 2),
    lambda p: moved(p, 2, -2),
)


@pytest.fixture(scope="module")
def pictures():
    """Pictures ``(N + PLANTED, 128, 104, 3)``, of which the last ones are changed copies."""
    height, width = GREY_SIZE
    first = [np.asarray(photograph(seed, height, width)) for seed in range(N)]
    copies = [WAYS[i % len(WAYS)](first[i]) for i in range(PLANTED)]
    return np.stack([*first, *copies])


@pytest.fixture(scope="module")
def measured(pictures):
    greys = np.stack([to_grey(p) for p in pictures])
    return np.stack([perceptual_hash(p) for p in pictures]), greys


@pytest.fixture
def small_buckets(monkeypatch):
    """Buckets as small as those of many pictures."""
    monkeypatch.setattr(bands, "MATES", 0.25)


def pairs_by_comparing_all(hashes, greys):
    """The pairs, and the smallest difference of their hashes: all pairs, one after another."""
    bits = np.unpackbits(hashes, axis=2).astype(np.int32)
    found = {}
    for turned in (False, True):
        different = (bits[:, None, 0] != bits[None, :, int(turned)]).sum(axis=2)
        for i, j in np.argwhere(different <= MOST_BITS).tolist():
            if i < j:
                other = greys[j][:, ::-1] if turned else greys[j]
                likeness = correlation(greys[i], other)
                if likeness >= LEAST_CORRELATION and likeness > found.get((i, j), (0.0,))[0]:
                    found[i, j] = (likeness, int(different[i, j]), turned)
    return found


def test_near_duplicates_are_those_of_all_pairs(measured, small_buckets):
    hashes, greys = measured
    pairs = near_duplicates(hashes, coarse_sums(greys), greys)
    found = {(p.first, p.second): (p.correlation, p.bits, p.mirrored) for p in pairs}
    assert found == pairs_by_comparing_all(hashes, greys)
    assert {(i, N + i) for i in range(PLANTED)} <= found.keys()
    assert [(p.first, p.second) for p in pairs] == sorted(found)


def test_flat_pictures_are_not_aligned(monkeypatch):
    greys = np.repeat(np.arange(5, 255, 10, dtype=np.uint8), 2)[:, None, None]
    greys = np.broadcast_to(greys, (len(greys), *GREY_SIZE)).copy()
    hashes = np.zeros((len(greys), 2, 32), np.uint8)
    asked = []
    monkeypatch.setattr(duplicates, "correlation", lambda *both: asked.append(both) or 0.0)
    assert near_duplicates(hashes, coarse_sums(greys), greys) == []
    assert asked == []


def test_leaks_are_the_copies_on_another_side(measured, small_buckets):
    greys = measured[1]
    sides = np.array(["train"] * N + ["test", "train"] * (PLANTED // 2))
    found = {(i, j) for i, j, _ in leaks(blurred_sums(greys), greys, sides, most=1000)}
    assert found == {(i, N + i) for i in range(0, PLANTED, 2)}


def test_of_one_picture_or_none_nothing_is_a_duplicate(measured):
    hashes, greys = measured
    for n in (0, 1):
        assert near_duplicates(hashes[:n], coarse_sums(greys[:n]), greys[:n]) == []
        assert leaks(blurred_sums(greys[:n]), greys[:n], ["train"] * n) == []


def test_the_pairs_that_are_looked_at_grow_with_the_pictures_and_not_with_their_square():
    random = np.random.default_rng(0)
    height, width = GREY_SIZE
    greys = np.stack(
        [
            cv2.resize(random.integers(0, 256, (8, 7)).astype(np.uint8), (width, height))
            for _ in range(3000)
        ]
    )

    def looked_at(n):
        seen = []

        def none(first, second, mirrored):
            assert (first < second).all()
            seen.append(len(first))
            return np.zeros(len(first), bool)

        Bands(coarse_sums(greys[:n]), greys[:n]).pairs(none, lambda *_: np.zeros(0), 1.0, 1)
        return sum(seen)

    assert looked_at(3000) < 6 * looked_at(1000)  # the bits of a hash are whole numbers


def test_sums_of_blocks_give_standardised_means(measured):
    greys = measured[1][:5]
    plain = greys.astype(np.float64).reshape(5, 32, 4, 26, 4).mean(axis=(2, 4))
    plain -= plain.mean(axis=(1, 2), keepdims=True)
    plain /= np.linalg.norm(plain, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(standardised(block_sums(greys, COARSE), 16), plain, atol=1e-6)


def test_nearest_are_the_most_alike_of_either_picture():
    random = np.random.default_rng(0)
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    likeness = random.permutation(len(pairs)).astype(np.float32)
    near = nearest(pairs[:, 0], pairs[:, 1], likeness, 2)
    best = {
        i
        for picture in range(12)
        for i in sorted(np.flatnonzero((pairs == picture).any(axis=1)), key=lambda i: -likeness[i])[
            :2
        ]
    }
    assert set(np.flatnonzero(near)) == best
    assert not len(nearest(*np.zeros((2, 0), np.int32), np.zeros(0, np.float32), 2))


def test_pairs_are_the_nearest_of_all_pairs_of_all_hashes(measured):
    sums, greys = coarse_sums(measured[1]), measured[1]
    small = standardised(sums, 16)

    def likeness(first, second, mirrored):
        turned = np.where(mirrored[:, None, None], small[second][:, :, ::-1], small[second])
        return np.einsum("nhw,nhw->n", small[first], turned).round(1)  # many are equal

    def every(first, second, mirrored):
        return np.ones(len(first), bool)

    first, second, mirrored = Bands(sums, greys).pairs(every, likeness, 0.2, len(sums) ** 2)
    near = nearest(first, second, likeness(first, second, mirrored), 3)
    assert 0 < near.sum() < len(near) / 2
    found = np.array(Bands(sums, greys).pairs(every, likeness, 0.2, 3))
    np.testing.assert_array_equal(found, np.array([first, second, mirrored])[:, near])
