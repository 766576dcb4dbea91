"""Rules of orders: one a user under its own id, every promise kept, none that nobody asked for."""

from collections import Counter
from collections.abc import Iterator, Mapping

from flashsale.verify.attempts import OUTCOMES, SOLD
from flashsale.verify.finding import Finding, Met, Offence, doubt, remark, violation
from flashsale.verify.snapshot import Sale, Snapshot


def one_per_user(snapshot: Snapshot) -> list[Finding]:
    """A user has at most one live order of a voucher, or as many as the sale allows, as rows or as
    promises. Always judged."""
    sales = snapshot.sales
    return [
        *violation("several live rows", (o for sale in sales for o in _second_rows(sale))),
        *violation("promised several orders", (o for sale in sales for o in _second_words(sale))),
    ]


def second_claims(snapshot: Snapshot) -> Met:
    """Claims of users who had asked for the same voucher already."""
    return {"claims of users who had asked": sum(len(s.claims) - s.buyers for s in snapshot.sales)}


def _second_rows(sale: Sale) -> Iterator[Offence]:
    rows = sale.rows
    if len(sale.live_of) == rows.live_count:
        return
    held = Counter(rows.user[row] for row in rows.live())
    for row in rows.live():
        if held[rows.user[row]] > sale.limit and sale.is_new(rows.order[row]):
            yield sale.row_offence(row, f"one of {held[rows.user[row]]} live orders of this user")


def _second_words(sale: Sale) -> Iterator[Offence]:
    """Orders promised beside another promise, or beside a row that is an order in its own right."""
    if sale.limit > 1:
        yield from _beyond_limit(sale)
        return
    if sale.is_told_plainly and len(set(sale.claims.sold()[0])) == len(sale.promised):
        return
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


def _beyond_limit(sale: Sale) -> Iterator[Offence]:
    """The last promises of users who were promised more orders than they may hold."""
    told: dict[int, list[int]] = {}
    for order, k in sale.promised.items():
        row = sale.row_of.get(order)
        if row is None or sale.rows.is_live(row):
            told.setdefault(sale.claims.user[k], []).append(order)
    for user, orders in told.items():
        for order in sorted(orders)[sale.limit :]:
            detail = f"one of {len(orders)} promised, where {sale.limit} may be held"
            yield sale.offence(detail, user, order)


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


def new_orders(snapshot: Snapshot) -> Met:
    """New orders, whatever became of their answers."""
    return {"new orders": snapshot.persisted, "claims without an answer": snapshot.unanswered}


def _shared_ids(snapshot: Snapshot) -> Iterator[Offence]:
    elsewhere: dict[int, int] = {}
    for sale in snapshot.sales:
        owner: Mapping[int, int] = sale.row_of
        plain = sale.is_told_plainly and sale.is_receipted_plainly
        if not plain or not elsewhere.keys().isdisjoint(owner):
            yield from _clashes(sale, owner := {}, elsewhere)
        yield from _twice_a_row(sale)
        if len(snapshot.sales) > 1:
            elsewhere.update(dict.fromkeys(owner, sale.voucher))


def _clashes(sale: Sale, owner: dict[int, int], elsewhere: Mapping[int, int]) -> Iterator[Offence]:
    """Ids that are used twice; fills `owner` in."""
    for order, user in _uses(sale):
        if owner.setdefault(order, user) != user:
            yield sale.offence(f"also the id of an order of user {owner[order]}", user, order)
        elif order in elsewhere:
            detail = f"also the id of an order of voucher {elsewhere[order]}"
            yield sale.offence(detail, user, order)


def _uses(sale: Sale) -> Iterator[tuple[int, int]]:
    yield from zip(sale.rows.order, sale.rows.user, strict=True)
    yield from ((order, user) for user, order in sale.ledger.receipts.items())
    claims = sale.claims
    yield from ((claims.order[k], claims.user[k]) for k in claims.told(SOLD) if claims.order[k] > 0)


def _twice_a_row(sale: Sale) -> Iterator[Offence]:
    if len(sale.row_of) == len(sale.rows):
        return
    for row, order in enumerate(sale.rows.order):
        if sale.row_of[order] != row:
            yield sale.row_offence(row, "a second row under this id")


def _reused(sale: Sale) -> Iterator[Offence]:
    if sale.before is None or sale.known_before.isdisjoint(sale.told_sold):
        return
    for order, k in sale.told_sold.items():
        if sale.before.knows(order):
            yield sale.offence(
                "answered as sold, but older than the run", sale.claims.user[k], order
            )


def accepted_persisted(snapshot: Snapshot) -> list[Finding]:
    """Every order that a user was told of is a row with that id, user and voucher, of any status.

    An order that is no row yet cannot be judged while the queue holds any, nor what users were
    told by answers that the storm did not live to write down.
    """
    sales = snapshot.sales
    late = doubt if not snapshot.drained else violation
    return [
        *violation("another row than promised", (o for s in sales for o in _changed(snapshot, s))),
        *late("promised, but no row", (o for s in sales for o in lost_promises(snapshot, s))),
        *violation("promised under no id", (o for s in sales for o in _garbled(s))),
        *doubt("the storm's record is cut short", _unrecorded(snapshot)),
    ]


def promises(snapshot: Snapshot) -> Met:
    """Orders that users were told of."""
    return {"orders told of": snapshot.accepted, "claims without an answer": snapshot.unanswered}


def _unrecorded(snapshot: Snapshot) -> list[Offence]:
    count = snapshot.unrecorded
    return [Offence(f"{count:,} claims may have been told of an order")] if count else []


def _changed(snapshot: Snapshot, sale: Sale) -> Iterator[Offence]:
    if sale.is_told_plainly:
        return
    for k, order in sale.claims.promised():
        user, row = sale.claims.user[k], sale.row_of.get(order)
        if row is not None and sale.rows.user[row] != user:
            yield sale.offence(f"the row is of user {sale.rows.user[row]}", user, order)
        elif row is None and order in snapshot.strays:
            owner, voucher = snapshot.strays[order]
            yield sale.offence(f"the row is of user {owner}, voucher {voucher}", user, order)


def lost_promises(snapshot: Snapshot, sale: Sale) -> Iterator[Offence]:
    """Orders that users were told of and that are no row, whoever's."""
    if sale.is_told_plainly:
        return
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
        *doubt(
            "only a clock says that it was sold after this run",
            (s.offence(f"{s.unplaced:,} orders") for s in snapshot.sales if s.unplaced),
        ),
    ]


def _phantoms(sale: Sale) -> Iterator[Offence]:
    if sale.is_explained_plainly:
        return
    unexplained = dict(Counter(sale.open_claims) + Counter(sale.unnamed))
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
