"""The stream of accepted orders, as one worker sees it: what is due, done, or set aside.

Which of a worker's own pending entries are due, and when those that could not be written, is
decided purely: the worker reads the pages and tells the time.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis import Redis

from flashsale import keys
from flashsale.keys import Lane
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.storage.roles import Confirmation, GroupExists, call, call_all, evaluate
from flashsale.store_urls import lane_of

_DEAD_LETTER = script("dead_letter")
_TRIM = script("stream_trim")
LOST = "the entry was removed from the stream before it was read"
FORGOTTEN = "the ledger was started anew before it was a row, and came back without it"

Raw = Sequence[tuple[str, Mapping[str, str] | None]]

_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999, DATETIME's end
_FIELDS_MAX, _TEXT_MAX = 50, 200
"""Of an entry that is no order, the fields that its dead letter names, and how much of each."""


class Order(NamedTuple):
    """An accepted order, as seckill.lua put it on the stream."""

    entry_id: str
    order_id: int
    user_id: int
    voucher_id: int
    accepted_ms: int

    @property
    def position(self) -> tuple[int, int]:
        """The entry's place in the stream: milliseconds and sequence."""
        ms, _, seq = self.entry_id.partition("-")
        return int(ms), int(seq)


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that is no order; it can never become a row."""

    entry_id: str
    fields: Mapping[str, str]
    reason: str


StreamEntry = Order | Malformed


def read_entry(entry_id: str, fields: Mapping[str, str]) -> StreamEntry:
    """The order in a stream entry, or why there is none. Pure."""
    order_id = parse_id(fields.get("id", ""))
    user_id = parse_id(fields.get("userId", ""))
    voucher_id = parse_id(fields.get("voucherId", ""))
    accepted_ms = parse_id(fields.get("ms", ""))
    if order_id and user_id and voucher_id and accepted_ms and accepted_ms <= _MS_MAX:
        return Order(entry_id, order_id, user_id, voucher_id, accepted_ms)
    valid_ms = accepted_ms and accepted_ms <= _MS_MAX
    found = {"id": order_id, "userId": user_id, "voucherId": voucher_id, "ms": valid_ms}
    missing = ", ".join(name for name, number in found.items() if not number)
    return Malformed(entry_id, fields, f"no valid {missing}")


@dataclass(frozen=True, slots=True)
class Fresh:
    """Entries that were just given to us, the fencing number for their locks, and how many of those
    acknowledged with it the ledger still had as pending."""

    entries: Sequence[StreamEntry]
    fence: int
    acknowledged: int = 0


class OrderStream:
    """`stream.orders`, or that of the lane that the client is of, as one consumer of the group sees
    it. Every call may raise
    Unavailable (NoGroup where stream or group is gone) or Indeterminate.
    """

    def __init__(
        self, ledger: Redis, consumer: str, confirmation: Confirmation | None = None
    ) -> None:
        self._ledger = ledger
        self._lane = lane_of(ledger)
        self._consumer = consumer
        self._confirmation = confirmation and confirmation.on(self._lane)
        self._claim_cursor = "0-0"

    def __repr__(self) -> str:
        return f"<OrderStream consumer={self._consumer!r}>"

    @property
    def lane(self) -> Lane:
        """The lane whose orders these are."""
        return self._lane

    def reconnect(self) -> None:
        """Ask over new connections from now on, which lead to whom the Sentinels name by then: an
        old primary that is reached over old ones says nothing of another."""
        self._ledger.connection_pool.disconnect(inuse_connections=False)

    def ensure_group(self) -> bool:
        """Create stream and group where they are missing, from the very first entry on; whether
        the group was missing of a stream that had entries: then all of them are read again."""
        create = self._ledger.xgroup_create
        with suppress(GroupExists):
            call(create, self._lane.stream_orders, keys.GROUP, id="0", mkstream=True)
            return call(self._ledger.xlen, self._lane.stream_orders) > 0
        return False

    def is_confirmed(self) -> bool:
        """Whether the ledger's replicas have all that was read until now, where they are asked:
        MySQL must not know of an order that a failover can take from the ledger."""
        if self._confirmation is None:
            return True
        pipeline = self._ledger.pipeline(transaction=False)
        for command in self._confirmation.commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        return self._confirmation.holds(call_all(pipeline))

    def pending(self, after: str, count: int) -> list[StreamEntry]:
        """Up to `count` of our own entries that were given to us and never acknowledged."""
        return self._read(after, count, None)

    def fresh(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Up to `count` entries that nobody was given yet; waits `block_ms` for the first."""
        return self._read(">", count, block_ms)

    def take_over(self, idle_ms: int, count: int) -> tuple[list[StreamEntry], list[str]]:
        """Entries of others idle for longer than `idle_ms`, now ours, and the ids that are lost.

        Goes on where the last call ended, so that all of the pending list is seen in turn.
        """
        cursor, claimed, lost = cast(
            tuple[str, Raw, list[str]],
            call(
                self._ledger.xautoclaim,
                self._lane.stream_orders,
                keys.GROUP,
                self._consumer,
                min_idle_time=idle_ms,
                start_id=self._claim_cursor,
                count=count,
            ),
        )
        self._claim_cursor = cursor
        return _entries(claimed), list(lost)

    def acknowledge(self, entry_ids: Sequence[str]) -> int:
        """These are rows; how many of them the ledger still had as pending."""
        if not entry_ids:
            return 0
        return call(self._ledger.xack, self._lane.stream_orders, keys.GROUP, *entry_ids)

    def acknowledge_and_read(self, entry_ids: Sequence[str], count: int) -> Fresh:
        """These are rows; and what comes next, without waiting for it, in one round trip.

        Behind a storm's claims and their fsyncs, three round trips a batch were three quarters of
        a worker's time.
        """
        pipeline = self._ledger.pipeline(transaction=False)
        pipeline.xack(self._lane.stream_orders, keys.GROUP, *entry_ids)
        pipeline.incr(self._lane.lock_fence)
        pipeline.xreadgroup(
            keys.GROUP, self._consumer, {self._lane.stream_orders: ">"}, count=count
        )
        acknowledged, fence, streams = call_all(pipeline)
        return Fresh(_first_stream(streams), fence, acknowledged)

    def set_aside(self, entry: StreamEntry, reason: str) -> bool:
        """Move `entry` to the dead letters; False where it was not pending any more."""
        fields = _letter(_fields(entry))
        order_id = str(parse_id(fields.get("id", "")) or "")
        flat = [_as_bytes(part) for field in fields.items() for part in field]
        letter = Call(
            _DEAD_LETTER,
            (self._lane.stream_orders, self._lane.stream_dead, self._lane.dead_orders),
            (keys.GROUP, entry.entry_id, order_id, reason, *flat),
        )
        return bool(evaluate(self._ledger, letter) == 1)

    def journal_loss(self, entry: StreamEntry) -> None:
        """Note an entry that is gone: its group entry is gone with it, so there is no ack."""
        reason = entry.reason if isinstance(entry, Malformed) else FORGOTTEN
        letter = {**_fields(entry), "entry": entry.entry_id, "reason": reason}
        call(lambda: self._ledger.xadd(self._lane.stream_dead, dict[Any, Any](letter)))

    def without(self, orders: Sequence[Order]) -> list[Order]:
        """Those of `orders` that the ledger has neither an entry nor a receipt of."""
        pipeline = self._ledger.pipeline(transaction=False)
        for order in orders:
            pipeline.xrange(self._lane.stream_orders, order.entry_id, order.entry_id)
            pipeline.hget(self._lane.seckill_receipt(order.voucher_id), str(order.user_id))
        replies = call_all(pipeline)
        gone = []
        for order, entry, receipt in zip(orders, replies[::2], replies[1::2], strict=True):
            known = [receipt, *(fields.get("id") for _, fields in entry)]
            if str(order.order_id) not in known:
                gone.append(order)
        return gone

    def fence(self) -> int:
        """The next fencing number."""
        return call(self._ledger.incr, self._lane.lock_fence)

    def trim(self, keep: int) -> int:
        """Drop what every group has read and acknowledged, but for `keep` entries."""
        return cast(int, evaluate(self._ledger, Call(_TRIM, (self._lane.stream_orders,), (keep,))))

    def _read(self, after: str, count: int, block_ms: int | None) -> list[StreamEntry]:
        reply = call(
            lambda: self._ledger.xreadgroup(
                keys.GROUP,
                self._consumer,
                {self._lane.stream_orders: after},
                count=count,
                block=block_ms,
            )
        )
        return _first_stream(reply)


def _first_stream(reply: object) -> list[StreamEntry]:
    streams = cast("list[tuple[str, Raw]]", reply or [])
    return _entries(streams[0][1]) if streams else []


def _entries(raw: Raw) -> list[StreamEntry]:
    return [
        read_entry(entry_id, fields) if fields else Malformed(entry_id, {}, LOST)
        for entry_id, fields in raw
    ]


def _as_bytes(text: str) -> bytes:
    """Text as it came: bytes that were none among it (see `sync_client`)."""
    return text.encode("utf-8", "surrogateescape")


def _letter(fields: Mapping[str, str]) -> Mapping[str, str]:
    """What a dead letter says of them: those of an order first, all within bounds. Pure."""
    ours = {name: fields[name] for name in ("userId", "voucherId", "id", "ms") if name in fields}
    rest = {name: value for name, value in fields.items() if name not in ours}
    kept = [*ours.items(), *rest.items()][:_FIELDS_MAX]
    told = {name[:_TEXT_MAX]: value[:_TEXT_MAX] for name, value in kept}
    left_out = len(fields) - len(kept)
    return told | {"fieldsLeftOut": str(left_out)} if left_out else told


def _fields(entry: StreamEntry) -> Mapping[str, str]:
    if isinstance(entry, Malformed):
        return entry.fields
    return {
        "userId": str(entry.user_id),
        "voucherId": str(entry.voucher_id),
        "id": str(entry.order_id),
        "ms": str(entry.accepted_ms),
    }


_START = "0"


@dataclass
class Postponed:
    """Not-before times of entries, so that one stuck order blocks nobody."""

    base_s: float
    max_s: float
    _due: dict[str, tuple[int, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._due)

    def postpone(self, entry_id: str, now_s: float) -> None:
        """Put `entry_id` off: base, then twice that, … up to the maximum."""
        tries = self._due.get(entry_id, (0, 0.0))[0]
        wait_s = min(self.max_s, self.base_s * 2 ** min(tries, 30))
        self._due[entry_id] = (tries + 1, now_s + wait_s)

    def forget(self, entry_id: str) -> None:
        """The entry is done."""
        self._due.pop(entry_id, None)

    def forget_others(self, ours: Container[str], due_by_s: float) -> None:
        """Forget what was due by then and is not `ours`: somebody else has finished it."""
        for entry_id, (_, due_s) in list(self._due.items()):
            if due_s <= due_by_s and entry_id not in ours:
                del self._due[entry_id]

    def is_due(self, entry_id: str, now_s: float) -> bool:
        """True where nothing stands against trying it now."""
        return self._due.get(entry_id, (0, now_s))[1] <= now_s

    def next_due_s(self, now_s: float) -> float | None:
        """Seconds until the first entry is due again, None where there is none."""
        if not self._due:
            return None
        return max(0.0, min(due for _, due in self._due.values()) - now_s)


class Pending:
    """A worker's own pending entries, seen page by page, round after round while any is put off.

    A round begins at the first of them, and ends with a page of none but what was just read ahead:
    under load there is always such, and nothing of ours is younger.
    """

    def __init__(self, *, base_s: float, max_s: float) -> None:
        self._postponed = Postponed(base_s, max_s)
        self._cursor: str | None = _START  # None: all were seen
        self._seen: set[str] = set()  # in this round
        self._seen_since_s = 0.0

    def __repr__(self) -> str:
        return f"<Pending cursor={self._cursor!r} postponed={len(self._postponed)}>"

    @property
    def postponed(self) -> int:
        """Entries that will be tried again later."""
        return len(self._postponed)

    def start_over(self) -> None:
        """Begin a new round: entries may be ours that we do not know of."""
        self._cursor = _START

    def read_after(self, now_s: float) -> str | None:
        """The entry id after which the next page begins; None where none is to be read now."""
        if self._cursor is None:
            due_s = self._postponed.next_due_s(now_s)
            if due_s is None or due_s > 0:
                return None
            self._cursor = _START
        if self._cursor == _START:
            self._seen.clear()
            self._seen_since_s = now_s
        return self._cursor

    def due(
        self, page: Sequence[StreamEntry], ahead: Container[str], now_s: float
    ) -> list[StreamEntry]:
        """Those of the page just read that are due and not among those read `ahead`."""
        self._seen.update(entry.entry_id for entry in page)
        others = [entry for entry in page if entry.entry_id not in ahead]
        self._cursor = page[-1].entry_id if others else None
        if self._cursor is None:  # what was due and is not pending, another worker took and wrote
            self._postponed.forget_others(self._seen, self._seen_since_s)
        return [entry for entry in others if self._postponed.is_due(entry.entry_id, now_s)]

    def postpone(self, entry_ids: Iterable[str], now_s: float) -> None:
        """Put entries off that could not be written."""
        for entry_id in entry_ids:
            self._postponed.postpone(entry_id, now_s)

    def forget(self, entry_ids: Iterable[str]) -> None:
        """These are done."""
        for entry_id in entry_ids:
            self._postponed.forget(entry_id)

    def wait_ms(self, now_s: float, longest_ms: int) -> int:
        """How long to wait for fresh entries: not at all while older ones are to be looked at."""
        if self._cursor is not None:
            return 1
        due_s = self._postponed.next_due_s(now_s)
        return longest_ms if due_s is None else max(1, min(longest_ms, int(due_s * 1000)))
