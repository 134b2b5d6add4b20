"""Chromium as the browser tests use it."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
SECONDS = 60_000  # of Playwright, in milliseconds


@contextmanager
def chromium_browser(path: str) -> Iterator[Browser]:
    """A browser with a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: Browser, width: int = 2400, height: int = 1300, **options: object
) -> Iterator[Page]:
    """An empty page in a context of its own. An error of the page's own scripts fails the test."""
    expect.set_options(timeout=SECONDS)
    context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    context.set_default_timeout(SECONDS)
    # MLflow's assistant opens by itself over the page.
    context.add_init_script(
        "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
        "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
    )
    yield context.new_page()
    context.close()


def barriers(page: Page) -> list[str]:
    """What axe-core calls serious or critical on the page as it stands: one line for each element,
    with the rule and its selector. Contrast, names of controls, roles and languages are among its
    rules (https://dequeuniversity.com/rules/axe)."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {rule['help']} {node['any'][:1]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


# urllib keeps the proxies of its first request, also those of another test
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_json(url: str, body: dict | None = None) -> dict:
    """The answer to a GET, or to a POST of ``body``."""
    request = urllib.request.Request(
        url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
    )
    with WITHOUT_PROXY.open(request) as answer:
        return json.load(answer)
