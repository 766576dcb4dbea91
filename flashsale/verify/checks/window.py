"""The window: a sale sells between its begin and its end."""

from collections.abc import Iterator

from flashsale.verify.database import NO_TIME
from flashsale.verify.finding import Finding, Offence, doubt, violation
from flashsale.verify.snapshot import Sale, Snapshot


def window(snapshot: Snapshot) -> list[Finding]:
    """No order of the run was sold outside the sale's window, by the clock of the script.

    The window is begin ≤ time < end; where it was moved in the run, the wider one counts. Cannot
    judge orders without a time, sales without a window, nor orders that are still queued.
    """
    sales = snapshot.sales
    queued = (s.offence("not a row yet", user, order) for s in sales for user, order in _queued(s))
    return [
        *violation("sold outside the window", (o for sale in sales for o in _outside(sale))),
        *doubt("no time or window to judge by", (o for sale in sales for o in _timeless(sale))),
        *(doubt("still queued", queued) if not snapshot.drained else ()),
    ]


def _queued(sale: Sale) -> Iterator[tuple[int, int]]:
    return ((user, order) for user, order in sale.rowless.items() if sale.is_new(order))


def _terms(sale: Sale) -> tuple[int, int] | None:
    pairs = [(sale.ledger.begin_ms, sale.ledger.end_ms)]
    if sale.before:
        pairs.append((sale.before.begin_ms, sale.before.end_ms))
    if sale.shelf and not sale.ledger.has_terms:
        pairs.append((sale.shelf.begin_ms, sale.shelf.end_ms))
    known = [(begin, end) for begin, end in pairs if begin is not None and end is not None]
    return (min(b for b, _ in known), max(e for _, e in known)) if known else None


def _outside(sale: Sale) -> Iterator[Offence]:
    terms = _terms(sale)
    if terms is None:
        return
    begin_ms, end_ms = terms
    for row in sale.new_rows():
        sold_ms = sale.rows.created_ms[row]
        if sold_ms == NO_TIME or begin_ms <= sold_ms < end_ms:
            continue
        early = begin_ms - sold_ms
        when = (
            f"{early:,} ms before it began"
            if early > 0
            else f"{sold_ms - end_ms:,} ms past its end"
        )
        yield sale.row_offence(row, f"sold {when}")


def _timeless(sale: Sale) -> Iterator[Offence]:
    terms = _terms(sale)
    for row in sale.new_rows():
        if terms is None:
            yield sale.row_offence(row, "no window is known")
        elif sale.rows.created_ms[row] == NO_TIME:
            yield sale.row_offence(row, "no time of sale")
