"""Orders: one a user, each under its own id."""

from collections import Counter
from collections.abc import Iterator

from flashsale.verify.claims import SOLD
from flashsale.verify.finding import Finding, Offence, violation
from flashsale.verify.snapshot import Sale, Snapshot


def one_per_user(snapshot: Snapshot) -> list[Finding]:
    """A user has at most one live order of a voucher, as a row or as a promise. Always judged."""
    sales = snapshot.sales
    return [
        *violation("several live rows", (o for sale in sales for o in _second_rows(sale))),
        *violation("promised several orders", (o for sale in sales for o in _second_words(sale))),
    ]


def _second_rows(sale: Sale) -> Iterator[Offence]:
    rows = sale.rows
    if len(sale.live_of) == sum(1 for _ in rows.live()):
        return
    held = Counter(rows.user[row] for row in rows.live())
    for row in rows.live():
        if held[rows.user[row]] > 1 and sale.is_new(rows.order[row]):
            yield sale.row_offence(row, f"one of {held[rows.user[row]]} live orders of this user")


def _second_words(sale: Sale) -> Iterator[Offence]:
    """Orders promised beside another promise, or beside a row that is an order in its own right."""
    first: dict[int, int] = {}
    for order, k in sale.promised.items():
        row = sale.row_of.get(order)
        if row is not None and not sale.rows.is_live(row):
            continue  # cancelled or refunded: the user was free to buy again
        user = sale.claims.user[k]
        other = first.setdefault(user, order)
        if other == order and row is None:
            other = _other_order(sale, user) or order
        if other != order:
            yield sale.offence(f"promised besides order {other}", user, order)


def _other_order(sale: Sale, user: int) -> int | None:
    """The user's live row, if it was there before or came of a claim without an answer."""
    row = sale.live_of.get(user)
    if row is None:
        return None
    order = sale.rows.order[row]
    old = sale.before is not None and sale.before.knows(order)
    return order if old or sale.open_claims.get(user, 0) > 0 else None


def unique_ids(snapshot: Snapshot) -> list[Finding]:
    """An id names one order, across answers, receipts and rows, and across time.

    Always judged; what was sold before the run is known only from a baseline.
    """
    return [
        *violation("one id, several orders", _shared_ids(snapshot)),
        *violation("an id of an earlier order", (o for s in snapshot.sales for o in _reused(s))),
    ]


def _shared_ids(snapshot: Snapshot) -> Iterator[Offence]:
    elsewhere: dict[int, int] = {}
    for sale in snapshot.sales:
        owner: dict[int, int] = {}
        for order, user in _uses(sale):
            if owner.setdefault(order, user) != user:
                yield sale.offence(f"also the id of an order of user {owner[order]}", user, order)
            elif order in elsewhere:
                detail = f"also the id of an order of voucher {elsewhere[order]}"
                yield sale.offence(detail, user, order)
        yield from _twice_a_row(sale)
        if len(snapshot.sales) > 1:
            elsewhere.update(dict.fromkeys(owner, sale.voucher))


def _uses(sale: Sale) -> Iterator[tuple[int, int]]:
    yield from zip(sale.rows.order, sale.rows.user, strict=True)
    yield from ((order, user) for user, order in sale.ledger.receipts.items())
    claims = sale.claims
    yield from ((claims.order[k], claims.user[k]) for k in claims.told(SOLD) if claims.order[k] > 0)


def _twice_a_row(sale: Sale) -> Iterator[Offence]:
    for row, order in enumerate(sale.rows.order):
        if sale.row_of[order] != row:
            yield sale.row_offence(row, "a second row under this id")


def _reused(sale: Sale) -> Iterator[Offence]:
    if sale.before is None:
        return
    for order, k in sale.told_sold.items():
        if sale.before.knows(order):
            yield sale.offence(
                "answered as sold, but older than the run", sale.claims.user[k], order
            )
