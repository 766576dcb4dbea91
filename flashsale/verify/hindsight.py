"""Looking back at the end of a run: what both stores hold, less what was sold after it.

A judge who comes late finds later runs' orders in the same rows, sets and stocks. An order is a
later one where the clock of the script says so, both stores agree on it, and nobody in this run
was told of it. Later orders are taken out in both stores with the units that they hold, and later
restocks with the units that they brought, so that every check sees the sale as the run left it.
What is wrong with the rest stays wrong.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from flashsale.verify.attempts import Attempts
from flashsale.verify.baseline import Baseline, SaleBefore
from flashsale.verify.claims import Claims
from flashsale.verify.database import Rows, Shelf
from flashsale.verify.ending import Ending, SaleAtEnd
from flashsale.verify.ledger import LedgerSale, Terms
from flashsale.verify.observation import Observation
from flashsale.verify.queue import Span
from flashsale.verify.stream import BEGINNING, NOW, position

_LAST_OF_MS = 2**64 - 1


def span_of(attempts: Attempts, before: Baseline | None, ending: Ending | None) -> Span:
    """The part of the queue that is the run's. Pure.

    Claims without an answer may have sold for `claim_ms` after the end.
    """
    since = before.position.entry if before else BEGINNING
    dead = before.position.dead if before else BEGINNING
    if ending is None:
        return Span(since, dead, NOW)
    waits = any(True for claims in attempts.claims.values() for _ in claims.open())
    last_ms = ending.clocks.redis_ms + (ending.claim_ms if waits else 0)
    until = max(position(ending.position.entry), (last_ms, _LAST_OF_MS))
    return Span(since, dead, f"{until[0]}-{until[1]}")


def as_of(
    ending: Ending, seen: Observation, attempts: Attempts, before: Baseline | None
) -> Observation:
    """`seen` as it would be had nothing been sold or restocked since the end. Pure.

    `later` counts the orders that were left out, by voucher.
    """
    views = {
        voucher: _View(
            claims=claims,
            before=before.sales.get(voucher) if before else None,
            ending=ending,
            rows=seen.rows.get(voucher) or Rows(),
            shelf=seen.shelves.get(voucher),
            ledger=seen.ledger.get(voucher) or LedgerSale(),
            newer=seen.queue.newer,
        ).as_of(ending.sales.get(voucher))
        for voucher, claims in attempts.claims.items()
    }
    queue = seen.queue
    if not ending.backlog:  # nothing of the run was unread, so what was lost since is not its own
        queue = replace(queue, trimmed=min(queue.trimmed, ending.trimmed))
    return replace(
        seen,
        shelves={voucher: view.shelf for voucher, view in views.items() if view.shelf},
        rows={voucher: view.rows for voucher, view in views.items()},
        ledger={voucher: view.ledger for voucher, view in views.items()},
        queue=queue,
        later={voucher: view.later for voucher, view in views.items() if view.later},
    )


@dataclass(frozen=True)
class _AsOf:
    shelf: Shelf | None
    rows: Rows
    ledger: LedgerSale
    later: int


@dataclass(frozen=True)
class _View:
    """One sale as it is now, with what it takes to tell the run's orders from later ones."""

    claims: Claims
    before: SaleBefore | None
    ending: Ending
    rows: Rows
    shelf: Shelf | None
    ledger: LedgerSale
    newer: Mapping[int, int]

    def as_of(self, then: SaleAtEnd | None) -> _AsOf:
        """The sale without what came later. Of an order that is a row, the row tells when."""
        late_rows = frozenset(self._late_rows())
        late_orders = {self.rows.order[row]: self.rows.user[row] for row in late_rows}
        rows = frozenset(self.rows.order) if self.newer else frozenset()
        late_orders |= {
            order: user
            for order, user in self.newer.items()
            if order not in rows and not self._is_ours(order)
        }
        gone = self._late_holders(late_orders)
        held = sum(1 for row in late_rows if self.rows.is_live(row))
        restocked = self._restocked(then)
        return _AsOf(
            shelf=self._shelf_then(held - restocked, restocked),
            rows=self.rows.without(late_rows) if late_rows else self.rows,
            ledger=self._ledger_then(gone, restocked, then.terms if then else None),
            later=len(late_orders),
        )

    def _late_rows(self) -> Iterator[int]:
        """Rows created after the end that the ledger knows, too, and no claim of the run explains.

        Where a system gives no receipts, the time is of MySQL, at which a worker wrote the row: it
        tells nothing while orders of the run were queued.
        """
        rows, receipts = self.rows, self.ledger.receipts
        by_script = self.ledger.gives_receipts
        if not by_script and self.ending.backlog:
            return
        clocks = self.ending.clocks
        end_ms = clocks.redis_ms if by_script else clocks.mysql_ms
        waiting = {self.claims.user[k] for k in self.claims.open()}
        for row, created_ms in enumerate(rows.created_ms):
            if created_ms <= end_ms:
                continue
            user, order = rows.user[row], rows.order[row]
            grace_ms = self.ending.claim_ms if user in waiting else 0
            known = not by_script or not rows.is_live(row) or receipts.get(user) == order
            if created_ms > end_ms + grace_ms and known and not self._is_ours(order):
                yield row

    def _is_ours(self, order: int) -> bool:
        """True for an order that the run was told of, or found."""
        return order in self._promised or (self.before is not None and self.before.knows(order))

    @cached_property
    def _promised(self) -> frozenset[int]:
        return frozenset(order for _, order in self.claims.promised())

    def _late_holders(self, orders: Mapping[int, int]) -> frozenset[int]:
        """Users who hold a unit in the ledger by a later order."""
        if self.ledger.gives_receipts:
            return frozenset(u for u, o in self.ledger.receipts.items() if o in orders)
        return frozenset(orders.values()) & self.ledger.members

    def _restocked(self, then: SaleAtEnd | None) -> int:
        """Units added since the end, where both stores tell of the same."""
        if then is None or then.shelf is None or self.shelf is None:
            return 0
        units = self.shelf.initial - then.shelf.initial
        if self.ledger.initial is None or then.terms.initial is None:
            return units if not self.ledger.has_terms else 0
        return units if self.ledger.initial - then.terms.initial == units else 0

    def _shelf_then(self, units: int, restocked: int) -> Shelf | None:
        if self.shelf is None:
            return None
        shelf = self.shelf
        return replace(shelf, initial=shelf.initial - restocked, stock=shelf.stock + units)

    def _ledger_then(self, gone: frozenset[int], restocked: int, terms: Terms | None) -> LedgerSale:
        ledger = self._ledger_without(gone)
        stock, initial = ledger.stock, ledger.initial
        return replace(
            ledger,
            stock=None if stock is None else stock + len(gone) - restocked,
            initial=None if initial is None else initial - restocked,
            begin_ms=ledger.begin_ms if terms is None else terms.begin_ms,
            end_ms=ledger.end_ms if terms is None else terms.end_ms,
        )

    def _ledger_without(self, users: frozenset[int]) -> LedgerSale:
        """The same object where nobody is to go: a million receipts are not copied for nothing."""
        if not users:
            return self.ledger
        receipts = {u: o for u, o in self.ledger.receipts.items() if u not in users}
        return replace(self.ledger, members=self.ledger.members - users, receipts=receipts)
