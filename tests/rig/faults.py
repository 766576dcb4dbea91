"""Faults of a sale, each with what a judge has to say about it: one table for the proofs.

Every voucher has four units and six buyers, who ask one after another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rig.faulty_sale import Asked, FaultySale, Trick, duplicate
from rig.sale_by_commands import DEAD
from rig.scripted_sale import SOLD_OUT, Act, sold

UNITS, BUYERS = 4, 6
_STRANGER = 900_000


@dataclass(frozen=True)
class Fault:
    """A trick, and every check that it must trip with what the check must say.

    The texts are filled in with the voucher, user and order that the trick has noted.
    """

    trick: Trick
    trips: Mapping[str, str]
    closed: bool = False
    """The sale's hours are over before the storm."""
    hand: Callable[[FaultySale, int], None] | None = None
    """What somebody does to the voucher's sale in the stores, once the storm is over."""

    def __str__(self) -> str:
        return (self.hand or self.trick).__name__


ORDER = "order {order}, user {user}, voucher {voucher}"
USER = "user {user}, voucher {voucher}"
VOUCHER = "voucher {voucher}"
_NO_UNIT = f"{VOUCHER}: told “sold” when no unit can have been left"
_NO_SALE = f"{ORDER}: told “duplicate” before any claim of theirs had been sent that can have sold"
_NOT_YET = f"{USER}: told “sold out” when"


def sells_one_too_many(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != UNITS:
        return None
    market, order = sale.market, sale.market.new_id()
    market.hold(asked.voucher, asked.user, order)
    market.write(asked.voucher, asked.user, order, take_unit=False)
    sale.note(asked, order)
    return Act(sold(order))


def loses_an_accepted_order(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    market, order = sale.market, sale.market.new_id()
    market.accept(asked.voucher, asked.user, order)
    for entry, _ in market.deliver():
        market.acknowledge(entry)
    sale.note(asked, order)
    return Act(sold(order))


def answers_sold_and_does_nothing(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    order = sale.market.new_id()
    sale.note(asked, order)
    return Act(sold(order))


def writes_a_second_order(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    order = sale.market.sell(asked.voucher, asked.user)
    second = sale.market.new_id()
    sale.market.write(asked.voucher, asked.user, second, take_unit=False)
    sale.note(asked, second)
    return Act(sold(order))


def makes_up_a_duplicate(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    order = sale.market.new_id()
    sale.note(asked, order)
    return duplicate(order)


def calls_another_users_order_a_duplicate(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn == 0:
        order = sale.market.sell(asked.voucher, asked.user)
        sale.note(asked, order)
        return Act(sold(order))
    if asked.turn == 1:
        order = sale.noted[asked.voucher]["order"]
        sale.note(asked, order)
        return duplicate(order)
    return None


def says_sold_out_and_sells_on(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    sale.note(asked)
    return Act(SOLD_OUT)


def says_sold_out_and_keeps_the_rest(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn < 2:
        return None
    sale.note(asked)
    return Act(SOLD_OUT)


def sells_to_nobody_who_asked(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn == 1:
        stranger = _STRANGER + asked.voucher
        sale.note(asked, sale.market.sell(asked.voucher, stranger), stranger)
    return None


def forgets_a_unit_in_mysql(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn == 1:
        sale.market.sql(
            "UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = %s", asked.voucher
        )
        sale.note(asked)
    return None


def takes_a_unit_twice_from_the_ledger(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn == BUYERS - 1:
        sale.market.redis.decr(f"seckill:stock:{asked.voucher}")
        sale.note(asked)
    return None


def loses_a_receipt(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    order = sale.market.sell(asked.voucher, asked.user)
    sale.market.redis.hdel(f"seckill:receipt:{asked.voucher}", str(asked.user))
    sale.note(asked, order)
    return Act(sold(order))


def loses_a_member(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    order = sale.market.sell(asked.voucher, asked.user)
    sale.market.redis.srem(f"seckill:order:{asked.voucher}", asked.user)
    sale.note(asked, order)
    return Act(sold(order))


def tells_a_wrong_order_id(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    sale.market.sell(asked.voucher, asked.user)
    wrong = sale.market.new_id()
    sale.note(asked, wrong)
    return Act(sold(wrong))


def gives_the_answer_to_another_request(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn > 1:
        return None
    order = sale.market.sell(asked.voucher, asked.user)
    if asked.turn == 0:
        sale.note(asked, order)
        return Act(sold(order))
    anothers = sale.noted[asked.voucher]["order"]
    sale.note(asked, anothers)
    return Act(sold(anothers))


def sells_after_the_end(sale: FaultySale, asked: Asked) -> Act | None:
    """Its hours were over before the first claim came: see `Fault.closed`."""
    if asked.turn == 1:
        sale.note(asked, order := sale.market.sell(asked.voucher, asked.user))
        return Act(sold(order))
    return None


def sets_an_accepted_order_aside(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    market, order = sale.market, sale.market.new_id()
    market.accept(asked.voucher, asked.user, order)
    for entry, fields in market.deliver():
        market.acknowledge(entry)
        market.redis.xadd(DEAD, {**fields, "entry": entry, "reason": "short stock"})  # type: ignore[arg-type]
    sale.note(asked, order)
    return Act(sold(order))


def writes_the_order_to_another_user(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 1:
        return None
    market, order = sale.market, sale.market.new_id()
    market.accept(asked.voucher, asked.user, order)
    for entry, _ in market.deliver():
        market.write(asked.voucher, _STRANGER, order)
        market.acknowledge(entry)
    sale.note(asked, order)
    return Act(sold(order))


def does_its_work(sale: FaultySale, asked: Asked) -> Act | None:
    sale.note(asked)
    return None


# What somebody does by hand, of the sale's first two orders.


def _first_two(sale: FaultySale, voucher: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Order and user of each; the first is noted."""
    rows = sale.market.sql(
        "SELECT id, user_id FROM tb_voucher_order WHERE voucher_id = %s ORDER BY id LIMIT 2",
        voucher,
    )
    one, two = ((int(order), int(user)) for order, user in rows)
    sale.noted[voucher] = {"voucher": voucher, "order": one[0], "user": one[1]}
    return one, two


def swaps_the_users_of_two_rows(sale: FaultySale, voucher: int) -> None:
    one, two = _first_two(sale, voucher)
    for (order, _), (_, user) in ((one, two), (two, one)):
        sale.market.sql("UPDATE tb_voucher_order SET user_id = %s WHERE id = %s", user, order)


def moves_an_order_to_a_sale_that_nobody_judges(sale: FaultySale, voucher: int) -> None:
    (order, _), _ = _first_two(sale, voucher)
    sale.market.sql("UPDATE tb_voucher_order SET voucher_id = 9999 WHERE id = %s", order)


def cancels_a_row_and_tells_no_ledger(sale: FaultySale, voucher: int) -> None:
    (order, _), _ = _first_two(sale, voucher)
    sale.market.sql("UPDATE tb_voucher_order SET status = 4 WHERE id = %s", order)
    sale.market.sql(
        "UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = %s", voucher
    )


def makes_a_list_of_the_receipts(sale: FaultySale, voucher: int) -> None:
    _first_two(sale, voucher)
    sale.market.redis.delete(f"seckill:receipt:{voucher}")
    sale.market.redis.rpush(f"seckill:receipt:{voucher}", "x")


def deletes_the_sale_from_mysql(sale: FaultySale, voucher: int) -> None:
    _first_two(sale, voucher)
    sale.market.sql("DELETE FROM tb_seckill_voucher WHERE voucher_id = %s", voucher)


def fills_the_ledgers_sale_anew(sale: FaultySale, voucher: int) -> None:
    _first_two(sale, voucher)
    sale.market.redis.delete(f"seckill:receipt:{voucher}", f"seckill:order:{voucher}")
    sale.market.redis.set(f"seckill:stock:{voucher}", UNITS)


FAULTS = (
    Fault(does_its_work, {}),
    Fault(
        does_its_work,
        {
            "accepted_persisted": f"{ORDER}: the row is of user",
            "unique_ids": f"{ORDER}: also the id of an order of user",
            "no_phantom": "order {order}, user",
            "redis_conservation": "order {order}, user",
        },
        hand=swaps_the_users_of_two_rows,
    ),
    Fault(
        does_its_work,
        {
            "accepted_persisted": f"{ORDER}: the row is of user {{user}}, voucher 9999",
            "mysql_conservation": f"{VOUCHER}: initial 4 − stock 0 = 4, but 3 live orders",
            "redis_conservation": f"{ORDER}: in the order set, but no live order",
        },
        hand=moves_an_order_to_a_sale_that_nobody_judges,
    ),
    Fault(
        does_its_work,
        {"redis_conservation": f"{ORDER}: the order has ended, but its unit was not returned"},
        hand=cancels_a_row_and_tells_no_ledger,
    ),
    Fault(
        does_its_work,
        {"redis_conservation": "seckill:receipt:{voucher} is a list, not a hash"},
        hand=makes_a_list_of_the_receipts,
    ),
    Fault(
        does_its_work,
        {"mysql_conservation": f"{VOUCHER}: gone from tb_seckill_voucher"},
        hand=deletes_the_sale_from_mysql,
    ),
    Fault(
        does_its_work,
        {"redis_conservation": f"{ORDER}: a live order, but not in the order set"},
        hand=fills_the_ledgers_sale_anew,
    ),
    Fault(
        sells_one_too_many,
        {
            "no_oversell": f"{ORDER}: 5 orders for 4 units",
            "mysql_conservation": f"{VOUCHER}: initial 4 − stock 0 = 4, but 5 live orders",
            "redis_conservation": f"{VOUCHER}: stock 0 + order set 5 = 5, but initial 4",
            "linearizable": _NO_UNIT,
        },
    ),
    Fault(
        loses_an_accepted_order,
        {
            "accepted_persisted": f"{ORDER}: no row",
            "redis_conservation": f"{ORDER}: in the order set, but no live order",
        },
    ),
    Fault(
        answers_sold_and_does_nothing,
        {
            "accepted_persisted": f"{ORDER}: no row",
            "no_oversell": f"{ORDER}: 5 orders for 4 units",  # the others got all four
            "linearizable": _NO_UNIT,
        },
    ),
    Fault(
        writes_a_second_order,
        {
            "one_per_user": f"{ORDER}: one of 2 live orders of this user",
            "no_oversell": f"{VOUCHER}: 5 orders for 4 units",
            "no_phantom": f"{ORDER}: a row that no claim explains; the user was told sold",
            "mysql_conservation": f"{VOUCHER}: initial 4 − stock 0 = 4, but 5 live orders",
            "redis_conservation": f"{ORDER}: the receipt names order",
        },
    ),
    Fault(
        makes_up_a_duplicate,
        {
            "duplicate_truthful": f"{ORDER}: told “duplicate”, but there is",
            "linearizable": _NO_SALE,
        },
    ),
    Fault(
        calls_another_users_order_a_duplicate,
        {"duplicate_truthful": f"{ORDER}: the order is of user", "linearizable": _NO_SALE},
    ),
    Fault(
        says_sold_out_and_sells_on,
        {
            "sold_out_truthful": "µs after user {user} had been told “sold out”",
            "linearizable": _NOT_YET,
        },
    ),
    Fault(
        says_sold_out_and_keeps_the_rest,
        {
            "no_undersell": f"{USER}: told “sold out”, yet 2 of 4 were never sold",
            "linearizable": f"{VOUCHER}: told “sold out” when 2 units cannot have been sold yet",
        },
    ),
    Fault(sells_to_nobody_who_asked, {"no_phantom": f"{ORDER}: a row that no claim explains"}),
    Fault(
        forgets_a_unit_in_mysql,
        {"mysql_conservation": f"{VOUCHER}: initial 4 − stock 1 = 3, but 4 live orders"},
    ),
    Fault(
        takes_a_unit_twice_from_the_ledger,
        {"redis_conservation": f"{VOUCHER}: stock -1 + order set 4 = 3, but initial 4"},
    ),
    Fault(loses_a_receipt, {"redis_conservation": f"{USER}: in the order set without a receipt"}),
    Fault(
        loses_a_member, {"redis_conservation": f"{ORDER}: a live order, but not in the order set"}
    ),
    Fault(
        tells_a_wrong_order_id,
        {
            "accepted_persisted": f"{ORDER}: no row; the user's row is order",
            "no_phantom": f"{USER}: a row that no claim explains",
        },
    ),
    Fault(
        gives_the_answer_to_another_request,
        {
            "unique_ids": f"{ORDER}: also the id of an order of user",
            "accepted_persisted": f"{ORDER}: the row is of user",
            "no_phantom": f"{USER}: a row that no claim explains",
        },
    ),
    Fault(sells_after_the_end, {"window": f"{ORDER}: sold "}, closed=True),
    Fault(
        sets_an_accepted_order_aside,
        {
            "queue_empty": f"{ORDER}, entry",
            "accepted_persisted": f"{ORDER}: a dead letter (short stock)",
            "redis_conservation": f"{ORDER}: in the order set, but no live order",
        },
    ),
    Fault(
        writes_the_order_to_another_user,
        {
            "accepted_persisted": f"{ORDER}: the row is of user {_STRANGER}",
            "no_phantom": "order {order}, user 900000, voucher {voucher}: a row that no claim",
            "unique_ids": f"{ORDER}: also the id of an order of user {_STRANGER}",
            "redis_conservation": f"{ORDER}: in the order set, but the order is of user",
        },
    ),
)
