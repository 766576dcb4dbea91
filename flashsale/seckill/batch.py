"""A batch of claims on one voucher: what goes to seckill.lua, and what its reply means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flashsale import keys
from flashsale.lua.scripts import CLAIM_OUTCOMES, script
from flashsale.model import Outcome
from flashsale.storage.channel import Call

_SECKILL = script("seckill")


class Claim(NamedTuple):
    """A user who wants one unit of a voucher."""

    voucher_id: int
    user_id: int
    arrived_s: float


class Answer(NamedTuple):
    """What became of a claim. `order_id` is text, "" unless sold, duplicate or unknown."""

    outcome: Outcome
    order_id: str = ""


SHED = Answer(Outcome.SHED)


@dataclass(frozen=True, slots=True)
class Batch:
    """Claims on one voucher that left together, and the call they left in."""

    users: Sequence[int]
    order_ids: Sequence[str]
    deadline_ms: int
    call: Call


def make_batch(
    voucher_id: int, users: Sequence[int], order_ids: Sequence[str], deadline_ms: int
) -> Batch:
    """The call to seckill.lua for `users`, in order. Pure."""
    args: list[str | int] = [voucher_id, deadline_ms]
    for user_id, order_id in zip(users, order_ids, strict=True):
        args += (user_id, order_id)
    return Batch(users, order_ids, deadline_ms, Call(_SECKILL, _keys(voucher_id), args))


def read_answers(reply: Sequence[Any]) -> list[Answer]:
    """The answers in a reply of seckill.lua. Pure; an unknown code raises KeyError."""
    return [
        Answer(CLAIM_OUTCOMES[code], order_id)
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
