"""The curation report, for images with known scores."""

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.evaluation.gender_report import (
    acceptance,
    brightness_figures,
    brightness_pairs,
    curation_report,
    kept_by_folder,
    rule_sheets,
    scored_images,
    suspected_folders,
)
from gaip3_pipeline.imaging.contact_sheet import MAX_BYTES
from gaip3_pipeline.imaging.transform import brightness_ratio
from gaip3_pipeline.metrics.intervals import wilson_interval

SCORES = {  # P(female) of originals in float32; a copy has a tenth of the odds
    "female/sure": 0.99999,
    "female/near": 0.999,
    "female/man": 0.01,
    "male/sure": 0.00001,
    "male/woman": 0.99995,
    "10k-images/woman": 0.99999,
    "10k-images/other": 0.3,
}


def probabilities() -> pd.DataFrame:
    rows = []
    for kind, factor in (("resized", 1.0), ("augmented", 0.1)):
        for name, female in SCORES.items():
            odds = factor * female / (1 - female)
            rows.append((f"{kind}/{name}.jpg", 1 / (1 + odds), odds / (1 + odds)))
    return pd.DataFrame(rows, columns=["image_path", "prob_male", "prob_female"])


def manifest() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": [
                "resized/female/sure.jpg",
                "augmented/female/sure.jpg",
                "resized/10k-images/woman.jpg",
            ]
        }
    )


def grey(path: str) -> np.ndarray:
    return np.full((128, 104, 3), 120, np.uint8)


def test_a_logit_is_right_where_the_probability_is_rounded_to_one():
    table = pd.DataFrame(
        {"image_path": ["resized/female/a.jpg"], "prob_male": [1e-12], "prob_female": [1.0]}
    )
    assert scored_images(table).logit.iloc[0] == pytest.approx(np.log(1e12))


def test_acceptance_counts_originals_of_each_folder_with_wilson_bounds():
    low, rule = acceptance(scored_images(probabilities()), [0.5, 0.9999])
    assert (low["female_accepted"], low["male_accepted"], low["d1_accepted"]) == (2, 1, 1)
    assert (rule["female_accepted"], rule["female_n"], rule["female_recall"]) == (
        1,
        3,
        pytest.approx(1 / 3),
    )
    assert (rule["male_accept_rate_low"], rule["male_accept_rate_high"]) == wilson_interval(1, 2)
    assert (rule["d1_accepted"], rule["d1_n"]) == (1, 2)


def test_what_is_kept_is_counted_by_folder_and_kind():
    kept = {
        row["folder"]: row for row in kept_by_folder(scored_images(probabilities()), manifest())
    }
    assert kept["female"] == {
        "folder": "female",
        "images": 3,
        "originals_kept": 1,
        "copies_kept": 1,
    }
    assert (kept["10k-images"]["originals_kept"], kept["10k-images"]["copies_kept"]) == (1, 0)
    assert kept["male"]["originals_kept"] == 0


def test_pictures_that_belong_in_the_other_folder_are_listed_most_suspicious_first():
    scored = scored_images(probabilities())
    labelled = scored[scored.is_original & (scored.folder != "10k-images")]
    listed = suspected_folders(labelled, temperature=2.0)
    assert list(listed.path) == ["resized/male/woman.jpg", "resized/female/man.jpg"]
    odds = np.sqrt(0.99995 / 0.00005)  # a temperature of 2 is the square root of the odds
    assert listed.suspicion.iloc[0] == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert listed.prob_female.iloc[1] == pytest.approx(0.01)


def test_a_copy_is_compared_with_its_original():
    pairs = brightness_pairs(scored_images(probabilities()), 0.9999)
    np.testing.assert_allclose(pairs.change, np.log(0.1))
    assert set(pairs.ratio[pairs.folder == "male"]) == {
        brightness_ratio("sure"),
        brightness_ratio("woman"),
    }
    figures = {row["folder"]: row for row in brightness_figures(pairs)}
    # .99999 has odds of 1e5, a tenth of which is 1e4: .9999; .99995 becomes .9995
    assert (
        figures["female"]["one_passes"],
        figures["male"]["one_passes"],
        figures["male"]["pairs"],
    ) == (0.0, 0.5, 2)


def test_each_accepted_male_is_shown_and_near_misses_are_next_to_the_threshold():
    scored, seen = scored_images(probabilities()), []
    sheets = rule_sheets(
        scored, manifest(), 0.9999, lambda path: (seen.append(path), grey(path))[1]
    )
    assert list(sheets) == ["females_below", "kept_above", "males_accepted", "males_below"]
    assert seen[:2] == ["resized/female/near.jpg", "resized/female/man.jpg"]
    assert "resized/male/woman.jpg" in seen
    assert "males_accepted" not in rule_sheets(
        scored[scored.stem != "woman"], manifest(), 0.9999, grey
    )


def test_many_accepted_males_are_each_shown_on_sheets_as_small_as_every_other():
    noise = np.random.default_rng(0).integers(0, 256, (128, 104, 3), dtype=np.uint8)
    names = [f"resized/male/{i:03}.jpg" for i in range(60)]
    accepted = pd.DataFrame({"image_path": names, "prob_male": 1e-5, "prob_female": 0.99999})
    seen = []
    sheets = rule_sheets(
        scored_images(accepted), manifest(), 0.9999, lambda path: (seen.append(path), noise)[1]
    )
    assert list(sheets) == ["males_accepted", "males_accepted_2", "males_accepted_3"]
    assert sorted(seen) == names
    assert max(map(len, sheets.values())) <= MAX_BYTES


def test_the_report_has_a_picture_of_each_kind_and_the_rule_among_its_thresholds():
    report = curation_report(probabilities(), manifest(), 0.9995, grey)
    assert {
        "rule",
        "females_below",
        "kept_above",
        "suspected_folders",
        "reliability",
        "scores",
        "brightness",
    } <= set(report.pictures)
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in report.pictures.values())
    assert report.figures["threshold"] == 0.9995
    assert [row["P(female) at least"] for row in report.figures["thresholds"]] == [
        "0.5",
        "0.9",
        "0.99",
        "0.999",
        "0.9995",
        "0.9999",
    ]
    assert report.figures["suspected"] == len(report.table) == 2
    assert report.figures["n"] == 5
