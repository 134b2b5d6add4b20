"""Sharpness is measured per octave, and added noise is detected."""

import cv2
import numpy as np
import pytest

from gaip3_pipeline.metrics.sharpness import (
    GRID,
    OCTAVES,
    agreements,
    bands,
    kurtosis,
    noise_shares,
    sharpness_figures,
    shortcomings,
)
from gaip3_pipeline_tests.faces.portraits import painted

DRAWS = 4


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return painted(120)


def blurred(pictures: np.ndarray, sigma: float = 1.2) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in pictures])


def with_equal_power(soft: np.ndarray, sharp: np.ndarray, seed: int) -> np.ndarray:
    """``soft`` with Gaussian noise that gives its finest octave the power that ``sharp`` has
    there."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*soft.shape[:3], 1)).repeat(3, axis=3)
    lacking = (bands(sharp)[0] ** 2).mean() - (bands(soft)[0] ** 2).mean()
    scale = np.sqrt(lacking / (bands(128 + 20 * noise)[0] ** 2).mean()) * 20
    return np.clip(np.round(soft + scale * noise), 0, 255).astype(np.uint8)


def test_pictures_of_the_same_distribution_have_no_shortcomings(pictures: np.ndarray) -> None:
    mirrored = pictures[:, :, ::-1]
    figures = sharpness_figures(mirrored, pictures) | noise_shares(np.stack([mirrored] * DRAWS))
    assert shortcomings(figures) == []
    assert all(figures[f"noise_{k}"] == 0 for k in range(1, OCTAVES + 1))
    assert figures["grid"] < GRID
    halves = sharpness_figures(pictures[::2], pictures[1::2])
    assert all(
        halves[f"power_{k}_low"] < 1 < halves[f"power_{k}_high"] for k in range(1, OCTAVES + 1)
    )


def test_blur_reduces_the_finest_octave_most(pictures: np.ndarray) -> None:
    figures = sharpness_figures(blurred(pictures), pictures)
    assert figures["power_1"] < figures["power_2"] < figures["power_3"] < 1.01
    assert figures["power_1"] < 0.3
    assert agreements(blurred(pictures), pictures)["agreement_3"] > 0.95


def test_noise_of_equal_power_is_detected_by_every_measure_except_power(
    pictures: np.ndarray,
) -> None:
    soft = blurred(pictures)
    draws = np.stack([with_equal_power(soft, pictures, seed) for seed in range(DRAWS)])
    figures = sharpness_figures(draws[0], pictures) | noise_shares(draws)
    assert figures["power_1"] == pytest.approx(1.0, abs=0.05)
    assert figures["noise_1"] > 0.5
    assert figures["kurtosis_1"] < 0.8 * figures["kurtosis_1_real"]
    problems = "; ".join(shortcomings(figures, octaves=[1]))
    assert "kurtosis" in problems
    assert "is noise" in problems
    assert "power" not in problems
    assert agreements(draws[0], pictures)["agreement_1"] < agreements(soft, pictures)["agreement_1"]


def test_gaussian_noise_has_the_kurtosis_of_a_gaussian() -> None:
    assert kurtosis(np.random.default_rng(0).standard_normal((8, 64, 64))) == pytest.approx(
        3.0, abs=0.1
    )


def test_the_share_of_noise_is_the_share_of_power_that_differs_between_draws(
    pictures: np.ndarray,
) -> None:
    rng = np.random.default_rng(1)
    flat = np.full((6, 64, 52, 3), 128.0)
    only_noise = np.clip(flat + 10 * rng.standard_normal((DRAWS, 6, 64, 52, 1)), 0, 255).astype(
        np.uint8
    )
    assert noise_shares(only_noise)["noise_1"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("axis", ["rows", "columns", "both"])
def test_a_regular_texture_is_detected(pictures: np.ndarray, period: int, axis: str) -> None:
    rows, columns = (np.where(np.arange(n) % period < period // 2, 1, -1) for n in (64, 52))
    texture = {
        "rows": rows[:, None] + 0 * columns,
        "columns": columns + 0 * rows[:, None],
        "both": rows[:, None] * columns,
    }[axis]
    printed = np.clip(pictures.astype(int) + 4 * texture[None, :, :, None], 0, 255).astype(np.uint8)
    assert sharpness_figures(printed, pictures)["grid"] > GRID
    assert any(
        "has the same phase" in problem
        for problem in shortcomings(sharpness_figures(printed, pictures), octaves=[])
    )


def test_odd_sizes_have_bands_of_every_octave() -> None:
    shapes = [b.shape for b in bands(np.zeros((2, 19, 15, 3), np.uint8))]
    assert shapes == [(2, 19, 15), (2, 10, 8), (2, 5, 4)]
