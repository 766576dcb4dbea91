"""report.html in a real browser: what a person finds there, on a desk and on a phone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rig.browser import PHONE, Browser, Page, Screen, browsing
from rig.chromium import chromium
from rig.command_line import run_flashsale
from rig.run_folders import (
    GONE,
    HOSTILE,
    LOST,
    SOLD,
    leave_run,
    record_of,
    sale_scenario,
    summary_of,
)
from rig.scripted_sale import Act, Claim, ScriptedSale, sell
from rig.until import until

from flashsale.report.files import write_reports
from flashsale.report.html import html
from flashsale.run.summary import Summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the browser may have to be fetched

SCENARIO = """# Do 40 units go to 40 of 400?
schema = 1
name = "tiny"
[sale]
units = 40
[load]
model = "stampede"
users = 400
connections = 50
[thresholds]
"buy.sold.count" = "== 40"
"""
CHARTS = [
    "stock",
    "outcomes",
    "spectrum",
    "overtime",
    "arrivals",
    "fairness",
    "rank",
    "lag",
    "health",
]
LEAVING = """[...document.querySelectorAll('h1, h2, p, li, dt, dd, caption, th, td')].filter(e => {
    const card = e.closest('.card, main'), edge = card.getBoundingClientRect().right;
    const hidden = e.closest('thead, .plot, details');
    const cut = e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline';
    return e.offsetWidth && !hidden && (cut || e.getBoundingClientRect().right > edge + 1);
}).map(e => e.innerText)"""
"""Words that are cut off, or stand beyond the edge of what they stand in."""
SCREENS = [Screen(), PHONE, Screen(dark=True), Screen(390, 844, dark=True, phone=True)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all: it takes a second to start, and a minute where it has to be fetched first."""
    with browsing(chromium()) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small real storm."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "tiny.toml").write_text(SCENARIO)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 401))
    (desk / "tokens.csv").write_text("user_id,token\n" + rows)
    with ScriptedSale(slowly(sell(units=40))).open() as sale:
        done = run_flashsale(
            desk, "storm", "tiny.toml", "--base-url", sale.base_url, "--tokens", "tokens.csv"
        )
    assert done.returncode == 0, done.stderr
    return desk / "runs/latest/report.html"


def slowly(act: Callable[[Claim], Act]) -> Callable[[Claim], Act]:
    """The same sale, so slow that the storm has something to tell of itself."""
    return lambda claim: replace(act(claim), delay_s=0.05)


def seen(page: Page, key: str) -> int:
    """How many shapes of a chart are on the page."""
    shapes = f"document.querySelectorAll('#plot-{key} svg :is(path.js-line, .point path)')"
    return int(page.evaluate(f"{shapes}.length"))


def refusals(page: Page) -> list[str]:
    """What the page was kept from, as far as the browser has told by now."""
    page.evaluate("1")
    return page.complaints


def is_quiet(page: Page) -> bool:
    assert page.complaints == []
    assert page.requests == []
    return True


@pytest.mark.parametrize("screen", SCREENS, ids=["desk", "phone", "dark", "dark phone"])
def test_a_person_finds_verdict_figures_and_every_chart(
    browser: Browser, report: Path, screen: Screen
) -> None:
    page = browser.open(report, screen)
    text = page.evaluate("document.body.innerText")
    assert "Do 40 units go to 40 of 400?" in text
    assert "✓ Pass" in page.evaluate("document.getElementById('verdict').innerText")
    assert "40 of 400" not in page.evaluate("document.querySelector('dl').innerText")
    assert "40 of 40" in page.evaluate("document.querySelector('dl').innerText")
    assert "buy.sold.count" in text
    figures = "[...document.querySelectorAll('figure')].map(figure => figure.id)"
    assert page.evaluate(figures) == [f"chart-{key}" for key in CHARTS]
    assert all(seen(page, key) for key in CHARTS)
    assert page.evaluate("document.documentElement.scrollWidth") <= screen.width
    assert is_quiet(page)


@pytest.mark.parametrize(
    ("width", "media"), [(1280, "screen"), (500, "screen"), (794, "print")], ids=str
)
def test_no_words_leave_their_card(browser: Browser, report: Path, width: int, media: str) -> None:
    """Of a calibrated run, whose generator has the most to tell."""
    page = browser.open(report, Screen(width, 900))
    page.call("Emulation.setEmulatedMedia", media=media)
    assert "Headroom" in page.evaluate("document.body.innerText")
    assert page.evaluate(LEAVING) == []


def test_words_that_leave_their_card_would_be_found(browser: Browser, report: Path) -> None:
    page = browser.open(report, Screen(500, 900))
    page.evaluate("document.querySelector('dl dd').textContent = 'x'.repeat(200)")
    assert len(page.evaluate(LEAVING)) > 0


def test_charts_keep_within_a_phone(browser: Browser, report: Path) -> None:
    page = browser.open(report, PHONE)
    edges = "[...document.querySelectorAll('.main-svg')].map(s => s.getBoundingClientRect().right)"
    assert max(page.evaluate(edges)) <= PHONE.width
    assert min(page.evaluate(edges)) > PHONE.width * 0.8


def test_a_table_stands_behind_every_chart(browser: Browser, report: Path) -> None:
    page = browser.open(report)
    rows = "[...document.querySelectorAll('figure table')].map(t => t.rows.length)"
    assert min(page.evaluate(rows)) >= 3
    assert len(page.evaluate(rows)) == len(CHARTS)
    labels = "[...document.querySelectorAll('.plot')].filter(p => p.getAttribute('aria-label'))"
    assert page.evaluate(f"{labels}.length") == len(CHARTS)


def test_charts_follow_the_light(browser: Browser, report: Path) -> None:
    page = browser.open(report, Screen(dark=True))
    ink = "getComputedStyle(document.querySelector('#plot-stock .xtick text')).fill"
    dark = page.evaluate(ink)
    light = {"name": "prefers-color-scheme", "value": "light"}
    page.call("Emulation.setEmulatedMedia", features=[light])
    assert until(lambda: page.evaluate(ink) != dark)
    assert is_quiet(page)


def test_it_prints(browser: Browser, report: Path) -> None:
    page = browser.open(report, Screen(dark=True))
    assert len(page.pdf()) > 20_000
    assert is_quiet(page)


def test_a_baseline_is_laid_over(browser: Browser, tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", [SOLD] * 30 + [GONE] * 70, 30)
    other = leave_run(tmp_path / "b", [GONE, SOLD] * 50, 50)
    write_reports(folder, Summary.read(folder.summary), print)
    alone = browser.open(folder.report)
    write_reports(folder, Summary.read(folder.summary), print, baseline=other)
    both = browser.open(folder.report)
    for key in ("stock", "spectrum", "arrivals", "rank"):
        assert seen(both, key) > seen(alone, key), key
    assert is_quiet(both)


def test_hostile_words_do_nothing(browser: Browser, tmp_path: Path) -> None:
    summary, figures = summary_of(
        sale_scenario(3, 1, HOSTILE), record_of([SOLD, GONE, LOST]), HOSTILE
    )
    path = tmp_path / "report.html"
    path.write_text(html(summary, figures))
    page = browser.open(path)
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.scripts.length") == 3
    assert "onerror=alert(2)" in page.evaluate("document.querySelector('h1').innerText")
    assert is_quiet(page)


def test_the_page_may_not_ask_for_anything(browser: Browser, report: Path) -> None:
    page = browser.open(report)
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=alert(1)>x')")
    page.evaluate("document.body.lastChild.click()")
    assert until(lambda: len(refusals(page)) == 2)
    assert all("Content Security Policy" in refusal for refusal in refusals(page))


def test_the_browser_would_notice(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "noisy.html"
    path.write_text(
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('one');nosuch()</script>"
    )
    page = browser.open(path)
    assert until(lambda: len(refusals(page)) >= 3)
    assert page.requests == ["http://127.0.0.1:9/x.png"]
    assert "one" in str(page.complaints)
    assert "nosuch" in str(page.complaints)
