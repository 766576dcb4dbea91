"""Rules of orders: one a user under its own id, nothing left on the way to MySQL or lost unread,
none sold outside the sale's hours.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from operator import sub

from flashsale.model import Outcome, Verdict
from flashsale.verify.attempts import OUTCOMES, SOLD
from flashsale.verify.checks.answers import lost_promises
from flashsale.verify.finding import EXAMPLES_MAX, Finding, Met, Offence, doubt, remark, violation
from flashsale.verify.observation import Position
from flashsale.verify.queue import QueueEntry, Sighting, goes_back
from flashsale.verify.snapshot import SaleSnapshot, Snapshot
from flashsale.verify.stores import NO_TIME


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


def _second_rows(sale: SaleSnapshot) -> Iterator[Offence]:
    rows = sale.rows
    if len(sale.live_of) == rows.live_count:
        return
    held = Counter(rows.user[row] for row in rows.live())
    for row in rows.live():
        if held[rows.user[row]] > sale.limit and sale.is_new(rows.order[row]):
            yield sale.row_offence(row, f"one of {held[rows.user[row]]} live orders of this user")


def _second_words(sale: SaleSnapshot) -> Iterator[Offence]:
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
            yield sale.offence(f"promised besides order {sale.called(other)}", user, order)


def _beyond_limit(sale: SaleSnapshot) -> Iterator[Offence]:
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


def _other_order(sale: SaleSnapshot, user: int) -> int | None:
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


def _clashes(
    sale: SaleSnapshot, owner: dict[int, int], elsewhere: Mapping[int, int]
) -> Iterator[Offence]:
    """Ids that are used twice; fills `owner` in."""
    for order, user in _uses(sale):
        if owner.setdefault(order, user) != user:
            other = sale.called(owner[order])
            yield sale.offence(f"also the id of an order of user {other}", user, order)
        elif order in elsewhere:
            detail = f"also the id of an order of voucher {elsewhere[order]}"
            yield sale.offence(detail, user, order)


def _uses(sale: SaleSnapshot) -> Iterator[tuple[int, int]]:
    yield from zip(sale.rows.order, sale.rows.user, strict=True)
    yield from ((order, user) for user, order in sale.ledger.receipts.items())
    claims = sale.claims
    yield from ((claims.order[k], claims.user[k]) for k in claims.told(SOLD) if claims.order[k] > 0)


def _twice_a_row(sale: SaleSnapshot) -> Iterator[Offence]:
    if len(sale.row_of) == len(sale.rows):
        return
    for row, order in enumerate(sale.rows.order):
        if sale.row_of[order] != row:
            yield sale.row_offence(row, "a second row under this id")


def _reused(sale: SaleSnapshot) -> Iterator[Offence]:
    if sale.before is None or sale.known_before.isdisjoint(sale.told_sold):
        return
    for order, k in sale.told_sold.items():
        if sale.before.knows(order):
            yield sale.offence(
                "answered as sold, but older than the run", sale.claims.user[k], order
            )


def queue_empty(snapshot: Snapshot) -> list[Finding]:
    """No order of the run is undelivered, pending, lost unread (trimmed, deleted, flushed), or a
    dead letter, and the workers have a group to be given orders by.

    What was lost and restored, so that every order that anybody was told of is a row, is remarked.
    Cannot judge a system that keeps no stream of orders.
    """
    queue = snapshot.queue
    losses = list(_losses(snapshot))
    findings = [
        *_named("still queued", queue.backlog.total, queue.stuck, snapshot),
        *_named("dead letters", queue.dead_total, queue.dead, snapshot),
        *violation("lost from the queue", _missing(snapshot)),
    ]
    if _is_all_kept(snapshot):
        findings += remark("lost unread, and restored since", losses)
    else:
        findings += violation("lost unread", losses)
    if not queue.exists and snapshot.accepted and not findings:
        findings += doubt("no queue to look at", [Offence(f"there is no {queue.stream}")])
    return findings


TAKE_OVER_S = 35.0
"""How long an order may lie with a worker that ended, before another takes it over."""

_TAKE_OVER_MS = int(TAKE_OVER_S * 1000)


def queued(snapshot: Snapshot) -> Met:
    """Orders that went through the queue, and those that came no sooner than by a take-over."""
    return {
        "orders queued": snapshot.persisted + snapshot.queue.backlog.total,
        "take-overs": sum(_late_rows(sale) for sale in snapshot.sales),
    }


def _late_rows(sale: SaleSnapshot) -> int:
    created = sale.new_times(sale.rows.created_ms)
    persisted = sale.new_times(sale.rows.persisted_ms)
    if NO_TIME not in sale.rows.created_ms:
        return sum(map(_TAKE_OVER_MS.__le__, map(sub, persisted, created)))
    return sum(
        1
        for sold, written in zip(created, persisted, strict=True)
        if written - sold >= _TAKE_OVER_MS and sold != NO_TIME
    )


def _named(
    rule: str, total: int, entries: tuple[QueueEntry, ...], snapshot: Snapshot
) -> list[Finding]:
    if not total:
        return []
    names = snapshot.sales[0].names if snapshot.sales else {}
    named = tuple(_offence(entry, names) for entry in entries[:EXAMPLES_MAX])
    return [Finding(Verdict.FAIL, rule, total, named)]


def _offence(entry: QueueEntry, names: Mapping[int, str]) -> Offence:
    ids = {"order": entry.order, "user": entry.user, "voucher": entry.voucher}
    named = [f"{what} {names.get(number, number)}" for what, number in ids.items() if number]
    text = f"{', '.join([*named, f'entry {entry.entry}'])}: {entry.note}"
    return Offence(text, entry.voucher, entry.user, entry.order)


def _missing(snapshot: Snapshot) -> Iterator[Offence]:
    """What is not there: stream, group, or the entry of an order that never became a row."""
    queue, before = snapshot.queue, snapshot.before
    existed = before is not None and before.stream_exists
    has_queue = "queue_empty" not in snapshot.absent  # a shop of another kind may have none
    written = has_queue and any(sale.ledger.receipts for sale in snapshot.sales)
    if not queue.exists and (existed or (written and snapshot.accepted)):
        yield Offence(f"{queue.stream} is gone, and with it whatever was unread")
    if not queue.has_group and snapshot.accepted:
        yield Offence(
            f"the group {queue.group} of {queue.stream} is gone: no worker is given what is "
            "in it, and what was read cannot be told from what was not"
        )
    if snapshot.sightings is None or not snapshot.drained:
        return
    for sale in snapshot.sales:
        for user, order in _queued(sale):
            known = order in snapshot.sightings or order in queue.dead_reasons
            if not known and sale.ledger.receipts.get(user) == order:
                detail = f"its entry is gone from {queue.stream}, and there is no row"
                yield sale.offence(detail, user, order)


def _is_all_kept(snapshot: Snapshot) -> bool:
    """True where every order that anybody was told of, by word or receipt, is a row."""
    if not snapshot.drained or snapshot.strays:
        return False
    sales = snapshot.sales
    return not any(True for s in sales for _ in _queued(s)) and not any(
        True for s in sales for _ in lost_promises(snapshot, s)
    )


def _losses(snapshot: Snapshot) -> Iterator[Offence]:
    queue, before, ending = snapshot.queue, snapshot.before, snapshot.ending
    trimmed = queue.trimmed - (before.trimmed if before else 0)
    if trimmed > 0:
        yield Offence(f"{trimmed:,} entries were removed before any worker was given them")
    if queue.lost_total:
        yield Offence(f"{queue.lost_total:,} entries were removed that a worker had been given")
    known = [before.position] if before else []
    known += [ending.position] if ending else []
    if queue.exists and (ending is None or ending.backlog):  # else what came since is not the run's
        known.append(Position(queue.last_entry, added=queue.added))
    for earlier, later in pairwise(known):
        if _is_behind(later, earlier):
            yield Offence(
                f"{queue.stream} began anew: it had come to entry {earlier.entry}, and then "
                f"to no more than {later.entry}"
            )


def _is_behind(later: Position, earlier: Position) -> bool:
    """True of a stream that cannot have grown out of what it was."""
    if goes_back(later.entry, earlier.entry):
        return True
    return later.added is not None and earlier.added is not None and later.added < earlier.added


def window(snapshot: Snapshot) -> list[Finding]:
    """No order of the run was sold outside the sale's window, by the stream's time.

    The window is begin ≤ time < end; where it was moved in the run, the wider one counts. A sale
    that was open for as long as the run lasted needs no further look. Else an order's entry tells,
    by its id or by the script's time in it; the clock of a row convicts nobody. Cannot judge sales
    without a window, orders of which nothing but a row tells and that outside it, nor orders that
    are still queued.
    """
    sales = [sale for sale in snapshot.sales if not sale.was_open_throughout(snapshot.lasted_ms)]
    seen = snapshot.sightings or {}
    queued = (s.offence("not a row yet", user, order) for s in sales for user, order in _queued(s))
    return [
        *violation("sold outside the window", (o for s in sales for o in _outside(s, seen))),
        *doubt("no time or window to judge by", (o for s in sales for o in _timeless(s, seen))),
        *(doubt("still queued", queued) if not snapshot.drained else ()),
        *remark("no entry any more, so judged by the row", _by_row(sales, seen)),
    ]


_CLOSED = tuple(OUTCOMES.index(outcome) for outcome in (Outcome.NOT_OPEN, Outcome.ENDED))


def outside_the_window(snapshot: Snapshot) -> Met:
    """Claims that came when the sale was not open."""
    told = sum(s.claims.count(code) for s in snapshot.sales for code in _CLOSED)
    return {"claims before the begin or past the end": told, "new orders": snapshot.persisted}


def _queued(sale: SaleSnapshot) -> Iterator[tuple[int, int]]:
    return ((user, order) for user, order in sale.rowless.items() if sale.is_new(order))


def _outside(sale: SaleSnapshot, seen: Mapping[int, Sighting]) -> Iterator[Offence]:
    """Orders that both times of their entry place outside."""
    if sale.terms_ms is None:
        return
    begin_ms, end_ms = sale.terms_ms
    for row in sale.new_rows():
        sighting = seen.get(sale.rows.order[row])
        if sighting is None:
            continue
        if (early := begin_ms - max(sighting)) > 0:
            yield sale.row_offence(row, f"sold {early:,} ms before it began")
        elif (late := min(sighting) - end_ms) >= 0:
            yield sale.row_offence(row, f"sold {late:,} ms past its end")


def _timeless(sale: SaleSnapshot, seen: Mapping[int, Sighting]) -> Iterator[Offence]:
    for row in sale.new_rows():
        if sale.terms_ms is None:
            yield sale.row_offence(row, "no window is known")
        elif sale.rows.order[row] not in seen and not _is_inside(sale, row):
            yield sale.row_offence(row, "its entry is gone, and the row's clock is not the sale's")


def _is_inside(sale: SaleSnapshot, row: int) -> bool:
    assert sale.terms_ms is not None
    return sale.terms_ms[0] <= sale.rows.created_ms[row] < sale.terms_ms[1]


def _by_row(sales: list[SaleSnapshot], seen: Mapping[int, Sighting]) -> Iterator[Offence]:
    for sale in sales:
        orders = sale.rows.order
        blind = sum(1 for row in sale.new_rows() if orders[row] not in seen)
        if blind and sale.terms_ms is not None:
            yield sale.offence(f"{blind:,} orders")
