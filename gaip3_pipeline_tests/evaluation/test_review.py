"""Planted wrong labels rank first, and the images to label next are unlabelled, varied and rare."""

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.evaluation.review import (
    choose_next,
    half_closed,
    look_wrong,
    rarity,
    review_labels,
    review_table,
)
from gaip3_pipeline.faces.painter import paint, random_face
from gaip3_pipeline.features.extractor import extract, learn_extractor

N, PLANTED = 120, 6


@pytest.fixture(scope="module")
def painted():
    """Features and exact values of painted faces, all different."""
    faces = [
        random_face(np.random.default_rng([5, i]), "female" if i % 2 else "male") for i in range(N)
    ]
    pictures = np.stack([paint(face, 128) for face in faces])
    return extract(learn_extractor(pictures)[0], [pictures]).astype(np.float32), faces


@pytest.mark.parametrize("attribute", ["background", "hair_color", "head"])
def test_planted_wrong_labels_rank_first(painted, attribute):
    features, faces = painted
    exact = np.array([getattr(face, attribute) for face in faces])
    values = np.round(exact * 4) / 4
    ends = np.flatnonzero(np.abs(exact - 0.5) > 0.3)[:PLANTED]
    values[ends] = 1 - values[ends]
    images = pd.DataFrame(
        {
            "gender": "female",
            "stem": [f"f_{i:03d}" for i in range(N)],
            "value": values,
            "bucket": np.arange(N) % 100,
        }
    )

    table = review_table(images, features, mirrored=attribute == "head")

    first = table.sort_values("suspicion", ascending=False).stem[:PLANTED]
    planted = {f"f_{i:03d}" for i in ends}
    assert len(planted & set(first)) >= PLANTED - 1
    assert list(table.columns) == [
        "gender",
        "stem",
        "value",
        "predicted",
        "uncertainty",
        "suspicion",
        "next",
    ]
    assert table.predicted.between(0, 1).all()
    assert table.suspicion.between(0, 1).all()
    assert table.next.isna().all()  # all are labelled


def test_images_without_a_label_are_ranked_from_1_and_not_suspected(painted):
    features, faces = painted
    values = np.array([face.background for face in faces])
    values[::3] = np.nan
    images = pd.DataFrame(
        {
            "gender": "male",
            "stem": [f"m_{i:03d}" for i in range(N)],
            "value": values,
            "bucket": np.arange(N) % 100,
        }
    )
    table = review_table(images, features, mirrored=False)
    unlabelled = table.value.isna()
    assert sorted(table.next.dropna()) == list(range(1, unlabelled.sum() + 1))
    assert (table.next.notna() == unlabelled).all()
    assert (table.suspicion.isna() == unlabelled).all()
    assert (table.uncertainty > 0).all()


def test_a_residual_is_compared_with_those_of_similar_predictions():
    rng = np.random.default_rng(1)
    predicted = np.repeat([0.1, 0.9], 100)
    values = np.clip(predicted + rng.normal(0, np.repeat([0.02, 0.2], 100)), 0, 1)
    # equally far off: unusual where labels agree, usual where they vary
    values[0], values[100] = 0.35, 0.65
    review = review_labels(values, predicted, np.ones(200))
    assert review.suspicion[0] > 3 * review.suspicion[100]
    assert review.deviation[0] < review.deviation[100]
    assert review.expected_wrong == pytest.approx(review.suspicion.sum())


def test_a_label_is_less_suspicious_where_the_model_is_uncertain():
    predicted, values, variance = np.full(100, 0.5), np.full(100, 0.5), np.ones(100)
    values[:50] += 0.1
    values[[0, 1]] = 0.9
    variance[1] = 4.0
    suspicion = review_labels(values, predicted, variance).suspicion
    assert suspicion[0] > suspicion[1]


def test_without_labels_there_is_nothing_to_review():
    with pytest.raises(ValueError, match="no labels"):
        review_labels(np.full(3, np.nan), np.zeros(3), np.ones(3))


def test_chosen_images_differ_from_one_another():
    at = np.array([0.0, 0.01, 0.02, 5.0, 5.01, 10.0])
    covariance = np.exp(-np.square(at[:, None] - at[None]))
    first = choose_next(covariance, 0.1, np.ones(6), 3)
    assert {round(at[i]) for i in first} == {0, 5, 10}


def test_an_image_like_many_others_comes_before_one_unlike_all():
    # two candidates, and three more images whose values are to be predicted
    at = np.array([0.0, 20.0, 0.3, -0.3, 0.2])
    covariance = np.exp(-np.square(at[:2, None] - at[None]))
    assert choose_next(covariance, 0.1, np.ones(2), 2).tolist() == [0, 1]


def test_images_of_rare_levels_come_first():
    values = np.r_[np.full(95, 1.0), np.full(5, 0.0)]
    weight = rarity(values, np.array([1.0, 0.5, 0.0]))
    assert weight[0] < weight[2] < weight[1]
    assert choose_next(np.eye(2), 0.1, weight[[0, 2]], 1).tolist() == [1]
    assert rarity(values, values).mean() == pytest.approx(1.0)


def test_no_more_are_chosen_than_there_are():
    assert choose_next(np.zeros((0, 4)), 0.1, np.zeros(0), 5).tolist() == []
    assert sorted(choose_next(np.eye(2), 0.1, np.ones(2), 5)) == [0, 1]


def test_images_whose_lids_are_least_open_come_first(painted):
    features, faces = painted
    opening, values = np.full(N, 0.3), np.array([face.eyes for face in faces])
    values[::3] = np.nan
    labelled = np.isfinite(values)
    # row 4 has a label, and row 12 is as open as most
    opening[[3, 4, 9, 12, 15]] = 0.15, 0.05, 0.1, 0.29, 0.2
    first = half_closed(opening, labelled)
    assert first.tolist() == [9, 3, 15]
    images = pd.DataFrame(
        {
            "gender": "male",
            "stem": [f"m_{i:03d}" for i in range(N)],
            "value": values,
            "bucket": np.arange(N) % 100,
        }
    )
    table = review_table(images, features, mirrored=False, first=first)
    assert table.set_index("next").stem[[1, 2, 3]].tolist() == ["m_009", "m_003", "m_015"]
    assert sorted(table.next.dropna()) == list(range(1, int((~labelled).sum()) + 1))


def test_as_many_labels_look_wrong_as_are_expected_to_be():
    suspicion = np.array([0.4, np.nan, 0.01, 0.3, 0.2, 0.9, 0.01])
    assert list(np.flatnonzero(look_wrong(suspicion))) == [0, 5]  # the sum is 1.82
    assert not look_wrong(np.array([0.01, np.nan, 0.02])).any()
    assert not look_wrong(np.array([])).any()
