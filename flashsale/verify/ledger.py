"""What the ledger Redis holds of one sale."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from flashsale import keys
from flashsale.model import parse_id

_SCAN_COUNT = 10_000


@dataclass(frozen=True, slots=True)
class LedgerSale:
    """Stock, holders and terms of one sale; None where the ledger does not have them.

    `oddities` tells of what no script writes: keys of a wrong type, members that are no ids.
    """

    stock: int | None = None
    initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None
    has_terms: bool = False
    members: AbstractSet[int] = field(default_factory=frozenset)
    receipts: Mapping[int, int] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()

    @property
    def gives_receipts(self) -> bool:
        """False for systems of the family that keep the order set alone."""
        return self.has_terms or bool(self.receipts)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a sale was opened with; None where the ledger does not say."""

    initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None


def read_terms(ledger: Redis, voucher: int) -> Terms:
    """The terms of `voucher`'s sale, without its orders."""
    key = keys.seckill_sale(voucher)
    found: Any = ledger.hgetall(key) if _has(ledger, key, "hash", []) else {}
    return Terms(*(_number(found.get(name)) for name in (b"initial", b"begin", b"end")))


Pulse = tuple[int | None, int, int]
"""Stock, members and receipts: what changes when a unit is sold or returned."""


def read_pulse(ledger: Redis, voucher: int) -> Pulse:
    """The sale's pulse; zeros for keys that are of a wrong type."""
    pipeline = ledger.pipeline(transaction=True)
    pipeline.get(keys.seckill_stock(voucher))
    pipeline.scard(keys.seckill_order(voucher))
    pipeline.hlen(keys.seckill_receipt(voucher))
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    stock, members, receipts = (0 if isinstance(r, Exception) else r for r in replies)
    return _number(stock), int(members), int(receipts)


def read_sale(ledger: Redis, voucher: int) -> LedgerSale:
    """All that the ledger holds of `voucher`'s sale."""
    odd: list[str] = []
    wanted = {
        keys.seckill_stock(voucher): "string",
        keys.seckill_sale(voucher): "hash",
        keys.seckill_order(voucher): "set",
        keys.seckill_receipt(voucher): "hash",
    }
    found = [_has(ledger, key, kind, odd) for key, kind in wanted.items()]
    stock_key, terms_key, members_key, receipts_key = (
        key if there else None for key, there in zip(wanted, found, strict=True)
    )
    stock = _read_stock(ledger, stock_key, odd) if stock_key else None
    terms: Any = ledger.hgetall(terms_key) if terms_key else {}
    members = set(_members(ledger, members_key, odd)) if members_key else set()
    receipts = dict(_receipts(ledger, receipts_key, odd)) if receipts_key else {}
    return LedgerSale(
        stock=stock,
        initial=_number(terms.get(b"initial")),
        begin_ms=_number(terms.get(b"begin")),
        end_ms=_number(terms.get(b"end")),
        has_terms=bool(terms),
        members=members,
        receipts=receipts,
        oddities=tuple(odd),
    )


def _has(ledger: Redis, key: str, kind: str, odd: list[str]) -> bool:
    answer: Any = ledger.type(key)
    found = answer.decode()
    if found not in (kind, "none"):
        odd.append(f"{key} is a {found}, not a {kind}")
    return bool(found == kind)


def _read_stock(ledger: Redis, key: str, odd: list[str]) -> int | None:
    raw: Any = ledger.get(key)
    stock = _number(raw)
    if stock is None:
        odd.append(f"{key} holds {raw!r}, which is no number")
    return stock


def _members(ledger: Redis, key: str, odd: list[str]) -> Iterator[int]:
    for raw in ledger.sscan_iter(key, count=_SCAN_COUNT):
        user = parse_id(_text(raw))
        if user is None:
            odd.append(f"{key} has the member {_text(raw)!r}, which is no user id")
        else:
            yield user


def _receipts(ledger: Redis, key: str, odd: list[str]) -> Iterator[tuple[int, int]]:
    for raw_user, raw_order in ledger.hscan_iter(key, count=_SCAN_COUNT):
        user, order = parse_id(_text(raw_user)), parse_id(_text(raw_order))
        if user is None or order is None:
            odd.append(f"{key} has {_text(raw_user)!r}: {_text(raw_order)!r}, which is no receipt")
        else:
            yield user, order


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _number(raw: bytes | int | None) -> int | None:
    try:
        return None if raw is None else int(raw)
    except ValueError:
        return None
