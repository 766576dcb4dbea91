"""The order worker: stream → MySQL → ack, in batches, losing and doubling nothing.

What it may rely on: an entry stays pending until it is acknowledged, and an order's id is unique.
So everything is tried until it is a row, and acknowledged only then.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine

from flashsale import keys
from flashsale.buckets import LATENCY_S, SIZES, Buckets
from flashsale.locks.batch import BatchLocks
from flashsale.orders.pending import Postponed
from flashsale.orders.persistence import persist
from flashsale.orders.stream import Fresh, Malformed, Order, OrderStream, StreamEntry
from flashsale.settings import WorkerSettings

log = structlog.get_logger(__name__)

_SMALL = 0.1
"""A batch below this share of the largest is followed by a rest, in which the next one grows. Its
orders are rows by then; without the rest the ledger is kept from claims by an acknowledgement, with
its fsync, for every three or four orders."""

_START = "0"


@dataclass
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

    def __iadd__(self, other: "Counts") -> "Counts":
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)
        return self


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
        self._postponed = Postponed(settings.retry_base_ms / 1000, settings.retry_max_ms / 1000)
        self._cursor: str | None = _START  # in our own pending entries; None: all were seen
        self._seen: set[str] = set()  # of our own pending entries, since the cursor was at _START
        self._seen_since_s = now_s()
        self._take_over_due_s = 0.0
        self._trim_due_s = now_s() + settings.trim_interval_s
        self._group_known = False
        self._ahead: Fresh | None = None  # read together with the last acknowledgement
        self._stopping = False  # then nothing is read ahead any more
        self.total = Counts()
        self.batch_sizes = Buckets(SIZES)
        self.durations_s = Buckets(LATENCY_S)  # of batches
        self.latencies_s = Buckets(LATENCY_S)  # of orders, acceptance to row, by two clocks

    def __repr__(self) -> str:
        return f"<Worker {self._stream!r} postponed={len(self._postponed)} {self.total}>"

    @property
    def postponed(self) -> int:
        """Orders that will be tried again later."""
        return len(self._postponed)

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
            except RedisError as error:
                failures += 1
                self.total.failures += 1
                self._ahead = None  # still pending, so it is found again
                self._cursor = _START  # a batch may have been given to us in the lost reply
                log.warning("the ledger does not answer", error=str(error), failures=failures)
                base_s, max_s = self._settings.retry_base_ms, self._settings.retry_max_ms
                time.sleep(min(max_s, base_s * 2 ** min(failures, 10)) / 1000)

    def run_once(self) -> Counts:
        """Own pending entries, then those of the dead, then fresh ones. Raises RedisError."""
        counts = Counts()
        try:
            self._ensure_group()
            counts += self._work(self._own_pending())
            counts += self._take_over()
            counts += self._fresh()
            self._trim()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._group_known = False
        self.total += counts
        return counts

    def _fresh(self) -> Counts:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return self._work(ahead.entries, ahead.fence, read_ahead=True)
        entries = self._stream.fresh(self._settings.batch_rows_max, self._block())
        return self._work(entries, read_ahead=True)

    def _ensure_group(self) -> None:
        if not self._group_known:
            self._stream.ensure_group()
            self._group_known = True
            self._cursor = _START

    def _own_pending(self) -> Sequence[StreamEntry]:
        """The next of our own pending entries that are due, one page a call."""
        now_s = self._now_s()
        if self._cursor is None:
            due_s = self._postponed.next_due_s(now_s)
            if due_s is None or due_s > 0:
                return []
            self._cursor = _START
        if self._cursor == _START:
            self._seen.clear()
            self._seen_since_s = now_s
        page = self._stream.pending(self._cursor, self._settings.batch_rows_max)
        self._seen.update(entry.entry_id for entry in page)
        self._cursor = page[-1].entry_id if page else None
        if self._cursor is None:  # what was due and is not pending, another worker took and wrote
            self._postponed.forget_others(self._seen, self._seen_since_s)
        ahead = {entry.entry_id for entry in self._ahead.entries} if self._ahead else ()
        return [
            entry
            for entry in page
            if entry.entry_id not in ahead and self._postponed.is_due(entry.entry_id, now_s)
        ]

    def _take_over(self) -> Counts:
        counts = Counts()
        now_s = self._now_s()
        if now_s < self._take_over_due_s:
            return counts
        self._take_over_due_s = now_s + self._settings.claim_idle_ms / 4000
        entries, lost = self._stream.take_over(
            self._settings.claim_idle_ms, self._settings.batch_rows_max
        )
        for entry_id in lost:
            log.error("an accepted order is gone from the stream", entry=entry_id)
            self._stream.journal_loss(entry_id)
        counts.lost = len(lost)
        counts += self._work(entries)
        return counts

    def _block(self) -> int:
        """How long to wait for fresh entries: not at all while older ones are to be looked at."""
        if self._cursor is not None:
            return 1
        due_s = self._postponed.next_due_s(self._now_s())
        longest = self._settings.block_ms
        return longest if due_s is None else max(1, min(longest, int(due_s * 1000)))

    def _trim(self) -> None:
        if self._now_s() >= self._trim_due_s:
            self._trim_due_s = self._now_s() + self._settings.trim_interval_s
            self._stream.trim(self._settings.trim_keep_entries)

    def _work(
        self, entries: Sequence[StreamEntry], fence: int | None = None, *, read_ahead: bool = False
    ) -> Counts:
        counts = Counts(read=len(entries))
        if not entries:
            return counts
        orders = [entry for entry in entries if isinstance(entry, Order)]
        for entry in entries:
            if isinstance(entry, Malformed):
                self._bury(entry, entry.reason, counts)
        if orders:
            done = self._under_lock(orders, fence or self._stream.fence(), counts)
            self._acknowledge(done, read_ahead=read_ahead)
        return counts

    def _acknowledge(self, orders: Sequence[Order], *, read_ahead: bool) -> None:
        entry_ids = [order.entry_id for order in orders]
        if entry_ids and read_ahead and not self._stopping:
            count = self._settings.batch_rows_max
            if len(entry_ids) < count * _SMALL:
                time.sleep(self._settings.linger_ms / 1000)
            ahead = self._stream.acknowledge_and_read(entry_ids, count)
            self._ahead = ahead if ahead.entries else None
        else:
            self._stream.acknowledge(entry_ids)
        for entry_id in entry_ids:
            self._postponed.forget(entry_id)

    def _under_lock(self, orders: Sequence[Order], fence: int, counts: Counts) -> Sequence[Order]:
        """Make `orders` rows under their users' locks; those that are, whoever wrote them."""
        names = list(dict.fromkeys(keys.order_lock(order.user_id) for order in orders))
        try:
            taken = self.locks.take(names, fence)
        except RedisError as error:
            log.warning("writing without locks: the cache does not answer", error=str(error))
            return self._persist(orders, counts)
        ours = {name for name, is_ours in zip(names, taken, strict=True) if is_ours}
        with self.locks.kept(list(ours), fence):
            mine = orders
            if len(ours) < len(names):
                mine = [o for o in orders if keys.order_lock(o.user_id) in ours]
                self._postpone(
                    [o for o in orders if keys.order_lock(o.user_id) not in ours], counts
                )
            return self._persist(mine, counts) if mine else []

    def _persist(self, orders: Sequence[Order], counts: Counts) -> Sequence[Order]:
        began_s = time.perf_counter()
        result = persist(self.pool, orders)
        self.durations_s.add(time.perf_counter() - began_s)
        self.batch_sizes.add(len(orders))
        written_s = time.time()
        for order in result.written:
            self.latencies_s.add(max(0.0, written_s - order.accepted_ms / 1000))
        counts.batches += 1
        counts.written += len(result.written)
        counts.repeated += len(result.repeated)
        for order, reason in result.rejected:
            self._bury(order, reason, counts)
        if result.waiting:
            counts.failures += 1
            log.warning("orders wait", orders=len(result.waiting), trouble=result.trouble)
            self._postpone(result.waiting, counts)
        return result.done

    def _bury(self, entry: StreamEntry, reason: str, counts: Counts) -> None:
        log.error("an accepted order was set aside", entry=entry.entry_id, reason=reason)
        self._stream.set_aside(entry, reason)
        self._postponed.forget(entry.entry_id)
        counts.dead += 1

    def _postpone(self, orders: Sequence[Order], counts: Counts) -> None:
        now_s = self._now_s()
        for order in orders:
            self._postponed.postpone(order.entry_id, now_s)
        counts.postponed += len(orders)
