"""One accepted order as it travels the stream, and what can be wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flashsale.model import ID_MAX, parse_id

_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999, DATETIME's end


@dataclass(frozen=True, slots=True)
class Order:
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
    numbers = [parse_id(fields.get(name, "")) for name in ("id", "userId", "voucherId", "ms")]
    order_id, user_id, voucher_id, accepted_ms = numbers
    if order_id is None or user_id is None or voucher_id is None or accepted_ms is None:
        bad = [
            n for n, v in zip(("id", "userId", "voucherId", "ms"), numbers, strict=True) if not v
        ]
        return Malformed(entry_id, fields, f"no valid {', '.join(bad)}")
    if accepted_ms > _MS_MAX:
        return Malformed(entry_id, fields, "no valid ms")
    if not all(int(part) <= ID_MAX for part in entry_id.split("-")):
        return Malformed(entry_id, fields, "no valid entry id")  # its position fits no column
    return Order(entry_id, order_id, user_id, voucher_id, accepted_ms)


def newest_position(orders: Sequence[Order]) -> tuple[int, int]:
    """The place of the newest of `orders`, which must not be empty."""
    return max(order.position for order in orders)
