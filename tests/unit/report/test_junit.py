"""junit.xml against what the schemas in use demand of it, rule by rule."""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from unit.report.test_pages import BAD, GOOD, verified

from flashsale.model import Verdict
from flashsale.report.ci import junit
from flashsale.run.summary import AbortFigures, Change, Comparison, Summary

CHANGES = [
    Change(metric="buy.response.p50", unit="ms", before=1, after=2, change=1.0,
           verdict=Verdict.FAIL, detail="+100.0%"),
    Change(metric="buy.response.p99", unit="ms", before=None, after=None, change=None,
           verdict=Verdict.UNKNOWN, detail="too few samples before"),
]  # fmt: skip
COMPARED = GOOD.with_baseline(
    Comparison(run="old", folder="../old", max_regress=0.15, warnings=[], changes=CHANGES)
)
ABORTED = GOOD.model_copy(
    update={
        "aborts": [
            AbortFigures(metric="rate", condition="< 5/s", verdict=Verdict.FAIL, value=1.0,
                         detail="1/s \x00 when <all> & sundry\ufffe")
        ]
    }
)  # fmt: skip


def suite_of(summary: Summary) -> Element:
    root = ElementTree.fromstring(junit(summary))  # noqa: S314 - our own document
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def cases(suite: Element) -> dict[str, list[str]]:
    return {str(c.get("name")): [child.tag for child in c] for c in suite.iter("testcase")}


@pytest.mark.parametrize(
    "summary", [GOOD, BAD, verified(BAD, "unknown"), verified(GOOD, "fail"), COMPARED, ABORTED]
)
def test_the_form_is_what_the_schemas_share(summary: Summary) -> None:
    suite = suite_of(summary)
    whole = {"name", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    assert whole <= set(suite.keys()) <= whole | {"skipped"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?", str(suite.get("timestamp")))
    tags = [child.tag for child in suite]
    assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
    assert all(set(p.keys()) == {"name", "value"} for p in suite[0])
    found = {"failure": 0, "error": 0, "skipped": 0}
    for case in suite.iter("testcase"):
        assert set(case.keys()) == {"name", "classname", "time"}
        assert len(case) <= 1
        for child in case:
            found[child.tag] += 1
            assert child.get("message")
            assert (child.tag == "skipped") is ("type" not in child.keys())  # noqa: SIM118
    counts = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    assert {tag: suite.get(name) for tag, name in counts.items()} == {
        tag: str(count) for tag, count in found.items()
    }
    assert suite.get("tests") == str(len(cases(suite)))


def test_there_is_a_case_for_each_threshold_and_check() -> None:
    assert cases(suite_of(verified(BAD, "unknown"))) == {
        "load as planned": ["error"],
        "verdict": ["error"],
        "buy.sold.count == 30": ["failure"],
        "error.share <= 10%": [],
        "no_oversell": [],
        "accepted_persisted": ["skipped"],
    }


def test_a_good_run_that_was_verified_has_nothing_to_complain_of() -> None:
    assert not any(cases(suite_of(verified(GOOD, "pass"))).values())


def test_a_sale_that_nobody_verified_is_skipped_and_never_a_pass() -> None:
    assert cases(suite_of(GOOD))["verify"] == ["skipped"]


def test_there_is_a_case_for_each_figure_compared() -> None:
    found = cases(suite_of(COMPARED))
    assert found["buy.response.p50"] == ["failure"]
    assert found["buy.response.p99"] == ["skipped"]
    assert found["verdict"] == ["failure"]
    (failure,) = suite_of(COMPARED).findall(".//testcase[@name='buy.response.p50']/failure")
    assert failure.get("message") == "1.00 ms → 2.00 ms, +100.0%"


def test_what_xml_cannot_write_does_no_harm() -> None:
    (failure,) = suite_of(ABORTED).findall(".//testcase[@name='not rate < 5/s']/failure")
    assert failure.get("message") == "1/s � when <all> & sundry�"
    suite_of(GOOD.model_copy(update={"started_at": "\x00\x1b[2J"}))


def test_names_are_unique_over_two_runs_and_two_equal_thresholds() -> None:
    twice = BAD.model_copy(update={"thresholds": [*BAD.thresholds, *BAD.thresholds]})
    runs = [twice, twice.model_copy(update={"run": "another.run"})]
    names = [
        (case.get("classname"), case.get("name"))
        for run in runs
        for case in suite_of(run).iter("testcase")
    ]
    assert len(names) == len(set(names))
    assert "buy.sold.count == 30 (2)" in {name for _, name in names}
    assert len({suite_of(run).get("name") for run in runs}) == 2
