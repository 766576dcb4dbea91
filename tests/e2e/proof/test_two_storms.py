"""Two storms on one sale: each is judged by itself, whichever is judged first, and whenever."""

from collections.abc import Callable

import pytest
from rig.faults import loses_a_member, loses_an_accepted_order, sells_to_nobody_who_asked
from rig.faulty_sale import FaultySale, Trick
from rig.judged_storm import JudgedStorm
from rig.sale_by_commands import SaleByCommands

pytestmark = pytest.mark.slow


def storm_twice(desk: JudgedStorm, market: SaleByCommands, trick: Trick | None = None) -> None:
    """Six buyers, the first sale with a fault; then six others, who find units that came since."""
    first = FaultySale(market, {1: trick} if trick else {})
    desk.scenario(users=6)
    desk.storm(first, "first")
    desk.noted = first.noted.get(1, {})
    market.sql("UPDATE tb_seckill_voucher SET stock = stock + 4, initial_stock = initial_stock + 4")
    market.redis.incrby("seckill:stock:1", 4)
    market.redis.hincrby("seckill:sale:1", "initial", 4)
    desk.scenario(users=12)
    desk.storm(FaultySale(market), "second")


def test_two_honest_storms_both_pass_in_any_order(open_desk: Callable[[str], JudgedStorm]) -> None:
    desk = open_desk("twice")
    market = desk.market()
    storm_twice(desk, market)
    market.close()
    for run in ("first", "second", "first"):
        verdict = desk.verify(run)
        assert (verdict.failed, verdict.exit_code) == (set(), 0), (run, verdict.document)
    assert desk.verify("first").document["orders"] == {
        **desk.verify("second").document["orders"],
        "drain_s": desk.verify("first").document["orders"]["drain_s"],
    }


@pytest.mark.parametrize(
    ("trick", "check"),
    [
        (loses_an_accepted_order, "accepted_persisted"),
        (sells_to_nobody_who_asked, "no_phantom"),
        (loses_a_member, "redis_conservation"),
    ],
)
def test_a_fault_in_the_first_is_found_after_the_second(
    open_desk: Callable[[str], JudgedStorm], trick: Trick, check: str
) -> None:
    desk = open_desk("twice")
    market = desk.market()
    market.allow_several_orders()
    storm_twice(desk, market, trick)
    market.close()
    first, second = desk.verify("first"), desk.verify("second")
    assert first.exit_code == 3
    text = "order {order}, user {user}, voucher {voucher}".format(**desk.noted)
    assert any(text in offence["text"] for offence in first.offences(check))
    assert not any(text in offence["text"] for offence in second.offences(check))
