"""``gaip3 ui`` in a real browser: the graph with its groups, an asset's picture and checks, MLflow's page."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Faces
from gaip3_pipeline_tests.web.processes import start, wait_for, wait_until_gone

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
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
    """The served pages of a root in which the resized pictures were made."""

    root: DataRoot
    dagster: str
    mlflow: str
    screenshots: Path

    def ask(self, query: str) -> dict:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.dagster}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    from gaip3_pipeline.faces.dataset import write_dataset
    from gaip3_pipeline.training.progress import Progress

    root = DataRoot(tmp_path_factory.mktemp("ui") / "얼굴 data")
    write_dataset(root, Faces(d1=6, female=6, male=6, size=128), Progress("painting", 1))
    command = [sys.executable, "-m", "gaip3_pipeline.cli", "refresh", "--root", str(root.path), "--select", "resized_d2_female"]
    subprocess.run(command, check=True, capture_output=True)
    return root


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
    nodes = pages.ask("{ assetNodes { groupName } }")["assetNodes"]
    groups = {node["groupName"] for node in nodes}
    assert len(groups) >= 5
    page.goto(f"{pages.dagster}/asset-groups")
    for group in sorted(groups):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "graph.png")


def test_an_assets_page_shows_its_contact_sheet_and_its_check(pages: Pages, page: Page) -> None:
    page.goto(f"{pages.dagster}/assets/resized_d2_female")
    page.get_by_text("[Show Markdown]").first.click()  # Dagster shows Markdown of less than 1,000 characters only in its table
    picture = page.locator("img[src^='data:image/jpeg;base64']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    page.screenshot(path=pages.screenshots / "asset.png")

    page.goto(f"{pages.dagster}/assets/resized_d2_female?view=checks")
    expect(page.get_by_text("usable", exact=True).first).to_be_visible()
    expect(page.get_by_text("6 images, 0 unusable", exact=False).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "check.png")


def test_mlflows_page_opens(pages: Pages, page: Page) -> None:
    page.goto(f"{pages.mlflow}/#/experiments")
    expect(page.get_by_text("Experiments").first).to_be_visible()
    expect(page.get_by_text("Default", exact=True).first).to_be_visible()
    page.screenshot(path=pages.screenshots / "mlflow.png")
