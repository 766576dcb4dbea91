"""Claims on a ledger of several lanes: the session first, in its own lane, then the sale in its.

A script can only touch one slot, so a claim passes two gates where on one server it passes one. Who
is behind the session is known by then, and the script is told the user. Everything else (permit,
clock, ids, replays) each lane has for itself, as a whole ledger has it: `Claims`, once a lane.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from flashsale.accounts.sessions import Sessions
from flashsale.errors import Unavailable
from flashsale.model import Outcome
from flashsale.seckill.batch import SHED, Claim, Claimed
from flashsale.seckill.claims import Claims
from flashsale.seckill.ids import LedgerClock
from flashsale.seckill.permit import BooksComparison, Permits
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.storage.channel import Channel
from flashsale.storage.gate import Gate
from flashsale.storage.roles import sync_client
from flashsale.store_urls import layout_of

_LOOK_S = 1.0
"""How often a replica compares the books of one lane or another."""


@dataclass(frozen=True, slots=True)
class Settling:
    """Batches of all lanes whose answers were lost, and how often such were sent again."""

    open: int
    replays: int


class LaneClaims:
    """The claim service of one replica over all lanes; asked as `Claims` is."""

    def __init__(
        self,
        ledger_url: str,
        settings: ClaimSettings,
        session_settings: SessionSettings,
        sessions: Sessions,
        pool: Engine,
    ) -> None:
        self._layout = layout_of(ledger_url)
        self._sessions = sessions
        self._permits = [
            Permits(
                BooksComparison(sync_client(ledger_url, lane=lane), pool),
                interval_s=_LOOK_S * lane.lanes,
            )
            for lane in self._layout.lanes
        ]
        self._claims = [
            Claims(ledger_url, settings, session_settings, permits, lane, sessions.rounds)
            for lane, permits in zip(self._layout.lanes, self._permits, strict=True)
        ]
        self.outcomes: Counter[Outcome] = Counter()
        self.behind: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<LaneClaims lanes={len(self._claims)} {dict(self.outcomes)}>"

    @property
    def clock(self) -> LedgerClock:
        """The home lane's; masters keep the same time to within what a claim's settling allows."""
        return self._claims[0].clock

    @property
    def settlement(self) -> Settling:
        """What is being settled in all lanes."""
        every = [claims.settlement for claims in self._claims]
        return Settling(sum(one.open for one in every), sum(one.replays for one in every))

    @property
    def gates(self) -> Mapping[str, Gate[Claim, Claimed | None]]:
        """Its gates by name."""
        lanes = zip(self._layout.lanes, self._claims, strict=True)
        return {f"claim_{lane.tag}": claims.gate for lane, claims in lanes}

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Its connections, by what they are for."""
        lanes = zip(self._layout.lanes, self._claims, strict=True)
        return {
            f"{name}_{lane.tag}": channel
            for lane, claims in lanes
            for name, channel in claims.channels.items()
        }

    async def claim(self, voucher_id: int, session: str, digest: str = "") -> Claimed | None:
        """Buy one unit of `voucher_id` for who is behind the key `session`; None: nobody is.

        Never raises for what the ledger did; without an answer about the session nothing was sent.
        """
        try:
            user_id = await self._sessions.user_behind(session)
        except Unavailable:
            self.outcomes[SHED.outcome] += 1
            return SHED
        if user_id is None:
            return None
        lane = self._layout.of(voucher_id)
        answer = await self._claims[lane.number].claim(voucher_id, str(user_id), digest)
        if answer is not None:
            self.outcomes[answer.outcome] += 1
            if answer.behind:
                self.behind[answer.behind] += 1
        return answer

    async def sync_clocks(self) -> None:
        """Ask every master for its time. Raises the trouble of a lane where there is some, after
        all were asked."""
        answers = await asyncio.gather(
            *(claims.clock.sync() for claims in self._claims), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def keep_time(self) -> None:
        """Keep the deadlines' clocks true, for as long as the replica lives."""
        await asyncio.gather(*(claims.keep_time() for claims in self._claims))

    async def keep_permits(self) -> None:
        """Compare the books of every lane, for as long as the replica lives."""
        await asyncio.gather(*(permits.keep() for permits in self._permits))

    async def drain(self) -> None:
        """Wait for every settlement that is under way."""
        await asyncio.gather(*(claims.drain() for claims in self._claims))

    async def aclose(self) -> None:
        """Close the connections."""
        for claims in self._claims:
            await claims.aclose()
