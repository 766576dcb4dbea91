"""A shop that is not ours, looked at: all of its books at once, put into columns of numbers; the
wait for what is to come; the baseline of its sales, and what the books say of one claim that was
tried.
"""

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from redis import Redis

from flashsale.books import ORDER_COLUMNS, Books, ShopBooks
from flashsale.errors import UnreachableError
from flashsale.model import PayStatus, id_of
from flashsale.verify.attempts import NO_ORDER
from flashsale.verify.observation import Baseline, Observation, baseline_of
from flashsale.verify.queue import BEGINNING, Patience
from flashsale.verify.shop_redis import (
    Rest,
    ShopQueue,
    numbered,
    read_ledger,
    read_pulse,
    read_shop_queue,
    shop_redis,
)
from flashsale.verify.shop_rows import ShopOrder, Stock, Told, UnfitError
from flashsale.verify.shop_tables import count_orders, read_tables
from flashsale.verify.snapshot import ALWAYS_MS
from flashsale.verify.stores import NO_TIME, LedgerSale, MySQLSale, Rows

_TRIES = 5
_TRY_PAUSE_S = 0.2
_LOOK_EVERY_S = 0.25


@dataclass
class Seen:
    """One look at everything. `names` are ids that are no numbers, `others` orders of vouchers that
    nobody asked about."""

    told: Told
    rows: dict[int, Rows]
    stocks: dict[int, Stock]
    queue: ShopQueue
    still: bool
    names: dict[int, str] = field(default_factory=dict)
    others: dict[int, tuple[int, int]] = field(default_factory=dict)
    ledgers: dict[int, LedgerSale] = field(default_factory=dict)

    def fill_in_cancelled(
        self, cancelled: Mapping[int, Sequence[tuple[int, int]]], quantity: int
    ) -> None:
        """Put orders that were cancelled, and are no rows, among the rows as what ended: a shop may
        delete them. `cancelled` are users and orders (or NO_ORDER) by voucher."""
        for voucher, pairs in cancelled.items():
            rows = self.rows[voucher]
            known, owners = set(rows.order), set(rows.user)
            is_counted = bool(rows.units) or quantity > 1
            for turn, (user, order) in enumerate(pairs):
                if order in known or (order <= NO_ORDER and user in owners):
                    continue
                number = order if order > NO_ORDER else id_of(f"{user}'s, cancelled as {turn}.")
                rows.extend(array("q", (number, user, PayStatus.CANCELLED, NO_TIME, NO_TIME)))
                if is_counted:
                    rows.units.append(quantity)


def look(shop: ShopBooks, redis: Redis | None, vouchers: Sequence[int], since: str) -> Seen:
    """Read everything, a few times where something moved meanwhile."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_TRY_PAUSE_S)
        seen = _look_once(shop, redis, vouchers, since)
        if seen.still:
            break
    return seen


def _look_once(shop: ShopBooks, redis: Redis | None, vouchers: Sequence[int], since: str) -> Seen:
    books = shop.books
    names: dict[int, str] = {}
    pulse = read_pulse(redis, books, vouchers)
    queue = read_shop_queue(redis, books, since, names)
    told = read_tables(shop, vouchers)
    ledgers = {}
    if redis is not None and books.redis is not None:
        ledgers = {v: read_ledger(redis, books, v, names) for v in vouchers}
    elif books.orders_in_redis:
        raise UnreachableError("Redis has the orders, and is not given (--books-redis-url)")
    still = pulse == read_pulse(redis, books, vouchers)
    seen = Seen(told, {v: Rows() for v in vouchers}, {}, queue, still, names, ledgers=ledgers)
    if books.orders_in_redis:
        _fill_from_redis(seen)
    _fill(seen, books, frozenset(vouchers))
    return seen


def _fill_from_redis(seen: Seen) -> None:
    """Where nothing else knows of the orders: each user with one in Redis, and its id if it is
    there."""
    columns = {"user", "voucher"}
    for voucher, held in seen.ledgers.items():
        for user in {*held.members, *held.receipts}:
            order = held.receipts.get(user)
            columns |= {"id"} if order is not None else set()
            number = order or numbered(f"user {user} of {voucher}", seen.names)
            numbers = (number, user, PayStatus.UNPAID, NO_TIME, NO_TIME)
            seen.rows[voucher].extend(array("q", numbers))
    seen.told = replace(seen.told, columns=frozenset(columns))


def _fill(seen: Seen, books: Books, vouchers: AbstractSet[int]) -> None:
    """Put what the tables told into rows, an order without an id under one of its own."""
    turns: dict[tuple[int, int], int] = {}
    counted = "quantity" in seen.told.columns
    folded = {name.casefold(): name for name in map(str, books.vouchers)}
    for order in sorted(seen.told.orders, key=lambda order: order.at_ms):
        voucher, user = books.number_of(order.voucher), numbered(order.user, seen.names)
        number = _order_number(order, (user, voucher), turns, seen.names)
        rows = seen.rows.get(voucher)
        if rows is None:
            if (meant := folded.get(order.voucher.casefold())) not in (None, order.voucher):
                raise UnfitError(
                    f"books.orders: found voucher {order.voucher!r}, and the file calls it "
                    f"{meant!r}; write it there as the books do, or have the query do as the "
                    "file: lower(sku) AS voucher"
                )
            seen.others[number] = (user, voucher)
            seen.names[voucher] = order.voucher
            continue
        status = PayStatus.UNPAID if order.live else PayStatus.CANCELLED
        rows.extend(array("q", (number, user, status, order.at_ms, NO_TIME)))
        if counted:
            rows.units.append(order.quantity)
    for stock in seen.told.stocks:
        voucher = books.number_of(stock.voucher)
        if voucher in vouchers:
            earlier = seen.stocks.get(voucher)
            seen.stocks[voucher] = stock if earlier is None else _together(books, earlier, stock)


def _together(books: Books, one: Stock, other: Stock) -> Stock:
    """Two rows of one voucher, such as of two warehouses. A query can sum them, and may hold one
    twice by a join; what a route tells is summed here. Raises UnfitError."""
    if not books.route:
        raise UnfitError(
            f"books.stock: tells of {one.voucher} in several rows; sum them, such as SELECT sku AS "
            "voucher, sum(stock) AS stock … GROUP BY sku"
        )
    opens = [each.opens_ms for each in (one, other) if each.opens_ms is not None]
    closes = [each.closes_ms for each in (one, other) if each.closes_ms is not None]
    return Stock(
        voucher=one.voucher,
        stock=_sum(one.stock, other.stock),
        initial=_sum(one.initial, other.initial),
        opens_ms=min(opens, default=None),
        closes_ms=max(closes, default=None),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _order_number(
    order: ShopOrder,
    whose: tuple[int, int],
    turns: dict[tuple[int, int], int],
    names: dict[int, str],
) -> int:
    if order.id is not None:
        return numbered(order.id, names)
    turns[whose] = turn = turns.get(whose, 0) + 1
    return numbered(f"{order.user}'s {turn}. of {order.voucher}", names)


def observation(shop: ShopBooks, seen: Seen, initial: Mapping[int, int]) -> Observation:
    """What was seen, as the rules read it."""
    ledgers = {
        voucher: _ledger(shop.books, seen, voucher, initial.get(voucher)) for voucher in seen.rows
    }
    return Observation(
        dataset=None,
        clocks=None,
        mysql={v: _sale(seen, v, initial[v]) for v in seen.rows if v in initial},
        rows=seen.rows,
        ledger=ledgers,
        queue=seen.queue.queue,
        still=seen.still,
    )


def _sale(seen: Seen, voucher: int, initial: int) -> MySQLSale:
    """The shop's own count; one that it does not keep balances."""
    stock = seen.stocks.get(voucher)
    left = stock.stock if stock else None
    opens, closes = (stock.opens_ms, stock.closes_ms) if stock else (None, None)
    return MySQLSale(
        initial=initial,
        stock=initial - seen.rows[voucher].live_units if left is None else left,
        begin_ms=ALWAYS_MS[0] if opens is None else opens,
        end_ms=ALWAYS_MS[1] if closes is None else closes,
    )


def _ledger(books: Books, seen: Seen, voucher: int, initial: int | None) -> LedgerSale:
    """What Redis holds; where it keeps a stock and nobody's name, the rows say who holds a unit."""
    found = seen.ledgers.get(voucher)
    if found is None or books.redis is None:
        return LedgerSale()
    if books.redis.stock_is == "sold" and found.stock is not None:
        left = None if initial is None else max(0, initial - found.stock)
        found = replace(found, stock=left)
    if found.stock is not None and not (books.redis.holders or books.redis.receipts):
        rows = seen.rows[voucher]
        found = replace(found, members=frozenset(rows.user[row] for row in rows.live()))
    return replace(found, initial=initial if found.stock is not None else None)


def drain(
    shop: ShopBooks,
    redis: Redis | None,
    vouchers: Sequence[int],
    since: str,
    timeout_s: float,
    on_look: Callable[[int], None],
) -> float:
    """Wait until the queue is empty; where none can be read, or an order that is worked on is in
    none, until the rows rest. The seconds that it took."""
    kept = shop.books.redis
    patience, rest = Patience(timeout_s), Rest(shop.books.rest_ms / 1000)
    start_s = time.monotonic()
    while True:
        queue = read_shop_queue(redis, shop.books, since, {})
        left, now_s = queue.queue.backlog.total, time.monotonic()
        if queue.why or (kept is not None and kept.list_):
            rests = rest.is_over(count(shop, redis, vouchers), now_s)
            over = (rests and not left) or now_s - start_s >= timeout_s + shop.books.rest_ms / 1000
        else:
            over = patience.is_over(left, now_s)
        on_look(left)
        if over:
            return now_s - start_s
        time.sleep(_LOOK_EVERY_S)


def count(shop: ShopBooks, redis: Redis | None, vouchers: Sequence[int]) -> int:
    """How many orders there are."""
    if shop.books.orders_in_redis and redis is not None:
        held = [read_ledger(redis, shop.books, voucher, {}) for voucher in vouchers]
        return sum(len({*each.members, *each.receipts}) for each in held)
    return count_orders(shop, vouchers)


# Before a storm ----------------------------------------------------------------------------------
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
    there, name_of = "none of this voucher", seen.names.get
    if len(rows):
        last = str(name_of(rows.order[-1], rows.order[-1])) if has_ids else None
        there = f"the last is {_shown(str(name_of(rows.user[-1], rows.user[-1])), last)}"
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
