"""The books: units and orders balance in each store, and the stores agree."""

from collections.abc import Iterator

from flashsale.verify.baseline import SaleBefore
from flashsale.verify.finding import Finding, Offence, doubt, remark, violation
from flashsale.verify.snapshot import Sale, Snapshot

_NOTHING_BEFORE = SaleBefore()


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


def _mysql_books(sale: Sale) -> Iterator[Offence]:
    before = sale.before or _NOTHING_BEFORE
    if sale.shelf is None:
        if before.shelf:
            yield sale.offence("gone from tb_seckill_voucher")
        return
    initial, stock = sale.shelf.initial, sale.shelf.stock
    live = sum(1 for _ in sale.rows.live())
    if initial - stock - live != before.mysql_drift:
        yield sale.offence(
            f"initial {initial:,} − stock {stock:,} = {initial - stock:,}, but {live:,} live orders"
        )


def _mysql_unknown(sale: Sale) -> Iterator[Offence]:
    if sale.shelf is None and (sale.before is None or sale.before.shelf is None):
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


def _is_held(sale: Sale) -> bool:
    return sale.ledger.stock is not None


def _redis_unknown(sale: Sale) -> Iterator[Offence]:
    had = sale.before is not None and sale.before.redis_stock is not None
    if not _is_held(sale) and not had and not sale.ledger.oddities:
        yield sale.offence("not in the ledger")


def _redis_books(sale: Sale) -> Iterator[Offence]:
    ledger, before = sale.ledger, sale.before or _NOTHING_BEFORE
    if ledger.stock is None:
        if before.redis_stock is not None or ledger.has_terms:
            yield sale.offence("the ledger has lost the stock of this sale")
        return
    if before.redis_initial is not None and ledger.initial is None:
        yield sale.offence("the ledger has lost the terms of this sale")
    yield from _redis_sum(sale, before)
    yield from _initials(sale, before)


def _redis_sum(sale: Sale, before: SaleBefore) -> Iterator[Offence]:
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


def _initials(sale: Sale, before: SaleBefore) -> Iterator[Offence]:
    """Both stores tell of the same units; a restock changes both."""
    if sale.shelf is None or sale.ledger.initial is None:
        return
    apart = sale.ledger.initial - sale.shelf.initial
    apart_before = 0
    if before.shelf is not None and before.redis_initial is not None:
        apart_before = before.redis_initial - before.shelf.initial
    if apart != apart_before:
        yield sale.offence(
            f"initial {sale.ledger.initial:,} in Redis, {sale.shelf.initial:,} in MySQL"
        )


def _oddities(sale: Sale) -> Iterator[Offence]:
    return (sale.offence(text) for text in sale.ledger.oddities)


def _unsettled(sale: Sale) -> frozenset[int]:
    return sale.before.unsettled if sale.before else frozenset()


def _receipts(sale: Sale) -> Iterator[Offence]:
    ledger, exempt = sale.ledger, _unsettled(sale)
    gave_receipts = sale.before is not None and sale.before.gives_receipts
    if not (ledger.gives_receipts or gave_receipts):
        return
    for user in (ledger.members - ledger.receipts.keys()) - exempt:
        yield sale.offence("in the order set without a receipt", user)
    for user in (ledger.receipts.keys() - ledger.members) - exempt:
        yield sale.offence("a receipt, but not in the order set", user, ledger.receipts[user])


def _orders(sale: Sale) -> Iterator[Offence]:
    ledger, exempt = sale.ledger, _unsettled(sale)
    if not _is_held(sale):
        return
    for user, row in sale.live_of.items():
        if user in exempt:
            continue
        receipt = ledger.receipts.get(user)
        if user not in ledger.members:
            yield sale.row_offence(row, "a live order, but not in the order set")
        elif receipt is not None and receipt != sale.rows.order[row]:
            yield sale.row_offence(row, f"the receipt names order {receipt} instead")


def _members_without_order(sale: Sale) -> Iterator[Offence]:
    for user in (sale.ledger.members - sale.live_of.keys()) - _unsettled(sale):
        receipt = sale.ledger.receipts.get(user)
        row = None if receipt is None else sale.row_of.get(receipt)
        if row is None:
            detail = "in the order set, but no live order"
        elif sale.rows.is_live(row):
            detail = f"in the order set, but the order is of user {sale.rows.user[row]}"
        else:
            detail = "the order has ended, but its unit was not returned to the ledger"
        yield sale.offence(detail, user, receipt)
