"""A payment that meets its order in the moment in which it becomes a row."""

from types import SimpleNamespace
from typing import Any

import pytest

from flashsale.model import PayStatus
from flashsale.orders.lifecycle import Change, Lifecycle, OrderRow


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
        (PayStatus.UNPAID, Change.QUEUED),
        (PayStatus.PAID, Change.DONE),
        (PayStatus.USED, Change.DONE),
        (PayStatus.REFUNDED, Change.REFUNDED),
        (PayStatus.REFUNDING, Change.TOO_LATE),
    ],
)
async def test_what_the_row_says_after_a_payment(status: int, change: Change) -> None:
    """Unpaid even now means that the statement came before the row: ask again, do not refuse."""
    nothing: Any = SimpleNamespace()
    database: Any = _Database(status)
    lifecycle = Lifecycle(database, nothing, nothing, nothing, claim_timeout_ms=1)
    assert await lifecycle.pay(1, 7) is change
