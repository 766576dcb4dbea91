"""A shop that is not ours, before it is stormed: the baseline of its sales, and what its books say
of one claim that was tried.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from flashsale.books import ORDER_COLUMNS, Books, ShopBooks
from flashsale.model import id_of
from flashsale.verify.observation import Baseline, baseline_of
from flashsale.verify.queue import BEGINNING
from flashsale.verify.shop_redis import shop_redis
from flashsale.verify.shop_rows import Stock, UnfitError
from flashsale.verify.shop_seen import Seen, drain, look, observation
from flashsale.verify.stores import LedgerSale

LATE_LOOK_EVERY_S = 0.5
"""From a look at rows that are to come to the next."""
_CHECK_DRAIN_S = 5.0


def take_baseline(shop: ShopBooks, units: Mapping[int, int], quantity: int = 1) -> Baseline:
    """The baseline of the sales of these vouchers, read now. `units` is what the scenario says of
    them, for a shop that does not say itself, and `quantity` what each claim asks for.

    Raises as `read_tables` does, UnfitError where the stock has none of a voucher or the orders do
    not say how many units they are of, and NothingJudgedError where the sales move already.
    """
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        seen = look(shop, redis, tuple(units), BEGINNING)
        _ensure_stock(shop.books, seen, tuple(units))
        ensure_units(shop.books, seen, quantity)
        initial = {v: _initial_now(shop, seen, v, units[v]) for v in units}
        return baseline_of(observation(shop, seen, initial))


def _ensure_stock(books: Books, seen: Seen, vouchers: Sequence[int]) -> None:
    """Raises UnfitError where books that tell of stock tell of none of a voucher."""
    missing = [books.name_of(v) for v in vouchers if v not in seen.stocks]
    if books.stock and missing:
        others = ", ".join(dict.fromkeys(stock.voucher for stock in seen.told.stocks)) or "nothing"
        raise UnfitError(
            f"books.stock: tells of {others[:200]}, and not of voucher {missing[0]}; sell what "
            "there is (sale.first_voucher, or target.vouchers for what it is called)"
        )


def ensure_units(books: Books, seen: Seen, quantity: int) -> None:
    """Raises UnfitError where claims ask for several units, and orders do not say how many they
    are of: one taken for each would hide an oversell."""
    columns = seen.told.columns
    if quantity == 1 or not columns or "quantity" in columns:
        return
    cure = (
        'say what the route calls it: names = { quantity = "…" }'
        if books.route
        else f"name it in the query, or write {quantity} AS quantity where each row is a claim"
    )
    raise UnfitError(
        f"books.orders: each claim asks for {quantity:,} units, and an order without 'quantity' "
        f"does not say how many it is of; {cure}"
    )


Claimed = tuple[str, str | None]
"""Who was sold something, and the id of the order, where an answer named one."""


def look_at(
    shop: ShopBooks, voucher: int, claimed: Sequence[Claimed] = (), *, cancelled: bool = False
) -> Iterator[str]:
    """What the books say of a voucher, a line each, and that they have what was just sold, once
    they rest. Raises as `take_baseline` does, and UnfitError where they do not have it, or have it
    as one that ended. What was `cancelled` may be neither."""
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        until_s = time.monotonic() + _CHECK_DRAIN_S + shop.books.rest_ms / 1000
        if claimed:
            drain(shop, redis, [voucher], BEGINNING, _CHECK_DRAIN_S, lambda left: None)
        seen = look(shop, redis, [voucher], BEGINNING)
        is_late = bool(claimed) and not cancelled
        while is_late and not seen.rows[voucher] and time.monotonic() < until_s:
            time.sleep(LATE_LOOK_EVERY_S)
            seen = look(shop, redis, [voucher], BEGINNING)
        _ensure_stock(shop.books, seen, [voucher])
        rows, stock = seen.rows[voucher], seen.stocks.get(voucher)
        told = ", ".join(sorted(seen.told.columns & {*ORDER_COLUMNS})) or "not known yet"
        if strange := sorted(seen.told.columns - {*ORDER_COLUMNS}):
            told += f"; not used: {', '.join(strange)}"
        live = sum(1 for _ in rows.live())
        yield f"{len(rows):,} orders of voucher {voucher}, {live:,} live; columns: {told}"
        if shop.books.stock:
            yield f"its stock says {'nothing' if stock is None else _said(stock)}"
        if shop.books.redis is not None and redis is None:
            yield "Redis is not given (--books-redis-url), so nothing there is read"
        if shop.books.redis is not None and redis is not None:
            held = seen.ledgers.get(voucher, LedgerSale())
            what = "sold" if shop.books.redis.stock_is == "sold" else "stock"
            yield f"Redis has {what} {held.stock}, {len(held.members):,} holders"
            yield from (f"in Redis {odd}" for odd in held.oddities)
            backlog = seen.queue.queue.backlog.total
            yield f"its queue: {seen.queue.why or f'{backlog:,} to do'}"
        for each in claimed if not cancelled else ():
            yield _found(seen, voucher, each)


def _found(seen: Seen, voucher: int, claimed: Claimed) -> str:
    """That an order is there. Raises UnfitError with what is there in its place."""
    user, order = claimed
    rows, has_ids = seen.rows[voucher], "id" in seen.told.columns
    if order is not None and rows and not has_ids:
        raise UnfitError(
            f"the answer names order {order}, and the orders have no 'id'; tell it, or leave "
            "target.buy.order out"
        )
    wanted = (id_of(order), id_of(user)) if order is not None else (None, id_of(user))
    for row in range(len(rows)):
        if rows.user[row] == wanted[1] and wanted[0] in (None, rows.order[row]):
            if order is not None and not rows.is_live(row):
                raise UnfitError(
                    f"{_shown(user, order)} was sold, and is not live in the books; see to 'live' "
                    "there, and to books.live_is"
                )
            return f"what was sold is there: {_shown(user, order)}"
    last = len(rows) - 1
    there = (
        "none of this voucher"
        if last < 0
        else "the last is "
        + _shown(
            str(seen.names.get(rows.user[last], rows.user[last])),
            str(seen.names.get(rows.order[last], rows.order[last])) if has_ids else None,
        )
    )
    raise UnfitError(
        f"{_shown(user, order)} was sold, and is not among the orders ({there}); ids have to be "
        "the same text in answers, the users' file and the books, and rows that come later than "
        "this need a larger books.rest_ms"
    )


def _shown(user: str, order: str | None) -> str:
    return f"an order of user {user}" if order is None else f"order {order} of user {user}"


def _said(stock: Stock) -> str:
    known = {name: value for name, value in stock._asdict().items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _initial_now(shop: ShopBooks, seen: Seen, voucher: int, said: int) -> int:
    """The units on sale: the shop's word, else what is left and what was ordered, else what is left
    in Redis, else what the scenario says."""
    stock, held = seen.stocks.get(voucher), seen.ledgers.get(voucher)
    if stock is not None and stock.initial is not None:
        return stock.initial
    left = stock.stock if stock is not None else None
    counts_left = shop.books.redis is not None and shop.books.redis.stock_is != "sold"
    if left is None and held is not None and counts_left:
        left = held.stock
    return (said if left is None else left) + seen.rows[voucher].live_units
