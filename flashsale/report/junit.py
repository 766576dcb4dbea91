"""junit.xml: a run as a CI server reads it, one case a check, a threshold and the generator."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from flashsale.model import Verdict
from flashsale.report.number import change_line
from flashsale.storm.selfwatch import Health
from flashsale.storm.summary import Summary


@dataclass(frozen=True)
class _Case:
    group: str
    name: str
    verdict: Verdict
    detail: str


def junit(summary: Summary) -> bytes:
    """The document. What is unknown is an error, what is violated a failure, never a pass."""
    cases = list(_cases(summary))
    failures = sum(case.verdict is Verdict.FAIL for case in cases)
    errors = sum(case.verdict in (Verdict.UNKNOWN, Verdict.INVALID) for case in cases)
    suite = Element(
        "testsuite",
        name=f"flashsale.{summary.scenario}",
        tests=str(len(cases)),
        failures=str(failures),
        errors=str(errors),
        skipped="0",
        time=f"{summary.load.duration_s:.3f}",
        timestamp=summary.started_at,
    )
    for case in cases:
        element = SubElement(
            suite,
            "testcase",
            classname=f"flashsale.{summary.scenario}.{case.group}",
            name=case.name,
        )
        if case.verdict is Verdict.FAIL:
            SubElement(element, "failure", message=case.detail)
        elif case.verdict is not Verdict.PASS:
            SubElement(element, "error", message=case.detail)
    indent(suite)
    document: bytes = tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _cases(summary: Summary) -> Iterator[_Case]:
    valid = summary.generator.verdict is Health.VALID
    yield _Case(
        "generator",
        "load as planned",
        Verdict.PASS if valid else Verdict.INVALID,
        "; ".join(summary.generator.complaints),
    )
    yield _Case("run", "verdict", summary.verdict, f"exit {summary.exit_code}")
    for threshold in summary.thresholds:
        name = f"{threshold.metric} {threshold.condition}"
        yield _Case("thresholds", name, threshold.verdict, threshold.detail)
    for condition in summary.aborts:
        name = f"not {condition.metric} {condition.condition}"
        yield _Case("aborts", name, condition.verdict, condition.detail)
    if summary.baseline is not None:
        for change in summary.baseline.changes:
            yield _Case("baseline", change.metric, change.verdict, change_line(change))
    for check in summary.verify.checks:
        yield _Case("checks", check.name, check.verdict, check.detail)
