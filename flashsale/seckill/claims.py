"""Claims: one request to buy, through the gate to seckill.lua, and its answer.

A batch leaves as one EVALSHA per voucher. What Redis refused is *shed* (certainly not done). A
batch whose answer was lost is settled by replaying it (`batch.settled` says what a replay tells);
what stays open is *unknown*. An answer that the ledger's replicas have not confirmed, where they
are asked, counts as lost, and so does a replay's. Nothing here ever says that a claim failed when
it may have succeeded. Without a permit (`permit.py`) nothing is sent: the ledger may be behind.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.keys import WHOLE, Lane
from flashsale.model import Outcome
from flashsale.seckill.batch import (
    NO_PERMIT,
    SHED,
    Batch,
    Claim,
    Claimed,
    make_batch,
    make_batch_of_users,
    read_answers,
    settled,
)
from flashsale.seckill.ids import LedgerClock, OrderIds
from flashsale.seckill.permit import CLAIM_OPENING, Behind, Permits, claim_opening
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.storage.channel import Channel
from flashsale.storage.gate import Admission, Bounds, Gate, GateFull, Overdue, Rounds
from flashsale.storage.roles import Confirmation

REPLAYS_MAX = 3
_AFTER_DEADLINE_S = 0.02

_SESSION, _DIGEST = attrgetter("session"), attrgetter("digest")

_Settled = asyncio.Future[Claimed | None]
_Answer = Claimed | _Settled | None
"""Of one claim: None without a session, a future while it is being settled."""


class Claims:
    """The claim service of one replica. Without `permits` it asks for none, and sells on a ledger
    that nobody has compared with MySQL."""

    def __init__(
        self,
        ledger_url: str,
        settings: ClaimSettings,
        sessions: SessionSettings,
        permits: Permits | None = None,
        lane: Lane = WHOLE,
        rounds: Rounds | None = None,
    ) -> None:
        timeout_s = settings.timeout_ms / 1000
        self._settings = settings
        self._sliding_ms = sessions.sliding_ms
        self._permits = permits
        self._lane = lane
        opening = (CLAIM_OPENING if lane is WHOLE else claim_opening(lane)) if permits else None
        confirmation = Confirmation.wanted(settings)
        self._channel = Channel(
            ledger_url,
            connections_max=settings.calls_max,
            timeout_s=timeout_s + _AFTER_DEADLINE_S,  # then what a replay is told is final
            opening=opening,
            lane=lane,
            confirmation=confirmation,
        )
        self._replays = Channel(
            ledger_url,
            connections_max=settings.replay_calls_max,
            timeout_s=timeout_s,
            opening=opening,
            lane=lane,
            confirmation=confirmation,
        )
        self._side = Channel(ledger_url, connections_max=2, timeout_s=timeout_s, lane=lane)
        self.clock = LedgerClock(self._read_time)
        self._ids = OrderIds(self._lease, self.clock.now_s, block=settings.id_block, lane=lane)
        self.settlement = Settlement(self._replays, self.clock, permits, timeout_s=timeout_s)
        bounds = Bounds(settings.batch_max, settings.calls_max, settings.queue_max)
        self.gate: Gate[Claim, Claimed | None] = Gate(self._send, bounds, self._is_overdue, rounds)
        self._admission = Admission(bounds, settings.queue_timeout_ms / 1000)
        self.outcomes: Counter[Outcome] = Counter()
        self.behind: Counter[str] = Counter()  # of those shed, by what the ledger lacked

    def __repr__(self) -> str:
        return f"<Claims {self.gate!r} {self._ids!r} {dict(self.outcomes)}>"

    @property
    def channels(self) -> dict[str, Channel]:
        """Its connections, by what they are for."""
        return {
            "claim": self._channel,
            "claim_replay": self._replays,
            "claim_side": self._side,
        }

    async def claim(self, voucher_id: int, session: str, digest: str = "") -> Claimed | None:
        """Buy one unit of `voucher_id` for who is behind the key `session`; None: nobody is.

        Who won with `digest`, that of an Idempotency-Key, is told so again. Never raises for what
        the ledger did.
        """
        now_s = asyncio.get_running_loop().time()
        try:
            answer = await self.gate.enter(Claim(voucher_id, session, now_s, digest))
        except Behind:
            answer = NO_PERMIT
        except Unavailable:
            answer = SHED
        except Overdue:
            self._admission.shed()
            answer = SHED
        except GateFull:
            self._admission.refused(now_s)
            answer = SHED
        if answer is not None:
            self.outcomes[answer.outcome] += 1
            if answer.behind:
                self.behind[answer.behind] += 1
        return answer

    @property
    def gates(self) -> Mapping[str, Gate[Claim, Claimed | None]]:
        """Its gate by name."""
        return {"claim": self.gate}

    async def sync_clocks(self) -> None:
        """Ask the ledger for its time. Raises Unavailable or Indeterminate."""
        await self.clock.sync()

    async def keep_time(self) -> None:
        """Keep the deadline's clock true, for as long as the replica lives."""
        while True:
            await asyncio.sleep(self._settings.clock_interval_s)
            try:
                await self.clock.sync()
            except (Unavailable, Indeterminate):
                continue  # the last offset serves until Redis is back

    async def drain(self) -> None:
        """Wait for every settlement that is under way."""
        await self.settlement.drain()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._channel.aclose()
        await self._replays.aclose()
        await self._side.aclose()

    async def _send(self, claims: list[Claim]) -> Sequence[_Answer]:
        """The answers, in the order of the claims. Raises Unavailable."""
        by_voucher: dict[int, list[Claim]] = {}
        for claim in claims:
            by_voucher.setdefault(claim.voucher_id, []).append(claim)
        began_s = asyncio.get_running_loop().time()
        batches, replies = await self._sold(by_voucher, len(claims))
        ended_s = asyncio.get_running_loop().time()
        self.gate.room = self._admission.called(len(claims), ended_s - began_s, ended_s)
        reach("claim.answered")
        if len(batches) == 1:
            return self._answers(batches[0], replies[0])
        told = {
            voucher_id: iter(self._answers(batch, reply))
            for voucher_id, batch, reply in zip(by_voucher, batches, replies, strict=True)
        }
        return [next(told[claim.voucher_id]) for claim in claims]

    async def _sold(
        self, by_voucher: Mapping[int, Sequence[Claim]], count: int, *, is_last: bool = False
    ) -> tuple[Sequence[Batch], Sequence[Any]]:
        """A batch a voucher, and their replies; once more where a new connection found the permit
        to be of another server, since nothing was sent then. Raises Unavailable, Behind among it.
        """
        permits, permit = self._permits, ""
        if permits is not None:
            permit = permits.current or await permits.obtain(self._settings.timeout_ms / 1000)
        try:
            now_s = self.clock.now_s()
            order_ids = self._ids.at_hand(count, permit, now_s)
            if not order_ids:
                order_ids = await self._ids.take(count, permit)
                now_s = self.clock.now_s()
            batches = self._batches(by_voucher, order_ids, now_s, permit)
            reach("claim.sending")
            return batches, await self._channel.run([batch.call for batch in batches])
        except Behind:
            if permits is not None:
                permits.drop(permit)
            if permits is None or is_last:
                raise
            return await self._sold(by_voucher, count, is_last=True)

    def _batches(
        self,
        by_voucher: Mapping[int, Sequence[Claim]],
        order_ids: Sequence[str],
        now_s: float,
        permit: str,
    ) -> Sequence[Batch]:
        deadline_ms = int(now_s * 1000) + self._settings.timeout_ms
        batches, start = [], 0
        for voucher_id, claims in by_voucher.items():
            ids = order_ids[start : start + len(claims)]
            sessions, digests = list(map(_SESSION, claims)), list(map(_DIGEST, claims))
            if self._lane is WHOLE:
                batch = make_batch(
                    voucher_id, sessions, ids, deadline_ms, self._sliding_ms, digests, permit
                )
            else:
                batch = make_batch_of_users(
                    voucher_id, sessions, ids, deadline_ms, self._lane, digests, permit
                )
            batches.append(batch)
            start += len(claims)
        return batches

    def _is_overdue(self, claim: Claim) -> bool:
        now_s = asyncio.get_running_loop().time()
        return self._admission.is_over(now_s - claim.arrived_s, now_s)

    def _answers(self, batch: Batch, reply: Any) -> Sequence[_Answer]:
        if isinstance(reply, Unavailable):
            return [SHED] * len(batch.order_ids)
        if isinstance(reply, Indeterminate):
            return self.settlement.start(batch)
        answers = read_answers(reply)
        if self._permits is not None and answers[0] == NO_PERMIT:
            self._permits.drop(batch.permit)
            self._channel.leave()  # another server may have the permit by now
        return answers

    async def _lease(self, day: str, size: int, permit: str) -> int:
        """Numbers of the server that has `permit`. One that stood still while another took over
        counts on until it is told, and would give out what the other does. Raises Behind then."""
        count = ("INCRBY", self._lane.order_counter(day), size)
        commands = [("GET", self._lane.permit), count] if permit else [count]
        try:
            *found, last = await self._side.ask_all(commands)
        except Indeterminate as error:  # numbers may be lost, none can be used twice
            raise Unavailable(f"order ids could not be leased: {error}") from error
        if found not in ([], [permit]):
            self._side.leave()
            raise Behind("order ids could not be leased: the server there has another permit")
        return int(last)

    async def _read_time(self) -> tuple[int, int]:
        seconds, micros = await self._side.ask("TIME")
        return int(seconds), int(micros)


class Settlement:
    """Replays lost batches beside the gate, each by itself, under the permit then in force; what
    is not settled two time-outs after a batch's deadline is unknown."""

    def __init__(
        self,
        channel: Channel,
        clock: LedgerClock,
        permits: Permits | None = None,
        *,
        timeout_s: float = 2.0,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._permits = permits
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.replays = 0

    def __repr__(self) -> str:
        return f"<Settlement open={len(self._tasks)} replays={self.replays}>"

    @property
    def open(self) -> int:
        """Batches whose answers are not known yet."""
        return len(self._tasks)

    def start(self, batch: Batch) -> list[_Settled]:
        """Begin to settle `batch`; a future per claim brings its answer."""
        loop = asyncio.get_running_loop()
        futures: list[_Settled] = [loop.create_future() for _ in batch.order_ids]
        task = loop.create_task(self._settle(batch, futures))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return futures

    async def drain(self) -> None:
        """Wait until nothing is open; bounded by the deadlines and the channel's time-out."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, batch: Batch, futures: list[_Settled]) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._left_s(batch.deadline_ms) + 2 * self._timeout_s):
                    await self._replay_until_settled(batch, futures)
        finally:  # also where a reply cannot be read: nobody waits for ever
            for future, order_id in zip(futures, batch.order_ids, strict=True):
                if not future.done():
                    future.set_result(Claimed(Outcome.UNKNOWN, order_id))

    async def _replay_until_settled(self, batch: Batch, futures: list[_Settled]) -> None:
        for attempt in range(REPLAYS_MAX):
            if attempt:
                await asyncio.sleep(self._left_s(batch.deadline_ms) + _AFTER_DEADLINE_S)
            found = await self._replay(batch)
            for future, answer in zip(futures, found, strict=True):
                if answer is not None and not future.done():
                    future.set_result(answer)
            if all(future.done() for future in futures):
                return

    async def _replay(self, batch: Batch) -> Sequence[Claimed | None]:
        self.replays += 1
        reach("settlement.replaying")
        try:
            if self._permits is not None:
                batch = batch.under(
                    self._permits.current or await self._permits.obtain(self._timeout_s)
                )
            reply = (await self._channel.run([batch.call]))[0]
        except Unavailable as trouble:
            if self._permits is not None and isinstance(trouble, Behind):
                self._permits.drop(batch.permit)
            return [None] * len(batch.order_ids)
        reach("settlement.replayed")
        if isinstance(reply, (Unavailable, Indeterminate)):
            return [None] * len(batch.order_ids)
        if self._permits is not None and read_answers(reply)[0] == NO_PERMIT:
            self._permits.drop(batch.permit)
            self._channel.leave()  # another server may have the permit by now
        return settled(reply, batch.order_ids)

    def _left_s(self, deadline_ms: int) -> float:
        """Never more than a deadline is set ahead: the ledger's clock may have been set back."""
        left_s = (deadline_ms + 1) / 1000 - self._clock.now_s()
        return min(max(0.0, left_s), self._timeout_s)
