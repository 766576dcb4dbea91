"""The queue and the sales as the ledger has them now: what a scrape of a worker tells of both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from redis import Redis
from redis.exceptions import ResponseError

from flashsale import keys

SALES_MAX = 1_000
"""Sales that are looked at: a scrape is no place to count without end."""

_SALES_AT_ONCE = 100
_POLICY = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
"""What an acknowledged order rests on."""


@dataclass(frozen=True, slots=True)
class SaleUnits:
    """The units of one sale: offered, still to be had, and held by users, at one moment."""

    offered: int
    left: int
    held: int


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """One look. `oldest_age_s` is of the oldest order that is no row yet, 0 where there is none."""

    lag: int
    pending: int
    dead: int
    oldest_age_s: float
    sales: Sequence[SaleUnits]
    policy: dict[str, bool]
    """Whether each setting is as it must be; empty where the ledger does not tell."""

    @property
    def oversold(self) -> int:
        """Units held beyond those that were offered."""
        return sum(max(0, sale.held - sale.offered) for sale in self.sales)

    @property
    def unaccounted(self) -> int:
        """Units that are neither left nor held, or are both."""
        return sum(abs(sale.offered - sale.left - sale.held) for sale in self.sales)


def look(ledger: Redis) -> LedgerFigures:
    """Read everything. Raises RedisError."""
    lag, pending, delivered = _group(ledger)
    return LedgerFigures(
        lag,
        pending,
        ledger.xlen(keys.STREAM_DEAD),
        _oldest_age_s(ledger, delivered, pending) if lag or pending else 0.0,
        list(_sales(ledger)),
        _policy(ledger),
    )


def _group(ledger: Redis) -> tuple[int, int, str]:
    """Entries not yet given to the group, entries given and not acknowledged, the last given."""
    try:
        groups = ledger.xinfo_groups(keys.STREAM_ORDERS)
    except ResponseError:
        return 0, 0, "0-0"  # there is no stream: nothing was ever sold
    for group in groups:
        if group["name"] == keys.GROUP:
            return int(group["lag"] or 0), int(group["pending"]), str(group["last-delivered-id"])
    return ledger.xlen(keys.STREAM_ORDERS), 0, "0-0"


def _oldest_age_s(ledger: Redis, delivered: str, pending: int) -> float:
    pipeline = ledger.pipeline(transaction=False)
    pipeline.time()
    pipeline.xrange(keys.STREAM_ORDERS, f"({delivered}", "+", count=1)
    if pending:
        pipeline.xpending(keys.STREAM_ORDERS, keys.GROUP)
    (seconds, micros), waiting, *summary = pipeline.execute()
    ids = [entry_id for entry_id, _ in waiting] + [one["min"] for one in summary if one["min"]]
    oldest_ms = min((int(entry_id.partition("-")[0]) for entry_id in ids), default=None)
    return 0.0 if oldest_ms is None else max(0.0, seconds + micros / 1e6 - oldest_ms / 1000)


def _sales(ledger: Redis) -> Iterable[SaleUnits]:
    """Each sale read in one transaction: a claim comes before it or after it."""
    loaded = ledger.sscan_iter(keys.LOADED_SALES, count=_SALES_AT_ONCE)
    vouchers = [int(voucher) for voucher in islice(loaded, SALES_MAX)]
    for start in range(0, len(vouchers), _SALES_AT_ONCE):
        pipeline = ledger.pipeline(transaction=True)
        for voucher in vouchers[start : start + _SALES_AT_ONCE]:
            pipeline.hget(keys.seckill_sale(voucher), "initial")
            pipeline.get(keys.seckill_stock(voucher))
            pipeline.scard(keys.seckill_order(voucher))
        replies = iter(pipeline.execute())
        for offered, left, held in zip(replies, replies, replies, strict=True):
            if offered is not None and left is not None:
                yield SaleUnits(int(offered), int(left), int(held))


def _policy(ledger: Redis) -> dict[str, bool]:
    try:
        found = cast("dict[str, str]", ledger.config_get(*_POLICY))
    except ResponseError:
        return {}
    return {name: found[name] == wanted for name, wanted in _POLICY.items() if name in found}
