"""Everything the judge knows, frozen: what was asked and told, what was there, what is there."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import eq

from flashsale.verify.attempts import GARBLED, NO_ORDER, SOLD, ClaimColumns, Column, RunRecord
from flashsale.verify.ending import Ending, as_of, span_of
from flashsale.verify.finding import Offence
from flashsale.verify.observation import Baseline, Clocks, Observation, SaleBefore, observe
from flashsale.verify.queue import Queue, Sighting, read_sightings
from flashsale.verify.stores import Database, LedgerSale, MySQLSale, Rows, StoreConnections


@dataclass(frozen=True)
class SaleSnapshot:
    """One voucher's sale from all sides. `before` is None where there is no baseline.

    `later` orders were sold after the run, `unplaced` of them by a clock's word alone; nothing else
    here knows of them. Each claim asked for `quantity` units, a user may hold `limit` orders, and
    `names` are ids that are no numbers.
    """

    voucher: int
    claims: ClaimColumns
    rows: Rows
    mysql: MySQLSale | None
    ledger: LedgerSale
    before: SaleBefore | None
    later: int = 0
    unplaced: int = 0
    quantity: int = 1
    limit: int = 1
    names: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def row_of(self) -> Mapping[int, int]:
        """Position in `rows` by order id."""
        return dict(zip(self.rows.order, range(len(self.rows)), strict=True))

    def is_live(self, order: int) -> bool:
        """True for an order that holds a unit; also for one that is no row, since it may."""
        row = self.row_of.get(order)
        return row is None or self.rows.is_live(row)

    @cached_property
    def live_of(self) -> Mapping[int, int]:
        """Position in `rows` of each user's live order."""
        live, users = list(self.rows.live()), self.rows.user
        return dict(zip(map(users.__getitem__, live), live, strict=True))

    def are_rows_of(self, users: Iterable[int], orders: Iterable[int]) -> bool:
        """True where each order is a row of its user. The loops over a million are in C."""
        try:
            rows = map(self.row_of.__getitem__, orders)
            return all(map(eq, map(self.rows.user.__getitem__, rows), users))
        except KeyError:
            return False

    @cached_property
    def is_told_plainly(self) -> bool:
        """True where all that users were told of are rows of theirs, by the ids in the answers."""
        return not self.claims.is_any_resolved and self.are_rows_of(*self.claims.sold())

    @cached_property
    def is_receipted_plainly(self) -> bool:
        """True where each receipt's order is a row of its user."""
        receipts = self.ledger.receipts
        return self.are_rows_of(receipts.keys(), receipts.values())

    @cached_property
    def is_explained_plainly(self) -> bool:
        """True where the orders of the run are just those that users were told of."""
        return (
            self.is_told_plainly
            and self.is_receipted_plainly
            and self.known_before.isdisjoint(self.promised)
            and len(self.promised) == len(self.row_of) - len(self.known_before & self.row_of.keys())
        )

    @cached_property
    def buyers(self) -> int:
        """How many users asked."""
        return len(set(self.claims.user))

    @cached_property
    def holders(self) -> frozenset[int]:
        """Users with an order of any status."""
        return frozenset(self.rows.user)

    @cached_property
    def promised(self) -> Mapping[int, int]:
        """Position in `claims` by the order id that a user was told of.

        Of several claims that were answered so, the first that was sent counts: who repeats an
        Idempotency-Key is told of the same order again. One of which the status route told the same
        afterwards counts less.
        """
        claims = self.claims
        chosen = list(claims.told(SOLD))
        sold = dict(zip(map(claims.order.__getitem__, chosen), chosen, strict=True))
        if len(sold) < len(chosen):
            chosen.sort(key=claims.sent_us.__getitem__, reverse=True)
            sold = dict(zip(map(claims.order.__getitem__, chosen), chosen, strict=True))
        sold.pop(NO_ORDER, None)
        sold.pop(GARBLED, None)
        if not claims.is_any_resolved:
            return sold
        return {order: k for k, order in claims.promised() if order} | sold

    @cached_property
    def told_sold(self) -> Mapping[int, int]:
        """`promised`, less those that only the status route told of."""
        if not self.claims.is_any_resolved:
            return self.promised
        outcome = self.claims.outcome
        return {order: k for order, k in self.promised.items() if outcome[k] == SOLD}

    @cached_property
    def open_claims(self) -> Mapping[int, int]:
        """How many claims of each user may have sold an order that nobody was told of."""
        users = self.claims.user
        unanswered = Counter(users[k] for k in self.claims.open())
        if unanswered:
            resolved = self.promised.keys() - self.told_sold.keys()
            unanswered.subtract(users[self.promised[order]] for order in resolved)
        return unanswered

    @cached_property
    def answers_of(self) -> Mapping[int, int]:
        """What each user was told, as a bit for each outcome."""
        answers: dict[int, int] = {}
        for user, code in zip(self.claims.user, self.claims.outcome, strict=True):
            answers[user] = answers.get(user, 0) | 1 << code
        return answers

    @cached_property
    def rowless(self) -> Mapping[int, int]:
        """User and order id of those who were given an order, by word or receipt, but no row.

        A user with a live row of another id is left out: that is one order under two ids.
        """
        if self.is_told_plainly and self.is_receipted_plainly:
            return {}
        users, rows, live = self.claims.user, self.row_of, self.live_of
        told = ((users[k], order) for order, k in self.promised.items())
        return {
            user: order
            for user, order in chain(self.ledger.receipts.items(), told)
            if order not in rows and user not in live
        }

    @property
    def units_held(self) -> int:
        """Units that are gone: live orders, and orders that are rows yet to be."""
        return self.rows.live_units + len(self.rowless) * self.quantity

    @cached_property
    def bearers(self) -> frozenset[int]:
        """Users with an order of this run, of any status, or with one from before that is live."""
        rows, ended = self.rows, self.before.ended if self.before else frozenset()
        pairs = zip(rows.order, rows.user, strict=True)
        return frozenset(user for order, user in pairs if order not in ended)

    @cached_property
    def unnamed(self) -> Mapping[int, int]:
        """How many orders each user was told of without an id."""
        users = self.claims.user
        told = ((users[k], self.claims.order[k]) for k in self.claims.told(SOLD))
        return Counter(user for user, order in told if order == NO_ORDER)

    @cached_property
    def repeats(self) -> frozenset[int]:
        """Claims that were told once more, without an id, of an order that their user had been told
        of: of a user's the first that were sent count, as many as there are new rows of theirs."""
        if len(self.unnamed) == sum(self.unnamed.values()):
            return frozenset()
        users, rows = self.claims.user, self.rows.user
        held = Counter(rows[row] for row in self.new_rows())
        left = {user: max(1, held[user]) for user in self.unnamed}
        told = [k for k in self.claims.told(SOLD) if self.claims.order[k] == NO_ORDER]
        found = []
        for k in sorted(told, key=self.claims.sent_us.__getitem__):
            left[users[k]] -= 1
            if left[users[k]] < 0:
                found.append(k)
        return frozenset(found)

    @property
    def initial(self) -> int | None:
        """The units on sale, restocks included: MySQL's word, else the ledger's."""
        return self.mysql.initial if self.mysql else self.ledger.initial

    @property
    def restocked(self) -> int:
        """Units that came since the baseline, though others may have gone."""
        if self.initial is None or self.before is None or self.before.mysql is None:
            return 0
        counted = self.ledger.restocked - self.before.restocked
        return max(0, counted, self.initial - self.before.mysql.initial)

    @cached_property
    def returned(self) -> int:
        """Units that came back into stock since the baseline; at which instants is not known."""
        ended = self.before.ended if self.before else frozenset()
        cancelled = 0
        if self.rows.live_count < len(self.rows):
            cancelled = sum(
                1
                for row, order in enumerate(self.rows.order)
                if not self.rows.is_live(row) and order not in ended
            )
        return cancelled * self.quantity + self.restocked + self._settled_since

    @property
    def _settled_since(self) -> int:
        """Units that the ledger has given back since, of users on whom the stores did not agree:
        who had a live row then, and stood not in the order set, had none to give back."""
        if self.before is None or not self.before.unsettled:
            return 0
        owners = zip(self.rows.order, self.rows.user, strict=True)
        had_row = {user for order, user in owners if order in self.before.live}
        return len(self.before.unsettled - self.ledger.members - had_row)

    @cached_property
    def known_before(self) -> frozenset[int]:
        """Orders that were there before the run, as far as a baseline tells."""
        before = self.before
        return before.live | before.ended | before.queued if before else frozenset()

    def is_new(self, order: int) -> bool:
        """True for an order of this run; without a baseline, for one that the run was told of."""
        return order not in self.known_before if self.before else order in self.promised

    def was_rowless(self, order: int) -> bool:
        """True for an order that was no row before the run: what became of it is not the run's."""
        return self.before is not None and order in self.before.queued

    @cached_property
    def terms_ms(self) -> tuple[int, int] | None:
        """The sale's window, begin ≤ time < end; where it was moved in the run, the wider one."""
        pairs = [(self.ledger.begin_ms, self.ledger.end_ms)]
        if self.before:
            pairs.append((self.before.begin_ms, self.before.end_ms))
        if self.mysql and not self.ledger.has_terms:
            pairs.append((self.mysql.begin_ms, self.mysql.end_ms))
        known = [(begin, end) for begin, end in pairs if begin is not None and end is not None]
        return (min(b for b, _ in known), max(e for _, e in known)) if known else None

    def was_open_throughout(self, lasted_ms: tuple[int, int] | None) -> bool:
        """True where the sale was open for as long as the run lasted."""
        terms, lasted = self.terms_ms, lasted_ms
        return bool(terms and lasted and terms[0] <= lasted[0] and lasted[1] < terms[1])

    def new_rows(self) -> Sequence[int]:
        """Positions in `rows` of this run's orders."""
        return self._new_rows

    @cached_property
    def _new_rows(self) -> Sequence[int]:
        if self.before and not self.known_before:
            return range(len(self.rows))
        return array("q", (row for row, o in enumerate(self.rows.order) if self.is_new(o)))

    def new_times(self, column: Column) -> Iterator[int]:
        """Of this run's orders, what stands in a column of `rows`."""
        rows = self.new_rows()
        return iter(column) if len(rows) == len(column) else map(column.__getitem__, rows)

    def offence(self, detail: str, user: int | None = None, order: int | None = None) -> Offence:
        """An offence in this sale, named in full."""
        named = [f"order {self.called(order)}"] if order else []
        named += [f"user {self.called(user)}"] if user else []
        text = f"{', '.join([*named, f'voucher {self.voucher}'])}: {detail}"
        return Offence(text, self.voucher, user, self.called(order) if order else None)

    def called(self, number: int) -> int | str:
        """What an order or a user is called in the shop."""
        return self.names.get(number, number)

    def row_offence(self, row: int, detail: str) -> Offence:
        """An offence of the order at `row`."""
        return self.offence(detail, self.rows.user[row], self.rows.order[row])


ALWAYS_MS = (0, 2**62)
"""The window of a sale of which nobody says when it is open."""


@dataclass(frozen=True)
class Snapshot:
    """The whole run. `strays` are orders promised to users that MySQL has under other vouchers.

    `shortfall` says what the storm's record lacks; `unrecorded` claims have no result in it.
    `sightings` tells when orders were sold, by their entries in the stream: None where nobody
    looked, since nothing hung on it.
    `absent` names checks whose data a shop does not have, and why; `rests_on` what it has. `lapsed`
    are rows of a shop's orders, by their voucher, that ended though nobody cancelled them; its run
    lay within `around_ms` by any clock that is not plainly wrong.
    """

    sales: tuple[SaleSnapshot, ...]
    queue: Queue
    still: bool = True
    dataset: str | None = None
    before: Baseline | None = None
    ending: Ending | None = None
    clocks: Clocks | None = None
    strays: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    sightings: Mapping[int, Sighting] | None = None
    shortfall: str | None = None
    unrecorded: int = 0
    absent: Mapping[str, str] = field(default_factory=dict)
    rests_on: tuple[str, ...] = ()
    lapsed: Mapping[int, Sequence[int]] = field(default_factory=dict)
    around_ms: tuple[int, int] | None = None

    @property
    def lasted_ms(self) -> tuple[int, int] | None:
        """From when to when an order of the run can have been sold, by the ledger's clock."""
        if self.before is None or self.before.clocks is None or self.clocks is None:
            return None
        end_ms = self.clocks.redis_ms
        if self.ending is not None:
            end_ms = self.ending.clocks.redis_ms + self.ending.claim_ms
        start_ms = self.before.clocks.redis_ms
        return (start_ms, end_ms) if start_ms <= end_ms else None

    @property
    def drained(self) -> bool:
        """True where every order has left the queue, so that what is no row now never will be."""
        return self.queue.backlog.total == 0

    @cached_property
    def accepted(self) -> int:
        """How many orders users were told of as sold, each counted once."""
        named = sum(len(sale.told_sold) for sale in self.sales)
        orders = (sale.claims.sold()[1] for sale in self.sales)
        unnamed = sum(sum(map(NO_ORDER.__ge__, some)) for some in orders)
        return named + unnamed - sum(len(sale.repeats) for sale in self.sales)

    @property
    def unanswered(self) -> int:
        """How many claims may or may not have sold, as far as their own answers tell."""
        return sum(1 for sale in self.sales for _ in sale.claims.open())

    @cached_property
    def persisted(self) -> int:
        """How many of this run's orders are rows."""
        return sum(len(sale.new_rows()) for sale in self.sales)

    @property
    def returns_owed(self) -> int:
        """Orders that MySQL has ended while the ledger has still to give back their unit."""
        return sum(_returns_owed(sale) for sale in self.sales)


_LOOK_UP_IDS = 1_000


def read_owners(database: Database, orders: Iterable[int]) -> dict[int, tuple[int, int]]:
    """User and voucher of each of `orders` that is a row, under whatever voucher."""
    query = "SELECT id, user_id, voucher_id FROM tb_voucher_order WHERE id IN %s"
    wanted = list(orders)
    owners: dict[int, tuple[int, int]] = {}
    with database.cursor() as cursor:
        for start in range(0, len(wanted), _LOOK_UP_IDS):
            cursor.execute(query, (tuple(wanted[start : start + _LOOK_UP_IDS]),))
            owners.update((row[0], (row[1], row[2])) for row in cursor.fetchall())
    return owners


def _returns_owed(sale: SaleSnapshot) -> int:
    unsettled = sale.before.unsettled if sale.before else frozenset()
    if sale.rows.live_count == len(sale.rows):
        return 0
    return sum(
        1
        for user, order in sale.ledger.receipts.items()
        if (row := sale.row_of.get(order)) is not None
        and not sale.rows.is_live(row)
        and user not in unsettled
    )


def join(attempts: RunRecord, before: Baseline | None, seen: Observation) -> Snapshot:
    """The snapshot that these three make. Pure."""
    return Snapshot(
        sales=tuple(
            SaleSnapshot(
                voucher=voucher,
                claims=claims,
                rows=seen.rows.get(voucher) or Rows(),
                mysql=seen.mysql.get(voucher),
                ledger=seen.ledger.get(voucher) or LedgerSale(),
                before=before.sales.get(voucher) if before else None,
                later=seen.later.get(voucher, 0),
                quantity=attempts.quantity,
                limit=attempts.limit,
                names=attempts.names,
                unplaced=seen.unplaced.get(voucher, 0),
            )
            for voucher, claims in sorted(attempts.claims.items())
        ),
        queue=seen.queue,
        still=seen.still,
        dataset=seen.dataset,
        before=before,
        clocks=seen.clocks,
        shortfall=attempts.shortfall,
        unrecorded=attempts.unrecorded,
    )


def read_snapshot(
    stores: StoreConnections, attempts: RunRecord, before: Baseline | None, ending: Ending | None
) -> Snapshot:
    """Read both stores, as of the end of the run, and join them with the record and baseline."""
    span = span_of(attempts, before, ending)
    seen = observe(stores, attempts.vouchers, span)
    if ending is not None:
        seen = as_of(ending, seen, attempts, before)
    snapshot = replace(join(attempts, before, seen), ending=ending)
    missing = [
        order for sale in snapshot.sales for order in sale.promised if order not in sale.row_of
    ]
    sightings = None
    if any(_hangs_on_the_stream(snapshot, sale) for sale in snapshot.sales):
        sightings = read_sightings(stores.lanes, frozenset(attempts.vouchers), span)
    return replace(snapshot, strays=read_owners(stores.database, missing), sightings=sightings)


def _hangs_on_the_stream(snapshot: Snapshot, sale: SaleSnapshot) -> bool:
    """True where it matters which orders the stream holds, and since when."""
    missing = any(sale.is_new(order) for order in sale.rowless.values())
    return missing or not sale.was_open_throughout(snapshot.lasted_ms)
