"""The figures of a sale: how it sold out, and how fairly. Part of summary.json, `sale`."""

from collections.abc import Iterable, Sequence
from typing import Self

from flashsale.storm.figures.claims import Asked, claims_by_voucher
from flashsale.storm.figures.fairness import Fairness, fairness_of
from flashsale.storm.figures.histogram import merged
from flashsale.storm.figures.part import Part
from flashsale.storm.figures.sellout import Sellout, sellout_of
from flashsale.storm.record.ledger import Ledger

VOUCHERS_MAX = 200
"""As many vouchers are told one by one; the totals count all."""


class FairnessFigures(Part):
    """Who won, by arrival: `win_rates` of the ten tenths of the buyers in the order in which they
    came (null where nobody did), each voucher's buyers among themselves.

    `precedence` is the share of pairs of a winner and a loser in which the winner had come first:
    1 is strictly first come, first served, 0.5 a lottery. Null where nobody lost, or nobody won.
    """

    buyers: int
    winners: int
    win_rates: list[float | None]
    precedence: float | None

    @classmethod
    def of(cls, fairness: Fairness) -> Self:
        """The figures of `fairness`."""
        return cls(
            buyers=sum(fairness.buyers),
            winners=sum(fairness.winners),
            win_rates=fairness.win_rates,
            precedence=fairness.precedence,
        )


class Selling(Part):
    """How units went. Instants are ms after the barrier, null where that did not happen.

    `refused` buyers were told "sold out"; `untold` ones were told nothing final though the stock
    was gone. `left` units are not sold, `undersold` of them though buyers were refused.

    `sold_out_ms` is the last order's arrival where nothing is left, `first_told_ms` that of the
    first "sold out". `propagation_ms` is the longest that a buyer who had asked was kept waiting
    for it once the stock was gone, beside the median; `late_sold` orders arrived after the first
    "sold out" had, the latest of them by `late_by_ms`.
    """

    units: int | None
    sold: int
    refused: int
    untold: int
    left: int | None
    undersold: int | None
    sold_out_ms: float | None
    first_told_ms: float | None
    propagation_ms: float | None
    propagation_p50_ms: float | None
    late_sold: int
    late_by_ms: float | None
    fairness: FairnessFigures


class VoucherFigures(Selling):
    """One voucher of several."""

    voucher: int


class SaleFigures(Selling):
    """The whole sale: sums over all vouchers, and the slowest of them where a time is told.

    It is sold out when each of `vouchers` is; `sold_out_vouchers` are. `by_voucher` is empty where
    there is only one, and holds at most VOUCHERS_MAX, by ascending id.
    """

    vouchers: int
    sold_out_vouchers: int
    by_voucher: list[VoucherFigures] = []


def sale_figures(ledger: Ledger, asked: Asked) -> SaleFigures | None:
    """The figures of the sale that the storm of `ledger` was on; None where none was asked for."""
    pairs = [
        (sellout_of(claims), fairness_of(claims.claims))
        for claims in claims_by_voucher(ledger, asked)
    ]
    if not pairs:
        return None
    sellouts, whole = [sellout for sellout, _ in pairs], Fairness()
    for _, fairness in pairs:
        whole.add(fairness)
    told = pairs[:VOUCHERS_MAX] if len(pairs) > 1 else []
    return SaleFigures.model_validate(
        {
            "vouchers": len(pairs),
            "sold_out_vouchers": sum(sellout.sold_out_us is not None for sellout in sellouts),
            "by_voucher": [{"voucher": s.voucher, **_selling([s], f)} for s, f in told],
            **_selling(sellouts, whole),
        }
    )


def _selling(sellouts: Sequence[Sellout], fairness: Fairness) -> dict[str, object]:
    waits = merged(sellout.waits for sellout in sellouts)
    return {
        "units": _total([sellout.units for sellout in sellouts]),
        "sold": sum(sellout.sold for sellout in sellouts),
        "refused": sum(sellout.refused for sellout in sellouts),
        "untold": sum(sellout.untold for sellout in sellouts),
        "left": _total([sellout.left for sellout in sellouts]),
        "undersold": _total([sellout.undersold for sellout in sellouts]),
        "sold_out_ms": _ms(_slowest([sellout.sold_out_us for sellout in sellouts])),
        "first_told_ms": _ms(min(_known(s.first_told_us for s in sellouts), default=None)),
        "propagation_ms": _ms(waits.max_us if waits.count else None),
        "propagation_p50_ms": _ms(waits.percentiles_us(50)[0]),
        "late_sold": sum(sellout.late_sold for sellout in sellouts),
        "late_by_ms": _ms(max(_known(s.late_by_us for s in sellouts), default=None)),
        "fairness": FairnessFigures.of(fairness),
    }


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _total(values: Sequence[int | None]) -> int | None:
    """The sum, None where one is not known."""
    known = _known(values)
    return sum(known) if len(known) == len(values) else None


def _slowest(values: Sequence[int | None]) -> int | None:
    """The largest, None where one has not come."""
    known = _known(values)
    return max(known) if len(known) == len(values) else None


def _ms(value_us: int | None) -> float | None:
    return None if value_us is None else round(value_us / 1000, 3)
