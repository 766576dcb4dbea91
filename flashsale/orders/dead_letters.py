"""Dead letters, settled: an order that could not become a row is tried again or given back.

*Retry* puts the order into the stream once more: right where what stood in its way is gone. One
script moves it, so that it is in one of the two places, never in both or none.

*Release* ends the order: it becomes a row that is cancelled, which takes no unit of MySQL's and
keeps the promise that every accepted order is a row; then its unit goes back to the ledger in the
way of every cancelled order, with the sweeper behind it. The row's id decides between a release and
a retry at the same time: whichever row is there first stays.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from redis import Redis
from sqlalchemy import Connection, Engine, insert, select

from flashsale.errors import UsageError
from flashsale.keys import WHOLE, Lane
from flashsale.lua.scripts import Call, script
from flashsale.model import LIVE_STATUSES, PayStatus
from flashsale.orders.lifecycle import (
    CLOCK_SLACK_MS,
    forget_returns,
    owed_returns,
    read_row,
    return_call,
)
from flashsale.orders.stream import Order, read_entry
from flashsale.seckill import journal
from flashsale.seckill.journal import Action, Line
from flashsale.storage.mysql import Duplicate, transaction
from flashsale.storage.roles import Ledgers, call, call_all, evaluate, ledgers
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order
from flashsale.store_urls import lane_of

_RETRY = script("dead_retry")
_PAGE = 1_000
_NO_LETTER, _NO_RECEIPT = "", "-"  # what dead_retry.lua replies in place of an entry's id


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: `entry_id` is what it was called in the stream of orders; `order` is None
    where its fields are no order."""

    letter_id: str
    entry_id: str
    reason: str
    order: Order | None
    fields: Mapping[str, str]
    lane: Lane = WHOLE

    @property
    def at(self) -> datetime:
        """When it was set aside."""
        return datetime.fromtimestamp(int(self.letter_id.partition("-")[0]) / 1000, UTC)

    def to_json(self) -> dict[str, Any]:
        """As commands print it; ids of orders are text, since JavaScript's numbers end at 2^53."""
        order = self.order
        return {
            "letter": self.letter_id,
            "at": self.at.isoformat(timespec="milliseconds"),
            "entry": self.entry_id,
            "reason": self.reason,
            "order_id": str(order.order_id) if order else None,
            "user_id": order.user_id if order else None,
            "voucher_id": order.voucher_id if order else None,
            "fields": None if order else dict(self.fields),
        }


class Settled(StrEnum):
    """What became of a dead letter."""

    RETRIED = "back in the stream"
    RELEASED = "released: the unit and the user's place are given back"
    KEPT = "it is a live row: nothing to give back"
    DROPPED = "no order of a sale in it: the letter is dropped"
    NO_RECEIPT = "its receipt is gone or another order's: it cannot be tried again"
    GONE = "there is no such dead letter any more"


def read_letters(ledger: Redis | Ledgers) -> Iterator[Letter]:
    """All of them, those of a lane the oldest first. Raises Unavailable or Indeterminate."""
    for client in ledgers(ledger).clients:
        yield from _letters_in(client)


def _letters_in(ledger: Redis) -> Iterator[Letter]:
    lane, after = lane_of(ledger), "-"
    while True:
        found: Any = call(ledger.xrange, lane.stream_dead, after, "+", _PAGE)
        page = cast("Sequence[tuple[str, Mapping[str, str]]]", found)
        yield from (replace(_letter(letter_id, fields), lane=lane) for letter_id, fields in page)
        if len(page) < _PAGE:
            return
        after = f"({page[-1][0]}"


def _letter(letter_id: str, fields: Mapping[str, str]) -> Letter:
    rest = dict(fields)
    entry_id, reason = rest.pop("entry", ""), rest.pop("reason", "")
    found = read_entry(letter_id, rest)
    order = found if isinstance(found, Order) else None
    return Letter(letter_id, entry_id, reason, order, rest)


def chosen(letters: Iterable[Letter], ids: Sequence[str]) -> list[Letter]:
    """The letters with these ids, be they an order's or a letter's own. Raises UsageError for an
    id that none has."""
    by_id: dict[str, list[Letter]] = {}
    for letter in letters:
        by_id.setdefault(letter.letter_id, []).append(letter)
        if letter.order:
            by_id.setdefault(str(letter.order.order_id), []).append(letter)
    missing = [one for one in ids if one not in by_id]
    if missing:
        raise UsageError(f"no dead letter has the id {missing[0]}; see `flashsale orders dead`")
    letters = [each for one in ids for each in by_id[one]]
    return list({(each.lane.tag, each.letter_id): each for each in letters}.values())


class DeadLetters:
    """Settles dead letters, in the name of `actor`. Each call can be asked for twice.

    Calls raise Unavailable or Indeterminate; the same call goes on from there.
    """

    def __init__(
        self, pool: Engine, ledger: Redis | Ledgers, actor: str, claim_timeout_ms: int
    ) -> None:
        self._pool = pool
        self._ledgers = ledgers(ledger)
        self._actor = actor
        self._settled_after_ms = claim_timeout_ms + CLOCK_SLACK_MS

    def __repr__(self) -> str:
        return f"<DeadLetters actor={self._actor!r}>"

    def retry(self, letter: Letter, reason: str = "") -> Settled:
        """Put its order into the stream again. The line in the journal comes first: a retry that
        is cut short behind it is a line too many, and never one too few."""
        order = letter.order
        if order is None:
            raise UsageError(
                f"dead letter {letter.letter_id} holds no order ({letter.reason}); "
                f"drop it with `flashsale orders release {letter.letter_id}`"
            )
        if not self._exists(letter):
            return Settled.GONE
        ledger, receipts = self._of(letter), letter.lane.seckill_receipt(order.voucher_id)
        receipt = call(ledger.hget, receipts, str(order.user_id))
        if receipt != str(order.order_id):
            return Settled.NO_RECEIPT
        with transaction(self._pool) as connection:
            journal.add(connection, self._line(Action.RETRY, order, letter, reason))
        reply = evaluate(ledger, retry_call(letter.letter_id, order, letter.lane))
        if reply == _NO_LETTER:
            return Settled.GONE
        return Settled.NO_RECEIPT if reply == _NO_RECEIPT else Settled.RETRIED

    def release(self, letter: Letter, reason: str = "") -> Settled:
        """Give the unit and the user's place back, once the claim is over: before, a replay of it
        would find its receipt gone and sell the order again."""
        order = letter.order
        if order is None:
            return Settled.DROPPED if self._drop(letter) else Settled.GONE
        if not self._exists(letter):
            return Settled.GONE
        self._await_settled(order)
        settled = self._end(order, letter, reason)
        if settled is Settled.RELEASED:
            self._return(order.order_id, self._of(letter))
        self._drop(letter)
        return settled

    def _line(self, action: Action, order: Order, letter: Letter, reason: str) -> Line:
        return Line(
            action,
            order.voucher_id,
            self._actor,
            reason or letter.reason,
            was="dead",
            becomes="queued" if action is Action.RETRY else "cancelled",
            order_id=order.order_id,
        )

    def _exists(self, letter: Letter) -> bool:
        name = letter.letter_id
        ledger, dead = self._of(letter), letter.lane.stream_dead
        return bool(call(lambda: ledger.xrange(dead, name, name)))

    def _of(self, letter: Letter) -> Redis:
        return self._ledgers.clients[letter.lane.number % len(self._ledgers.clients)]

    def _await_settled(self, order: Order) -> None:
        seconds, micros = call(self._ledgers.home.time)
        left_ms = order.accepted_ms + self._settled_after_ms - (seconds * 1000 + micros / 1000)
        if left_ms > 0:
            time.sleep(min(left_ms, self._settled_after_ms) / 1000)

    def _end(self, order: Order, letter: Letter, reason: str) -> Settled:
        """Make the order a cancelled row whose unit is owed to the ledger, all in one commit."""
        line = self._line(Action.RELEASE, order, letter, reason)
        with transaction(self._pool) as connection:
            sale = select(seckill_voucher).where(seckill_voucher.c.voucher_id == order.voucher_id)
            if connection.execute(sale).first() is None:
                return Settled.DROPPED
        try:
            with transaction(self._pool) as connection:
                connection.execute(insert(voucher_order).values(_cancelled_row(order)))
                _owe(connection, order)
                journal.add(connection, line)
            return Settled.RELEASED
        except Duplicate:
            pass
        with transaction(self._pool) as connection:
            row = read_row(connection, order.order_id, order.user_id)
            if row is not None:  # released before, or a row by a retry
                is_live = row.status in LIVE_STATUSES
                return Settled.KEPT if is_live else Settled.RELEASED
        try:
            with transaction(self._pool) as connection:  # the id is another user's row
                _owe(connection, order)
                journal.add(connection, line)
        except Duplicate:  # begun before
            pass
        return Settled.RELEASED

    def _return(self, order_id: int, ledger: Redis) -> None:
        with transaction(self._pool) as connection:
            owed = owed_returns(connection, 1, order_id)
        for one in owed:
            evaluate(ledger, return_call(one, self._ledgers.layout))
            with transaction(self._pool) as connection:
                forget_returns(connection, [order_id])

    def _drop(self, letter: Letter) -> bool:
        pipeline = self._of(letter).pipeline(transaction=True)
        pipeline.xdel(letter.lane.stream_dead, letter.letter_id)
        if letter.order:
            pipeline.hdel(letter.lane.dead_orders, str(letter.order.order_id))
        return bool(call_all(pipeline)[0])


def retry_call(letter_id: str, order: Order, lane: Lane = WHOLE) -> Call:
    """The call that puts a dead letter's order back into the stream. Pure."""
    names = (
        lane.stream_orders,
        lane.stream_dead,
        lane.dead_orders,
        lane.seckill_receipt(order.voucher_id),
    )
    words = (order.user_id, order.voucher_id, order.order_id, order.accepted_ms)
    return Call(_RETRY, names, (letter_id, *words))


def _owe(connection: Connection, order: Order) -> None:
    connection.execute(
        insert(order_return).values(
            order_id=order.order_id, user_id=order.user_id, voucher_id=order.voucher_id
        )
    )


def _cancelled_row(order: Order) -> dict[str, Any]:
    accepted = datetime.fromtimestamp(order.accepted_ms / 1000, UTC).replace(tzinfo=None)
    return {
        "id": order.order_id,
        "user_id": order.user_id,
        "voucher_id": order.voucher_id,
        "status": PayStatus.CANCELLED,
        "create_time": accepted,
    }
