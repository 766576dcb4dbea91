"""A server of the family that sells honestly, but for the faults that a test plants in it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson

from rig.sale_by_commands import SaleByCommands
from rig.scripted_sale import SOLD_OUT, Act, Claim, ScriptedSale, http, sold


@dataclass(frozen=True)
class Asked:
    """A claim as the sale sees it; `turn` counts those that came for the voucher before it."""

    voucher: int
    user: int
    turn: int


Trick = Callable[["FaultySale", Asked], Act | None]
"""What a fault does with a claim. None: this one is served honestly."""


def duplicate(order: int) -> Act:
    """The answer to who has an order already."""
    body = b'{"success":false,"errorMsg":"Duplicate orders cannot be placed"}'
    return Act(http(200, body, {"x-outcome": "duplicate", "x-order-id": str(order)}))


@dataclass
class FaultySale:
    """The sale, a trick for each voucher that has one; `noted` are their victims, by voucher."""

    market: SaleByCommands
    tricks: Mapping[int, Trick] = field(default_factory=dict)
    noted: dict[int, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turns: Counter[int] = Counter()

    @contextmanager
    def open(self) -> Iterator[ScriptedSale]:
        """Serve for as long as this lasts."""
        with ScriptedSale(self._act).open() as server:
            yield server

    def note(self, asked: Asked, order: int = 0, user: int = 0) -> None:
        """Remember who is to be named."""
        names = {"voucher": asked.voucher, "user": user or asked.user, "order": order}
        self.noted[asked.voucher] = names

    def serve(self, asked: Asked) -> Act:
        """What an honest sale does."""
        held = self.market.receipt(asked.voucher, asked.user)
        if held is not None:
            return duplicate(held)
        if self.market.stock(asked.voucher) <= 0:
            return Act(SOLD_OUT)
        return Act(sold(self.market.sell(asked.voucher, asked.user)))

    def _act(self, claim: Claim) -> Act:
        if not claim.path.startswith("/voucher-order/seckill/"):
            return Act(http(200))
        voucher = int(claim.path.rpartition("/")[2])
        user = int(claim.token.rpartition("-")[2])
        if claim.method != "POST":
            return self._status(voucher, user)
        asked = Asked(voucher, user, self._turns[voucher])
        self._turns[voucher] += 1
        trick = self.tricks.get(voucher)
        return (trick(self, asked) if trick else None) or self.serve(asked)

    def _status(self, voucher: int, user: int) -> Act:
        order = self.market.receipt(voucher, user)
        data = {"state": "none"} if order is None else {"state": "row", "orderId": str(order)}
        return Act(http(200, orjson.dumps({"success": True, "data": data})))
