"""report.html as a browser would take it apart: nothing reaches out, nobody's text becomes code."""

import base64
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest
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

from flashsale.report.charts.chart import Run
from flashsale.report.files import write_reports
from flashsale.report.html import html
from flashsale.report.wording import lapse
from flashsale.run.parts import Machine, PersistedLatency
from flashsale.run.summary import Change, Comparison, SaidFigures, Summary
from flashsale.scenario.answer import unsent

SUMMARY, FIGURES = summary_of(sale_scenario(100, 30), record_of([SOLD] * 30 + [GONE] * 70))
BAD, BAD_FIGURES = summary_of(
    sale_scenario(4, 2, HOSTILE), record_of([SOLD, LOST, GONE, unsent("deadline")]), HOSTILE
)

EVERY = ["stock", "outcomes", "spectrum", "overtime", "arrivals", "fairness", "rank", "lag"]
"""The charts of a sale without samples of the generator."""


def verified(summary: Summary, verdict: str, detail: str = "30 live of 30") -> Summary:
    offence = {"text": detail, "voucher": 1, "user": None, "order": None}
    finding = {"verdict": verdict, "rule": detail, "total": 25, "offences": [offence]}
    return summary.with_verify(
        {
            "verdict": verdict,
            "reason": None,
            "orders": {"persisted": 29, "drain_s": 0.3},
            "latency_ms": {"persisted": None},
            "checks": [
                {"name": "no_oversell", "verdict": "pass", "detail": "all is well"},
                {
                    "name": "accepted_persisted",
                    "verdict": verdict,
                    "detail": detail,
                    "findings": [finding],
                },
            ],
        }
    )


class Page(HTMLParser):
    """What a browser would find: text, and whatever could run or reach out of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self._script: list[str] | None = None
        self.feed(text)
        self.text = " ".join(self._words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._script = [] if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            self.scripts.append("".join(self._script))
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._script.append(data)
        else:
            self._words += data.split()


PAGE = Page(html(verified(SUMMARY, "pass"), FIGURES))


def test_the_page_answers_at_once_whether_it_held() -> None:
    assert "✓ Pass 2 of 2 rules of the sale hold" in PAGE.text
    assert "Does it hold?" in PAGE.text
    assert "30 of 30 units sold, sold out after" in PAGE.text
    assert "What did not hold" not in PAGE.text
    assert PAGE.tags.count("h1") == 1


def test_every_table_has_a_caption_and_every_chart_its_words() -> None:
    assert PAGE.tags.count("table") == PAGE.tags.count("caption") >= 11
    assert PAGE.tags.count("figure") == PAGE.tags.count("figcaption") == 8
    assert ("id", "plot-spectrum") in PAGE.attributes


def test_nothing_reaches_out_of_the_page() -> None:
    links = [value for name, value in PAGE.attributes if name in ("src", "href", "action")]
    assert links == ["data:,"]
    assert "iframe" not in PAGE.tags
    style = Path("flashsale/report/page/page.css")
    assert "url(" not in (Path(__file__).parents[3] / style).read_text()
    (policy,) = (value for name, value in PAGE.attributes if value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_the_policy_names_the_scripts_that_run_and_no_other() -> None:
    data, *running = PAGE.scripts
    (policy,) = (value for name, value in PAGE.attributes if value.startswith("default-src"))
    named = re.findall(r"'sha256-([^']*)'", policy)
    assert [base64.b64encode(sha256(s.encode()).digest()).decode() for s in running] == named
    assert orjson.loads(data)[0]["key"] == "stock"
    assert not {name for name, _ in PAGE.attributes if name.startswith("on")}


def test_one_file_has_room_to_spare() -> None:
    assert len(html(SUMMARY, FIGURES).encode()) < 6_000_000


def test_a_run_without_figures_or_samples_has_tables_and_no_script() -> None:
    assert "script" not in Page(html(SUMMARY)).tags
    summary, figures = summary_of(sale_scenario(2, 1), record_of([unsent("barrier")] * 2))
    assert "script" not in Page(html(summary, figures)).tags


def test_hostile_words_stay_words() -> None:
    summary = verified(BAD, "fail", HOSTILE).model_copy(
        update={
            "base_url": HOSTILE,
            "scenario": HOSTILE,
            "plan_hash": HOSTILE,
            "started_at": HOSTILE,
            "load": BAD.load.model_copy(
                update={
                    "errors": {HOSTILE: 1},
                    "said": [SaidFigures(error=HOSTILE, status=None, text=HOSTILE, count=1)],
                }
            ),
            "baseline": Comparison(
                run=HOSTILE,
                folder="../gone",
                max_regress=0.1,
                warnings=[HOSTILE],
                changes=[
                    Change(
                        metric=HOSTILE,
                        unit="ms",
                        before=1,
                        after=2,
                        change=1,
                        verdict="fail",
                        detail=HOSTILE,
                    )
                ],
            ),
        }
    )
    baseline = Run(SUMMARY.model_copy(update={"run": HOSTILE}), FIGURES)
    page, harmless = Page(html(summary, BAD_FIGURES, baseline)), Page(html(BAD, BAD_FIGURES))
    assert len(page.scripts) == 3
    assert page.scripts[1:] == harmless.scripts[1:]
    assert "img" not in page.tags
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert page.text.count("<img src=x onerror=alert(2)>") >= 10


def test_no_word_turns_a_page_around_or_hides_in_it() -> None:
    """What a message may hold: right-to-left marks beside a verdict, controls, what no page may."""
    evil = "a\u202ePASS\u2066b\u061cc\x1b[2J\x00\x9bd\ufeff`\u202ecode`"
    told = verified(BAD, "fail", evil)
    load = told.load.model_copy(update={"errors": {evil: 1}})
    page = html(told.model_copy(update={"question": evil, "load": load, "hints": [evil]}))
    assert not set("\u202e\u2066\u061c\x1b\x00\x9b\ufeff") & set(page)
    assert page.count(r"a\u202ePASS\u2066b") >= 3


def test_trouble_comes_first_and_offenders_are_named() -> None:
    page = Page(html(verified(BAD, "fail", "order 7 is no row"), BAD_FIGURES))
    assert "✗ Fail" in page.text
    trouble = page.text.index("What did not hold")
    assert trouble < page.text.index("Did it hold?")
    assert "accepted_persisted: fail. order 7 is no row" in page.text
    assert "order 7 is no row (25)" in page.text
    assert "and 24 more" in page.text
    assert "3 of 4 planned attempts were sent" in page.text


def test_a_run_that_nobody_judged_says_so() -> None:
    assert "the sale is not judged yet" in Page(html(SUMMARY, FIGURES)).text


def test_it_is_drawn_from_the_folder_alone(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", [SOLD] * 30 + [GONE] * 70, 30)
    other = leave_run(tmp_path / "b", [GONE, SOLD] * 50, 50)
    write_reports(folder, Summary.read(folder.summary), print, baseline=other)
    page = Page(folder.report.read_text())
    assert "baseline b" in page.text
    assert folder.junit.exists()
    keys = [chart["key"] for chart in orjson.loads(page.scripts[0])]
    assert keys == EVERY


def test_figures_of_the_sale_are_counted_again_for_an_older_summary(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", [SOLD] * 30 + [GONE] * 70, 30)
    write_reports(folder, Summary.read(folder.summary).model_copy(update={"sale": None}), print)
    assert "30 of 30 units sold" in Page(folder.report.read_text()).text


@pytest.mark.parametrize("gone", ["summary.json", "attempts.jsonl"])
def test_a_baseline_that_is_gone_is_left_out(tmp_path: Path, gone: str) -> None:
    folder = leave_run(tmp_path / "a", [SOLD, GONE], 1)
    other = leave_run(tmp_path / "b", [GONE, SOLD], 1)
    (other.path / gone).unlink()
    write_reports(folder, Summary.read(folder.summary), print, baseline=other)
    assert "dashed" not in Page(folder.report.read_text()).text


@pytest.mark.slow
def test_a_run_of_300_000_attempts_stays_one_small_file() -> None:
    record = record_of([SOLD] * 150_000 + [GONE] * 150_000, spread_us=30)
    page = html(*summary_of(sale_scenario(300_000, 150_000), record))
    assert len(page.encode()) < 5_200_000
    assert "150,000 of 150,000 units sold" in page


def test_what_a_reader_sees_is_words_colours_and_machine() -> None:
    """No backticks, each outcome in its chart's colour, how long it took and on what."""
    machine = Machine(system="Linux 6", processor="Some <CPU>", cpus=2, python="3.11")
    hints = ["try `flashsale warm`, then `storm`", "a lone ` stays"]
    page = html(SUMMARY.model_copy(update={"machine": machine, "hints": hints}))
    assert "try <code>flashsale warm</code>, then <code>storm</code>" in page
    assert "a lone ` stays" in page
    assert "Fired from Some &lt;CPU&gt;, 2 CPUs, Linux 6" in page
    assert f"took {lapse(1000 * SUMMARY.load.duration_s)}" in page
    assert "background:var(--accent)" in page
    assert "background:var(--slate)" in page


def test_a_sale_that_is_not_verified_yet_is_not_what_did_not_hold() -> None:
    awaited = SUMMARY.verify.model_copy(update={"awaited": True})
    page = html(SUMMARY.model_copy(update={"verify": awaited}).judged())
    assert "What did not hold" not in page
    assert page.count("not verified yet") == 1


def test_orders_of_somebody_elses_shop_are_not_said_to_be_in_mysql() -> None:
    summary = verified(SUMMARY, "pass")
    assert "orders in MySQL" in html(summary)
    verify = summary.verify.model_copy(update={"rests_on": ["orders of a route of the shop"]})
    page = html(summary.model_copy(update={"verify": verify}))
    assert "orders in the shop&#39;s books" in page
    assert "orders in MySQL" not in page


def test_latencies_to_a_row_that_nobody_could_measure_have_no_line() -> None:
    for count in (0, 3):
        persisted = PersistedLatency(count=count, mean=1, p50=1, p90=1, p95=1, p99=1, p999=1, max=1)
        latency = SUMMARY.latency_ms.model_copy(update={"persisted": persisted})
        page = html(SUMMARY.model_copy(update={"latency_ms": latency}))
        assert ('scope="row">persisted' in page) is bool(count)


def test_a_run_without_answers_says_no_ms() -> None:
    summary, _ = summary_of(sale_scenario(4, 2), record_of([unsent("barrier")] * 4))
    assert "– ms" not in re.sub(r"<[^>]*>", "", html(summary))


def test_a_run_for_which_nothing_was_planned_is_drawn() -> None:
    """As a shard may be, where there are more shards than attempts."""
    summary, _ = summary_of(sale_scenario(4, 2), record_of([SOLD] * 2 + [GONE] * 2))
    load = summary.load.model_copy(update={"planned": 0})
    assert "Outcomes" in html(summary.model_copy(update={"load": load}))
