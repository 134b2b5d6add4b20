"""The asset ``label_review`` in a finished root: its tables, and that only what changed is computed
again."""

import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.contracts import read_label_review
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline_tests.refreshing import plan_of, refresh_root


def relabel(root: DataRoot, attribute: str, rows: list[int]) -> pd.DataFrame:
    path = root.hand_labels(attribute)
    table = pd.read_csv(path, dtype=str)
    table.loc[rows, "value"] = [f"{1 - float(v):g}" for v in table.value[rows]]
    table.to_csv(path, index=False, lineterminator="\n")
    return table.loc[rows]


def test_every_original_of_the_labelled_sets_has_a_row_in_each_table(finished_root):
    expected = sorted(
        (sex, p.stem)
        for sex in ("female", "male")
        for p in (finished_root.path / "resized" / sex).glob("*.jpg")
    )
    for attribute in ATTRIBUTES:
        table = read_label_review(finished_root.label_review(attribute))
        assert list(zip(table.gender, table.stem, strict=True)) == expected
        labels = pd.read_csv(finished_root.checked_labels(attribute))
        assert table.value.notna().sum() == table.suspicion.notna().sum() == len(labels)
        np.testing.assert_allclose(table.value.sum(), labels.value.sum())
    figures = read_figures(finished_root, "label_review")
    assert figures["r2_background"] > 0.5
    assert figures["n_mouth"] + figures["unlabelled_mouth"] == len(expected)
    assert finished_root.picture("label_review").exists()
    assert finished_root.picture("label_review", "eyes").exists()


def test_after_relabelling_only_the_review_of_that_attribute_is_made_again(root_copy):
    before = {a: root_copy.label_review(a).stat().st_mtime_ns for a in ATTRIBUTES}
    labels = pd.read_csv(root_copy.hand_labels("background"))
    extreme = list(labels.index[labels.value.isin([0.0, 1.0])][:2])
    wrong = relabel(root_copy, "background", extreme)

    assert refresh_root(root_copy, select=["label_review"]).materialized == [
        "labels_background",
        "label_review",
    ]

    after = {a: root_copy.label_review(a).stat().st_mtime_ns for a in ATTRIBUTES}
    assert {a for a in ATTRIBUTES if after[a] != before[a]} == {"background"}
    assert read_figures(root_copy, "label_review")["remade"] == ["background"]
    assert "label_review" not in {p.name for p in plan_of(root_copy)}
    table = read_label_review(root_copy.label_review("background")).sort_values(
        "suspicion", ascending=False
    )
    flipped = {p.rpartition("/")[2].partition(".")[0] for p in wrong.path}
    assert flipped <= set(table.stem[:8])


def test_a_table_that_was_lost_or_edited_is_made_again(root_copy):
    path = root_copy.label_review("head")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("female", "Female"), encoding="utf-8")
    root_copy.label_review("eyes").unlink()
    relabel(root_copy, "mouth", [0])
    refresh_root(root_copy, select=["label_review"])
    assert read_figures(root_copy, "label_review")["remade"] == ["eyes", "mouth", "head"]
    assert path.read_text(encoding="utf-8") == text


def test_lids_of_pictures_without_a_label_are_measured_once(root_copy, monkeypatch):

    from gaip3_pipeline.features import landmarks

    path = root_copy.hand_labels("eyes")
    table = pd.read_csv(path, dtype=str)
    table.iloc[10:].to_csv(path, index=False, lineterminator="\n")
    refresh_root(root_copy, select=["label_review"])
    kept = pd.read_csv(root_copy.lid_openings)
    assert len(kept) == read_figures(root_copy, "label_review")["unlabelled_eyes"]
    assert kept.opening.between(0.01, 1).all()
    looked_at = []
    measure = landmarks.find_parts
    monkeypatch.setattr(
        landmarks,
        "find_parts",
        lambda pictures: looked_at.append(len(pictures)) or measure(pictures),
    )
    table.iloc[12:].to_csv(path, index=False, lineterminator="\n")
    refresh_root(root_copy, select=["label_review"])
    assert sum(looked_at) == 2
