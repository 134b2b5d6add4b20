"""What the browser tests share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from gaip3_pipeline_tests.web.browser import chromium_browser


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser with a fresh profile for the tests of one file."""
    with chromium_browser(chromium) as browser:
        yield browser
