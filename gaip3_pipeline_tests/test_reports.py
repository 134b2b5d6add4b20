"""The assets ``curation_report`` and ``inputs_report`` in a finished root: their pages, tables,
figures and checks."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.evaluation.attribute_report import TABLE_COLUMNS
from gaip3_pipeline.layout import out_of_fold
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import read_gender_probabilities, read_out_of_fold
from gaip3_pipeline.versions import AssetResult, keep, read_figures

PICTURE = re.compile(r'<img data-name="([^"]+)" [^>]*src="data:image/jpeg;base64,([^"]+)">')


def pictures_of(page) -> dict[str, tuple[int, int]]:
    """The size of each picture that a page carries."""
    found = PICTURE.findall(page.read_text(encoding="utf-8"))
    return {name: Image.open(io.BytesIO(base64.b64decode(data))).size for name, data in found}


def test_the_curation_page_contains_its_charts_and_sheets(finished_root):
    sizes = pictures_of(finished_root.curation_page)
    assert {"rule", "reliability", "scores", "brightness", "kept_above"} <= set(sizes)
    assert all(min(size) > 100 for size in sizes.values())
    page = finished_root.curation_page.read_text(encoding="utf-8")
    assert '<th scope="col"><span class="en">women found</span>' in page
    assert "http" not in page


def test_the_figures_of_the_curation_report_are_those_of_the_tables(finished_root):
    figures = read_figures(finished_root, "curation_report")
    scores = read_gender_probabilities(finished_root.gender_probabilities)
    female = scores.prob_female[scores.image_path.str.startswith("resized/female/")]
    rule = load(finished_root).final_dataset.threshold
    assert (figures["threshold"], figures["female_n"]) == (rule, len(female))
    assert figures["female_accepted"] == (female >= rule).sum()
    assert figures["female_recall"] == pytest.approx(
        read_figures(finished_root, "final_dataset")["female_recall"]
    )
    kept = (
        pd.read_parquet(finished_root.manifest("final_dataset"))
        .source.str.startswith("resized/female/")
        .sum()
    )
    assert figures["originals_kept_female"] == kept


def test_suspected_folders_are_listed_for_review(finished_root):
    table = pd.read_csv(finished_root.folder_review)
    assert list(table.columns) == ["path", "folder", "prob_female", "suspicion"]
    assert len(table) == read_figures(finished_root, "curation_report")["suspected"]
    assert (table.suspicion > 0.5).all()
    assert (np.diff(table.suspicion) <= 0).all()
    assert all((finished_root.path / p).exists() for p in table.path)
    assert [p.split("/")[1] for p in table.path] == list(table.folder)


def test_the_inputs_page_shows_every_attribute_and_its_table_is_long(finished_root):
    sizes = pictures_of(finished_root.inputs_page)
    assert {
        "predicted",
        "levels",
        "uncertainty",
        "sets",
        "brightness",
        *(f"worst_{a}" for a in ATTRIBUTES),
    } == set(sizes)
    table = pd.read_csv(finished_root.inputs_table)
    assert tuple(table.columns) == TABLE_COLUMNS
    figures = read_figures(finished_root, "inputs_report")
    for attribute in ATTRIBUTES:
        labels = read_out_of_fold(out_of_fold(finished_root.input_model(attribute)))
        row = table[
            (table.attribute == attribute) & (table.part == "all") & (table.figure == "mae")
        ].iloc[0]
        assert row.n == len(labels) == figures[f"n_{attribute}"]
        assert row.low < row.value < row.high
        assert (
            row.value
            == pytest.approx((labels.predicted - labels.value).abs().mean())
            == figures[f"mae_{attribute}"]
        )


@pytest.mark.parametrize(
    ("asset", "figure"),
    [("curation_report", "female_recall"), ("inputs_report", "within_one_eyes")],
)
def test_figures_and_every_picture_are_in_mlflow_and_in_the_report(finished_root, asset, figure):
    tracking = tracking_of(finished_root, load(finished_root))
    client = tracking.client()
    [run] = client.search_runs(
        [tracking.experiment(client)], f"tags.`gaip3.asset` = '{asset}'", max_results=9
    )
    assert run.data.metrics[f"final/{figure}"] == pytest.approx(
        read_figures(finished_root, asset)[figure]
    )
    kept = {a.path for a in client.list_artifacts(run.info.run_id)}
    page = finished_root.curation_page if asset == "curation_report" else finished_root.inputs_page
    shown = set(pictures_of(page))
    assert {page.name, *(f"{name}.jpg" for name in shown)} <= kept
    first, *others = PICTURE.findall(page.read_text(encoding="utf-8"))
    in_report = set(pictures_of(finished_root.report))
    assert {asset, *(f"{asset}.{name}" for name, _ in others)} <= in_report
    assert finished_root.picture(asset).read_bytes() == base64.b64decode(first[1])


def test_a_picture_that_is_no_longer_made_is_removed_from_the_report(root_copy):
    picture = root_copy.picture("curation_report").read_bytes()
    keep(
        root_copy,
        "curation_report",
        AssetResult("v", {}, picture, more={"males_accepted": picture}),
    )
    assert root_copy.picture("curation_report", "males_accepted") in root_copy.pictures(
        "curation_report"
    )
    keep(root_copy, "curation_report", AssetResult("v", {}, picture))
    assert root_copy.pictures("curation_report") == [root_copy.picture("curation_report")]
