"""junit.xml: a run as a CI server reads it, one case a check, a threshold, a figure compared.

The form is what the schemas in use have in common (Jenkins' and the one of Ant's task): suites, in
each the properties, the cases and the output, every attribute that one of them demands.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from flashsale.model import Verdict
from flashsale.report.wording import change_line, met
from flashsale.run.generator import Health
from flashsale.run.summary import Summary

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TO_THE_SECOND = len("2026-01-01T00:00:00")


@dataclass(frozen=True)
class _Case:
    """`tag` is what stands in a case that did not pass: failure, error or skipped."""

    group: str
    name: str
    tag: str
    detail: str


def junit(summary: Summary) -> bytes:
    """The document. What is violated is a failure; what could not be judged is skipped, and the
    case of the run's verdict is in error then, so that a server never shows a pass."""
    cases = list(_told_apart(_cases(summary)))
    root = Element("testsuites")
    suite = SubElement(root, "testsuite", _head(summary, cases))
    properties = SubElement(suite, "properties")
    for name in ("run", "plan_hash", "base_url", "seed"):
        SubElement(properties, "property", name=name, value=_text(str(getattr(summary, name))))
    for case in cases:
        _add(suite, summary, case)
    SubElement(suite, "system-out").text = _text("\n".join(_remarks(summary)))
    SubElement(suite, "system-err")
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _head(summary: Summary, cases: list[_Case]) -> dict[str, str]:
    tags = [case.tag for case in cases]
    return {
        "name": _text(_suite(summary)),
        "timestamp": summary.started_at[:_TO_THE_SECOND],
        "hostname": "localhost",
        "tests": str(len(cases)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": f"{summary.load.duration_s:.3f}",
    }


def _add(suite: Element, summary: Summary, case: _Case) -> None:
    element = SubElement(
        suite,
        "testcase",
        classname=_text(f"{_suite(summary)}.{case.group}"),
        name=_text(case.name),
        time="0",
    )
    detail = _text(case.detail)
    if case.tag == "skipped":
        SubElement(element, "skipped", message=detail)
    elif case.tag:
        SubElement(element, case.tag, message=detail, type=case.group).text = detail


def _suite(summary: Summary) -> str:
    """Of this run alone: a server takes two cases of one name for one."""
    return f"flashsale.{summary.scenario}.{summary.run.replace('.', '_')}"


def _told_apart(cases: Iterable[_Case]) -> Iterator[_Case]:
    """The cases, with a number to the name of each that was there before."""
    seen: Counter[tuple[str, str]] = Counter()
    for case in cases:
        seen[case.group, case.name] += 1
        count = seen[case.group, case.name]
        yield case if count == 1 else replace(case, name=f"{case.name} ({count})")


def _text(text: str) -> str:
    """Without what XML has no way to write."""
    return _NOT_XML.sub("�", text)


def _cases(summary: Summary) -> Iterator[_Case]:
    valid = summary.generator.verdict is not Health.INVALID
    complaints = "; ".join(summary.generator.complaints)
    yield _Case("generator", "load as planned", "" if valid else "error", complaints)
    whole = _tag(summary.verdict)
    ended = "error" if whole == "skipped" else whole
    yield _Case("run", "verdict", ended, f"{summary.verdict}, exit {summary.exit_code}")
    for threshold in summary.thresholds:
        name = f"{threshold.metric} {threshold.condition}"
        yield _Case("thresholds", name, _tag(threshold.verdict), threshold.detail)
    for condition in summary.aborts:
        name = f"not {condition.metric} {condition.condition}"
        yield _Case("aborts", name, _tag(condition.verdict), condition.detail)
    if summary.baseline is not None:
        for change in summary.baseline.changes:
            yield _Case("baseline", change.metric, _tag(change.verdict), change_line(change))
    if not summary.verify.checks and summary.verify.reason is not None:
        yield _Case("checks", "verify", "skipped", summary.verify.reason)
    for check in summary.verify.checks:
        yield _Case("checks", check.name, _tag(check.verdict), check.detail)
    for check in summary.standing_answers:
        yield _Case("answers", check.name, _tag(check.verdict), check.detail)


def _remarks(summary: Summary) -> Iterator[str]:
    """What failed nothing, and somebody ought to read."""
    for doubt in summary.generator.doubts:
        yield f"the generator is suspect: {doubt}"
    for check in summary.verify.checks:
        if check.exercised:
            yield f"{check.name} {met(check.exercised)}"
    yield from summary.hints


def _tag(verdict: Verdict) -> str:
    match verdict:
        case Verdict.PASS:
            return ""
        case Verdict.FAIL:
            return "failure"
        case Verdict.INVALID:
            return "error"
        case _:
            return "skipped"
