"""One accepted order as it travels the stream, and what can be wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flashsale.model import ID_MAX, parse_id

_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999, DATETIME's end
_SHORT_ID = 19  # no part of a shorter entry id can exceed 2^63-1


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


Entry = Order | Malformed


def read_entry(entry_id: str, fields: Mapping[str, str]) -> Entry:
    """The order in a stream entry, or why there is none. Pure."""
    order_id = parse_id(fields.get("id", ""))
    user_id = parse_id(fields.get("userId", ""))
    voucher_id = parse_id(fields.get("voucherId", ""))
    accepted_ms = parse_id(fields.get("ms", ""))
    if order_id and user_id and voucher_id and accepted_ms and accepted_ms <= _MS_MAX:
        if _fits(entry_id):
            return Order(entry_id, order_id, user_id, voucher_id, accepted_ms)
        return Malformed(entry_id, fields, "no valid entry id")
    valid_ms = accepted_ms and accepted_ms <= _MS_MAX
    found = {"id": order_id, "userId": user_id, "voucherId": voucher_id, "ms": valid_ms}
    missing = ", ".join(name for name, number in found.items() if not number)
    return Malformed(entry_id, fields, f"no valid {missing}")


def _fits(entry_id: str) -> bool:
    """Whether the position fits its columns; what a clock makes always does."""
    return len(entry_id) < _SHORT_ID or all(int(part) <= ID_MAX for part in entry_id.split("-"))


def newest_position(orders: Sequence[Order]) -> tuple[int, int]:
    """The place of the newest of `orders`, which are in the stream's order and not empty."""
    return orders[-1].position
