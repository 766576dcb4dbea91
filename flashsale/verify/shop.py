"""A shop that is not ours, judged by the same rules: its books fill the snapshot that they read.

What the books do not have is not guessed. A check that lacks it is run all the same, since what it
finds is found, but otherwise it is unknown, with the reason, and has no say in the verdict; that
one says what it rests on.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flashsale.books import Books, ShopBooks
from flashsale.model import Outcome
from flashsale.verify.attempts import (
    NO_ORDER,
    OUTCOMES,
    SOLD,
    ClaimColumns,
    RunRecord,
    read_attempts,
)
from flashsale.verify.checks.answers import lost_promises
from flashsale.verify.finding import Judgement
from flashsale.verify.linearizability import LINEARIZABLE
from flashsale.verify.observation import Baseline, Observation, read_baseline
from flashsale.verify.queue import BEGINNING, Patience, Sighting
from flashsale.verify.shop_redis import shop_redis
from flashsale.verify.shop_rows import UnfitError
from flashsale.verify.shop_seen import (
    LATE_LOOK_EVERY_S,
    Seen,
    count,
    drain,
    ensure_units,
    look,
    observation,
)
from flashsale.verify.snapshot import SaleSnapshot, Snapshot, join
from flashsale.verify.stores import NO_TIME
from flashsale.verify.verdict import DRAIN_TIMEOUT_S, after_waiting, judge

UNIQUE_IDS = "unique_ids"


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

        def snapshot() -> Snapshot:
            seen = look(shop, redis, attempts.vouchers, since)
            _leave_out_refused(attempts, before, seen)
            seen.fill_in_cancelled(attempts.cancelled, attempts.quantity)
            _ensure_ids(attempts, seen)
            ensure_units(shop.books, seen, attempts.quantity)
            observed = observation(shop, seen, _initial_then(seen, before))
            taken = _snapshot(shop, attempts, before, seen, observed)
            _ensure_same_ids(shop.books, taken)
            if not attempts.cancelled:
                _ensure_any_is_live(taken)
            return taken

        counted = partial(count, shop, redis, attempts.vouchers)
        found, late_s = _awaited(snapshot, counted, drain_timeout_s, on_look)
    return after_waiting(judge(found, required), waited_s + late_s)


def _awaited(
    read: Callable[[], Snapshot],
    counted: Callable[[], int],
    timeout_s: float,
    on_look: Callable[[int], None],
) -> tuple[Snapshot, float]:
    """A snapshot in which each order that a user was told of is a row, if given time, and that
    time: rows may rest between two batches of a shop whose queue nobody can read."""
    start_s, patience = time.monotonic(), Patience(timeout_s)
    rows, snapshot = counted(), read()
    while "queue_empty" in snapshot.absent:
        missing = sum(1 for sale in snapshot.sales for _ in lost_promises(snapshot, sale))
        on_look(missing)
        while not patience.is_over(missing, time.monotonic()):
            time.sleep(LATE_LOOK_EVERY_S)
            now = counted()
            if now != rows:
                rows, snapshot = now, read()
                break
        else:
            break
    return snapshot, time.monotonic() - start_s


_REFUSED = frozenset(
    map(OUTCOMES.index, (Outcome.SOLD_OUT, Outcome.DUPLICATE, Outcome.NOT_OPEN, Outcome.ENDED))
)


def _leave_out_refused(attempts: RunRecord, before: Baseline | None, seen: Seen) -> None:
    """Take out rows that ended and are of claims that were refused, where a shop writes one for
    each claim: no order came of those, and no unit that would excuse another refusal."""
    for voucher, claims in attempts.claims.items():
        rows = seen.rows[voucher]
        if rows.live_count == len(rows):
            continue
        earlier = before.sales.get(voucher) if before else None
        users, named = _refused(claims), {*claims.order, *claims.resolved}
        seen.rows[voucher] = rows.without(
            {
                row
                for row, (order, user) in enumerate(zip(rows.order, rows.user, strict=True))
                if user in users
                and order not in named
                and not (rows.is_live(row) or (earlier is not None and earlier.knows(order)))
            }
        )


def _refused(claims: ClaimColumns) -> set[int]:
    """Users of whose claims each was refused, or is known by the id of its order."""
    others = {
        claims.user[k]
        for k, code in enumerate(claims.outcome)
        if code not in _REFUSED and not (code == SOLD and claims.order[k] > NO_ORDER)
    }
    return set(claims.user) - others


def _ensure_ids(attempts: RunRecord, seen: Seen) -> None:
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
    told = {order: sale for sale in sales for order in sale.promised}
    if told and told.keys() <= snapshot.strays.keys():
        strange = {voucher: sales[0] for _, voucher in snapshot.strays.values()}
        raise UnfitError(
            f"the orders that answers name are of vouchers {_such_as(strange)} in [books], and of "
            "none that was sold; target.vouchers or books.vouchers say what those are called"
        )
    news = [(s, s.new_rows() if s.before else range(len(s.rows))) for s in sales]
    if not (snapshot.accepted and any(rows for _, rows in news)):
        return
    has_ids = UNIQUE_IDS not in snapshot.absent
    rows = {order for sale in sales for order in sale.row_of}
    if has_ids and told and not snapshot.strays and rows.isdisjoint(told):
        orders = {sale.rows.order[row]: sale for sale, new in news for row in new}
        raise UnfitError(
            f"answers name orders, {_such_as(told)}, and none of them is among the new ones of "
            f"[books], {_such_as(orders)}; {_SAME_TEXT}"
        )
    asked = {user for sale in sales for user in sale.claims.user}
    if not any(sale.rows.user[row] in asked for sale, new in news for row in new):
        owners = {sale.rows.user[row]: sale for sale, new in news for row in new}
        raise UnfitError(
            f"the new orders of [books] are of users {_such_as(owners)}, and none of those who "
            f"came is among them; {_SAME_TEXT} (target.user_column names the users' column)"
        )
    if has_ids:
        _ensure_same_users(sales)
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


def _ensure_same_users(sales: Sequence[SaleSnapshot]) -> None:
    """Raises UnfitError where most orders that answers name are of another user in the books: then
    the books number users in a way of their own, whose numbers happen to be others' here."""
    told = [
        (sale, order, sale.claims.user[k], sale.rows.user[sale.row_of[order]])
        for sale in sales
        for order, k in sale.promised.items()
        if order in sale.row_of
    ]
    apart = [each for each in told if each[2] != each[3]]
    one_each = len({owner for *_, owner in apart}) == len({user for _, _, user, _ in apart})
    if len(told) < _TOLD_MIN or 2 * len(apart) <= len(told) or not one_each:
        return
    sale, order, user, owner = apart[0]
    raise UnfitError(
        f"{len(apart):,} of {len(told):,} orders that answers name are of another user in [books]: "
        f"of {sale.called(order)} user {sale.called(user)} was told, and it is user "
        f"{sale.called(owner)}'s there; {_SAME_TEXT}, and books that number users for themselves "
        "are to tell them by name, such as by a join"
    )


def _ensure_any_is_live(snapshot: Snapshot) -> None:
    """Raises UnfitError where users were told that they bought, and each order has ended, though
    nobody cancelled any: then what is live is read wrongly, which would hide an oversell."""
    count = sum(len(sale.new_rows()) for sale in snapshot.sales)
    is_any = any(s.rows.is_live(row) for s in snapshot.sales for row in s.new_rows())
    if snapshot.accepted and count and not is_any:
        raise UnfitError(
            f"users were told of {snapshot.accepted:,} orders, and none of the {count:,} new "
            "ones in [books] is live, though nobody cancelled; see to 'live' there, and to "
            "books.live_is"
        )


_TOLD_MIN = 3
"""Fewer orders than these under another user are the shop's, and no way to number users."""

_APART_MS = 10 * 60_000
_ZONE_STEP_MIN, _NEAR_MIN, _ZONE_MOST_MIN = 15, 2, 14 * 60
"""Zones are so many minutes from one another, and at most so many from UTC."""
_SAME_TEXT = "ids have to be the same text in answers, the users' file and the books"
_SHOWN = 2


def _such_as(found: Mapping[int, SaleSnapshot]) -> str:
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


# The snapshot -------------------------------------------------------------------------------------


def _snapshot(
    shop: ShopBooks,
    attempts: RunRecord,
    before: Baseline | None,
    seen: Seen,
    observed: Observation,
) -> Snapshot:
    named = replace(attempts, names={**seen.names, **attempts.names})
    snapshot = join(named, before, observed)
    sightings = _sightings(shop.books, seen)
    of_run = [sightings[o][0] for o in _new_orders(snapshot) if o in sightings]
    odd = _time_apart(shop.books, attempts, of_run) if shop.books.time_is == "sold" else ""
    if odd:
        sightings = {}
    missing = {o for s in snapshot.sales for o in s.promised if o not in s.row_of}
    return replace(
        snapshot,
        sightings=sightings,
        strays={order: whose for order, whose in seen.others.items() if order in missing},
        absent={
            **_absent(shop.books, attempts, seen, snapshot, sightings),
            **({"window": odd} if odd else {}),
        },
        rests_on=shop.rests_on,
        lapsed={} if shop.books.may_end else _lapsed(attempts, snapshot),
        around_ms=_around_ms(attempts),
    )


def _around_ms(attempts: RunRecord) -> tuple[int, int] | None:
    """From well before the run until well after it, by the storm's clock."""
    if (began_ms := attempts.began_ms) is None:
        return None
    return began_ms - _APART_MS, began_ms + _lasted_ms(attempts) + _APART_MS


def _lasted_ms(attempts: RunRecord) -> int:
    return max(max(claims.done_us, default=0) for claims in attempts.claims.values()) // 1_000


def _lapsed(attempts: RunRecord, snapshot: Snapshot) -> dict[int, list[int]]:
    """Rows of orders that users were told of, and that have ended though nobody cancelled them."""
    found = {}
    for sale in snapshot.sales:
        if sale.rows.live_count == len(sale.rows):
            continue
        undoing, rows, live = attempts.undoing.get(sale.voucher, ()), sale.rows, sale.live_of
        found[sale.voucher] = [
            row
            for row in sale.new_rows()
            if not rows.is_live(row)
            and rows.user[row] not in undoing
            and (
                rows.order[row] in sale.promised
                or (rows.user[row] in sale.unnamed and rows.user[row] not in live)
            )
        ]
    return found


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


def _new_orders(snapshot: Snapshot) -> Iterator[int]:
    return (sale.rows.order[row] for sale in snapshot.sales for row in sale.new_rows())


def _time_apart(books: Books, attempts: RunRecord, times_ms: Sequence[int]) -> str:
    """What keeps the times of a run's orders from being those of their sale: that all of them are
    as far from the run as another zone's are. Empty where nothing does."""
    began_ms = attempts.began_ms
    if began_ms is None or not times_ms:
        return ""
    nearest_ms = min((at_ms - began_ms for at_ms in times_ms), key=abs)
    if -_APART_MS <= nearest_ms <= _lasted_ms(attempts) + _APART_MS:
        return ""
    apart_min = round(nearest_ms / 60_000)
    steps_min = round(apart_min / _ZONE_STEP_MIN) * _ZONE_STEP_MIN
    zone_min = books.utc_offset_min + steps_min
    if abs(apart_min - steps_min) > _NEAR_MIN or abs(zone_min) > _ZONE_MOST_MIN:
        return ""
    return (
        f"the times of the run's orders are {apart_min:+,} minutes from the run; "
        f"books.utc_offset_min = {zone_min} would fit"
    )


def _absent(
    books: Books,
    attempts: RunRecord,
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


def _no_ledger(books: Books, attempts: RunRecord, snapshot: Snapshot) -> str:
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
    blind = sum(1 for order in _new_orders(snapshot) if order not in sightings)
    where = f"in the stream {books.redis.stream}" if books.redis and books.redis.stream else ""
    told = where if books.time_is == "stream" else "told"
    return f"of {blind:,} orders the time of their sale is not {told}" if blind else ""
