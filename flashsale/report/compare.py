"""Two runs beside each other: which figures became worse, and whether by more than is allowed.

Compared are the response latency (p50, p95, p99), the rate and the share of attempts that went
wrong: what a caller feels, and what a target carries. What the generator cost itself is no part of
it, since that says nothing of the target.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction

from flashsale.model import Verdict, ending
from flashsale.run.histogram import SAMPLES_BEYOND
from flashsale.run.parts import Health, Latency
from flashsale.run.summary import Change, Comparison, Summary
from flashsale.scenario.thresholds import ERROR, beside

LATENCY_FLOOR_MS = Fraction(1, 4)
"""A latency that grew by less is not called worse: that is a turn of the scheduler."""

ANSWERS_MIN = 100
"""A rate of fewer answers is mostly chance."""

_PERCENTILES = ("p50", "p95", "p99")


def ensure_comparable(before: Summary, scenario: str, endpoints: Collection[str]) -> None:
    """See that `before` can be the baseline of a run of `scenario` that asks for `endpoints`.

    Raises ValueError with one line: it is of another scenario, or did not do what its plan said.
    """
    if before.scenario != scenario:
        raise ValueError(f"it is a run of {before.scenario!r}, and this one is of {scenario!r}")
    if {*asked(before)} != {*endpoints}:
        told = (" and ".join(sorted(names)) for names in (asked(before), endpoints))
        raise ValueError("it asked for {}, and this one asks for {}".format(*told))
    if before.load.interrupted_by is not None or before.aborted:
        raise ValueError("it was cut short, so its figures are of a part")
    if before.generator.verdict is Health.INVALID:
        complaint = before.generator.complaints[0] if before.generator.complaints else "no reason"
        raise ValueError(f"it is INVALID ({complaint}), so its figures are the generator's")


def compare(before: Summary, after: Summary, max_regress: float, folder: str) -> Comparison:
    """What became of `before` in `after`; `folder` is where `before` lies. Pure.

    A figure fails when it is worse by more than `max_regress`, a share of 1.
    """
    return Comparison(
        run=before.run,
        folder=folder,
        max_regress=max_regress,
        warnings=_warnings(before, after),
        changes=list(_changes(before, after, _exact(max_regress))),
    )


def _warnings(before: Summary, after: Summary) -> list[str]:
    found = []
    if before.plan_hash != after.plan_hash:
        found.append("the plans differ (users, vouchers, instants or seed): not the same requests")
    for name, run in (("baseline", before), ("run", after)):
        if run.generator.verdict is Health.SUSPECT:
            found += [f"the {name}'s generator is SUSPECT: {it}" for it in run.generator.doubts]
    if before.machine is not None and after.machine is not None:
        found += [f"the machine: {it}" for it in after.machine.differences(before.machine)]
    return found


def asked(summary: Summary) -> Collection[str]:
    """The endpoints that a run asked for; runs of old do not name them."""
    return summary.endpoints or ("browse" if summary.load.asked == "reads" else "buy",)


@dataclass(frozen=True)
class _Part:
    """What a caller of one endpoint felt."""

    response: Latency
    planned: int
    wrong: int


def _part(summary: Summary, endpoint: str) -> _Part:
    found = summary.endpoints.get(endpoint)
    outcomes = found.outcomes if found else summary.load.outcomes
    return _Part(
        response=found.response if found else summary.latency_ms.response,
        planned=found.planned if found else summary.load.planned,
        wrong=sum(n for name, n in outcomes.items() if not ending(name).is_expected),
    )


def _changes(before: Summary, after: Summary, max_regress: Fraction) -> Iterator[Change]:
    for endpoint in asked(after):
        old, new = _part(before, endpoint), _part(after, endpoint)
        yield from _latencies(endpoint, old.response, new.response, max_regress)
        yield _errors(f"{endpoint}.{ERROR}.share", old, new, max_regress)
    rates = before.load.rate_per_s, after.load.rate_per_s
    if min(run.latency_ms.response.count for run in (before, after)) < ANSWERS_MIN:
        yield _unknown("rate", "/s", *rates, f"fewer than {ANSWERS_MIN} answers")
    else:
        old_rate, new_rate = map(_exact, rates)
        worse = new_rate < old_rate * (1 - max_regress)
        yield _change("rate", "/s", (old_rate, new_rate), max_regress, worse)


def _latencies(
    endpoint: str, before: Latency, after: Latency, max_regress: Fraction
) -> Iterator[Change]:
    for name in _PERCENTILES:
        metric = f"{endpoint}.response.{name}"
        old, new = getattr(before, name), getattr(after, name)
        if old is None or new is None:
            which = "before" if old is None else "now"
            yield _unknown(metric, "ms", old, new, f"too few samples {which}")
            continue
        was, became = _exact(old), _exact(new)
        worse = became > was * (1 + max_regress) and became - was > LATENCY_FLOOR_MS
        yield _change(metric, "ms", (was, became), max_regress, worse)


def _errors(metric: str, before: _Part, after: _Part, max_regress: Fraction) -> Change:
    if not (before.planned and after.planned):
        which = "now" if before.planned else "before"
        return _unknown(metric, "%", None, None, f"nothing was planned {which}")
    old, new = (Fraction(part.wrong, part.planned) for part in (before, after))
    more = (new - old) * after.planned
    worse = new > old * (1 + max_regress) and more >= SAMPLES_BEYOND
    return _change(metric, "%", (old, new), max_regress, worse)


def _exact(figure: float) -> Fraction:
    """The decimal fraction that a summary has written."""
    return Fraction(str(figure))


def _change(
    metric: str, unit: str, figures: tuple[Fraction, Fraction], max_regress: Fraction, worse: bool
) -> Change:
    before, after = figures
    change = (after - before) / before if before else None
    if after == before:
        told = "no change"
    elif change is None:
        told = "from nothing"
    else:
        size = beside(100 * abs(change), 100 * max_regress, 1)
        told = f"{'-' if change < 0 else '+'}{size}%"
    return Change(
        metric=metric,
        unit=unit,
        before=round(float(before), 6),
        after=round(float(after), 6),
        change=None if change is None else round(float(change), 4),
        verdict=Verdict.FAIL if worse else Verdict.PASS,
        detail=told,
    )


def _unknown(metric: str, unit: str, before: float | None, after: float | None, why: str) -> Change:
    return Change(
        metric=metric, unit=unit, before=before, after=after, change=None,
        verdict=Verdict.UNKNOWN, detail=why,
    )  # fmt: skip
