"""Which ids an order of a time can have: what the sweeper walks along instead of an index."""

from datetime import UTC, datetime, timedelta

import pytest

from flashsale.model import ID_MAX
from flashsale.orders.sweeper import first_id_after
from flashsale.seckill.ids import COUNTER_MAX, EPOCH_S


@pytest.mark.parametrize("micros", [0, 1, 999_999])
def test_the_bound_is_behind_every_id_of_that_second(micros: int) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 5, micros, tzinfo=UTC)
    seconds = int(moment.timestamp()) - EPOCH_S
    assert (seconds << 32 | COUNTER_MAX) < first_id_after(moment) <= (seconds + 1) << 32


def test_the_bound_stays_an_id() -> None:
    assert first_id_after(datetime(1999, 1, 1, tzinfo=UTC)) == 0
    assert first_id_after(datetime(2090, 1, 1, tzinfo=UTC) + timedelta(days=400)) == ID_MAX
