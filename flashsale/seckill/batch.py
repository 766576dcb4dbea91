"""A batch of claims on one voucher: what goes to seckill.lua, and what its reply means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flashsale import keys
from flashsale.lua.scripts import CLAIM_OUTCOMES, NO_SESSION, script
from flashsale.model import Outcome
from flashsale.storage.channel import Call

_SECKILL = script("seckill")
_BEHIND_SESSION = ""


class Claim(NamedTuple):
    """Whoever is behind a session wants one unit of a voucher."""

    voucher_id: int
    session: str  # its key
    arrived_s: float


class Answer(NamedTuple):
    """What became of a claim. `order_id` is text, "" unless sold, duplicate or unknown."""

    outcome: Outcome
    order_id: str = ""


SHED = Answer(Outcome.SHED)


@dataclass(frozen=True, slots=True)
class Batch:
    """Claims on one voucher that left together, and the call they left in."""

    order_ids: Sequence[str]
    deadline_ms: int
    call: Call


def make_batch(
    voucher_id: int,
    sessions: Sequence[str],
    order_ids: Sequence[str],
    deadline_ms: int,
    sliding_ms: tuple[int, int],
) -> Batch:
    """The call to seckill.lua for who is behind `sessions`, in order; `sliding_ms` is a session's
    lifetime and refresh interval. Pure."""
    args: list[str | int] = [voucher_id, deadline_ms]
    for order_id in order_ids:
        args += (_BEHIND_SESSION, order_id)
    args += sliding_ms
    return Batch(order_ids, deadline_ms, Call(_SECKILL, (*_keys(voucher_id), *sessions), args))


def read_answers(reply: Sequence[Any]) -> list[Answer | None]:
    """The answers in a reply of seckill.lua, None where there is no such session. Pure; an unknown
    code raises KeyError."""
    return [
        Answer(CLAIM_OUTCOMES[code], order_id) if code != NO_SESSION else None
        for code, order_id in zip(reply[::2], reply[1::2], strict=True)
    ]


def _keys(voucher_id: int) -> tuple[str, ...]:
    return (
        keys.seckill_stock(voucher_id),
        keys.seckill_order(voucher_id),
        keys.seckill_receipt(voucher_id),
        keys.seckill_sale(voucher_id),
        keys.STREAM_ORDERS,
    )
