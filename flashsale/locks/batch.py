"""Locks of a batch of users, in one round trip, kept alive by a watchdog; and what locks count.

The seed's lock (`lock:order:{userId}`), on the cache Redis. What it protects does not rest on it:
the unique key in MySQL does. So a cache that is away costs the lock, not the order.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis

from flashsale.errors import Indeterminate, Unavailable, UsageError
from flashsale.lua.scripts import Call, Script, script
from flashsale.storage.roles import evaluate


@dataclass
class LockCounts:
    """Locks by what became of them; one owner's, since it began."""

    acquired: int = 0
    waited: int = 0  # of those that were asked for: somebody else had them at first
    refused: int = 0  # given up, since somebody else kept them
    lost: int = 0  # ours no more when they were renewed or released


_MEANINGS = {
    "acquired": "Locks taken.",
    "waited": "Locks that somebody else held when they were asked for.",
    "refused": "Locks given up, since somebody else kept them.",
    "lost": "Locks that were not ours any more when they were renewed or given back.",
}


class LockCollector(Collector):
    """The locks of one process; `locks` says what they are for."""

    def __init__(self, locks: str, counts: LockCounts, held: Callable[[], int]) -> None:
        self._labels = [locks]
        self._counts = counts
        self._held = held

    def collect(self) -> Iterator[Metric]:
        for name, meaning in _MEANINGS.items():
            family = CounterMetricFamily(f"flashsale_locks_{name}", meaning, labels=["locks"])
            family.add_metric(self._labels, getattr(self._counts, name))
            yield family
        held = GaugeMetricFamily("flashsale_locks_held", "Locks held now.", labels=["locks"])
        held.add_metric(self._labels, self._held())
        yield held


_TAKE = script("lock_take")
_RELEASE = script("lock_release")
_RENEW = script("lock_renew")


class BatchLocks:
    """Takes, renews and releases several locks as one owner.

    Re-entrant by owner name, so that a restarted owner finds its own; the fencing number tells
    its earlier self apart.
    """

    def __init__(self, cache: Redis, owner: str, *, lease_ms: int, renew_ms: int) -> None:
        """Locks taken as `owner`, one word. Raises UsageError where it is none."""
        if owner.split() != [owner]:
            raise UsageError(f"a worker's name is one word, got {owner!r}")
        self._cache = cache
        self._owner = owner
        self._lease_ms = lease_ms
        self._renew_s = renew_ms / 1000
        self.counts = LockCounts()
        self.held = 0

    def __repr__(self) -> str:
        return f"<Locks owner={self._owner!r} lease={self._lease_ms} ms>"

    def take(self, names: Sequence[str], fence: int) -> list[bool]:
        """Which of `names` are now ours under `fence`. Raises Unavailable or Indeterminate."""
        reply = self._run(_TAKE, names, self._owner, str(fence), str(self._lease_ms))
        taken = [one == 1 for one in cast("list[int]", reply)]
        self.counts.acquired += sum(taken)
        self.counts.refused += len(taken) - sum(taken)
        return taken

    def release(self, names: Sequence[str], fence: int) -> int:
        """Give back those of `names` that are ours under `fence`; how many. Raises as `take`."""
        return cast(int, self._run(_RELEASE, names, f"{self._owner} {fence}"))

    def renew(self, names: Sequence[str], fence: int) -> int:
        """Extend those of `names` that are ours under `fence`; how many. Raises as `take`."""
        holder = f"{self._owner} {fence}"
        return cast(int, self._run(_RENEW, names, holder, str(self._lease_ms)))

    @contextmanager
    def kept(self, names: Sequence[str], fence: int) -> Iterator[None]:
        """Keep `names` renewed while the block runs, then release them.

        A cache that goes away meanwhile is no error: the leases run out by themselves.
        """
        done = threading.Event()
        watchdog = threading.Thread(
            target=self._watch, args=(names, fence, done), name="lock-watchdog", daemon=True
        )
        watchdog.start()
        self.held += len(names)
        try:
            yield
        finally:
            done.set()
            watchdog.join()
            with suppress(Unavailable, Indeterminate):
                self.counts.lost += len(names) - self.release(names, fence)
            self.held -= len(names)

    def _watch(self, names: Sequence[str], fence: int, done: threading.Event) -> None:
        while not done.wait(self._renew_s):
            with suppress(Unavailable, Indeterminate):  # the lease has time for two more tries
                self.renew(names, fence)

    def _run(self, what: Script, names: Sequence[str], *args: str) -> Any:
        if not names:
            return [] if what is _TAKE else 0
        return evaluate(self._cache, Call(what, names, args))
