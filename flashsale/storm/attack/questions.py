"""What a storm asks beside its attempts: before them, whether anybody answers at the target at all;
after them, what became of claims that are in doubt.

The status route (`GET /voucher-order/seckill/{voucherId}`, where the scenario names no other)
answers for the caller: did the user get an order, or can none come of the claim any more? "none" is
final only once the claim's deadline has passed, so nobody is asked before. What was first seen
stays on record; what is learned here is written beside it.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic_ns
from typing import Any

import httpx

from flashsale.asking import Fetched, UnansweredError, ask, ask_once, client
from flashsale.errors import UnreachableError, UsageError
from flashsale.model import Outcome, parse_id
from flashsale.scenario.answer import excerpt
from flashsale.scenario.rules import Meanings
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


def preflight(
    target: Target, routes: Routes, token: str = "", headers: Mapping[str, str] | None = None
) -> Greeting:
    """See that the target answers, and knows the token where one is given, before anything is
    planned on it. Neither can be an order, nor fill a cache: no claim and no shop is asked for.
    Where `headers` are given they say who asks, in place of `authorization`.

    The addresses are tried in turn. Raises UnreachableError where nothing useful answers,
    UsageError for a refused token.
    """
    troubles = []
    told = headers if headers is not None else {"authorization": token} if token else {}
    for address in target.addresses:
        one = target.at_address(address)
        try:
            health, session = _greeted(one, routes, told)
        except (UnansweredError, OSError) as error:
            troubles.append(f"{address}: {str(error) or type(error).__name__}")
            if isinstance(error, UnansweredError) and not isinstance(
                error.__cause__, _NOT_CONNECTED
            ):
                break  # somebody is there
            continue
        if health is not None and health >= 500:
            ready = (
                "`flashsale status` calls the stack ready" if _is_ours(routes) else "it is ready"
            )
            raise UnreachableError(
                f"{one.shown}{routes.health} answers {health}; wait until {ready}"
            )
        if session == 401:
            raise UsageError(
                f"{one.shown} does not know the tokens; run `flashsale seed` again, "
                "or give the right --tokens"
            )
        return Greeting(one, health == 200)
    raise UnreachableError(
        f"nothing answers at {target.base_url} ({'; '.join(troubles)}); "
        f"{_cure(target, routes, troubles)}"
    )


def _is_ours(routes: Routes) -> bool:
    """Whether it is the project's own system that is asked, as far as that is said."""
    ours = Routes()
    return (routes.health, routes.session) == (ours.health, ours.session)


def _cure(target: Target, routes: Routes, troubles: Sequence[str]) -> str:
    if target.tls is not None and any("CERTIFICATE_VERIFY_FAILED" in told for told in troubles):
        return "give the authority of its certificate with --ca, or --insecure to check none"
    start = (
        "start a stack with `flashsale serve --detach`" if _is_ours(routes) else "start the shop"
    )
    return f"{start}, or check --base-url"


_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)


def _greeted(
    target: Target, routes: Routes, told: Mapping[str, str]
) -> tuple[int | None, int | None]:
    """The status of the health route, and of the session route with these headers; None where it is
    not to be asked."""
    session = routes.session if told else ""
    if not (routes.health or session):
        _connect(target)
        return None, None
    health = _status_of(target, routes.health) if routes.health else None
    return health, _status_of(target, session, **told) if session else None


def _connect(target: Target) -> None:
    """See that somebody takes connections. Raises OSError, of which ssl's errors are some."""
    if target.socket:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PREFLIGHT_TIMEOUT_S)
            connection.connect(target.socket)
        return
    with socket.create_connection(
        (target.address, target.port), _PREFLIGHT_TIMEOUT_S
    ) as connection:
        if target.tls is not None:
            name = target.server_name
            target.tls.context().wrap_socket(connection, server_hostname=name).close()


def _status_of(target: Target, path: str, **headers: str) -> int:
    """The status of the answer to a GET; its head is enough.

    Raises UnansweredError where there is none in time, UnreachableError where it sends elsewhere: a
    storm follows nobody, and every claim would be answered so.
    """
    told = ask_once(
        target.origin + path,
        total_s=_PREFLIGHT_TIMEOUT_S,
        bytes_max=0,
        headers={"host": target.authority, **headers},
        way=target.way,
    )
    if told.sent_on_to is None or told.status == 304:
        return told.status
    where = excerpt(told.sent_on_to) or "elsewhere"
    is_tls = where.lower().startswith("https:") and target.tls is None
    cure = (
        "give the https:// address as --base-url, or the plain one behind it"
        if is_tls
        else "give the address that answers by itself as --base-url"
    )
    raise UnreachableError(
        f"{target.shown}{path} answers {told.status} and sends to {where}; {cure}"
    )


@dataclass(frozen=True)
class Question:
    """An indeterminate attempt: whose order for what, and from when on the answer is final."""

    attempt: int
    voucher: int
    token: str
    not_before_ns: int
    asked: tuple[str, dict[str, str]] | None = None  # path and headers, where the shop has its own


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


SOLD_UNNAMED = ""
"""An order came of the claim, and has no id."""


def read_by(meanings: Meanings, told: Fetched) -> str | Reply:
    """The same by the rules of a shop. Pure."""
    raw = httpx.Headers(told.headers.raw, encoding="latin-1")  # bytes, whatever they spell
    headers = {n.lower().encode("latin-1"): v.encode("latin-1") for n, v in raw.items()}
    found = meanings.said_of(told.status, headers, told.body)
    if found is None:
        return Reply.LATER if told.status == 429 or told.status >= 500 else Reply.NEVER
    outcome, order = found
    if outcome != Outcome.SOLD:
        return Reply(outcome)
    if meanings.order and order is None:
        return Reply.NEVER
    return order or SOLD_UNNAMED


class Resolver:
    """Asks with bounded parallelism, tries and time."""

    def __init__(
        self,
        target: Target,
        path: str,
        limit_ms: int,
        resolved: Resolved,
        meanings: Meanings | None = None,
    ) -> None:
        self._meanings = meanings
        self._target, self._path, self._way = target, path, target.way
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
                client(self._target.origin, self._way) as of,
                asyncio.TaskGroup() as tasks,
            ):
                for question in questions:
                    tasks.create_task(self._settle(of, question))

    async def _settle(self, of: httpx.AsyncClient, question: Question) -> None:
        await asyncio.sleep(max(0, question.not_before_ns - monotonic_ns()) / 1e9)
        async with self._room:
            reply = await self._ask(of, question)
        if reply in (Reply.LATER, Reply.NEVER):
            return
        self.answered += 1
        if isinstance(reply, str):
            self._resolved(question.attempt, Outcome.SOLD.value, reply or None)
        else:
            self._resolved(question.attempt, Reply.NONE.value, None)

    async def _ask(self, of: httpx.AsyncClient, question: Question) -> str | Reply:
        pause_s = _RETRY_FIRST_S
        path = self._path.replace("{voucher}", str(question.voucher))
        headers = {"authorization": question.token}
        if question.asked is not None:
            path, headers = question.asked
        for _ in range(TRIES_MAX):
            wait_s = pause_s
            try:
                told = await ask(
                    of,
                    path,
                    total_s=_CALL_TIMEOUT_S,
                    headers={"host": self._target.authority, **headers},
                )
            except UnansweredError:
                reply: str | Reply = Reply.LATER
            else:
                reply = (
                    read_reply(told.status, told.json())
                    if self._meanings is None
                    else read_by(self._meanings, told)
                )
                wait_s = max(wait_s, _retry_after_s(told.headers.get("retry-after")))
            if reply is not Reply.LATER:
                return reply
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _RETRY_LAST_S)
        return Reply.LATER


def _retry_after_s(header: str | None) -> float:
    """Seconds asked for, within the bound of all questions together; 0 where there are none (the
    date form is not worth a clock here)."""
    is_number = header is not None and header.isascii() and header.isdecimal()
    return float(header) if header is not None and is_number else 0.0
