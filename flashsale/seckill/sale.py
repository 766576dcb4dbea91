"""A sale's terms, from MySQL, and loading them into the ledger: once, and by one script.

`load_sale` is for commands, which find out what is there already; `open_sale` for a replica, which
has just given MySQL a sale that nobody knows of yet.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from sqlalchemy import Engine, Row, func, select

from flashsale.errors import Indeterminate, Unavailable, UnreachableError, ViolationError
from flashsale.keys import SINGLE, WHOLE, Lane, Layout
from flashsale.lua.scripts import Call, script
from flashsale.seckill.journal import Standing, standings
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import transaction, unix_ms
from flashsale.storage.roles import Ledgers, call, call_each, evaluate, ledgers
from flashsale.storage.tables import seckill_voucher, voucher_order

_LOAD = script("sale_load")
_CREATED, _THERE, _TORN = 1, 0, -1  # what it replies
_TRIES = 3
_DIGITS_MAX = 19
_LOST = "`flashsale rebuild` shows what it can restore, and `flashsale rebuild --apply` does it"


OPEN, PAUSED, CLOSED = STATES = ("open", "paused", "closed")


def kinds_shared(lane: Lane) -> Mapping[str, str]:
    """What the keys are that all sales of a lane share; a number is a string of digits. Pure."""
    return {
        lane.stream_orders: "stream",
        lane.stream_dead: "stream",
        lane.dead_orders: "hash",
        lane.loaded_sales: "set",
        lane.epoch: "string",
        lane.permit: "string",
        lane.closed: "string",
        lane.lock_fence: "number",
    }


KINDS = kinds_shared(WHOLE)
_KINDS_OF_A_SALE = {
    Lane.seckill_stock: "string",
    Lane.seckill_sale: "hash",
    Lane.seckill_order: "set",
    Lane.seckill_receipt: "hash",
    Lane.seckill_idempotency: "hash",
}


def kinds_of(vouchers: Iterable[int], lane: Lane = WHOLE) -> Mapping[str, str]:
    """What the keys of these sales are, by name. Pure."""
    return {
        name(lane, voucher_id): kind
        for voucher_id in vouchers
        for name, kind in _KINDS_OF_A_SALE.items()
    }


def mistyped(ledger: Redis, kinds: Mapping[str, str]) -> dict[str, str]:
    """Those of the keys that are of another type than they have to be, and what they are. No script
    works with such a key. Raises Unavailable or Indeterminate."""
    pipeline = ledger.pipeline(transaction=False)
    for name, kind in kinds.items():
        pipeline.get(name) if kind == "number" else pipeline.type(name)
    found = {}
    for (name, kind), reply in zip(kinds.items(), call_each(pipeline), strict=True):
        if kind != "number" and reply not in ("none", kind):
            found[name] = f"is a {reply}, not a {kind}"
        elif kind == "number" and not (reply is None or _is_whole(reply)):
            found[name] = "is no number"
    return found


def _is_whole(reply: object) -> bool:
    return isinstance(reply, str) and whole(reply) is not None


def whole(text: str | None) -> int | None:
    """The whole number in `text`, written as Redis counts with it; else None. Pure."""
    if not text or len(text) > _DIGITS_MAX or not re.fullmatch("0|-?[1-9][0-9]*", text):
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class SaleTerms:
    """A sale as MySQL has it. Times are Unix milliseconds.

    `state` and `change` are what the journal says: how it stands, and the last change in it.
    """

    voucher_id: int
    stock: int
    initial: int
    begin_ms: int
    end_ms: int
    live_orders: int
    state: str = "open"
    change: int = 0

    @property
    def is_untouched(self) -> bool:
        """True while nothing has been sold, so that the ledger may start from MySQL's stock."""
        return self.stock == self.initial and self.live_orders == 0


def read_terms(pool: Engine) -> list[SaleTerms]:
    """The terms of every sale in MySQL, by voucher id. Raises Unavailable or Indeterminate."""
    live = (
        select(voucher_order.c.voucher_id, func.count().label("orders"))
        .where(voucher_order.c.live.is_not(None))
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
        standing = standings(connection)
    return [_terms(row, standing.get(row.voucher_id, Standing())) for row in rows]


def _terms(row: Row[*tuple[Any, ...]], standing: Standing) -> SaleTerms:
    return SaleTerms(
        row.voucher_id,
        row.stock,
        row.initial_stock,
        unix_ms(row.begin_time),
        unix_ms(row.end_time),
        row.live_orders,
        standing.state,
        standing.change,
    )


def load_call(terms: SaleTerms, layout: Layout = SINGLE) -> Call:
    """The call to sale_load.lua for a sale. Pure."""
    voucher_id = terms.voucher_id
    lane = layout.of(voucher_id)
    names = (
        lane.seckill_stock(voucher_id),
        lane.seckill_sale(voucher_id),
        lane.seckill_order(voucher_id),
        lane.seckill_receipt(voucher_id),
        lane.loaded_sales,
    )
    hours = (terms.begin_ms, terms.end_ms)
    return Call(_LOAD, names, (voucher_id, terms.stock, *hours, terms.change, terms.state))


def load_sale(ledger: Redis | Ledgers, terms: SaleTerms) -> bool:
    """Load one sale into the ledger; True where it was not loaded before.

    Raises ViolationError for a sale of which the ledger has lost all or part while MySQL knows
    of orders: starting it from MySQL's stock could sell units twice.
    """
    every = ledgers(ledger)
    one = every.of(terms.voucher_id)
    load = load_call(terms, every.layout)
    stock, sale, *_ = load.keys
    try:
        if not terms.is_untouched and not call(one.exists, stock, sale):
            raise ViolationError(
                f"voucher {terms.voucher_id} has {terms.live_orders} live orders and "
                f"{terms.stock} of {terms.initial} units in MySQL, but no sale in the ledger; "
                f"{_LOST}"
            )
        reply = evaluate(one, load)
    except (Unavailable, Indeterminate) as trouble:
        cure = f"; {_LOST}" if "REFUSED key" in str(trouble) else ""
        raise UnreachableError(f"the ledger refused to load a sale: {trouble}{cure}") from trouble
    if reply == _TORN:
        raise ViolationError(
            f"voucher {terms.voucher_id} has keys in the ledger that disagree; {_LOST}"
        )
    return bool(reply == _CREATED)


async def open_sale(ledger: LedgerChannel, terms: SaleTerms) -> None:
    """Load a sale that MySQL has just learned of; it can be bought from then on.

    Raises Unavailable where the ledger certainly has not got it, Indeterminate where it may.
    A call whose answer was lost is repeated: the script loads a sale once.
    """
    lost: Indeterminate | None = None
    for _ in range(_TRIES):
        try:
            reply = await ledger.evaluate(load_call(terms, ledger.layout))
        except Indeterminate as trouble:
            lost = trouble
        except Unavailable:
            if lost is None:
                raise
        else:
            was_ours = lost is not None and reply == _THERE and await _holds(ledger, terms)
            if reply == _CREATED or was_ours:
                return
            raise Unavailable(f"the ledger holds another sale of voucher {terms.voucher_id}")
    assert lost is not None
    raise lost


async def _holds(ledger: LedgerChannel, terms: SaleTerms) -> bool:
    """Whether the ledger's sale has these terms."""
    sale = ledger.layout.of(terms.voucher_id).seckill_sale(terms.voucher_id)
    found = await ledger.ask("HMGET", sale, "begin", "end", "initial")
    return bool(found == [str(terms.begin_ms), str(terms.end_ms), str(terms.initial)])
