"""The HTML reports of a finished root in a browser, opened as files."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline_tests.web.browser import barriers, open_page

pytestmark = pytest.mark.browser
PAGES = ("report.html", "curation.html", "inputs.html")
# names that Korean texts keep, and numbers
KEPT = re.compile(r"[\d.x]+|D1|D2|ROC AUC|10k-images")


@pytest.fixture(scope="module")
def reports(browser: Browser, finished_root: DataRoot) -> Iterator[Page]:
    """A page that has opened the report, and that fails the test if it asks for anything beyond
    the files of the root."""
    with open_page(browser, 1440, 900, locale="en") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(finished_root.report.as_uri())
        yield page
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def visit(page: Page, name: str) -> None:
    """Open a report in English, whatever language was chosen before."""
    page.goto(f"{page.url.rpartition('/')[0]}/{name}")
    if page.locator("html").get_attribute("lang") == "ko":
        page.get_by_role("button", name="English").click()


def test_the_first_screen_tells_of_samples_sliders_checks_and_versions(reports, finished_root):
    visit(reports, "report.html")
    expect(reports.locator(".samples img")).to_have_count(
        min(12, read_figures(finished_root, "nvae_samples")["images"])
    )
    rows = reports.locator(".sliders tr")
    expect(rows).to_have_count(len(ATTRIBUTES))
    told = rows.nth(1).inner_text()
    assert re.search(
        r"mouth\s.*(follow the slider|follows the slider|is not controlled)", told, re.S
    )
    assert re.search(r"asked \d\.\d\d → \d\.\d\d, measured -?\d\.\d\d → -?\d\.\d\d", told)
    assert re.search(r"\d+ (of \d+ )?checks passed", reports.locator(".first").inner_text())
    tracking = tracking_of(finished_root, load(finished_root))
    [version] = tracking.versions("nvae_weights", "generator_evaluation")
    facts = reports.locator(".facts").inner_text()
    alias = "champion" if "champion" in version.aliases else "candidate"
    assert f"Generator version {version.number}, {alias}, trained 20" in facts
    registered = tracking.registered("nvae_weights", version.data_version)
    assert registered
    assert registered.commit[:9] in facts


def test_a_failed_check_is_told_with_its_meaning_and_leads_to_its_figures(reports):
    visit(reports, "report.html")
    # too few painted faces for any of the trained judges to be valid
    failed = reports.locator(".checks > li", has_text="fresh judges are valid")
    expect(failed).to_contain_text("do not use their figures")
    figures = reports.locator("#generator_evaluation table").first
    expect(figures).to_be_hidden()
    failed.get_by_role("link").click()
    expect(figures).to_be_visible()


def test_links_between_the_reports_lead_to_files(reports, finished_root):
    visit(reports, "report.html")
    links = reports.locator("main a[href]").evaluate_all("all => all.map(a => a.href)")
    files = [link for link in links if link.startswith("file:") and "#" not in link]
    assert {f.rpartition("/")[2] for f in files} == {"curation.html", "inputs.html", "control.csv"}
    assert all((finished_root.report.parent / f.rpartition("/")[2]).exists() for f in files)
    anchors = {link.partition("#")[2] for link in links if link.startswith("file:") and "#" in link}
    assert all(reports.locator(f"[id='{anchor}']").count() == 1 for anchor in anchors)


@pytest.mark.parametrize("name", PAGES)
def test_a_report_is_accessible_and_fits_a_phone_in_both_languages(reports, name):
    visit(reports, name)
    expect(reports).to_have_title(re.compile(r"^gaip3 \w"))
    expect(reports.locator("html")).to_have_attribute("lang", "en")
    assert barriers(reports) == []
    reports.get_by_role("button", name="한국어").click()
    expect(reports.locator("html")).to_have_attribute("lang", "ko")
    expect(reports).to_have_title(re.compile(r"[가-힣]"))
    reports.emulate_media(color_scheme="dark")
    assert barriers(reports) == []
    reports.emulate_media(color_scheme="light")
    reports.get_by_role("button", name="모두 펼치기").click()
    shown = reports.locator("h1, h2, h3, th, summary, figcaption, #open")
    texts = [t for t in shown.evaluate_all("all => all.map(e => e.innerText)") if t]
    assert [t for t in texts if not re.search(r"[가-힣]", t) and not KEPT.fullmatch(t)] == []
    reports.set_viewport_size({"width": 375, "height": 700})
    assert reports.evaluate("document.documentElement.scrollWidth") == 375
    reports.set_viewport_size({"width": 1440, "height": 900})
    reports.reload()  # the choice is kept
    expect(reports.locator("html")).to_have_attribute("lang", "ko")


def test_a_printed_report_is_light_and_leaves_out_what_is_folded(reports):
    visit(reports, "report.html")
    reports.emulate_media(media="print", color_scheme="dark")
    expect(reports.get_by_role("button")).to_have_count(0)
    expect(reports.locator(".samples")).to_be_visible()
    expect(reports.locator("summary", has_text="Images")).to_be_hidden()
    ink = reports.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(34, 34, 34)"
    reports.emulate_media(media="screen", color_scheme="light")
