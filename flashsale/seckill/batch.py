"""A batch of claims on one voucher: what goes to seckill.lua, and what a reply means. Pure."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from flashsale import keys
from flashsale.keys import Lane
from flashsale.lua.scripts import BEHIND, CLAIM_OUTCOMES, NO_SESSION, Call, script
from flashsale.model import Outcome

_SECKILL = script("seckill")
BY_USERS = "users"
"""What ends a call that names users in place of sessions."""
_KEY_LENGTH_MAX = 255
_DIGEST_BYTES = 16


def digest_of(idempotency_key: str) -> str | None:
    """What is kept of an Idempotency-Key, "" for none; None where it is no valid one: 1 to 255
    visible ASCII characters. Pure."""
    if not idempotency_key:
        return ""
    if len(idempotency_key) > _KEY_LENGTH_MAX or not _VISIBLE.fullmatch(idempotency_key):
        return None
    return blake2b(idempotency_key.encode(), digest_size=_DIGEST_BYTES).hexdigest()


_VISIBLE = re.compile(r"[!-~]+")


class Claim(NamedTuple):
    """Whoever is behind a session wants one unit of a voucher.

    With a `digest` of an Idempotency-Key, who won with it is told so again whenever it comes.
    """

    voucher_id: int
    session: str  # its key
    arrived_s: float
    digest: str = ""


class Claimed(NamedTuple):
    """What became of a claim. `order_id` is text, "" unless sold, duplicate or unknown; `behind`
    says why where the ledger or the sale may be behind, which ends in a rebuild, not by itself."""

    outcome: Outcome
    order_id: str = ""
    behind: str = ""


SHED = Claimed(Outcome.SHED)
NO_PERMIT = Claimed(Outcome.SHED, behind="permit")


class Batch(NamedTuple):
    """Claims on one voucher that left together, and the call they left in."""

    order_ids: Sequence[str]
    deadline_ms: int
    call: Call
    permit: str = ""

    def under(self, permit: str) -> "Batch":
        """The same under another permit, past its deadline: it finds what was sold, and sells
        nothing. The same batch where that is its own permit, or there is none to name. Pure.

        Its order ids were leased under the first permit. The counter of a ledger that came back
        older, or of a replica that took over, may give them out once more.
        """
        if not self.permit or permit in ("", self.permit):
            return self
        args = list(self.call.args)
        args[1] = 0
        args[-2 if args[-1] == BY_USERS else -1] = permit
        return self._replace(call=replace(self.call, args=args), permit=permit)


def make_batch(
    voucher_id: int,
    sessions: Sequence[str],
    order_ids: Sequence[str],
    deadline_ms: int,
    sliding_ms: tuple[int, int, int],
    digests: Sequence[str] = (),
    permit: str = "",
) -> Batch:
    """The call to seckill.lua for who is behind `sessions`, in order; `sliding_ms` is a session's
    lifetime, refresh interval and longest life, `digests` are those of their Idempotency-Keys, if
    any. With a permit it sells only while that is in force. Pure."""
    args: list[str | int] = [voucher_id, deadline_ms]
    names = (*_keys(voucher_id), *sessions)
    if any(digests):
        names = (*names, keys.seckill_idempotency(voucher_id))
        for digest, order_id in zip(digests, order_ids, strict=True):
            args += (digest, order_id)
    else:
        for order_id in order_ids:
            args += ("", order_id)
    args += sliding_ms
    if permit:
        args.append(permit)
        names = (*names, keys.PERMIT)
    return Batch(order_ids, deadline_ms, Call(_SECKILL, names, args), permit)


def make_batch_of_users(
    voucher_id: int,
    user_ids: Sequence[str],
    order_ids: Sequence[str],
    deadline_ms: int,
    lane: Lane,
    digests: Sequence[str],
    permit: str,
) -> Batch:
    """The call to seckill.lua on a cluster, for users who are known already: their sessions are not
    in the sale's lane. Pure."""
    args: list[str | int] = [voucher_id, deadline_ms]
    for user_id, order_id in zip(user_ids, order_ids, strict=True):
        args += (user_id, order_id)
    names: tuple[str, ...] = _keys(voucher_id, lane)
    if any(digests):
        names = (*names, lane.seckill_idempotency(voucher_id))
        args += digests
    args += (permit, BY_USERS)
    return Batch(order_ids, deadline_ms, Call(_SECKILL, (*names, lane.permit), args), permit)


def read_answers(reply: Sequence[Any]) -> list[Claimed | None]:
    """The answers in a reply of seckill.lua, None where there is no such session. Pure; an unknown
    code raises KeyError."""
    return [
        _read(code, told) if code >= NO_SESSION else Claimed(CLAIM_OUTCOMES[code], told)
        for code, told in zip(reply[::2], reply[1::2], strict=True)
    ]


def _read(code: int, told: str) -> Claimed | None:
    """A code without an order: nobody's session, or a ledger that may be behind."""
    if code == NO_SESSION:
        return None
    outcome = CLAIM_OUTCOMES[code]
    return Claimed(outcome, behind=told or "books") if code == BEHIND else Claimed(outcome, told)


def settled(reply: Sequence[Any], my_ids: Sequence[str]) -> list[Claimed | None]:
    """What a replay's reply says of each claim, None where it is not final yet. Pure.

    The replay is the very same call: same order ids, same deadline; or, under another permit, past
    its deadline (`Batch.under`). Receipts make it safe (a user who holds one is told so before
    anything else is looked at), and they tell the truth:

    1. a receipt with my id: the lost call sold it. Sold. An Idempotency-Key that won before: sold,
       with the id of then.
    2. a receipt with another id: the user held one already. Duplicate.
    3. past the deadline: neither the lost call nor this one can sell any more, nor can the lost one
       where its permit is not in force any more. Certainly not done.
    4. any other refusal (sold out, paused, …) before the deadline is not final, because the lost
       call may still arrive and find the sale changed: ask again once the deadline has passed.
    5. the session has gone: whose receipt to look for is not known any more. Unknown.
    6. the ledger or the sale may be behind: it may have sold, and forgotten it. Unknown.
    """
    return [
        _settled(answer.outcome, answer.order_id, mine) if answer and not answer.behind else None
        for answer, mine in zip(read_answers(reply), my_ids, strict=True)
    ]


def _settled(outcome: Outcome, held: str, mine: str) -> Claimed | None:
    if outcome is Outcome.SOLD or (outcome is Outcome.DUPLICATE and held == mine):
        return Claimed(Outcome.SOLD, held)
    if outcome is Outcome.DUPLICATE:
        return Claimed(Outcome.DUPLICATE, held)
    return SHED if outcome is Outcome.SHED else None


@lru_cache(maxsize=1024)
def _keys(voucher_id: int, lane: Lane = keys.WHOLE) -> tuple[str, ...]:
    return (
        lane.seckill_stock(voucher_id),
        lane.seckill_order(voucher_id),
        lane.seckill_receipt(voucher_id),
        lane.seckill_sale(voucher_id),
        lane.stream_orders,
    )
