"""Numbers as people read them: latencies in ms, counts with commas, shares in per cent."""


def ms(value: float | None) -> str:
    """Three significant figures where that helps, no false precision above."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


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
