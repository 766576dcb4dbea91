"""Promises: every order that a user was told of is kept, and none is made that nobody asked for."""

from collections.abc import Iterator

from flashsale.verify.claims import OUTCOMES, SOLD
from flashsale.verify.finding import Finding, Offence, doubt, remark, violation
from flashsale.verify.snapshot import Sale, Snapshot


def accepted_persisted(snapshot: Snapshot) -> list[Finding]:
    """Every order that a user was told of is a row with that id, user and voucher, of any status.

    An order that is no row yet cannot be judged while the queue holds any, nor what users were
    told by answers that the storm did not live to write down.
    """
    sales = snapshot.sales
    late = doubt if not snapshot.drained else violation
    return [
        *violation("another row than promised", (o for s in sales for o in _changed(snapshot, s))),
        *late("promised, but no row", (o for s in sales for o in _lost(snapshot, s))),
        *violation("promised under no id", (o for s in sales for o in _garbled(s))),
        *doubt("the storm's record is cut short", _unrecorded(snapshot)),
    ]


def _unrecorded(snapshot: Snapshot) -> list[Offence]:
    count = snapshot.unrecorded
    return [Offence(f"{count:,} claims may have been told of an order")] if count else []


def _changed(snapshot: Snapshot, sale: Sale) -> Iterator[Offence]:
    for k, order in sale.claims.promised():
        user, row = sale.claims.user[k], sale.row_of.get(order)
        if row is not None and sale.rows.user[row] != user:
            yield sale.offence(f"the row is of user {sale.rows.user[row]}", user, order)
        elif row is None and order in snapshot.strays:
            owner, voucher = snapshot.strays[order]
            yield sale.offence(f"the row is of user {owner}, voucher {voucher}", user, order)


def _lost(snapshot: Snapshot, sale: Sale) -> Iterator[Offence]:
    for k, order in sale.claims.promised():
        user = sale.claims.user[k]
        if not order and user not in sale.holders:
            yield sale.offence("no row of this user", user)
        elif order and order not in sale.row_of and not _is_elsewhere(snapshot, sale, order):
            yield sale.offence(_fate(snapshot, sale, user, order), user, order)


def _is_elsewhere(snapshot: Snapshot, sale: Sale, order: int) -> bool:
    """Another check or another run answers for the order."""
    return order in snapshot.strays or sale.was_rowless(order)


def _fate(snapshot: Snapshot, sale: Sale, user: int, order: int) -> str:
    if order in snapshot.queue.dead_reasons:
        return f"a dead letter ({snapshot.queue.dead_reasons[order]})"
    row = sale.live_of.get(user)
    if row is not None:
        return f"no row; the user's row is order {sale.rows.order[row]}"
    return "no row" if snapshot.drained else "no row yet"


def _garbled(sale: Sale) -> Iterator[Offence]:
    for k, text in sale.claims.garbled.items():
        if sale.claims.outcome[k] == SOLD:
            yield sale.offence(f"sold, under {text[:40]!r} as the order id", sale.claims.user[k])


def no_phantom(snapshot: Snapshot) -> list[Finding]:
    """Every new order, as a row or as a receipt, came of a claim: told of by its id, or without
    an answer and of the same user and voucher.

    Without a baseline, an order that no claim explains may be an older one: not judged.
    """
    judged = [sale for sale in snapshot.sales if sale.before is not None]
    blind = [sale for sale in snapshot.sales if sale.before is None]
    return [
        *violation("nobody asked for it", (o for sale in judged for o in _phantoms(sale))),
        *doubt("no baseline, so it may be older", (o for sale in blind for o in _phantoms(sale))),
        *remark(
            "sold after this run, so not judged here",
            (sale.offence(f"{sale.later:,} orders") for sale in snapshot.sales if sale.later),
        ),
    ]


def _phantoms(sale: Sale) -> Iterator[Offence]:
    unexplained = dict(sale.open_claims)
    users = sale.claims.user
    for order, user, where in _new_orders(sale):
        k = sale.promised.get(order)
        if k is not None and users[k] == user:
            continue
        if unexplained.get(user, 0) > 0:
            unexplained[user] -= 1
            continue
        yield sale.offence(f"a {where} that no claim explains{_told(sale, user)}", user, order)


def _new_orders(sale: Sale) -> Iterator[tuple[int, int, str]]:
    for row, order in enumerate(sale.rows.order):
        if sale.before is None or not sale.before.knows(order):
            yield order, sale.rows.user[row], "row"
    for user, order in sale.ledger.receipts.items():
        if order not in sale.row_of and (sale.before is None or not sale.before.knows(order)):
            yield order, user, "receipt"


def _told(sale: Sale, user: int) -> str:
    told = sale.answers_of.get(user)
    if told is None:
        return "; the user is not in the plan"
    answers = (str(outcome) for code, outcome in enumerate(OUTCOMES) if told & 1 << code)
    return f"; the user was told {', '.join(answers)}"
