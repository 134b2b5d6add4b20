"""Control figures of sliders that are perfect, that have no effect, and that move another value
too."""

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.control import (
    STEPS,
    Sweeps,
    control_chart,
    control_figures,
    control_table,
    slopes,
    sweep_strips,
)
from gaip3_pipeline.versions import read_figures

FACES = 6
VALUES = np.linspace(0.0, 1.0, STEPS)


def sweeps_measured_as(measure):
    """Sweeps of grey pictures of six brightnesses; ``measure(asked)`` gives the evaluators'
    predictions."""
    rng = np.random.default_rng(0)
    asked = np.broadcast_to(rng.random((1, FACES, 1, 5)), (5, FACES, len(VALUES), 5)).copy()
    for i in range(5):
        asked[i, :, :, i] = VALUES
    images = (
        np.broadcast_to(
            rng.integers(0, 256, (1, FACES, 1, 1, 1, 1)), (5, FACES, len(VALUES), 64, 52, 3)
        )
        .astype(np.uint8)
        .copy()
    )
    # only the head changes the picture
    images[4] += (np.arange(len(VALUES)) * 8).astype(np.uint8)[None, :, None, None, None]
    positions = np.tile(VALUES, (5, 1)).astype(np.float32)
    return Sweeps(
        images, asked.astype(np.float32), positions, measure(asked).astype(np.float32), 1.0, 0.8
    )


def test_perfect_sliders_have_perfect_figures():
    sweeps = sweeps_measured_as(lambda asked: asked)
    figures = control_figures(sweeps)
    assert all(
        figures[f"{name}_{a}"] == pytest.approx(1.0)
        for name in ("spearman", "r2", "slope")
        for a in ATTRIBUTES
    )
    assert figures["leakage"] == pytest.approx(0.0, abs=1e-6)
    assert figures["drift_eyes"] == 0.0
    assert figures["drift_head"] > 0.0


def test_a_slider_that_does_nothing_has_no_slope_and_no_r2():
    figures = control_figures(
        sweeps_measured_as(lambda asked: np.where(np.arange(5) == 1, 0.5, asked))
    )
    assert figures["slope_mouth"] == pytest.approx(0.0, abs=1e-6)
    assert figures["r2_mouth"] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(figures["spearman_mouth"])
    assert figures["r2_eyes"] == pytest.approx(1.0)


def test_a_slider_that_moves_another_value_leaks():
    def leaky(asked):
        out = asked.copy()
        out[..., 3] -= 0.3 * asked[..., 2]
        return out

    matrix = slopes(sweeps_measured_as(leaky))
    assert matrix[2, 3] == pytest.approx(-0.3, abs=1e-6)
    np.testing.assert_allclose(np.diag(matrix), 1.0, atol=1e-6)
    assert control_figures(sweeps_measured_as(leaky))["leakage"] == pytest.approx(0.3, abs=1e-6)


def test_pictures_and_table_hold_every_sweep():
    sweeps = sweeps_measured_as(lambda asked: asked)
    for jpeg in (sweep_strips(sweeps), control_chart(sweeps, dict.fromkeys(ATTRIBUTES, 0.9))):
        assert jpeg[:2] == b"\xff\xd8"
        assert len(jpeg) <= 150_000
    table = control_table(sweeps)
    assert len(table) == 5 * FACES * len(VALUES)
    heads = table[(table.swept == "head") & (table.face == 3)]
    np.testing.assert_allclose(heads.asked_head, VALUES, atol=1e-4)


def test_a_finished_root_holds_the_sweeps_and_their_figures(finished_root):
    table = pd.read_csv(finished_root.control_table)
    figures = read_figures(finished_root, "generator_evaluation")
    assert len(table) == 5 * figures["faces"] * figures["steps"]
    swept = table[table.swept == "background"]
    slope = np.polyfit(swept.asked_background, swept.measured_background, 1)[0]
    assert slope == pytest.approx(figures["slope_background"], abs=1e-3)
    assert finished_root.picture("generator_evaluation").stat().st_size <= 100_000
