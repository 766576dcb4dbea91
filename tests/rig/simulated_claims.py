"""The claims of replicas on a simulated clock and a scripted Redis, made from a seed, and judged.

PYTHONPATH=tests python -m rig.simulated_claims 4711            one seed, with its schedule
PYTHONPATH=tests python -m rig.simulated_claims 1 --seeds 5000  so many from there on
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import Outcome
from flashsale.seckill.batch import Claimed
from flashsale.seckill.claims import Claims
from flashsale.seckill.permit import Behind, Permits
from flashsale.settings import ClaimSettings, SessionSettings
from rig.scripted_ledger import Ledger, Sale
from rig.scripted_redis import Fate, Greeting, ScriptedRedis
from rig.virtual_loop import EPOCH_S, VirtualLoop, clocks_of

TIMEOUT_MS = 100
QUEUE_TIMEOUT_MS = 150
SPAN_S = 0.6
"""Claims come for so long, and so long things go wrong."""
FINAL_S = TIMEOUT_MS / 1000 + 1.0
"""Whoever was told `unknown` may ask for the truth after so long."""
ANSWERED_S = QUEUE_TIMEOUT_MS / 1000 + 6 * TIMEOUT_MS / 1000 + 0.1
"""Every claim is answered within so long, whatever happens."""
_URL = "redis://ledger.invalid:6379/0"


class Broken(AssertionError):  # noqa: N818 - a finding, not an error
    """A seed whose claims were not answered as they have to be."""

    def __init__(self, seed: int, breaches: Sequence[str], schedule: Sequence[str]) -> None:
        self.seed = seed
        self.breaches = breaches
        told = [
            f"seed {seed}: {breaches[0]}",
            *(f"  and {breach}" for breach in breaches[1:]),
            *(f"  {line}" for line in schedule),
            f"again: PYTHONPATH=tests python -m rig.simulated_claims {seed}",
        ]
        super().__init__("\n".join(told))


@dataclass
class Asked:
    """One claim, and what became of it."""

    number: int
    user: str
    voucher_id: int
    digest: str
    began_s: float
    ended_s: float = -1.0
    answer: Claimed | None = None
    left: bool = False  # its caller went before it was answered

    @property
    def session(self) -> str:
        """Its session's key, which no other claim has."""
        return f"login:token:{self.number}"

    @property
    def is_answered(self) -> bool:
        """Whether its caller was told anything."""
        return self.ended_s >= 0 and not self.left

    def __str__(self) -> str:
        told = self.answer and f"{self.answer.outcome} {self.answer.order_id}"
        return f"claim {self.number} of user {self.user} on {self.voucher_id} ({told})"


class ScriptedBooks:
    """The comparison, made at one instant, with trouble of its own."""

    def __init__(self, redis: ScriptedRedis, draw: random.Random, trouble: float) -> None:
        self.redis = redis
        self.draw = draw
        self.trouble = trouble

    def permit(self) -> str:
        """The permit. Raises Unavailable, Behind among it, or Indeterminate."""
        if self.redis.is_down or self.draw.random() < self.trouble:
            raise self.draw.choice([Unavailable, Indeterminate])("planted")
        granted = self.redis.ledger.grant()
        if not granted:
            raise Behind(self.redis.ledger.behind)
        return granted

    confirm = permit


class Simulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.loop = VirtualLoop()
        self.schedule: list[tuple[float, str]] = []
        self.asked: list[Asked] = []
        self.by_permit = self.draw.random() < 0.7
        self.came_older = False
        self.ledger = Ledger(lambda: EPOCH_S + self.loop.time() + 0.05, self.draw)
        self.redis = ScriptedRedis(
            self.loop,
            self.ledger,
            self.draw,
            self._weights(Fate, self.draw.choice([0.0, 0.05, 0.15, 0.4])),
            self._weights(Greeting, self.draw.choice([0.0, 0.0, 0.1, 0.3])),
            TIMEOUT_MS / 1000,
            self.note,
        )
        self.loop.connect = self.redis.connect
        self.loop.delays = lambda: (self.draw.random() * 0.01, self.draw.random() * 0.01)

    def note(self, what: str) -> None:
        """Write one line of the schedule."""
        self.schedule.append((self.loop.time(), what))

    def run(self) -> list[Asked]:
        """Run it and judge it: the claims with their answers. Raises Broken."""
        breaches: list[str] = []
        with clocks_of(self.loop), structlog.testing.capture_logs():
            asyncio.set_event_loop(self.loop)
            try:
                breaches += self.loop.run_until_complete(self._main())
            except Exception as error:  # noqa: BLE001 - whatever it is, the seed has found it
                breaches.append(f"{type(error).__name__}: {error}")
            finally:
                asyncio.set_event_loop(None)
                self.loop.close()
        breaches += self.loop.troubles
        if not breaches:
            breaches += self._judge()
        if breaches:
            lines = [f"{at_s * 1000:9.3f} ms  {what}" for at_s, what in self.schedule]
            raise Broken(self.seed, breaches, lines)
        return self.asked

    # What happens ---------------------------------------------------------------------------------

    def _weights(self, kinds: Any, trouble: float) -> dict[Any, float]:
        """How often each kind comes: some of them in one seed, others in another."""
        fine, *others = kinds
        others += [kind for kind in others if kind in (Fate.TORN, Fate.LATE, Fate.REPLY_LOST)]
        count = self.draw.randint(1, min(4, len(others)))
        chosen = list(dict.fromkeys(self.draw.sample(others, count)))
        return {fine: 1 - trouble, **{kind: trouble / len(chosen) for kind in chosen}}

    def _replica(self) -> Claims:
        draw = self.draw
        settings = ClaimSettings(
            timeout_ms=TIMEOUT_MS,
            queue_timeout_ms=QUEUE_TIMEOUT_MS,
            batch_max=draw.choice([1, 3, 256]),
            calls_max=draw.choice([1, 1, 2]),
            queue_max=draw.choice([3, 1000, 1000]),
            replay_calls_max=draw.choice([1, 4]),
            id_block=draw.choice([1, 4, 64]),
            clock_interval_s=0.2,
        )
        permits = None
        if self.by_permit:
            books = ScriptedBooks(self.redis, draw, draw.choice([0.0, 0.0, 0.2]))
            permits = Permits(books, interval_s=0.2)  # type: ignore[arg-type]
        return Claims(_URL, settings, SessionSettings(), permits)

    async def _main(self) -> list[str]:
        loop, draw = self.loop, self.draw
        vouchers = range(1, draw.randint(1, 3) + 1)
        for voucher_id in vouchers:
            self.ledger.kept.sales[str(voucher_id)] = Sale(draw.randint(0, 8))
        replicas = [self._replica() for _ in range(draw.randint(1, 2))]
        duties = []
        for replica in replicas:
            duties.append(loop.create_task(replica.keep_time()))
            if replica._permits is not None:
                duties.append(loop.create_task(replica._permits.keep()))
            with suppress(Unavailable, Indeterminate):  # a replica starts without the ledger, too
                await replica.clock.sync()
        begin_s = loop.time()
        happening = [loop.create_task(self._happen(begin_s, *event)) for event in self._events()]
        claiming = [
            loop.create_task(self._claim(draw.choice(replicas), claim, leaves_s))
            for claim, leaves_s in self._claims(vouchers, begin_s)
        ]
        await asyncio.wait([*claiming, *happening], timeout=60)
        pending = [claim for claim in self.asked if claim.ended_s < 0]
        self._heal()
        last = await self._after(replicas, vouchers)
        breaches = [f"{claim} was never answered" for claim in pending] + last
        for task in (*duties, *claiming, *happening):
            task.cancel()
        await asyncio.gather(*duties, *claiming, *happening, return_exceptions=True)
        for replica in replicas:
            await asyncio.wait_for(replica.drain(), 10)
            await replica.aclose()
        await asyncio.sleep(5)  # what is late is late by less
        left = asyncio.all_tasks() - {asyncio.current_task()}
        breaches += [f"left behind: {task}" for task in left]
        breaches += [f"connection {link.number} was left open" for link in self.redis.links]
        return breaches

    async def _claim(self, replica: Claims, claim: Asked, leaves_s: float) -> None:
        await asyncio.sleep(claim.began_s - self.loop.time())
        self.note(f"claim {claim.number}: user {claim.user} wants {claim.voucher_id}")
        claim.began_s = self.loop.time()
        try:
            async with asyncio.timeout(leaves_s):
                claim.answer = await replica.claim(claim.voucher_id, claim.session, claim.digest)
        except TimeoutError:
            claim.left = True
        claim.ended_s = self.loop.time()
        self.note(f"{claim} is {'left' if claim.left else 'answered'}")

    def _claims(self, vouchers: range, begin_s: float) -> Iterator[tuple[Asked, float]]:
        """Claims, and after how long their callers go away."""
        draw = self.draw
        digests = draw.random() < 0.3
        instants = [draw.random() * SPAN_S for _ in range(draw.randint(1, 6))]
        for number in range(draw.randint(3, 20)):
            user = str(draw.randint(1, 8))
            digest = f"digest{user}" if digests and draw.random() < 0.7 else ""
            at_s = begin_s + draw.choice(instants)
            claim = Asked(number, user, draw.choice(vouchers), digest, at_s)
            self.asked.append(claim)
            if draw.random() < 0.95:
                self.ledger.kept.sessions[claim.session] = user
            yield claim, draw.random() * 0.3 if draw.random() < 0.1 else 1000.0

    def _events(self) -> Iterator[tuple[float, str]]:
        draw = self.draw
        kinds = ["restart", "freeze", "state", "state", "forget", "signs out", "work"]
        for kind in draw.choices(kinds, k=draw.choice([0, 1, 3, 6])):
            yield draw.random(), kind
        if self.by_permit and draw.random() < 0.4:
            story = ["save", "work", "older"] if draw.random() < 0.6 else ["save", "older"]
            yield from zip(sorted(draw.random() for _ in story), story, strict=True)

    async def _happen(self, begin_s: float, at: float, event: str) -> None:
        draw, ledger = self.draw, self.ledger
        await asyncio.sleep(begin_s + at * SPAN_S - self.loop.time())
        match event:
            case "restart":
                self.redis.restart(draw.choice([0.0, 0.01, 0.3]), older=False)
            case "older":
                self.came_older = True
                ledger.snapshot.sessions = dict(ledger.kept.sessions)
                self.redis.restart(draw.choice([0.0, 0.01, 0.3]), older=True)
            case "freeze":
                self.redis.freeze(draw.random() * 0.3)
            case "state":
                sale = draw.choice(list(ledger.kept.sales.values()))
                sale.state = draw.choice(["open", "open", "paused", "closed"])
                self.note(f"a sale is {sale.state}")
            case "forget":
                ledger.scripts.clear()
            case "signs out":
                ledger.kept.sessions.pop(draw.choice(list(ledger.kept.sessions) or [""]), None)
            case "work":
                ledger.work()
                self.note(f"a worker has written {ledger.seen} orders")
            case "save":
                ledger.save()
                self.note("what would come back older is as it is now")

    def _heal(self) -> None:
        self.note("all is healed")
        self.redis.heal()
        if self.ledger.behind:
            self.ledger.rebuild()
        for sale in self.ledger.kept.sales.values():
            sale.left, sale.state = sale.left + 10, "open"

    async def _after(self, replicas: Sequence[Claims], vouchers: range) -> Sequence[str]:
        """Who claims once all is healed, and has had time to be found healed, is sold a unit."""
        await asyncio.sleep(3)
        breaches = []
        for number, replica in enumerate(replicas, 900):
            claim = Asked(number, str(number), vouchers[0], "", self.loop.time())
            self.asked.append(claim)
            self.ledger.kept.sessions[claim.session] = claim.user
            await self._claim(replica, claim, ANSWERED_S)
            if claim.answer is None or claim.answer.outcome is not Outcome.SOLD:
                breaches.append(f"{claim} was not sold a unit though all was well")
        return breaches

    # What has to hold -----------------------------------------------------------------------------

    def _judge(self) -> list[str]:
        breaches = list(self.ledger.violations)
        for claim in self.asked:
            breaches += self._judge_one(claim)
        standing: dict[str, str] = {}
        for one in filter(self.ledger.stands, self.ledger.executed):
            if standing.setdefault(one.order.order_id, one.session) != one.session:
                breaches.append(f"{one} has the order id of another's order")
        return breaches

    def _judge_one(self, claim: Asked) -> Iterable[str]:
        mine = [one for one in self.ledger.executed if one.session == claim.session]
        if len({one.order.order_id for one in mine}) > 1:
            yield f"{claim} was executed with two ids: {mine}"
        if not claim.is_answered:
            return
        if late_s := self._late_s(claim):
            yield f"{claim} was answered {late_s * 1000:.0f} ms too late"
        answer = claim.answer
        if answer is None or answer.outcome not in (Outcome.SOLD, Outcome.UNKNOWN):
            standing = [one for one in mine if self.ledger.stands(one)]
            if standing or (mine and not self.came_older):
                yield f"{claim} was executed: {mine}"
        if answer is None:
            return
        others = [
            one
            for one in self.ledger.executed
            if (one.order.user, one.order.voucher) == (claim.user, str(claim.voucher_id))
            and one.order.order_id == answer.order_id
        ]
        if answer.outcome is Outcome.SOLD and not (mine if not claim.digest else others):
            yield f"{claim} was never executed"
        if answer.outcome is Outcome.SOLD and not others:
            yield f"{claim} has another's order id"
        if answer.outcome is Outcome.DUPLICATE and not others:
            yield f"{claim} is no duplicate"
        if answer.outcome is Outcome.UNKNOWN:
            sent, intact = self.redis.sent, self.redis.intact
            if claim.session not in self.redis.claim_of.get(answer.order_id, ()):
                yield f"{claim} names an id that was never sent for it"
            elif sent[answer.order_id] <= intact[answer.order_id]:
                yield f"{claim} had every answer"
            if any(one.at_s > EPOCH_S for one in mine if self._is_after(one.at_s, claim)):
                yield f"{claim} was executed after the truth could be known: {mine}"

    def _is_after(self, ledger_s: float, claim: Asked) -> bool:
        return ledger_s - EPOCH_S > claim.ended_s + FINAL_S

    def _late_s(self, claim: Asked) -> float:
        return max(0.0, claim.ended_s - claim.began_s - ANSWERED_S)


def run(seeds: Iterable[int]) -> int:
    """Run them: how many claims they were. Raises Broken at the first that is."""
    return sum(len(Simulation(seed).run()) for seed in seeds)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    try:
        if given.seeds == 1:
            simulation = Simulation(given.seed)
            simulation.run()
            for at_s, what in simulation.schedule:
                sys.stdout.write(f"{at_s * 1000:9.3f} ms  {what}\n")
        claims = run(range(given.seed, given.seed + given.seeds))
    except Broken as broken:
        sys.stderr.write(f"{broken}\n")
        return 1
    told = f"{given.seeds} seeds, {claims} claims, each with one answer that is true\n"
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
