from pathlib import Path

import orjson
import pytest
from rig.plans import plan_browse, plan_stampede

from flashsale.model import Outcome, Verdict
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import AttemptsFile, read_record
from flashsale.run.parts import SaleFigures
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.scenario import Browse, Load, Sale
from flashsale.storm.figures.judging import answer_checks
from flashsale.storm.figures.sale import AskedVouchers, claims_by_voucher, sale_figures

SOLD, GONE = Answer(Outcome.SOLD, 200, "1"), Answer(Outcome.SOLD_OUT, 200)
MS = 1_000_000
ORIGIN = 5 * MS


def record_of(*attempts: tuple[int | None, int, Answer]) -> Attempts:
    """A record of (sent, done) in ms after the barrier, and the answer."""
    record = Attempts(len(attempts))
    record.origin_ns = ORIGIN
    for i, (sent, done, answer) in enumerate(attempts):
        record.due_ns[i] = ORIGIN
        if sent is not None:
            record.sent_ns[i] = ORIGIN + sent * MS
        record.settle(i, ORIGIN + done * MS, answer)
    return record


RECORD = record_of(
    (0, 10, SOLD), (1, 20, GONE), (2, 30, SOLD), (3, 60, GONE), (None, 9, unsent(""))
)
ASKED = AskedVouchers([1, 2, 3, 4, 5], [7, 7, 8, 8, 8], {7: 1, 8: 2})


def figures(record: Attempts = RECORD, asked: AskedVouchers = ASKED) -> SaleFigures:
    found = sale_figures(claims_by_voucher(record, asked))
    assert found is not None
    return found


def test_totals_are_sums_and_the_slowest() -> None:
    found = figures()
    assert (found.units, found.sold, found.refused, found.left, found.undersold) == (3, 2, 2, 1, 1)
    assert (found.vouchers, found.sold_out_vouchers) == (2, 1)
    assert found.sold_out_ms is None  # voucher 8 has a unit left
    assert found.first_told_ms == 20
    assert found.propagation_ms == 10  # voucher 7: gone at 10, told at 20
    assert found.fairness.buyers == 4  # the fifth was never sent
    assert found.fairness.winners == 2
    assert found.fairness.precedence == 1


def test_each_of_several_vouchers_is_told() -> None:
    seven, eight = figures().by_voucher
    assert (seven.voucher, seven.sold_out_ms, seven.undersold) == (7, 10, 0)
    assert (eight.voucher, eight.sold_out_ms, eight.undersold) == (8, None, 1)


def test_one_voucher_is_the_whole_sale() -> None:
    found = figures(asked=AskedVouchers([1, 2, 3, 4, 5], [7] * 5, {7: 2}))
    assert found.by_voucher == []
    assert found.sold_out_ms == 30
    assert (found.late_sold, found.late_by_ms) == (1, 10)


def test_claims_are_in_the_order_in_which_they_were_sent() -> None:
    record = record_of((5, 10, SOLD), (1, 20, GONE), (3, 30, SOLD))
    (claims,) = claims_by_voucher(record, AskedVouchers([1, 2, 3], [7, 7, 7]))
    assert [claim.user for claim in claims.claims] == [2, 3, 1]
    assert [claim.sent_us for claim in claims.claims] == [1000, 3000, 5000]


@pytest.mark.parametrize(("said", "left", "undersold"), [("sold", 0, 0), ("none", 1, 1)])
def test_what_the_status_route_said_counts(said: str, left: int, undersold: int) -> None:
    record = record_of((0, 10, indeterminate("timeout")), (1, 20, GONE))
    asked = AskedVouchers([1, 2], [7, 7], {7: 1})
    assert figures(record, asked).undersold == 0
    record.resolved[0] = said
    assert (figures(record, asked).left, figures(record, asked).undersold) == (left, undersold)


def test_reads_make_no_sale() -> None:
    plan = plan_browse(Load(model="stampede", users=2, connections=2), Browse(shops=3))
    asked = AskedVouchers([0] * len(plan), [0] * len(plan))
    assert sale_figures(claims_by_voucher(Attempts(2), asked)) is None


def test_a_file_of_attempts_gives_the_same_figures(tmp_path: Path) -> None:
    load = Load(model="stampede", users=4, connections=4)
    plan = plan_stampede(load, Sale(vouchers=2, units=3), [11, 12, 13, 14])
    record = record_of((0, 10, SOLD), (1, 20, GONE), (2, 30, indeterminate("reset")), (3, 60, GONE))
    path = tmp_path / "attempts.jsonl"
    with AttemptsFile(path) as file:
        file.write_plan({"planned": 4, "units": {"1": 2, "2": 1}}, plan)
        file.write_barrier(77)
        file.write_results(record)
        file.write_resolved(2, "sold", "5")
        record.resolved[2] = "sold"
    asked = AskedVouchers(plan.users, plan.vouchers, {1: 2, 2: 1})
    found = read_record(path)
    again = sale_figures(claims_by_voucher(found.attempts, AskedVouchers.of(found)))
    assert again == sale_figures(claims_by_voucher(record, asked))
    assert again is not None
    assert again.sold == 2


def test_an_older_file_does_not_say_how_many_units_there_were(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    lines = [
        {"kind": "header", "schema": 1, "planned": 2},
        {"kind": "plan", "i": 0, "user": 5, "voucher": 7, "at_us": 0},
        {"kind": "plan", "i": 1, "shop": 3, "at_us": 0},
    ]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    asked = AskedVouchers.of(read_record(path))
    assert (list(asked.users), list(asked.vouchers), asked.units) == ([5, 0], [7, 0], {})


def test_what_is_no_file_of_attempts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="header"):
        AskedVouchers.of(read_record(path))


# What the answers alone prove.


def sold(order: str) -> Answer:
    return Answer(Outcome.SOLD, 200, order)


def checks(record: Attempts, asked: AskedVouchers) -> dict[str, tuple[Verdict, str]]:
    found = answer_checks(claims_by_voucher(record, asked))
    return {check.name: (check.verdict, check.detail) for check in found}


def test_a_fair_sale_breaks_no_rule_that_answers_could_prove_broken() -> None:
    record = record_of((0, 10, sold("1")), (1, 20, sold("2")), (2, 30, GONE))
    told = checks(record, AskedVouchers([1, 2, 3], [7, 7, 7], {7: 2}))
    assert list(told) == ["no_oversell", "one_per_user", "unique_ids"]
    assert {verdict for verdict, _ in told.values()} == {Verdict.PASS}


def test_more_sold_than_units_is_a_breach_and_late_orders_count() -> None:
    record = record_of((0, 10, sold("1")), (1, 20, indeterminate("timeout")), (2, 30, GONE))
    asked = AskedVouchers([1, 2, 3], [7, 7, 7], {7: 1})
    assert checks(record, asked)["no_oversell"][0] is Verdict.PASS
    record.resolve(1, "sold", "2")
    verdict, detail = checks(record, asked)["no_oversell"]
    assert verdict is Verdict.FAIL
    assert detail == "2 orders, by the answers alone: voucher 7: 2 orders of 1 units"


def test_units_of_one_voucher_do_not_make_up_for_another() -> None:
    record = record_of((0, 10, sold("1")), (1, 20, sold("2")), (2, 30, GONE))
    told = checks(record, AskedVouchers([1, 2, 3], [7, 7, 8], {7: 1, 8: 5}))
    assert told["no_oversell"][0] is Verdict.FAIL


def test_a_user_with_two_orders_of_a_voucher_is_a_breach() -> None:
    record = record_of((0, 10, sold("1")), (1, 20, sold("2")), (2, 30, sold("3")))
    two = checks(record, AskedVouchers([5, 5, 6], [7, 7, 7], {7: 9}))
    assert two["one_per_user"][0] is Verdict.FAIL
    assert "user 5 was told of orders 1 and 2" in two["one_per_user"][1]
    one_each = checks(record, AskedVouchers([5, 5, 6], [7, 8, 7], {7: 9, 8: 9}))
    assert one_each["one_per_user"][0] is Verdict.PASS


@pytest.mark.parametrize("vouchers", [[7, 7], [7, 8]])
def test_an_order_id_given_to_two_is_a_breach(vouchers: list[int]) -> None:
    record = record_of((0, 10, sold("1")), (1, 20, sold("1")))
    told = checks(record, AskedVouchers([5, 6], vouchers, {7: 9, 8: 9}))
    assert told["unique_ids"][0] is Verdict.FAIL
    assert "order 1 was given to user 6" in told["unique_ids"][1]


def test_what_nobody_knows_is_neither_kept_nor_broken() -> None:
    silent = checks(record_of((0, 10, GONE)), AskedVouchers([5], [7], {7: 1}))
    assert {verdict for verdict, _ in silent.values()} == {Verdict.UNKNOWN}
    unnumbered = checks(record_of((0, 10, sold("1"))), AskedVouchers([5], [7]))
    assert unnumbered["no_oversell"][0] is Verdict.UNKNOWN
    assert unnumbered["one_per_user"][0] is Verdict.PASS
    assert answer_checks([]) == []


@pytest.mark.parametrize("retry", [sold("1"), indeterminate("reset")])
def test_a_retry_of_a_claim_that_had_sold_is_one_sale(retry: Answer) -> None:
    """The first claim's answer is lost; its retry is told of the order, or lost as well."""
    record = record_of((0, 10, indeterminate("timeout")), (20, 30, retry), (40, 50, GONE))
    record.resolve(0, "sold", "1")
    if retry.outcome.is_indeterminate:
        record.resolve(1, "sold", "1")
    asked = AskedVouchers([5, 5, 6], [7, 7, 7], {7: 1})
    found = figures(record, asked)
    assert (found.sold, found.left, found.fairness.winners) == (1, 0, 1)
    assert {verdict for verdict, _ in checks(record, asked).values()} == {Verdict.PASS}


def test_an_order_that_is_told_twice_is_gone_when_the_last_unit_is() -> None:
    """Two clicks are told of one order; the second unit goes later, and only then is it gone."""
    record = record_of((0, 10, sold("1")), (0, 12, sold("1")), (0, 40, sold("2")), (0, 50, GONE))
    asked = AskedVouchers([5, 5, 6, 8], [7] * 4, {7: 2})
    found = figures(record, asked)
    assert (found.sold, found.left, found.sold_out_ms, found.propagation_ms) == (2, 0, 40, 10)
    assert claims_by_voucher(record, asked)[0].told_again == 1
