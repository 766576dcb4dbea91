"""A sale in a real ledger, and everything the ledger holds, for comparison."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

from flashsale import keys
from flashsale.lua.scripts import script

HOUR_MS = 3_600_000
SECKILL = script("seckill")


def now_ms() -> int:
    return int(time.time() * 1000)


def open_sale(
    ledger: Redis,
    voucher_id: int = 1,
    *,
    units: int | str = 10,
    begins_in_ms: int = -HOUR_MS,
    ends_in_ms: int = HOUR_MS,
    state: str = "open",
) -> None:
    """Put a sale into the ledger as `sale_load.lua` would; it runs now, unless told otherwise."""
    begin_ms, end_ms = now_ms() + begins_in_ms, now_ms() + ends_in_ms
    ledger.set(keys.seckill_stock(voucher_id), units)
    terms = {"begin": begin_ms, "end": end_ms, "state": state, "initial": units}
    ledger.hset(keys.seckill_sale(voucher_id), mapping=terms)
    ledger.sadd(keys.LOADED_SALES, voucher_id)


def session(user: int) -> str:
    """The key of the session that `sign_in` opens for `user`, whose token is `token-<user>`."""
    return keys.login_token(f"token-{user}")


def sign_in(ledger: Redis, *users: int) -> None:
    """Open a session for each of `users`."""
    with ledger.pipeline() as together:
        for user in users:
            together.hset(session(user), mapping={"id": user, "nickName": "n", "icon": ""})
            together.expire(session(user), 3600)
        together.execute()


def claim_keys(voucher_id: int = 1) -> list[str]:
    """KEYS of seckill.lua, in its order."""
    return [
        keys.seckill_stock(voucher_id),
        keys.seckill_order(voucher_id),
        keys.seckill_receipt(voucher_id),
        keys.seckill_sale(voucher_id),
        keys.STREAM_ORDERS,
    ]


def claim(
    ledger: Redis,
    *pairs: tuple[int, int],
    voucher_id: int = 1,
    deadline_ms: int | None = None,
) -> list[tuple[int, str]]:
    """Run seckill.lua for (user, order id) pairs; a (code, order id) for each."""
    args = [voucher_id, _deadline(deadline_ms), *(number for pair in pairs for number in pair)]
    reply = run(ledger, claim_keys(voucher_id), args)
    return list(zip(reply[::2], reply[1::2], strict=True))


def claim_by_session(
    ledger: Redis,
    *pairs: tuple[str, int],
    voucher_id: int = 1,
    deadline_ms: int | None = None,
    sliding_ms: tuple[int, int, int] = (HOUR_MS, 60_000, 24 * HOUR_MS),
) -> list[tuple[int, str]]:
    """As `claim`, for (key of a session, order id) pairs."""
    args = [voucher_id, _deadline(deadline_ms)]
    args += [part for _, order_id in pairs for part in ("", order_id)]
    names = [*claim_keys(voucher_id), *(name for name, _ in pairs)]
    reply = run(ledger, names, [*args, *sliding_ms])
    return list(zip(reply[::2], reply[1::2], strict=True))


def _deadline(deadline_ms: int | None) -> int:
    return now_ms() + HOUR_MS if deadline_ms is None else deadline_ms


def run(ledger: Redis, names: Sequence[str], args: Sequence[Any]) -> Any:
    """seckill.lua with any keys and arguments."""
    return ledger.eval(SECKILL.text, len(names), *names, *args)


def stock(ledger: Redis, voucher_id: int = 1) -> int:
    return int(ledger.get(keys.seckill_stock(voucher_id)))  # type: ignore[arg-type]


def sold(ledger: Redis, voucher_id: int = 1) -> dict[str, str]:
    """Receipts: user → order id, after checking that all four records of a sale agree."""
    receipts: dict[str, str] = ledger.hgetall(keys.seckill_receipt(voucher_id))  # type: ignore[assignment]
    assert ledger.smembers(keys.seckill_order(voucher_id)) == set(receipts)
    entries = [fields for _, fields in ledger.xrange(keys.STREAM_ORDERS)]  # type: ignore[union-attr]
    mine = [entry for entry in entries if entry["voucherId"] == str(voucher_id)]
    assert len(mine) == len(receipts)
    assert {entry["userId"]: entry["id"] for entry in mine} == receipts
    return receipts


def everything(ledger: Redis) -> Mapping[str, Any]:
    """Every key with its value and whether it expires: equal before and after is `untouched`."""
    names = sorted(ledger.scan_iter())
    return {name: (ledger.dump(name), ledger.ttl(name) < 0) for name in names}  # type: ignore[operator]
