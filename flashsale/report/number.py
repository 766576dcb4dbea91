"""Numbers as people read them: latencies in ms, counts with commas, shares in per cent."""

from flashsale.run.summary import Change


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
    if value_ms is None or value_ms < 1000:
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


def change_line(change: Change) -> str:
    """What became of a figure: '12.0 ms → 15.0 ms, +25.0%'."""
    before, after = (amount(value, change.unit) for value in (change.before, change.after))
    return f"{before} → {after}, {change.detail}"
