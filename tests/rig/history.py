"""A race of readers, writers and expiries against a model of what each reader may see.

The rule: a read that began after an update's delete was done answers that update or a younger
one, except `stale` under logical expiry; and nobody ever sees what was not committed.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Literal

import redis.asyncio

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.cache.strategies import Entries, Strategy
from rig.versions import Row, client, kind

IDS = (1, 2)
Verb = Literal["read", "leave", "update", "evict"]


@dataclass(frozen=True)
class Step:
    """After a pause, one actor does one thing to one id."""

    pause_ms: int
    verb: Verb
    actor: int
    entry_id: int
    slow_ms: int


class Model:
    """The database, and what is known about it: committed, and done with their delete."""

    def __init__(self, delays_ms: list[int]) -> None:
        self.committed = dict.fromkeys(IDS, 1)
        self.done = dict.fromkeys(IDS, 1)
        self.older: list[str] = []
        self.reads = 0
        self._delays = delays_ms
        self._loads = 0

    async def load(self, entry_id: int) -> Row:
        """Reads at some instant of a load that takes a while."""
        before, after = self._delay(), self._delay()
        await asyncio.sleep(before)
        version = self.committed[entry_id]
        await asyncio.sleep(after)
        return {"id": entry_id, "version": version}

    async def read(self, things: Entries[Row], entry_id: int) -> None:
        """A reader, and what it may not see."""
        floor = self.done[entry_id]
        answer = await things.read(entry_id)
        assert answer.value is not None
        self.reads += 1
        version = answer.value["version"]
        if version > self.committed[entry_id]:
            self.older.append(f"{version} was never committed")
        if version < floor and answer.source is not Source.STALE:
            self.older.append(f"id {entry_id}: {answer.source} {version}, after {floor} was done")

    async def update(self, things: Entries[Row], entry_id: int, slow_ms: int) -> None:
        """A writer: COMMIT after a while, then the delete."""

        async def commit() -> int:
            await asyncio.sleep(slow_ms / 1000)
            self.committed[entry_id] += 1
            return self.committed[entry_id]

        version = await things.update([entry_id], commit)
        self.done[entry_id] = max(self.done[entry_id], version)

    def _delay(self) -> float:
        self._loads += 1
        return self._delays[self._loads % len(self._delays)] / 1000


async def run(url: str, strategy: Strategy, steps: list[Step], delays_ms: list[int]) -> Model:
    """Two processes' clients act out `steps`; the model says what they saw."""
    model = Model(delays_ms)
    raw = redis.asyncio.Redis.from_url(url, protocol=2)
    await raw.flushall()
    settings = {"retry_ms": 2, "wait_ms": 2_000, "null_ttl_s": 1}
    async with client(url, **settings) as one, client(url, **settings) as two:
        actors = [kind(each, model, strategy, ttl_s=0.006) for each in (one, two)]
        if strategy is Strategy.LOGICAL:
            await actors[0].warm(IDS)
        acts: list[asyncio.Task[None]] = []
        for step in steps:
            await asyncio.sleep(step.pause_ms / 1000)
            things, each = actors[step.actor], step.entry_id
            if step.verb == "evict":
                await raw.delete(keys.cache_lock("thing", each))
            elif step.verb == "update":
                acts.append(asyncio.create_task(model.update(things, each, step.slow_ms)))
            else:
                acts.append(asyncio.create_task(model.read(things, each)))
            if step.verb == "leave":
                asyncio.get_running_loop().call_later(step.slow_ms / 1000, acts[-1].cancel)
        ended = await asyncio.gather(*acts, return_exceptions=True)
        trouble = [e for e in ended if e is not None and not isinstance(e, asyncio.CancelledError)]
        assert not trouble, trouble
        for each in IDS:  # and afterwards
            await model.read(actors[0], each)
    await raw.aclose()
    return model


def dense(seed: int, length: int = 60) -> tuple[list[Step], list[int]]:
    """A busy history: many readers and writers of few ids."""
    rng = random.Random(seed)
    verbs: tuple[Verb, ...] = ("read", "read", "read", "leave", "update", "evict")
    steps = [
        Step(
            rng.choice((0, 0, 1)),
            rng.choice(verbs),
            rng.randrange(2),
            rng.choice(IDS),
            rng.randrange(4),
        )
        for _ in range(length)
    ]
    return steps, [rng.randrange(6) for _ in range(16)]
