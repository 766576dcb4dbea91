"""Units: none sold that was not there, none kept from a buyer."""

from collections.abc import Iterator
from heapq import nlargest

from flashsale.verify.baseline import SaleBefore
from flashsale.verify.claims import SOLD_OUT
from flashsale.verify.finding import Finding, Offence, doubt, violation
from flashsale.verify.snapshot import Sale, Snapshot

_NOTHING_BEFORE = SaleBefore()


def no_oversell(snapshot: Snapshot) -> list[Finding]:
    """Orders never exceed units, whether rows or only promised yet.

    Cannot judge a sale whose units neither store knows.
    """
    sales = snapshot.sales
    return [
        *violation("orders past the last unit", (o for sale in sales for o in _oversold(sale))),
        *doubt("units not known", (s.offence("in neither store") for s in sales if not _known(s))),
    ]


def _known(sale: Sale) -> bool:
    return sale.initial is not None


def _oversold(sale: Sale) -> Iterator[Offence]:
    if sale.initial is None:
        return
    held = sale.units_held
    surplus = held - sale.initial - _oversold_before(sale.before)
    detail = f"{held:,} orders for {sale.initial:,} units, and this is one of the last"
    rowless = sale.rowless.items()
    for user, order in nlargest(surplus, rowless, key=lambda item: item[1]):
        yield sale.offence(detail, user, order)
    rows = sale.rows
    for row in nlargest(
        surplus - len(rowless), rows.live(), key=lambda row: (rows.created_ms[row], rows.order[row])
    ):
        yield sale.row_offence(row, detail)


def _oversold_before(before: SaleBefore | None) -> int:
    if before is None or before.shelf is None:
        return 0
    return max(0, len(before.live) + len(before.queued) - before.shelf.initial)


def no_undersell(snapshot: Snapshot) -> list[Finding]:
    """Nobody is told "sold out" and left without an order while units were never sold.

    Units that came back within the run may have come too late for those turned away, so only what
    is left beyond them counts. Cannot judge a restock without a baseline.
    """
    sales = snapshot.sales
    judged = [sale for sale in sales if sale.before is not None]
    blind = [sale for sale in sales if sale.before is None]
    return [
        *violation("turned away while units were left", _each_turned_away(judged)),
        *doubt("no baseline, so a restock cannot be excluded", _each_turned_away(blind)),
        *doubt("units not known", (s.offence("in neither store") for s in sales if not _known(s))),
    ]


def _each_turned_away(sales: list[Sale]) -> Iterator[Offence]:
    return (offence for sale in sales for offence in _turned_away(sale))


def _turned_away(sale: Sale) -> Iterator[Offence]:
    if sale.initial is None:
        return
    before = sale.before or _NOTHING_BEFORE
    held = max(sale.units_held, len(sale.ledger.members))
    left = sale.initial - held - max(0, before.redis_drift) - sale.returned
    if left <= 0:
        return
    users = {sale.claims.user[k] for k in sale.claims.told(SOLD_OUT)}
    served = sale.holders | sale.rowless.keys() | sale.ledger.members
    for user in sorted(users - served):
        yield sale.offence(
            f"told “sold out”, yet {left:,} of {sale.initial:,} were never sold", user
        )
