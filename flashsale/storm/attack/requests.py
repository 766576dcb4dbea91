"""What each attempt sends, and who reads its answer: decided before the storm, as bytes. A claim
that was queued is asked after, until an answer says what became of it.

For a target of the family the bytes are the target's own. For somebody's shop they are its file's
templates, filled. A request that wants what an earlier answer gives (a token, a cart, an order) is
filled when it is sent, and nothing else is.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic_ns
from typing import Any, overload
from uuid import UUID

from flashsale.model import Outcome
from flashsale.scenario import template
from flashsale.scenario.answer import MESSAGES, Answer, indeterminate
from flashsale.scenario.load import Step
from flashsale.scenario.rules import QUEUED, Meanings
from flashsale.scenario.target import Target
from flashsale.scenario.template import Prepared
from flashsale.scenario.tokens import ID_COLUMN
from flashsale.storm.attack.attack import Mission
from flashsale.storm.attack.connections import Connections
from flashsale.storm.attack.wire import (
    KEPT,
    BrowseReader,
    ClientConnection,
    Ended,
    Reader,
    SignReader,
)
from flashsale.storm.plan.plan import Plan

_READERS = {Step.BUY: Reader, Step.BROWSE: BrowseReader, Step.SIGN: SignReader}

Given = dict[int, dict[str, str]]
"""By user, what answers gave."""


class ShopReader(Reader):
    """Reads answers by the rules of a shop's step."""

    def __init__(self, meanings: Meanings) -> None:
        super().__init__()
        self.meanings = meanings
        self.kept = KEPT | meanings.headers
        self.any_id_will_do = meanings.any_id_will_do

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return self.meanings.read(status, headers, body)


class NamedReader(ShopReader):
    """Reads the answer to one attempt whose request has named the order itself."""

    def __init__(self, of: ShopReader, order: str) -> None:
        self._of, self._order = of, order
        self.meanings, self.kept = of.meanings, of.kept

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return self._named(self._of.read(status, headers, body))

    def recall(self, data: bytes) -> Answer | None:
        answer = self._of.recall(data)
        return None if answer is None else self._named(answer)

    def remember(self, data: bytes, answer: Answer) -> None:
        self._of.remember(data, answer._replace(order=None) if self._is_named(answer) else answer)

    def bounded(self, answer: Answer) -> Answer:
        return self._of.bounded(answer)

    def _is_named(self, answer: Answer) -> bool:
        return answer.outcome is Outcome.SOLD or answer.error == QUEUED

    def _named(self, answer: Answer) -> Answer:
        return answer._replace(order=self._order) if self._is_named(answer) else answer


class TakingReader(Reader):
    """Reads the answer to one attempt of one user, and keeps what later steps want of it."""

    def __init__(self, of: ShopReader, given: dict[str, str]) -> None:
        self._of, self._given = of, given
        self.kept = of.kept

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        answer = self._of.read(status, headers, body)
        self._given.update(self._of.meanings.taken(status, headers, body))
        if answer.outcome is Outcome.SOLD and answer.order is not None:
            self._given[template.ORDER] = answer.order
        return answer

    def recall(self, data: bytes) -> Answer | None:
        return None

    def remember(self, data: bytes, answer: Answer) -> None:
        """Nothing: another user's answer is another's."""

    def bounded(self, answer: Answer) -> Answer:
        return self._of.bounded(answer)


class Requests:
    """What a mission sends and how its answers are read; `requests[i]` and `readers[i]` are of
    attempt `i`."""

    def __init__(self, mission: Mission) -> None:
        self.given: Given = {}
        self._mission, self._shop = mission, mission.scenario.target
        self.values = Values(mission)
        if self._shop.is_own:
            self.requests: Sequence[bytes] = self._filled()
            self.readers: Sequence[Reader] = self._shop_readers()
        else:
            self.requests = requests_of(mission.plan, mission.target, mission.tokens)
            self.readers = _family_readers(mission)

    def __repr__(self) -> str:
        return f"<Requests {self._mission.plan!r}>"

    def _filled(self) -> Sequence[bytes]:
        plan, values = self._mission.plan, self.values
        prepared = {
            step: table.prepared(
                self._mission.target.authority, self._mission.target.prefix, self._shop.headers
            )
            for step, table in self._shop.described.items()
        }
        late = {step for step, request in prepared.items() if request.names & self._late_names}
        if not late.intersection(plan.steps):
            return [prepared[Step(ask)].filled(values(i)) for i, ask in enumerate(plan.asks)]
        made = [
            prepared[Step(ask)] if ask in late else prepared[Step(ask)].filled(values(i))
            for i, ask in enumerate(plan.asks)
        ]
        return _LateRequests(made, lambda i: {**values(i), **self._given_to(i)})

    @property
    def _late_names(self) -> set[str]:
        """Variables that are known only when an answer has told."""
        return {template.ORDER, *(n for t in self._shop.described.values() for n in t.take)}

    def _given_to(self, attempt: int) -> dict[str, str]:
        return self.given.setdefault(self._mission.plan.users[attempt], {})

    def _shop_readers(self) -> Sequence[Reader]:
        plan, described = self._mission.plan, self._shop.described
        readers = {step: ShopReader(t.meanings(step.endpoint)) for step, t in described.items()}
        wants_order = any(template.ORDER in self._shop.names(step) for step in plan.steps)
        taking = {step for step, table in described.items() if table.take}
        taking |= {Step.BUY} if wants_order else set()
        given = self._shop.order_given
        if not (taking.intersection(plan.steps) or given):
            return [readers[Step(ask)] for ask in plan.asks]

        def reader(attempt: int, step: Step) -> Reader:
            found = readers[step]
            if given and step is Step.BUY:
                found = NamedReader(found, template.fill(given, self.values(attempt)))
            return TakingReader(found, self._given_to(attempt)) if step in taking else found

        return [reader(i, Step(ask)) for i, ask in enumerate(plan.asks)]


class Values:
    """What is known of each attempt when the plan is made, as far as somebody asks for it."""

    def __init__(self, mission: Mission) -> None:
        self._plan, self._tokens, self._columns = mission.plan, mission.tokens, mission.columns
        sale, self._called = mission.scenario.sale, mission.scenario.target.name_of
        self._same = {"run": mission.run, "quantity": str(sale.quantity if sale else 1)}
        self._asked = [
            (name, read)
            for name in sorted(mission.scenario.target.names_asked)
            if (read := self._reader(name)) is not None
        ]

    def __call__(self, attempt: int) -> dict[str, str]:
        found = dict(self._same)
        for name, read in self._asked:
            found[name] = read(attempt)
        return found

    def _reader(self, name: str) -> Callable[[int], str] | None:
        """What tells a variable; None for one that is the same for all, or known only later."""
        column = template.column_of(name)
        if column is not None:
            return lambda attempt: self._row(attempt).get(column, "")
        return {
            "user": lambda attempt: self._row(attempt).get(ID_COLUMN) or str(self._user(attempt)),
            "token": lambda attempt: self._tokens.get(self._user(attempt), ""),
            "voucher": lambda attempt: self._called(self._plan.things[attempt]),
            "attempt": lambda attempt: str(self._number(attempt)),
            "uuid": lambda attempt: uuid_of(self._same["run"], self._number(attempt)),
        }.get(name)

    def _row(self, attempt: int) -> Mapping[str, str]:
        return self._columns.get(self._user(attempt), {})

    def _user(self, attempt: int) -> int:
        return self._plan.users[attempt] if self._plan.users else 0

    def _number(self, attempt: int) -> int:
        return self._plan.numbers[attempt] if self._plan.numbers else attempt


def uuid_of(run: str, attempt: int) -> str:
    """A UUID of an attempt of a run, the same each time."""
    digest = hashlib.blake2b(f"{run}-{attempt}".encode(), digest_size=16).digest()
    return str(UUID(bytes=digest, version=4))


class _LateRequests(Sequence[bytes]):
    """Bytes, but for requests that are filled each time that they are asked for."""

    def __init__(
        self, made: Sequence[bytes | Prepared], values: Callable[[int], dict[str, str]]
    ) -> None:
        self._made, self._values = made, values

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, attempt: int) -> bytes: ...
    @overload
    def __getitem__(self, attempt: slice) -> Sequence[bytes]: ...
    def __getitem__(self, attempt: Any) -> Any:
        found = self._made[attempt]
        return found.filled(self._values(attempt)) if isinstance(found, Prepared) else found


def requests_of(plan: Plan, target: Target, tokens: Mapping[int, str]) -> list[bytes]:
    """Raises KeyError where a user of the plan has no token."""
    if plan.steps == (Step.BUY,):
        owners = map(tokens.__getitem__, plan.users)
        return target.claims(zip(plan.things, owners, strict=True))
    if not plan.users:
        return target.reads(plan.things)
    columns = zip(plan.asks, plan.users, plan.things, strict=True)
    return [_request(target, ask, tokens[user], thing) for ask, user, thing in columns]


def _request(target: Target, ask: int, token: str, thing: int) -> bytes:
    match ask:
        case Step.BUY:
            return target.claim(thing, token)
        case Step.BROWSE:
            return target.read_by(thing, token)
        case _:
            return target.sign_in(token)


def _family_readers(mission: Mission) -> list[Reader]:
    messages = {**MESSAGES, **mission.scenario.messages}
    readers = {step: reader(messages) for step, reader in _READERS.items()}
    return [readers[Step(ask)] for ask in mission.plan.asks]


# Queued claims -----------------------------------------------------------------------------------


class Unasked(Reader):
    """Reads what comes while nothing was asked: nothing is known by it."""

    def recall(self, data: bytes) -> Answer | None:
        return None

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return indeterminate("unasked", body)


class Polling:
    """Stands between the connections and who is told how an attempt ended: each claim that was
    queued is asked after, over its own connection. The attempt stays in flight meanwhile, so that
    its response is the whole time and its bound that of any other."""

    def __init__(self, mission: Mission, requests: Requests, told: Ended) -> None:
        shop = mission.scenario.target
        assert shop.buy is not None
        assert shop.buy.poll is not None
        target = mission.target
        self._request: Prepared = shop.buy.poll.prepared(
            target.authority, target.prefix, {**shop.headers, **shop.buy.headers}
        )
        self._reader = ShopReader(shop.buy.polled())
        self._every_s = shop.buy.poll.every_ms / 1000
        self._requests_of, self._told, self._plan = requests, told, mission.plan
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
        values = {**self._requests_of.values(attempt), **self._given(attempt)}
        return self._request.filled({**values, template.ORDER: self._tickets.get(attempt, "")})

    def _given(self, attempt: int) -> dict[str, str]:
        return self._requests_of.given.setdefault(self._plan.users[attempt], {})

    def _connection(self, number: int) -> ClientConnection:
        assert self.connections is not None
        connection = self.connections.latest[number]
        assert connection is not None
        return connection
