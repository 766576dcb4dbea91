"""Orders that never arrive: in the queue, or fallen off it."""

from collections.abc import Callable

import pytest
from rig.faulty_sale import Asked, FaultySale, Trick
from rig.judged_storm import JudgedStorm
from rig.sale_by_commands import STREAM
from rig.scripted_sale import Act, sold

pytestmark = pytest.mark.slow


def accepts_and_never_delivers(sale: FaultySale, asked: Asked) -> Act | None:
    if asked.turn != 3:
        return None
    order = sale.market.new_id()
    sale.market.accept(asked.voucher, asked.user, order)
    sale.note(asked, order)
    return Act(sold(order))


def delivers_and_never_writes(sale: FaultySale, asked: Asked) -> Act | None:
    act = accepts_and_never_delivers(sale, asked)
    sale.market.deliver()
    return act


def trims_what_nobody_has_read(sale: FaultySale, asked: Asked) -> Act | None:
    act = accepts_and_never_delivers(sale, asked)
    if act:
        sale.market.redis.xtrim(STREAM, maxlen=0)
    return act


@pytest.mark.parametrize(
    ("trick", "says"),
    [
        (accepts_and_never_delivers, "order {order}, user {user}, voucher 1, entry"),
        (delivers_and_never_writes, "order {order}, user {user}, voucher 1, entry"),
        (trims_what_nobody_has_read, "1 entries were removed before any worker was given them"),
    ],
)
def test_an_order_that_does_not_arrive_is_named(
    open_desk: Callable[[str], JudgedStorm], trick: Trick, says: str
) -> None:
    desk = open_desk("stuck")
    market = desk.market()
    sale = FaultySale(market, {1: trick})
    desk.scenario(users=6)
    assert desk.storm(sale, "run").returncode == 0
    market.close()
    verdict = desk.verify("run")
    told = [offence["text"] for offence in verdict.offences("queue_empty")]
    assert any(says.format(**sale.noted[1]) in line for line in told), told
    assert verdict.exit_code == 3
    kept = "fail" if trick is trims_what_nobody_has_read else "unknown"
    named = [offence["text"] for offence in verdict.offences("accepted_persisted", kept)]
    assert any("order {order}, user {user}, voucher 1".format(**sale.noted[1]) in n for n in named)
