"""The judge on a real Redis and MariaDB: a good run passes, every planted fault is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig.real_sale import BEGIN_MS, DEAD, END_MS, GROUP, SOLD_MS, STREAM, RealSale, failed
from rig.trips import passed, unnamed

from flashsale.errors import ExitCode, NothingJudgedError, UnreachableError, UsageError
from flashsale.run.folder import BASELINE_FILE
from flashsale.verify import observation, stores
from flashsale.verify.observation import read_baseline, take
from flashsale.verify.stores import read_rows
from flashsale.verify.verdict import examine

BIG = 2**63 - 1


@pytest.fixture
def sale(ledger_url: str, mysql_url: str, tmp_path: Path) -> Iterator[RealSale]:
    """Five units: one sold before the run, three in it, one left; one user shed."""
    sale = RealSale(ledger_url, mysql_url, tmp_path)
    sale.accept(9, 109)
    sale.work()
    sale.baseline()
    for user, order in ((1, 101), (2, BIG), (3, 103)):
        sale.buy(user, order)
    sale.told(4, "shed")
    sale.work()
    yield sale
    sale.close()


def test_a_good_run_passes(sale: RealSale) -> None:
    judgement = sale.judge()
    assert failed(judgement) == {}
    assert (judgement.verdict, judgement.exit_code) == ("pass", ExitCode.PASS)
    assert (judgement.accepted, judgement.persisted, judgement.drain_s) == (3, 3, 0.12)
    assert judgement.latency_ms is not None
    assert (judgement.latency_ms["count"], judgement.latency_ms["max"]) == (3, 120)
    assert abs(judgement.latency_ms["clock_offset_ms"]) < 1000  # one machine, one clock


def test_the_trip_of_a_verdict_names_every_file_that_it_passes(sale: RealSale) -> None:
    with passed() as files:
        assert sale.judge().exit_code == ExitCode.PASS
    assert not unnamed("snapshot", files)


def test_the_judge_writes_nothing(sale: RealSale) -> None:
    before = sale.redis.info("commandstats")
    rows = sale.sql("CHECKSUM TABLE tb_voucher_order, tb_seckill_voucher")
    sale.judge()
    after = sale.redis.info("commandstats")
    used = {name for name in after if after[name] != before.get(name)}
    reading = {"type", "get", "hgetall", "sscan", "hscan", "scard", "hlen", "time", "ping", "hello"}
    plumbing = {"info", "multi", "exec", "client|setinfo", "select", "config|get"}
    streams = {"xinfo|stream", "xinfo|groups", "xrange", "xpending"}
    assert {name.removeprefix("cmdstat_") for name in used} <= reading | plumbing | streams
    assert sale.sql("CHECKSUM TABLE tb_voucher_order, tb_seckill_voucher") == rows


# Faults: what is done to the stores, the check that must fail, and what it must name.


def _row_deleted(sale: RealSale) -> None:
    sale.sql("DELETE FROM tb_voucher_order WHERE id = %s", BIG)


def _mysql_unit_added(sale: RealSale) -> None:
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1")


def _redis_unit_added(sale: RealSale) -> None:
    sale.redis.incr("seckill:stock:1")


def _member_removed(sale: RealSale) -> None:
    sale.redis.srem("seckill:order:1", 2)


def _receipt_removed(sale: RealSale) -> None:
    sale.redis.hdel("seckill:receipt:1", "2")


def _receipt_changed(sale: RealSale) -> None:
    sale.redis.hset("seckill:receipt:1", "2", 555)


def _phantom_row(sale: RealSale) -> None:
    sale.insert(177, 77)


def _id_changed(sale: RealSale) -> None:
    sale.sql("UPDATE tb_voucher_order SET id = 999 WHERE id = %s", BIG)


def _user_changed(sale: RealSale) -> None:
    sale.sql("UPDATE tb_voucher_order SET user_id = 66 WHERE id = %s", BIG)


def _voucher_changed(sale: RealSale) -> None:
    sale.sql("UPDATE tb_voucher_order SET voucher_id = 7 WHERE id = %s", BIG)


def _entry_pending(sale: RealSale) -> None:
    sale.buy(5, 105)
    sale.deliver()


def _entry_undelivered(sale: RealSale) -> None:
    sale.buy(5, 105)


def _dead_letter(sale: RealSale) -> None:
    sale.buy(5, 105)
    ((entry, fields),) = sale.deliver()
    sale.redis.xack(STREAM, GROUP, entry)
    sale.redis.xadd(DEAD, {**fields, "entry": entry, "reason": "short stock"})


def _malformed_dead_letter(sale: RealSale) -> None:
    sale.redis.xadd(DEAD, {"entry": "1-1", "reason": "no valid id", "id": "x"})


def _all_trimmed_unread(sale: RealSale) -> None:
    sale.buy(5, 105)
    sale.redis.xtrim(STREAM, maxlen=0)


def _some_trimmed_unread(sale: RealSale) -> None:
    sale.redis.incrby("seckill:stock:1", 2)
    sale.redis.hincrby("seckill:sale:1", "initial", 2)
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 2, initial_stock = initial_stock + 2")
    for user in (5, 6, 7):
        sale.buy(user, 100 + user)
    sale.redis.xtrim(STREAM, maxlen=1, approximate=False)


def _trimmed_while_pending(sale: RealSale) -> None:
    sale.buy(5, 105)
    sale.deliver()
    sale.redis.xtrim(STREAM, maxlen=0)


def _stream_deleted(sale: RealSale) -> None:
    sale.redis.delete(STREAM)


def _entry_deleted_unread(sale: RealSale) -> None:
    sale.redis.incrby("seckill:stock:1", 1)
    sale.redis.hincrby("seckill:sale:1", "initial", 1)
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1, initial_stock = initial_stock + 1")
    sale.buy(5, 105)
    sale.redis.xdel(STREAM, sale.redis.xinfo_stream(STREAM)["last-generated-id"])
    sale.buy(6, 106)
    sale.work()  # the group has come past it: Redis counts it as read from here on


def _flushed_unread(sale: RealSale) -> None:
    sale.buy(5, 105)
    sale.redis.flushdb()
    sale.redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)


def _sold_after_the_end(sale: RealSale, sold_ms: int | None = None) -> None:
    """By the entry and by the script's time in it; the row says that it was in time."""
    sale.lines.clear()
    sale.open(2, 1, end_ms=sale.now_ms())
    sale.baseline(1, 2)
    sale.told(7, "sold", 207, voucher=2)
    sale.accept(7, 207, voucher=2, sold_ms=sold_ms or sale.now_ms() + 1)
    sale.work()


def _lying_duplicate(sale: RealSale) -> None:
    sale.told(4, "duplicate", 444)


def _oversold(sale: RealSale) -> None:
    for user in (5, 6):
        sale.buy(user, 100 + user)
    for entry, fields in sale.deliver():
        sale.insert(int(fields[b"id"]), int(fields[b"userId"]), take_unit=False)
        sale.redis.xack(STREAM, GROUP, entry)


def _stock_of_a_wrong_type(sale: RealSale) -> None:
    sale.redis.delete("seckill:stock:1")
    sale.redis.rpush("seckill:stock:1", "1")


def _stock_that_is_no_number(sale: RealSale) -> None:
    sale.redis.set("seckill:stock:1", "many")


def _member_that_is_no_user(sale: RealSale) -> None:
    sale.redis.sadd("seckill:order:1", "robert")


def _ledger_flushed(sale: RealSale) -> None:
    sale.redis.delete("seckill:stock:1", "seckill:sale:1", "seckill:order:1", "seckill:receipt:1")


def _cancelled_without_return(sale: RealSale) -> None:
    sale.sql("UPDATE tb_voucher_order SET status = 4 WHERE id = %s", BIG)
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1")


def _turned_away_from_a_unit_left(sale: RealSale) -> None:
    sale.told(8, "sold_out")


def _sold_after_sold_out(sale: RealSale) -> None:
    sale.told(8, "sold_out")
    sale.buy(5, 105)
    sale.work()


def _second_promise(sale: RealSale) -> None:
    sale.told(2, "sold", 888)


def _id_given_twice(sale: RealSale) -> None:
    sale.told(4, "sold", BIG)


@pytest.mark.parametrize(
    ("fault", "check", "named"),
    [
        (_row_deleted, "accepted_persisted", f"order {BIG}, user 2, voucher 1: no row"),
        (_row_deleted, "mysql_conservation", "initial 5 − stock 1 = 4, but 3 live orders"),
        (_row_deleted, "redis_conservation", f"order {BIG}, user 2"),
        (_mysql_unit_added, "mysql_conservation", "stock 2 = 3, but 4 live orders"),
        (_redis_unit_added, "redis_conservation", "stock 2 + order set 4 = 6, but initial 5"),
        (_member_removed, "redis_conservation", f"order {BIG}, user 2"),
        (_receipt_removed, "redis_conservation", "user 2, voucher 1: in the order set without"),
        (_receipt_changed, "redis_conservation", "the receipt names order 555 instead"),
        (_phantom_row, "no_phantom", "order 177, user 77, voucher 1: a row that no claim"),
        (_id_changed, "accepted_persisted", f"order {BIG}, user 2, voucher 1: no row; the user's"),
        (_id_changed, "no_phantom", "order 999, user 2"),
        (_user_changed, "accepted_persisted", "the row is of user 66"),
        (_voucher_changed, "accepted_persisted", "the row is of user 2, voucher 7"),
        (_entry_pending, "queue_empty", "order 105, user 5, voucher 1, entry"),
        (_entry_pending, "queue_empty", " s after 1 deliveries"),
        (_entry_undelivered, "queue_empty", "never delivered"),
        (_dead_letter, "queue_empty", "order 105, user 5, voucher 1, entry"),
        (_dead_letter, "accepted_persisted", "order 105, user 5, voucher 1: a dead letter (short"),
        (_malformed_dead_letter, "queue_empty", "no valid id"),
        (_all_trimmed_unread, "queue_empty", "1 entries were removed before any worker"),
        (_all_trimmed_unread, "accepted_persisted", "order 105, user 5"),
        (_some_trimmed_unread, "queue_empty", "2 entries were removed before any worker"),
        (_trimmed_while_pending, "queue_empty", "its content trimmed"),
        (_stream_deleted, "queue_empty", "stream.orders is gone"),
        (_sold_after_the_end, "window", "order 207, user 7, voucher 2: sold "),
        (_entry_deleted_unread, "queue_empty", "order 105, user 5, voucher 1: its entry is gone"),
        (_flushed_unread, "queue_empty", "stream.orders began anew"),
        (_lying_duplicate, "duplicate_truthful", "order 444, user 4, voucher 1: told"),
        (_oversold, "no_oversell", f"order {BIG}, user 2, voucher 1: 6 orders for 5 units"),
        (_stock_of_a_wrong_type, "redis_conservation", "seckill:stock:1 is a list, not a string"),
        (_stock_that_is_no_number, "redis_conservation", "holds b'many', which is no number"),
        (_member_that_is_no_user, "redis_conservation", "'robert', which is no user id"),
        (_ledger_flushed, "redis_conservation", "the ledger has lost the stock of this sale"),
        (_cancelled_without_return, "redis_conservation", "its unit was not returned"),
        (_turned_away_from_a_unit_left, "no_undersell", "yet 1 of 5 were never sold"),
        (_sold_after_sold_out, "sold_out_truthful", "order 105, user 5"),
        (
            _second_promise,
            "one_per_user",
            "order 888, user 2, voucher 1: promised besides",
        ),
        (_id_given_twice, "unique_ids", f"order {BIG}, user 4, voucher 1: also the id of an order"),
    ],
)
def test_a_planted_fault_is_named(
    sale: RealSale, fault: Callable[[RealSale], None], check: str, named: str
) -> None:
    fault(sale)
    judgement = sale.judge()
    assert judgement.exit_code == ExitCode.VIOLATION
    assert named in failed(judgement)[check]


def _second_row(sale: RealSale) -> None:
    sale.sql("ALTER TABLE tb_voucher_order DROP INDEX uk_live_order")
    sale.insert(802, 2)


TWELVE: dict[str, tuple[Callable[[RealSale], None], set[str]]] = {
    "no_oversell": (_oversold, {"mysql_conservation", "linearizable"}),
    "one_per_user": (_second_row, {"no_phantom", "redis_conservation"}),
    "unique_ids": (_id_given_twice, {"accepted_persisted"}),
    "accepted_persisted": (_row_deleted, {"mysql_conservation", "redis_conservation"}),
    "no_phantom": (_phantom_row, {"redis_conservation"}),
    "mysql_conservation": (_mysql_unit_added, set()),
    "redis_conservation": (_redis_unit_added, set()),
    "queue_empty": (_entry_pending, set()),
    "duplicate_truthful": (_lying_duplicate, {"linearizable"}),
    "sold_out_truthful": (_sold_after_sold_out, {"linearizable"}),
    "window": (_sold_after_the_end, set()),
    "no_undersell": (_turned_away_from_a_unit_left, {"linearizable"}),
}
"""A corruption for each check, and what cannot but be wrong besides: the books of a store that lost
a row, the order of answers that were lies."""


@pytest.mark.parametrize("owner", TWELVE)
def test_a_planted_corruption_is_the_verdict_of_the_check_that_owns_it(
    sale: RealSale, owner: str
) -> None:
    corrupt, besides = TWELVE[owner]
    try:
        corrupt(sale)
        judgement = sale.judge()
    finally:
        if corrupt is _second_row:
            sale.sql("DELETE FROM tb_voucher_order")
            sale.sql(
                "ALTER TABLE tb_voucher_order ADD UNIQUE uk_live_order (user_id, voucher_id, live)"
            )
    assert judgement.exit_code == ExitCode.VIOLATION
    assert set(failed(judgement)) == {owner} | besides


@pytest.mark.parametrize("fault", [_member_removed, _receipt_removed, _malformed_dead_letter])
def test_a_fault_fails_no_check_but_its_own(
    sale: RealSale, fault: Callable[[RealSale], None]
) -> None:
    fault(sale)
    assert len(failed(sale.judge())) == 1


# Good histories that look odd.


def test_a_group_that_a_replica_counted_too_low_has_lost_nothing(sale: RealSale) -> None:
    """As one is after a failover: a replica is told what was read, and not how many that were."""
    last = sale.redis.xinfo_stream(STREAM)["last-generated-id"]
    sale.redis.execute_command("XGROUP", "SETID", STREAM, GROUP, last, "ENTRIESREAD", "1")
    (group,) = sale.redis.xinfo_groups(STREAM)
    assert group["lag"] > 0, "of entries that nobody waits for"
    _dead_letter(sale)  # else it would be a remark, about a loss that was made good
    assert "removed before any worker" not in failed(sale.judge())["queue_empty"]


def test_a_cancelled_and_a_refunded_order_are_fine(sale: RealSale) -> None:
    for user, order, status in ((1, 101, 4), (2, BIG, 6)):
        sale.sql("UPDATE tb_voucher_order SET status = %s WHERE id = %s", status, order)
        sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1")
        sale.redis.srem("seckill:order:1", user)
        sale.redis.hdel("seckill:receipt:1", str(user))
        sale.redis.incr("seckill:stock:1")
    sale.buy(1, 201)
    sale.work()
    assert sale.judge().verdict == "pass"


def test_an_unanswered_claim_that_sold_is_fine(sale: RealSale) -> None:
    sale.told(5, "indeterminate")
    sale.accept(5, 105)
    sale.work()
    judgement = sale.judge()
    assert judgement.verdict == "pass"
    assert (judgement.accepted, judgement.persisted) == (3, 4)


def test_a_second_run_on_the_same_sale_is_judged_by_itself(sale: RealSale) -> None:
    sale.sql("UPDATE tb_seckill_voucher SET stock = 0")  # the first run left its books off
    sale.redis.srem("seckill:order:1", 3)
    sale.lines.clear()
    sale.baseline()
    sale.told(1, "duplicate", 101)
    sale.buy(6, 106)
    sale.redis.xack(STREAM, GROUP, sale.deliver()[0][0])
    sale.insert(106, 6, take_unit=False)
    judgement = sale.judge()
    assert set(failed(judgement)) == {"mysql_conservation"}  # the unit that insert() did not take


def test_orders_of_an_earlier_run_may_become_rows_in_this_one(sale: RealSale) -> None:
    sale.accept(8, 108)
    sale.lines.clear()
    sale.baseline()
    before = read_baseline(sale.run_dir)
    assert before is not None
    assert before.sales[1].queued == {108}
    sale.work()
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1, initial_stock = initial_stock + 1")
    sale.redis.incr("seckill:stock:1")
    sale.redis.hincrby("seckill:sale:1", "initial", 1)
    sale.buy(5, 105)
    sale.work()
    judgement = sale.judge()
    assert failed(judgement) == {}
    assert judgement.persisted == 1


def test_a_pending_entry_and_a_dead_letter_from_before_are_not_this_runs(sale: RealSale) -> None:
    sale.redis.xadd(STREAM, {"userId": 50, "voucherId": 3, "id": 150, "ms": 1})
    sale.deliver()
    sale.redis.xadd(DEAD, {"userId": 51, "voucherId": 1, "id": 151, "reason": "old"})
    sale.lines.clear()
    sale.baseline()
    sale.buy(5, 105)
    sale.work()
    assert sale.judge().verdict == "pass"


def test_a_dead_letter_of_another_voucher_is_not_this_runs(sale: RealSale) -> None:
    sale.redis.xadd(DEAD, {"userId": 51, "voucherId": 3, "id": 151, "reason": "not ours"})
    assert sale.judge().verdict == "pass"


def test_several_vouchers_are_judged_each(sale: RealSale) -> None:
    sale.open(2, 3)
    sale.baseline(1, 2)
    sale.lines.clear()
    sale.buy(1, 201, voucher=2)
    sale.buy(5, 205, voucher=1)
    sale.work()
    assert sale.judge().verdict == "pass"
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = 2")
    assert "voucher 2: initial 3" in failed(sale.judge())["mysql_conservation"]


def test_a_run_that_sold_nothing_is_unknown(sale: RealSale) -> None:
    sale.lines.clear()
    sale.baseline()
    sale.told(1, "duplicate", 101)
    judgement = sale.judge()
    assert judgement.exit_code == ExitCode.NOTHING_JUDGED


def test_without_a_baseline_older_orders_are_in_doubt(sale: RealSale) -> None:
    (sale.run_dir / BASELINE_FILE).unlink()
    judgement = sale.judge()
    assert judgement.exit_code == ExitCode.NOTHING_JUDGED
    assert judgement.reason == "could not judge no_phantom"


def test_an_order_that_was_queued_again_is_not_sold_again(sale: RealSale) -> None:
    _sold_after_the_end(sale, SOLD_MS)
    assert sale.judge().verdict == "pass"


def test_the_clock_of_a_row_convicts_nobody(sale: RealSale) -> None:
    sale.sql("UPDATE tb_voucher_order SET create_time = '2027-01-01'")
    assert sale.judge().verdict == "pass"


def test_a_note_that_an_entry_is_gone_is_a_loss_and_no_dead_letter(sale: RealSale) -> None:
    sale.redis.xadd("stream.orders.dead", {"entry": "1-1", "reason": "the entry was removed"})
    judgement = sale.judge()
    assert (judgement.verdict, failed(judgement)) == ("pass", {})
    told = {check.name: check.detail for check in judgement.checks}["queue_empty"]
    assert "1 entries were removed that a worker had been given" in told
    _row_deleted(sale)
    assert "that a worker had been given" in failed(sale.judge())["queue_empty"]


def test_a_run_that_was_flushed_and_rebuilt_passes_with_a_remark(sale: RealSale) -> None:
    _flushed_unread(sale)
    sale.insert(105, 5)  # from here on what a rebuild restores
    sale.redis.set("seckill:stock:1", 0)
    terms = {"begin": BEGIN_MS, "end": END_MS, "state": "open", "initial": 5}
    sale.redis.hset("seckill:sale:1", mapping=terms)
    for order, user in sale.sql("SELECT id, user_id FROM tb_voucher_order"):
        sale.redis.sadd("seckill:order:1", user)
        sale.redis.hset("seckill:receipt:1", str(user), order)
    judgement = sale.judge()
    assert (judgement.verdict, failed(judgement)) == ("pass", {})
    told = {check.name: check.detail for check in judgement.checks}["queue_empty"]
    assert told.startswith("lost unread, and restored since: stream.orders began anew")


LAST = f"{2**64 - 1}-{2**64 - 1}"


@pytest.mark.parametrize("state", ["waits", "pending", "acknowledged", "gone"])
def test_the_last_possible_id_is_an_answer_and_no_error(sale: RealSale, state: str) -> None:
    """Nothing can come after it, and Redis calls it an error to ask."""
    sale.redis.xadd(STREAM, {"poison": "1"}, id=LAST)
    if state != "waits":
        ((entry, _),) = sale.deliver()
        assert entry.decode() == LAST
    if state in ("acknowledged", "gone"):
        sale.redis.xack(STREAM, GROUP, LAST)
    if state == "gone":
        sale.redis.xdel(STREAM, LAST)
    judgement = sale.judge()
    if state in ("acknowledged", "gone"):
        assert judgement.verdict == "pass"
        sale.lines.clear()
        sale.baseline()  # everything is before it
        sale.end()
        sale.told(1, "duplicate", 101)
        assert failed(sale.judge()) == {}
    else:
        assert f"entry {LAST}" in failed(judgement)["queue_empty"]


# A later run on the same sale.


LATER = "2099-01-01 00:00:00.000"


def sell_on(sale: RealSale) -> None:
    """What the next storm leaves behind: a row, an order in the queue, a dead letter, a restock."""
    sale.end()
    sale.sql("UPDATE tb_seckill_voucher SET stock = stock + 5, initial_stock = initial_stock + 5")
    sale.redis.incrby("seckill:stock:1", 5)
    sale.redis.hincrby("seckill:sale:1", "initial", 5)
    sale.accept(21, 121)
    sale.work(sold_at=LATER)
    sale.accept(22, 122)
    ((entry, fields),) = sale.deliver()
    sale.redis.xack(STREAM, GROUP, entry)
    sale.redis.xadd(DEAD, {**fields, "entry": entry, "reason": "short stock"})
    sale.accept(23, 123)
    sale.deliver()
    sale.accept(24, 124)


def test_a_later_run_does_not_disturb_the_judgement(sale: RealSale) -> None:
    sell_on(sale)
    judgement = sale.judge()
    assert failed(judgement) == {}
    assert (judgement.verdict, judgement.persisted, judgement.waited_s < 0.3) == ("pass", 3, True)
    told = {check.name: check.detail for check in judgement.checks}["no_phantom"]
    assert told == "sold after this run, so not judged here: voucher 1: 4 orders"


@pytest.mark.parametrize(
    ("fault", "check", "named"),
    [
        (_row_deleted, "accepted_persisted", f"order {BIG}, user 2, voucher 1: no row"),
        (_mysql_unit_added, "mysql_conservation", "stock 2 = 3, but 4 live orders"),
        (_redis_unit_added, "redis_conservation", "stock 2 + order set 4 = 6, but initial 5"),
        (_member_removed, "redis_conservation", f"order {BIG}, user 2"),
        (_phantom_row, "no_phantom", "order 177, user 77, voucher 1: a row that no claim"),
        (_oversold, "no_oversell", f"order {BIG}, user 2, voucher 1: 6 orders for 5 units"),
        (_turned_away_from_a_unit_left, "no_undersell", "yet 1 of 5 were never sold"),
        (_dead_letter, "queue_empty", "order 105, user 5, voucher 1, entry"),
        (_malformed_dead_letter, "queue_empty", "no valid id"),
        (_entry_pending, "queue_empty", "order 105, user 5, voucher 1, entry"),
    ],
)
def test_a_fault_is_still_found_after_a_later_run(
    sale: RealSale, fault: Callable[[RealSale], None], check: str, named: str
) -> None:
    fault(sale)
    sell_on(sale)
    assert named in failed(sale.judge())[check]


def test_a_late_sale_of_a_claim_without_an_answer_is_this_runs(sale: RealSale) -> None:
    sale.told(5, "indeterminate")
    sale.end(claim_ms=60_000)
    sale.accept(5, 105)
    sale.work()
    judgement = sale.judge()
    assert (judgement.verdict, judgement.persisted) == ("pass", 4)


# The queue.


def test_the_judge_waits_for_a_worker_that_works(sale: RealSale) -> None:
    sale.buy(5, 105)
    looks: list[int] = []

    def on_look(left: int) -> None:
        looks.append(left)
        if len(looks) == 2:
            sale.work()

    sale.write()
    judgement = examine(
        sale.run_dir, sale.ledger_url, sale.mysql_url, drain_timeout_s=30, on_look=on_look
    )
    assert looks == [1, 1, 0]
    assert judgement.verdict == "pass"
    assert judgement.waited_s > 0


def test_a_stream_without_a_group_is_a_queue_that_nobody_reads(sale: RealSale) -> None:
    sale.buy(5, 105)
    sale.redis.xgroup_destroy(STREAM, GROUP)
    judgement = sale.judge()
    assert "order 105" in failed(judgement)["queue_empty"]
    assert "the group g1 of stream.orders is gone" in failed(judgement)["queue_empty"]
    verdicts = {check.name: check.verdict for check in judgement.checks}
    assert verdicts["accepted_persisted"] == "unknown"


def test_a_cancellation_that_is_under_way_is_waited_for(
    sale: RealSale, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cancelled_without_return(sale)
    pauses: list[float] = []

    def give_back(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 1:
            sale.redis.srem("seckill:order:1", 2)
            sale.redis.hdel("seckill:receipt:1", "2")
            sale.redis.incr("seckill:stock:1")

    monkeypatch.setattr("flashsale.verify.verdict.time.sleep", give_back)
    assert sale.judge(drain_timeout_s=30).verdict == "pass"
    assert pauses == [0.5]


@pytest.mark.parametrize(("sales", "verdict"), [(1, "pass"), (100, "unknown")])
def test_a_sale_that_moves_while_it_is_read_is_read_again(
    sale: RealSale, monkeypatch: pytest.MonkeyPatch, sales: int, verdict: str
) -> None:
    orders = iter(range(sales))

    def read_rows_while_selling(*of_what: Any) -> Any:
        rows = read_rows(*of_what)
        if (n := next(orders, None)) is not None:
            sale.redis.hincrby("seckill:sale:1", "initial", 1)
            sale.redis.incr("seckill:stock:1")
            sale.sql(
                "UPDATE tb_seckill_voucher SET stock = stock + 1, initial_stock = initial_stock + 1"
            )
            sale.accept(50 + n, 1050 + n)
            sale.work()
        return rows

    for user in range(50, 50 + sales):
        sale.told(user, "indeterminate")
    monkeypatch.setattr(observation, "read_rows", read_rows_while_selling)
    judgement = sale.judge()
    assert judgement.verdict == verdict
    assert failed(judgement) == {}


def test_another_vouchers_sales_do_not_disturb_the_reading(
    sale: RealSale, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale.open(2, 100)

    def read_rows_while_selling(*of_what: Any) -> Any:
        rows = read_rows(*of_what)
        sale.accept(5, 105, voucher=2)
        return rows

    monkeypatch.setattr(observation, "read_rows", read_rows_while_selling)
    assert sale.judge().verdict == "pass"


def test_rows_are_read_page_by_page(sale: RealSale, monkeypatch: pytest.MonkeyPatch) -> None:
    at_two = stores._ROWS.replace(f"LIMIT {stores._ROWS_AT_ONCE}", "LIMIT 2")
    assert at_two != stores._ROWS
    sale.open(2, 3)
    sale.accept(7, 50, voucher=2)
    sale.work()
    monkeypatch.setattr(stores, "_ROWS", at_two)
    rows = read_rows(sale.mysql, [1, 2])
    assert sorted(zip(rows[1].order, rows[1].user, strict=True)) == [
        (101, 1), (103, 3), (109, 9), (BIG, 2),
    ]  # fmt: skip
    assert (list(rows[2].order), list(rows[2].user)) == ([50], [7])


# Trouble.


def test_rows_that_mysql_cuts_short_are_no_rows(
    sale: RealSale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_TEXT_BYTES_MAX", 60)
    with pytest.raises(UnreachableError, match="raise max_allowed_packet"):
        read_rows(sale.mysql, [1])


def test_another_data_set_is_not_judged(sale: RealSale) -> None:
    sale.sql("UPDATE tb_dataset SET id = %s", "b" * 32)
    judgement = sale.judge()
    assert judgement.exit_code == ExitCode.NOTHING_JUDGED
    assert judgement.reason is not None
    assert "b" * 32 in judgement.reason


def test_a_database_without_tables_says_so(
    sale: RealSale, ledger_url: str, blank_mysql_url: str
) -> None:
    with pytest.raises(NothingJudgedError, match="holds no sale"):
        take(ledger_url, blank_mysql_url, [1])


def test_stores_that_do_not_answer_are_named_without_their_password(sale: RealSale) -> None:
    nowhere = "mysql://root:s3cret@127.0.0.1:1/flashsale"
    with pytest.raises(UnreachableError, match="start it, or name another") as raised:
        take(sale.ledger_url, nowhere, [1])
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(UnreachableError, match=r"redis://127\.0\.0\.1:1/0 cannot be read"):
        take("redis://:s3cret@127.0.0.1:1/0", sale.mysql_url, [1])


@pytest.mark.parametrize(
    ("ledger", "mysql", "option"),
    [
        ("http://127.0.0.1", None, "--ledger-url"),
        (None, "postgres://127.0.0.1/x", "--mysql-url"),
        (None, "mysql://127.0.0.1", "--mysql-url"),
    ],
)
def test_urls_that_are_none_are_named(
    sale: RealSale, ledger: str | None, mysql: str | None, option: str
) -> None:
    with pytest.raises(UsageError, match=option):
        take(ledger or sale.ledger_url, mysql or sale.mysql_url, [1])


def test_the_window_is_read_in_utc(sale: RealSale) -> None:
    sale.baseline()
    before = read_baseline(sale.run_dir)
    assert before is not None
    mysql = before.sales[1].mysql
    assert mysql is not None
    assert mysql.end_ms == END_MS == before.sales[1].end_ms
