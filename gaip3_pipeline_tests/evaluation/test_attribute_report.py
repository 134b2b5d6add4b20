"""The report of the five values, for predictions with known errors."""

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.attribute_report import (
    brightness_pairs,
    brightness_rows,
    error_rows,
    inputs_report,
    level_rows,
    levels_of,
    set_rows,
    uncertainty_rows,
    unseen_originals,
)
from gaip3_pipeline.imaging.transform import brighten, brightness_ratio
from gaip3_pipeline.metrics.intervals import bootstrap_interval
from gaip3_pipeline.metrics.regression import mean_absolute_error


def labels(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    value, deviation = rng.integers(0, 5, n) / 4, rng.uniform(0.02, 0.2, n)
    gender = np.where(np.arange(n) % 4 == 0, "male", "female")
    stems = [str(i) for i in range(n)]
    predicted = value + rng.normal(0, deviation)
    keys = [f"d2_{g}/{stem}" for g, stem in zip(gender, stems, strict=True)]
    columns = {
        "key": keys,
        "stem": stems,
        "gender": gender,
        "value": value,
        "predicted": predicted,
        "uncertainty": deviation,
    }
    return pd.DataFrame(columns)


def final(move: float = 0.0) -> pd.DataFrame:
    """Two originals of each set, with copies whose background follows the brightness and whose
    other values move by ``move``."""
    rows = []
    for key, value in (("d1/a", 0.2), ("d1/b", 0.4), ("d2_female/c", 0.5), ("d2_female/d", 0.9)):
        ratio = brightness_ratio(key.partition("/")[2])
        bright = brighten(np.array([round(255 * value)], np.uint8), ratio)[0] / 255
        for kind, background, other in (("resized", value, 0.5), ("augmented", bright, 0.5 + move)):
            values = {a: background if a == "background" else other for a in ATTRIBUTES}
            uncertain = {
                f"uncertainty_{a}": 0.1 if key.startswith("d2") else 0.3 for a in ATTRIBUTES
            }
            rows.append(
                {
                    "source": f"{kind}/x/{key.partition('/')[2]}.jpg",
                    "original": key,
                    **values,
                    **uncertain,
                }
            )
    return pd.DataFrame(rows)


def by_name(rows) -> dict:
    return {(part, figure): (value, low, high, n) for _, part, figure, value, low, high, n in rows}


def test_an_interval_holds_the_figure_repeats_itself_and_narrows_with_more_labels():
    few, many = labels(100), labels(1600)
    found = [
        bootstrap_interval(mean_absolute_error, t.predicted.to_numpy(), t.value.to_numpy())
        for t in (few, few, many)
    ]
    assert found[0] == found[1]
    assert (
        found[0][0]
        < mean_absolute_error(few.predicted.to_numpy(), few.value.to_numpy())
        < found[0][1]
    )
    assert np.diff(found[2]) < 0.5 * np.diff(found[0])


def test_an_interval_without_labels_is_nan():
    assert np.isnan(bootstrap_interval(mean_absolute_error, np.zeros(0), np.zeros(0))).all()


def test_errors_are_of_all_labels_and_of_each_sex():
    table = labels()
    table.loc[table.gender == "male", "predicted"] = table.value + 0.5
    found = by_name(error_rows("eyes", table))
    assert found["male", "mae"] == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 100)
    assert found["female", "mae"][3] == 300
    assert found["all", "mae"][0] == pytest.approx(np.abs(table.predicted - table.value).mean())


def test_each_level_has_its_mean_prediction_error_and_recall():
    table = pd.DataFrame({"value": [0.0, 0.0, 1.0, 1.0], "predicted": [0.1, 0.7, 0.9, 1.0]})
    found = by_name(level_rows("mouth", table))
    assert found["level 0", "mean_prediction"][0] == pytest.approx(0.4)
    assert found["level 0", "mae"][0] == pytest.approx(0.4)
    assert (
        found["level 0", "recall"][0],
        found["level 1", "recall"][0],
        found["level 1", "recall"][3],
    ) == (0.5, 1.0, 2)


def test_labels_of_many_values_are_grouped_by_the_nearest_quarter():
    assert list(levels_of(np.array([0.0, 0.3, 1.0]))) == [0.0, 0.3, 1.0]
    assert set(levels_of(np.linspace(0, 1, 101))) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_calibrated_deviations_hold_two_thirds_of_the_labels_and_grow_with_the_errors():
    honest = by_name(uncertainty_rows("eyes", labels(4000)))
    assert honest["all", "within_one"][0] == pytest.approx(0.683, abs=0.03)
    assert honest["all", "within_two"][0] == pytest.approx(0.954, abs=0.02)
    for i in range(1, 6):
        assert honest[f"deviation bin {i}", "rmse"][0] == pytest.approx(
            honest[f"deviation bin {i}", "deviation"][0], rel=0.12
        )
    timid = labels(4000).assign(uncertainty=lambda t: t.uncertainty / 4)
    assert by_name(uncertainty_rows("eyes", timid))["all", "within_one"][0] < 0.3


def test_the_sets_are_compared_by_their_originals_alone():
    found = by_name(set_rows("background", unseen_originals(final(), {})))
    assert found["d1", "mean"][0] == pytest.approx(0.3)
    assert found["d1 - d2", "mean"][0] == pytest.approx(0.3 - 0.7)
    assert found["d1 - d2", "mean_uncertainty"][0] == pytest.approx(0.2)
    assert found["d1", "mean"][3] == 2


def test_a_labelled_original_counts_with_its_out_of_fold_prediction():
    table = final()
    known = pd.DataFrame(
        {"key": ["d2_female/c", "d2_male/x"], "predicted": [0.6, 0.0], "uncertainty": [0.4, 0.9]}
    )
    unseen = unseen_originals(table, {"eyes": known}).set_index("original")
    assert list(unseen.index) == ["d1/a", "d1/b", "d2_female/c", "d2_female/d"]
    assert list(unseen.eyes) == [0.5, 0.5, 0.6, 0.5]
    assert list(unseen.uncertainty_eyes) == [0.3, 0.3, 0.4, 0.1]
    assert list(unseen.mouth) == [0.5] * 4  # labelled for eyes alone
    assert list(table.eyes) == [0.5] * 8


def test_a_background_that_follows_the_brightness_changes_as_the_transform_does():
    table = final(move=0.1)
    pairs = brightness_pairs(table, "background", [])
    assert len(pairs) == 4
    np.testing.assert_allclose(pairs.change, pairs["transform"], atol=1.5 / 255)
    assert (np.sign(pairs.change) == np.sign(pairs.ratio - 1)).all()
    found = by_name(brightness_rows("mouth", brightness_pairs(table, "mouth", [])))
    parts = {part for (part, _), (_, _, _, n) in found.items() if n}
    assert parts
    for part in parts:
        assert found[part, "mean_change"][0] == pytest.approx(0.1)
        assert (part, "transform") not in found


def test_pairs_that_the_model_was_trained_on_are_reported_separately():
    table = final(move=0.1)
    is_labelled = table.original.str.startswith("d2")
    # labelled pairs do not change, as if the model had been trained on them
    table.loc[is_labelled, "mouth"] = 0.5
    labelled = table.original[is_labelled].unique()
    found = by_name(brightness_rows("mouth", brightness_pairs(table, "mouth", labelled)))
    apart = {
        part: (value, n)
        for (part, figure), (value, _, _, n) in found.items()
        if figure == "mean_change" and n
    }
    assert sum(n for part, (_, n) in apart.items() if part.endswith(", labelled")) == 2
    for part, (value, _) in apart.items():
        assert value == pytest.approx(0.0 if part.endswith(", labelled") else 0.1)


def test_a_copy_without_its_original_is_no_pair():
    table = final()
    assert len(brightness_pairs(table[table.source != "resized/x/a.jpg"], "eyes", [])) == 3


def test_the_report_holds_each_figure_once_and_shows_the_worst_first():
    shown = []

    def load(sex: str, stem: str) -> np.ndarray:
        shown.append((sex, stem))
        return np.full((128, 104, 3), 90, np.uint8)

    tables = {a: labels(60, seed) for seed, a in enumerate(ATTRIBUTES)}
    tables["eyes"].loc[7, "predicted"] = tables["eyes"].value[7] + 3
    report = inputs_report(tables, final(), load)
    assert not report.table.duplicated(["attribute", "part", "figure"]).any()
    assert shown[0] == ("female", "7")
    assert {
        "predicted",
        "levels",
        "uncertainty",
        "sets",
        "brightness",
        *(f"worst_{a}" for a in ATTRIBUTES),
    } == set(report.pictures)
    assert (
        report.figures["r2_low_mouth"]
        < report.figures["r2_mouth"]
        < report.figures["r2_high_mouth"]
    )
    assert report.figures["n_head"] == 60
    assert report.figures["d1_minus_d2_mean_background"] == pytest.approx(-0.4)
