"""A shop that is not ours, judged by the same rules: its books fill the snapshot that they read.

What the books do not have is not guessed. A check that lacks it is run all the same, since what it
finds is found, but otherwise it is unknown, with the reason, and has no say in the verdict; that
one says what it rests on.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from redis import Redis

from flashsale.books import ORDER_COLUMNS, Books, ShopBooks
from flashsale.model import id_of
from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.attempts import Attempts, read_attempts
from flashsale.verify.finding import Judgement
from flashsale.verify.linearizability import LINEARIZABLE
from flashsale.verify.observation import Baseline, Observation, baseline_of, read_baseline
from flashsale.verify.queue import BEGINNING, Sighting
from flashsale.verify.shop_redis import shop_redis
from flashsale.verify.shop_rows import Stock, UnfitError
from flashsale.verify.shop_seen import Seen, drain, look
from flashsale.verify.snapshot import Sale, Snapshot, join
from flashsale.verify.stores import NO_TIME, LedgerSale, MySQLSale
from flashsale.verify.verdict import after_waiting, judge

UNIQUE_IDS = "unique_ids"
_CHECK_DRAIN_S = 5.0
_ALWAYS = (0, 2**62)
"""The window of a sale of which nobody says when it is open."""


def take_baseline(shop: ShopBooks, units: Mapping[int, int], quantity: int = 1) -> Baseline:
    """The baseline of the sales of these vouchers, read now. `units` is what the scenario says of
    them, for a shop that does not say itself, and `quantity` what each claim asks for.

    Raises as `read_tables` does, UnfitError where the stock has none of a voucher or the orders do
    not say how many units they are of, and NothingJudgedError where the sales move already.
    """
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        seen = look(shop, redis, tuple(units), BEGINNING)
        _ensure_stock(shop.books, seen, tuple(units))
        _ensure_units(shop.books, seen, quantity)
        initial = {v: _initial_now(seen, v, units[v]) for v in units}
        return baseline_of(_observation(shop, redis, seen, initial))


def _ensure_stock(books: Books, seen: Seen, vouchers: Sequence[int]) -> None:
    """Raises UnfitError where books that tell of stock tell of none of a voucher."""
    missing = [books.name_of(v) for v in vouchers if v not in seen.stocks]
    if books.stock and missing:
        others = ", ".join(dict.fromkeys(stock.voucher for stock in seen.told.stocks)) or "nothing"
        raise UnfitError(
            f"books.stock: tells of {others[:200]}, and not of voucher {missing[0]}; sell what "
            "there is (sale.first_voucher, or target.vouchers for what it is called)"
        )


def _ensure_units(books: Books, seen: Seen, quantity: int) -> None:
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


def look_at(shop: ShopBooks, voucher: int, claimed: Sequence[Claimed] = ()) -> Iterator[str]:
    """What the books say of a voucher, a line each, and that they have what was just sold, once
    they rest. Raises as `take_baseline` does, and UnfitError where they do not have it."""
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        if claimed:
            drain(shop, redis, [voucher], BEGINNING, _CHECK_DRAIN_S, lambda left: None)
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
        if shop.books.redis is not None and redis is not None:
            held = seen.ledgers.get(voucher, LedgerSale())
            yield f"Redis has stock {held.stock}, {len(held.members):,} holders"
            yield from (f"in Redis {odd}" for odd in held.oddities)
            backlog = seen.queue.queue.backlog.total
            yield f"its queue: {seen.queue.why or f'{backlog:,} to do'}"
        for each in claimed:
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
        "the same text in answers, the users' file and the books"
    )


def _shown(user: str, order: str | None) -> str:
    return f"an order of user {user}" if order is None else f"order {order} of user {user}"


def _said(stock: Stock) -> str:
    known = {name: value for name, value in stock._asdict().items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _initial_now(seen: Seen, voucher: int, said: int) -> int:
    """The units on sale: the shop's word, else what is left and what was ordered, else what is left
    in Redis, else what the scenario says."""
    stock, held = seen.stocks.get(voucher), seen.ledgers.get(voucher)
    if stock is not None and stock.initial is not None:
        return stock.initial
    left = stock.stock if stock is not None else None
    if left is None and held is not None:
        left = held.stock
    return (said if left is None else left) + seen.rows[voucher].live_units


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
    several = attempts.quantity > 1 or attempts.limit > 1
    if trouble := shop.books.trouble(len(attempts.vouchers), several):
        raise UnfitError(trouble)
    with shop_redis(shop.books.redis, shop.redis_url) as redis:
        waited_s = drain(shop, redis, attempts.vouchers, since, drain_timeout_s, on_look)
        seen = look(shop, redis, attempts.vouchers, since)
        _ensure_ids(attempts, seen)
        _ensure_units(shop.books, seen, attempts.quantity)
        initial = _initial_then(seen, before)
        snapshot = _snapshot(shop, attempts, before, seen, _observation(shop, redis, seen, initial))
        _ensure_same_ids(shop.books, snapshot)
    return after_waiting(judge(snapshot, required), waited_s)


def _ensure_ids(attempts: Attempts, seen: Seen) -> None:
    """Raises UnfitError where answers name orders, and the books have no ids to find them by."""
    if not seen.told.columns or "id" in seen.told.columns:
        return
    if any(order > 0 for claims in attempts.claims.values() for order in claims.sold()[1]):
        raise UnfitError(
            "answers name orders, and those of [books] have no 'id'; tell it, or storm with "
            "target.buy.order left out"
        )


def _ensure_same_ids(books: Books, snapshot: Snapshot) -> None:
    """Raises UnfitError where the record and the books share no order, or no user, at all: then
    ids are written in two ways, and a shop would be accused of having lost each order and made
    others up."""
    sales = snapshot.sales
    new = [(s, row) for s in sales for row in (s.new_rows() if s.before else range(len(s.rows)))]
    if not (snapshot.accepted and new):
        return
    has_ids = UNIQUE_IDS not in snapshot.absent
    told = {order: sale for sale in sales for order in sale.promised}
    rows = {order for sale in sales for order in sale.row_of}
    orders = {sale.rows.order[row]: sale for sale, row in new}
    if has_ids and told and not snapshot.strays and rows.isdisjoint(told):
        raise UnfitError(
            f"answers name orders, {_such_as(told)}, and none of them is among the new ones of "
            f"[books], {_such_as(orders)}; {_SAME_TEXT}"
        )
    asked = {user for sale in sales for user in sale.claims.user}
    owners = {sale.rows.user[row]: sale for sale, row in new}
    if asked.isdisjoint(owners):
        raise UnfitError(
            f"the new orders of [books] are of users {_such_as(owners)}, and none of those who "
            f"came is among them; {_SAME_TEXT} (target.user_column names the users' column)"
        )
    known = asked.union(*(sale.holders for sale in sales))
    holders = {user: sale for sale in sales for user in sale.ledger.members}
    if holders and known.isdisjoint(holders):
        raise UnfitError(
            f"Redis names users {_such_as(holders)} as holders of orders, and none of those who "
            f"came is among them; {_SAME_TEXT}"
        )
    receipts = {order: sale for sale in sales for order in sale.ledger.receipts.values()}
    if has_ids and receipts and rows.isdisjoint(receipts) and not books.orders_in_redis:
        raise UnfitError(
            f"books.redis.receipts: found orders {_such_as(receipts)}, and none of them is among "
            f"those of [books]; {_SAME_TEXT}, or leave receipts out"
        )


_SAME_TEXT = "ids have to be the same text in answers, the users' file and the books"
_SHOWN = 2


def _such_as(found: Mapping[int, Sale]) -> str:
    """A few of these ids as the shop writes them."""
    named = [repr(str(found[number].called(number))) for number in sorted(found)[:_SHOWN]]
    return f"such as {' and '.join(named)}"


def _initial_then(seen: Seen, before: Baseline | None) -> dict[int, int]:
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


def _observation(
    shop: ShopBooks, redis: Redis | None, seen: Seen, initial: Mapping[int, int]
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


def _sale(seen: Seen, voucher: int, initial: int) -> MySQLSale:
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


def _ledger(books: Books, seen: Seen, voucher: int, initial: int | None) -> LedgerSale:
    """What Redis holds; where it keeps a stock and nobody's name, the rows say who holds a unit."""
    found = seen.ledgers.get(voucher)
    if found is None or books.redis is None:
        return LedgerSale()
    if found.stock is not None and not (books.redis.holders or books.redis.receipts):
        rows = seen.rows[voucher]
        found = replace(found, members=frozenset(rows.user[row] for row in rows.live()))
    return replace(found, initial=initial if found.stock is not None else None)


# The snapshot -------------------------------------------------------------------------------------


def _snapshot(
    shop: ShopBooks,
    attempts: Attempts,
    before: Baseline | None,
    seen: Seen,
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


def _sightings(books: Books, seen: Seen) -> dict[int, Sighting]:
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
    seen: Seen,
    snapshot: Snapshot,
    sightings: Mapping[int, Sighting],
) -> dict[str, str]:
    """The checks that lack their data, and what they lack."""
    found: dict[str, str] = {}
    if "id" not in seen.told.columns and seen.told.orders:
        found[UNIQUE_IDS] = "the shop's orders have no ids"
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
    books: Books, seen: Seen, snapshot: Snapshot, sightings: Mapping[int, Sighting]
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
