"""Fresh samples are compared with held-out pictures and, to find copies, with training pictures."""

import numpy as np
import pytest

from gaip3_pipeline.evaluation.samples import (
    draw_fresh,
    evaluate_samples,
    nearest_sheet,
    whole_groups,
)
from gaip3_pipeline.models.nvae.model import build_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.settings import Samples, of_preset

SETTINGS = Samples(n=4, seed=3)
N = 40


@pytest.fixture(scope="module")
def model():
    built = build_nvae(of_preset("tiny").nvae)
    rng = np.random.default_rng(0)
    for w in built.trainable_weights:
        w.assign(w + 0.1 * rng.standard_normal(w.shape).astype(np.float32))
    return FaceGenerator(built)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (2 * N, 4, 4, 3)).repeat(16, axis=1).repeat(13, axis=2).astype(
        np.uint8
    ), rng.random((2 * N, 5))


def test_mirrored_copies_of_training_pictures_are_found(model, pictures):
    images, values = pictures
    learned = np.arange(2 * N) < N
    drawn, _ = draw_fresh(model, values.astype(np.float32), N // 2, SETTINGS)
    size = (drawn.shape[1], drawn.shape[2])
    copied = np.zeros((2 * N, *size, 3), np.uint8)
    copied[: N // 2] = drawn[:, :, ::-1]
    copied[N // 2 :] = images[: N + N // 2, : size[0], : size[1]]
    fresh = evaluate_samples(model, copied, values.astype(np.float32), learned, SETTINGS)
    assert fresh is not None
    assert fresh.figures["copying"] == 1.0
    assert fresh.figures["nearest_samples"] < 1e-3 < fresh.figures["nearest_real"]
    np.testing.assert_array_equal(fresh.nearest, fresh.images[: N // 2])
    assert nearest_sheet(fresh)[:2] == b"\xff\xd8"


def test_the_figures_have_baselines_and_there_are_none_without_held_out_pictures(model, pictures):
    images, values = pictures
    values = values.astype(np.float32)
    fresh = evaluate_samples(model, images, values, np.arange(2 * N) < N, SETTINGS)
    assert fresh is not None
    assert len(fresh.images) == len(fresh.plain) == N  # judges see all of them
    assert fresh.figures["fd_n"] == N // 2
    for name in ("fd_random", "kid_pixels", "swd", "coverage"):
        assert {f"{name}_samples", f"{name}_real"} <= set(fresh.figures)
    assert fresh.figures["fd_random_samples"] > fresh.figures["fd_random_real"]
    assert evaluate_samples(model, images, values, np.ones(2 * N, bool), SETTINGS) is None


def test_judges_see_all_twins_of_a_face_or_none_of_them():
    groups = np.repeat(np.arange(9), [1, 2, 3, 1, 2, 3, 1, 2, 3])
    rows = whole_groups(groups, 10, 0)
    assert 8 <= len(rows) <= 10
    assert set(groups[rows]).isdisjoint(np.delete(groups, rows))
    np.testing.assert_array_equal(whole_groups(groups, 18, 0), np.arange(18))
