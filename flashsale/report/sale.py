"""The figures of a sale in sentences, the same in the terminal and on the page."""

from collections.abc import Iterator
from dataclasses import dataclass

from flashsale.report.number import lapse, plural
from flashsale.run.parts import FairnessFigures, SaleFigures, Selling


@dataclass(frozen=True)
class Remark:
    """One sentence; `odd` where it tells of something that a healthy sale does not show."""

    text: str
    odd: bool = False


def remarks(sale: SaleFigures) -> list[Remark]:
    """What a reader should know of how the sale went."""
    return [*_stock(sale), *_word(sale), *_fairness(sale.fairness)]


def _stock(sale: SaleFigures) -> Iterator[Remark]:
    units = "units" if sale.units is None else f"of {plural(sale.units, 'unit')}"
    after = "" if sale.sold_out_ms is None else f", sold out after {lapse(sale.sold_out_ms)}"
    some = f" ({sale.sold_out_vouchers:,} of {sale.vouchers:,} vouchers sold out)"
    yield Remark(f"{sale.sold:,} {units} sold{after}{some if sale.vouchers > 1 else ''}")
    if sale.undersold:
        yield Remark(
            f'{plural(sale.undersold, "unit")} left though buyers were told "sold out"', odd=True
        )


def _word(sale: Selling) -> Iterator[Remark]:
    if sale.propagation_ms is not None:
        yield Remark(
            f'"sold out" reached {plural(sale.refused, "buyer")} '
            f"within {lapse(sale.propagation_ms)} of the stock being gone"
        )
    if sale.late_sold and sale.late_by_ms is not None:
        yield Remark(
            f'{plural(sale.late_sold, "order")} arrived after the first "sold out" had, '
            f"by up to {lapse(sale.late_by_ms)}"
        )
    if sale.untold:
        yield Remark(f"{plural(sale.untold, 'buyer')} never learned that it was gone", odd=True)


def _fairness(fairness: FairnessFigures) -> Iterator[Remark]:
    if fairness.precedence is None:
        return
    first, last = fairness.win_rates[0], fairness.win_rates[-1]
    tenths = ""
    if first is not None and last is not None:
        tenths = f"; {percent(first)} of the first tenth to come won, {percent(last)} of the last"
    yield Remark(
        f"winners had come before losers in {percent(fairness.precedence)} of pairs{tenths}"
    )


def percent(part: float) -> str:
    """A share of 1; what is not quite all of it never shows as 100 %."""
    if part in (0, 1):
        return f"{part:.0%}".replace("%", " %")
    shown = f"{100 * part:.1f} %"
    return {"100.0 %": "> 99.9 %", "0.0 %": "< 0.1 %"}.get(shown, shown)
