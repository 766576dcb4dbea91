"""Claims that were queued: each is asked after, over its own connection, until an answer says what
became of it. The attempt stays in flight meanwhile, so that its response is the whole time and its
bound that of any other.
"""

import asyncio
from collections.abc import Iterator, Mapping
from time import monotonic_ns

from flashsale.model import Outcome
from flashsale.scenario import template
from flashsale.scenario.answer import Answer, indeterminate
from flashsale.scenario.request import Prepared
from flashsale.scenario.rules import QUEUED
from flashsale.storm.attack.attack import Mission
from flashsale.storm.attack.connections import Connections
from flashsale.storm.attack.requests import Exchange, ShopReader
from flashsale.storm.attack.wire import Connection, Ended, Reader


class Unasked(Reader):
    """Reads what comes while nothing was asked: nothing is known by it."""

    def recall(self, data: bytes) -> Answer | None:
        return None

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return indeterminate("unasked", body)


class Polling:
    """Stands between the connections and who is told how an attempt ended."""

    def __init__(self, mission: Mission, exchange: Exchange, told: Ended) -> None:
        shop = mission.scenario.target
        assert shop.buy is not None
        assert shop.buy.poll is not None
        target = mission.target
        self._request: Prepared = shop.buy.poll.prepared(
            target.authority, target.prefix, {**shop.headers, **shop.buy.headers}
        )
        self._reader = ShopReader(shop.buy.polled())
        self._every_s = shop.buy.poll.every_ms / 1000
        self._exchange, self._told, self._plan = exchange, told, mission.plan
        self._tickets: dict[int, str] = {}
        self._lost: dict[int, int] = {}
        self._unasked = Unasked()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: Connections | None = None

    def __repr__(self) -> str:
        return f"<Polling tickets={len(self._tickets)} lost={len(self._lost)}>"

    def ended(self, number: int, attempt: int, at_ns: int, answer: Answer) -> None:
        """Pass on how an attempt ended, unless it was queued: then ask again, a while later."""
        if answer.error != QUEUED:
            ticket = self._tickets.pop(attempt, None)
            if answer.outcome is Outcome.SOLD:
                answer = answer._replace(order=answer.order or ticket)
                if answer.order is not None:
                    self._given(attempt)[template.ORDER] = answer.order
            self._told(number, attempt, at_ns, answer)
            return
        if answer.order is not None:
            self._tickets.setdefault(attempt, answer.order)
        connection = self._connection(number)
        if connection.is_open:
            connection.hold(attempt, self._unasked)
        else:
            self._lost[attempt] = number
        asyncio.get_running_loop().call_later(self._every_s, self._ask, number, attempt)

    def forget(self) -> Iterator[int]:
        """Ask no more. The attempts of which no connection knows."""
        for task in self._tasks:
            task.cancel()
        while self._lost:
            yield self._lost.popitem()[0]

    @property
    def lost(self) -> int:
        """How many attempts wait for a connection to be asked after."""
        return len(self._lost)

    def _ask(self, number: int, attempt: int) -> None:
        connection = self._connection(number)
        if attempt in self._lost:
            task = asyncio.get_running_loop().create_task(self._ask_anew(number, attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif connection.attempt == attempt:  # else it was given up
            connection.send(attempt, self._filled(attempt), self._reader)

    async def _ask_anew(self, number: int, attempt: int) -> None:
        assert self.connections is not None
        error = await self.connections.reopen(number, monotonic_ns())
        if self._lost.pop(attempt, None) is None:
            return
        if error is not None:
            self.ended(number, attempt, monotonic_ns(), indeterminate("poll"))
        else:
            self._connection(number).send(attempt, self._filled(attempt), self._reader)

    def _filled(self, attempt: int) -> bytes:
        values = {**self._exchange.values(attempt), **self._given(attempt)}
        return self._request.filled({**values, template.ORDER: self._tickets.get(attempt, "")})

    def _given(self, attempt: int) -> dict[str, str]:
        return self._exchange.given.setdefault(self._plan.users[attempt], {})

    def _connection(self, number: int) -> Connection:
        assert self.connections is not None
        connection = self.connections.latest[number]
        assert connection is not None
        return connection
