"""``gaip3 ui`` in a real browser: the graph with its groups, an asset's picture and checks, MLflow's page."""

import json
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.web.fetch import count_images
from gaip3_pipeline_tests.web.processes import start, wait_for, wait_until_gone

pytestmark = pytest.mark.browser
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
UI = "import sys\nfrom gaip3_pipeline.cli import main\nmain(['ui', '--root', sys.argv[1], '--port', '23600', '--mlflow-port', '23700'])"
SECONDS = 60_000  # of Playwright, in milliseconds


@dataclass
class Pages:
    """The served pages of a root on which the whole graph has run."""

    root: DataRoot
    dagster: str
    mlflow: str
    screenshots: Path


def fetch_json(url: str, body: dict | None = None) -> dict:
    """The answer to a GET, or to a POST of ``body``."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def root(finished_root: DataRoot, tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """A copy of the finished root, since its daemon observes while it is served."""
    return DataRoot(Path(shutil.copytree(finished_root.path, tmp_path_factory.mktemp("ui") / "얼굴 data")))


@pytest.fixture(scope="module")
def pages(chromium: str, root: DataRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("screenshots")
    log = folder / "ui.log"
    process = start(UI, log, str(root.path))
    try:
        dagster, mlflow = re.findall(r"http://127\.0\.0\.1:\d+", wait_for("Ctrl-C stops both.", log, process))
        yield Pages(root, dagster, mlflow, folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert wait_until_gone(root.path, seconds=0) == []


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    expect.set_options(timeout=SECONDS)
    context = browser.new_context(viewport={"width": 2400, "height": 1300})
    context.set_default_timeout(SECONDS)
    # MLflow's assistant opens by itself over the page.
    context.add_init_script(
        "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
        "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
    )
    yield context.new_page()
    context.close()


def test_the_graph_shows_every_group(pages: Pages, page: Page) -> None:
    nodes = fetch_json(f"{pages.dagster}/graphql", {"query": "{ assetNodes { groupName } }"})["data"]["assetNodes"]
    groups = {node["groupName"] for node in nodes}
    assert len(groups) >= 5
    page.goto(f"{pages.dagster}/asset-groups")
    for group in sorted(groups):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "graph.png")


@pytest.mark.parametrize("asset", ["resized_d2_female", "nvae_samples"])
def test_an_assets_page_shows_its_picture(pages: Pages, page: Page, asset: str) -> None:
    page.goto(f"{pages.dagster}/assets/{asset}")
    page.get_by_text("[Show Markdown]").first.click()  # Dagster shows Markdown of less than 1,000 characters only in its table
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
    get = f"{pages.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gaip3"
    experiment = fetch_json(get)["experiment"]["experiment_id"]
    question = {"experiment_ids": [experiment], "filter": "tags.`gaip3.asset` = 'nvae_weights'"}
    [run] = fetch_json(f"{pages.mlflow}/api/2.0/mlflow/runs/search", question)["runs"]
    assert run["info"]["status"] == "FINISHED"
    page.goto(f"{pages.mlflow}/#/experiments/{experiment}/runs/{run['info']['run_id']}")
    expect(page.get_by_text("nvae_weights").first).to_be_visible()
    expect(page.get_by_text("bits_per_dim", exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "mlflow.png")
