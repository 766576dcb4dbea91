"""Answers are claims about the sale, and have to be true: every promise is kept, no order is there
that nobody asked for, and "duplicate" and "sold out" are as they were told.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from flashsale.verify.attempts import DUPLICATE, GARBLED, NEVER, NO_ORDER, OUTCOMES, SOLD, SOLD_OUT
from flashsale.verify.finding import Finding, Met, Offence, doubt, remark, violation
from flashsale.verify.snapshot import SaleSnapshot, Snapshot


def accepted_persisted(snapshot: Snapshot) -> list[Finding]:
    """Every order that a user was told of is a row with that id, user and voucher, of any status;
    and what was a row before the run is one still.

    An order that is no row yet cannot be judged while the queue holds any, nor what users were
    told by answers that the storm did not live to write down.
    """
    sales = snapshot.sales
    late = doubt if not snapshot.drained else violation
    return [
        *violation("another row than promised", (o for s in sales for o in _changed(snapshot, s))),
        *late("promised, but no row", (o for s in sales for o in lost_promises(snapshot, s))),
        *violation("promised under no id", (o for s in sales for o in _garbled(s))),
        *violation("a row no more", (o for s in sales for o in _vanished(snapshot, s))),
        *doubt("the storm's record is cut short", _unrecorded(snapshot)),
        *doubt("told again, or lost", (o for s in sales for o in _told_oftener(s))),
        *_other_units(sales),
        *doubt("ended, though nobody cancelled", (o for s in sales for o in _lapsed(snapshot, s))),
    ]


def promises(snapshot: Snapshot) -> Met:
    """Orders that users were told of."""
    return {"orders told of": snapshot.accepted, "claims without an answer": snapshot.unanswered}


def _other_units(sales: Sequence[SaleSnapshot]) -> list[Finding]:
    """Orders of more or fewer units than were asked for. Where none is of as many, the books may
    count in another way."""
    told = [(sale, row) for sale in sales if sale.rows.units for row in _told_rows(sale)]
    apart = [each for each in told if each[0].rows.units[each[1]] != each[0].quantity]
    if not apart:
        return []
    kind = doubt if len(apart) == len(told) else violation
    return kind(
        "another number of units than was asked for",
        (
            sale.row_offence(row, f"of {sale.rows.units[row]:,} units, not {sale.quantity:,}")
            for sale, row in apart
        ),
    )


def _told_rows(sale: SaleSnapshot) -> Iterator[int]:
    """This run's rows that users were told of, by id or without one."""
    for row in sale.new_rows():
        if sale.rows.order[row] in sale.promised or sale.rows.user[row] in sale.unnamed:
            yield row


def _lapsed(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    """Orders that a shop has ended by itself: taken back, or read wrongly, and an oversell if they
    were not. Where unpaid ones end in time, its file says so."""
    detail = "told of it, and it has ended in [books]; books.live_is, or books.may_end if it may"
    return (sale.row_offence(row, detail) for row in snapshot.lapsed.get(sale.voucher, ()))


def _unrecorded(snapshot: Snapshot) -> list[Offence]:
    count = snapshot.unrecorded
    return [Offence(f"{count:,} claims may have been told of an order")] if count else []


def _told_oftener(sale: SaleSnapshot) -> Iterator[Offence]:
    """Orders without an id of users who may hold several: nobody knows whether one was told of
    again, or lost."""
    if sale.limit == 1:
        return
    users = sale.claims.user
    for user, times in Counter(users[k] for k in sale.repeats).items():
        yield sale.offence(f"told of {times:,} more orders than there are rows of theirs", user)


def _changed(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    if sale.is_told_plainly:
        return
    for k, order in sale.claims.promised():
        user, row = sale.claims.user[k], sale.row_of.get(order)
        if row is not None and sale.rows.user[row] != user:
            owner = sale.called(sale.rows.user[row])
            yield sale.offence(f"the row is of user {owner}", user, order)
        elif row is None and order in snapshot.strays:
            owner, voucher = snapshot.strays[order]
            whose = f"user {sale.called(owner)}, voucher {sale.called(voucher)}"
            yield sale.offence(f"the row is of {whose}", user, order)


def lost_promises(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    """Orders that users were told of and that are no row, whoever's."""
    if sale.is_told_plainly:
        return
    for k, order in sale.claims.promised():
        user = sale.claims.user[k]
        if not order and user not in sale.bearers:
            yield sale.offence("no row of this user", user)
        elif order and order not in sale.row_of and not _is_elsewhere(snapshot, sale, order):
            yield sale.offence(_fate(snapshot, sale, user, order), user, order)


def _is_elsewhere(snapshot: Snapshot, sale: SaleSnapshot, order: int) -> bool:
    """Another check or another run answers for the order."""
    return order in snapshot.strays or sale.was_rowless(order)


def _fate(snapshot: Snapshot, sale: SaleSnapshot, user: int, order: int) -> str:
    if order in snapshot.queue.dead_reasons:
        return f"a dead letter ({snapshot.queue.dead_reasons[order]})"
    row = sale.live_of.get(user)
    if row is not None:
        return f"no row; the user's row is order {sale.called(sale.rows.order[row])}"
    return "no row" if snapshot.drained else "no row yet"


def _garbled(sale: SaleSnapshot) -> Iterator[Offence]:
    for k, text in sale.claims.garbled.items():
        if sale.claims.outcome[k] == SOLD:
            yield sale.offence(f"sold, under {text[:40]!r} as the order id", sale.claims.user[k])


def _vanished(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    """Orders from before the run whose rows are gone. A shop of its own may delete what ended."""
    before = sale.before
    if before is None or snapshot.rests_on:
        return
    for order in sorted((before.live | before.ended) - sale.row_of.keys()):
        yield sale.offence("a row before the run, and none any more", order=order)


def no_phantom(snapshot: Snapshot) -> list[Finding]:
    """Every new order, as a row or as a receipt, came of a claim: told of by its id, or without
    an answer and of the same user and voucher.

    Without a baseline, an order that no claim explains may be an older one: not judged.
    """
    judged = [sale for sale in snapshot.sales if sale.before is not None]
    blind = [sale for sale in snapshot.sales if sale.before is None]
    return [
        *violation("nobody asked for it", (o for s in judged for o in _phantoms(snapshot, s))),
        *doubt(
            "no baseline, so it may be older", (o for s in blind for o in _phantoms(snapshot, s))
        ),
        *remark(
            "sold after this run, so not judged here",
            (sale.offence(f"{sale.later:,} orders") for sale in snapshot.sales if sale.later),
        ),
        *doubt(
            "only a clock says that it was sold after this run",
            (s.offence(f"{s.unplaced:,} orders") for s in snapshot.sales if s.unplaced),
        ),
    ]


def _phantoms(snapshot: Snapshot, sale: SaleSnapshot) -> Iterator[Offence]:
    """A shop of its own may keep what ended of a claim that it refused, such as one whose money was
    declined."""
    if sale.is_explained_plainly:
        return
    is_theirs = bool(snapshot.rests_on)
    unexplained = dict(Counter(sale.open_claims) + Counter(sale.unnamed))
    users = sale.claims.user
    for order, user, where in _new_orders(sale):
        k = sale.promised.get(order)
        if k is not None and users[k] == user:
            continue
        if is_theirs and user in sale.answers_of and not sale.is_live(order):
            continue
        if unexplained.get(user, 0) > 0:
            unexplained[user] -= 1
            continue
        yield sale.offence(
            f"a {where} that no claim explains{_answers_to(sale, user)}", user, order
        )


def _new_orders(sale: SaleSnapshot) -> Iterator[tuple[int, int, str]]:
    for row, order in enumerate(sale.rows.order):
        if sale.before is None or not sale.before.knows(order):
            yield order, sale.rows.user[row], "row"
    for user, order in sale.ledger.receipts.items():
        if order not in sale.row_of and (sale.before is None or not sale.before.knows(order)):
            yield order, user, "receipt"


def _answers_to(sale: SaleSnapshot, user: int) -> str:
    told = sale.answers_of.get(user)
    if told is None:
        return "; the user is not in the plan"
    answers = (str(outcome) for code, outcome in enumerate(OUTCOMES) if told & 1 << code)
    return f"; the user was told {', '.join(answers)}"


def duplicate_truthful(snapshot: Snapshot) -> list[Finding]:
    """Who was told "duplicate" has that order, in any status, and had it by then.

    An order that is no row yet cannot be judged while the queue holds any.
    """
    sales = snapshot.sales
    late = doubt if not snapshot.drained else violation
    return [
        *violation("told of another's order", (o for s in sales for o in _not_theirs(s))),
        *late("told of an order that is no row", (o for s in sales for o in _no_such_order(s))),
        *violation("told of it before it was sold", (o for s in sales for o in _too_early(s))),
        *remark("told of an order that was no row before the run", _lost_before(snapshot)),
    ]


def duplicates(snapshot: Snapshot) -> Met:
    """Answers "duplicate"."""
    return {"retries told duplicate": _told(snapshot, DUPLICATE)}


def refusals(snapshot: Snapshot) -> Met:
    """Answers "sold out", and the units that could have come back meanwhile."""
    returned = sum(sale.returned for sale in snapshot.sales)
    return {"refusals after sell-out": _told(snapshot, SOLD_OUT), "units returned": returned}


def _told(snapshot: Snapshot, outcome: int) -> int:
    return sum(sale.claims.count(outcome) for sale in snapshot.sales)


def _not_theirs(sale: SaleSnapshot) -> Iterator[Offence]:
    claims = sale.claims
    for k in claims.told(DUPLICATE):
        user, order = claims.user[k], claims.order[k]
        row = sale.row_of.get(order)
        if order == GARBLED:
            yield sale.offence(f"told of {claims.garbled[k][:40]!r}, which is no order id", user)
        elif row is not None and sale.rows.user[row] != user:
            owner = sale.called(sale.rows.user[row])
            yield sale.offence(f"the order is of user {owner}", user, order)


def _no_such_order(sale: SaleSnapshot) -> Iterator[Offence]:
    claims = sale.claims
    for k in claims.told(DUPLICATE):
        user, order = claims.user[k], claims.order[k]
        if order == NO_ORDER and user not in sale.holders:
            yield sale.offence("told “duplicate” without holding any order", user)
        elif order > 0 and order not in sale.row_of and not sale.was_rowless(order):
            yield sale.offence("told “duplicate”, but there is no such order", user, order)


def _lost_before(snapshot: Snapshot) -> Iterator[Offence]:
    for sale in snapshot.sales:
        claims = sale.claims
        for k in claims.told(DUPLICATE):
            order = claims.order[k]
            if order not in sale.row_of and sale.was_rowless(order):
                yield sale.offence("still no row", claims.user[k], order)


def _too_early(sale: SaleSnapshot) -> Iterator[Offence]:
    """Answers that arrived before the one claim was sent that could have sold the order."""
    claims = sale.claims
    for k in claims.told(DUPLICATE):
        user, order, done = claims.user[k], claims.order[k], claims.done_us[k]
        sold = sale.told_sold.get(order)
        if sold is None or done == NEVER or sale.open_claims.get(user, 0):
            continue
        if claims.clock[k] != claims.clock[sold]:
            continue
        sent = claims.sent_us[sold]
        if claims.user[sold] == user and sent > done:
            yield sale.offence(
                f"told of it {sent - done:,} µs before it was asked for", user, order
            )


def sold_out_truthful(snapshot: Snapshot) -> list[Finding]:
    """No claim that was sent after a "sold out" answer had arrived is sold.

    Both instants are the storm's, on one clock: of a run that several machines fired, what one
    of them saw is held against what it saw itself, and the rest remarked. A unit that came back
    within the run can be sold again, at an instant which that clock does not know, so each such
    unit excuses one sale. Cannot judge a restock without a baseline.
    """
    sales = snapshot.sales
    late = [(sale, sum(1 for _ in _sold_after(sale))) for sale in sales]
    guilty = [sale for sale, count in late if count > sale.returned]
    return [
        *violation(
            "sold after “sold out”", (o for s in guilty if s.before for o in _sold_after(s))
        ),
        *doubt(
            "sold after “sold out”; no baseline, so a restock cannot be excluded",
            (o for s in guilty if not s.before for o in _sold_after(s)),
        ),
        *remark(
            "sold after “sold out”, of units that came back",
            (
                sale.offence(f"{count:,} orders, {sale.returned:,} units returned")
                for sale, count in late
                if 0 < count <= sale.returned
            ),
        ),
        *remark(
            "sold after another machine was told “sold out”, if the two clocks agree",
            (o for s in sales for o in _sold_after_elsewhere(s)),
        ),
    ]


def _sold_after(sale: SaleSnapshot) -> Iterator[Offence]:
    """Sales that were late by the clock that they were read from."""
    first = _first_sold_out(sale)
    for k, order in _sales(sale) if first else ():
        yield from _late(sale, k, order, first.get(sale.claims.clock[k]))


def _sold_after_elsewhere(sale: SaleSnapshot) -> Iterator[Offence]:
    """Sales that were late by another machine's clock, and not by their own."""
    first = _first_sold_out(sale)
    if not first or len(set(sale.claims.clock)) == 1:
        return
    earliest = min(first.values())
    for k, order in _sales(sale):
        if not any(_late(sale, k, order, first.get(sale.claims.clock[k]))):
            yield from _late(sale, k, order, earliest)


def _unanswered(sale: SaleSnapshot) -> dict[tuple[int, int], int]:
    """By user and order: the first claim without an answer of which the status route told so."""
    claims, found = sale.claims, dict[tuple[int, int], int]()
    for k in claims.open() if claims.is_any_resolved else ():
        pair = (claims.user[k], claims.resolved[k])
        found[pair] = min(found.get(pair, k), k, key=claims.sent_us.__getitem__)
    return found


def _lost_answers(sale: SaleSnapshot) -> dict[int, int]:
    """By user: the first claim that was sent and had no answer."""
    claims, found = sale.claims, dict[int, int]()
    for k in claims.open():
        user = claims.user[k]
        found[user] = min(found.get(user, k), k, key=claims.sent_us.__getitem__)
    return found


def _first_sold_out(sale: SaleSnapshot) -> dict[int, tuple[int, int]]:
    """By clock: when the first “sold out” arrived, and whose it was."""
    claims, first = sale.claims, dict[int, tuple[int, int]]()
    for k in claims.told(SOLD_OUT):
        if claims.done_us[k] != NEVER:
            arrival, clock = (claims.done_us[k], claims.user[k]), claims.clock[k]
            first[clock] = min(first.get(clock, arrival), arrival)
    return first


def _late(
    sale: SaleSnapshot, k: int, order: int, sold_out: tuple[int, int] | None
) -> Iterator[Offence]:
    """The sale of claim `k`, where it was sent after that “sold out” had arrived."""
    sent_us = sale.claims.sent_us[k]
    if sold_out is None or sent_us == NEVER:
        return
    arrived_us, witness = sold_out
    if sent_us > arrived_us:
        who = sale.called(witness)
        detail = f"sent {sent_us - arrived_us:,} µs after user {who} had been told “sold out”"
        yield sale.offence(detail, sale.claims.user[k], order or None)


def _sales(sale: SaleSnapshot) -> Iterator[tuple[int, int]]:
    """Claims that sold, by their answer or because no other claim can have made the order. Of a
    user's claims that were told of one order, the first: the others repeat its Idempotency-Key, or
    the shop tells a user of what they have. It may be an earlier one that had no answer."""
    claims, first = sale.claims, sale.promised
    unanswered, lost = _unanswered(sale), _lost_answers(sale)
    for k in claims.told(SOLD):
        order, user = max(claims.order[k], NO_ORDER), claims.user[k]
        if order == NO_ORDER:
            repeats = k in sale.repeats
        elif user == claims.user[first[order]]:
            repeats = first[order] != k
        else:
            yield k, order
            continue
        if not repeats:
            earlier = unanswered.get((user, order), lost.get(user, k))
            yield min(k, earlier, key=claims.sent_us.__getitem__), order
    if not lost:
        return
    asked = Counter(claims.user)
    for k in claims.open():
        user = claims.user[k]
        row = sale.live_of.get(user)
        if row is not None and asked[user] == 1 and sale.is_new(sale.rows.order[row]):
            yield k, sale.rows.order[row]
