"""The label page in a real browser, at the size of the whole data set."""

import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from gaip3_pipeline.faces.dataset import portraits
from gaip3_pipeline.faces.writing import paint_files
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Faces
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline_tests.web.browser import open_page
from gaip3_pipeline_tests.web.processes import free_port, start, wait_for
from gaip3_pipeline_tests.web.test_label_page import SERVE, serving

pytestmark = pytest.mark.browser
IMAGES = 16_873  # as many as the two public sets have

# In the page: for each press of a key, the milliseconds until the next picture is in place,
# decoded, in a frame that was drawn.
MEASURE = """async (presses) => {
    const picture = document.getElementById("picture"), times = [], loaded = [];
    const frame = () => new Promise(requestAnimationFrame);
    for (let i = 0; i < presses; i++) {
        const before = picture.firstChild.dataset.key, start = performance.now();
        const pressed = { key: "12345"[i % 5], bubbles: true };
        document.body.dispatchEvent(new KeyboardEvent("keydown", pressed));
        while (picture.firstChild.dataset?.key === before) await frame();
        loaded.push(picture.firstChild.complete && picture.firstChild.naturalWidth > 0);
        await picture.firstChild.decode();
        await frame();
        times.push(performance.now() - start);
        await new Promise((done) => setTimeout(done, 150));
    }
    return { times, loaded };
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """16,873 originals of known sex: forty painted pictures under as many names, labels of the
    first thousand women."""
    root = DataRoot(tmp_path_factory.mktemp("label") / "얼굴 data")
    painted = portraits(Faces(d1=0, female=40, male=0))
    sources = [root.path / f"{i}.jpg" for i in range(40)]
    list(paint_files([(path, p.face) for path, p in zip(sources, painted, strict=True)], 256, 1))
    for i in range(IMAGES):
        image_set = IMAGE_SETS[1 + i % 2]
        root.original(image_set).mkdir(parents=True, exist_ok=True)
        os.link(sources[i % 40], root.original(image_set) / f"face {i:05d}.jpg")
    path = root.hand_labels("mouth")
    path.parent.mkdir()
    rows = [f"female,{i},resized/face {2 * i:05d}.png,{i % 3 / 2},remark {i}" for i in range(1000)]
    path.write_text("gender,img_id,path,value,remark\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def link(chromium: str, root: DataRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "label.log"
    process = start(SERVE, log, str(root.path), "--port", "23900")
    try:
        [found] = re.findall(r"Label page: (\S+)", wait_for("Ctrl-C stops it.", log, process))
        yield found
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def page(browser: Browser, link: str) -> Iterator[Page]:
    errors: list[str] = []
    with open_page(browser, 1280, 800) as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(link)
        expect(page.locator("#picture img")).to_be_visible()
        yield page
    assert errors == []


def choose(page: Page, attribute: str) -> None:
    page.get_by_role("tab", name=attribute, exact=True).click()
    expect(page.locator("#meaning")).to_contain_text(f"{attribute}:")


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("saved")


def labels_of(root: DataRoot, attribute: str) -> dict[str, float]:
    table = read_labels(root.hand_labels(attribute)).table
    return dict(zip(table.stem, table.value, strict=True))


def test_ten_images_are_labelled_by_keyboard_and_are_in_the_csv_after_a_reload(
    root: DataRoot, page: Page
) -> None:
    before = pd.read_csv(root.hand_labels("mouth"), dtype=str)
    choose(page, "mouth")
    expect(page.locator("#caption")).to_contain_text("face 02000")  # the first one without a label
    for key in "1234512345":
        page.keyboard.press(key)
    expect(page.locator("#caption")).to_contain_text("face 02020")
    saved(page)
    page.reload()
    expect(page.locator("#count")).to_contain_text("1,010 of 16,873 labelled")
    expect(page.locator("#caption")).to_contain_text("face 02020")
    after = pd.read_csv(root.hand_labels("mouth"), dtype=str)
    pd.testing.assert_frame_equal(after[:1000], before)
    assert list(after.value[1000:].astype(float)) == [0, 0.25, 0.5, 0.75, 1] * 2
    assert list(after.path[1000:]) == [
        f"resized/female/face {2000 + 2 * i:05d}.jpg" for i in range(10)
    ]


def test_undo_goes_back_label_by_label_and_shows_the_image(root: DataRoot, page: Page) -> None:
    choose(page, "eyes")
    for key in "531":
        page.keyboard.press(key)
    page.keyboard.press("u")
    page.keyboard.press("u")
    expect(page.locator("#count")).to_contain_text("1 of 16,873")
    expect(page.locator("#caption")).to_contain_text("face 00002")
    assert labels_of(root, "eyes") == {"face 00000": 1.0}
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#history")).to_contain_text("none → 1")
    page.get_by_text("back to none").click()
    expect(page.locator("#count")).to_contain_text("0 of 16,873")
    assert labels_of(root, "eyes") == {}


def test_a_key_pressed_while_the_next_attribute_is_loading_labels_that_one(
    root: DataRoot, page: Page
) -> None:
    choose(page, "eyes")
    page.keyboard.press("a")
    page.keyboard.press("3")
    expect(page.locator("#meaning")).to_contain_text("mouth:")
    expect(page.locator("#caption")).to_contain_text("face 00002")
    saved(page)
    assert labels_of(root, "eyes") == {}
    assert labels_of(root, "mouth")["face 00000"] == 0.5
    page.keyboard.press("u")
    expect(page.locator("#count")).to_contain_text("of 16,873")


def test_a_key_held_down_labels_one_image(root: DataRoot, page: Page) -> None:
    choose(page, "hair color")
    for _ in range(4):
        page.keyboard.down("3")  # each but the first is a repeat
    page.keyboard.up("3")
    expect(page.locator("#caption")).to_contain_text("face 00002")
    saved(page)
    expect(page.locator("#count")).to_contain_text("1 of 16,873")
    page.keyboard.press("u")
    expect(page.locator("#count")).to_contain_text("0 of 16,873")


def test_the_grid_is_swept_with_the_mouse(root: DataRoot, page: Page) -> None:
    choose(page, "head")
    page.keyboard.press("g")
    page.locator("#levels button").nth(2).click()
    tiles = page.locator("#grid .tile")
    first, third = tiles.nth(0).bounding_box(), tiles.nth(2).bounding_box()
    assert first
    assert third
    page.mouse.move(first["x"] + 20, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(third["x"] + 20, third["y"] + 20, steps=20)
    page.mouse.up()
    expect(page.locator("#count")).to_contain_text("3 of 16,873")
    saved(page)
    assert labels_of(root, "head") == {f"face {2 * i:05d}": 0.5 for i in range(3)}
    page.screenshot(path=root.path.parent / "grid.png")


def test_filters_by_value_and_sex(root: DataRoot, page: Page) -> None:
    choose(page, "mouth")
    page.locator("#show").select_option("0.5")
    count = page.locator("#caption")
    expect(count).to_contain_text(
        f"1 of {sum(v == 0.5 for v in labels_of(root, 'mouth').values())}"
    )
    page.locator("#sex").select_option("male")
    expect(page.locator("#picture")).to_contain_text("No image matches these filters.")
    page.locator("#show").select_option("unlabelled")
    expect(count).to_contain_text("1 of 8,436")
    assert page.locator("#order option[value=suspicion]").is_disabled()  # there is no review yet


def test_two_tabs_lose_nothing_and_see_each_other(
    root: DataRoot, browser: Browser, link: str, page: Page
) -> None:
    choose(page, "background")
    with open_page(browser, 1280, 800) as other:
        other.goto(link)
        choose(other, "background")
        for i in range(6):
            (page if i % 2 else other).keyboard.press("4" if i % 2 else "2")
        for tab in (page, other):
            saved(tab)
        other.keyboard.press("End")
        other.keyboard.press("5")
        expect(page.locator("#histogram")).to_contain_text("1: 1")
    last = labels_of(root, "background")
    assert set(last) == {"face 00000", "face 00002", "face 00004", f"face {IMAGES - 2:05d}"}
    history = page.evaluate("fetch('/api/changes?since=0').then((r) => r.json())")["changes"]
    # what the later one overwrote is in the history
    assert len([c for c in history if c["attribute"] == "background"]) == 7


def test_labels_wait_while_the_server_is_away(page: Page) -> None:
    choose(page, "hair color")
    page.context.set_offline(True)
    page.keyboard.press("3")
    page.keyboard.press("4")
    expect(page.locator("#saved")).to_contain_text("not saved: 2, trying again")
    page.context.set_offline(False)
    saved(page)
    page.reload()
    expect(page.locator("#count")).to_contain_text("2 of 16,873")


def test_the_next_image_is_there_before_its_key_is_pressed(page: Page, record_property) -> None:
    choose(page, "eyes")
    page.wait_for_timeout(500)
    measured = page.evaluate(MEASURE, 100)
    times = sorted(measured["times"])
    p50, p95 = statistics.median(times), times[94]
    record_property(
        "next_image_ms", f"p50 {p50:.0f}, p95 {p95:.0f} of {len(times)} at {IMAGES:,} images"
    )
    print(f"next image: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    assert all(measured["loaded"])


def test_on_a_phone_labels_are_set_with_the_thumb(
    root: DataRoot, browser: Browser, link: str
) -> None:
    with open_page(
        browser, 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2
    ) as phone:
        phone.goto(link)
        choose(phone, "head")
        phone.locator("#levels button").nth(0).tap()
        saved(phone)
        width = phone.evaluate("document.documentElement.scrollWidth")
        box = phone.locator("#levels button").nth(4).bounding_box()
        assert width <= 390
        assert box
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844
        phone.screenshot(path=root.path.parent / "phone.png")
    assert 0.0 in labels_of(root, "head").values()


def test_names_that_look_like_html_or_an_address_are_shown_as_they_are(
    browser: Browser, tmp_path: Path
) -> None:
    names = ["<img src=x onerror=document.title='run'>", "50%25 #1?v=2&;\"'", "a"]
    root = DataRoot(tmp_path / "data")
    folder = root.original(IMAGE_SETS[1])
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (64, 64)).save(folder / f"{name}.jpg")
    with serving(root, "--port", str(free_port())) as (link, _), open_page(browser) as page:
        page.goto(link)
        choose(page, "mouth")
        title = page.title()
        for name in sorted(names):
            expect(page.locator("#caption")).to_contain_text(f"female {name} ·")
            picture = page.locator("#picture img")
            expect(picture).to_have_js_property("complete", True)
            expect(picture).to_have_js_property("naturalHeight", 64)
            page.keyboard.press("1")
            saved(page)
        page.keyboard.press("u")
        expect(page.locator("#count")).to_contain_text("2 of 3")
        expect(page.locator("#caption")).to_contain_text(f"female {max(names)} ·")
        assert page.title() == title
    assert set(labels_of(root, "mouth")) == set(sorted(names)[:2])
