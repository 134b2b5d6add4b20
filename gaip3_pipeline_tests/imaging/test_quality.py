"""Pictures with defects are flagged, others are not, and the worst of each kind come first."""

from dataclasses import asdict

import cv2
import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.imaging.quality import ISSUES, measure, with_issues, worst
from gaip3_pipeline_tests.imaging.pictures import photograph

COUNT = 12


def pixels(seed: int) -> np.ndarray:
    return cv2.resize(np.asarray(photograph(seed)), (104, 128), interpolation=cv2.INTER_AREA)


def table_of(images: list[np.ndarray], sizes: list[tuple[int, int]] | None = None) -> pd.DataFrame:
    sizes = sizes or [(256, 256)] * len(images)
    return with_issues(
        pd.DataFrame([asdict(measure(x)) for x in images]).assign(
            width=[w for w, _ in sizes], height=[h for _, h in sizes]
        )
    )


SPOILT = {
    "blurry": lambda x: cv2.GaussianBlur(x, (0, 0), 3),
    "dark": lambda x: (x * 0.2).astype(np.uint8),
    "light": lambda x: (255 - (255 - x) * 0.2).astype(np.uint8),
    "flat": lambda x: (128 + (x - 128.0) * 0.2).astype(np.uint8),
    "grey": lambda x: np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_picture_is_flagged_and_its_neighbours_are_not(kind: str) -> None:
    images = [pixels(i) for i in range(COUNT)]
    assert (table_of(images).issues == "").all()
    images[5] = SPOILT[kind](images[5])
    table = table_of(images)
    assert kind in table.issues[5].split()
    assert (table.issues.drop(5) == "").all()
    [(row, caption), *_] = [(row, caption) for row, caption in worst(table, 3) if kind in caption]
    assert row == 5
    assert caption.startswith(f"{kind} ")


@pytest.mark.parametrize(
    ("size", "issues"),
    [((100, 100), "small"), ((400, 256), "odd_proportions"), ((90, 180), "small odd_proportions")],
)
def test_sizes_are_judged_by_those_of_the_original(size: tuple[int, int], issues: str) -> None:
    table = table_of([pixels(i) for i in range(COUNT)], [size, *[(256, 256)] * (COUNT - 1)])
    assert table.issues.to_list() == [issues, *[""] * (COUNT - 1)]


def test_blur_that_all_pictures_of_a_set_share_is_no_defect() -> None:
    assert (
        not table_of([SPOILT["blurry"](pixels(i)) for i in range(COUNT)])
        .issues.str.contains("blurry")
        .any()
    )


def test_a_small_difference_among_nearly_equal_pictures_is_no_defect() -> None:
    image = pixels(0)
    table = table_of([image] * COUNT + [cv2.GaussianBlur(image, (0, 0), 0.4)])
    assert table.sharpness.iloc[-1] < table.sharpness.iloc[0]
    assert (table.issues == "").all()


def test_the_worst_of_each_kind_come_in_order_and_values_without_defect_are_in_brackets() -> None:
    images = [pixels(i) for i in range(COUNT)]
    images[3] = SPOILT["dark"](images[3])
    shown = worst(table := table_of(images), 4)
    kinds = [caption.strip("()").split()[0] for _, caption in shown]
    # all have the same size, so the kinds of size are left out
    assert kinds == [name for name in ISSUES[:5] for _ in range(4)]
    darkest = [row for row, caption in shown if "dark" in caption]
    assert darkest == table.brightness.sort_values(kind="stable").index[:4].to_list()
    assert [caption.startswith("(") for _, caption in shown if "dark" in caption] == [
        False,
        True,
        True,
        True,
    ]


def test_a_set_of_no_picture_and_a_set_of_one_have_no_defects() -> None:
    assert (
        len(with_issues(table_of([pixels(0)]).iloc[:0].drop(columns=["blurriness", "issues"]))) == 0
    )
    assert table_of([pixels(0)]).issues.to_list() == [""]
    assert worst(table_of([pixels(0)]), 5) == []
