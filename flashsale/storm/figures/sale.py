"""The figures of a sale: how each voucher sold out, as its buyers saw it, and how fairly. Pure.

Claims are taken voucher by voucher, in the order in which they were sent.

A user's order of a voucher is one order, however often its id was told: at once, again to a retry,
or afterwards by the status route.

The stock is *gone* from the first proof on that reached a buyer: the first "sold out" to arrive, or
the last unit's order where it was earlier. No clock but the storm's own is asked.

A buyer is one user who asked for one voucher, and arrives with the first claim that was sent: that
is the order nearest to the server's own that a stranger can know. Buyers are compared within their
voucher, since that is what they compete for, and counted together over all.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self

from flashsale.model import Ending, Outcome
from flashsale.run.attempts import NEVER, Attempts
from flashsale.run.attempts_file import Record
from flashsale.run.histogram import Histogram, merged
from flashsale.run.parts import FairnessFigures, SaleFigures

NO_VOUCHER = 0
"""In `AskedVouchers.vouchers`: the attempt was no claim."""

DECILES = 10
VOUCHERS_MAX = 200
"""As many vouchers are told one by one; the totals count all."""

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
class AskedVouchers:
    """Who asked for which voucher, attempt by attempt; `units` is what each voucher had before
    the storm, as far as that is known. Each claim asked for `quantity` units, and a user may hold
    `limit` orders of a voucher."""

    users: Sequence[int]
    vouchers: Sequence[int]
    units: Mapping[int, int] = field(default_factory=dict)
    quantity: int = 1
    limit: int = 1

    @classmethod
    def of(cls, record: Record) -> Self:
        """What the record of a run says was asked for."""
        quantity, limit = (_times(record.header.get(name)) for name in ("quantity", "limit"))
        return cls(record.plan.users, record.plan.vouchers, record.units, quantity, limit)


def _times(said: object) -> int:
    return said if type(said) is int and said > 0 else 1


class BuyAttempt(NamedTuple):
    """One claim that was sent: instants in µs after the barrier, and how it ended.

    `holds` is True where an order came of it: told at once, or found out afterwards. `order` is
    its id, where one was told.
    """

    user: int
    sent_us: int
    done_us: int
    ending: Ending
    holds: bool
    order: str | None = None

    @property
    def is_open(self) -> bool:
        """True where an order may have come of it, and nobody knows."""
        return self.ending.is_indeterminate and not self.holds


@dataclass
class BuyAttempts:
    """All claims on one voucher, as sent. `units` is None where nobody knows them."""

    voucher: int
    units: int | None
    claims: list[BuyAttempt] = field(default_factory=list)
    quantity: int = 1
    limit: int = 1

    @cached_property
    def orders(self) -> Mapping[int, Collection[str]]:
        """The ids told to each user to whom a unit was sold; none where only the sale is known."""
        found: dict[int, set[str]] = {}
        for claim in self.claims:
            if claim.holds:
                ids = found.setdefault(claim.user, set())
                if claim.order:
                    ids.add(claim.order)
        return found

    @cached_property
    def sold(self) -> int:
        """How many orders these are."""
        return sum(max(1, len(ids)) for ids in self.orders.values())

    @property
    def units_sold(self) -> int:
        """How many units these are."""
        return self.sold * self.quantity

    @cached_property
    def accepted_us(self) -> list[int]:
        """When each order that was told at once was told first."""
        first: dict[tuple[int, str | None], int] = {}
        for claim in self.claims:
            if claim.ending is Outcome.SOLD:
                told = claim.user, claim.order
                first[told] = min(claim.done_us, first.get(told, claim.done_us))
        return list(first.values())

    @property
    def told_again(self) -> int:
        """Answers that told of an order of which one had told before."""
        told = sum(claim.ending is Outcome.SOLD for claim in self.claims)
        return told - len(self.accepted_us)


def claims_by_voucher(attempts: Attempts, asked: AskedVouchers) -> list[BuyAttempts]:
    """What was sent and asked for a voucher, by ascending voucher. Pure.

    A claim in doubt, of which the status route said that nothing came of it, is as good as shed.
    """
    found: dict[int, BuyAttempts] = {
        voucher: BuyAttempts(
            voucher, asked.units.get(voucher), quantity=asked.quantity, limit=asked.limit
        )
        for voucher in sorted({*asked.vouchers, *asked.units} - {NO_VOUCHER})
    }
    if not found:
        return []
    sent = attempts.sent_ns
    for i in sorted((i for i, _ in attempts.settled() if sent[i] != NEVER), key=sent.__getitem__):
        voucher = asked.vouchers[i]
        if voucher != NO_VOUCHER:
            found[voucher].claims.append(_claim(attempts, i, asked.users[i]))
    return list(found.values())


def _claim(attempts: Attempts, i: int, user: int) -> BuyAttempt:
    answer = attempts.answers[i]
    assert answer is not None
    ending, origin = answer.outcome, attempts.origin_ns
    sent_us, done_us = (
        (attempts.sent_ns[i] - origin) // 1000,
        (attempts.done_ns[i] - origin) // 1000,
    )
    resolved = attempts.resolved.get(i) if ending.is_indeterminate else None
    if resolved is None:
        holds = ending is Outcome.SOLD
        return BuyAttempt(user, sent_us, done_us, ending, holds, answer.order if holds else None)
    if resolved != Outcome.SOLD:
        return BuyAttempt(user, sent_us, done_us, Outcome.SHED, False)
    return BuyAttempt(user, sent_us, done_us, ending, True, attempts.found.get(i))


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


def sellout_of(found: BuyAttempts) -> Sellout:
    """How the claims on one voucher used up its stock. Pure."""
    claims, units = found.claims, found.units
    sold = found.sold
    in_doubt = sum(claim.is_open for claim in claims)
    orders_us = found.accepted_us
    told = [claim for claim in claims if claim.ending is Outcome.SOLD_OUT]
    first_told_us = min((claim.done_us for claim in told), default=None)
    left = None if units is None else max(0, units - found.units_sold)
    gone_us = _gone(first_told_us, orders_us, None if units is None else units // found.quantity)
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


def _waits(told: Sequence[BuyAttempt], gone_us: int | None) -> list[int]:
    if gone_us is None:
        return []
    return [claim.done_us - max(gone_us, claim.sent_us) for claim in told]


@dataclass
class Fairness:
    """Buyers and winners by tenths of the arrivals, and how far winning followed arriving.

    Of all pairs of a winner and a loser of the same voucher (`pairs`), in `ordered` the winner had
    come first. Sums of two are the two together.
    """

    buyers: list[int] = field(default_factory=lambda: [0] * DECILES)
    winners: list[int] = field(default_factory=lambda: [0] * DECILES)
    pairs: int = 0
    ordered: int = 0

    @property
    def win_rates(self) -> list[float | None]:
        """Winners by buyers of each tenth, from the first to come to the last."""
        counts = zip(self.winners, self.buyers, strict=True)
        return [round(won / came, 4) if came else None for won, came in counts]

    @property
    def precedence(self) -> float | None:
        """How often a winner had come before a loser: 1 is strictly first come, first served,
        0.5 a lottery. (The Mann-Whitney U by its pairs.) None where all won, or nobody."""
        return round(self.ordered / self.pairs, 4) if self.pairs else None

    def add(self, other: "Fairness") -> None:
        """Count the buyers of another voucher, too."""
        for tenth in range(DECILES):
            self.buyers[tenth] += other.buyers[tenth]
            self.winners[tenth] += other.winners[tenth]
        self.pairs += other.pairs
        self.ordered += other.ordered


def fairness_of(claims: Sequence[BuyAttempt]) -> Fairness:
    """How the buyers of one voucher fared, their claims in the order in which they were sent."""
    won = _buyers(claims)
    found, winners_before = Fairness(), 0
    for rank, wins in enumerate(won):
        # The middle of the rank, so that few buyers spread evenly: a single one is in the middle.
        tenth = DECILES * (2 * rank + 1) // (2 * len(won))
        found.buyers[tenth] += 1
        found.winners[tenth] += wins
        if wins:
            winners_before += 1
        else:
            found.ordered += winners_before
    found.pairs = sum(won) * (len(won) - sum(won))
    return found


def _buyers(claims: Sequence[BuyAttempt]) -> list[bool]:
    """Whether each buyer won, in order of arrival.

    1. an order came of a claim: won.
    2. a claim is in doubt, and another was told "duplicate", of the order in doubt: won.
    3. a claim is in doubt: left out.
    4. told "duplicate" alone: held the order before the storm, and is left out.
    5. all others have lost.
    """
    doubtful = {claim.user for claim in claims if claim.is_open}
    duplicate = {claim.user for claim in claims if claim.ending is Outcome.DUPLICATE}
    winners = {claim.user for claim in claims if claim.holds} | doubtful & duplicate
    left_out = (doubtful | duplicate) - winners
    arrived = dict.fromkeys(claim.user for claim in claims)
    return [user in winners for user in arrived if user not in left_out]


def sale_figures(claimed: Sequence[BuyAttempts]) -> SaleFigures | None:
    """The figures of the sale on which these claims were made; None where there are none."""
    pairs = [(sellout_of(claims), fairness_of(claims.claims)) for claims in claimed]
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
        "fairness": FairnessFigures(
            buyers=sum(fairness.buyers),
            winners=sum(fairness.winners),
            win_rates=fairness.win_rates,
            precedence=fairness.precedence,
        ),
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
