"""What somebody does to the stores by hand once a run is over, each named by the check that owns it
and by no other that does not follow from it.

Two sales of four units, sold out; one buyer asked again, one came too late.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from rig.sale_world import STREAM, World, broken, together, violations

from flashsale.model import Outcome, PayStatus
from flashsale.verify.linearizability import linearizable
from flashsale.verify.queue import Backlog, Queue, QueueEntry
from flashsale.verify.snapshot import Snapshot

STRANGER = 900
OLD = 90
"""An order from before the run, of user 9 in the first sale."""


@dataclass
class Shop:
    """Both sales, and what else the judge is shown."""

    one: World = field(default_factory=lambda: World(units=5))
    two: World = field(default_factory=lambda: World(units=4, voucher=2))
    queue: Queue = STREAM
    strays: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.one.sell(9, OLD)
        for voucher, world in enumerate((self.one, self.two), 1):
            world.start()
            for user in range(1, 5):
                world.buy(user, 100 * voucher + user)
            world.say(1, Outcome.DUPLICATE, 100 * voucher + 1)
            world.say(5, Outcome.SOLD_OUT)

    def snapshot(self) -> Snapshot:
        return replace(together([self.one, self.two], self.queue), strays=self.strays)


def users_of_two_rows_are_swapped(shop: Shop) -> None:
    shop.one.row(102).user, shop.one.row(103).user = 3, 2


def users_of_two_receipts_are_swapped(shop: Shop) -> None:
    receipts = shop.one.receipts
    receipts[2], receipts[3] = receipts[3], receipts[2]


def two_orders_are_swapped_in_both_stores(shop: Shop) -> None:
    """The books agree with one another, and with nobody's answer."""
    users_of_two_rows_are_swapped(shop)
    users_of_two_receipts_are_swapped(shop)


def an_order_goes_to_a_stranger_in_both_stores(shop: Shop) -> None:
    shop.one.row(102).user = STRANGER
    shop.one.receipts[STRANGER] = shop.one.receipts.pop(2)
    shop.one.members ^= {2, STRANGER}


def an_order_goes_to_another_sale(shop: Shop) -> None:
    row = shop.one.row(102)
    shop.one.rows.remove(row)
    shop.two.rows.append(replace(row, user=7))
    shop.strays = {102: (7, 2)}


def an_order_gets_another_id_in_both_stores(shop: Shop) -> None:
    shop.one.row(102).order = shop.one.receipts[2] = 999


def an_order_is_cancelled_in_mysql_alone(shop: Shop) -> None:
    shop.one.row(102).status = PayStatus.CANCELLED
    shop.one.move_mysql_stock(1)


def an_order_is_cancelled_in_the_ledger_alone(shop: Shop) -> None:
    shop.one.members.remove(2)
    shop.one.receipts.pop(2)
    shop.one.ledger["stock"] += 1


def an_order_is_refunded_and_keeps_its_unit(shop: Shop) -> None:
    shop.one.row(102).status = PayStatus.REFUNDED


def a_row_is_deleted_with_its_unit(shop: Shop) -> None:
    shop.one.rows.remove(shop.one.row(102))
    shop.one.move_mysql_stock(1)


def an_order_is_deleted_everywhere(shop: Shop) -> None:
    shop.one.end(102)
    shop.one.rows.remove(shop.one.row(102))


def an_order_from_before_is_deleted_everywhere(shop: Shop) -> None:
    """Nobody of the run was told of it, and every sum is right."""
    shop.one.end(OLD)
    shop.one.rows.remove(shop.one.row(OLD))


def an_order_is_given_to_who_was_refused(shop: Shop) -> None:
    """By hand, with a unit more in both stores."""
    shop.one.restock(1)
    shop.one.sell(5, 998)


def a_unit_is_taken_from_both_stores(shop: Shop) -> None:
    shop.one.move_mysql_stock(-1)
    shop.one.ledger["stock"] -= 1


def units_are_offered_in_mysql_alone(shop: Shop) -> None:
    assert shop.one.mysql is not None
    shop.one.mysql = replace(shop.one.mysql, initial=7, stock=2)


def the_sale_is_gone_from_mysql(shop: Shop) -> None:
    shop.one.mysql = None


def the_initial_units_are_gone_from_the_ledger(shop: Shop) -> None:
    shop.one.ledger["initial"] = None


def the_ledgers_sale_begins_anew(shop: Shop) -> None:
    """Somebody ran the family's script that fills it."""
    shop.one.members.clear()
    shop.one.receipts.clear()
    shop.one.ledger["stock"] = 5


def an_accepted_order_was_set_aside_and_its_letter_is_gone(shop: Shop) -> None:
    shop.one.rows.remove(shop.one.row(102))
    shop.one.move_mysql_stock(1)
    shop.one.sightings.pop(102)


def everything_is_written_twice(shop: Shop) -> None:
    """Without the unique key, by somebody's replay of the stream."""
    for row in list(shop.one.rows):
        shop.one.rows.append(replace(row, order=row.order + 10_000))


def an_entry_is_left_with_a_worker(shop: Shop) -> None:
    stuck = (QueueEntry("6-0", 102, 2, 1, "pending"),)
    shop.queue = replace(STREAM, backlog=Backlog(pending=1), stuck=stuck)


@dataclass(frozen=True)
class Owned:
    """What a corruption is named by: the check that owns it, what that says, and the checks that
    have to say something as well."""

    by: str
    says: str
    and_by: frozenset[str] = frozenset()


def owned(by: str, says: str, *and_by: str) -> Owned:
    return Owned(by, says, frozenset(and_by))


ORDER = "order 102, user 2, voucher 1"
CORRUPTIONS: Mapping[Callable[[Shop], None], Owned] = {
    users_of_two_rows_are_swapped: owned(
        "accepted_persisted",
        f"{ORDER}: the row is of user 3; order 103, user 3, voucher 1: the row is of user 2",
        *("unique_ids", "no_phantom", "redis_conservation"),
    ),
    users_of_two_receipts_are_swapped: owned(
        "redis_conservation", f"{ORDER}: the receipt names order 103 instead", "unique_ids"
    ),
    two_orders_are_swapped_in_both_stores: owned(
        "accepted_persisted", f"{ORDER}: the row is of user 3", "unique_ids", "no_phantom"
    ),
    an_order_goes_to_a_stranger_in_both_stores: owned(
        "accepted_persisted", f"{ORDER}: the row is of user 900", "unique_ids", "no_phantom"
    ),
    an_order_goes_to_another_sale: owned(
        "accepted_persisted",
        f"{ORDER}: the row is of user 7, voucher 2",
        *("unique_ids", "no_phantom", "no_oversell", "mysql_conservation", "redis_conservation"),
    ),
    an_order_gets_another_id_in_both_stores: owned(
        "accepted_persisted", f"{ORDER}: no row; the user's row is order 999", "no_phantom"
    ),
    an_order_is_cancelled_in_mysql_alone: owned(
        "redis_conservation", f"{ORDER}: the order has ended, but its unit was not returned"
    ),
    an_order_is_cancelled_in_the_ledger_alone: owned(
        "redis_conservation", f"{ORDER}: a live order, but not in the order set"
    ),
    an_order_is_refunded_and_keeps_its_unit: owned(
        "mysql_conservation", "initial 5 − stock 0 = 5, but 4 live orders", "redis_conservation"
    ),
    a_row_is_deleted_with_its_unit: owned(
        "accepted_persisted", f"{ORDER}: no row", "redis_conservation"
    ),
    an_order_is_deleted_everywhere: owned("accepted_persisted", f"{ORDER}: no row"),
    an_order_from_before_is_deleted_everywhere: owned(
        "accepted_persisted",
        "order 90, voucher 1: a row before the run, and none any more",
        "no_undersell",
    ),
    an_order_is_given_to_who_was_refused: owned(
        "no_phantom", "order 998, user 5, voucher 1: a row that no claim explains; the user was"
    ),
    a_unit_is_taken_from_both_stores: owned(
        "mysql_conservation", "initial 5 − stock -1 = 6, but 5 live orders", "redis_conservation"
    ),
    units_are_offered_in_mysql_alone: owned(
        "redis_conservation", "voucher 1: initial 5 in Redis, 7 in MySQL"
    ),
    the_sale_is_gone_from_mysql: owned("mysql_conservation", "gone from tb_seckill_voucher"),
    the_initial_units_are_gone_from_the_ledger: owned(
        "redis_conservation", "the ledger has lost the terms of this sale"
    ),
    the_ledgers_sale_begins_anew: owned(
        "redis_conservation", f"{ORDER}: a live order, but not in the order set"
    ),
    an_accepted_order_was_set_aside_and_its_letter_is_gone: owned(
        "accepted_persisted", f"{ORDER}: no row", "queue_empty", "redis_conservation"
    ),
    everything_is_written_twice: owned(
        "one_per_user",
        "order 101, user 1, voucher 1: one of 2 live orders of this user",
        *("no_oversell", "no_phantom", "mysql_conservation", "redis_conservation"),
    ),
    an_entry_is_left_with_a_worker: owned("queue_empty", f"{ORDER}, entry 6-0: pending"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: one.__name__)
def test_a_corruption_is_named_by_the_check_that_owns_it(
    corruption: Callable[[Shop], None],
) -> None:
    shop, owner = Shop(), CORRUPTIONS[corruption]
    assert broken(shop.snapshot()) == set()
    corruption(shop)
    snapshot = shop.snapshot()
    assert owner.says in violations(snapshot, owner.by)
    assert broken(snapshot) == {owner.by, *owner.and_by}
    assert linearizable(snapshot).findings == (), "the answers are as they were"
