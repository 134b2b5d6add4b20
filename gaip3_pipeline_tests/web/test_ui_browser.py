"""``gaip3 ui`` in a real browser: what each page shows, and the relabelling loop through all
three of them."""

import json
import re
import signal
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from gaip3_pipeline import mlflow_pages
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.setup.fetch import count_images
from gaip3_pipeline_tests.refreshing import following
from gaip3_pipeline_tests.web.browser import fetch_json, open_page
from gaip3_pipeline_tests.web.processes import start, wait_for, wait_until_gone

pytestmark = pytest.mark.browser
PORTS = "'--port', '23600', '--mlflow-port', '23700', '--label-port', '23800'"
UI = (
    f"import sys\nfrom gaip3_pipeline.cli import main\nmain(['ui', '--root', sys.argv[1], {PORTS}])"
)


@dataclass
class Pages:
    """The served pages of a root on which the whole graph has run."""

    root: DataRoot
    labels: str
    dagster: str
    mlflow: str
    screenshots: Path

    def stale(self) -> set[str]:
        """The assets that Dagster shows as unsynced."""
        query = "{ assetNodes { assetKey { path } staleStatus } }"
        nodes = fetch_json(f"{self.dagster}/graphql", {"query": query})["data"]["assetNodes"]
        return {node["assetKey"]["path"][0] for node in nodes if node["staleStatus"] == "STALE"}

    def runs_of(self, asset: str) -> list[dict]:
        """The MLflow runs of an asset's trainings, newest first."""
        get = f"{self.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gaip3"
        experiment = fetch_json(get)["experiment"]["experiment_id"]
        question = {"experiment_ids": [experiment], "filter": f"tags.`gaip3.asset` = '{asset}'"}
        return fetch_json(f"{self.mlflow}/api/2.0/mlflow/runs/search", question)["runs"]


@pytest.fixture(scope="module")
def root(
    copy_finished_root: Callable[[Path], DataRoot], tmp_path_factory: pytest.TempPathFactory
) -> DataRoot:
    """A copy of the finished root, since its daemon observes while it is served."""
    return copy_finished_root(tmp_path_factory.mktemp("ui") / "얼굴 data")


@pytest.fixture(scope="module")
def pages(
    chromium: str, root: DataRoot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("screenshots")
    log = folder / "ui.log"
    process = start(UI, log, str(root.path))
    try:
        labels, _studio, dagster, mlflow = re.findall(
            r"http://127\.0\.0\.1:\d+", wait_for("Ctrl-C stops them.", log, process)
        )
        yield Pages(root, labels, dagster, mlflow, folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert wait_until_gone(root.path, seconds=0) == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


def test_the_graph_shows_every_group(pages: Pages, page: Page) -> None:
    nodes = fetch_json(f"{pages.dagster}/graphql", {"query": "{ assetNodes { groupName } }"})[
        "data"
    ]["assetNodes"]
    groups = {node["groupName"] for node in nodes}
    assert len(groups) >= 5
    page.goto(f"{pages.dagster}/asset-groups")
    for group in sorted(groups):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "graph.png")


@pytest.mark.parametrize("asset", ["resized_d2_female", "nvae_samples"])
def test_an_assets_page_shows_its_picture(pages: Pages, page: Page, asset: str) -> None:
    page.goto(f"{pages.dagster}/assets/{asset}")
    served = page.get_by_role("img", name=asset)  # by the label page
    expect(served).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 100", arg=served.element_handle())
    # the one stored with the materialisation; Dagster shows Markdown of less than 1,000 characters
    # only in its table
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img[src^='data:image/jpeg;base64']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    page.screenshot(path=pages.screenshots / f"{asset}.png")


def test_an_assets_page_shows_the_result_of_its_check(pages: Pages, page: Page) -> None:
    images = count_images(pages.root.processed("resized", IMAGE_SETS[1]))
    page.goto(f"{pages.dagster}/assets/resized_d2_female?view=checks")
    expect(page.get_by_text("usable", exact=True).first).to_be_visible()
    expect(page.get_by_text(f"{images} images, 0 unusable", exact=False).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "check.png")


def test_mlflow_shows_the_figures_of_a_training(pages: Pages, page: Page) -> None:
    [run] = pages.runs_of("nvae_weights")
    assert run["info"]["status"] == "FINISHED"
    page.goto(
        f"{pages.mlflow}/#/experiments/{run['info']['experiment_id']}/runs/{run['info']['run_id']}"
    )
    expect(page.get_by_text("nvae_weights").first).to_be_visible()
    expect(page.get_by_text("epoch/val_bits_per_dim", exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="nvae_weights in Dagster")).to_be_visible()
    page.screenshot(path=pages.screenshots / "mlflow.png")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("progress.jpg").first.click()
    filmstrip = page.locator("img[src*='progress.jpg'], img[src^='blob:']").first
    expect(filmstrip).to_be_visible()
    page.screenshot(path=pages.screenshots / "filmstrip.png")


@pytest.mark.skipif(not mlflow_pages.is_installed(), reason="make install registers the page")
def test_mlflow_shows_the_one_experiment_in_the_view_for_trainings(
    pages: Pages, page: Page
) -> None:
    page.goto(pages.mlflow)
    page.get_by_role("link", name="Experiments").first.click()
    page.get_by_role("link", name="gaip3", exact=True).first.click()
    expect(page.get_by_text("first run").first).to_be_visible()
    expect(page.get_by_role("link", name="Model registry").first).to_be_visible()
    expect(page.get_by_text("Evaluation runs")).to_have_count(0)
    page.screenshot(path=pages.screenshots / "experiment.png")


def test_labels_set_by_keyboard_are_refreshed_by_the_button_and_compared(
    pages: Pages, page: Page
) -> None:
    page.goto(pages.labels)
    page.get_by_role("tab", name="mouth", exact=True).click()
    page.locator("#show").select_option("labelled")
    expect(page.locator("#caption")).to_contain_text("1 of ")
    values = page.evaluate(
        "fetch('/api/labels/mouth').then((r) => r.json()).then((l) => l.columns.value.filter((v) =>"
        " v !== null))"
    )
    for value in values[:12]:
        page.keyboard.press("1" if value > 0.4 else "5")
    expect(page.locator("#saved")).to_have_text("saved")

    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("#summary")).to_contain_text("12 labels of mouth changed → up to")
    expect(page.locator("#summary")).to_contain_text("eyes, hair_color, background, head stay")
    page.get_by_label("generator from its last weights").check()
    page.screenshot(path=pages.screenshots / "plan.png")
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#assets .running").first).to_be_visible()
    expect(page).to_have_title(re.compile(r"^(\d+ %|…) · Refresh – "))
    page.screenshot(path=pages.screenshots / "running.png")
    expect(page.locator("#running")).to_be_hidden(timeout=400_000)
    expect(page.locator("#outcome")).to_contain_text("finished")
    expect(page.locator("#summary")).to_contain_text("Nothing is stale")
    assert pages.stale() == set()
    assets = read_records(pages.root)[0]["assets"]
    made = {name for name, asset in assets.items() if asset["state"] == "made"}
    expected = {"labels_mouth", "input_values_mouth", "nvae_weights", "retouched_samples", "report"}
    assert expected <= made <= following(pages.root, ["labels_mouth"])
    assert not {n for n in made if n.endswith(("eyes", "hair_color", "background", "head"))}

    result = page.locator(".result", has=page.get_by_role("heading", name="input_model_mouth"))
    expect(result.locator("table").first).to_contain_text("R²")
    for when in ("before", "after"):
        picture = result.get_by_alt_text(f"input_model_mouth {when}").first
        picture.scroll_into_view_if_needed()
        expect(picture).to_be_visible()
        page.wait_for_function(
            "image => image.complete && image.naturalWidth > 100", arg=picture.element_handle()
        )
    after, before = pages.runs_of("input_model_mouth")
    links = [link.get_attribute("href") or "" for link in result.get_by_role("link").all()]
    assert [link.rpartition("/")[2] for link in links] == [
        f"{run['info']['run_id']}?workflowType=machine_learning" for run in (before, after)
    ]
    page.screenshot(path=pages.screenshots / "result.png")
    starts = [
        tag["value"]
        for run in pages.runs_of("nvae_weights")
        for tag in run["data"]["tags"]
        if tag["key"] == "gaip3.start"
    ]
    assert starts == ["warm_start", "afresh"]


def test_mlflow_compares_the_runs_before_and_after(pages: Pages, page: Page) -> None:
    runs = pages.runs_of("input_model_mouth")
    assert len(runs) == 2
    names = [{m["key"] for m in run["data"]["metrics"]} for run in runs]
    assert names[0] == names[1]
    ids = urllib.parse.quote(json.dumps([run["info"]["run_id"] for run in runs]))
    experiments = urllib.parse.quote(json.dumps([runs[0]["info"]["experiment_id"]]))
    page.goto(f"{pages.mlflow}/#/compare-runs?runs={ids}&experiments={experiments}")
    expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
    for run in runs:
        expect(page.get_by_text(run["info"]["run_id"]).first).to_be_visible()
    expect(page.get_by_text("final/r2", exact=True).first).to_be_visible()  # chosen by MLflow
    expect(page.get_by_text("final/mae", exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "compare.png")


def test_the_job_refresh_makes_what_follows_and_the_timeline_shows_it(
    pages: Pages, page: Page
) -> None:
    with pages.root.hand_labels("eyes").open("a", encoding="utf-8") as file:
        file.write("female,0,resized/female/of another data set.jpg,1\n")  # the check leaves it out
    page.goto(f"{pages.dagster}/assets/labels_eyes")
    page.get_by_role("link", name="Refresh", exact=True).click()
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text("1 assets made in", exact=False).first).to_be_visible(timeout=120_000)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "job.png")
    page.goto(f"{pages.dagster}/overview/timeline")
    for job in ("refresh", "refresh_stage"):
        expect(page.locator(f"a[href$='/jobs/{job}']")).to_be_visible()
    page.screenshot(path=pages.screenshots / "timeline.png")


def test_an_edit_made_outside_shows_in_dagster_within_a_minute_and_materialize_unsynced_takes_it_up(
    pages: Pages, page: Page
) -> None:
    path = pages.root.hand_labels("head")
    table = pd.read_csv(path, dtype=str)
    table.loc[:5, "value"] = (1 - table.value[:6].astype(float)).astype(str)
    table.to_csv(path, index=False)
    edited = time.monotonic()
    while not pages.stale():
        assert time.monotonic() - edited < 60
        time.sleep(0.5)
    assert pages.stale() == {"labels_head"}
    page.goto(f"{pages.dagster}/assets/labels_head")
    expect(page.get_by_text("Unsynced (1)").first).to_be_visible()
    page.screenshot(path=pages.screenshots / "unsynced.png")

    page.goto(f"{pages.dagster}/asset-groups")
    button = page.get_by_role("button", name="Materialize all")
    expect(button).to_be_visible()
    button.locator("xpath=following::button[1]").click()
    page.get_by_text("Materialize unsynced").first.click()
    page.get_by_role("button", name="Materialize 1 assets").click()
    deadline = time.monotonic() + 120
    while "labels_head" in pages.stale():
        assert time.monotonic() < deadline
        time.sleep(1)
    assert (
        pages.root.checked_labels("head").read_text(encoding="utf-8").count("\n") == len(table) + 1
    )
    # the next layer, for the next click
    assert {"input_model_head", "evaluator_head"} <= pages.stale()
