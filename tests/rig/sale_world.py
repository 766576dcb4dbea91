"""A small sale to judge: what a correct system would leave behind, and hands to spoil it with."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from flashsale.model import Outcome, PayStatus, Verdict
from flashsale.verify.attempts import NEVER, NO_ORDER, OUTCOMES, ClaimColumns, RunRecord
from flashsale.verify.finding import Finding
from flashsale.verify.observation import Baseline, Clocks, Observation, baseline_of
from flashsale.verify.queue import Queue, Sighting
from flashsale.verify.snapshot import Snapshot, join
from flashsale.verify.stores import LedgerSale, MySQLSale, Rows
from flashsale.verify.verdict import CHECKS

DATASET = "d" * 32
BEGIN_MS, END_MS = 1_000_000, 2_000_000
CLOCKS = Clocks(redis_ms=BEGIN_MS, mysql_ms=BEGIN_MS + 2, offset_ms=2.0, error_ms=1.0)
STREAM = Queue(exists=True, last_entry="5-0")


@dataclass
class Row:
    """One order in MySQL."""

    order: int
    user: int
    status: int = PayStatus.UNPAID
    created_ms: int = BEGIN_MS + 10
    persisted_ms: int = BEGIN_MS + 60


@dataclass
class Claim:
    """One attempt."""

    user: int
    outcome: Outcome
    order: int = NO_ORDER
    sent_us: int = NEVER
    done_us: int = NEVER
    resolved: int = NO_ORDER
    garbled: str | None = None
    clock: int = 0


@dataclass
class World:
    """One voucher in both stores, and the claims on it. Every part may be spoilt."""

    units: int = 10
    voucher: int = 1
    claims: list[Claim] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=dict)
    mysql: MySQLSale | None = None
    members: set[int] = field(default_factory=set)
    receipts: dict[int, int] = field(default_factory=dict)
    before: Baseline | None = None
    sightings: dict[int, Sighting] = field(default_factory=dict)
    newer: dict[int, int] = field(default_factory=dict)
    now_us: int = 0

    def __post_init__(self) -> None:
        self.mysql = MySQLSale(self.units, self.units, BEGIN_MS, END_MS)
        self.ledger = {
            "stock": self.units,
            "initial": self.units,
            "begin_ms": BEGIN_MS,
            "end_ms": END_MS,
            "has_terms": True,
        }
        self.start()

    # What a correct system does.

    def start(self) -> None:
        """Take the baseline now, before the sale begins: its orders are judged one by one."""
        clocks = replace(CLOCKS, redis_ms=BEGIN_MS - 100)
        self.before = baseline_of(replace(self.observation(), clocks=clocks))

    def sell(self, user: int, order: int, **row: int) -> None:
        """A unit goes to `user`, in both stores."""
        self.sell_in_ledger(user, order, row.get("created_ms", BEGIN_MS + 10))
        self.persist(user, order, **row)

    def sell_in_ledger(self, user: int, order: int, sold_ms: int = BEGIN_MS + 10) -> None:
        """What seckill.lua does."""
        self.sightings[order] = (sold_ms, sold_ms)
        self.ledger["stock"] -= 1
        self.members.add(user)
        self.receipts[user] = order

    def persist(self, user: int, order: int, **row: int) -> None:
        """What the worker does."""
        self.rows.append(Row(order, user, **row))
        self.move_mysql_stock(-1)

    def say(self, user: int, outcome: Outcome, order: int = NO_ORDER, **more: Any) -> Claim:
        """A claim and its answer, 10 µs after the one before it."""
        self.now_us += 10
        instants = {"sent_us": self.now_us, "done_us": self.now_us + 5}
        claim = Claim(user, outcome, order, **{**instants, **more})
        self.claims.append(claim)
        return claim

    def buy(self, user: int, order: int) -> None:
        """A claim that sells, all the way to its row."""
        self.say(user, Outcome.SOLD, order)
        self.sell(user, order)

    def end(self, order: int, status: int = PayStatus.CANCELLED) -> None:
        """Cancel or refund an order; its unit goes back in both stores."""
        row = self.row(order)
        row.status = status
        self.move_mysql_stock(1)
        self.members.discard(row.user)
        self.receipts.pop(row.user, None)
        self.ledger["stock"] += 1

    def restock(self, units: int) -> None:
        """More units in both stores, or fewer where they are negative."""
        assert self.mysql is not None
        mysql = self.mysql
        self.mysql = MySQLSale(mysql.initial + units, mysql.stock + units, BEGIN_MS, END_MS)
        self.ledger["stock"] += units
        self.ledger["initial"] += units
        self.ledger["restocked"] = self.ledger.get("restocked", 0) + max(0, units)

    # Hands.

    def row(self, order: int) -> Row:
        """The row with this id."""
        return next(row for row in self.rows if row.order == order)

    def move_mysql_stock(self, units: int) -> None:
        """Change MySQL's stock alone."""
        assert self.mysql is not None
        self.mysql = MySQLSale(self.mysql.initial, self.mysql.stock + units, BEGIN_MS, END_MS)

    # What the judge is shown.

    def observation(self, queue: Queue = STREAM, *, still: bool = True) -> Observation:
        """Both stores as they are."""
        rows = Rows()
        for row in self.rows:
            columns = (row.order, row.user, row.status, row.created_ms, row.persisted_ms)
            rows.extend(array("q", columns))
        sale = LedgerSale(
            **self.ledger, members=frozenset(self.members), receipts=dict(self.receipts)
        )
        return Observation(
            dataset=DATASET,
            clocks=CLOCKS,
            mysql={self.voucher: self.mysql} if self.mysql else {},
            rows={self.voucher: rows},
            ledger={self.voucher: sale},
            queue=replace(queue, newer={**queue.newer, **self.newer}),
            still=still,
        )

    def record(self) -> ClaimColumns:
        """The claims as columns."""
        claims = ClaimColumns()
        for k, claim in enumerate(self.claims):
            claims.user.append(claim.user)
            claims.sent_us.append(claim.sent_us)
            claims.done_us.append(claim.done_us)
            claims.outcome.append(OUTCOMES.index(claim.outcome))
            claims.order.append(claim.order)
            claims.resolved.append(claim.resolved)
            claims.clock.append(claim.clock)
            if claim.garbled is not None:
                claims.garbled[k] = claim.garbled
        return claims

    def snapshot(self, queue: Queue = STREAM, *, still: bool = True) -> Snapshot:
        """What the judge gets to see."""
        return together([self], queue, still=still)


def together(worlds: Iterable[World], queue: Queue = STREAM, *, still: bool = True) -> Snapshot:
    """Several sales of one run."""
    parts = list(worlds)
    seen = [world.observation(queue, still=still) for world in parts]
    first = parts[0].before
    before = None
    if first is not None and all(world.before for world in parts):
        sales = {v: s for world in parts for v, s in world.before.sales.items()}  # type: ignore[union-attr]
        before = Baseline(
            first.dataset, sales, first.position, first.trimmed, first.stream_exists, first.clocks
        )
    snapshot = join(
        RunRecord("run-1", "test", {world.voucher: world.record() for world in parts}),
        before,
        Observation(
            dataset=DATASET,
            clocks=CLOCKS,
            mysql={v: s for one in seen for v, s in one.mysql.items()},
            rows={v: r for one in seen for v, r in one.rows.items()},
            ledger={v: e for one in seen for v, e in one.ledger.items()},
            queue=queue,
            still=still,
        ),
    )
    sightings = {order: seen for world in parts for order, seen in world.sightings.items()}
    return replace(snapshot, sightings=sightings)


def findings(snapshot: Snapshot, name: str, verdict: Verdict) -> list[Finding]:
    """What the check of this name has to say with that weight."""
    (check,) = (check for check in CHECKS if check.name == name)
    return [finding for finding in check.judge(snapshot) if finding.verdict == verdict]


def violations(snapshot: Snapshot, name: str) -> str:
    """The violations that a check finds, as text; empty where there are none."""
    return "; ".join(map(str, findings(snapshot, name, Verdict.FAIL)))


def doubts(snapshot: Snapshot, name: str) -> str:
    """What a check could not judge, as text."""
    return "; ".join(map(str, findings(snapshot, name, Verdict.UNKNOWN)))


def broken(snapshot: Snapshot) -> set[str]:
    """The names of all checks that find a violation."""
    return {check.name for check in CHECKS if violations(snapshot, check.name)}
