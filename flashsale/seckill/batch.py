"""A batch of claims on one voucher: what goes to seckill.lua, and what a reply means. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flashsale import keys
from flashsale.lua.scripts import CLAIM_OUTCOMES, NO_SESSION, Call, script
from flashsale.model import Outcome

_SECKILL = script("seckill")
_BEHIND_SESSION = ""


class Claim(NamedTuple):
    """Whoever is behind a session wants one unit of a voucher."""

    voucher_id: int
    session: str  # its key
    arrived_s: float


class Claimed(NamedTuple):
    """What became of a claim. `order_id` is text, "" unless sold, duplicate or unknown."""

    outcome: Outcome
    order_id: str = ""


SHED = Claimed(Outcome.SHED)


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
    sliding_ms: tuple[int, int, int],
) -> Batch:
    """The call to seckill.lua for who is behind `sessions`, in order; `sliding_ms` is a session's
    lifetime, refresh interval and longest life. Pure."""
    args: list[str | int] = [voucher_id, deadline_ms]
    for order_id in order_ids:
        args += (_BEHIND_SESSION, order_id)
    args += sliding_ms
    return Batch(order_ids, deadline_ms, Call(_SECKILL, (*_keys(voucher_id), *sessions), args))


def read_answers(reply: Sequence[Any]) -> list[Claimed | None]:
    """The answers in a reply of seckill.lua, None where there is no such session. Pure; an unknown
    code raises KeyError."""
    return [
        Claimed(CLAIM_OUTCOMES[code], order_id) if code != NO_SESSION else None
        for code, order_id in zip(reply[::2], reply[1::2], strict=True)
    ]


def settled(reply: Sequence[Any], my_ids: Sequence[str]) -> list[Claimed | None]:
    """What a replay's reply says of each claim, None where it is not final yet. Pure.

    The replay is the very same call: same order ids, same deadline. Receipts make it safe (a user
    who holds one is told so before anything else is looked at), and they tell the truth:

    1. a receipt with my id: the lost call sold it. Sold.
    2. a receipt with another id: the user held one already. Duplicate.
    3. past the deadline: neither the lost call nor this one can sell any more. Certainly not done.
    4. any other refusal (sold out, paused, …) before the deadline is not final, because the lost
       call may still arrive and find the sale changed: ask again once the deadline has passed.
    5. the session has gone: whose receipt to look for is not known any more. Unknown.
    """
    return [
        answer and _settled(*answer, mine)
        for answer, mine in zip(read_answers(reply), my_ids, strict=True)
    ]


def _settled(outcome: Outcome, held: str, mine: str) -> Claimed | None:
    if outcome is Outcome.SOLD or (outcome is Outcome.DUPLICATE and held == mine):
        return Claimed(Outcome.SOLD, mine)
    if outcome is Outcome.DUPLICATE:
        return Claimed(Outcome.DUPLICATE, held)
    return SHED if outcome is Outcome.SHED else None


def _keys(voucher_id: int) -> tuple[str, ...]:
    return (
        keys.seckill_stock(voucher_id),
        keys.seckill_order(voucher_id),
        keys.seckill_receipt(voucher_id),
        keys.seckill_sale(voucher_id),
        keys.STREAM_ORDERS,
    )
