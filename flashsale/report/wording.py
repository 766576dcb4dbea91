"""What terminal, page and JUnit say alike: numbers as people read them, figures in sentences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flashsale.run.parts import CalibrationFigures, FairnessFigures, SaleFigures, Selling
from flashsale.run.summary import Change, LoadFigures, SaidFigures


def ms(value: float | None) -> str:
    """Three significant figures where that helps, no false precision above."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float | None, unit: str) -> str:
    """A figure with its unit: `ms`, `/s`, or `%` of a share of 1."""
    if value is None:
        return "–"
    match unit:
        case "ms":
            return f"{ms(value)} ms"
        case "%":
            return f"{100 * value:.3g} %"
        case _:
            return f"{value:,.0f}{unit}"


def lapse(value_ms: float | None) -> str:
    """A time with its unit: ms below a second, seconds from there on."""
    if value_ms is None:
        return "–"
    if value_ms < 1000:
        return f"{ms(value_ms)} ms"
    return f"{value_ms / 1000:,.2f} s"


def share(part: int, whole: int) -> str:
    """`part` of `whole` in per cent; a rare thing never shows as 0 %, nor almost all as 100 %."""
    if not whole or not part:
        return "–"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if 99.9 < percent < 100 else f"{percent:.1f} %"


def plural(count: int, noun: str) -> str:
    """`count` of a noun that takes an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def met(exercised: Mapping[str, int]) -> str:
    """What a check met, first of all of what it guards: 'met retries told duplicate: 312'."""
    if not exercised:
        return ""
    counts = ", ".join(f"{what}: {count:,}" for what, count in exercised.items())
    guarded = next(iter(exercised.values()))
    return f"met {counts}" if guarded else f"met nothing that it guards ({counts})"


def said_line(said: SaidFigures) -> str:
    """What a server said where its answer could not be read: 'message (200): Sale is over'."""
    status = f" ({said.status})" if said.status is not None and said.error[:5] != "http_" else ""
    return f"{said.error}{status}: {said.text}"


def change_line(change: Change) -> str:
    """What became of a figure: '12.0 ms → 15.0 ms, +25.0%'."""
    before, after = (amount(value, change.unit) for value in (change.before, change.after))
    return f"{before} → {after}, {change.detail}"


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


def crowd(load: LoadFigures) -> str:
    """The users, or what was asked where nobody is named."""
    if load.asked == "reads":
        return plural(load.planned, "read")
    users = plural(load.users, "user")
    return f"{users} in {load.planned:,} steps" if load.asked == "steps" else users


def headroom_line(found: CalibrationFigures) -> str:
    """Capacity; then the peak of an open plan, or how long it takes what leaves at once."""
    line = f"could send {found.capacity_per_s:,.0f}/s"
    if found.headroom is not None and found.peak_per_s is not None:
        line += f"; the plan's peak is {found.peak_per_s:,.0f}/s: headroom {found.headroom:.1f}×"
    elif found.burst_ms is not None:
        line += f"; what leaves at once takes it {found.burst_ms:,.0f} ms to send and read"
    return f"{line} (calibrated in {found.took_ms / 1000:.1f} s)"
