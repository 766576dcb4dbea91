"""What a storm asks beside its attempts: before them, whether anybody answers at the target at all;
after them, what became of claims that are in doubt.

`GET /voucher-order/seckill/{voucherId}` answers for the caller: did the user get an order, or can
none come of the claim any more? "none" is final only once the claim's deadline has passed, so
nobody is asked before. What was first seen stays on record; what is learned here is written beside
it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic_ns
from typing import Any

import httpx

from flashsale.asking import Told, UnansweredError, ask, ask_once, client
from flashsale.errors import UnreachableError, UsageError
from flashsale.model import Outcome, parse_id
from flashsale.scenario.answer import excerpt, plain_text
from flashsale.scenario.target import CLAIM_PATH, Target

_ME_PATH = "/user/me"
_PREFLIGHT_TIMEOUT_S = 5.0

ASKING_MAX = 32
TRIES_MAX = 5
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 2.0
_CALL_TIMEOUT_S = 5.0


def preflight(target: Target, voucher: int | None, token: str) -> None:
    """See that the target answers and knows the tokens, before anything is planned on it.

    Raises UnreachableError where nothing useful answers, UsageError for a refused token.
    """
    path = _ME_PATH if voucher is None else CLAIM_PATH.format(voucher=voucher)
    if _greeted(target, path, token) == 401:
        raise UsageError(
            f"{target.base_url} does not know the tokens; run `flashsale seed` again, "
            "or give the right --tokens"
        )


def preflight_reads(target: Target) -> None:
    """See that the target answers, without asking for a shop: that would fill its cache.

    Raises UnreachableError where nothing useful answers.
    """
    _greeted(target, "/healthz")


def _greeted(target: Target, path: str, token: str = "") -> int:
    """The status with which a target that is well answers a GET of `path`."""
    health = _head_of(target, "/healthz")
    if health.status >= 500:
        raise UnreachableError(
            f"{target.base_url}/healthz answers {health.status}; "
            "wait until `flashsale status` calls the stack ready"
        )
    return _head_of(target, path, token).status


def _head_of(target: Target, path: str, token: str = "") -> Told:
    """The head of the answer to a GET. Raises UnreachableError where there is none in time, or it
    sends elsewhere: a storm follows nobody, and every claim would be answered so."""
    url = target.base_url + path
    own = {"authorization": token} if token else {}
    try:
        told = ask_once(url, total_s=_PREFLIGHT_TIMEOUT_S, bytes_max=0, headers=own)
    except UnansweredError as error:
        raise UnreachableError(
            f"nothing answers at {target.base_url} ({error}); "
            "start a stack with `flashsale serve --detach`, or check --base-url"
        ) from error
    if told.sent_on_to is None or told.status == 304:
        return told
    where = excerpt(told.sent_on_to) or "elsewhere"
    is_tls = where.lower().startswith("https:")
    cure = (
        "TLS is not spoken here, so give the plain HTTP address behind it as --base-url"
        if is_tls
        else "give the address that answers by itself as --base-url"
    )
    raise UnreachableError(f"{url} answers {told.status} and sends to {where}; {cure}")


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
    order = plain_text(data.get("orderId"))
    return order if order is not None and parse_id(order) else Reply.NEVER


class Resolver:
    """Asks with bounded parallelism, tries and time."""

    def __init__(self, base_url: str, limit_ms: int, resolved: Resolved) -> None:
        self._base_url = base_url
        self._limit_s = limit_ms / 1000
        self._resolved = resolved
        self._room = asyncio.Semaphore(ASKING_MAX)
        self.answered = 0

    def __repr__(self) -> str:
        return f"<Resolver {self._base_url} answered={self.answered}>"

    async def run(self, questions: Sequence[Question]) -> None:
        """Ask every question, until the limit after the last may be asked has passed.

        What found no answer by then stays indeterminate.
        """
        last_ns = max((question.not_before_ns for question in questions), default=0)
        limit_s = max(0, last_ns - monotonic_ns()) / 1e9 + self._limit_s
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(limit_s),
                client(self._base_url) as of,
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
            self._resolved(question.attempt, Outcome.SOLD.value, reply)
        else:
            self._resolved(question.attempt, Reply.NONE.value, None)

    async def _ask(self, of: httpx.AsyncClient, question: Question) -> str | Reply:
        pause_s = _RETRY_FIRST_S
        for _ in range(TRIES_MAX):
            wait_s = pause_s
            try:
                told = await ask(
                    of,
                    CLAIM_PATH.format(voucher=question.voucher),
                    total_s=_CALL_TIMEOUT_S,
                    headers={"authorization": question.token},
                )
            except UnansweredError:
                reply: str | Reply = Reply.LATER
            else:
                reply = read_reply(told.status, told.json())
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
