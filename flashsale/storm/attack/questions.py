"""What a storm asks beside its attempts: before them, whether anybody answers at the target at all;
after them, what became of claims that are in doubt.

The status route (`GET /voucher-order/seckill/{voucherId}`, where the scenario names no other)
answers for the caller: did the user get an order, or can none come of the claim any more? "none" is
final only once the claim's deadline has passed, so nobody is asked before. What was first seen
stays on record; what is learned here is written beside it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic_ns
from typing import Any

import httpx

from flashsale.errors import UnreachableError, UsageError
from flashsale.model import Outcome, parse_id
from flashsale.scenario.target import Routes, Target

_PREFLIGHT_TIMEOUT_S = 5.0

ASKING_MAX = 32
TRIES_MAX = 5
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 2.0
_CALL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Greeting:
    """A target that answered, at the address that did. It `is_known` where it has the health route,
    and so the others, too."""

    target: Target
    is_known: bool


def preflight(target: Target, routes: Routes, token: str = "") -> Greeting:
    """See that the target answers, and knows the token where one is given, before anything is
    planned on it. Neither can be an order, nor fill a cache: no claim and no shop is asked for.

    The addresses are tried in turn. Raises UnreachableError where nothing useful answers,
    UsageError for a refused token.
    """
    troubles = []
    for address in target.addresses:
        one = target.at_address(address)
        try:
            health, session = _greeted(one, routes, token)
        except (httpx.HTTPError, OSError) as error:
            troubles.append(f"{address}: {str(error) or type(error).__name__}")
            if isinstance(error, httpx.HTTPError) and not isinstance(error, _NOT_CONNECTED):
                break  # somebody is there
            continue
        if health is not None and health >= 500:
            raise UnreachableError(
                f"{one.shown}{routes.health} answers {health}; "
                "wait until `flashsale status` calls the stack ready"
            )
        if session == 401:
            raise UsageError(
                f"{one.shown} does not know the tokens; run `flashsale seed` again, "
                "or give the right --tokens"
            )
        return Greeting(one, health == 200)
    raise UnreachableError(
        f"nothing answers at {target.base_url} ({'; '.join(troubles)}); "
        "start a stack with `flashsale serve --detach`, or check --base-url"
    )


_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)


def _greeted(target: Target, routes: Routes, token: str) -> tuple[int | None, int | None]:
    """The status of the health route, and of the session route with this token; None where it is
    not to be asked."""
    session = routes.session if token else ""
    if not (routes.health or session):
        socket.create_connection((target.address, target.port), _PREFLIGHT_TIMEOUT_S).close()
        return None, None
    headers = {"host": target.authority}
    with httpx.Client(timeout=_PREFLIGHT_TIMEOUT_S, trust_env=False, headers=headers) as client:
        statuses = [
            client.get(target.origin + path, headers=own).status_code if path else None
            for path, own in ((routes.health, {}), (session, {"authorization": token}))
        ]
    return statuses[0], statuses[1]


@dataclass(frozen=True)
class Question:
    """An indeterminate attempt: whose order for what, and from when on the answer is final."""

    attempt: int
    voucher: int
    token: str
    not_before_ns: int


class Reply(Enum):
    """What the status route can answer, apart from an order."""

    NONE = "none"
    LATER = "later"
    NEVER = "never"


Resolved = Callable[[int, str, str | None], None]
"""Called with the attempt, `sold` or `none`, and the order id."""


def read_reply(status: int, body: Any) -> str | Reply:
    """The order id held, or that there is none, or whether asking again can help. Pure."""
    if status == 429 or status >= 500:
        return Reply.LATER
    data = body.get("data") if isinstance(body, dict) and body.get("success") is True else None
    if status != 200 or not isinstance(data, dict):
        return Reply.NEVER
    if data.get("state") == "none":
        return Reply.NONE
    order = str(data.get("orderId"))
    return order if parse_id(order) else Reply.NEVER


class Resolver:
    """Asks with bounded parallelism, tries and time."""

    def __init__(self, target: Target, path: str, limit_ms: int, resolved: Resolved) -> None:
        self._target, self._path = target, path
        self._limit_s = limit_ms / 1000
        self._resolved = resolved
        self._room = asyncio.Semaphore(ASKING_MAX)
        self.answered = 0

    def __repr__(self) -> str:
        return f"<Resolver {self._target.shown} answered={self.answered}>"

    async def run(self, questions: Sequence[Question]) -> None:
        """Ask every question, until the limit after the last may be asked has passed.

        What found no answer by then stays indeterminate.
        """
        last_ns = max((question.not_before_ns for question in questions), default=0)
        limit_s = max(0, last_ns - monotonic_ns()) / 1e9 + self._limit_s
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(limit_s),
                httpx.AsyncClient(
                    base_url=self._target.origin,
                    headers={"host": self._target.authority},
                    timeout=_CALL_TIMEOUT_S,
                    trust_env=False,
                ) as client,
                asyncio.TaskGroup() as tasks,
            ):
                for question in questions:
                    tasks.create_task(self._settle(client, question))

    async def _settle(self, client: httpx.AsyncClient, question: Question) -> None:
        await asyncio.sleep(max(0, question.not_before_ns - monotonic_ns()) / 1e9)
        async with self._room:
            reply = await self._ask(client, question)
        if reply in (Reply.LATER, Reply.NEVER):
            return
        self.answered += 1
        if isinstance(reply, str):
            self._resolved(question.attempt, Outcome.SOLD.value, reply)
        else:
            self._resolved(question.attempt, Reply.NONE.value, None)

    async def _ask(self, client: httpx.AsyncClient, question: Question) -> str | Reply:
        pause_s = _RETRY_FIRST_S
        for _ in range(TRIES_MAX):
            wait_s = pause_s
            try:
                response = await client.get(
                    self._path.replace("{voucher}", str(question.voucher)),
                    headers={"authorization": question.token},
                )
            except httpx.HTTPError:
                reply: str | Reply = Reply.LATER
            else:
                reply = read_reply(response.status_code, _json(response))
                wait_s = max(wait_s, _retry_after_s(response.headers.get("retry-after")))
            if reply is not Reply.LATER:
                return reply
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _RETRY_LAST_S)
        return Reply.LATER


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _retry_after_s(header: str | None) -> float:
    """Seconds asked for; 0 where there are none (the date form is not worth a clock here)."""
    return float(header) if header is not None and header.isdecimal() else 0.0
