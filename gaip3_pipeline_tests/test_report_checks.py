"""The checks of the two reports: figures that pass and fail, the messages, and that none is
blocking."""

import math

import dagster as dg
import pytest

from gaip3_pipeline import checks
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import build_defs
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Settings


def changes(**named):
    """Figures of an inputs report in which no value changes, apart from those named."""
    return {
        f"{part}_mean_change_{a}": 0.0 for part in ("darker", "brighter") for a in ATTRIBUTES
    } | named


def within(one=0.68, two=0.95, **named):
    return {
        f"within_{k}_{a}": share for k, share in (("one", one), ("two", two)) for a in ATTRIBUTES
    } | named


def test_the_checks_of_the_reports_are_not_blocking(tmp_path):
    graph = build_defs(DataRoot(tmp_path), Settings()).resolve_asset_graph()
    of_reports = {
        k.name: graph.get(k).blocking
        for a in ("curation_report", "inputs_report")
        for k in graph.get(dg.AssetKey(a)).check_keys
    }
    assert of_reports == {
        "few_suspected": False,
        "steady_under_brightness": False,
        "honest_uncertainty": False,
    }


@pytest.mark.parametrize(("suspected", "passes"), [(20, True), (21, False)])
def test_one_suspected_picture_in_fifty_passes_and_the_list_is_named(tmp_path, suspected, passes):
    passed, summary = checks._few_suspected(
        DataRoot(tmp_path), {"suspected": suspected, "n": 1000, "suspected_share": suspected / 1000}
    )
    assert passed is passes
    assert f"{suspected} of 1,000" in summary
    assert "review/folders.csv" in summary


@pytest.mark.parametrize("moved", ["darker_mean_change_hair_color", "brighter_mean_change_mouth"])
def test_a_value_that_brightness_changes_in_either_direction_fails_and_is_named(tmp_path, moved):
    root = DataRoot(tmp_path)
    assert checks._steady(root, changes())[0]
    assert checks._steady(root, changes(**{moved: -0.019}))[0]
    passed, summary = checks._steady(root, changes(**{moved: -0.03}))
    assert not passed
    assert f"{moved.partition('change_')[2]} 0.030" in summary


def test_a_background_may_change_with_the_brightness(tmp_path):
    assert checks._steady(
        DataRoot(tmp_path),
        changes(darker_mean_change_background=-0.05, brighter_mean_change_background=0.05),
    )[0]


def test_a_value_without_any_pair_fails(tmp_path):
    root = DataRoot(tmp_path)
    assert checks._steady(root, changes(darker_mean_change_eyes=math.nan))[0]
    assert not checks._steady(
        root, changes(darker_mean_change_eyes=math.nan, brighter_mean_change_eyes=0.03)
    )[0]
    passed, summary = checks._steady(
        root, changes(darker_mean_change_eyes=math.nan, brighter_mean_change_eyes=math.nan)
    )
    assert not passed
    assert "eyes nan" in summary


@pytest.mark.parametrize(
    "figures",
    [within(within_one_head=0.4), within(within_one_head=0.95), within(within_two_head=0.8)],
)
def test_an_uncertainty_too_small_or_too_large_fails(tmp_path, figures):
    root = DataRoot(tmp_path)
    assert checks._honest(root, within())[0]
    passed, summary = checks._honest(root, figures)
    assert not passed
    assert f"head {figures['within_one_head']:.0%} and {figures['within_two_head']:.0%}" in summary
