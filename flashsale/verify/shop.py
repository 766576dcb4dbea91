"""A shop that is not ours, judged by the same rules: its books fill the snapshot that they read.

What the books do not have is not guessed. A check that lacks it is run all the same, since what it
finds is found, but otherwise it is unknown, with the reason, and has no say in the verdict; that
one says what it rests on.
"""

import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from redis import Redis

from flashsale.books import Books, ShopBooks
from flashsale.model import PayStatus, id_of
from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.attempts import Attempts, read_attempts
from flashsale.verify.finding import Judgement
from flashsale.verify.linearizability import LINEARIZABLE
from flashsale.verify.observation import Baseline, Observation, baseline_of, read_baseline
from flashsale.verify.queue import BEGINNING, Patience, Sighting
from flashsale.verify.shop_redis import (
    Rest,
    ShopQueue,
    read_ledger,
    read_pulse,
    read_shop_queue,
    shop_redis,
)
from flashsale.verify.shop_tables import Order, Stock, Told, count_orders, read_tables
from flashsale.verify.snapshot import Snapshot, join
from flashsale.verify.stores import NO_TIME, LedgerSale, MySQLSale, Rows
from flashsale.verify.verdict import after_waiting, judge

_TRIES = 5
_TRY_PAUSE_S = 0.2
_LOOK_EVERY_S = 0.25
_ALWAYS = (0, 2**62)
"""The window of a sale of which nobody says when it is open."""


@dataclass
class _Seen:
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


def take_baseline(shop: ShopBooks, units: Mapping[int, int]) -> Baseline:
    """The baseline of the sales of these vouchers, read now. `units` is what the scenario says of
    them, for a shop that does not say itself.

    Raises as `read_tables` does, and NothingJudgedError where the sales move already.
    """
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        seen = _look(shop, redis, tuple(units), BEGINNING)
        initial = {v: _initial_now(seen, v, units[v]) for v in units}
        return baseline_of(_observation(shop, redis, seen, initial))


def look_at(shop: ShopBooks, voucher: int) -> list[str]:
    """What the books say of a voucher, a line each. Raises as `read_tables` does."""
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        seen = _look(shop, redis, [voucher], BEGINNING)
        rows, stock = seen.rows[voucher], seen.stocks.get(voucher)
        told = ", ".join(sorted(seen.told.columns)) or "none, so their columns are not known yet"
        live = sum(1 for _ in rows.live())
        lines = [f"{len(rows):,} orders of voucher {voucher}, {live:,} live; columns: {told}"]
        if shop.books.stock:
            said = "nothing" if stock is None else _said(stock)
            lines.append(f"its stock says {said}")
        if shop.books.redis is not None:
            held = seen.ledgers.get(voucher, LedgerSale())
            lines.append(f"Redis has stock {held.stock}, {len(held.members):,} holders")
            backlog = seen.queue.queue.backlog.total
            lines.append(f"its queue: {seen.queue.why or f'{backlog:,} to do'}")
        return lines


def _said(stock: Stock) -> str:
    known = {name: value for name, value in stock._asdict().items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _initial_now(seen: _Seen, voucher: int, said: int) -> int:
    """The units on sale: the shop's word, else what is left and what was ordered, else what the
    scenario says."""
    stock, rows = seen.stocks.get(voucher), seen.rows[voucher]
    if stock is not None and stock.initial is not None:
        return stock.initial
    if stock is not None and stock.stock is not None:
        return stock.stock + rows.live_units
    return said + rows.live_units


def examine_shop(
    run_dir: Path,
    shop: ShopBooks,
    *,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    required: Collection[str] = (),
    on_look: Callable[[int], None] = lambda left: None,
) -> Judgement:
    """Judge the run recorded in `run_dir` by the books of its shop. Writes nothing anywhere.

    Takes and raises what `examine` does. Of a shop the end of a run is not marked: it is to be
    judged before the next.
    """
    attempts, before = read_attempts(run_dir), read_baseline(run_dir)
    since = before.position.entry if before else BEGINNING
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        waited_s = _drain(shop, redis, attempts.vouchers, since, drain_timeout_s, on_look)
        seen = _look(shop, redis, attempts.vouchers, since)
        initial = _initial_then(seen, before)
        snapshot = _snapshot(shop, attempts, before, seen, _observation(shop, redis, seen, initial))
    return after_waiting(judge(snapshot, required), waited_s)


def _initial_then(seen: _Seen, before: Baseline | None) -> dict[int, int]:
    """The units that each voucher was opened with, where anybody knows."""
    found: dict[int, int] = {}
    for voucher in seen.rows:
        stock = seen.stocks.get(voucher)
        earlier = before.sales.get(voucher) if before else None
        if stock is not None and stock.initial is not None:
            found[voucher] = stock.initial
        elif earlier is not None and earlier.mysql is not None:
            found[voucher] = earlier.mysql.initial
    return found


# Looking ------------------------------------------------------------------------------------------


def _look(shop: ShopBooks, redis: Redis | None, vouchers: Sequence[int], since: str) -> _Seen:
    """Read everything, a few times where something moved meanwhile."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_TRY_PAUSE_S)
        seen = _look_once(shop, redis, vouchers, since)
        if seen.still:
            break
    return seen


def _look_once(shop: ShopBooks, redis: Redis | None, vouchers: Sequence[int], since: str) -> _Seen:
    books = shop.books
    names: dict[int, str] = {}
    pulse = read_pulse(redis, books.redis, vouchers)
    queue = read_shop_queue(redis, books.redis, since, names)
    told = read_tables(books, shop.url, shop.base_url, vouchers)
    ledgers = {}
    if redis is not None and books.redis is not None:
        ledgers = {v: read_ledger(redis, books.redis, v, None, names) for v in vouchers}
    still = pulse == read_pulse(redis, books.redis, vouchers)
    seen = _Seen(told, {v: Rows() for v in vouchers}, {}, queue, still, names, ledgers=ledgers)
    _fill(seen, books, frozenset(vouchers))
    return seen


def _fill(seen: _Seen, books: Books, vouchers: AbstractSet[int]) -> None:
    """Put what the tables told into rows, an order without an id under one of its own."""
    turns: dict[tuple[int, int], int] = {}
    counted = "quantity" in seen.told.columns
    for order in sorted(seen.told.orders, key=lambda order: order.at_ms):
        voucher, user = _number(order.voucher, seen.names), _number(order.user, seen.names)
        number = _order_number(order, (user, voucher), turns, seen.names)
        rows = seen.rows.get(voucher)
        if rows is None:
            seen.others[number] = (user, voucher)
            continue
        status = PayStatus.UNPAID if order.live else PayStatus.CANCELLED
        rows.extend(array("q", (number, user, status, order.at_ms, NO_TIME)))
        if counted:
            rows.units.append(order.quantity)
    for stock in seen.told.stocks:
        voucher = _number(stock.voucher, seen.names)
        if voucher in vouchers:
            seen.stocks[voucher] = stock


def _order_number(
    order: Order,
    whose: tuple[int, int],
    turns: dict[tuple[int, int], int],
    names: dict[int, str],
) -> int:
    if order.id is not None:
        return _number(order.id, names)
    turns[whose] = turn = turns.get(whose, 0) + 1
    return _number(f"{order.user}'s {turn}. of {order.voucher}", names)


def _number(text: str, names: dict[int, str]) -> int:
    number = id_of(text)
    if str(number) != text:
        names[number] = text
    return number


def _observation(
    shop: ShopBooks, redis: Redis | None, seen: _Seen, initial: Mapping[int, int]
) -> Observation:
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


def _sale(seen: _Seen, voucher: int, initial: int) -> MySQLSale:
    """The shop's own count; one that it does not keep balances."""
    stock = seen.stocks.get(voucher)
    left = stock.stock if stock else None
    opens, closes = (stock.opens_ms, stock.closes_ms) if stock else (None, None)
    return MySQLSale(
        initial=initial,
        stock=initial - seen.rows[voucher].live_units if left is None else left,
        begin_ms=_ALWAYS[0] if opens is None else opens,
        end_ms=_ALWAYS[1] if closes is None else closes,
    )


def _ledger(books: Books, seen: _Seen, voucher: int, initial: int | None) -> LedgerSale:
    """What Redis holds; where it keeps a stock and nobody's name, the rows say who holds a unit."""
    found = seen.ledgers.get(voucher)
    if found is None or books.redis is None:
        return LedgerSale()
    if found.stock is not None and not books.redis.holders:
        rows = seen.rows[voucher]
        found = replace(found, members=frozenset(rows.user[row] for row in rows.live()))
    return replace(found, initial=initial if found.stock is not None else None)


# The snapshot -------------------------------------------------------------------------------------


def _snapshot(
    shop: ShopBooks,
    attempts: Attempts,
    before: Baseline | None,
    seen: _Seen,
    observed: Observation,
) -> Snapshot:
    named = replace(attempts, names={**seen.names, **attempts.names})
    snapshot = join(named, before, observed)
    sightings = _sightings(shop.books, seen)
    missing = {o for s in snapshot.sales for o in s.promised if o not in s.row_of}
    return replace(
        snapshot,
        sightings=sightings,
        strays={order: whose for order, whose in seen.others.items() if order in missing},
        absent=_absent(shop.books, attempts, seen, snapshot, sightings),
        rests_on=shop.rests_on,
    )


def _sightings(books: Books, seen: _Seen) -> dict[int, Sighting]:
    """When orders were sold, as far as the shop knows; when a row was written convicts nobody."""
    if books.time_is == "stream":
        return {order: (at_ms, at_ms) for order, at_ms in seen.queue.entry_ms.items()}
    if books.time_is == "written":
        return {}
    return {
        order: (at_ms, at_ms)
        for rows in seen.rows.values()
        for order, at_ms in zip(rows.order, rows.created_ms, strict=True)
        if at_ms != NO_TIME
    }


def _absent(
    books: Books,
    attempts: Attempts,
    seen: _Seen,
    snapshot: Snapshot,
    sightings: Mapping[int, Sighting],
) -> dict[str, str]:
    """The checks that lack their data, and what they lack."""
    found: dict[str, str] = {}
    if "id" not in seen.told.columns and seen.told.orders:
        found["unique_ids"] = "the shop's orders have no ids"
    stocks = [seen.stocks.get(sale.voucher) for sale in snapshot.sales]
    if any(stock is None or stock.stock is None for stock in stocks):
        found["mysql_conservation"] = "[books] tell of no stock beside the orders"
    if why := _no_ledger(books, attempts, snapshot):
        found["redis_conservation"] = why
    if attempts.quantity > 1 or attempts.limit > 1:
        found[LINEARIZABLE] = "the second judge knows sales of one unit and one order a user alone"
    if seen.queue.why:
        found["queue_empty"] = seen.queue.why
    if why := _no_window(books, seen, snapshot, sightings):
        found["window"] = why
    return found


def _no_ledger(books: Books, attempts: Attempts, snapshot: Snapshot) -> str:
    if books.redis is None or not books.redis.stock:
        return "[books] name no stock in Redis"
    if all(sale.ledger.stock is None and not sale.ledger.oddities for sale in snapshot.sales):
        return "there is no such key in Redis, or Redis is not given (--books-redis-url)"
    if attempts.quantity > 1 or attempts.limit > 1:
        return "Redis names users, not the units that each of them holds"
    return ""


def _no_window(
    books: Books, seen: _Seen, snapshot: Snapshot, sightings: Mapping[int, Sighting]
) -> str:
    stocks = [seen.stocks.get(sale.voucher) for sale in snapshot.sales]
    if any(s is None or (s.opens_ms is None and s.closes_ms is None) for s in stocks):
        return "[books] do not say when the sale opens and closes"
    if books.time_is == "written":
        return "[books] know when rows were written, not when their orders were sold"
    orders = (sale.rows.order[row] for sale in snapshot.sales for row in sale.new_rows())
    blind = sum(1 for order in orders if order not in sightings)
    where = f"in the stream {books.redis.stream}" if books.redis and books.redis.stream else ""
    told = where if books.time_is == "stream" else "told"
    return f"of {blind:,} orders the time of their sale is not {told}" if blind else ""


def _drain(
    shop: ShopBooks,
    redis: Redis | None,
    vouchers: Sequence[int],
    since: str,
    timeout_s: float,
    on_look: Callable[[int], None],
) -> float:
    """Wait until the queue is empty; where none can be read, until the rows rest. The seconds that
    it took."""
    patience, rest = Patience(timeout_s), Rest(shop.books.rest_ms / 1000)
    start_s = time.monotonic()
    while True:
        queue = read_shop_queue(redis, shop.books.redis, since, {})
        now_s = time.monotonic()
        if queue.why or (shop.books.redis is not None and shop.books.redis.list_):
            left = queue.queue.backlog.total
            rests = rest.is_over(count_orders(shop.books, shop.url, shop.base_url, vouchers), now_s)
            over = (rests and not left) or now_s - start_s >= timeout_s + shop.books.rest_ms / 1000
        else:
            left = queue.queue.backlog.total
            over = patience.is_over(left, now_s)
        on_look(left)
        if over:
            return now_s - start_s
        time.sleep(_LOOK_EVERY_S)
