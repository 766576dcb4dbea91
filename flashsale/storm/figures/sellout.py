"""How a voucher sold out, as its buyers saw it: when, how fast word got round, what stayed behind.

The stock is *gone* from the first proof on that reached a buyer: the first "sold out" to arrive, or
the last unit's order where it was earlier. No clock but the storm's own is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flashsale.model import Outcome
from flashsale.storm.figures.claims import Claim, Claims
from flashsale.storm.figures.histogram import Histogram

_UNFINISHED = frozenset(
    {
        Outcome.SHED,
        Outcome.RATE_LIMITED,
        Outcome.NOT_LOADED,
        Outcome.REFUSED,
        Outcome.UNKNOWN,
        Outcome.INDETERMINATE,
    }
)
"""Answers, or none, after which a buyer still does not know that the stock is gone."""


@dataclass(frozen=True)
class Sellout:
    """One voucher. Instants are µs after the barrier, None where that did not happen.

    sold            orders, told at once or found out afterwards
    refused         buyers without an order who were told "sold out"
    untold          buyers without an order whom nobody told, though the stock was gone
    left            units not sold, None where the units are not known
    undersold       units that certainly stayed while a buyer was refused
    first_told_us   the first "sold out" arrives
    sold_out_us     the last order arrives, of a voucher of which nothing is left
    waits           from the stock being gone, or from the claim if that came later, until the
                    "sold out" arrives: its longest is the propagation lag
    late_sold       orders told after somebody had been told "sold out", the latest by late_by_us
    """

    voucher: int
    units: int | None
    sold: int
    refused: int
    untold: int
    left: int | None
    undersold: int | None
    first_told_us: int | None
    sold_out_us: int | None
    waits: Histogram
    late_sold: int
    late_by_us: int | None


def sellout_of(found: Claims) -> Sellout:
    """How the claims on one voucher used up its stock. Pure."""
    claims, units = found.claims, found.units
    sold = sum(claim.holds for claim in claims)
    in_doubt = sum(claim.is_open for claim in claims)
    orders_us = [claim.done_us for claim in claims if claim.ending is Outcome.SOLD]
    told = [claim for claim in claims if claim.ending is Outcome.SOLD_OUT]
    first_told_us = min((claim.done_us for claim in told), default=None)
    left = None if units is None else max(0, units - sold)
    gone_us = _gone(first_told_us, orders_us, units)
    holders = {claim.user for claim in claims if claim.holds or claim.ending is Outcome.DUPLICATE}
    refused = {claim.user for claim in told} - holders
    unfinished = {claim.user for claim in claims if claim.ending in _UNFINISHED}
    late = [done for done in orders_us if first_told_us is not None and done > first_told_us]
    return Sellout(
        voucher=found.voucher,
        units=units,
        sold=sold,
        refused=len(refused),
        untold=0 if gone_us is None else len(unfinished - holders - refused),
        left=left,
        undersold=None if left is None else min(max(0, left - in_doubt), len(refused)),
        first_told_us=first_told_us,
        sold_out_us=max(orders_us, default=None) if gone_us is not None and not left else None,
        waits=Histogram(_waits(told, gone_us)),
        late_sold=len(late),
        late_by_us=max(late) - first_told_us if late and first_told_us is not None else None,
    )


def _gone(first_told_us: int | None, orders_us: Sequence[int], units: int | None) -> int | None:
    """When a buyer could first know that the stock is gone."""
    proofs = [] if first_told_us is None else [first_told_us]
    if units is not None and 0 < units <= len(orders_us):
        proofs.append(sorted(orders_us)[units - 1])
    return min(proofs, default=None)


def _waits(told: Sequence[Claim], gone_us: int | None) -> list[int]:
    if gone_us is None:
        return []
    return [claim.done_us - max(gone_us, claim.sent_us) for claim in told]
