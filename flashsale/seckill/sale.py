"""The sale in the ledger: loading it from MySQL's terms, once."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, func, select

from flashsale import keys
from flashsale.errors import UnreachableError, ViolationError
from flashsale.lua.scripts import script
from flashsale.model import LIVE_STATUSES
from flashsale.storage.mysql import transaction
from flashsale.storage.tables import seckill_voucher, voucher_order

_LOAD = script("sale_load")
_TORN = -1
_LOST = (
    "the ledger cannot be made anew from it: run `flashsale seed --reset --yes`, which deletes "
    "its orders, then `flashsale warm`"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """A sale as MySQL has it. Times are Unix milliseconds."""

    voucher_id: int
    stock: int
    initial: int
    begin_ms: int
    end_ms: int
    live_orders: int

    @property
    def is_untouched(self) -> bool:
        """True while nothing has been sold, so that the ledger may start from MySQL's stock."""
        return self.stock == self.initial and self.live_orders == 0


def read_terms(pool: Engine) -> list[Terms]:
    """The terms of every sale in MySQL, by voucher id. Raises Unavailable or Indeterminate."""
    live = (
        select(voucher_order.c.voucher_id, func.count().label("orders"))
        .where(voucher_order.c.status.in_(LIVE_STATUSES))
        .group_by(voucher_order.c.voucher_id)
        .subquery()
    )
    sale = seckill_voucher.c
    query = (
        select(seckill_voucher, func.coalesce(live.c.orders, 0).label("live_orders"))
        .select_from(seckill_voucher.outerjoin(live, live.c.voucher_id == sale.voucher_id))
        .order_by(sale.voucher_id)
    )
    with transaction(pool) as connection:
        rows = connection.execute(query).all()
    return [
        Terms(
            row.voucher_id,
            row.stock,
            row.initial_stock,
            _unix_ms(row.begin_time),
            _unix_ms(row.end_time),
            row.live_orders,
        )
        for row in rows
    ]


def _unix_ms(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def sale_keys(voucher_id: int) -> tuple[str, ...]:
    """KEYS of sale_load.lua, in its order."""
    return (
        keys.seckill_stock(voucher_id),
        keys.seckill_sale(voucher_id),
        keys.seckill_order(voucher_id),
        keys.seckill_receipt(voucher_id),
        keys.LOADED_SALES,
    )


def load_sale(ledger: Redis, terms: Terms) -> bool:
    """Load one sale into the ledger; True where it was not loaded before.

    Raises ViolationError for a sale of which the ledger has lost all or part while MySQL knows
    of orders: starting it from MySQL's stock could sell units twice.
    """
    names = sale_keys(terms.voucher_id)
    try:
        if not terms.is_untouched and not ledger.exists(names[0], names[1]):
            raise ViolationError(
                f"voucher {terms.voucher_id} has {terms.live_orders} live orders and "
                f"{terms.stock} of {terms.initial} units in MySQL, but no sale in the ledger; "
                f"{_LOST}"
            )
        code = cast(
            int,
            ledger.eval(
                _LOAD.text,
                len(names),
                *names,
                str(terms.voucher_id),
                str(terms.stock),
                str(terms.begin_ms),
                str(terms.end_ms),
            ),
        )
    except RedisError as error:
        raise UnreachableError(f"the ledger refused to load a sale: {error}") from error
    if code == _TORN:
        raise ViolationError(f"voucher {terms.voucher_id} is half loaded in the ledger; {_LOST}")
    return code == 1
