"""Every way to answer badly is recorded as what it is, and accuses no sale that is honest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from rig.faulty_sale import Asked, FaultySale
from rig.judged_storm import JudgedStorm, Verdict
from rig.scripted_sale import SHED, SOLD_OUT, Act, http, sold

Way = Callable[[int], Act]
"""How an order of this id is answered; 0 where none was made."""
SOLD, NONE = "sold", "none"


def _rejected(outcome: str, status: int = 200) -> Way:
    return lambda _: Act(http(status, b'{"success":false}', {"x-outcome": outcome}))


@dataclass(frozen=True)
class Case:
    """A bad answer, and what the record must say of it: outcome, error, and what was learned."""

    name: str
    sells: bool
    way: Way
    outcome: str
    error: str | None = None
    resolved: str | None = None


CASES = (
    Case("reset before a sale", False, lambda _: Act(then="reset"), "indeterminate", "reset", NONE),
    Case("reset after a sale", True, lambda _: Act(then="reset"), "indeterminate", "reset", SOLD),
    Case("closed unanswered", True, lambda _: Act(then="close"), "indeterminate", "reset", SOLD),
    Case(
        "cut in its head",
        True,
        lambda order: Act(sold(order)[:30], then="close"),
        "indeterminate",
        "truncated",
        SOLD,
    ),
    Case(
        "cut in its body",
        True,
        lambda order: Act(sold(order)[:-5], then="close"),
        "indeterminate",
        "truncated",
        SOLD,
    ),
    Case("no HTTP", True, lambda _: Act(b"nonsense\r\n\r\n"), "indeterminate", "malformed", SOLD),
    Case("no answer", True, lambda _: Act(), "indeterminate", "timeout", SOLD),
    Case(
        "a late answer",
        True,
        lambda order: Act(sold(order), delay_s=0.5),
        "indeterminate",
        "timeout",
        SOLD,
    ),
    Case("502", True, lambda _: Act(http(502, b"<html>")), "indeterminate", "http_502", SOLD),
    Case("504", False, lambda _: Act(http(504)), "indeterminate", "http_504", NONE),
    Case(
        "an id that is none",
        True,
        lambda _: Act(http(200, b"{}", {"x-outcome": "sold", "x-order-id": "soon"})),
        "unknown",
        "order_id",
        SOLD,
    ),
    Case("sold without an id", True, _rejected("sold"), "unknown", "order_id", SOLD),
    Case("an outcome that is none", False, _rejected("maybe"), "unknown", "outcome", NONE),
    Case("outcome unknown", True, _rejected("unknown", 503), "unknown", "unknown", SOLD),
    Case(
        "two answers to one claim",
        True,
        lambda order: Act(sold(order) + sold(order + 7)),
        "sold",
    ),
    Case("a good answer after two", True, lambda order: Act(sold(order)), "sold"),
    Case("shed", False, lambda _: Act(SHED), "shed"),
    Case("unauthorized", False, lambda _: Act(http(401)), "refused", "http_401"),
    Case("too many", False, lambda _: Act(http(429)), "rate_limited"),
    Case("not loaded", False, _rejected("not_loaded", 404), "not_loaded"),
    Case("not open", False, _rejected("not_open"), "not_open"),
    Case("ended", False, _rejected("ended"), "ended"),
    Case("paused", False, _rejected("paused"), "paused"),
    Case("sold out", False, lambda _: Act(SOLD_OUT), "sold_out"),
)
UNITS = sum(case.sells for case in CASES)


def answer_badly(sale: FaultySale, asked: Asked) -> Act:
    case = CASES[asked.turn]
    return case.way(sale.market.sell(1, asked.user) if case.sells else 0)


@dataclass(frozen=True)
class Trial:
    """What the storm wrote down, by the place in the plan, and what the judge said."""

    results: Mapping[int, dict[str, Any]]
    resolved: Mapping[int, dict[str, Any]]
    orders: Mapping[int, int]
    verdict: Verdict


@pytest.fixture(scope="module")
def trial(open_desk: Callable[[str], JudgedStorm]) -> Trial:
    """All cases, one buyer each, one after another on one connection."""
    desk = open_desk("answers")
    market = desk.market(units=UNITS)
    desk.scenario(users=len(CASES), units=UNITS)
    desk.storm(FaultySale(market, {1: answer_badly}), "run")
    market.close()
    users = {line["i"]: line["user"] for line in desk.lines("run", "plan")}
    held = market_orders(desk)
    return Trial(
        results={line["i"]: line for line in desk.lines("run", "result")},
        resolved={line["i"]: line for line in desk.lines("run", "resolved")},
        orders={i: held[user] for i, user in users.items() if user in held},
        verdict=desk.verify("run"),
    )


def market_orders(desk: JudgedStorm) -> dict[int, int]:
    """Order by user, as the ledger has them."""
    from redis import Redis

    with Redis.from_url(desk.ledger_url, decode_responses=True) as ledger:
        receipts: Any = ledger.hgetall("seckill:receipt:1")
    return {int(user): int(order) for user, order in receipts.items()}


@pytest.mark.parametrize("turn", range(len(CASES)), ids=[case.name for case in CASES])
def test_a_bad_answer_is_recorded_as_what_it_is(trial: Trial, turn: int) -> None:
    case, result = CASES[turn], trial.results[turn]
    assert (result["outcome"], result.get("error")) == (case.outcome, case.error)
    order = str(trial.orders[turn]) if case.sells else None
    if case.outcome == "sold":
        assert result["order"] == order
    if case.resolved is None:
        assert turn not in trial.resolved
    else:
        learned = trial.resolved[turn]
        assert (learned["outcome"], learned["order"]) == (case.resolved, order)


def test_a_sale_that_was_honest_is_accused_of_nothing(trial: Trial) -> None:
    assert trial.verdict.failed == set()
    assert {check["verdict"] for check in trial.verdict.document["checks"]} == {"pass"}
    assert trial.verdict.document["orders"]["persisted"] == UNITS
