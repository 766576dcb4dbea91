"""The order worker: stream → MySQL → ack, in batches, losing and doubling nothing.

What it may rely on: an entry stays pending until it is acknowledged, and an order's id is unique.
So everything is tried until it is a row, and acknowledged only then.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

import structlog
from sqlalchemy import Engine

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.locks.batch import BatchLocks
from flashsale.orders.persistence import find_known, persist, read_generation
from flashsale.orders.stream import LOST, Fresh, Malformed, Order, OrderStream, Pending, StreamEntry
from flashsale.seckill.permit import read_marks
from flashsale.settings import WorkerSettings
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import NoGroup
from flashsale.telemetry import LATENCY_S, SIZES, Buckets

log = structlog.get_logger(__name__)

_SMALL = 0.5
"""A batch below this share of the largest is followed by a rest, in which the next one grows. Its
orders are rows by then. A batch wakes worker, cache, ledger and MariaDB two dozen times and has
ledger and MariaDB wait for the disk once each, however few orders are in it; claims wait meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a worker did. `repeated` were rows already; `postponed` will be tried again."""

    read: int = 0
    written: int = 0
    repeated: int = 0
    dead: int = 0
    lost: int = 0
    postponed: int = 0
    batches: int = 0
    failures: int = 0
    unpending: int = 0  # acknowledged, and not pending any more
    regrouped: int = 0  # times that the group was gone, so that all is read again

    def __add__(self, other: "Counts") -> "Counts":
        names = (field.name for field in fields(Counts))
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))


class Worker:
    """One consumer of the group. `run_once()` handles at most one batch of each kind."""

    def __init__(
        self,
        stream: OrderStream,
        pool: Engine,
        locks: BatchLocks,
        settings: WorkerSettings,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self.pool = pool
        self.locks = locks
        self._settings = settings
        self._now_s = now_s
        self._pending = Pending(
            base_s=settings.retry_base_ms / 1000, max_s=settings.retry_max_ms / 1000
        )
        self._take_over_due_s = 0.0
        self._trim_due_s = now_s() + settings.trim_interval_s
        self._group_known = False
        self._generation: int | None = None  # what is read from now on is of no older one
        self._refused: list[Order] = []  # as superseded: has the ledger still got them?
        self._ahead: Fresh | None = None  # read together with the last acknowledgement
        self._stopping = False  # then nothing is read ahead any more
        self.doubt = threading.Event()
        """Set where the ledger may have forgotten something: it was away, it does not know what it
        gave us, or its group is gone."""
        self.total = Counts()
        self.batch_sizes = Buckets(SIZES)
        self.durations_s = Buckets(LATENCY_S)  # of batches
        self.latencies_s = Buckets(LATENCY_S)  # of orders, acceptance to row, by two clocks

    def __repr__(self) -> str:
        return f"<Worker {self._stream!r} {self._pending!r} {self.total}>"

    @property
    def postponed(self) -> int:
        """Orders that will be tried again later."""
        return self._pending.postponed

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until `stopped()`; a Redis that is away is waited for."""
        failures = 0
        while True:
            self._stopping = stopped()
            if self._stopping and not self._ahead:
                return
            try:
                self.run_once()
                failures = 0
            except (Unavailable, Indeterminate) as trouble:
                failures += 1
                self.total += Counts(failures=1)
                self.doubt.set()
                self._ahead = None  # still pending, so it is found again
                self._pending.start_over()  # a batch may have been given to us in the lost reply
                log.warning("the ledger does not answer", error=str(trouble), failures=failures)
                base_s, max_s = self._settings.retry_base_ms, self._settings.retry_max_ms
                time.sleep(min(max_s, base_s * 2 ** min(failures, 10)) / 1000)

    def run_once(self) -> Counts:
        """Own pending entries, then those of the dead, then fresh ones.

        Raises Unavailable or Indeterminate where the ledger does not answer.
        """
        counts = Counts()
        self._know_generation()
        try:
            counts += self._ensure_group()
            counts += self._account()
            counts += self._work(self._own_pending())
            counts += self._take_over()
            counts += self._fresh()
            self._trim()
        except NoGroup:
            self._group_known = False
        self.total += counts
        return counts

    def _know_generation(self) -> None:
        """Before anything is read: a permit that is written later supersedes what was read."""
        if self._generation is None:
            with suppress(Unavailable, Indeterminate), transaction(self.pool) as connection:
                self._generation = read_generation(connection, self._stream.lane)

    def _account(self) -> Counts:
        """Name those of the orders refused as superseded that the ledger came back without: the
        others are pending, and come again."""
        gone = self._stream.without(self._refused) if self._refused else []
        known = find_known(self.pool, gone).same if gone else ()
        lost = [order for order in gone if order not in known]
        for order in lost:
            log.error("the ledger came back without an accepted order", order=order.order_id)
            self._stream.journal_loss(order)
        self._refused = []
        return Counts(lost=len(lost))

    def _fresh(self) -> Counts:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return self._work(ahead.entries, ahead.fence, read_ahead=True)
        block_ms = self._pending.wait_ms(self._now_s(), self._settings.block_ms)
        entries = self._stream.fresh(self._settings.batch_rows_max, block_ms)
        return self._work(entries, read_ahead=True)

    def _ensure_group(self) -> Counts:
        if self._group_known:
            return Counts()
        was_missing = self._stream.ensure_group() and self._has_written()
        self._group_known = True
        self._pending.start_over()
        if not was_missing:
            return Counts()
        log.error("the group was gone from the stream; all that is in it is read again")
        self.doubt.set()
        return Counts(regrouped=1)

    def _has_written(self) -> bool:
        """Whether any order of the stream is a row: then there was a group before."""
        try:
            with transaction(self.pool) as connection:
                return read_marks(connection, lane=self._stream.lane).position > (0, 0)
        except (Unavailable, Indeterminate):
            return False

    def _own_pending(self) -> Sequence[StreamEntry]:
        """The next of our own pending entries that are due, one page a call."""
        now_s = self._now_s()
        after = self._pending.read_after(now_s)
        if after is None:
            return []
        page = self._stream.pending(after, self._settings.batch_rows_max)
        ahead = {entry.entry_id for entry in self._ahead.entries} if self._ahead else ()
        return self._pending.due(page, ahead, now_s)

    def _take_over(self) -> Counts:
        now_s = self._now_s()
        if now_s < self._take_over_due_s:
            return Counts()
        self._take_over_due_s = now_s + self._settings.claim_idle_ms / 4000
        entries, lost = self._stream.take_over(
            self._settings.claim_idle_ms, self._settings.batch_rows_max
        )
        for entry_id in lost:
            log.error("an accepted order is gone from the stream", entry=entry_id)
            self._stream.journal_loss(Malformed(entry_id, {}, LOST))
        return Counts(lost=len(lost)) + self._work(entries)

    def _trim(self) -> None:
        if self._now_s() >= self._trim_due_s:
            self._trim_due_s = self._now_s() + self._settings.trim_interval_s
            self._stream.trim(self._settings.trim_keep_entries)

    def _work(
        self, entries: Sequence[StreamEntry], fence: int | None = None, *, read_ahead: bool = False
    ) -> Counts:
        counts = Counts(read=len(entries))
        if entries:
            reach("worker.read")
        for entry in entries:
            if isinstance(entry, Malformed):
                counts += self._set_aside(entry, entry.reason)
        orders = [entry for entry in entries if isinstance(entry, Order)]
        if orders and not self._stream.is_confirmed():
            log.warning("orders wait for the ledger's replicas", orders=len(orders))
            return counts + Counts(failures=1) + self._postpone(orders)
        if orders:
            done, handled = self._under_lock(orders, fence or self._stream.fence())
            reach("worker.unlocked")
            counts += handled
            counts += self._acknowledge(done, read_ahead=read_ahead)
        return counts

    def _acknowledge(self, orders: Sequence[Order], *, read_ahead: bool) -> Counts:
        entry_ids = [order.entry_id for order in orders]
        if entry_ids and read_ahead and not self._stopping:
            count = self._settings.batch_rows_max
            if len(entry_ids) < count * _SMALL:
                time.sleep(self._settings.linger_ms / 1000)
            ahead = self._stream.acknowledge_and_read(entry_ids, count)
            self._ahead = ahead if ahead.entries else None
            pending = ahead.acknowledged
        else:
            pending = self._stream.acknowledge(entry_ids)
        reach("worker.acknowledged")
        self._pending.forget(entry_ids)
        if pending < len(entry_ids):  # another worker took them over, or the ledger came back older
            self.doubt.set()
        return Counts(unpending=len(entry_ids) - pending)

    def _under_lock(self, orders: Sequence[Order], fence: int) -> tuple[Sequence[Order], Counts]:
        """Make `orders` rows under their users' locks; those that are, whoever wrote them."""
        names = list(dict.fromkeys(keys.order_lock(order.user_id) for order in orders))
        try:
            taken = self.locks.take(names, fence)
        except (Unavailable, Indeterminate) as trouble:
            log.warning("writing without locks: the cache does not answer", error=str(trouble))
            return self._persist(orders)
        ours = {name for name, is_ours in zip(names, taken, strict=True) if is_ours}
        with self.locks.kept(list(ours), fence):
            reach("worker.locked")
            mine, counts = orders, Counts()
            if len(ours) < len(names):
                mine = [o for o in orders if keys.order_lock(o.user_id) in ours]
                counts = self._postpone(
                    [o for o in orders if keys.order_lock(o.user_id) not in ours]
                )
            if not mine:
                return [], counts
            done, persisted = self._persist(mine)
            return done, counts + persisted

    def _persist(self, orders: Sequence[Order]) -> tuple[Sequence[Order], Counts]:
        """Make `orders` rows; those that are, whoever wrote them."""
        began_s = time.perf_counter()
        result = persist(self.pool, orders, self._generation or 0, self._stream.lane)
        self.durations_s.add(time.perf_counter() - began_s)
        self.batch_sizes.add(len(orders))
        written_s = time.time()
        for order in result.written:
            self.latencies_s.add(max(0.0, written_s - order.accepted_ms / 1000))
        counts = Counts(batches=1, written=len(result.written), repeated=len(result.repeated))
        for order, reason in result.rejected:
            counts += self._set_aside(order, reason)
        if result.superseded_by is not None:
            log.warning("orders are read again: there is a new permit", orders=len(result.waiting))
            self._generation = result.superseded_by
            self._refused += result.waiting
            self._ahead = None
            self._stream.reconnect()
            self._pending.start_over()
            self.doubt.set()
        elif result.waiting:
            log.warning("orders wait", orders=len(result.waiting), trouble=result.trouble)
            counts += Counts(failures=1) + self._postpone(result.waiting)
        return result.done, counts

    def _set_aside(self, entry: StreamEntry, reason: str) -> Counts:
        log.error("an accepted order was set aside", entry=entry.entry_id, reason=reason)
        reach("worker.setting_aside")
        try:
            self._stream.set_aside(entry, reason)
        except Unavailable as refused:  # one letter that cannot be written stops no other order
            log.error("it stays pending", entry=entry.entry_id, trouble=str(refused))
            return Counts(failures=1) + self._postpone([entry])
        reach("worker.set_aside")
        self._pending.forget([entry.entry_id])
        return Counts(dead=1)

    def _postpone(self, orders: Sequence[StreamEntry]) -> Counts:
        self._pending.postpone((order.entry_id for order in orders), self._now_s())
        return Counts(postponed=len(orders))
