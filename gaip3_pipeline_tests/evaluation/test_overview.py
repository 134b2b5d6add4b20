"""The first screen of the report: words for figures, and checks in the order of their weight."""

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline import checks
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.check_texts import CHECK_TEXTS
from gaip3_pipeline.evaluation.overview import Overview, Verdict, Version, first_screen
from gaip3_pipeline.evaluation.page import fold
from gaip3_pipeline.evaluation.wording import figure_words
from gaip3_pipeline.settings import Retouch, Settings


def a_jpeg(width: int = 52, height: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


def sweeps(follows: float = 1.0) -> pd.DataFrame:
    """Sweeps of two faces in which each value follows its slider with the slope ``follows`` and the
    mouth moves with the eyes."""
    rows = []
    for swept in ATTRIBUTES:
        for face in (0, 1):
            for asked in (0.1, 0.5, 0.9):
                row = {f"measured_{a}": 0.5 for a in ATTRIBUTES} | {
                    f"asked_{a}": asked if a == swept else 0.5 for a in ATTRIBUTES
                }
                row[f"measured_{swept}"] = 0.5 + follows * (asked - 0.5)
                if swept == "eyes":
                    row["measured_mouth"] = asked
                rows.append({"swept": swept, "face": face, **row})
    return pd.DataFrame(rows)


def an_overview(slope: float = 1.0, **evaluation: object) -> Overview:
    figures = {f"slope_{a}": slope for a in ATTRIBUTES} | {f"known_{a}": True for a in ATTRIBUTES}
    return Overview(
        figures={
            "generator_evaluation": figures | {"faces": 2} | evaluation,
            "final_dataset": {"files": 1387, "different_originals": 696},
            "nvae_weights": {"n_train": 1133},
            "nvae_samples": {"images": 64},
        },
        control=sweeps(slope),
        strips=a_jpeg(),
        samples=[a_jpeg()] * 12,
        verdicts=[],
        versions=[
            Version("nvae_weights", "2026-11-29 07:56 UTC", "3", ["candidate"], "e8df93d" * 5)
        ],
        made="2026-11-29 08:07 UTC",
        mlflow="http://127.0.0.1:5000/",
        dagster="http://127.0.0.1:3000",
    )


def english(page: str) -> str:
    """The text of a page in English."""
    return re.sub(r"<[^>]+>", "", re.sub(r'<span class="ko">.*?</span>', "", page))


@pytest.mark.parametrize(
    ("slope", "told"),
    [
        (1.0, "follows the slider"),
        (0.3, "follows the slider in part"),
        (0.0, "does not follow the slider"),
    ],
)
def test_a_slider_is_told_in_words_and_numbers(slope, told):
    shown = english(first_screen(an_overview(slope)))
    low, high = 0.5 - 0.4 * slope, 0.5 + 0.4 * slope
    assert (
        f"mouth0 closed … 1 open{told}asked 0.10 → 0.90, measured {low:.2f} → {high:.2f}" in shown
    )


def test_a_slider_names_the_values_that_move_too():
    shown = english(first_screen(an_overview()))
    assert shown.count("also moves") == 1
    assert "also moves mouth +0.80" in shown


def test_a_value_that_cannot_be_predicted_is_told_not_to_be_controlled():
    shown = english(first_screen(an_overview(known_head=False)))
    assert shown.count("is not controlled") == 1


def test_small_samples_are_enlarged_by_a_whole_factor_and_large_ones_are_not():
    small = an_overview()
    assert "64 × 52 pixels (height × width), shown at 2×." in english(first_screen(small))
    large = replace(small, samples=[a_jpeg(104, 128)])
    assert "128 × 104 pixels (height × width), shown at full size." in english(first_screen(large))


def test_figures_of_quality_are_left_out_where_a_small_root_lacks_them():
    assert "Fine detail" not in first_screen(an_overview())
    assert "Fine detail is 92 % as strong" in english(first_screen(an_overview(power_1=0.92)))


def test_the_figures_of_judges_that_failed_their_control_are_said_not_to_count():
    judges = {
        f"judge_{make}_{size}": 0.9
        for make in ("network", "regression")
        for size in ("full", "quarter")
    }
    overview = an_overview(**judges)
    doubt = "its figures do not count"
    assert doubt not in first_screen(overview)
    failed = [Verdict("generator_evaluation", "judges_count", False, "AUC 0.4 between halves")]
    assert doubt in first_screen(replace(overview, verdicts=failed))


def test_a_blocking_check_comes_first_and_stale_verdicts_do_not_count():
    verdicts = [
        Verdict("image_quality", "few_defects", False, "70 of 100 <flagged>"),
        Verdict("nvae_samples", "not_flat", False, "3 flat", blocking=True),
        Verdict("nvae_weights", "finite_likelihood", True, "4.7 bits/dim"),
        Verdict("detail_weights", "sharp", None),
    ]
    page = first_screen(replace(an_overview(), verdicts=verdicts))
    shown = english(page)
    assert "1 of 3 checks passed." in shown
    assert shown.index("Samples show something") < shown.index("Few defective photographs")
    assert "train the generator longer" in shown
    assert "70 of 100 &lt;flagged&gt;" in page
    assert "1 not run on the present data" in shown


def test_every_check_has_words_and_every_word_a_check():
    built = [
        *checks.build(Settings()),
        *checks.build(Settings(retouch=Retouch(method="noise_contrastive"))),
    ]
    keys = {(k.asset_key.to_user_string(), k.name) for of in built for k in of.check_keys}
    assert keys == set(CHECK_TEXTS)


def test_figures_that_differ_in_an_ending_are_columns_and_bounds_stand_with_their_figure():
    figures = {f"r2_{a}": 0.5 for a in ATTRIBUTES} | {f"r2_low_{a}": 0.4 for a in ATTRIBUTES}
    figures |= {f"r2_high_{a}": 0.6 for a in ATTRIBUTES}
    figures |= {"auc": 0.75, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0}
    page = fold({"Gender": [("gender_model", figures, {})]})
    assert page.count("0.5 [0.4, 0.6]") == len(ATTRIBUTES)
    assert page.count("R² (1: exact") == 1
    assert "0.9 [0.8, 1]" in page
    assert "_low" not in page


def test_a_figure_of_one_attribute_or_of_a_part_has_a_label_in_both_languages():
    assert figure_words("male_mae") == ("mean absolute error, men", "평균 절대 오차, 남성")
    assert figure_words("darker_transform_background")[0] == (
        "change by the transform, darker copy, background"
    )
    assert figure_words("a_new_figure") == ("a new figure", "a new figure")


def test_names_of_files_are_shown_as_they_are():
    page = fold({"Images": [("resized_d1", {"noted": ["male_seed_01.jpg", "<b>.jpg"]}, {})]})
    assert "male_seed_01.jpg<br>&lt;b&gt;.jpg" in page


def test_a_figure_that_is_no_number_does_not_break_a_table():
    page = fold({"Generator": [("nvae_weights", {"bits_per_dim": float(np.nan)}, {})]})
    assert "nan" in page
