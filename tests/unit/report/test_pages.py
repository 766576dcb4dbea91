"""A run in the terminal, and what every face of it has to say."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from flashsale.errors import ExitCode
from flashsale.model import Outcome, Reading, Verdict
from flashsale.report.ci import annotations, junit, step_summary
from flashsale.report.console import print_summary
from flashsale.report.html import html
from flashsale.run.attempts import Attempts
from flashsale.run.histogram import Histogram
from flashsale.run.parts import GeneratorFigures, ReadFigures
from flashsale.run.summary import Check, Summary
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.scenario import parse_scenario
from flashsale.storm.figures.conclusion import Circumstances, conclude
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.generator import Effort, SelfReport

SOLD, GONE = Answer(Outcome.SOLD, 200, "1"), Answer(Outcome.SOLD_OUT, 200)


def run_of(
    *answers: Answer, threshold: str = "== 30", interrupted_by: ExitCode | None = None
) -> tuple[Summary, Figures]:
    record = Attempts(len(answers))
    record.origin_ns = 1
    for i, answer in enumerate(answers):
        record.due_ns[i] = 1
        if answer.outcome is not Outcome.UNSENT:
            record.sent_ns[i] = 1 + i * 1000
        record.settle(i, 50_000_001 + i * 1_000_000, answer)
    scenario = parse_scenario(
        f"""# Is <it> & "good"?
        schema = 1
        name = "tiny"
        [sale]
        units = 30
        [load]
        model = "stampede"
        users = 100
        connections = 10
        [thresholds]
        "buy.sold.count" = "{threshold}"
        """,
        "",
    )
    figures = Figures(record)
    summary = conclude(
        scenario,
        figures,
        Effort(SelfReport(1_000_000, 2_000_000, Histogram([5]), 1024), Histogram([7])),
        Circumstances("tiny-1", "http://x", "abc", "2026-01-01", 1, interrupted_by),
    )
    return summary, figures


def verified(summary: Summary, verdict: str) -> Summary:
    return summary.with_verify(
        {
            "verdict": verdict,
            "reason": None,
            "orders": {"persisted": 29, "drain_s": 0.3},
            "latency_ms": {"persisted": None},
            "checks": [
                {"name": "no_oversell", "verdict": "pass", "detail": "30 live of 30"},
                {"name": "accepted_persisted", "verdict": verdict, "detail": "order <7> is no row"},
            ],
        }
    )


GOOD, GOOD_FIGURES = run_of(*[SOLD] * 30, *[GONE] * 70)
BAD, BAD_FIGURES = run_of(
    *[SOLD] * 29, *[GONE] * 68, indeterminate("timeout"), indeterminate("reset"), unsent("deadline")
)


def shown(summary: Summary, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(console, summary, Path("r/1"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    return text


def test_the_table_tells_outcomes_latencies_health_and_verdict() -> None:
    text = shown(GOOD)
    assert "100 users over 10 connections (closed)" in text
    assert "sold" in text
    assert "30.0 %" in text
    assert "70.0 %" in text
    assert "VALID" in text
    assert "PASS" in text
    assert "r/1" in text
    assert "response" in text
    assert "99.0" in text  # the p50, and no p99 of 100 samples
    assert "≥" not in text
    assert "errors:" not in text
    assert re.search(r"error\.share +<= 10% +0\.00% +PASS", text)
    assert "interrupted" not in text


@pytest.mark.parametrize(
    ("width", "columns"),
    [(45, "p50 ms p99 max"), (60, "p50 ms p90 p99 max"), (80, "p50 ms p90 p99 p99.9 max")],
)
def test_a_narrow_terminal_goes_without_columns_and_every_cell_is_whole(
    width: int, columns: str
) -> None:
    text = shown(GOOD, width)
    assert "PASS" in text
    (head,) = [line for line in text.splitlines() if "attempts" in line and "p50" in line]
    assert " ".join(head.split()).endswith(columns)
    assert any(line.split()[:2] == ["response", "100"] for line in text.splitlines())


def test_what_could_not_be_read_is_counted_and_shown() -> None:
    answers = [Answer(Outcome.UNKNOWN, 200, None, "message", f"No {n % 7} [b]") for n in range(20)]
    cut = Answer(Outcome.INDETERMINATE, 502, None, "http_502", "<html>\\x1b")
    summary, figures = run_of(*[SOLD] * 30, *[GONE] * 46, *answers, *[cut] * 4)
    assert [(s.error, s.status, s.text, s.count) for s in summary.load.said[:1]] == [
        ("http_502", 502, "<html>\\x1b", 4)
    ]
    assert sum(said.count for said in summary.load.said) == 24
    text = " ".join(shown(summary, 200).split())
    assert "3 × message (200): No 0 [b]" in text
    assert "4 × http_502: <html>\\x1b" in text
    assert 'under [messages], as in "No 0 [b]" = "sold_out"' in text
    page = html(summary, figures)
    assert "What 24 answers said" in page
    assert "&lt;html&gt;" in page


def test_trouble_is_said_in_words() -> None:
    text = shown(BAD, 120)
    assert "errors: deadline 1, reset 1, timeout 1" in text
    assert "1 of 2 indeterminate attempts resolved" in text
    assert "0 of them sold" in " ".join(text.split())
    assert "INVALID" in text
    assert "99 of 100 planned attempts were sent" in text
    assert "exit 6, invalid run" in text
    assert "≥ " in text  # the maximum is a bound: one attempt was given up on
    assert "FAIL" in text  # the threshold


def test_checks_and_rows_are_shown_once_verify_has_been() -> None:
    text = shown(verified(GOOD, "fail"), 120)
    assert "accepted_persisted" in text
    assert "order <7> is no row" in text
    assert "30 accepted, 29 rows, drained in 0.3 s" in text
    assert "exit 3, violation" in text


def test_a_storm_that_has_sold_says_that_nobody_has_verified_it() -> None:
    text = shown(GOOD, 120)
    assert "PASS  of the load alone" in text
    assert "the sale is not verified yet: `flashsale verify` judges it" in text
    failed = shown(BAD, 120)
    assert "not verified yet" in failed
    assert "not verified yet" not in shown(verified(GOOD, "pass"), 120)
    awaited = GOOD.verify.model_copy(update={"awaited": True})
    awaiting = shown(GOOD.model_copy(update={"verify": awaited}).judged(), 120)
    assert "UNKNOWN  the sale is not verified yet" in awaiting


def test_an_interrupted_run_says_so() -> None:
    summary, _ = run_of(SOLD, unsent("interrupted"), interrupted_by=ExitCode.INTERRUPTED)
    text = shown(summary)
    assert "interrupted: what stands here is a part" in text
    assert "exit 130" in text


def test_reads_tell_hit_ratio_loads_stale_answers_and_rejects() -> None:
    counts = {Reading.HIT: 970, Reading.STALE: 10, Reading.LOAD: 20, Reading.BLOOM: 3000}
    text = shown(GOOD.model_copy(update={"reads": ReadFigures.of(counts)}))
    assert "hit ratio 98.00%, 20 loads, 10 stale, 3,000 rejected" in text
    assert "hit ratio" not in shown(GOOD)


def suspected(summary: Summary) -> Summary:
    found = {"verdict": "suspect", "doubts": ["its core was <hot>"]}
    generator = GeneratorFigures.model_validate(summary.generator.model_dump() | found)
    return summary.model_copy(update={"generator": generator}).judged()


def test_a_suspect_generator_passes_and_is_remarked_on_everywhere() -> None:
    summary = suspected(GOOD)
    assert (summary.verdict, summary.exit_code) == ("pass", 0)
    assert re.search(r"generator +SUSPECT", shown(summary))
    assert "its core was <hot>" in shown(summary)
    assert "its core was &lt;hot&gt;" in html(summary)
    assert "generator suspect" in html(summary)
    suite = ElementTree.fromstring(junit(summary)).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert suite.findtext("system-out") == "the generator is suspect: its core was <hot>"


def test_every_face_tells_what_the_answers_alone_prove() -> None:
    said = "200 orders, by the answers alone: voucher 1: 200 orders of 100 units"
    check = Check(name="no_oversell", verdict=Verdict.FAIL, detail=said)
    summary = GOOD.model_copy(update={"answers": [check]}).judged()
    assert re.search(r"no_oversell +FAIL +200 orders, by the answers alone", shown(summary, 140))
    assert "exit 3, violation" in shown(summary)
    page = html(summary)
    assert "Rules of the sale, by the answers alone" in page
    assert page.count(said) == 2  # under what did not hold, and in the table
    assert "the sale is not judged yet" in page
    suite = ElementTree.fromstring(junit(summary))  # noqa: S314 - our own
    (case,) = suite.iterfind(".//testcase[@name='no_oversell']")
    assert (case.get("classname"), case[0].tag) == ("flashsale.tiny.tiny-1.answers", "failure")
    assert f"no_oversell fail::{said}" in "\n".join(annotations(summary)).replace("%3A", ":")
    assert f"| no_oversell | {said} | ❌ fail |" in step_summary(summary)


def test_a_narrow_terminal_cuts_neither_metric_nor_path() -> None:
    metric, path = "buy.indeterminate.response." + "p99" * 20, "runs/[bold]" + "deep/" * 30 + "end"
    threshold = GOOD.thresholds[0].model_copy(update={"metric": metric})
    output = io.StringIO()
    console = Console(file=output, width=80, markup=False)
    print_summary(console, GOOD.model_copy(update={"thresholds": [threshold]}), Path(path))
    text = "".join(output.getvalue().split())
    assert "…" not in text
    assert path.replace("/", "") in text.replace("/", "")
    first = output.getvalue().split("threshold", 1)[1]
    told = "".join(re.findall(r"^  (\S+)", first, re.MULTILINE))
    assert metric in told
