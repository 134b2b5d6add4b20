"""The label page in a real browser, at the size of the whole data set."""

import getpass
import json
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
from gaip3_pipeline.refresh.plan import CODE, NEVER, Forecast, Planned
from gaip3_pipeline.settings import Faces
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline_tests.web.browser import barriers, open_page
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
    expect(page).to_have_url(re.compile("02020"))
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


def test_keys_work_while_the_keyboard_writes_korean(root: DataRoot, page: Page) -> None:
    press = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', %s))"
    press %= "{ key, code, bubbles: true }"
    choose(page, "hair colour")
    for key in (["ㅎ", "KeyG"], ["Process", "KeyG"], ["ㅁ", "KeyA"]):
        page.evaluate(press, key)
    expect(page.locator("#meaning")).to_contain_text("background:")
    expect(page.locator("#single")).to_be_visible()


def test_a_key_held_down_labels_one_image(root: DataRoot, page: Page) -> None:
    choose(page, "hair colour")
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


def review(root: DataRoot, attribute: str, suspicion: dict[str, float]) -> None:
    """A review of the labels of an attribute."""
    values = labels_of(root, attribute)
    rows = [
        ("female", stem, value, 0.5, 0.1, suspicion.get(stem, 0.01), None)
        for stem, value in values.items()
    ]
    columns = ["gender", "stem", "value", "predicted", "uncertainty", "suspicion", "next"]
    root.label_review(attribute).parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(root.label_review(attribute), index=False)


def test_a_reload_and_a_link_lead_back_to_attribute_filter_and_picture(
    link: str, page: Page
) -> None:
    choose(page, "mouth")
    page.locator("#show").select_option("0.5")
    page.locator("#sex").select_option("female")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("z")
    caption = page.locator("#caption").inner_text()
    assert "4 of" in caption
    expect(page).to_have_url(re.compile("attribute=mouth.*zoom=1&picture="))
    page.get_by_role("link", name="Refresh").click()
    page.get_by_role("link", name="Label").click()
    expect(page).to_have_url(re.compile("attribute=mouth.*picture="))
    page.reload()
    expect(page.locator("#caption")).to_have_text(caption)
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
    page.goto(f"{link}#label?attribute=nonsense&show=nonsense&picture=female/nobody")
    expect(page.locator("#caption")).to_contain_text("of 16,873")
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "false")


def test_several_pictures_are_selected_and_labelled_at_once_and_undone_at_once(
    root: DataRoot, page: Page
) -> None:
    choose(page, "mouth")
    before = labels_of(root, "mouth")
    page.locator("#show").select_option("unlabelled")
    page.keyboard.press("g")
    page.keyboard.press("s")
    tiles = page.locator("#grid .tile")
    tiles.nth(1).click()
    tiles.nth(4).click(modifiers=["Shift"])
    tiles.nth(2).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator("#selected")).to_contain_text("4 selected")
    assert barriers(page) == []
    page.keyboard.press("2")
    expect(page.locator("#selected")).to_be_hidden()
    saved(page)
    added = {k: v for k, v in labels_of(root, "mouth").items() if k not in before}
    assert len(added) == 4
    assert set(added.values()) == {0.25}
    page.keyboard.press("u")
    expect(page.locator("#count")).to_contain_text(f"{len(before):,} of 16,873")
    saved(page)
    assert labels_of(root, "mouth") == before
    page.keyboard.press("Escape")
    tiles.nth(0).click(modifiers=["Control"])
    tiles.nth(2).click(modifiers=["Control"])
    expect(page.locator("#selected")).to_contain_text("2 selected")


def test_labels_that_look_wrong_are_counted_and_checked_until_none_is_left(
    root: DataRoot, page: Page
) -> None:
    path = root.hand_labels("head")
    kept = path.read_bytes() if path.exists() else None
    rows = [f"female,{i},resized/face {2 * i:05d}.jpg,1.0" for i in range(6)]
    path.write_text("gender,img_id,path,value\n" + "\n".join(rows) + "\n")
    review(root, "head", {"face 00004": 0.9, "face 00008": 0.8})
    choose(page, "head")
    page.get_by_role("button", name="2 look wrong").click()
    expect(page.locator("#caption")).to_contain_text("face 00004 · 1 of 2")
    expect(page.locator("#prediction")).to_contain_text("0.50 ± 0.10")
    page.keyboard.press("Enter")
    expect(page.locator("#wrong")).to_have_text("1 looks wrong")
    page.keyboard.press("3")
    expect(page.locator("#wrong")).to_have_text("none looks wrong")
    expect(page.locator("#toast")).to_have_text("All labels of head that looked wrong are checked.")
    saved(page)
    expect(page).to_have_url(re.compile("show=wrong"))  # the address follows three times a second
    page.reload()
    expect(page.locator("#picture")).to_contain_text("No label of head looks wrong.")
    root.label_review("head").unlink()
    if kept:
        path.write_bytes(kept)


def test_the_region_of_the_value_fills_the_picture_and_the_examples(page: Page) -> None:
    choose(page, "eyes")
    shape = "image => image.naturalWidth && image.naturalWidth / image.naturalHeight"
    picture, example = page.locator("#picture img"), page.locator("#levels img").first
    assert picture.evaluate(shape) < 1
    page.keyboard.press("z")
    expect(picture).to_have_attribute("src", re.compile("region/eyes"))
    for image in (picture, example):
        handle = image.element_handle()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=handle)
        assert image.evaluate(shape) == pytest.approx(2.2, rel=0.05)
    page.keyboard.press("e")
    expect(page.locator("#examples img")).to_have_count(5)
    assert barriers(page) == []
    page.keyboard.press("Escape")
    choose(page, "background")
    expect(picture).to_have_attribute("src", re.compile("large"))


# In the page: the words of its visible texts that have three or more Latin letters.
LATIN = """(root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = new Set();
    while (walker.nextNode()) {
        const { parentElement: parent, data } = walker.currentNode;
        if (parent.checkVisibility() || parent.matches("option"))
            for (const word of data.match(/[A-Za-z_]{3,}/g) ?? []) found.add(word);
    }
    return [...found];
}"""


def test_in_korean_no_english_is_left_but_names(browser: Browser, link: str) -> None:
    names = {getpass.getuser(), "face", "data", "gaip", "English"}
    keys = {"Enter", "Esc", "Shift", "Ctrl", "Page", "Up", "Down", "Home", "End"}
    with open_page(browser, 1280, 800, locale="ko-KR") as page:
        page.goto(link)
        expect(page.locator("#caption")).to_contain_text("face")
        assert page.locator("html").get_attribute("lang") == "ko"
        page.get_by_role("button", name="단축키").click()
        words = page.evaluate(LATIN, page.locator("body").element_handle())
        assert set(words) <= names | keys
        assert barriers(page) == []
        page.keyboard.press("Escape")
        page.emulate_media(color_scheme="dark")
        assert barriers(page) == []
        page.get_by_role("link", name="갱신").click()
        expect(page.locator("#summary")).to_contain_text("처음 만들 에셋")
        words = page.evaluate(LATIN, page.locator("#refresh").element_handle())
        assert {w for w in words if "_" not in w} <= {"report"}  # names of assets
        assert barriers(page) == []
        page.get_by_role("button", name="English").click()
        expect(page.locator("#summary")).to_contain_text("to make for the first time")
        assert page.locator("html").get_attribute("lang") == "en"


def test_plans_are_said_in_korean(page: Page) -> None:
    mouth = [
        Planned("labels_mouth", ["hand_labels_mouth changed"], True),
        Planned("input_model_mouth", ["after labels_mouth"], False),
    ]
    code = [Planned("nvae_weights", [CODE], True), Planned("critic_weights", [NEVER], True)]
    plans = [
        Forecast([], {}, {}),
        Forecast([Planned("report", [NEVER], True)], {}, {}),
        Forecast(mouth, {"mouth": 1234}, {p.name: 40.0 for p in mouth}),
        Forecast(code, {}, {"nvae_weights": 9000.0}),
        Forecast(code, {}, {"nvae_weights": 9000.0}, {"critic_weights": 1800.0}),
        Forecast([Planned("report", [NEVER], True)], {}, {}, {"report": 240.0}),
    ]
    said = page.evaluate(
        """async (texts) => {
            localStorage.language = "ko";
            const { said } = await import("/page/said.js?again");
            const { switchLanguage } = await import("/page/i18n.js");
            switchLanguage();
            const out = texts.map(said);
            switchLanguage();
            return out;
        }""",
        [p.summary for p in plans],
    )
    assert said == [
        "바뀐 것이 없어 만들 에셋이 없습니다.",
        "처음 만들 에셋 1개, 걸리는 시간은 아직 알 수 없음",
        "입 레이블 1,234개 변경 → 최대 에셋 2개, 지난번 기준 약 80초. 바뀌지 않음: 눈,"
        " 머리 색, 배경, 고개",
        "nvae_weights의 설정이나 코드 변경, 아직 만들지 않은 critic_weights → 에셋 2개,"
        " 지난번 기준 약 2.5시간, 걸리는 시간을 모르는 에셋 1개",
        "nvae_weights의 설정이나 코드 변경, 아직 만들지 않은 critic_weights → 에셋 2개,"
        " 지난번 기준 약 3.0시간, 그중 에셋 1개는 추정한 시간",
        "처음 만들 에셋 1개, 코어 2개 기준 추정 약 4분",
    ]


def test_results_of_a_first_run_have_no_columns_for_what_was_before(
    root: DataRoot, page: Page
) -> None:
    figures = [{"figure": "images", "before": None, "after": 600}]
    result = {"name": "resized_d1", "figures": figures, "pictures": []}
    record = {"refresh_id": "a", "state": "finished", "process": "", "message": "", "plan": []} | {
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:40+00:00",
        "summary": "1 asset to make for the first time, time not known yet",
        "assets": {"resized_d1": {"state": "made", "seconds": 100}},
        "results": [result | {"run_before": "", "run_after": ""}],
        "failed_checks": ["resized_d1: check usable failed: 3 of 600 unusable (Most are usable)"],
        "progress": None,
    }
    root.refreshes.mkdir(parents=True, exist_ok=True)
    (root.refreshes / "a.json").write_text(json.dumps(record))
    page.goto(page.url.partition("#")[0] + "#refresh")
    rows = page.locator(".result tr")
    expect(rows).to_have_text(["metricvalue", "images600"])
    expect(page.locator("#outcome")).to_contain_text("finished: 1 asset made in 2 min")
    page.get_by_text("✗ Photographs can be read · Cropped photographs: D1").click()
    expect(page.get_by_text("3 of 600 unusable (Most are usable)")).to_be_visible()
    expect(page.get_by_text("If it fails, convert, replace, drop")).to_be_visible()
    expect(page.locator(".result h3")).to_have_text("Cropped photographs: D1 resized_d1")
    assert barriers(page) == []
    page.locator("#language").click()
    expect(page.locator(".result h3")).to_have_text("자른 사진: D1 resized_d1")
    expect(rows).to_have_text(["지표값", "이미지600"])
    page.locator("#language").click()
    (root.refreshes / "a.json").unlink()


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
    choose(page, "hair colour")
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
