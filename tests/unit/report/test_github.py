import html
import re

import pytest
from markdown_it import MarkdownIt
from unit.report.test_junit import ABORTED, COMPARED
from unit.report.test_pages import BAD, GOOD, run_of, verified

from flashsale.model import Outcome, Verdict
from flashsale.report.ci import annotation, annotations, step_summary
from flashsale.run.summary import Check
from flashsale.scenario.answer import Answer


def test_a_run_that_passed_is_not_annotated() -> None:
    assert annotations(GOOD) == []
    assert annotations(verified(GOOD, "pass")) == []


def test_whatever_did_not_pass_is_one_line() -> None:
    assert annotations(verified(BAD, "fail")) == [
        "::error title=flashsale tiny%3A accepted_persisted fail::order <7> is no row",
        "::error title=flashsale tiny%3A invalid run::99 of 100 planned attempts were sent",
        "::error title=flashsale tiny%3A buy.sold.count == 30 does not hold::found 29",
    ]
    (line,) = annotations(COMPARED)
    assert line.startswith("::error title=flashsale tiny%3A buy.response.p50 became worse::1.00 ms")
    assert "rate < 5/s ended it early::" in annotations(ABORTED.judged())[0]


def test_a_run_that_could_not_be_judged_says_why() -> None:
    nothing, _ = run_of(*[Answer(Outcome.REFUSED, 401)] * 3, threshold=">= 0")
    unjudged = nothing.model_copy(update={"thresholds": []}).judged()
    (line,) = annotations(unjudged)
    assert line.startswith("::error title=flashsale tiny%3A unknown::")


def test_the_runner_reads_a_line_as_it_was_meant() -> None:
    line = annotation("a: b, 5%", "100 %\r\n::error::mine")
    assert line == "::error title=a%3A b%2C 5%25::100 %25%0D%0A::error::mine"


def test_an_annotation_holds_no_other_command() -> None:
    line = annotation("##[error]a", "\x1b[2J##vso[task.x]b\u202e")
    assert line == r"::error title=\x23#[error]a::\x1b[2J\x23#vso[task.x]b\u202e"


@pytest.mark.parametrize("begin", ["# ", "- ", "1. ", "> ", "=", "    ", "```\n", "<!-- "])
def test_words_of_others_are_words_in_markdown(begin: str) -> None:
    hostile = begin + r"a\|b ![x](http://evil/) [y](z) *b* _c_ `d` ~e~"
    checks = [Check(name="c", verdict=Verdict.FAIL, detail=hostile)]
    verify = BAD.verify.model_copy(update={"verdict": Verdict.FAIL, "checks": checks})
    asked = GOOD.model_copy(update={"question": hostile, "verify": verify})
    page = MarkdownIt("gfm-like", {"linkify": False}).render(step_summary(asked))
    assert not re.search("<(img|a|em|code|s|ul|ol|blockquote|h1)[ >]", page), page
    assert page.count("<table>") == step_summary(asked).count("\n|---")
    words = html.unescape(re.sub("<br>|<[^>]*>", "\n", page))
    assert words.count(r"a\|b ![x](http://evil/) [y](z) *b* _c_ `d` ~e~") == 2
    assert re.search(r">c</td>\n<td>.*</td>\n<td>.*fail</td>\n</tr>", page), page


def test_a_summary_has_room_for_whatever_is_said() -> None:
    checks = [Check(name="c" * 9_999, verdict=Verdict.FAIL, detail="<" * 999_999)] * 12
    verify = BAD.verify.model_copy(update={"verdict": Verdict.FAIL, "checks": checks})
    text = step_summary(GOOD.model_copy(update={"question": "|" * 999_999, "verify": verify}))
    assert len(text.encode()) < 1024 * 1024
    assert text.count("❌ fail |") == 12


def test_what_leaves_a_reader_in_doubt_is_a_warning() -> None:
    doubtful = GOOD.generator.model_copy(update={"doubts": ["a busy core"]})
    assert COMPARED.baseline is not None
    compared = COMPARED.baseline.model_copy(update={"warnings": ["another machine"], "changes": []})
    found = annotations(GOOD.model_copy(update={"generator": doubtful, "baseline": compared}))
    assert found == [
        "::warning title=flashsale tiny%3A suspect::a busy core",
        "::warning title=flashsale tiny%3A baseline differs::another machine",
    ]


def test_there_are_never_more_than_a_step_may_make() -> None:
    checks = [Check(name=f"c{n}", verdict=Verdict.FAIL) for n in range(30)]
    verify = BAD.verify.model_copy(update={"verdict": Verdict.FAIL, "checks": checks})
    lines = annotations(GOOD.model_copy(update={"verify": verify}).judged())
    assert len(lines) == 10
    assert lines[-1] == "::error title=flashsale tiny%3A 21 more::see the step's summary"


@pytest.mark.parametrize("summary", [GOOD, verified(BAD, "fail"), COMPARED, ABORTED])
def test_every_table_is_whole(summary: object) -> None:
    text = step_summary(summary)  # type: ignore[arg-type]
    widths: set[int] = set()
    for line in text.splitlines():
        if line.startswith("|"):
            widths.add(line.replace("\\|", "").count("|"))
        else:
            assert len(widths) <= 1, text
            widths = set()
    assert text.endswith("\n")


def test_the_step_summary_tells_the_run() -> None:
    text = step_summary(verified(BAD, "fail"))
    assert "## ❌ flashsale tiny: fail" in text
    assert 'Is &lt;it> &amp; "good"?' in text
    assert "| sold | 29 | 29.0 % |" in text
    assert "| buy.sold.count == 30 | 29 | ❌ fail |" in text
    assert "| accepted_persisted | order &lt;7> is no row | ❌ fail |" in text
    assert "not verified yet" in step_summary(GOOD)
    assert "| buy.response.p50 | 1.00 ms | 2.00 ms | +100.0% | ❌ fail |" in step_summary(COMPARED)
    assert "the storm was cut short" in step_summary(ABORTED)
    cell = ABORTED.aborts[0].model_copy(update={"detail": "a|b\nc"})
    assert "a\\|b<br>c" in step_summary(ABORTED.model_copy(update={"aborts": [cell]}))
