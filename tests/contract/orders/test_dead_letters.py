"""Dead letters, settled on real stores: tried again or given back, once, whatever is cut short."""

from collections.abc import Iterator

import pytest
import structlog
from redis import Redis
from rig.killed import each_kill, killed
from rig.rows import add_order, add_sale, order_row, orders, units
from rig.sale import claim, everything, open_sale, stock
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import UsageError
from flashsale.locks.batch import BatchLocks
from flashsale.model import PayStatus
from flashsale.orders.dead_letters import DeadLetters, Letter, Settled, chosen, read_letters
from flashsale.orders.stream import LOST, Malformed, OrderStream
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.trace import LOST as LOST_ORDER
from flashsale.orders.trace import NOWHERE, trace
from flashsale.orders.worker import Worker
from flashsale.seckill import journal
from flashsale.seckill.journal import Action
from flashsale.settings import LifecycleSettings, WorkerSettings
from flashsale.storage.mysql import transaction

ORDER, USER = 70, 7


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(autouse=True)
def _sale(ledger: Redis, pool: Engine) -> None:
    """The ledger has 10 units; MySQL has none yet."""
    open_sale(ledger, units=10)
    add_sale(pool, stock=0, initial=10)
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)


@pytest.fixture
def work(ledger: Redis, cache: Redis, pool: Engine) -> Worker:
    locks = BatchLocks(cache, "c1", lease_ms=30_000, renew_ms=10_000)
    given = WorkerSettings(block_ms=1, linger_ms=0)
    return Worker(OrderStream(ledger, "c1"), pool, locks, given)


@pytest.fixture
def letter(ledger: Redis, work: Worker) -> Letter:
    """That of an order which was sold, and for which MySQL had no unit."""
    return die(ledger, work, USER, ORDER)


def die(ledger: Redis, work: Worker, user: int, order: int) -> Letter:
    assert claim(ledger, (user, order)) == [(0, str(order))]
    assert work.run_once().dead == 1
    return chosen(read_letters(ledger), [str(order)])[0]


def settling(ledger: Redis, pool: Engine) -> DeadLetters:
    return DeadLetters(pool, ledger, "ann", claim_timeout_ms=-1_000_000)


def mend(pool: Engine, stock: int = 10) -> None:
    with pool.begin() as connection:
        connection.execute(text("UPDATE tb_seckill_voucher SET stock = :n"), {"n": stock})


def test_what_a_letter_says(ledger: Redis, letter: Letter) -> None:
    assert letter.order is not None
    assert (letter.order.order_id, letter.order.user_id) == (ORDER, USER)
    assert "fewer units" in letter.reason
    (entry,) = ledger.xrange(keys.STREAM_ORDERS)
    assert letter.entry_id == entry[0]
    assert list(chosen([letter], [letter.letter_id, str(ORDER)])) == [letter], "once"
    with pytest.raises(UsageError, match=r"no dead letter has the id 9; .*`flashsale orders dead`"):
        chosen([letter], ["9"])


def test_tried_again_it_becomes_a_row(
    ledger: Redis, pool: Engine, work: Worker, letter: Letter
) -> None:
    mend(pool)
    dead_letters = settling(ledger, pool)
    assert dead_letters.retry(letter) is Settled.RETRIED
    assert dead_letters.retry(letter) is Settled.GONE
    assert dead_letters.release(letter) is Settled.GONE
    assert work.run_once().written == 1
    assert orders(pool) == {ORDER: (USER, 1)}
    assert not ledger.exists(keys.STREAM_DEAD, keys.DEAD_ORDERS) or not ledger.hlen(
        keys.DEAD_ORDERS
    )
    with transaction(pool) as connection:
        (line,) = journal.of_order(connection, ORDER)
    assert (line.action, line.actor, line.was, line.becomes) == (
        Action.RETRY,
        "ann",
        "dead",
        "queued",
    )


def test_tried_again_in_vain_it_is_a_letter_again(
    ledger: Redis, pool: Engine, work: Worker, letter: Letter
) -> None:
    assert settling(ledger, pool).retry(letter) is Settled.RETRIED
    assert work.run_once().dead == 1
    (again,) = read_letters(ledger)
    assert again.order
    assert again.order.order_id == ORDER
    assert again.letter_id != letter.letter_id


def test_released_its_unit_and_its_users_place_are_free(
    ledger: Redis, pool: Engine, letter: Letter
) -> None:
    dead_letters = settling(ledger, pool)
    assert dead_letters.release(letter, "sold by mistake") is Settled.RELEASED
    assert dead_letters.release(letter) is Settled.GONE
    row = order_row(pool, ORDER)
    assert (row.user_id, row.status, row.live) == (USER, PayStatus.CANCELLED, None)
    assert (stock(ledger), units(pool)) == (10, 0), "MySQL gave no unit for it"
    assert not list(read_letters(ledger))
    assert claim(ledger, (USER, 71)) == [(0, "71")]
    found = trace(ledger, pool, ORDER)
    assert (found.state, found.is_live, found.owed) == ("CONFIRMED", False, False)
    assert [line.reason for line in found.lines] == ["sold by mistake"]


def test_killed_between_any_two_steps_a_release_is_made_once(
    ledger: Redis, pool: Engine, work: Worker
) -> None:
    for n, kill in enumerate(each_kill(), 1):
        letter = die(ledger, work, n, 1000 + n)
        with killed(kill, ledger, pool):
            settling(ledger, pool).release(letter)
        settling(ledger, pool).release(letter)
        settings = LifecycleSettings()
        Sweeper(pool, ledger, settings, claim_timeout_ms=0, now_s=lambda: 0.0).run_once()
        assert order_row(pool, 1000 + n).status == PayStatus.CANCELLED
        assert stock(ledger) == 10
        assert not list(read_letters(ledger))
        with transaction(pool) as connection:
            assert len(journal.of_order(connection, 1000 + n)) == 1


def test_killed_between_any_two_steps_a_retry_is_made_once(
    ledger: Redis, pool: Engine, work: Worker
) -> None:
    for n, kill in enumerate(each_kill(), 1):
        mend(pool, 0)
        letter = die(ledger, work, n, 1000 + n)
        mend(pool)
        with killed(kill, ledger, pool):
            settling(ledger, pool).retry(letter)
        assert settling(ledger, pool).retry(letter) in (Settled.RETRIED, Settled.GONE)
        assert work.run_once().written == 1
        assert not list(read_letters(ledger))
    assert stock(ledger) == 10 - n


def test_of_a_retry_and_a_release_at_once_one_row_comes(
    ledger: Redis, pool: Engine, work: Worker, letter: Letter
) -> None:
    mend(pool)
    dead_letters = settling(ledger, pool)
    assert dead_letters.retry(letter) is Settled.RETRIED
    again = dead_letters._end(letter.order, letter, "")  # type: ignore[arg-type]
    assert again is Settled.RELEASED, "it was no row yet"
    dead_letters._return(ORDER, ledger)
    assert work.run_once().repeated == 1
    assert order_row(pool, ORDER).status == PayStatus.CANCELLED
    assert (stock(ledger), units(pool)) == (10, 10)


def test_what_is_a_live_row_keeps_its_unit(ledger: Redis, pool: Engine, letter: Letter) -> None:
    add_order(pool, order_id=ORDER, user_id=USER)
    assert settling(ledger, pool).release(letter) is Settled.KEPT
    assert stock(ledger) == 9
    assert not list(read_letters(ledger))


def test_whose_user_holds_another_order_by_a_row(ledger: Redis, pool: Engine, work: Worker) -> None:
    """A receipt was lost, and its user sold a second unit: that one goes back, the first stays."""
    mend(pool)
    claim(ledger, (USER, ORDER))
    assert work.run_once().written == 1
    ledger.hdel(keys.seckill_receipt(1), str(USER))
    ledger.srem(keys.seckill_order(1), USER)
    ledger.hdel(keys.seckill_sale(1), "initial")  # else the script sees that a unit is missing
    letter = die(ledger, work, USER, 71)
    assert "holds order 70" in letter.reason
    assert settling(ledger, pool).release(letter) is Settled.RELEASED
    assert ledger.hgetall(keys.seckill_receipt(1)) == {str(USER): str(ORDER)}
    assert (stock(ledger), ledger.scard(keys.seckill_order(1))) == (9, 1)
    assert order_row(pool, 71).status == PayStatus.CANCELLED
    assert order_row(pool, ORDER).live == 1


def test_whose_id_another_users_row_has(ledger: Redis, pool: Engine, work: Worker) -> None:
    add_order(pool, order_id=ORDER, user_id=8)
    letter = die(ledger, work, USER, ORDER)
    assert settling(ledger, pool).release(letter) is Settled.RELEASED
    assert order_row(pool, ORDER).user_id == 8, "untouched"
    assert stock(ledger) == 10


def test_a_receipt_that_is_gone_is_not_tried_again(
    ledger: Redis, pool: Engine, letter: Letter
) -> None:
    ledger.hdel(keys.seckill_receipt(1), str(USER))
    assert settling(ledger, pool).retry(letter) is Settled.NO_RECEIPT
    assert settling(ledger, pool).release(letter) is Settled.RELEASED
    assert stock(ledger) == 9, "no receipt, so nothing that could be given back"


def test_what_is_no_order_can_only_be_dropped(ledger: Redis, pool: Engine) -> None:
    OrderStream(ledger, "c1").journal_loss(Malformed("5-0", {}, LOST))
    (letter,) = read_letters(ledger)
    assert (letter.order, letter.reason, letter.entry_id) == (None, LOST, "5-0")
    dead_letters = settling(ledger, pool)
    with pytest.raises(UsageError, match=r"holds no order.*`flashsale orders release"):
        dead_letters.retry(letter)
    assert dead_letters.release(letter) is Settled.DROPPED
    assert dead_letters.release(letter) is Settled.GONE


def test_an_entry_of_no_sale_makes_no_row(ledger: Redis, pool: Engine, work: Worker) -> None:
    """Somebody wrote it into the stream; no claim was accepted."""
    forged = {"userId": "7", "voucherId": "99", "id": "70", "ms": "1700000000000"}
    ledger.xadd(keys.STREAM_ORDERS, forged)
    assert work.run_once().dead == 1
    (letter,) = read_letters(ledger)
    assert settling(ledger, pool).release(letter) is Settled.DROPPED
    assert not orders(pool)
    assert not list(read_letters(ledger))


def test_nothing_is_released_before_its_claim_is_over(
    ledger: Redis, pool: Engine, letter: Letter
) -> None:
    waiting = DeadLetters(pool, ledger, "ann", claim_timeout_ms=300)
    assert waiting.release(letter) is Settled.RELEASED
    seconds, micros = ledger.time()  # type: ignore[misc]
    assert letter.order
    assert seconds * 1000 + micros / 1000 >= letter.order.accepted_ms + 300


def test_a_trace_of_every_kind(ledger: Redis, pool: Engine, work: Worker) -> None:
    mend(pool)
    claim(ledger, (1, 1001))
    waiting = trace(ledger, pool, 1001)
    assert waiting.state == "QUEUED"
    assert [entry.delivered for entry in waiting.entries] == [False]
    OrderStream(ledger, "c1").fresh(10, 1)
    (entry,) = trace(ledger, pool, 1001).entries
    assert (entry.consumer, entry.deliveries, entry.is_open) == ("c1", 1, True)
    work.run_once()
    row = trace(ledger, pool, 1001)
    assert (row.state, row.is_live) == ("CONFIRMED", True)
    assert [(r.voucher_id, r.user_id) for r in row.receipts] == [(1, 1)]
    assert [each.is_open for each in row.entries] == [False]
    mend(pool, 0)
    die(ledger, work, 2, 1002)
    assert trace(ledger, pool, 1002).state == "FAILED"
    claim(ledger, (3, 1003))
    ledger.delete(keys.STREAM_ORDERS)
    lost = trace(ledger, pool, 1003)
    assert (lost.state, lost.receipts[0].user_id) == (LOST_ORDER, 3), "found by its receipt alone"
    before = everything(ledger)
    assert trace(ledger, pool, 999).state == NOWHERE
    assert everything(ledger) == before, "who looks changes nothing"
