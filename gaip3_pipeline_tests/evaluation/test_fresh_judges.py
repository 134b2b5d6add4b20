"""Fresh judges detect a difference, find none where there is none, and report when they are not
valid."""

import cv2
import numpy as np
import pytest

from gaip3_pipeline.evaluation import fresh_judges as fresh_judges_module
from gaip3_pipeline.evaluation.fresh_judges import (
    MAKES,
    SIZES,
    Network,
    Regression,
    described,
    fresh_judges,
    side_of,
    told_apart,
    unbelievable,
)
from gaip3_pipeline_tests.faces.portraits import painted

N = 60


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return painted(2 * N, seed=3)


def soft(pictures: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in pictures])


def test_both_makes_detect_soft_pictures_at_full_size_and_not_at_a_quarter(
    faces: np.ndarray,
) -> None:
    groups = np.arange(N)
    real, other = side_of(faces[:N], groups), side_of(soft(faces[:N], 1.2), groups)
    for make in (Network(), Regression()):
        full, quarter = (
            told_apart(real, other, make, d, 0) for d in (SIZES["full"], SIZES["quarter"])
        )
        assert full > 0.95
        assert quarter < full


def test_twins_are_never_on_both_sides_of_a_fold(faces: np.ndarray) -> None:
    # A judge that was trained on a twin could recognise the other: by memorising twins it would
    # separate two halves of the same pictures.
    twice = np.concatenate([faces[:N], faces[:N]])
    seen: list[tuple[set[int], set[int]]] = []
    names = np.tile(np.arange(N), 2)

    class Watching(Regression):
        def scores(
            self, given: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int
        ) -> np.ndarray:
            groups = np.concatenate([names, names])
            seen.extend(
                (set(groups[fold == f].tolist()), set(groups[fold != f].tolist()))
                for f in np.unique(fold)
            )
            return np.zeros(len(given))

    told_apart(side_of(twice, names), side_of(twice, names), Watching(), 4, 0)
    assert len(seen) == 5
    assert all(not held_out & learned for held_out, learned in seen)


def test_judges_that_detect_soft_samples_are_valid_and_failed_controls_are_named(
    faces: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SEEDS", "HALVINGS"):  # each is a training
        monkeypatch.setattr(fresh_judges_module, name, 2)
    drawn = soft(faces[N:], 0.9)
    figures = fresh_judges(faces[:N], np.arange(N), drawn, soft(faces[N:], 2.0))
    assert all(figures[f"judge_{make}_full"] > 0.9 for make in MAKES)
    assert all(figures[f"judge_{make}_tells_plain"] > 0.97 for make in MAKES)
    assert all(
        abs(figures[f"judge_{make}_nothing_{size}"] - 0.5) < 0.15
        for make in MAKES
        for size in SIZES
    )
    believable = figures | {f"judge_{make}_nothing_{size}": 0.5 for make in MAKES for size in SIZES}
    believable |= {f"judge_{make}_tells_blur": 0.95 for make in MAKES}
    assert unbelievable(believable) == []
    [reason] = unbelievable(believable | {"judge_network_tells_blur": 0.7})
    assert reason.startswith("network: AUC 0.700 of photographs blurred")
    assert (
        len(
            unbelievable(
                believable
                | {"judge_regression_nothing_half": 0.6, "judge_regression_tells_plain": np.nan}
            )
        )
        == 2
    )


def test_too_few_pictures_for_the_folds_are_refused(faces: np.ndarray) -> None:
    with pytest.raises(ValueError, match="too few"):
        told_apart(
            side_of(faces[:4], np.arange(4)),
            side_of(faces[4:8], np.arange(4, 8)),
            Regression(),
            1,
            0,
        )


def test_flat_pictures_are_judged_too(faces: np.ndarray) -> None:
    assert np.isfinite(described(np.zeros((3, 64, 52, 3), np.uint8))).all()
