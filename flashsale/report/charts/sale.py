"""Charts of a sale: how the stock went, and who got of it."""

from flashsale.report.charts.chart import (
    Chart,
    Run,
    Table,
    Trace,
    axis,
    line,
    seconds_axis,
    thinned,
)
from flashsale.report.series import stock
from flashsale.report.wording import lapse, percent, plural
from flashsale.run.parts import SaleFigures
from flashsale.storm.figures.sale import DECILES

_TENTHS = tuple(str(tenth + 1) for tenth in range(DECILES))


def stock_left(run: Run, baseline: Run | None) -> Chart | None:
    """Units left against time, as orders reached their buyers."""
    sale = run.summary.sale
    if sale is None or not sale.units:
        return None
    steps = stock(run.figures.attempts, sale.units)
    traces = [_fall(steps, "left", "--accent")]
    traces[0] |= {"fill": "tozeroy", "fillcolor": "--accent-faint"}
    other = baseline.summary.sale if baseline is not None else None
    if baseline is not None and other is not None and other.units:
        traces.append(_fall(stock(baseline.figures.attempts, other.units), "baseline", "--purple"))
        traces[-1]["line"]["dash"] = "dash"
    return Chart(
        "stock",
        "Stock against time",
        _stock_in_words(sale),
        Table(
            ("at s", "units left"),
            [(f"{steps[n][0]:.3f}", f"{steps[n][1]:,}") for n in thinned(len(steps))],
        ),
        traces,
        {
            "xaxis": seconds_axis(),
            "yaxis": axis("units left", rangemode="tozero"),
            **_first_told(sale),
        },
    )


def fairness(run: Run, baseline: Run | None) -> Chart | None:
    """Win rate by tenths of the arrivals."""
    sale = run.summary.sale
    if sale is None or not sale.fairness.winners:
        return None
    found = sale.fairness
    mean = 100 * found.winners / found.buyers
    rates = [None if rate is None else round(100 * rate, 2) for rate in found.win_rates]
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": "won",
            "x": list(_TENTHS),
            "y": rates,
            "marker": {"color": "--accent"},
            "hovertemplate": "%{y:.1f} % won",
        },
        line(
            "all buyers",
            "--orange",
            [(tenth, mean) for tenth in range(len(_TENTHS))],
            line={"dash": "dot"},
            hovertemplate="%{y:.1f} % of all won",
        )
        | {"x": list(_TENTHS)},
    ]
    other = baseline.summary.sale if baseline is not None else None
    if other is not None:
        points = [100 * (rate or 0) for rate in other.fairness.win_rates]
        marks = line("baseline", "--purple", list(enumerate(points)))
        traces.append(marks | {"mode": "markers", "x": list(_TENTHS), "marker": {"size": 9}})
    return Chart(
        "fairness",
        "Fairness: who won, by rank of arrival",
        _fairness_in_words(sale),
        Table(
            ("tenth of the arrivals", "won"),
            [
                (name, "–" if rate is None else percent(rate))
                for name, rate in zip(_TENTHS, found.win_rates, strict=True)
            ],
        ),
        traces,
        {
            "xaxis": axis(
                "tenth of the buyers, the first to come on the left", type="category", dtick=1
            ),
            "yaxis": axis("% won", rangemode="tozero"),
        },
    )


def _fall(steps: list[tuple[float, int]], name: str, colour: str) -> Trace:
    points = [(at, float(left)) for at, left in steps]
    return line(name, colour, points, line={"shape": "hv"}, hovertemplate="%{y:,} left")


def _first_told(sale: SaleFigures) -> dict[str, object]:
    """A mark at the instant from which on buyers knew that it was gone."""
    if sale.first_told_ms is None:
        return {}
    at = sale.first_told_ms / 1000
    mark = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1}
    text = {"x": at, "y": 1, "yref": "paper", "text": "first “sold out”", "showarrow": False}
    return {
        "shapes": [mark | {"line": {"color": "--orange", "width": 1, "dash": "dot"}}],
        "annotations": [text | {"xanchor": "left", "xshift": 4, "yanchor": "top"}],
    }


def _stock_in_words(sale: SaleFigures) -> str:
    gone = (
        "" if sale.sold_out_ms is None else f"; the last order came after {lapse(sale.sold_out_ms)}"
    )
    told = ""
    if sale.propagation_ms is not None:
        told = (
            f'. The first "sold out" came after {lapse(sale.first_told_ms)}, and every refused '
            f"buyer had it within {lapse(sale.propagation_ms)} of the stock being gone"
        )
    return f"{sale.sold:,} of {plural(sale.units or 0, 'unit')} sold{gone}{told}."


def _fairness_in_words(sale: SaleFigures) -> str:
    precedence = sale.fairness.precedence
    if precedence is None:
        return f"All of {plural(sale.fairness.buyers, 'buyer')} won: nobody lost by coming late."
    within = ", each voucher's buyers among themselves" if sale.vouchers > 1 else ""
    return (
        f"Of all pairs of a winner and a loser, the winner had come first in {percent(precedence)}"
        f"{within}. 100 % is strictly first come, first served; 50 % is a lottery."
    )
