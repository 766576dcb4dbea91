"""Rules of units: none sold that was not there, none kept from a buyer, and the books balance
in each store and between them.
"""

from collections.abc import Iterator
from heapq import nlargest
from operator import eq

from flashsale.model import Outcome
from flashsale.verify.attempts import OUTCOMES, SOLD_OUT
from flashsale.verify.finding import Finding, Met, Offence, doubt, remark, violation
from flashsale.verify.observation import SaleBefore
from flashsale.verify.snapshot import ALWAYS_MS, SaleSnapshot, Snapshot

_NOTHING_BEFORE = SaleBefore()
ENDED, NOT_OPEN = OUTCOMES.index(Outcome.ENDED), OUTCOMES.index(Outcome.NOT_OPEN)


def no_oversell(snapshot: Snapshot) -> list[Finding]:
    """Orders never exceed units, whether rows or only promised yet.

    Cannot judge a sale whose units neither store knows.
    """
    sales = snapshot.sales
    return [
        *violation("orders past the last unit", (o for sale in sales for o in _oversold(sale))),
        *doubt("units not known", (s.offence("in neither store") for s in sales if not _known(s))),
    ]


def buyers_beyond(snapshot: Snapshot) -> Met:
    """More buyers than units: without them nothing can be oversold."""
    return {"buyers beyond the last unit": sum(_beyond(sale) for sale in snapshot.sales)}


def _beyond(sale: SaleSnapshot) -> int:
    before = sale.before
    units = before.redis_stock if before and before.redis_stock is not None else sale.initial
    return max(0, sale.buyers - (units or 0))


def _known(sale: SaleSnapshot) -> bool:
    return sale.initial is not None


def _oversold(sale: SaleSnapshot) -> Iterator[Offence]:
    if sale.initial is None:
        return
    held = sale.units_held
    surplus = -(-(held - sale.initial - _oversold_before(sale.before)) // sale.quantity)
    what = "orders" if sale.quantity == 1 else "units ordered"
    detail = f"{held:,} {what} for {sale.initial:,} units, and this is one of the last"
    rowless = sale.rowless.items()
    for user, order in nlargest(surplus, rowless, key=lambda item: item[1]):
        yield sale.offence(detail, user, order)
    rows = sale.rows
    for row in nlargest(
        surplus - len(rowless), rows.live(), key=lambda row: (rows.created_ms[row], rows.order[row])
    ):
        yield sale.row_offence(row, detail)


def _oversold_before(before: SaleBefore | None) -> int:
    if before is None or before.mysql is None:
        return 0
    return max(0, before.live_units + len(before.queued) - before.mysql.initial)


def no_undersell(snapshot: Snapshot) -> list[Finding]:
    """Nobody is told "sold out" and left without an order while units were never sold.

    Units that came back within the run may have come too late for those turned away, so only what
    is left beyond them counts. Cannot judge a restock without a baseline, nor a shop that says it
    is over when its books say that it is open.
    """
    sales = snapshot.sales
    judged = [sale for sale in sales if sale.before is not None]
    blind = [sale for sale in sales if sale.before is None]
    return [
        *violation("turned away while units were left", _each_turned_away(judged)),
        *doubt("no baseline, so a restock cannot be excluded", _each_turned_away(blind)),
        *doubt("shut out within its hours", (o for s in judged for o in _shut_out(snapshot, s))),
        *doubt("units not known", (s.offence("in neither store") for s in sales if not _known(s))),
    ]


def _each_turned_away(sales: list[SaleSnapshot]) -> Iterator[Offence]:
    return (offence for sale in sales for offence in _turned_away(sale))


def _turned_away(sale: SaleSnapshot) -> Iterator[Offence]:
    left = _never_sold(sale)
    if left < sale.quantity:
        return
    for user in sorted(_unserved(sale, SOLD_OUT)):
        yield sale.offence(
            f"told “sold out”, yet {left:,} of {sale.initial:,} were never sold", user
        )


def _never_sold(sale: SaleSnapshot) -> int:
    """Units that nobody ever held; 0 where nobody knows."""
    if sale.initial is None:
        return 0
    before = sale.before or _NOTHING_BEFORE
    held = max(sale.units_held, len(sale.ledger.members))
    return sale.initial - held - max(0, before.redis_drift) - sale.returned


def _unserved(sale: SaleSnapshot, told: int) -> set[int]:
    """Users who were told so, and have no order."""
    users = {sale.claims.user[k] for k in sale.claims.told(told)}
    return users - (sale.holders | sale.rowless.keys() | sale.ledger.members)


def _shut_out(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    """Of a shop of its own: users who were told that it is over, or has not begun, while it had
    units and was open by its books. In doubt, since two clocks and perhaps two zones say so."""
    around, terms, left = snapshot.around_ms, sale.terms_ms, _never_sold(sale)
    if around is None or terms is None or left < sale.quantity:
        return
    if terms[0] > around[0] or around[1] >= terms[1]:
        return
    known = ((ENDED, "ended", terms[1] < ALWAYS_MS[1]), (NOT_OPEN, "not open", terms[0] > 0))
    for code, word, is_known in known:
        for user in sorted(_unserved(sale, code)) if is_known else ():
            yield sale.offence(
                f"told “{word}”, yet {left:,} of {sale.initial:,} were never sold, and its books "
                "have it open; see to opens, closes and books.utc_offset_min",
                user,
            )


def mysql_conservation(snapshot: Snapshot) -> list[Finding]:
    """Initial stock less stock is the number of live orders, but for what was off before.

    Needs no empty queue, since the worker moves row and unit in one transaction. Cannot judge a
    voucher that MySQL never knew as a sale.
    """
    sales = snapshot.sales
    return [
        *violation("the books do not balance", (o for s in sales for o in _mysql_books(s))),
        *doubt("no books to balance", (o for s in sales for o in _mysql_unknown(s))),
        *remark(
            "off before this run",
            (
                s.offence(f"by {s.before.mysql_drift:+,} units")
                for s in sales
                if s.before and s.before.mysql_drift
            ),
        ),
    ]


def units(snapshot: Snapshot) -> Met:
    """Units that moved, there and back."""
    returned = sum(sale.returned for sale in snapshot.sales)
    return {"units sold": snapshot.persisted, "units returned": returned}


def _mysql_books(sale: SaleSnapshot) -> Iterator[Offence]:
    before = sale.before or _NOTHING_BEFORE
    if sale.mysql is None:
        if before.mysql:
            yield sale.offence("gone from tb_seckill_voucher")
        return
    initial, stock = sale.mysql.initial, sale.mysql.stock
    live, what = sale.rows.live_units, "units ordered" if sale.rows.units else "live orders"
    if initial - stock - live != before.mysql_drift:
        yield sale.offence(
            f"initial {initial:,} − stock {stock:,} = {initial - stock:,}, but {live:,} {what}"
        )


def _mysql_unknown(sale: SaleSnapshot) -> Iterator[Offence]:
    if sale.mysql is None and (sale.before is None or sale.before.mysql is None):
        yield sale.offence("not in tb_seckill_voucher")


def redis_conservation(snapshot: Snapshot) -> list[Finding]:
    """Stock and order set make up the initial stock; set, receipts and live orders are one.

    Cannot judge a sale that the ledger never held, nor rows while orders are still queued.
    """
    sales = snapshot.sales
    rowless = (o for sale in sales for o in _members_without_order(sale))
    late = doubt if not snapshot.drained else violation
    return [
        *violation("the books do not balance", (o for s in sales for o in _redis_books(s))),
        *violation("not what a sale writes", (o for s in sales for o in _oddities(s))),
        *violation("order set and receipts differ", (o for s in sales for o in _receipts(s))),
        *violation("order set and rows differ", (o for s in sales for o in _orders(s))),
        *late("in the order set without a live order", rowless),
        *doubt("no books to balance", (o for s in sales for o in _redis_unknown(s))),
        *remark(
            "off before this run",
            (
                s.offence(f"by {s.before.redis_drift:+,} units")
                for s in sales
                if s.before and s.before.redis_drift
            ),
        ),
    ]


def _is_held(sale: SaleSnapshot) -> bool:
    return sale.ledger.stock is not None


def _redis_unknown(sale: SaleSnapshot) -> Iterator[Offence]:
    had = sale.before is not None and sale.before.redis_stock is not None
    if not _is_held(sale) and not had and not sale.ledger.oddities:
        yield sale.offence("not in the ledger")


def _redis_books(sale: SaleSnapshot) -> Iterator[Offence]:
    ledger, before = sale.ledger, sale.before or _NOTHING_BEFORE
    if ledger.stock is None:
        if before.redis_stock is not None or ledger.has_terms:
            yield sale.offence("the ledger has lost the stock of this sale")
        return
    if before.redis_initial is not None and ledger.initial is None:
        yield sale.offence("the ledger has lost the terms of this sale")
    yield from _redis_sum(sale, before)
    yield from _initials(sale, before)


def _redis_sum(sale: SaleSnapshot, before: SaleBefore) -> Iterator[Offence]:
    ledger = sale.ledger
    initial = ledger.initial if ledger.initial is not None else sale.initial
    if initial is None or ledger.stock is None:
        return
    stock, members = ledger.stock, len(ledger.members)
    if initial - stock - members != before.redis_drift:
        yield sale.offence(
            f"stock {stock:,} + order set {members:,} = {stock + members:,}, "
            f"but initial {initial:,}"
        )


def _initials(sale: SaleSnapshot, before: SaleBefore) -> Iterator[Offence]:
    """Both stores tell of the same units; a restock changes both."""
    if sale.mysql is None or sale.ledger.initial is None:
        return
    apart = sale.ledger.initial - sale.mysql.initial
    apart_before = 0
    if before.mysql is not None and before.redis_initial is not None:
        apart_before = before.redis_initial - before.mysql.initial
    if apart != apart_before:
        yield sale.offence(
            f"initial {sale.ledger.initial:,} in Redis, {sale.mysql.initial:,} in MySQL"
        )


def _oddities(sale: SaleSnapshot) -> Iterator[Offence]:
    return (sale.offence(text) for text in sale.ledger.oddities)


def _unsettled(sale: SaleSnapshot) -> frozenset[int]:
    return sale.before.unsettled if sale.before else frozenset()


def _receipts(sale: SaleSnapshot) -> Iterator[Offence]:
    ledger, exempt = sale.ledger, _unsettled(sale)
    gave_receipts = sale.before is not None and sale.before.gives_receipts
    if not (ledger.gives_receipts or gave_receipts):
        return
    for user in (ledger.members - ledger.receipts.keys()) - exempt:
        yield sale.offence("in the order set without a receipt", user)
    for user in (ledger.receipts.keys() - ledger.members) - exempt:
        yield sale.offence("a receipt, but not in the order set", user, ledger.receipts[user])


def _orders(sale: SaleSnapshot) -> Iterator[Offence]:
    ledger, exempt = sale.ledger, _unsettled(sale)
    if not _is_held(sale):
        return
    users, rows = sale.live_of.keys(), sale.live_of.values()
    orders = map(sale.rows.order.__getitem__, rows)
    if (
        len(users) == sale.rows.live_count
        and users <= ledger.members
        and all(map(eq, map(ledger.receipts.get, users), orders))
    ):
        return
    for row in sale.rows.live():  # each one: of a user's two, at most one has the receipt
        user = sale.rows.user[row]
        if user in exempt:
            continue
        receipt = ledger.receipts.get(user)
        if user not in ledger.members:
            yield sale.row_offence(row, "a live order, but not in the order set")
        elif receipt is not None and receipt != sale.rows.order[row]:
            yield sale.row_offence(row, f"the receipt names order {sale.called(receipt)} instead")


def _members_without_order(sale: SaleSnapshot) -> Iterator[Offence]:
    for user in (sale.ledger.members - sale.live_of.keys()) - _unsettled(sale):
        receipt = sale.ledger.receipts.get(user)
        row = None if receipt is None else sale.row_of.get(receipt)
        if row is None:
            detail = "in the order set, but no live order"
        elif sale.rows.is_live(row):
            owner = sale.called(sale.rows.user[row])
            detail = f"in the order set, but the order is of user {owner}"
        else:
            detail = "the order has ended, but its unit was not returned to the ledger"
        yield sale.offence(detail, user, receipt)
