"""report.html: a run as a browser shows it. One file, nothing fetched, and nothing in it can be.

Whatever a server said is escaped where it is text, and in the charts' data every `<` is spelt
`\\u003c`. Beside that, the page's own policy lets no script run but the two whose hashes it names,
and lets nothing be loaded from anywhere.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from flashsale.errors import ExitCode, plain
from flashsale.model import Verdict
from flashsale.report import wording
from flashsale.report.charts.chart import Chart, Run, colour_of
from flashsale.report.charts.run import charts_of
from flashsale.report.wording import crowd, headroom_line, lapse, ms, plural, share
from flashsale.run.parts import FaultRecord, Health, Machine
from flashsale.run.summary import Summary
from flashsale.storm.figures.conclusion import NEVER_VERIFIED, NOT_VERIFIED
from flashsale.storm.figures.figures import Figures

_PARTS = Path(__file__).parent / "page"
_UNVERIFIED = (NOT_VERIFIED, NEVER_VERIFIED)
_SIGNS = {"pass": "✓", "valid": "✓", "fail": "✗"}


def html(
    summary: Summary,
    figures: Figures | None = None,
    baseline: Run | None = None,
    shortfall: str | None = None,
    faults: Sequence[FaultRecord] = (),
) -> str:
    """The page. Its charts need the figures; without them it has tables only.

    `baseline` is an earlier run, laid over the charts; `shortfall` is what the record lacks.
    `faults` were made under the storm.
    """
    charts = charts_of(Run(summary, figures, faults), baseline) if figures is not None else []
    scripts = {"plotly": _plotly(), "script": _part("page.js")} if charts else {}
    return _template().render(
        run=summary,
        answer=_answer(summary),
        crowd=crowd(summary.load),
        trouble=[*([shortfall] if shortfall else []), *_trouble(summary)],
        trouble_title="What did not hold" if summary.exit_code else "Worth knowing",
        sale=summary.sale,
        remarks=wording.remarks(summary.sale) if summary.sale else [],
        comparison=summary.baseline,
        baseline_name=baseline.summary.run if baseline else "",
        charts=charts,
        data=Markup(_data(charts)),  # noqa: S704 - no `<` is left in it
        css=Markup(_part("page.css")),  # noqa: S704 - our own
        faults=faults,
        machine=_machine(summary.machine),
        policy=_policy(list(scripts.values())),
        signs=_Signs(_SIGNS),
        **{name: Markup(text) for name, text in scripts.items()},  # noqa: S704 - plotly's, and ours
    )


def _machine(machine: Machine | None) -> str:
    if machine is None:
        return ""
    return f"{machine.processor}, {plural(machine.cpus, 'CPU')}, {machine.system}"


class _Signs(dict[str, str]):
    """A verdict's sign; what is neither kept nor broken is in question."""

    def __missing__(self, _: str) -> str:
        return "?"


@dataclass(frozen=True)
class _Finding:
    """One finding of `verify`, in lines."""

    verdict: str
    rule: str
    total: int
    offences: list[str]

    @property
    def more(self) -> int:
        return self.total - len(self.offences)


def _answer(summary: Summary) -> str:
    """The verdict in one sentence."""
    checks, thresholds = summary.verify.checks, summary.thresholds
    parts = []
    if summary.load.interrupted_by is not None:
        parts.append("interrupted: what stands here is a part")
    if checks:
        kept = sum(check.verdict is Verdict.PASS for check in checks)
        parts.append(f"{kept} of {plural(len(checks), 'rule')} of the sale hold")
    elif summary.load.asked == "claims":
        parts.append("the sale is not judged yet")
    if thresholds:
        met = sum(threshold.verdict is Verdict.PASS for threshold in thresholds)
        parts.append(f"{met} of {plural(len(thresholds), 'threshold')} met")
    parts.append(f"generator {summary.generator.verdict}")
    if summary.exit_code:
        name = ExitCode(summary.exit_code).name.lower().replace("_", " ")
        parts.append(f"exit {summary.exit_code}, {name}")
    return " · ".join(parts)


def _trouble(summary: Summary) -> Iterator[str]:
    """What a reader has to know first, and nothing of what held."""
    for check in summary.doubtful_rules:
        yield f"{check.name}: {check.verdict}. {check.detail}"
    for condition in summary.aborts:
        if condition.verdict is Verdict.FAIL:
            became = "true in the end:" if condition.at_end else "ended early, since"
            yield f"{became} {condition.metric} {condition.condition}: {condition.detail}"
    if summary.verify.reason and summary.exit_code and summary.verify.reason not in _UNVERIFIED:
        yield summary.verify.reason
    for threshold in summary.thresholds:
        if threshold.verdict is not Verdict.PASS:
            found = f"{threshold.metric}: demanded {threshold.condition}, found {threshold.detail}"
            yield found
    for change in summary.baseline.changes if summary.baseline else ():
        if change.verdict is Verdict.FAIL:
            yield f"worse than the baseline: {change.metric}: {change.detail}"
    if summary.generator.verdict is not Health.VALID:
        for complaint in (*summary.generator.complaints, *summary.generator.doubts):
            yield f"the generator: {complaint}"


def _findings(findings: Sequence[Any]) -> list[_Finding]:
    """Those that `verify` wrote down; of anything else, nothing."""
    return [
        _Finding(
            str(found.get("verdict")),
            str(found.get("rule")),
            total if isinstance(total := found.get("total"), int) else 0,
            [str(each.get("text")) for each in _mappings(found.get("offences"))],
        )
        for found in _mappings(findings)
    ]


@dataclass(frozen=True)
class _Bar:
    """One claim of a timeline: from its send to its answer, in per cent of the whole."""

    left: float
    width: float
    who: str
    told: str
    instants: str
    illegal: bool
    open: bool


def _timeline(history: Sequence[Any]) -> list[_Bar]:
    """The claims that `verify` put into a history, as bars on one axis; of anything else, none."""
    claims = [each for each in _mappings(history) if {"user", "told"} <= each.keys()]
    instants = [at for each in claims for at in _span(each) if at is not None]
    if not instants:
        return []
    first, last = min(instants), max(instants)
    whole = max(1, last - first) * 1.1  # what had no answer runs on
    bars = []
    for each in claims:
        sent, done = _span(each)
        start = first if sent is None else sent
        end = first + whole if done is None else done
        order = f" order {each['order']}" if each.get("order") else ""
        bars.append(
            _Bar(
                left=round(100 * (start - first) / whole, 2),
                width=max(0.4, round(100 * (end - start) / whole, 2)),
                who=f"user {each['user']}",
                told=f"{each['told']}{order}",
                instants=f"{_micros(sent)} – {_micros(done)}",
                illegal=bool(each.get("illegal")),
                open=done is None,
            )
        )
    return bars


def _span(claim: Mapping[str, Any]) -> tuple[int | None, int | None]:
    sent, done = (claim.get(name) for name in ("sent_us", "done_us"))
    return (sent if isinstance(sent, int) else None, done if isinstance(done, int) else None)


def _micros(at_us: int | None) -> str:
    return "?" if at_us is None else f"{at_us:,} µs"


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    """Those that a list holds, of whatever was found in a summary."""
    every = found if isinstance(found, list | tuple) else []
    return [each for each in every if isinstance(each, Mapping)]


def _data(charts: Sequence[Chart]) -> str:
    """The charts as JSON that no HTML parser can find an end in."""
    text = orjson.dumps([chart.to_json() for chart in charts]).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(scripts: Sequence[str]) -> str:
    hashes = (b64encode(sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> str:
    """plotly.js as the installed package brings it, with the line ends that a browser counts."""
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@cache
def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        headroom=headroom_line,
        ms=ms,
        code=_code,
        colour=colour_of,
        lapse=lapse,
        share=share,
        met=wording.met,
        timeline=_timeline,
        plural=plural,
        percent=lambda part: "–" if part is None else wording.percent(part),
        count=lambda number: "–" if number is None else f"{number:,}",
        rounded=lambda number: f"{number:,.0f}",
        findings=_findings,
        day=_day,
    )
    return environment.get_template("report.html.jinja")


def _shown(value: object) -> object:
    """Text of anybody's without what turns it around, hides it, or is no character of a page."""
    return plain(value) if type(value) is str else value


def _code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    text = plain(text).replace(" %", "\N{NO-BREAK SPACE}%")
    parts = [str(escape(part)) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one of them has no other
        return escape(text)
    told = (f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
    return Markup("".join(told))  # noqa: S704 - each part is escaped


def _day(instant: str) -> str:
    """An ISO instant as a person writes it; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return instant
