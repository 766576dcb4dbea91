"""From a run folder and two URLs to a verdict: read, wait, look, run every check, sum up."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import sub
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from flashsale.model import Verdict
from flashsale.verify.attempts import DUPLICATE, INDETERMINATE, SOLD, SOLD_OUT, read_attempts
from flashsale.verify.checks.answers import (
    accepted_persisted,
    duplicate_truthful,
    duplicates,
    no_phantom,
    promises,
    refusals,
    sold_out_truthful,
)
from flashsale.verify.checks.orders import (
    new_orders,
    one_per_user,
    outside_the_window,
    queue_empty,
    queued,
    second_claims,
    unique_ids,
    window,
)
from flashsale.verify.checks.stock import (
    buyers_beyond,
    mysql_conservation,
    no_oversell,
    no_undersell,
    redis_conservation,
    units,
)
from flashsale.verify.ending import read_ending, span_of
from flashsale.verify.finding import CheckResult, Finding, Judgement, Met, is_met
from flashsale.verify.linearizability import LINEARIZABLE, RULE, linearizable, met
from flashsale.verify.observation import read_baseline
from flashsale.verify.queue import drain
from flashsale.verify.snapshot import SaleSnapshot, Snapshot, read_snapshot
from flashsale.verify.stores import NO_TIME, connect

DRAIN_TIMEOUT_S = 60.0
"""How long the queue may stand still before the judge stops waiting for it: longer than a
take-over (TAKE_OVER_S), with time for the worker to look and to write."""

_LONGEST_MS = 24 * 3600 * 1000
_DIGITS = 3
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


def persisted_latency(snapshot: Snapshot) -> dict[str, Any]:
    """persisted_at − create_time of the run's orders: count, mean, percentiles and max in ms.

    The two instants are of two clocks: `clock_offset_ms` (MySQL's less Redis') stands beside them
    and is not subtracted; what it makes negative counts as 0. A percentile with less than one
    order above it is None.
    """
    waits = Counter[int]()
    for wait, count in _waits(snapshot).items():
        waits[max(0, min(wait, _LONGEST_MS))] += count
    histogram = HdrHistogram(1, _LONGEST_MS, _DIGITS)
    for wait, count in waits.items():
        histogram.record_value(wait, count)
    count = waits.total()
    clocks = snapshot.clocks
    return {
        "count": count,
        "mean": round(sum(w * n for w, n in waits.items()) / count, 3) if count else None,
        **{name: _percentile(histogram, count, p) for name, p in _PERCENTILES.items()},
        "max": max(waits) if waits else None,
        "clock_offset_ms": clocks.offset_ms if clocks else None,
        "clock_error_ms": clocks.error_ms if clocks else None,
    }


def drain_s(snapshot: Snapshot) -> float | None:
    """From the last sale to the last row of the run, in seconds; None without rows."""
    created = persisted = NO_TIME
    for sale in snapshot.sales:
        created = max(created, max(sale.new_times(sale.rows.created_ms), default=NO_TIME))
        persisted = max(persisted, max(sale.new_times(sale.rows.persisted_ms), default=NO_TIME))
    if NO_TIME in (created, persisted):
        return None
    return max(0, persisted - created) / 1000


def _waits(snapshot: Snapshot) -> Counter[int]:
    """How often each wait occurs, ms; the loops over a million are in C."""
    waits = Counter[int]()
    for sale in snapshot.sales:
        rows = sale.rows
        created, persisted = sale.new_times(rows.created_ms), sale.new_times(rows.persisted_ms)
        if NO_TIME in rows.created_ms or NO_TIME in rows.persisted_ms:
            pairs = zip(created, persisted, strict=True)
            waits.update(b - a for a, b in pairs if NO_TIME not in (a, b))
        else:
            waits.update(map(sub, persisted, created))
    return waits


def _percentile(histogram: HdrHistogram, count: int, percentile: float) -> int | None:
    if count * (100 - percentile) < 100:
        return None
    return int(histogram.get_value_at_percentile(percentile))


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """One rule, in a line, the function that judges it, and what it met of what it guards."""

    name: str
    rule: str
    judge: Callable[[Snapshot], list[Finding]]
    meets: Callable[[Snapshot], Met]


CHECKS = (
    RuleCheck("no_oversell", "no more orders than units", no_oversell, buyers_beyond),
    RuleCheck("one_per_user", "one live order a user and voucher", one_per_user, second_claims),
    RuleCheck("unique_ids", "an order id belongs to one order", unique_ids, new_orders),
    RuleCheck("accepted_persisted", "every accepted order is a row", accepted_persisted, promises),
    RuleCheck("no_phantom", "every new order was asked for", no_phantom, new_orders),
    RuleCheck(
        "mysql_conservation",
        "MySQL: initial − stock = live orders",
        mysql_conservation,
        units,
    ),
    RuleCheck(
        "redis_conservation",
        "Redis: stock + set = initial; set = orders",
        redis_conservation,
        units,
    ),
    RuleCheck("queue_empty", "nothing pending, lost unread or dead", queue_empty, queued),
    RuleCheck(
        "duplicate_truthful",
        "who was told “duplicate” has that order",
        duplicate_truthful,
        duplicates,
    ),
    RuleCheck(
        "sold_out_truthful",
        "no sale after a “sold out” arrived",
        sold_out_truthful,
        refusals,
    ),
    RuleCheck("window", "no order outside the sale's window", window, outside_the_window),
    RuleCheck(
        "no_undersell",
        "nobody was told “sold out” with units left",
        no_undersell,
        refusals,
    ),
)


RULES = (*(check.name for check in CHECKS), LINEARIZABLE)
"""All that is judged, by name: the checks, and the second judge."""


def judge(snapshot: Snapshot, required: Collection[str] = ()) -> Judgement:
    """Judge everything. Pure.

    One violation fails the run; without one, a check that could not judge leaves it unknown, and
    so does a run in which nothing was accepted, since it put no rule to the test, or one of the
    `required` checks met nothing of what it guards.
    """
    before = snapshot.before
    if before is not None and before.dataset != snapshot.dataset:
        return unjudged(
            f"the stores hold data set {snapshot.dataset}, the run was on {before.dataset}"
        )
    if not snapshot.still:
        return unjudged("the sale was still moving while it was read; try again when it rests")
    first = [_judge_one(check, snapshot) for check in CHECKS]
    is_broken = any(check.verdict == Verdict.FAIL for check in first)
    second = _second_opinion(snapshot, is_broken)
    if snapshot.rests_on and second.verdict == Verdict.UNKNOWN:  # it knows one kind of sale well
        snapshot = replace(snapshot, absent={**snapshot.absent, LINEARIZABLE: second.detail})
    checks = (*first, second)
    verdict, reason = _whole(checks, snapshot, required)
    return Judgement(
        verdict=verdict,
        checks=checks,
        reason=reason,
        accepted=snapshot.accepted,
        unanswered=snapshot.unanswered,
        persisted=snapshot.persisted,
        drain_s=drain_s(snapshot),
        latency_ms=persisted_latency(snapshot),
        shortfall=snapshot.shortfall,
        rests_on=snapshot.rests_on,
    )


def unjudged(reason: str) -> Judgement:
    """The judgement that nothing could be judged."""
    checks = tuple(CheckResult(name, Verdict.UNKNOWN, reason) for name in RULES)
    return Judgement(Verdict.UNKNOWN, checks, reason)


def after_waiting(judgement: Judgement, waited_s: float) -> Judgement:
    """The judgement with the time that its drain took."""
    return replace(judgement, waited_s=waited_s)


def _judge_one(check: RuleCheck, snapshot: Snapshot) -> CheckResult:
    findings = tuple(check.judge(snapshot))
    result = _result(check.name, check.rule, findings, check.meets(snapshot))
    return _as_far_as_known(result, snapshot)


def _second_opinion(snapshot: Snapshot, is_broken: bool) -> CheckResult:
    """What the second judge says; of a shop that is proved to be wrong not by a long search, which
    finds nothing where units were sold that there were not."""
    if lacks := snapshot.absent.get(LINEARIZABLE):  # another kind of sale, so what it finds is none
        return CheckResult(LINEARIZABLE, Verdict.UNKNOWN, lacks)
    if snapshot.rests_on:
        sales = tuple(_counted(_without_idle_refusals(sale)) for sale in snapshot.sales)
        snapshot = replace(snapshot, sales=sales)
    is_brief = is_broken and snapshot.rests_on
    opinion = linearizable(snapshot, 0) if is_brief else linearizable(snapshot)
    result = _result(LINEARIZABLE, RULE, opinion.findings, met(snapshot))
    return _as_far_as_known(replace(result, history=opinion.timeline), snapshot)


def _without_idle_refusals(sale: SaleSnapshot) -> SaleSnapshot:
    """The sale as a shop may hold it that looks at its stock before it looks at who asks: whoever
    has an order may be told "sold out" there. To leave an answer out accuses nobody."""
    claims = sale.claims
    holders = {claims.user[k] for k, code in enumerate(claims.outcome) if code in _MAY_HOLD}
    kept = [
        k
        for k, code in enumerate(claims.outcome)
        if code != SOLD_OUT or claims.user[k] not in holders
    ]
    return sale if len(kept) == len(claims) else replace(sale, claims=claims.select(kept))


def _counted(sale: SaleSnapshot) -> SaleSnapshot:
    """The sale with the units that a shop without a ledger counted before the run, where its books
    balanced and nobody changed what there is since: then the answers have to fit them."""
    before = sale.before
    if before is None or before.redis_stock is not None or before.mysql is None:
        return sale
    if before.mysql_drift or before.mysql.initial != sale.initial:
        return sale
    return replace(sale, before=replace(before, redis_stock=before.mysql.stock))


_MAY_HOLD = INDETERMINATE | {SOLD, DUPLICATE}


def _as_far_as_known(result: CheckResult, snapshot: Snapshot) -> CheckResult:
    """What a check of a shop that lacks its data is worth: what was found is found."""
    lacks = snapshot.absent.get(result.name)
    if lacks is None or result.verdict == Verdict.FAIL:
        return result
    return CheckResult(result.name, Verdict.UNKNOWN, lacks)


def _result(name: str, rule: str, findings: tuple[Finding, ...], exercised: Met) -> CheckResult:
    verdict = _gravest(finding.verdict for finding in findings)
    told = [finding for finding in findings if finding.verdict == verdict]
    detail = "; ".join(map(str, told)) if told else rule
    return CheckResult(name, verdict, detail, findings, exercised)


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    return next((v for v in (Verdict.FAIL, Verdict.UNKNOWN) if v in found), Verdict.PASS)


def _whole(
    checks: tuple[CheckResult, ...], snapshot: Snapshot, required: Collection[str]
) -> tuple[Verdict, str | None]:
    verdict = _gravest(
        check.verdict
        for check in checks
        if check.name not in snapshot.absent or check.verdict == Verdict.FAIL
    )
    if verdict == Verdict.FAIL:
        return verdict, None
    tells_by_books_alone = bool(snapshot.rests_on and snapshot.persisted)
    if not (snapshot.accepted or tells_by_books_alone):
        return Verdict.UNKNOWN, "no order was accepted, so no rule was put to the test"
    if verdict == Verdict.UNKNOWN:
        doubted = (check.name for check in checks if check.verdict == verdict)
        unknown = ", ".join(name for name in doubted if name not in snapshot.absent)
        return verdict, f"could not judge {unknown}"
    idle = [c for c in checks if c.name in required and not is_met(c.exercised)]
    if idle:
        return Verdict.UNKNOWN, "; ".join(
            f"{check.name} {_why_idle(check, snapshot)}, and that was required" for check in idle
        )
    return verdict, None


def _why_idle(check: CheckResult, snapshot: Snapshot) -> str:
    if lacks := snapshot.absent.get(check.name):
        return f"could not be judged ({lacks})"
    return f"met nothing that it guards ({', '.join(_counts(check.exercised))})"


def _counts(met: Met) -> Iterator[str]:
    return (f"{what}: {count:,}" for what, count in met.items())


_RETURN_LOOK_EVERY_S = 0.5


def examine(
    run_dir: Path,
    ledger_url: str,
    mysql_url: str,
    *,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    required: Collection[str] = (),
    on_look: Callable[[int], None] = lambda left: None,
) -> Judgement:
    """Judge the run recorded in `run_dir` by what the two stores hold now. Writes nothing.

    `required` names checks that have to have met what they guard. `on_look` is told the length of
    the queue at every look. Raises NothingJudgedError where there is no record of attempts,
    UnreachableError where a store does not answer.
    """
    attempts = read_attempts(run_dir)
    before = read_baseline(run_dir)
    ending = read_ending(run_dir)
    with connect(ledger_url, mysql_url) as stores:
        span = span_of(attempts, before, ending)
        waited_s = drain(stores.lanes, span, drain_timeout_s, on_look)
        snapshot = _settled(
            lambda: read_snapshot(stores, attempts, before, ending), drain_timeout_s
        )
    return after_waiting(judge(snapshot, required), waited_s)


def _settled(read: Callable[[], Snapshot], timeout_s: float) -> Snapshot:
    """A snapshot in which every cancelled order's unit is back in the ledger, if given time.

    A cancelled order ends in MySQL first and in the ledger a moment later.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        snapshot = read()
        if not snapshot.returns_owed or time.monotonic() >= deadline_s:
            return snapshot
        time.sleep(_RETURN_LOOK_EVERY_S)
