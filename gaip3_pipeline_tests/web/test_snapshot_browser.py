"""Two snapshots compared as pictures on the Refresh tab."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gaip3_pipeline.faces.dataset import portraits
from gaip3_pipeline.faces.writing import paint_files
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Faces
from gaip3_pipeline.setup.snapshots import take
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline_tests.web.browser import barriers, open_page
from gaip3_pipeline_tests.web.processes import free_port
from gaip3_pipeline_tests.web.test_label_page import serving

pytestmark = pytest.mark.browser


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """Eight painted women; between two snapshots two labels, three photographs and a setting
    changed. None is resized yet."""
    root = DataRoot(tmp_path / "얼굴")
    folder = root.original(IMAGE_SETS[1])
    folder.mkdir(parents=True)
    painted = portraits(Faces(d1=0, female=8, male=0))
    places = [folder / f"face {i}.jpg" for i in range(8)]
    list(paint_files([(path, p.face) for path, p in zip(places, painted, strict=True)], 256, 1))
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "face 1", 0.25)], "me")
    take(root, "before")
    store.apply([Edit("mouth", "female", "face 1", 1), Edit("eyes", "female", "face 2", 0.5)], "me")
    places[3].unlink()
    shutil.copy(places[4], folder / "new.jpg")
    os.replace(shutil.copy(places[6], folder / "another"), places[5])
    root.settings_file.write_text('preset = "tiny"\n[samples]\nn = 5\n', encoding="utf-8")
    take(root, "after")
    return root


@pytest.fixture
def link(root: DataRoot) -> Iterator[str]:
    with serving(root, "--port", str(free_port())) as (link, _):
        yield link


def shown(page: Page) -> list[str]:
    lines = page.locator("#differences").inner_text().splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_two_snapshots_are_compared_as_pictures(browser: Browser, link: str) -> None:
    errors: list[str] = []
    for width, height in ((1440, 900), (375, 812)):
        with open_page(browser, width, height) as page:
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(link + "#refresh")
            page.locator("#compared summary").click()
            expect(page.locator("#differences h3").first).to_be_visible()
            assert shown(page) == [
                "Labels changed: 2",
                "eyes none → 0.5", "female face 2",
                "mouth 0.25 → 1", "female face 1",
                "Photographs added: 1", "new.jpg",
                "Photographs gone: 1", "face 3.jpg",
                "Photographs replaced: 1", "before → after", "face 5.jpg",
                "Settings changed: 1", "setting before after", "samples.n none 5",
            ]  # fmt: skip
            page.locator("#differences").scroll_into_view_if_needed()
            pictures = page.locator("#differences img")
            first, second = [
                page.request.get(link.rstrip("/") + str(i.get_attribute("src"))).body()
                for i in page.locator("#differences img + img, #differences img:has(+ img)").all()
            ]
            assert first != second
            expect(pictures).to_have_count(6)
            for picture in pictures.all():
                picture.scroll_into_view_if_needed()
                loaded = "i => i.decode().then(() => i.naturalWidth > 50)"
                assert picture.evaluate(loaded)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert barriers(page) == []
            page.get_by_label("from this snapshot").select_option("after")
            expect(page.locator("#differences")).to_have_text(
                "No difference in photographs, labels and settings."
            )
            page.get_by_label("from this snapshot").select_option("before")
            page.locator("#language").click()
            expect(page.locator("#differences h3").first).to_have_text("바뀐 레이블: 2개")
            assert "입 0.25 → 1" in shown(page)
    assert errors == []


def test_a_picture_that_no_snapshot_has_is_not_there(browser: Browser, link: str) -> None:
    with open_page(browser) as page:
        for path in ("before/original/x.jpg", "before/gaip3.toml", "before/..%2F..%2Fgaip3.toml"):
            answer = page.request.get(f"{link.split('?')[0]}picture/snapshot/{path}")
            assert answer.status == 404
        assert page.request.get(f"{link.split('?')[0]}api/snapshots/before/none").status == 422
