"""A run as a CI server shows it: junit.xml, and the step summary and annotations of GitHub Actions.

junit.xml has one case a check, a threshold, a figure compared. Its form is what the schemas in use
have in common (Jenkins' and the one of Ant's task): suites, in each the properties, the cases and
the output, every attribute that one of them demands.

Of annotations a step may make ten of a kind; each is one line, in which the signs that would end
it are escaped (docs.github.com, "Workflow commands for GitHub Actions").
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from flashsale.errors import plain
from flashsale.model import Verdict
from flashsale.report.wording import amount, change_line, met, ms, share
from flashsale.run.parts import Health, Latency
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
        "timestamp": _text(summary.started_at[:_TO_THE_SECOND]),
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


ANNOTATIONS_MAX = 10
_SIGNS = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INVALID: "⚠️", Verdict.UNKNOWN: "❔"}
_PERCENTILES = ("p50", "p95", "p99", "p999", "max")


def step_summary(summary: Summary) -> str:
    """The run in Markdown."""
    return "\n".join([*_heading(summary), *_load(summary), *_demands(summary), ""])


def annotations(summary: Summary) -> list[str]:
    """A line for whatever did not pass, at most ten of them, and one for each doubt."""
    found = [annotation(title, text) for title, text in _failures(summary)]
    if not found and summary.verdict is not Verdict.PASS:
        unsold = summary.hints[0] if summary.sold_nothing and summary.hints else None
        why = unsold or summary.verify.reason or f"exit {summary.exit_code}"
        found = [annotation(f"flashsale {summary.scenario}: {summary.verdict}", why)]
    if len(found) > ANNOTATIONS_MAX:
        rest = len(found) - ANNOTATIONS_MAX + 1
        title = f"flashsale {summary.scenario}: {rest} more"
        found[ANNOTATIONS_MAX - 1 :] = [annotation(title, "see the step's summary")]
    return found + _warnings(summary)[:ANNOTATIONS_MAX]


def _warnings(summary: Summary) -> list[str]:
    """What leaves the verdict as it is, and a reader in doubt."""
    name = f"flashsale {summary.scenario}"
    doubts = [(f"{name}: suspect", doubt) for doubt in summary.generator.doubts]
    if summary.baseline is not None:
        doubts += [(f"{name}: baseline differs", text) for text in summary.baseline.warnings]
    return [annotation(title, text, "warning") for title, text in doubts]


def _failures(summary: Summary) -> Iterator[tuple[str, str]]:
    name = f"flashsale {summary.scenario}"
    for check in summary.doubtful_rules:
        yield f"{name}: {check.name} {check.verdict}", check.detail
    if summary.generator.verdict is Health.INVALID:
        yield f"{name}: invalid run", "; ".join(summary.generator.complaints)
    for condition in summary.aborts:
        if condition.verdict is not Verdict.PASS:
            told = f"{condition.metric} {condition.condition}"
            became = "became true" if condition.at_end else "ended it early"
            yield f"{name}: {told} {became}", condition.detail
    for threshold in summary.thresholds:
        if threshold.verdict is not Verdict.PASS:
            told = f"{threshold.metric} {threshold.condition}"
            yield f"{name}: {told} does not hold", f"found {threshold.detail}"
    for change in summary.baseline.changes if summary.baseline else ():
        if change.verdict is Verdict.FAIL:
            yield f"{name}: {change.metric} became worse", change_line(change)


def annotation(title: str, text: str, kind: str = "error") -> str:
    """One error or warning, as the runner reads it from a line of output; no other command."""
    escaped = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={escaped}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return plain(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _heading(summary: Summary) -> Iterator[str]:
    sign = _SIGNS[summary.verdict]
    yield f"## {sign} flashsale {_cell(summary.scenario)}: {summary.verdict}"
    yield ""
    if summary.question:
        yield f"{_line(summary.question)}  "
    load = summary.load
    yield (
        f"{load.sent:,} of {load.planned:,} attempts over {load.connections:,} connections in "
        f"{load.duration_s:.2f} s, {load.rate_per_s:,.0f} answers/s, seed {summary.seed}, "
        f"exit {summary.exit_code}, generator {summary.generator.verdict}"
    )
    if load.interrupted_by is not None or summary.aborted:
        yield "\n**What stands here is a part: the storm was cut short.**"
    if summary.verify.reason and not summary.verify.checks:
        yield f"\n**{_cell(summary.verify.reason)}**"


def _load(summary: Summary) -> Iterator[str]:
    load, figures = summary.load, summary.latency_ms
    yield from _table(
        ("outcome", "attempts", "share"),
        ((name, f"{n:,}", share(n, load.planned)) for name, n in load.outcomes.items()),
    )
    yield from _table(
        ("latency, ms", "p50", "p95", "p99", "p99.9", "max"),
        (
            ("response", *_percentiles(figures.response)),
            ("service", *_percentiles(figures.service)),
        ),
    )


def _percentiles(latency: Latency) -> list[str]:
    return [ms(getattr(latency, name)) for name in _PERCENTILES]


def _demands(summary: Summary) -> Iterator[str]:
    demanded = [(f"{t.metric} {t.condition}", t) for t in summary.thresholds]
    demanded += [(f"end early if {t.metric} {t.condition}", t) for t in summary.aborts]
    if demanded:
        rows = ((name, t.detail, _signed(t.verdict)) for name, t in demanded)
        yield from _table(("threshold", "found", ""), rows)
    if summary.baseline is not None:
        changes = (
            (c.metric, amount(c.before, c.unit), amount(c.after, c.unit), c.detail,
             _signed(c.verdict))
            for c in summary.baseline.changes
        )  # fmt: skip
        yield f"\nAgainst {_cell(summary.baseline.run)}:"
        yield from _table(("figure", "before", "now", "change", ""), changes)
    if summary.rules:
        checks = ((c.name, c.detail, _signed(c.verdict)) for c in summary.rules)
        yield from _table(("check", "detail", ""), checks)


def _signed(verdict: Verdict) -> str:
    return f"{_SIGNS[verdict]} {verdict}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * len(head))}|"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


_CELL_MAX = 2_000
"""GitHub drops a step's summary of more than 1 MiB, and keeps nothing of it."""

_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")
_BLOCK = re.compile(r"^([#+=>-]|[0-9]+(?=[.)]))")


def _cell(text: str) -> str:
    """Text that neither ends a table's cell nor begins a tag, an image or code; its beginning."""
    if len(text) > _CELL_MAX:
        text = f"{text[:_CELL_MAX]} …"
    text = _MARKUP.sub(r"\\\g<0>", text)
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), ("\r", ""), ("\n", "<br>")):
        text = text.replace(sign, safe)
    return text


def _line(text: str) -> str:
    """The same where a line begins: no heading, list or quotation either."""
    return _BLOCK.sub(_escaped_block, _cell(text).lstrip())


def _escaped_block(found: re.Match[str]) -> str:
    sign = found[0]
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"
