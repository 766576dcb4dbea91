"""Fairness: did who came first get served first?

A buyer is one user who asked for one voucher, and arrives with the first claim that was sent: that
is the order nearest to the server's own that a stranger can know. Buyers are compared within their
voucher, since that is what they compete for, and counted together over all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flashsale.model import Outcome
from flashsale.storm.figures.claims import Claim

DECILES = 10


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


def fairness_of(claims: Sequence[Claim]) -> Fairness:
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


def _buyers(claims: Sequence[Claim]) -> list[bool]:
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
