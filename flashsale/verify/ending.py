"""The end of a run: the mark that the storm has written, and the look back from later to that mark.

The storm command has the mark written after the last answer and the last question, by the stores'
own clocks, so that later runs do not disturb the judgement. A judge who comes late finds later
runs' orders in the same rows, sets and stocks. An order is a later one where its entry lies past
the run's part of the stream, the ledger has its receipt, nobody in this run was told of it, and it
is not the second of somebody who won in it. Later orders are taken out in both stores with the
units that they hold, and later restocks with the units that they brought, so that every check sees
the sale as the run left it. What is wrong with the rest stays wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import orjson

from flashsale.run.folder import ENDING_FILE
from flashsale.verify.attempts import ClaimColumns, RunRecord
from flashsale.verify.observation import (
    Baseline,
    Clocks,
    Observation,
    Position,
    SaleBefore,
    read_clocks,
    read_document,
    whole_or_none,
)
from flashsale.verify.queue import (
    BEGINNING,
    NOW,
    Span,
    each_lane,
    entry_id,
    is_past,
    position,
    read_queue,
)
from flashsale.verify.stores import (
    LedgerSale,
    MySQLSale,
    Rows,
    Terms,
    connect,
    frozen_view,
    read_mysql_sales,
    read_terms,
)

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SaleAtEnd:
    """What was on sale at the end of the run, so that a later restock or re-opening is known."""

    mysql: MySQLSale | None
    terms: Terms


@dataclass(frozen=True, slots=True)
class Ending:
    """Both stores after the run. `backlog` orders were still no rows.

    `claim_ms` is how long a claim without an answer may still have sold.
    """

    clocks: Clocks
    claim_ms: int
    position: Position = field(default_factory=Position)
    trimmed: int = 0
    backlog: int = 0
    sales: Mapping[int, SaleAtEnd] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The content of ending.json."""
        document = {
            "schema": SCHEMA,
            "taken_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "clocks": asdict(self.clocks),
            "claim_ms": self.claim_ms,
            "stream": {
                "last_entry": self.position.entry,
                "added": self.position.added,
                "trimmed": self.trimmed,
                "backlog": self.backlog,
            },
            "dead_letters": {"last_entry": self.position.dead},
            "vouchers": {
                str(voucher): {
                    "shelf": asdict(sale.mysql) if sale.mysql else None,  # schema 1's name for it
                    "terms": asdict(sale.terms),
                }
                for voucher, sale in self.sales.items()
            },
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def take(ledger_url: str, mysql_url: str, vouchers: Sequence[int], claim_ms: int) -> Ending:
    """The end of a run on `vouchers`, read now: after the last answer that counts.

    Costs the same however many orders there are. Raises UnreachableError where a store does not
    answer.
    """
    with connect(ledger_url, mysql_url) as stores:
        queue = read_queue(stores.lanes, frozenset(vouchers), Span())
        with frozen_view(stores.database):
            mysql = read_mysql_sales(stores.database, vouchers)
            clocks = read_clocks(stores)
        return Ending(
            clocks=clocks,
            claim_ms=claim_ms,
            position=Position(queue.last_entry, queue.dead_last, queue.added),
            trimmed=queue.trimmed,
            backlog=queue.backlog.total,
            sales={
                voucher: SaleAtEnd(mysql.get(voucher), read_terms(stores.of(voucher), voucher))
                for voucher in vouchers
            },
        )


def read_ending(run_dir: Path) -> Ending | None:
    """The end of the run in `run_dir`, None where the storm did not live to take one.

    Raises NothingJudgedError for a file that is not one.
    """
    what = (
        f"not the end of a run, schema {SCHEMA}; without the file, "
        "orders of later runs count as this run's"
    )
    return read_document(run_dir / ENDING_FILE, from_json, what)


def ended_last(run_dirs: Sequence[Path]) -> Path | None:
    """The folder of the run that ended last of all; None where one has no end on record.

    What several machines fired as one run ended when the last of them did.
    """
    ended = [(ending.clocks.redis_ms, run) for run in run_dirs if (ending := read_ending(run))]
    return max(ended)[1] if len(ended) == len(run_dirs) else None


def from_json(text: bytes) -> Ending:
    """What to_json wrote. Raises ValueError, KeyError or TypeError for anything else."""
    document = orjson.loads(text)
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}")
    stream, dead = document["stream"], document["dead_letters"]
    clocks = Clocks(**document["clocks"])
    return Ending(
        clocks=replace(clocks, redis_ms=index(clocks.redis_ms), mysql_ms=index(clocks.mysql_ms)),
        claim_ms=index(document["claim_ms"]),
        position=Position(
            entry_id(stream["last_entry"]),
            entry_id(dead["last_entry"]),
            whole_or_none(stream.get("added")),
        ),
        trimmed=index(stream["trimmed"]),
        backlog=index(stream["backlog"]),
        sales={int(v): _sale_from_json(sale) for v, sale in document["vouchers"].items()},
    )


def _sale_from_json(sale: Mapping[str, Any]) -> SaleAtEnd:
    mysql, terms = sale["shelf"], sale["terms"]
    return SaleAtEnd(
        MySQLSale(**{name: index(value) for name, value in mysql.items()}) if mysql else None,
        Terms(**{name: whole_or_none(value) for name, value in terms.items()}),
    )


_LAST_OF_MS = 2**64 - 1


def span_of(attempts: RunRecord, before: Baseline | None, ending: Ending | None) -> Span:
    """The part of the queue that is the run's. Pure.

    Claims without an answer may have sold for `claim_ms` after the end.
    """
    since = before.position.entry if before else BEGINNING
    dead = before.position.dead if before else BEGINNING
    if ending is None:
        return Span(since, dead, NOW)
    waits = any(True for claims in attempts.claims.values() for _ in claims.open())
    last_ms = ending.clocks.redis_ms + (ending.claim_ms if waits else 0)

    def until(entry: str) -> str:
        ms, seq = max(position(entry), (last_ms, _LAST_OF_MS))
        return f"{ms}-{seq}"

    return Span(since, dead, each_lane(until, ending.position.entry))


def as_of(
    ending: Ending, seen: Observation, attempts: RunRecord, before: Baseline | None
) -> Observation:
    """`seen` as it would be had nothing been sold or restocked since the end. Pure.

    `later` counts the orders that were left out, by voucher.
    """
    until = span_of(attempts, before, ending).until
    told = seen.queue.exists and not is_past(seen.queue.first_entry, until)
    views = {
        voucher: _View(
            claims=claims,
            before=before.sales.get(voucher) if before else None,
            ending=ending,
            rows=seen.rows.get(voucher) or Rows(),
            mysql=seen.mysql.get(voucher),
            ledger=seen.ledger.get(voucher) or LedgerSale(),
            newer=seen.queue.newer,
            is_told=told and (seen.ledger.get(voucher) or LedgerSale()).gives_receipts,
        ).as_of(ending.sales.get(voucher))
        for voucher, claims in attempts.claims.items()
    }
    queue = seen.queue
    if not ending.backlog:  # nothing of the run was unread, so what was lost since is not its own
        queue = replace(queue, trimmed=min(queue.trimmed, ending.trimmed))
    return replace(
        seen,
        mysql={voucher: view.mysql for voucher, view in views.items() if view.mysql},
        rows={voucher: view.rows for voucher, view in views.items()},
        ledger={voucher: view.ledger for voucher, view in views.items()},
        queue=queue,
        later={voucher: view.later for voucher, view in views.items() if view.later},
        unplaced={voucher: view.unplaced for voucher, view in views.items() if view.unplaced},
    )


@dataclass(frozen=True)
class _AsOf:
    mysql: MySQLSale | None
    rows: Rows
    ledger: LedgerSale
    later: int
    unplaced: int


@dataclass(frozen=True)
class _View:
    """One sale as it is now, with what it takes to tell the run's orders from later ones.

    `newer` are orders of the stream past the run's part of it; all that there were, if `is_told`.
    """

    claims: ClaimColumns
    before: SaleBefore | None
    ending: Ending
    rows: Rows
    mysql: MySQLSale | None
    ledger: LedgerSale
    newer: Mapping[int, int]
    is_told: bool

    def as_of(self, then: SaleAtEnd | None) -> _AsOf:
        """The sale without what came later. Of an order that is a row, the row tells when."""
        placed, unplaced = self._late_rows()
        late_rows = placed | unplaced
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
            mysql=self._mysql_then(held - restocked, restocked),
            rows=self.rows.without(late_rows) if late_rows else self.rows,
            ledger=self._ledger_then(gone, restocked, then.terms if then else None),
            later=len(late_orders),
            unplaced=len(unplaced),
        )

    def _late_rows(self) -> tuple[frozenset[int], frozenset[int]]:
        """Rows that came after the end: those that the stream places there, and those of which
        only a clock says so, since the stream tells of nothing that is so long ago.

        The ledger knows them, too, and no claim of the run explains them. A second live row of a
        user whose first is the run's is none of them.
        """
        placed, unplaced = set[int](), set[int]()
        for row, order in enumerate(self.rows.order) if self.newer or not self.is_told else ():
            if order in self.newer:
                chosen = placed
            elif not self.is_told and self._is_past_the_end(row):
                chosen = unplaced
            else:
                continue
            if self._is_known(row) and not self._is_ours(order):
                chosen.add(row)
        if not placed and not unplaced:
            return frozenset(), frozenset()
        winners = {
            self.rows.user[row]
            for row in self.rows.live()
            if row not in placed and row not in unplaced
        }
        seconds = {
            row
            for row in placed | unplaced
            if self.rows.is_live(row) and self.rows.user[row] in winners
        }
        return frozenset(placed - seconds), frozenset(unplaced - seconds)

    def _is_known(self, row: int) -> bool:
        """True where the ledger has the row's receipt, or gives none, or has given it back."""
        by_receipt = self.ledger.gives_receipts and self.rows.is_live(row)
        return (
            not by_receipt
            or self.ledger.receipts.get(self.rows.user[row]) == (self.rows.order[row])
        )

    def _is_past_the_end(self, row: int) -> bool:
        """True where the row's clock says so: the script's, where a system gives receipts, else
        MySQL's, at which a worker wrote it."""
        clocks = self.ending.clocks
        end_ms = clocks.redis_ms if self.ledger.gives_receipts else clocks.mysql_ms
        grace_ms = self.ending.claim_ms if self.rows.user[row] in self._waiting else 0
        return self.rows.created_ms[row] > end_ms + grace_ms

    @cached_property
    def _waiting(self) -> frozenset[int]:
        """Users with a claim that may still have sold after the end."""
        return frozenset(self.claims.user[k] for k in self.claims.open())

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
        if then is None or then.mysql is None or self.mysql is None:
            return 0
        units = self.mysql.initial - then.mysql.initial
        if self.ledger.initial is None or then.terms.initial is None:
            return units if not self.ledger.has_terms else 0
        return units if self.ledger.initial - then.terms.initial == units else 0

    def _mysql_then(self, units: int, restocked: int) -> MySQLSale | None:
        if self.mysql is None:
            return None
        mysql = self.mysql
        return replace(mysql, initial=mysql.initial - restocked, stock=mysql.stock + units)

    def _ledger_then(self, gone: frozenset[int], restocked: int, terms: Terms | None) -> LedgerSale:
        ledger = self._ledger_without(gone)
        stock, initial = ledger.stock, ledger.initial
        return replace(
            ledger,
            stock=None if stock is None else stock + len(gone) - restocked,
            initial=None if initial is None else initial - restocked,
            begin_ms=ledger.begin_ms if terms is None else terms.begin_ms,
            end_ms=ledger.end_ms if terms is None else terms.end_ms,
            restocked=ledger.restocked
            if terms is None or terms.restocked is None
            else terms.restocked,
        )

    def _ledger_without(self, users: frozenset[int]) -> LedgerSale:
        """The same object where nobody is to go: a million receipts are not copied for nothing."""
        if not users:
            return self.ledger
        receipts = {u: o for u, o in self.ledger.receipts.items() if u not in users}
        return replace(self.ledger, members=self.ledger.members - users, receipts=receipts)
