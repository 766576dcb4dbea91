"""A payment that meets its order in the moment in which it becomes a row, and a cancellation under
a clock that was set back."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from flashsale.model import PayStatus
from flashsale.orders.lifecycle import Lifecycle, OrderChange, OrderRow


class _Database:
    """Answers every transaction with one row."""

    def __init__(self, status: int) -> None:
        self._row = OrderRow(1, 7, 1, status, 0)

    async def run(self, work: Any) -> OrderRow:
        return self._row


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "change"),
    [
        (PayStatus.UNPAID, OrderChange.QUEUED),
        (PayStatus.PAID, OrderChange.DONE),
        (PayStatus.USED, OrderChange.DONE),
        (PayStatus.REFUNDED, OrderChange.REFUNDED),
        (PayStatus.REFUNDING, OrderChange.TOO_LATE),
    ],
)
async def test_what_the_row_says_after_a_payment(status: int, change: OrderChange) -> None:
    """Unpaid even now means that the statement came before the row: ask again, do not refuse."""
    nothing: Any = SimpleNamespace()
    database: Any = _Database(status)
    lifecycle = Lifecycle(database, nothing, nothing, nothing, claim_timeout_ms=1)
    assert await lifecycle.pay(1, 7) is change


@pytest.mark.anyio
async def test_a_clock_that_was_set_back_makes_no_cancellation_wait_for_ever() -> None:
    """The order is of tomorrow, by the ledger's clock."""
    clock: Any = SimpleNamespace(now_ms=lambda: -86_400_000)
    database: Any = _Database(PayStatus.UNPAID)
    nothing: Any = SimpleNamespace()
    lifecycle = Lifecycle(database, nothing, nothing, clock, claim_timeout_ms=1)
    began_s = time.monotonic()
    assert await lifecycle.cancel(1, 7) is OrderChange.TOO_LATE, "it is unpaid still, as told"
    assert time.monotonic() - began_s < 60
